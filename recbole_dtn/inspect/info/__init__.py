"""The statistics behind ``data info``."""
