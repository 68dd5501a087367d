"""The version of the package; read by the build as well, so nothing is imported here."""

__version__ = "0.1.0"
