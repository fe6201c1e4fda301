"""Fuzzing: real small files and command lines, mutated, given to the code that reads them.

Run by hand or nightly: ``python -m tests.fuzz --seconds=60``. A pytest run has a few inputs per target.
"""
