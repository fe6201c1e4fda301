"""Defaults that bound what grows with the square of the number of fields: ``auto`` options.

Up to a stated width the option has the value of the paper's equation; beyond it, one whose parameters grow with the
width alone. ``bounded`` of a module says what was chosen, in a sentence that runs print and record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from recbole_dtn.interaction.base import FieldShape

__all__ = ["MANY_FIELDS", "RANK", "WIDE", "Auto", "TopFields", "auto_fields", "auto_rank", "bounded_defaults"]

Auto = Literal["auto"]
TopFields = Annotated[
    Annotated[int, Field(ge=2)] | Auto | None,
    Field(
        description="only pairs among the q fields with most ids; null: all pairs; auto: all of up to 32 fields, else "
        "q = 32"
    ),
]
"""The option ``top_fields`` of methods over pairs of fields."""
WIDE = 512
"""Width F*D up to which ``auto`` keeps full matrices (F*D, F*D): 32 fields of width 16."""
RANK = 64
"""Rank beyond it. Wang et al. (WWW 2021, section 7.4) find no loss at it for inputs of about 1,000 columns."""
MANY_FIELDS = 32
"""Fields up to which ``auto`` keeps all pairs."""


def auto_rank(given: int | Auto | None, width: int) -> tuple[int | None, str]:
    """The rank that an option ``low_rank`` means (None: full matrices), and a sentence where ``auto`` bounds it.

    >>> auto_rank("auto", 512), auto_rank(8, 800), auto_rank(None, 800)
    ((None, ''), (8, ''), (None, ''))
    >>> auto_rank("auto", 800)[0]
    64
    """
    if given != "auto":
        return given, ""
    if width <= WIDE:
        return None, ""
    return (
        RANK,
        f"low_rank is {RANK}, as the width F*D is {width:,} and above {WIDE} (low_rank: null keeps full matrices)",
    )


def auto_fields(given: int | Auto | None, shape: FieldShape) -> tuple[list[int], str]:
    """Positions, in order, of the fields whose pairs an option ``top_fields`` means, and a sentence where ``auto``
    bounds them.

    These are the fields with most ids; of equal ones the first.

    >>> auto_fields(2, FieldShape(3, 4, (0, 1, 2), (5, 9, 5)))
    ([0, 1], '')
    >>> auto_fields("auto", FieldShape(3, 4, (0, 1, 2), (5, 9, 5)))
    ([0, 1, 2], '')
    """
    count = shape.num_fields
    kept = min(count, MANY_FIELDS if given == "auto" else count if given is None else given)
    by_size = sorted(range(count), key=lambda position: -shape.field_sizes[position])
    sentence = ""
    if given == "auto" and kept < count:
        sentence = (
            f"pairs are those of the {kept} fields with most ids, as there are {count} fields and more than "
            f"{MANY_FIELDS} (top_fields: null keeps all pairs)"
        )
    return sorted(by_size[:kept]), sentence


def bounded_defaults(model: nn.Module) -> list[str]:
    """What ``auto`` options have bounded in a model's modules, each sentence once."""
    found: Sequence[str] = [text for module in model.modules() if (text := getattr(module, "bounded", ""))]
    return list(dict.fromkeys(found))
