"""The census preprocessor and its options, each imported from its own module."""
