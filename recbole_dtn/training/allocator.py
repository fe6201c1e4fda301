"""Settings of glibc's allocator that let large blocks be reused in every training step."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any

__all__ = ["KEEP_ABOVE", "MAP_ABOVE", "keep_large_blocks"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h

MAP_ABOVE = 2**28
"""Bytes of the largest block that comes from the heap, which is reused, instead of from a new mapping, which the kernel
clears page by page."""
KEEP_ABOVE = 2**29
"""Bytes of free memory at the end of the heap beyond which glibc returns them to the system."""


def keep_large_blocks(load: Callable[[], Any] | None = None) -> bool:
    """Raise glibc's thresholds; nothing is done elsewhere, or where the environment sets them (``MALLOC_...``).

    By default glibc maps every block of more than 128 KiB (a threshold that grows to 32 MiB at most) and trims its
    heap, so that the activations of each step are zeroed pages again.

    Args:
        load: opens the C library; for tests.

    Returns:
        Whether both thresholds were set.
    """
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")):
        return False
    if load is None:
        if platform.libc_ver()[0] != "glibc":
            return False
        load = _this_process
    try:
        library = load()
        return all(
            # mallopt returns 1 where it has set the option. Setting one also turns off glibc's own adjustment of the
            # threshold.
            library.mallopt(option, value) == 1
            for option, value in ((M_MMAP_THRESHOLD, MAP_ABOVE), (M_TRIM_THRESHOLD, KEEP_ABOVE))
        )
    except (OSError, AttributeError):  # no such library, or one without mallopt
        return False


def _this_process() -> ctypes.CDLL:
    return ctypes.CDLL(None)
