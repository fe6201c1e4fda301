"""Options of the Census-Income (KDD) preprocessor."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from recbole_dtn.config.preprocess import PreprocessOptions

__all__ = ["CensusIncomeOptions", "CensusTask"]

CensusTask = Literal["income", "marital", "education"]


class CensusIncomeOptions(PreprocessOptions):
    """Which columns are the tasks; the files are the same for all of them."""

    protocol: Literal["official"] = "official"
    tasks: list[CensusTask] = Field(
        default=["income", "marital"], description="the labels; the source column of a label is not an input"
    )
    college: Literal["some", "bachelor"] = Field(
        "some", description="positive label of the task education: some college, or at least a bachelor's degree"
    )
    weights: bool = Field(False, description="whether instance_weight weighs the rows in the loss")
    split_seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        2020, description="seed of the halves of the official test file, validation and test"
    )

    @field_validator("tasks")
    @classmethod
    def _some_tasks(cls, found: list[CensusTask]) -> list[CensusTask]:
        if not found or len(set(found)) < len(found):
            raise ValueError("name at least one task, and each once")
        return found
