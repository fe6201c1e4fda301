"""The spec of ``preprocess table``: how one table is read, and the data set it makes (docs/own-data.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recbole_dtn.config.settings import Count, FieldSettings, Positive, Strict, TaskSettings

__all__ = ["ReaderSpec", "SpecField", "TableSpec"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


class ReaderSpec(Strict):
    """How a text table is read; not used for Parquet files."""

    separator: str | None = None  # None: by the file's ending
    columns: list[str] | None = None  # names of the columns of a file without a header
    strip: bool = False  # remove white space around every value
    null_values: list[str] = Field(default_factory=list)  # texts that mean a missing value
    quote: str | None = '"'  # None: a quote is an ordinary character


class SpecField(FieldSettings):
    """An entry of ``fields:``, as in a data set's YAML, and how its column of the table is read."""

    fill: Finite | None = None  # floats: the value of a missing number
    missing: Literal["refuse", "keep"] = "refuse"  # floats: keep: missing numbers stay empty cells
    list_separator: str = " "  # token_seq: between the values of a text (and weights)


class TableSpec(Strict):
    """A spec: how to read the table, and the data set it makes.

    ``fields`` and ``tasks`` are those of a data set's YAML; a task's ``condition`` and ``observed_when`` read the
    table's columns (text or number) and are evaluated once, here: the files hold ready labels.
    """

    reader: ReaderSpec = ReaderSpec()
    filter: str | None = None  # condition of the rows that are kept
    fill: dict[str, Finite] = Field(
        default_factory=dict
    )  # value of a missing number, by float column (also of time_field, weight_field)
    derive: dict[str, str] = Field(default_factory=dict)  # further 0/1 float columns (no inputs), by condition
    fields: list[SpecField]
    tasks: list[TaskSettings]
    split: Literal["random", "time", "user_time", "column"] = "random"
    split_field: str | None = None  # column whose values train, valid, test name the part of a row (split: column)
    split_ratio: tuple[Positive, Positive, Positive] | None = None
    time_field: str | None = None
    user_field: str | None = None
    group_field: str | None = None
    domain_field: str | None = None
    weight_field: str | None = None
    min_count: Count | None = None
    pooling: Literal["sum", "mean"] | None = None
