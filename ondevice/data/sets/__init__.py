"""Data sets: one a file. Importing the package registers them all."""

from ondevice.registry import import_siblings

import_siblings(__name__, list(__path__))
