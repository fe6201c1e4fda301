"""The base of synthetic layouts: parts cut into blocks, each a pure function of (seed, part, block)."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import polars as pl

from recbole_dtn.data.hashing import rng
from recbole_dtn.errors import UsageError
from recbole_dtn.synthetic.faults import LineFile, Spoil
from recbole_dtn.synthetic.planted import Effects, Field, Goal, Labels

__all__ = ["BLOCK_ROWS", "DrawnBlock", "Part", "Place", "Plan", "SyntheticLayout", "check_rates", "csv_lines"]

BLOCK_ROWS = 65_536
"""Rows of a block, the same on every machine: files of a seed are the same everywhere."""


@dataclass(frozen=True)
class Plan:
    """Rows, seed, and the options that every layout has.

    Args:
        rows: good rows over all parts. seed: of everything. faults: faulty rows of every kind and file.
        signal: standard deviation of a task's log-odds, about. overlap: share of the first task's informative fields
            that the others have too. informative: fields per task.
    """

    rows: int
    seed: int = 0
    faults: int = 0
    signal: float = 1.0
    overlap: float = 1 / 3
    informative: int = 6


@dataclass(frozen=True)
class Part:
    """A run of rows with files of its own: ``train`` or ``test``, of one country, say.

    Args:
        name: unique. rows: how many. group: the name under which its AUC is counted.
    """

    name: str
    rows: int
    group: str

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Number and rows of each block."""
        # The last block may be smaller.
        for block in range(-(-self.rows // BLOCK_ROWS)):
            yield block, min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)


@dataclass
class DrawnBlock:
    """The inputs of a block of rows; ``effects`` are those of the planted model, ``data`` what the layout writes."""

    part: Part
    number: int
    rows: int
    effects: Effects
    data: dict[str, Any]


@dataclass
class Place:
    """The folder that is being filled, and its name when it is done; keeps files open until all is written."""

    folder: Path
    plan: Plan
    name: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    files: list[LineFile] = field(default_factory=list)

    def open(self, name: str, kinds: Sequence[str] = (), make: Spoil | None = None) -> LineFile:
        """A file of lines in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.stack.enter_context(path.open("wb", buffering=1 << 20))
        return self.lines(name, stream, kinds, make)

    def lines(self, name: str, stream: BinaryIO, kinds: Sequence[str] = (), make: Spoil | None = None) -> LineFile:
        """A file of lines that goes into an open stream."""
        # A stream of its own: faults do not change the good rows.
        random = rng(self.plan.seed, f"faults|{name}", 0).random
        file = LineFile(name, stream, random, kinds, self.plan.faults, make)
        self.files.append(file)
        return file


class SyntheticLayout(ABC):
    """A layout of raw files. A subclass says what its tasks can depend on, draws blocks and writes them."""

    name: str
    unit: str
    """What a row is, for messages."""
    atomic: ClassVar[bool] = False
    """Whether the files are atomic files, which ``--dataset`` reads, and not raw ones."""
    least_overlap: ClassVar[int] = 0
    """The smallest ``overlap``."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        if plan.informative > self.most_informative():
            raise UsageError(
                f"--informative: at most {self.most_informative()} for {self.name}; found {plan.informative}"
            )

    @abstractmethod
    def goals(self) -> tuple[Goal, ...]:
        """The tasks and the fields that they may depend on."""

    @abstractmethod
    def parts(self) -> list[Part]:
        """The runs of rows, in the order of writing."""

    @abstractmethod
    def draw(self, part: Part, block: int, rows: int, needed: Sequence[tuple[str, Field]]) -> DrawnBlock:
        """The inputs of a block, with the effect of every (task, field) that is needed."""

    @abstractmethod
    def open(self, place: Place) -> None:
        """Open the files."""

    @abstractmethod
    def write(self, block: DrawnBlock, labels: Labels) -> None:
        """Write a block."""

    def finish(self) -> None:  # noqa: B027  (most layouts have nothing to add)
        """Write the side tables, or whatever comes last."""

    def shared(self) -> float:
        """Share of the first task's informative fields that the others have too."""
        return self.plan.overlap

    def stray(self) -> float:
        """Share of rows whose second label is 1 without the first."""
        return 0.0

    def notes(self) -> list[str]:
        """Further notes for planted.json."""
        return []

    def most_informative(self) -> int:
        """The most informative fields a task can have with any overlap."""
        first, *others = self.goals()
        count = len(first.fields)
        # With overlap 0, each other task needs k fields that the first task does not take.
        for k in range(count, 0, -1):
            taken = {one.name for one in first.fields[:k]}
            if all(sum(one.name not in taken for one in goal.fields) >= k for goal in others):
                return k
        return 1


def check_rates(**rates: float) -> None:
    """Refuse a rate or share that is not between 0 and 1.

    Raises:
        UsageError: naming the option.
    """
    for name, rate in rates.items():
        if not 0 < rate < 1:
            raise UsageError(f"--{name}: expected a number between 0 and 1; found {rate}")


def csv_lines(frame: pl.DataFrame) -> bytes:
    """The rows of a frame as CSV, without a header."""
    target = io.BytesIO()
    frame.write_csv(target, include_header=False)
    return target.getvalue()
