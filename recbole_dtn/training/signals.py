"""SIGTERM and Ctrl-C: a run ends at the next batch, with all that it takes to go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from recbole_dtn.errors import Preempted

__all__ = ["Signals"]


class Signals:
    """Context manager: SIGTERM and Ctrl-C in a run.

    Outside of :meth:`deferred` they raise where they come: :class:`~recbole_dtn.errors.Preempted` and
    KeyboardInterrupt. Inside they are noted, and who runs the batches calls :meth:`check` after each of them; a second
    Ctrl-C raises at once. Only the main thread gets signals: elsewhere this does nothing.

    Attributes:
        asked: the signal that has come, or 0. met: whether the end of a batch was reached after it, so that the run
            ends by itself.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.met = False
        self._deferred = 0
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
            # Ignored under nohup, for one.
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note a signal instead of raising."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def check(self) -> None:
        """Raise if a signal has come.

        Raises:
            Preempted: after SIGTERM. KeyboardInterrupt: after Ctrl-C.
        """
        if self.asked:
            self.met = True
            raise Preempted if self.asked == signal.SIGTERM else KeyboardInterrupt

    def _terminate(self, number: int, _: FrameType | None) -> None:
        first, self.asked = self.asked != signal.SIGTERM, signal.SIGTERM
        # Once: what is saved after it is not disturbed by a system that is impatient.
        if first and not self._deferred:
            self.met = True
            raise Preempted

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        if self.asked or not self._deferred:
            self.met = True
            raise KeyboardInterrupt
        self.asked = number
        if sys.stderr.isatty():
            # Not print: the interrupted statement may be in the middle of one.
            os.write(2, b"\nstopping after this batch; Ctrl-C again stops at once\n")
