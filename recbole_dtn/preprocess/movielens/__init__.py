"""The movielens preprocessor and its options; importing this package imports neither."""
