"""Which split of a data set a run uses, and the several splits that one command runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, nearest

__all__ = [
    "RAREST",
    "TEST_IS_DRAWN",
    "SplitKey",
    "check_split",
    "part_files",
    "plan_splits",
    "stratified_tasks",
]

RAREST = "rarest"
TEST_IS_DRAWN = ("random",)
"""Splits whose test rows follow ``split_seed`` and ``fold``; those of the others are fixed."""
ORDERED = ("time", "user_time")


class _HasSplit(Protocol):
    @property
    def split_seed(self) -> int: ...
    @property
    def folds(self) -> int | None: ...
    @property
    def fold(self) -> int | None: ...
    @property
    def draw(self) -> str: ...


@dataclass(frozen=True)
class SplitKey:
    """One split among those that a data set and its settings can have.

    Attributes:
        split_seed: of the order in which rows are drawn. folds, fold: the number of folds and the one that is tested
            (counted from 0); None without folds. draw: the folder among those of the setting ``block``; empty without
            one.

    >>> SplitKey(2020, 10, 2).title, SplitKey(2021).title
    ('fold 2 of 0 to 9 (split_seed 2020)', 'split_seed 2021')
    >>> SplitKey(2020, draw="planted-3").title
    'planted-3'
    >>> SplitKey(2020, 10, 2).words()
    ['--split_seed=2020', '--folds=10', '--fold=2']
    """

    split_seed: int
    folds: int | None = None
    fold: int | None = None
    draw: str = ""

    @classmethod
    def of(cls, source: _HasSplit) -> SplitKey:
        """The split of settings, or of a run's record."""
        return cls(source.split_seed, source.folds, source.fold, source.draw)

    @property
    def order(self) -> tuple[int, str, int, int, int]:
        """What splits are sorted by."""
        return len(self.draw), self.draw, self.split_seed, self.folds or 0, self.fold or 0

    @property
    def title(self) -> str:
        """The split in words."""
        if self.folds is None or self.fold is None:
            return self.draw or f"split_seed {self.split_seed}"
        seed = f"{self.draw}, split_seed {self.split_seed}" if self.draw else f"split_seed {self.split_seed}"
        return f"fold {self.fold} of 0 to {self.folds - 1} ({seed})"

    def words(self) -> list[str]:
        """The settings that choose it among the splits of its folder, as on the command line."""
        folds = [] if self.fold is None else [f"--folds={self.folds}", f"--fold={self.fold}"]
        return [f"--split_seed={self.split_seed}", *folds]


def part_files(folder: Path) -> tuple[list[Path], bool]:
    """The files of ``split: given`` that a folder should have, and whether validation is carved from training.

    It is where there are ``<name>.train.inter`` and ``<name>.test.inter`` alone. ``<name>`` is the folder's.
    """
    train, valid, test = (folder / f"{folder.name}.{part}.inter" for part in ("train", "valid", "test"))
    if train.is_file() and test.is_file() and not valid.is_file():
        return [train, test], True
    return [train, valid, test], False


def plan_splits(settings: Settings, split_seeds: Sequence[int] | None, folder: Path) -> list[SplitKey]:
    """The splits that a command runs: every seed of ``split_seeds``, and in it every fold unless ``fold`` names one.

    Args:
        settings: of one run. split_seeds: the seeds that ``--split_seeds`` names; None where it is not given.
        folder: of the atomic files.

    Raises:
        UsageError: for several splits where nothing is drawn, since all would be the same.
    """
    seeds = [settings.split_seed] if split_seeds is None else list(split_seeds)
    folds: list[int | None] = [settings.fold]
    if settings.folds is not None and settings.fold is None:
        folds = list(range(settings.folds))
    files, carved = part_files(folder)
    # Missing files are reported where they are opened.
    all_given = settings.split == "given" and not carved and all(path.is_file() for path in files)
    if len(seeds) > 1 and (all_given or settings.split in ORDERED):
        given = f"{folder} has all three parts" if all_given else "time orders the rows"
        raise UsageError(
            f"split_seeds: split: {settings.split} draws no rows ({given}), so every seed gives the same split; leave "
            "split_seeds out, or set split: random"
        )
    return [SplitKey(seed, settings.folds, fold, settings.draw) for seed in seeds for fold in folds]


def stratified_tasks(settings: Settings) -> list[str]:
    """The tasks among which ``stratify`` chooses: the one that it names, or all binary ones for ``rarest``."""
    if settings.stratify is None:
        return []
    binary = [task.name for task in settings.tasks if task.kind == "binary"]
    return binary if settings.stratify == RAREST else [settings.stratify]


def check_split(settings: Settings) -> None:
    """Check the settings of the split against each other.

    Raises:
        UsageError: for a setting that the chosen split needs and lacks, or that it cannot use.
    """
    _check_columns(settings)
    _check_folds(settings)
    _check_stratify(settings)


def _check_columns(settings: Settings) -> None:
    split = settings.split
    if split in ORDERED and settings.time_field is None:
        raise UsageError(f"split: {split} needs time_field, the column that orders the rows")
    if split == "user_time" and settings.user_field is None:
        known = nearest("user_id", [spec.name for spec in settings.fields])
        raise UsageError(f"split: user_time needs user_field, the column of users ({known})")
    column = settings.split_field
    if split == "column" and column is None:
        raise UsageError("split: column needs split_field, the column whose values are train, valid or test")
    if column is None:
        return
    for key in ("domain_field", "group_field", "weight_field", "time_field", "user_field"):
        if getattr(settings, key) == column:
            raise UsageError(f"split_field: {column!r} is the {key} too; name a column that holds nothing but the part")
    for task in settings.tasks:
        texts = [text for text in (task.condition, task.observed_when) if text is not None]
        if task.label == column or any(column in parse_condition(text).columns() for text in texts):
            raise UsageError(f"split_field: {column!r} is read by task {task.name!r}; name another column")


def _check_folds(settings: Settings) -> None:
    folds, fold = settings.folds, settings.fold
    if folds is None:
        if fold is not None:
            raise UsageError(f"fold: {fold} needs folds, the number of folds, such as folds: 10")
        return
    if settings.split != "random":
        raise UsageError(f"folds: {folds} needs split: random, found split: {settings.split}; leave folds out")
    if fold is not None and fold >= folds:
        raise UsageError(f"fold: expected 0 to {folds - 1} with folds: {folds}; found {fold}")


def _check_stratify(settings: Settings) -> None:
    chosen = settings.stratify
    if chosen is None:
        return
    if settings.split in ORDERED:
        raise UsageError(
            f"stratify: {chosen} needs rows that are drawn at random; split: {settings.split} orders them by time: "
            "leave stratify out"
        )
    kinds = {task.name: task.kind for task in settings.tasks}
    if "binary" not in kinds.values():
        raise UsageError(f"stratify: {chosen} needs a binary task, and there is none; leave stratify out")
    if chosen != RAREST and chosen not in kinds:
        raise UsageError(f"stratify: no task is named {chosen!r}; {nearest(chosen, [RAREST, *kinds])}")
    if chosen != RAREST and kinds[chosen] != "binary":
        named = ", ".join(_binary(settings))
        raise UsageError(f"stratify: task {chosen!r} is a regression, which has no positives; choose one of {named}")


def _binary(settings: Settings) -> Iterator[str]:
    return (task.name for task in settings.tasks if task.kind == "binary")
