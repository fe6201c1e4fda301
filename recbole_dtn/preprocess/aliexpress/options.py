"""Options of the AliExpress preprocessor."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from recbole_dtn.config.preprocess import PreprocessOptions

__all__ = ["COUNTRIES", "PUBLISHED", "AliExpressOptions", "Country"]

Country = Literal["NL", "ES", "FR", "US", "RU"]
COUNTRIES: tuple[Country, ...] = ("NL", "ES", "FR", "US", "RU")
PUBLISHED: tuple[Country, ...] = ("NL", "ES", "FR", "US")
"""The countries of the published tables, and of the joined set; RU is several times as large."""


class AliExpressOptions(PreprocessOptions):
    """Which countries, and what the validation part is."""

    outcomes: ClassVar[tuple[str, ...]] = ("click", "conversion")

    protocol: Literal["clean", "mtreclib"] = "clean"
    countries: list[Country] = Field(
        list(PUBLISHED), min_length=1, description="which are read; several are joined, with country as domain"
    )
    valid_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of the training rows that is for validation (protocol clean)"
    )

    @field_validator("countries")
    @classmethod
    def _ordered(cls, found: list[Country]) -> list[Country]:
        """The same set, whatever the order they are named in."""
        if len(set(found)) < len(found):
            raise ValueError(f"a country is named twice: {', '.join(found)}")
        return [country for country in COUNTRIES if country in found]
