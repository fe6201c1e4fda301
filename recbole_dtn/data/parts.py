"""Assign every row of a data set to training, validation or test, as its settings say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.splits import RAREST, SplitKey, stratified_tasks
from recbole_dtn.data.columns import Tables
from recbole_dtn.data.labels import label_of
from recbole_dtn.data.layout import SplitLayout
from recbole_dtn.data.raw import RawTokens
from recbole_dtn.data.sources import PARTS
from recbole_dtn.data.split import carve, fold_split, random_split, time_split, user_time_split
from recbole_dtn.errors import DataError, UsageError, nearest

__all__ = ["assign_parts"]

Parts = npt.NDArray[np.uint8]
TRAIN, VALID, TEST = range(3)


def assign_parts(settings: Settings, tables: Tables, scratch: Path) -> tuple[SplitLayout, str]:
    """The split of every row, and how it came about, in words; empty for what the settings alone say.

    Raises:
        DataError: for an empty part, a missing time, a value of ``split_field`` that names no part, or a label that is
            needed for ``stratify`` and is missing. UsageError: for ``stratify`` where no row is drawn.
    """
    inter = tables.raw["inter"]
    drawn = _Drawn(settings, tables)
    if settings.split == "given" and len(inter.parts) == len(PARTS):
        drawn.refuse("all three parts are given")
        # The files are the splits, read one after another: no order is needed.
        layout, how = SplitLayout((0, *np.cumsum(inter.parts).tolist())), ""
    else:
        parts, how = _parts(settings, tables, drawn)
        layout = SplitLayout.from_parts(parts, len(PARTS), scratch / "order")
    for name, (start, stop) in zip(PARTS, layout.stretches(), strict=True):
        if start == stop:
            raise DataError(f"{inter.table.paths[0].parent}: {_empty(settings, name, inter.rows)}")
    return layout, how


def _empty(settings: Settings, part: str, rows: int) -> str:
    """Why a part has no row, and what to do."""
    shares = f"split_ratio: {list(settings.split_ratio)}"
    given = f"split: {settings.split}"
    if settings.split == "column" and part != "valid":
        return (
            f"the {part} split is empty ({rows:,} rows in all, {given}): no row has {part!r} in column "
            f"{settings.split_field!r} (split_field); write it there, or choose another split"
        )
    if settings.split == "given":
        return (
            f"the {part} split is empty ({rows:,} rows in all, {given}): give its file more rows; without a file of "
            f"valid it is drawn from train ({shares})"
        )
    if settings.folds is not None and settings.folds > rows:
        return f"the {part} split is empty: {rows:,} rows cannot be cut into {settings.folds:,} folds; use fewer folds"
    return f"the {part} split is empty ({rows:,} rows in all, {given}, {shares}); give more rows or another split"


def _parts(settings: Settings, tables: Tables, drawn: _Drawn) -> tuple[Parts, str]:
    inter, ratio, seed = tables.raw["inter"], settings.split_ratio, settings.split_seed
    if settings.split in ("time", "user_time"):
        return _ordered_parts(settings, tables), ""
    if settings.split == "random":
        classes, even = drawn.classes()
        if settings.folds is None:
            how = f"rows drawn by split_seed {seed}{even}" if even else ""
            return random_split(inter.rows, ratio, seed, classes), how
        if settings.fold is None:
            raise UsageError(
                f"folds: {settings.folds} needs fold, the one that is tested, 0 to {settings.folds - 1}; training and "
                "leaderboards run all folds where fold is not set"
            )
        return (
            fold_split(inter.rows, ratio, seed, settings.folds, settings.fold, classes),
            f"test is {SplitKey.of(settings).title}, validation is drawn from the other folds{even}",
        )
    column = settings.split == "column"
    parts = _named_parts(settings, tables) if column else np.repeat(np.array([TRAIN, TEST], np.uint8), inter.parts)
    how = f"parts as in column {settings.split_field}" if column else "parts train and test given"
    if (parts == VALID).any():
        drawn.refuse(f"column {settings.split_field!r} names all three parts")
        return parts, how
    classes, even = drawn.classes()
    before = int(np.count_nonzero(parts == TRAIN))
    parts = carve(parts, ratio, seed, classes)
    valid = int(np.count_nonzero(parts == VALID))
    return parts, f"{how}; validation is {valid:,} of the {before:,} training rows, drawn by split_seed {seed}{even}"


class _Drawn:
    """Classes of the rows, for rows that are drawn in equal shares (``stratify``)."""

    def __init__(self, settings: Settings, tables: Tables) -> None:
        self.settings, self.tables = settings, tables

    def refuse(self, why: str) -> None:
        """Refuse ``stratify``, since no row is drawn.

        Raises:
            UsageError: where ``stratify`` is set.
        """
        if self.settings.stratify is not None:
            raise UsageError(
                f"stratify: {self.settings.stratify} needs rows that are drawn at random, and {why}: leave stratify out"
            )

    def classes(self) -> tuple[Parts | None, str]:
        """Per row 0 (negative), 1 (positive) or 2 (not observed) of the task that is stratified, and that in words."""
        names = stratified_tasks(self.settings)
        if not names:
            return None, ""
        found = {name: self._of(name) for name in names}
        # The first of several that are equally rare.
        chosen = min(names, key=lambda name: int(np.count_nonzero(found[name] == 1)))
        rarest = f", the rarest of {len(names)} tasks" if self.settings.stratify == RAREST and len(names) > 1 else ""
        return found[chosen], f" in equal shares of {chosen}{rarest}"

    def _of(self, name: str) -> Parts:
        task = next(task for task in self.settings.tasks if task.name == name)
        classes = np.empty(self.tables.raw["inter"].rows, np.uint8)
        for block in SplitLayout((0, len(classes))).blocks():
            labels, observed = label_of(task, self.tables, block.start, block.stop)
            classes[block.start : block.stop] = np.where(observed, labels > 0, 2)
        return classes


def _named_parts(settings: Settings, tables: Tables) -> Parts:
    """The split of each row as ``split_field`` names it."""
    name, inter = settings.split_field, tables.raw["inter"]
    assert name is not None
    column = tables.column(name)
    if not isinstance(column, RawTokens):
        kind = tables.sources.owner(name, wanted_by="split_field")
        table = tables.raw[kind].table
        raise DataError(
            f"{table.paths[0]}, line 1: split_field {name!r} is of type {table.type_of(name)}, expected token, with "
            f"the values {_listed(PARTS)}"
        )
    tokens = column.space.tokens().to_list()
    # Code -1, an empty cell, reads the last element.
    numbers = np.array([PARTS.index(token) if token in PARTS else -1 for token in [*tokens, None]])
    parts = np.empty(inter.rows, np.uint8)
    for block in SplitLayout((0, inter.rows)).blocks():
        codes = tables.codes(name, block.start, block.stop)
        found = numbers[codes]
        wrong = np.flatnonzero(found < 0)
        if len(wrong):
            row = int(wrong[0])
            owner = tables.sources.owner(name, wanted_by="split_field")
            nothing = "an empty cell" if owner == "inter" else f"no value in {tables.raw[owner].table.paths[0].name}"
            shown = nothing if codes[row] < 0 else repr(tokens[codes[row]])
            hint = "" if codes[row] < 0 else f"; {nearest(tokens[codes[row]], PARTS)}"
            where = inter.where(block.start + row)
            raise DataError(f"{where}: split_field {name!r}: expected {_listed(PARTS)}, found {shown}{hint}")
        parts[block.start : block.stop] = found
    return parts


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _ordered_parts(settings: Settings, tables: Tables) -> Parts:
    """The split of each row by time."""
    inter, name, ratio = tables.raw["inter"], settings.time_field, settings.split_ratio
    assert name is not None
    blocks = list(SplitLayout((0, inter.rows)).blocks())
    for block in blocks:
        # Checked first: NaN compares false with every time, and its rows would silently fall into training.
        missing = np.flatnonzero(np.isnan(tables.numbers(name, block.start, block.stop)))
        if len(missing):
            raise DataError(
                f"{inter.where(block.start + int(missing[0]))}: time_field {name!r} has no number, and split: "
                f"{settings.split} orders the rows by it"
            )
    if settings.split == "time":
        return time_split(
            lambda: (tables.numbers(name, block.start, block.stop) for block in blocks), inter.rows, ratio
        )
    assert settings.user_field is not None
    return user_time_split(tables.keys(settings.user_field), tables.numbers(name, 0, inter.rows), ratio)
