"""What a leaderboard chose for its rows: matched widths and tuned settings, in ``<board>.plan.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.strict import Count, Positive, Strict
from recbole_dtn.errors import DataError
from recbole_dtn.leaderboard.match import Size
from recbole_dtn.report.files import read_json, write_text
from recbole_dtn.tuning.space import SHIPPED_SPACE
from recbole_dtn.tuning.trial import Trial

__all__ = [
    "BoardPlan", "ChosenRow", "MatchWanted", "MatchedSize", "RowTuning", "TuneWanted", "find_plan", "first_fault",
    "plan_file", "write_plan",
]  # fmt: skip


class MatchWanted(Strict):
    """How rows are matched."""

    by: Annotated[Size, Field(description="what is counted: dense, dense+codebook, total or flops")]
    reference: Annotated[str, Field(description="name of the row whose size the others take")]
    tolerance: Annotated[Positive, Field(description="largest deviation, as a share")] = 0.05


class TuneWanted(Strict):
    """How rows are tuned: the key ``tune`` of a leaderboard's file."""

    trials: Annotated[Count, Field(description="trials of every row, the defaults among them")]
    epochs: Annotated[Count | None, Field(description="most epochs of a trial; null: those of the row")] = None
    space: Annotated[str | dict[str, Any], Field(description="YAML file of what is tuned, or its content")] = (
        SHIPPED_SPACE
    )
    first_seed: Annotated[int, Field(ge=0, lt=2**31, description="trial n has the seed first_seed + n")] = 1000
    also: Annotated[
        list[dict[str, Any]],
        Field(description="settings that every row tries after its trials, such as the defaults of other rows"),
    ] = []  # noqa: RUF012 (frozen)

    def epochs_of(self, settings: Settings) -> int:
        """Most epochs of a trial of a row with these settings."""
        return min(self.epochs or settings.epochs, settings.epochs)


class MatchedSize(Strict):
    """The size of a row in what rows are matched by; ``factor`` is that of its widths, 1 where it has its own."""

    by: Size
    reference: str
    tolerance: float
    factor: float
    size: int
    target: int


class RowTuning(Strict):
    """The trials of a row.

    Attributes:
        study: its name in the storage. wanted: how many trials; ``also`` of them, the last, have settings that are
            named for every row. epochs: most of each; null: those of the row.
        metric: by which they are compared; ``higher``: whether larger values are better.
        best: number of the trial whose settings the row has; null: none was complete.
        importances: share of the values' variance that each setting explains.
    """

    study: str
    wanted: int
    also: int = 0
    epochs: int | None = None
    metric: str
    higher: bool
    trials: list[Trial]
    best: int | None
    importances: dict[str, float] = {}  # noqa: RUF012 (frozen)

    @model_validator(mode="after")
    def _by_number(self) -> RowTuning:
        if [trial.number for trial in self.trials] != list(range(len(self.trials))):
            raise ValueError("trials: expected each once, by number from 0")
        if self.best is not None and self.best not in range(len(self.trials)):
            raise ValueError(f"best: expected the number of a trial, found {self.best}")
        return self

    @property
    def best_trial(self) -> Trial | None:
        """The trial whose settings the row has."""
        return None if self.best is None else self.trials[self.best]


class ChosenRow(Strict):
    """What was chosen for one row on one data set; ``words`` are the settings that come behind its own."""

    dataset: str
    name: str
    words: list[str] = []  # noqa: RUF012
    matched: MatchedSize | None = None
    tuning: RowTuning | None = None


class BoardPlan(Strict):
    """All that was chosen, and how."""

    match: MatchWanted | None = None
    tune: TuneWanted | None = None
    rows: list[ChosenRow] = []  # noqa: RUF012

    def row(self, dataset: str, name: str) -> ChosenRow | None:
        """What was chosen for a row; None for a row that was not there."""
        return next((row for row in self.rows if (row.dataset, row.name) == (dataset, name)), None)

    def words(self, dataset: str, name: str) -> tuple[str, ...]:
        """The settings that come behind a row's own."""
        found = self.row(dataset, name)
        return () if found is None else tuple(found.words)


def plan_file(folder: Path, board: str) -> Path:
    """Where the plan of a leaderboard is, beside its tables."""
    return folder / f"{board}.plan.json"


def write_plan(plan: BoardPlan, folder: Path, board: str) -> Path:
    """Write the plan, whole or not at all; returns its path."""
    path = plan_file(folder, board)
    write_text(path, json.dumps(plan.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def find_plan(folders: Sequence[Path], board: str) -> BoardPlan | None:
    """The plan in the first folder that has one.

    Raises:
        DataError: for a file that is not a plan of this version.
    """
    path = next((path for folder in folders if (path := plan_file(folder, board)).is_file()), None)
    if path is None:
        return None
    try:
        return BoardPlan.model_validate(read_json(path))
    except (DataError, ValidationError) as error:
        told = str(error)
        if isinstance(error, ValidationError):
            told = f"{path}: not the plan of a leaderboard: {first_fault(error)}"
        raise DataError(f"{told}; `leaderboard run` writes it anew") from None


def first_fault(error: ValidationError) -> str:
    """The first of the faults that pydantic found: its key and what was expected."""
    first = error.errors(include_input=False, include_url=False)[0]
    message = re.sub(r"dictionary or instance of \w+", "map", first["msg"].removeprefix("Value error, "))
    key = ".".join(map(str, first["loc"]))
    return f"{key}: {message}" if key else message
