"""Check every file of cache entries, and the atomic files that they were made from. Needs neither torch nor polars."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_dtn.data.building import is_building
from recbole_dtn.data.cached import CHECKED, DIGESTS, FORMAT, MANIFEST, read_json
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.sums import file_sum, identity, read_signed

__all__ = ["FileState", "entries_in", "verify_entry", "verify_sources"]

RIGHT = "right"
CHANGED = "does not have its checksum"


@dataclass(frozen=True)
class FileState:
    """What was found of one file: ``right``, or what is wrong. ``fault``: whether its content cannot be trusted."""

    path: Path
    state: str = RIGHT
    fault: bool = False


def entries_in(folder: Path) -> list[Path]:
    """The cache entries of a folder: itself, those that it holds, or those of the data set that it is."""
    if (folder / MANIFEST).is_file():
        return [folder]
    root = folder / ".cache" if (folder / ".cache").is_dir() else folder
    found = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(path for path in found if not is_building(path))


def verify_entry(folder: Path, meter: Meter = silent) -> Iterator[FileState]:
    """Read every file of an entry and compare it with its checksum; the manifest comes first.

    A file that is faulty is read again by the next run, too, which then makes the entry again.
    """
    manifest = read_signed(folder / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT:
        yield _of_manifest(folder / MANIFEST)
        return
    yield FileState(folder / MANIFEST)
    total = sum(manifest["files"].values())
    done = 0
    for name, size in manifest["files"].items():
        found = _of_array(folder / name, size, manifest["sums"][name])
        if found.fault:
            with suppress(OSError):
                (folder / CHECKED).unlink(missing_ok=True)
        yield found
        done += size
        meter("checking the cache", done, total)
    # What runs have kept in the entry beside its arrays.
    for path in sorted(folder.glob("*.json")):
        if path.name not in manifest["files"] and path.name != MANIFEST:
            yield _of_kept(path)


def _of_manifest(path: Path) -> FileState:
    if not path.is_file():
        return FileState(path, "missing: the entry is incomplete, and made again when it is needed", fault=True)
    content = read_json(path)
    if content is not None and ("sum" not in content or content.get("format") != FORMAT):
        return FileState(path, "of an earlier version, without checksums: made again when it is needed")
    return FileState(path, CHANGED, fault=True)


def _of_array(path: Path, size: int, wanted: str) -> FileState:
    try:
        found = path.stat().st_size
        if found != size:
            return FileState(path, f"has {found:,} bytes, expected {size:,}", fault=True)
        return FileState(path) if file_sum(path) == wanted else FileState(path, CHANGED, fault=True)
    except FileNotFoundError:
        return FileState(path, "missing", fault=True)
    except OSError as error:
        return FileState(path, f"cannot be read ({error.strerror})", fault=True)


def _of_kept(path: Path) -> FileState:
    return FileState(path) if read_signed(path) is not None else FileState(path, CHANGED, fault=True)


def verify_sources(root: Path, meter: Meter = silent) -> Iterator[FileState]:
    """Compare the atomic files with the digests that a cache's ``root`` holds of them, and check that list itself."""
    path = root / DIGESTS
    if not path.is_file():
        return
    memo = read_signed(path)
    if memo is None:
        unsigned = "sum" not in (read_json(path) or {"sum": ""})
        yield FileState(path, "of an earlier version, without a checksum") if unsigned else _of_kept(path)
        return
    yield FileState(path)
    for stamp, digest in memo.values():
        yield _of_source(Path(stamp[0]), stamp[1:], digest, meter)


def _of_source(path: Path, before: list[Any], digest: str, meter: Meter) -> FileState:
    try:
        if identity(path) != before:
            return FileState(path, "written since it was encoded: read again by the next run")
        meter(f"reading {path.name}", 0, before[0])
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        meter(f"reading {path.name}", before[0], before[0])
    except FileNotFoundError:
        return FileState(path, "not there any more")
    except OSError as error:
        return FileState(path, f"cannot be read ({error.strerror})", fault=True)
    if found == digest:
        return FileState(path)
    return FileState(path, "has another content than when it was encoded, with the same size and times", fault=True)
