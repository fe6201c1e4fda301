"""Typed settings: where each value comes from, what it may be, and what a wrong one is told."""
