"""Refuses a logit that is not a number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_dtn.errors import DataError

__all__ = ["check_logits"]


def check_logits(logits: Tensor, tasks: Sequence[str], row: Tensor | None = None) -> None:
    """Raise where a logit is not finite.

    Args:
        logits: (B, T). tasks: the T names. row: (B,) number of each row in the data; None: its place in the batch.

    Raises:
        DataError: names the task, the row and how many others there are.

    >>> check_logits(torch.tensor([[0.5, float("nan")]]), ["click", "buy"])
    Traceback (most recent call last):
    recbole_dtn.errors.DataError: the logit of task 'buy' is nan in row 0: the model's weights are not finite (lower \
optimizer.lr, set gradient_clip, train in precision 32), or a number of that row is too large
    """
    wrong = ~torch.isfinite(logits)
    # The usual case, in one pass; places are looked for only when there are some.
    if not bool(wrong.any()):
        return
    places = wrong.nonzero()
    place, task = (int(number) for number in places[0])
    number = place if row is None else int(row[place])
    others = f" (and {len(places) - 1:,} more in its batch)" if len(places) > 1 else ""
    value = float(logits[place, task])
    raise DataError(
        f"the logit of task {tasks[task]!r} is {value} in row {number}{others}: the model's weights are not finite "
        "(lower optimizer.lr, set gradient_clip, train in precision 32), or a number of that row is too large"
    )
