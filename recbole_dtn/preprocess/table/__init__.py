"""The table preprocessor and its spec, each imported from its own module."""
