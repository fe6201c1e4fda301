"""Peak memory of this process, watched from a thread."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import psutil

__all__ = ["MemoryWatch"]


class MemoryWatch:
    """Context manager that samples resident and anonymous memory; both peaks are in bytes.

    Memory-mapped pages of the data cache count as resident; what must not grow with the rows is ``peak_anon``
    (None where the system does not report it).
    """

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.peak_rss = 0
        self.peak_anon: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def sample(self) -> None:
        """Take one sample now."""
        self.peak_rss = max(self.peak_rss, psutil.Process().memory_info().rss)
        status = Path("/proc/self/status")
        if status.is_file():
            # Anonymous memory is in the kernel's file alone, in KiB.
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak_anon = max(self.peak_anon or 0, int(line.split()[1]) * 1024)

    def _watch(self) -> None:
        while not self._stop.wait(self.seconds):
            self.sample()

    def __enter__(self) -> MemoryWatch:
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()
