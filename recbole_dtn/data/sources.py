"""The atomic files of a data set, and the file that each column is in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recbole_dtn.config.datasets import INCOMPLETE
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.splits import part_files
from recbole_dtn.config.tasks import task_columns
from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.errors import DataError, nearest

__all__ = ["PARTS", "Side", "Sources", "data_folder", "find_sources", "needed_columns"]

PARTS = ("train", "valid", "test")


def data_folder(settings: Settings) -> Path:
    """The folder of the atomic files, ``<data_path>/<folder or dataset>``."""
    return Path(settings.data_path) / (settings.folder or settings.dataset)


@dataclass(frozen=True)
class Side:
    """A side table (``user`` or ``item``): one row per value of ``key``, a column it shares with the interactions."""

    kind: str
    table: AtomicTable
    key: str


@dataclass(frozen=True)
class Sources:
    """The interactions and the side tables that a data set has."""

    folder: Path
    inter: AtomicTable
    sides: tuple[Side, ...]

    def owner(self, column: str, *, wanted_by: str) -> str:
        """The table that has a column: ``inter``, ``user`` or ``item``.

        Raises:
            DataError: when no file has it.
        """
        if column in self.inter.names:
            return "inter"
        for side in self.sides:
            if column in side.table.names:
                return side.kind
        known = [*self.inter.names, *(name for side in self.sides for name in side.table.names)]
        raise DataError(f"{self.folder}: no file has the column {column!r} ({wanted_by}); {nearest(column, known)}")

    def table(self, kind: str) -> AtomicTable:
        """The table of that kind."""
        return self.inter if kind == "inter" else next(side.table for side in self.sides if side.kind == kind)

    def files(self) -> tuple[Path, ...]:
        """Every file."""
        return (*self.inter.paths, *(path for side in self.sides for path in side.table.paths))


def find_sources(folder: Path, *, given: bool, key_hints: Iterable[str] = ()) -> Sources:
    """Open the headers of ``<folder>/<name>[.<part>].inter``, ``.user`` and ``.item``, name being the folder's.

    Args:
        folder: of the atomic files. given: whether the interactions are in the files train, valid (optional), test.
        key_hints: columns that are keys (``user_field``), where a side table shares several with the interactions.

    Raises:
        DataError: for missing files, and side tables without a single key.
    """
    name = folder.name
    if (folder / INCOMPLETE).exists():
        raise DataError(
            f"{folder}: the process that made these files ended before all of them were there; make them again with "
            "the same command"
        )
    expected = part_files(folder)[0] if given else [folder / f"{name}.inter"]
    missing = [path.name for path in expected if not path.is_file()]
    if missing:
        there = sorted(path.name for path in folder.glob("*.inter")) if folder.is_dir() else []
        found = f"found {', '.join(there)}" if there else "found no .inter file"
        hint = ""
        if given:
            hint = "; split: given needs train and test; without valid, validation is drawn from train"
        elif any(path.name == f"{name}.train.inter" for path in folder.glob("*.train.inter")):
            hint = "; for files in parts set split: given"
        raise DataError(f"{folder}: expected {', '.join(missing)}, {found}{hint}")
    inter = AtomicTable(expected)
    sides = []
    for kind in ("user", "item"):
        path = folder / f"{name}.{kind}"
        if path.is_file():
            table = AtomicTable([path])
            sides.append(Side(kind, table, _key(table, inter, set(key_hints))))
    _refuse_shared(sides)
    return Sources(folder, inter, tuple(sides))


def _key(table: AtomicTable, inter: AtomicTable, hints: set[str]) -> str:
    path = table.paths[0]
    shared = [name for name in table.names if name in inter.names]
    if not shared:
        raise DataError(
            f"{path}, line 1: shares no column with {inter.paths[0].name}, so its rows belong to no interaction "
            f"(its columns: {', '.join(table.names)})"
        )
    # A named key wins; otherwise the first column of the side table that the interactions have too.
    key = next((name for name in shared if name in hints), shared[0])
    others = [name for name in shared if name != key]
    if others:
        raise DataError(
            f"{path}, line 1: column {others[0]!r} is in {inter.paths[0].name} too, and {key!r} is the key; "
            "stock RecBole would mix the two up: rename or remove one"
        )
    if table.type_of(key) != "token" or inter.type_of(key) != "token":
        raise DataError(f"{path}, line 1: the key {key!r} must be of type token in both files")
    return key


def _refuse_shared(sides: list[Side]) -> None:
    if len(sides) == 2:
        user, item = sides
        for name in user.table.names:
            # The key of the users may be in both: it is a column of the interactions, where `_key` has checked it.
            if name in item.table.names and name != user.key:
                raise DataError(f"{item.table.paths[0]}, line 1: column {name!r} is in {user.table.paths[0].name} too")


def needed_columns(settings: Settings) -> dict[str, str]:
    """Columns to read; the value describes what needs the column, for messages."""
    needed: dict[str, str] = {}
    for spec in settings.fields:
        needed.setdefault(spec.name, f"field {spec.name!r}")
        if spec.weights is not None:
            needed.setdefault(spec.weights, f"weights of field {spec.name!r}")
    for task in settings.tasks:
        for column in sorted(task_columns(task)):
            needed.setdefault(column, f"task {task.name!r}")
    keys = ["group_field", "domain_field", "weight_field"]
    if settings.split in ("time", "user_time"):
        keys.append("time_field")
    if settings.split == "user_time":
        keys.append("user_field")
    if settings.split == "column":
        keys.append("split_field")
    for key in keys:
        column = getattr(settings, key)
        if column is not None:
            needed.setdefault(column, key)
    return needed
