"""The columnar cache on disk: one folder per fingerprint of the files and the data settings.

A folder counts only with its manifest, which is written last and names every file with its size; anything else is
torn and built again. A folder is built under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.encode import Encoded, encode
from recbole_dtn.data.sources import Sources, data_folder
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError

__all__ = ["CacheEntry", "build", "cache_clear", "cache_list", "cache_root", "fingerprint", "open_entry"]

FORMAT = 1
"""Raised whenever the arrays or their meaning change, so that older caches are not read."""
MANIFEST = "manifest.json"
VOCABULARIES = "vocabularies.json"
DIGESTS = "digests.json"
READ_BYTES = 1 << 22


def cache_root(settings: Settings) -> Path:
    """The folder of a data set's cache entries."""
    folder = data_folder(settings)
    return Path(settings.cache_dir) / folder.name if settings.cache_dir is not None else folder / ".cache"


def fingerprint(settings: Settings, sources: Sources) -> str:
    """A digest of the files' contents and of the settings that shape the encoded data.

    What only shapes a model (pooling, task weights, the chain of tasks) does not count.
    """
    described = {"format": FORMAT, "files": _file_digests(sources, cache_root(settings)), **_data_settings(settings)}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:20]


def _data_settings(settings: Settings) -> dict[str, Any]:
    dump = settings.dump()
    ordered = settings.split in ("time", "user_time")
    return {
        "fields": [{key: value for key, value in spec.items() if key != "pooling"} for spec in dump["fields"]],
        "tasks": [
            {key: task[key] for key in ("name", "kind", "label", "condition", "observed_when")}
            for task in dump["tasks"]
        ],
        "split_ratio": None if settings.split == "given" else dump["split_ratio"],
        "split_seed": settings.split_seed if settings.split == "random" else None,
        "time_field": settings.time_field if ordered else None,
        "user_field": settings.user_field if settings.split == "user_time" else None,
        **{
            key: dump[key]
            for key in ("split", "min_count", "limit_rows", "group_field", "domain_field", "weight_field")
        },
    }


def _file_digests(sources: Sources, root: Path) -> dict[str, str]:
    """Digest per file, by its ending; remembered by size and time of change, so that it is taken once."""
    memo_path = root / DIGESTS
    memo = _read_json(memo_path) or {}
    found, known = {}, {}
    for path in sources.files():
        state = path.stat()
        key, stamp = (
            path.name.removeprefix(sources.folder.name),
            [str(path.resolve()), state.st_size, state.st_mtime_ns],
        )
        before = memo.get(key)
        found[key] = before[1] if isinstance(before, list) and before[0] == stamp else _digest(path)
        known[key] = [stamp, found[key]]
    if known != memo:
        _write_json(memo_path, known)
    return found


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(name, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); set cache_dir to a folder that can") from None


def open_entry(folder: Path) -> Encoded | None:
    """The contents of a complete entry; None when there is none or it is torn."""
    manifest = _read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not {"files", "encoded"} <= set(manifest):
        return None
    for name, size in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    vocabularies = _read_json(folder / VOCABULARIES)
    if vocabularies is None:
        return None
    return Encoded(Vocabularies.from_dict(vocabularies), **manifest["encoded"])


def build(settings: Settings, sources: Sources, folder: Path, log: Callable[[str], None]) -> Encoded:
    """Encode the data and put it at ``folder``, replacing a torn entry.

    Raises:
        DataError: for faulty data, or a folder that cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    except OSError as error:
        raise DataError(
            f"{folder.parent}: cannot be written ({error.strerror}); set cache_dir to a folder that can"
        ) from None
    try:
        target, scratch = building / "entry", building / "scratch"
        target.mkdir()
        scratch.mkdir()
        encoded = encode(settings, sources, target, scratch, log)
        _write_json(target / VOCABULARIES, encoded.vocabularies.to_dict())
        content = {key: value for key, value in vars(encoded).items() if key != "vocabularies"}
        files = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
        _write_json(target / MANIFEST, {"format": FORMAT, "files": files, "encoded": content})
        if folder.exists() and open_entry(folder) is None:
            shutil.rmtree(folder)
        try:
            target.rename(folder)
        except OSError:
            if open_entry(folder) is None:  # else another process has just built the same
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return encoded


@dataclass(frozen=True)
class CacheEntry:
    """One cache entry, for ``data cache list``."""

    dataset: str
    fingerprint: str
    path: Path
    bytes: int
    rows: int | None
    complete: bool


def cache_list(data_path: str | Path, cache_dir: str | Path | None = None) -> list[CacheEntry]:
    """Every cache entry of the data sets under ``data_path`` (or under ``cache_dir``), torn ones too."""
    roots = [Path(cache_dir)] if cache_dir is not None else []
    pairs = [(folder.name, folder) for root in roots if root.is_dir() for folder in sorted(root.iterdir())]
    if cache_dir is None and Path(data_path).is_dir():
        pairs = [(folder.name, folder / ".cache") for folder in sorted(Path(data_path).iterdir())]
    entries = []
    for name, root in pairs:
        for path in sorted(root.iterdir()) if root.is_dir() else []:
            if path.is_dir():
                entries.append(_entry(name, path))
    return entries


def _entry(dataset: str, path: Path) -> CacheEntry:
    encoded = open_entry(path)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    rows = None if encoded is None else sum(encoded.rows.values())
    return CacheEntry(dataset, path.name, path, size, rows, encoded is not None)


def cache_clear(
    data_path: str | Path, cache_dir: str | Path | None = None, *, dataset: str | None = None
) -> list[CacheEntry]:
    """Remove the cache entries of one data set (its folder's name) or of all; returns what was removed."""
    removed = [entry for entry in cache_list(data_path, cache_dir) if dataset in (None, entry.dataset)]
    for entry in removed:
        shutil.rmtree(entry.path)
        (entry.path.parent / DIGESTS).unlink(missing_ok=True)
    return removed
