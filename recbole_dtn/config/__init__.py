"""Typed settings: sources, types and ranges, and error messages."""
