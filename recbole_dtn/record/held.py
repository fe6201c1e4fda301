"""Signals that wait for the end of a few statements."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["held"]


@contextmanager
def held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the end of a few statements that belong together."""
    # Only the main thread gets signals, and only it may say what they do.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    come: list[int] = []
    before = {
        number: signal.signal(number, lambda given, _: come.append(given)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for found in dict.fromkeys(come):
            # Through the system, so that a default action is taken too.
            os.kill(os.getpid(), found)
