"""The version, in one place: setup.py, ``--version`` and the run records read it here."""

__version__ = "0.1.0"
