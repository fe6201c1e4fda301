"""Options of the Ali-CCP preprocessor; their values per protocol are in ``properties/dataset/aliccp*.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from recbole_dtn.config.preprocess import PreprocessOptions
from recbole_dtn.config.settings import Count

__all__ = ["ITEM_FIELDS", "LISTS", "USER_FIELDS", "AliCCPOptions"]

FieldName = Literal[
    "101", "121", "122", "124", "125", "126", "127", "128", "129", "109_14", "110_14", "127_14", "150_14",
    "205", "206", "207", "210", "216", "508", "509", "702", "853", "301",
]  # fmt: skip
USER_FIELDS: tuple[FieldName, ...] = (
    "101", "121", "122", "124", "125", "126", "127", "128", "129", "109_14", "110_14", "127_14", "150_14",
)  # fmt: skip
"""Fields of the common features: the user's profile and histories."""
ITEM_FIELDS: tuple[FieldName, ...] = ("205", "206", "207", "210", "216", "508", "509", "702", "853", "301")
"""Fields of an impression: item, combination and context."""
LISTS: tuple[FieldName, ...] = ("109_14", "110_14", "127_14", "150_14", "210", "853")
"""Fields that occur several times in a row of the real files."""


class AliCCPOptions(PreprocessOptions):
    """Fields, lists, rare ids, dropped rows and the validation split of Ali-CCP."""

    protocol: str = "dtn23"
    fields: list[FieldName] = Field(
        default_factory=lambda: [*USER_FIELDS, *ITEM_FIELDS], description="raw fields that are written, by their ids"
    )
    lists: list[FieldName] = Field(
        default_factory=lambda: list(LISTS),
        description="fields held as lists of ids (token_seq), each with a column of its values beside it",
    )
    repeated: Literal["all", "last"] = Field(
        "all", description="values kept of a field that repeats in a row; last: none is a list"
    )
    max_list: Count | None = Field(None, description="longest list, whose first values stay; null: no limit")
    min_occurrences: Count = Field(
        1, description="ids seen less often in the official training file become empty cells"
    )
    count: Literal["impressions", "rows"] = Field(
        "impressions", description="what min_occurrences counts a user's ids by: impressions, or common-feature rows"
    )
    drop_unclicked_buys: bool = Field(False, description="leave out rows with click = 0 and buy = 1")
    valid_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of the official training rows that is for validation"
    )
    split_seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        2020, description="seed of the hash that draws the validation rows"
    )
