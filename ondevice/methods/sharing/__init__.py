"""Methods whose rows share a smaller table."""

from ondevice.registry import import_siblings

import_siblings(__name__, list(__path__))
