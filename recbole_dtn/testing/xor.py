"""``check_learns_xor``: a feature interaction learns what no sum over fields expresses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.testing.equations import split_output

__all__ = ["check_learns_xor"]

XOR_STEPS = 200


def check_learns_xor(cls_or_name: type[FeatureInteraction] | str, **options: Any) -> None:
    """Check that a feature interaction learns the exclusive or of two fields, which no sum over fields expresses.

    Two fields with two ids each, embeddings of width 4, the module, and one linear unit on its output learn the four
    rows by Adam, in eval mode with a log loss below .2 on every row. It is apart from ``check_interaction``, as a
    module may be linear by intention.

    Args:
        cls_or_name: the class, or the name under which it is registered. options: the method's own options.

    Raises:
        AssertionError: where the rows are not learned from any of three starts.

    >>> check_learns_xor("gdcn")
    """
    method = INTERACTIONS.load(cls_or_name) if isinstance(cls_or_name, str) else cls_or_name
    with torch.random.fork_rng(devices=[]):
        # Another start where ReLUs are off in all rows from the first.
        losses = []
        for seed in range(3):
            torch.manual_seed(seed)
            losses.append(_worst_xor_loss(method(FieldShape(2, 4, (0, 1), (2, 2)), 4, **options)))
            if losses[-1] < 0.2:
                return
    raise AssertionError(
        f"{method.__name__}: after {XOR_STEPS} steps of Adam the loss of a row of XOR is still {min(losses):.2f}, in "
        "the best of three starts: its output does not combine fields, or its gradients are wrong"
    )


def _worst_xor_loss(module: FeatureInteraction) -> float:
    """Largest loss of the four rows, after as many steps as it takes to bring it below .2."""
    ids, labels = torch.tensor([[0, 2], [0, 3], [1, 2], [1, 3]]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    table, last = nn.Embedding(4, 4), nn.Linear(4, 1)
    nn.init.normal_(table.weight, std=0.5)
    parts = nn.ModuleList([table, module, last])
    optimizer = torch.optim.Adam(parts.parameters(), lr=0.03)

    def losses() -> Tensor:
        output, _ = split_output(module(table(ids), ids))
        logits: Tensor = last(output).squeeze(1)
        return nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")

    worst = float("inf")
    for step in range(1, XOR_STEPS + 1):
        parts.train()
        optimizer.zero_grad()
        losses().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 10 == 0:
            with torch.no_grad():
                parts.eval()
                worst = float(losses().max())
            if worst < 0.2:
                break
    return worst
