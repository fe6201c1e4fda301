"""Columns of the AliExpress files: their places in the raw files, and the names that published recipes give them.

Places count from 1. The names and their order are those of the processed files of
``easezyc/Multitask-Recommendation-Library`` (``data/preprocess.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

__all__ = ["ITEM", "LABEL", "SEARCH", "USER", "Table", "item_types", "user_types"]

SEARCH = "search_id"
LABEL = "label"


def _places(*stretches: tuple[int, int]) -> tuple[int, ...]:
    return tuple(place for first, last in stretches for place in range(first, last + 1))


class Table:
    """One of the two raw tables.

    Args:
        width: columns of the raw file. categorical, numeric: their places. first_categorical, first_numeric: numbers of
            their first names.

    Attributes:
        columns: names by place, the first being the search id.
        categorical, numeric: names in the order of the processed files.
    """

    def __init__(
        self,
        width: int,
        categorical: Sequence[int],
        numeric: Sequence[int],
        *,
        first_categorical: int,
        first_numeric: int,
    ) -> None:
        named = {place: f"categorical_{number}" for number, place in enumerate(categorical, first_categorical)}
        named |= {place: f"numerical_{number}" for number, place in enumerate(numeric, first_numeric)}
        self.columns = [SEARCH, *(named.get(place, LABEL) for place in range(2, width + 1))]
        self.categorical = [named[place] for place in categorical]
        self.numeric = [named[place] for place in numeric]

    def checks(self) -> dict[str, pl.Expr]:
        """``{reason: condition}``: the condition holds for every sound row, the reason is reported for others."""
        found = {"column 1 (search_id): expected an integer": _is_integer(SEARCH)}
        for place, name in enumerate(self.columns[1:], 2):
            if name == LABEL:
                found[f"column {place} (label): expected 0, 1 or 2"] = pl.col(LABEL).is_in(["0", "1", "2"])
            elif name in self.categorical:
                found[f"column {place} ({name}): expected an integer"] = _is_integer(name)
            else:
                number = pl.col(name).cast(pl.Float64, strict=False)
                found[f"column {place} ({name}): expected a finite number"] = number.is_finite()
        return found


def _is_integer(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Int64, strict=False).is_not_null()


USER = Table(33, [*_places((2, 8)), 32, 33], _places((9, 31)), first_categorical=1, first_numeric=1)
"""One row per search, that is per page of results."""
ITEM = Table(
    49,
    [19, 34, 35, 36, 40, 41, 42],
    _places((2, 18), (20, 33), (37, 39), (43, 48)),
    first_categorical=10,
    first_numeric=24,
)
"""One row per shown product; the last column is the label."""


def user_types(*, country: bool) -> Mapping[str, str]:
    """Columns of the ``.user`` file: the search's part, stored once per search.

    >>> len(user_types(country=False)), list(user_types(country=True))[:3]
    (33, ['search_id', 'country', 'categorical_1'])
    """
    kinds = dict.fromkeys([SEARCH, *(["country"] if country else []), *USER.categorical], "token")
    return kinds | dict.fromkeys(USER.numeric, "float")


def item_types() -> Mapping[str, str]:
    """Columns of the ``.inter`` files.

    >>> list(item_types())[:2], list(item_types())[-3:], len(item_types())
    (['search_id', 'categorical_10'], ['numerical_63', 'click', 'conversion'], 50)
    """
    kinds = dict.fromkeys([SEARCH, *ITEM.categorical], "token")
    return kinds | dict.fromkeys([*ITEM.numeric, "click", "conversion"], "float")
