"""Compute the next items of an iterator in a thread, ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


class _End:
    """After the last item: the error that ended them, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterator[T], count: int) -> Generator[T]:
    """The same items, up to ``count`` of them computed ahead in a thread. An error is raised where its item would come.

    Closing it ends the thread.

    >>> list(ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    # One more item may be computed and waiting to be put.
    ready: queue.Queue[T | _End] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: T | _End) -> bool:
        # Put with a timeout, to notice that the consumer left while the queue was full.
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_End())
        except BaseException as error:
            put(_End(error))
        finally:
            # Closed by this thread: a generator that is running cannot be closed by another.
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        # When ``ahead`` is closed, the files that ``items`` had open are closed too.
        thread.join()
