"""Methods that end in how many dimensions each row keeps."""

from ondevice.registry import import_siblings

import_siblings(__name__, list(__path__))
