"""Formats and grammars written a second time, in plain Python, apart from the package."""
