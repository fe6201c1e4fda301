"""The census preprocessor and its options; importing this package imports neither."""
