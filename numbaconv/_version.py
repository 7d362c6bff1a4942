"""The version, read by the build and by ``numbaconv.__version__``: its only place."""

__version__ = "0.1.0"
