"""Move all files of a data set into place together.

With faulty input the folder is unchanged. Files are overwritten only with ``overwrite``.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from recbole_dtn.config.datasets import INCOMPLETE
from recbole_dtn.data.building import WRITING, guarded, locked_folder
from recbole_dtn.data.sources import PARTS
from recbole_dtn.errors import DataError, RecBoleDTNError, UsageError
from recbole_dtn.report.files import check_place

__all__ = ["FAILED", "REJECTED", "dataset_files", "dataset_lock", "refuse_existing", "staged"]

REJECTED = "rejected.tsv"
FAILED = "rejected.failed.tsv"
"""The rejected rows of a run that failed, beside a data set that stays as it was."""
SUFFIXES = (".inter", ".user", ".item", ".yaml")


def dataset_files(folder: Path) -> list[Path]:
    """The files that make a folder a data set: ``.inter``, ``.user``, ``.item`` and ``.yaml``, sorted.

    None are returned where an earlier process ended while it moved them there.
    """
    if not folder.is_dir() or (folder / INCOMPLETE).exists():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith("."))


def refuse_existing(folder: Path) -> None:
    """Refuse a folder that holds a data set.

    Raises:
        UsageError: naming its files and the switch that replaces them.
    """
    found = dataset_files(folder)
    if found:
        _refuse(folder, found)


def dataset_lock(folder: Path) -> FileLock:
    """The lock of a data set's folder, a file beside it, for the process that makes or encodes the data set.

    A process may take it again while it has it. It ends with the process, however that ends.
    """
    return FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a data set.

    Raises:
        UsageError: when another process holds it.
    """
    lock = dataset_lock(folder)
    nested = lock.is_locked
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"{folder}: another process is making or encoding this data set; wait until it has ended, or choose "
            "another --name"
        ) from None
    try:
        yield
    finally:
        if not nested:  # before it is given back: another process could hold it by then
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _refuse(folder: Path, found: list[Path]) -> None:
    raise UsageError(
        f"{folder} holds a data set already ({', '.join(path.name for path in found)}): choose another --name, or "
        "replace it with --overwrite"
    )


@contextmanager
def staged(folder: Path, name: str, *, overwrite: bool, same: bool = False) -> Iterator[tuple[Path, Path]]:
    """``with staged(folder, name, overwrite=...) as (work, scratch)``: ``work`` becomes the data set's files.

    With ``overwrite``, all other files of the data set ``name`` in ``folder`` (parts, ``.user``, ``.item``, YAML) are
    removed after the new files are in place. Lists of rejected rows of earlier runs are always removed. A failure
    leaves ``folder`` as it was, or absent. ``scratch`` is removed. One process at a time makes a data set.

    Args:
        folder: of the data set. name: of its files. overwrite: replace a data set that is there.
        same: without ``overwrite``, files equal to those written may be there, and others that are not written.

    Raises:
        UsageError: when a data set is there and ``overwrite`` is not given, another process is making it, or the place
            cannot be written. DataError: where writing fails.
    """
    check_place(folder, str(folder))
    if not overwrite and not same:
        refuse_existing(folder)
    parent = folder.parent
    # Folders that this call makes, and removes again if it fails.
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder), locked_folder(parent, f"{WRITING}{name}-") as held:
                work, scratch = held / "files", held / "scratch"
                work.mkdir()
                scratch.mkdir()
                try:
                    yield work, scratch
                    # A process that does not know the lock may have made the data set meanwhile.
                    with guarded(parent):
                        _move(work, folder, name, overwrite=overwrite, same=same)
                except RecBoleDTNError as error:
                    # Messages name the file where the user will find it, not the temporary one.
                    raise type(error)(str(error).replace(str(work), str(folder))) from None
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from None
    except BaseException:
        for path in missing:  # the innermost first; one that others use by now is not empty
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def _move(work: Path, folder: Path, name: str, *, overwrite: bool, same: bool) -> None:
    made = sorted(work.iterdir())
    unfinished = folder / INCOMPLETE
    replaced = overwrite or unfinished.exists()
    if not replaced and not same:
        refuse_existing(folder)
    if not replaced:
        there = [folder / path.name for path in made if path.suffix in SUFFIXES and (folder / path.name).exists()]
        differing = [path for path in there if not filecmp.cmp(path, work / path.name, shallow=False)]
        if differing:
            _refuse(folder, differing)
    folder.mkdir(exist_ok=True)
    # While the marker is there, the folder counts as no data set: a process killed between two moves leaves no mixture.
    unfinished.touch()
    for path in made:
        # Same file system (``work`` lies beside ``folder``): a rename, no copy.
        os.replace(path, folder / path.name)
    stale = {REJECTED, FAILED}
    if replaced:
        kinds = ("inter", *(f"{part}.inter" for part in PARTS), "user", "item", "yaml")
        stale |= {*(f"{name}.{kind}" for kind in kinds), "preprocess.json"}
    for file in stale - {path.name for path in made}:
        (folder / file).unlink(missing_ok=True)
    unfinished.unlink()
