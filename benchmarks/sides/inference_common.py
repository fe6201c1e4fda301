"""What every side of the inference benchmark shares; imports nothing of ours, since each peer's interpreter runs it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

LARGE, SINGLES, WARM_UP = 8192, 2000, 200
"""Rows of a large batch; batches of one row, of which so many warm up."""


def starts(rows: int) -> range:
    """First rows of the large batches."""
    return range(0, rows - LARGE + 1, LARGE)


def finish(score: Callable[[Any], Any], large: Sequence[Any], single: Sequence[Any], place: Any) -> None:
    """Time ``score`` on ready batches, and print the line that the harness reads (``place``: a ``Place``).

    ``seconds``: all large batches, the second time. ``p50_us``, ``p99_us``: one row, over ``SINGLES`` calls. On a GPU
    each of the two is until the GPU is done, for one row call by call.
    """
    for batch in large:
        score(batch)
    start, cpu = place.clock(), time.process_time()
    for batch in large:
        score(batch)
    seconds, used = place.clock() - start, time.process_time() - cpu
    times = []
    for number in range(WARM_UP + SINGLES if single else 0):
        batch = single[number % len(single)]
        start = place.clock()
        score(batch)
        times.append(place.clock() - start)
    times = sorted(times[WARM_UP:])
    found: dict[str, Any] = {"seconds": seconds, "scored": len(large) * LARGE, "call_cpu": used, **place.found()}
    if times:
        found |= {f"p{share}_us": times[len(times) * share // 100] * 1e6 for share in (10, 50, 99)}
    print(json.dumps(found))
