"""P(later) > P(earlier) is counted over every row, whatever the batches (test_metric_processes.py: and processes)."""

from __future__ import annotations

import torch

from recbole_dtn.schema import TaskSpec
from recbole_dtn.training.chain import ChainBreaks

TASKS = (
    TaskSpec("click", "binary", "c"),
    TaskSpec("stay", "regression", "s", after=("click",)),
    TaskSpec("cart", "binary", "a", after=("click",)),
    TaskSpec("buy", "binary", "b", after=("cart", "click")),
    TaskSpec("cvr", "binary", "b", after=("click",), observed_when="c == 1"),
    TaskSpec("refund", "binary", "r", after=("cvr",), observed_when="c == 1"),
)
LOGITS = torch.randn(101, len(TASKS), generator=torch.Generator().manual_seed(1))


def expected() -> dict[str, dict[str, tuple[int, int]]]:
    """By a loop over the rows; regression, and a task observed on other rows than its predecessor, have no count."""
    click, _, cart, buy, cvr, refund = (LOGITS[:, column].tolist() for column in range(len(TASKS)))
    pairs = {("cart", "click"): (cart, click), ("buy", "cart"): (buy, cart), ("buy", "click"): (buy, click)}
    pairs["refund", "cvr"] = (refund, cvr)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for (later, before), (first, second) in pairs.items():
        broken = sum(a > b for a, b in zip(first, second, strict=True))
        found.setdefault(later, {})[before] = (broken, 101)
    return found


def counted(rows: torch.Tensor) -> dict[str, dict[str, tuple[int, int]]]:
    breaks = ChainBreaks(TASKS)
    for part in rows.split(40):
        breaks.update(part)
    return breaks.compute()


def test_every_row_counts_once() -> None:
    assert counted(LOGITS) == expected()
    assert counted(LOGITS[:0]) == {}


def test_equal_probabilities_break_nothing_and_saturated_ones_do() -> None:
    breaks = ChainBreaks((TASKS[0], TaskSpec("buy", "binary", "b", after=("click",))))
    breaks.update(torch.tensor([[20.0, 20.0], [20.0, 21.0], [-1.0, -2.0]]))
    assert breaks.compute() == {"buy": {"click": (1, 3)}}
