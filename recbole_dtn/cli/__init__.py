"""The command line. Parsing and help cost neither torch nor recbole; a command imports what it needs when it runs."""

from recbole_dtn.cli.app import main

__all__ = ["main"]
