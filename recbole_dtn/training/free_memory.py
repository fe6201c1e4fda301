"""Memory that this process can still take: the machine's, what its control groups leave, or a GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

__all__ = ["cgroup_free", "free_memory", "gpu_free"]

ROOT = Path("/sys/fs/cgroup")
GROUPS = Path("/proc/self/cgroup")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files with the limit and the use of a group, and the entry of ``memory.stat`` with what can be given up at once."""


def free_memory() -> int:
    """Bytes that this process can still take before the system, or the limit of a container, ends it."""
    return min([psutil.virtual_memory().available, *cgroup_free()])


def gpu_free(index: int = 0) -> int:
    """Free bytes of a CUDA device."""
    return torch.cuda.mem_get_info(index)[0]


def cgroup_free(root: Path = ROOT, groups: Path = GROUPS) -> Iterator[int]:
    """What each limit on this process leaves, in bytes, by version 1 and 2 of control groups.

    Args:
        root: where the groups are mounted. groups: file with the groups of this process.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # number:controllers:/path; version 2 names no controllers.
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _of_group(root, path, VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _of_group(root / "memory", path, VERSION_1)


def _of_group(top: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """The group and those that it is part of. In a container, the path may be one of the host that is not there."""
    own = top / path.lstrip("/")
    for folder in (own, *own.parents):
        if folder.is_relative_to(top) and (found := _left(folder, names)) is not None:
            yield found


def _left(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, used = (_number(folder / name) for name in names[:2])
    # Without a limit, version 2 says "max"; version 1 has a number beyond any memory.
    if limit is None or used is None:
        return None
    return max(0, limit - used + _given_up(folder / "memory.stat", names[2]))


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _given_up(file: Path, name: str) -> int:
    """Pages of files, which count as used but are given up where memory is wanted."""
    try:
        entries = (line.split() for line in file.read_text().splitlines())
        return next((int(entry[1]) for entry in entries if entry[:1] == [name]), 0)
    except OSError:
        return 0
