"""The columnar cache on disk: one folder per fingerprint of the files and the data settings.

An entry is complete when it has its manifest, which is written last and lists every file with its size and checksum. An
incomplete entry is built again, and so is one with a file that does not have its checksum: the cache holds nothing that
the atomic files do not. A folder is built under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.building import building
from recbole_dtn.data.cached import (
    DIGESTS,
    FORMAT,
    MANIFEST,
    complete_manifest,
    faulty_file,
    read_json,
)  # fmt: skip
from recbole_dtn.data.encode import Encoded, encode
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.sources import PARTS, Sources, data_folder
from recbole_dtn.data.sums import file_sums, identity, read_signed, write_signed
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError

__all__ = ["cache_root", "fingerprint", "open_entry", "open_or_build", "split_free_fingerprint"]

VOCABULARIES = "vocabularies.json"
# Bytes read at a time for a digest alone.
READ_BYTES = 1 << 22


def cache_root(settings: Settings) -> Path:
    """The folder of a data set's cache entries."""
    folder = data_folder(settings)
    return Path(settings.cache_dir) / folder.name if settings.cache_dir is not None else folder / ".cache"


def fingerprint(settings: Settings, sources: Sources) -> str:
    """A digest of the files' contents and of the settings that shape the encoded data.

    What only shapes a model (pooling, task weights, the chain of tasks) does not count.
    """
    reading = _Reading(sources, cache_root(settings), silent)
    reading.read_rest()
    return _fingerprint(settings, sources, reading.digests())


def split_free_fingerprint(settings: Settings, sources: Sources) -> str:
    """:func:`fingerprint` without the seed of the split, the fold and the column of domains.

    It is equal for all splits of one data set, and for models with and without domains: their rows and labels are the
    same.
    """
    return fingerprint(settings.model_copy(update={"split_seed": 0, "fold": None, "domain_field": None}), sources)


def _fingerprint(settings: Settings, sources: Sources, digests: dict[str, str]) -> str:
    # 20 hexadecimal digits are 80 bits, more than enough to tell the entries of one data set apart.
    described = {"format": FORMAT, "files": digests, **_data_settings(settings, sources)}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:20]


def _data_settings(settings: Settings, sources: Sources) -> dict[str, Any]:
    dump = settings.dump()
    # Settings that the chosen split does not read are left out, so that changing them does not encode again.
    ordered = settings.split in ("time", "user_time")
    all_given = settings.split == "given" and len(sources.inter.paths) == len(PARTS)
    drawn = settings.split in ("random", "column") or (settings.split == "given" and not all_given)
    # Keys that are null are left out, so that entries of versions without them stay valid.
    later = {key: dump[key] for key in ("stratify", "folds", "fold") if drawn and dump[key] is not None}
    if settings.split == "column":
        later["split_field"] = settings.split_field
    return {
        "fields": [{key: value for key, value in spec.items() if key != "pooling"} for spec in dump["fields"]],
        "tasks": [
            {key: task[key] for key in ("name", "kind", "label", "condition", "observed_when")}
            for task in dump["tasks"]
        ],
        "split_ratio": None if all_given else dump["split_ratio"],
        "split_seed": settings.split_seed if drawn else None,
        "time_field": settings.time_field if ordered else None,
        "user_field": settings.user_field if settings.split == "user_time" else None,
        **{
            key: dump[key]
            for key in ("split", "min_count", "limit_rows", "group_field", "domain_field", "weight_field")
        },
        **later,
    }


class _Reading:
    """Digests of a data set's files by their endings, remembered by size and times of change: each is taken once.

    It is a :data:`~recbole_dtn.data.atomic.Tap`: a file that is encoded is digested on the way, and read once.

    Args:
        sources: the files. root: of the cache, where digests are kept. meter: gets the progress.
        full: take every digest again; ``log`` then gets a warning of a file that has another content than its size and
            times of change say.
    """

    def __init__(
        self,
        sources: Sources,
        root: Path,
        meter: Meter,
        *,
        full: bool = False,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.log = log
        self.memo_path, self.meter = root / DIGESTS, meter
        self.paths = sources.files()
        self.keys = {path: path.name.removeprefix(sources.folder.name) for path in self.paths}
        self.stamps = {path: _stamp(path) for path in self.paths}
        self.memo = read_signed(self.memo_path) or {}
        # Digests taken in an earlier run count while path, size and times of change are the same.
        before: dict[Path, str] = {}
        for path in self.paths:
            # An entry of another form was not written here: its file is read again.
            match self.memo.get(self.keys[path]):
                case [stamp, str(digest)] if stamp == self.stamps[path]:
                    before[path] = digest
        self.known: dict[Path, str] = {} if full else dict(before)
        self.before = before
        # Digests that are being taken, by file.
        self.running: dict[Path, Any] = {}
        self.done, self.total = 0, sum(stamp[1] for stamp in self.stamps.values())

    def __call__(self, path: Path, data: bytes) -> None:
        if path not in self.known:
            # Bytes come in order, and one file is read at a time: the digest is complete when the file was read to its
            # end.
            self.running.setdefault(path, hashlib.sha256()).update(data)
        self.done += len(data)
        self.meter(f"reading {path.name}", self.done, self.total)

    def read_rest(self) -> None:
        """Read the files whose digest is still to be taken."""
        self.done = self.total - sum(self.stamps[path][1] for path in self._missing())
        for path in self._missing():
            with path.open("rb") as file:
                while data := file.read(READ_BYTES):
                    self(path, data)

    def _missing(self) -> list[Path]:
        return [path for path in self.paths if path not in self.known and path not in self.running]

    def digests(self) -> dict[str, str]:
        """Of every file, once each was read to its end.

        Raises:
            DataError: when a file is another now than when reading began.
        """
        for path in self.paths:
            # A file that changed while it was read may have been encoded half old, half new.
            if _stamp(path) != self.stamps[path]:
                raise DataError(f"{path}: changed while it was read; run again when it is complete")
        self.known |= {path: digest.hexdigest() for path, digest in self.running.items()}
        for path in self.running.keys() & self.before.keys():
            if self.known[path] != self.before[path]:
                self.log(
                    f"warning: {path} has another content than when it was read before, with the same size and times "
                    "of change: compare it with your copy; it is encoded as it is now"
                )
        self.running = {}
        content = {self.keys[path]: [self.stamps[path], self.known[path]] for path in self.paths}
        if content != self.memo:
            self.memo = content
            _write(self.memo_path, content)
        return {self.keys[path]: self.known[path] for path in self.paths}


def _stamp(path: Path) -> list[Any]:
    return [str(path.resolve()), *identity(path)]


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_signed(path, content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); set cache_dir to a writable folder") from None


def open_entry(
    folder: Path, *, full: bool = False, log: Callable[[str], None] = lambda text: None, meter: Meter = silent
) -> Encoded | None:
    """The contents of an entry; None when there is none, it is incomplete, or a file does not have its checksum.

    Args:
        folder: of the entry. full: read every file; else those that were not checked before as they are now.
        log: gets a warning that names the file. meter: gets the progress of checking.
    """
    manifest = complete_manifest(folder)
    if manifest is None:
        return None
    try:
        faulty = faulty_file(folder, manifest, full=full, meter=meter)
        if faulty is not None:
            log(
                f"warning: {faulty} does not have its checksum: a fault of the disk or of memory, or another program "
                "changed it. The cache is made again from the atomic files; if this comes back, check the disk"
            )
            return None
        vocabularies = read_json(folder / VOCABULARIES)
        return None if vocabularies is None else _encoded(vocabularies, manifest["encoded"])
    except (OSError, KeyError, TypeError, AttributeError, ValueError):
        return None


def _encoded(vocabularies: dict[str, Any], content: dict[str, Any]) -> Encoded:
    return Encoded(Vocabularies.from_dict(vocabularies), **content)


def open_or_build(
    settings: Settings, sources: Sources, *, log: Callable[[str], None], meter: Meter = silent
) -> tuple[Encoded, Path, bool]:
    """The cache entry of a data set, its folder, and whether it existed before.

    A file whose digest is unknown is read only once, for its digest and for encoding, when the cache has no entry that
    it could match.

    Raises:
        DataError: for faulty data, or a folder that cannot be written.
    """
    root = cache_root(settings)
    full = settings.check == "full"
    reading = _Reading(sources, root, meter, full=full, log=log)
    # With a limit, encoding does not reach the ends of the files; with entries, the digest may save the encoding.
    if settings.limit_rows is not None or _has_entries(root):
        reading.read_rest()
    if len(reading.known) + len(reading.running) == len(reading.paths):
        folder = root / _fingerprint(settings, sources, reading.digests())
        encoded = open_entry(folder, full=full, log=log, meter=meter)
        if encoded is not None:
            return encoded, folder, True
        why = " again: its cache is incomplete, faulty or of an earlier version" if folder.exists() else ""
        log(f"encoding {sources.folder}{why}")
    else:
        log(f"encoding {sources.folder}")
    encoded, folder = _build(settings, sources, reading, log)
    return encoded, folder, False


def _has_entries(root: Path) -> bool:
    return root.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in root.iterdir())


def _build(settings: Settings, sources: Sources, reading: _Reading, log: Callable[[str], None]) -> tuple[Encoded, Path]:
    """Encode the data into a new entry, which replaces an incomplete one."""
    root = cache_root(settings)
    try:
        with building(root) as work:
            target, scratch = work / "entry", work / "scratch"
            target.mkdir()
            scratch.mkdir()
            reading.done = 0
            encoded = encode(settings, sources, target, scratch, log, reading.meter, reading)
            reading.read_rest()
            folder = root / _fingerprint(settings, sources, reading.digests())
            _write(target / VOCABULARIES, encoded.vocabularies.to_dict())
            content = {key: value for key, value in vars(encoded).items() if key != "vocabularies"}
            # The manifest comes last and is not among the files: an entry without it is incomplete.
            paths = sorted(target.iterdir())
            files = {path.name: path.stat().st_size for path in paths}
            sums = dict(zip(files, file_sums([(path, files[path.name]) for path in paths]), strict=True))
            _write(target / MANIFEST, {"format": FORMAT, "files": files, "sums": sums, "encoded": content})
            _publish(target, folder)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: cannot be written ({error.strerror or error}); set cache_dir to a folder that "
            "is writable and has free space"
        ) from None
    return encoded, folder


def _publish(target: Path, folder: Path) -> None:
    if folder.exists() and open_entry(folder) is None:
        shutil.rmtree(folder)
    try:
        # Atomic: other processes see no entry or a complete one. It fails where a folder with files is there already.
        target.rename(folder)
    except OSError:
        if open_entry(folder) is None:  # otherwise another process has just built the same entry
            raise
