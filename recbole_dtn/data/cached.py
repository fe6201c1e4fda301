"""List and remove entries of the columnar cache. Needs neither torch nor polars."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_dtn.data.building import is_building
from recbole_dtn.errors import DataError
from recbole_dtn.report.files import read_json as read_file

__all__ = ["CacheEntry", "cache_clear", "cache_list", "complete_manifest", "read_json"]

FORMAT = 3
"""Raised whenever the arrays or their meaning change, so that older caches are not read."""
MANIFEST = "manifest.json"
DIGESTS = "digests.json"


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
    """The manifest of an entry whose files all have their size; None when the entry is missing or incomplete."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or manifest.get("format") != FORMAT:
        return None
    try:
        # Sizes find files cut off by a full disk or a killed copy, without reading them.
        incomplete = any((folder / name).stat().st_size != size for name, size in manifest["files"].items())
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return None if incomplete else manifest


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
