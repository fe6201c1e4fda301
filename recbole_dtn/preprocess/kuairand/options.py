"""Options of the KuaiRand preprocessor."""

from __future__ import annotations

from datetime import date
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from recbole_dtn.config.preprocess import PreprocessOptions

__all__ = ["BINARY_SIGNALS", "CLICK_LONG_VIEW", "SIGNALS", "TIME_SIGNALS", "TIME_WEIGHTS", "KuaiRandOptions", "Signal"]

Signal = Literal[
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter",
    "play_time_ms", "profile_stay_time", "comment_stay_time",
]  # fmt: skip
BINARY_SIGNALS: tuple[Signal, ...] = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter",
)  # fmt: skip
TIME_SIGNALS: tuple[Signal, ...] = ("play_time_ms", "profile_stay_time", "comment_stay_time")
TIME_WEIGHTS: dict[Signal, float] = {
    "play_time_ms": 1 / 40_000**2,
    "profile_stay_time": 1 / 10_000**2,
    "comment_stay_time": 1 / 10_000**2,
}
"""Weights of the squared errors of the times, which are in milliseconds: an error of 40 s (10 s) costs 1, about what a
binary task's loss is. The root mean square of play_time_ms is 42 s in 2,000 rows of 27K, of comment_stay_time 8 s."""
SIGNALS: tuple[Signal, ...] = (*BINARY_SIGNALS, *TIME_SIGNALS)
"""The feedback signals of the logs: each can be a task, none an input."""
CLICK_LONG_VIEW = "click_long_view"
"""Column of the rows with both a click and a long view: a chain that holds in every row."""


class KuaiRandOptions(PreprocessOptions):
    """Which version, which days are which part, and which log the test part comes from."""

    outcomes: ClassVar[tuple[str, ...]] = (*SIGNALS, CLICK_LONG_VIEW)

    protocol: Literal["default", "stem", "stem-unbiased"] = "default"
    version: Literal["1k", "pure", "27k"] = Field("1k", description="which of the three published sets")
    tasks: list[Signal] | None = Field(
        None, description="the labels: feedback signals of the log; null: is_click and click_long_view"
    )
    train_until: str = Field("2022-05-06", description="last day of the training part")
    valid_until: str = Field("2022-05-07", description="last day of the validation part; later days are the test part")
    test_log: Literal["standard", "random"] = Field("standard", description="the log that the test part is read from")
    random_days: Literal["after_train", "all"] = Field(
        "after_train", description="days of the random log that the test part gets"
    )
    partial: bool = Field(False, description="take the standard logs that are there, where some are missing")

    @field_validator("tasks")
    @classmethod
    def _some_tasks(cls, found: list[Signal] | None) -> list[Signal] | None:
        if found is not None and (not found or len(set(found)) < len(found)):
            raise ValueError("name at least one signal, and each once")
        return found

    @field_validator("train_until", "valid_until")
    @classmethod
    def _is_day(cls, found: str) -> str:
        try:
            if date.fromisoformat(found).isoformat() == found:
                return found
        except ValueError:
            pass
        raise ValueError(f"expected a day such as 2022-05-06; found {found!r}")

    @model_validator(mode="after")
    def _in_order(self) -> KuaiRandOptions:
        if self.train_until >= self.valid_until:
            raise ValueError(f"train_until ({self.train_until}) must be a day before valid_until ({self.valid_until})")
        return self
