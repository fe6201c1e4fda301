"""List, check and remove entries of the columnar cache. Needs neither torch nor polars."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_dtn.data.building import is_building
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.sums import file_sums, identity, read_signed, write_signed
from recbole_dtn.errors import DataError
from recbole_dtn.report.files import read_json as read_file

__all__ = ["CacheEntry", "cache_clear", "cache_list", "complete_manifest", "faulty_file", "read_json"]

FORMAT = 3
"""Raised whenever the arrays or their meaning change, so that older caches are not read."""
MANIFEST = "manifest.json"
DIGESTS = "digests.json"
CHECKED = "checked.json"
"""In an entry: the identity that each file had when its checksum was found right."""


@dataclass(frozen=True)
class CacheEntry:
    """One cache entry, for ``data cache list``."""

    dataset: str
    fingerprint: str
    path: Path
    bytes: int
    rows: int | None
    complete: bool


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when there is none or it cannot be read."""
    try:
        content = read_file(path)
    except DataError:
        return None
    return content if isinstance(content, dict) else None


def complete_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an entry whose files all have their size; None when the entry is missing or incomplete.

    A manifest that was changed, or that has no checksums (an earlier version wrote it), is none.
    """
    manifest = read_signed(folder / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT:
        return None
    try:
        # Sizes find files cut off by a full disk or a killed copy, without reading them.
        incomplete = any((folder / name).stat().st_size != size for name, size in manifest["files"].items())
        incomplete = incomplete or manifest["files"].keys() != manifest["sums"].keys()
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return None if incomplete else manifest


def faulty_file(folder: Path, manifest: dict[str, Any], *, full: bool = False, meter: Meter = silent) -> Path | None:
    """The first file of a complete entry whose content does not have its checksum; None where all have it.

    Files that were found right and are the same since, by size, times of change and inode, are not read again. Which
    these are is kept in the entry, where that can be written. Those who write an entry do not note its files as right:
    a power cut may lose what was written and not what was noted.

    Args:
        folder: of the entry. manifest: of :func:`complete_manifest`. full: read all files.
        meter: gets the bytes that have been read.

    Raises:
        OSError: when a file cannot be read.
    """
    # Taken before the files are read: a file that is written meanwhile is read again the next time.
    now = {name: identity(folder / name) for name in manifest["sums"]}
    known = {} if full else _checked(folder)
    unknown = [name for name in now if known.get(name) != now[name]]
    total, done = sum(manifest["files"][name] for name in unknown), 0
    found = file_sums([(folder / name, manifest["files"][name]) for name in unknown])
    for name, digest in zip(unknown, found, strict=True):
        if digest != manifest["sums"][name]:
            with suppress(OSError):  # so that the other files, too, are not trusted without being read
                (folder / CHECKED).unlink(missing_ok=True)
            faulty: Path = folder / name
            return faulty
        done += manifest["files"][name]
        meter("checking the cache", done, total)
    if unknown:
        with suppress(OSError):
            write_signed(folder / CHECKED, {"files": now})
    return None


def _checked(folder: Path) -> dict[str, Any]:
    found = (read_signed(folder / CHECKED) or {}).get("files")
    return found if isinstance(found, dict) else {}


def cache_list(data_path: str | Path, cache_dir: str | Path | None = None) -> list[CacheEntry]:
    """Cache entries under ``data_path`` (or ``cache_dir``): incomplete ones too, but none that is being built."""
    roots = [Path(cache_dir)] if cache_dir is not None else []
    pairs = [(folder.name, folder) for root in roots if root.is_dir() for folder in sorted(root.iterdir())]
    if cache_dir is None and Path(data_path).is_dir():
        pairs = [(folder.name, folder / ".cache") for folder in sorted(Path(data_path).iterdir())]
    entries = []
    for name, root in pairs:
        for path in sorted(root.iterdir()) if root.is_dir() else []:
            if path.is_dir() and not is_building(path):
                entries.append(_entry(name, path))
    return entries


def _entry(dataset: str, path: Path) -> CacheEntry:
    rows = _rows(complete_manifest(path))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return CacheEntry(dataset, path.name, path, size, rows, rows is not None)


def _rows(manifest: dict[str, Any] | None) -> int | None:
    try:
        return None if manifest is None else sum(manifest["encoded"]["rows"].values())
    except (KeyError, TypeError, AttributeError):
        return None


def cache_clear(
    data_path: str | Path, cache_dir: str | Path | None = None, *, dataset: str | None = None
) -> list[CacheEntry]:
    """Remove the cache entries of one data set (its folder's name) or of all; returns what was removed."""
    removed = [entry for entry in cache_list(data_path, cache_dir) if dataset in (None, entry.dataset)]
    for entry in removed:
        shutil.rmtree(entry.path)
        # The digests of the data set's files are taken again.
        (entry.path.parent / DIGESTS).unlink(missing_ok=True)
    return removed
