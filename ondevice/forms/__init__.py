"""Forms: the ways in which a table can be stored. One form, one file; importing the package registers them all."""

from ondevice.forms.base import FORMS, Form
from ondevice.registry import import_siblings

import_siblings(__name__, list(__path__))

__all__ = ["FORMS", "Form"]
