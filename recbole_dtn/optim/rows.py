"""What the optimisers of a table share: only the rows that a batch looked up are read and written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.kernels.pages import huge_pages
from recbole_dtn.layers.rows import touched_rows

__all__ = ["RowOptimizer", "keep_wide_states", "rounded_at_random"]


def rounded_at_random(values: Tensor) -> Tensor:
    """float32 to bfloat16, up or down with the probability that keeps the mean: steps below half a unit are not lost.

    A value between the neighbours a < b becomes b with probability ``(value - a) / (b - a)``; numbers come from
    torch's generator of the device, so that a seed repeats them. What is not finite stays as it is.

    >>> rounded_at_random(torch.tensor([1.0, -2.5])).tolist()
    [1.0, -2.5]
    """
    # bfloat16 is the upper half of float32. 16 random bits are added to the lower half and it is cut: the carry rounds
    # away from zero with the probability of its share, whatever the sign.
    bits = values.view(torch.int32)
    noise = torch.randint(1 << 16, bits.shape, dtype=torch.int32, device=bits.device)
    rounded = ((bits + noise) & -(1 << 16)).view(torch.float32)
    # In inf the noise would set bits of the fraction, which makes it NaN.
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def keep_wide_states(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore the states of bfloat16 tables in the type they were saved in; torch has cast them to the table's."""
    # A saved state numbers the parameters in the order of the groups.
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    places = [place for group in saved["param_groups"] for place in group["params"]]
    for weight, place in zip(weights, places, strict=True):
        if weight.dtype is torch.bfloat16 and place in saved["state"]:
            for key, value in saved["state"][place].items():
                if isinstance(value, Tensor):
                    optimizer.state[weight][key] = value.to(weight.device, copy=True)


class RowOptimizer(torch.optim.Optimizer):
    """Base class: the cost of a step grows with the rows that are touched, not with those of the table.

    A row counts as touched when the batch looks it up, even where its gradient is 0. Dense gradients are accepted:
    they touch every row. A table in bfloat16 has its state and its arithmetic in float32, except the gradient of each
    look-up, which autograd gives in the type of the table; a moved row is rounded by :func:`rounded_at_random`.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the touched rows of every table that has a gradient."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self.move(weight, weight.grad, self.state[weight], group)
        return result

    def move(self, weight: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        """Update one table from its gradient (R, D), sparse or dense."""
        # Duplicates are summed first: the square of a sum is not the sum of squares.
        rows, summed = touched_rows(gradient)
        self.update(weight, rows, summed, state, group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        keep_wide_states(self, state_dict)

    @staticmethod
    def zeros(weight: Tensor, *shape: int) -> Tensor:
        """A state of zeros beside ``weight``, float32 at least."""
        dtype = torch.promote_types(weight.dtype, torch.float32)
        # Before zero_, as it is for memory that has not been written.
        return huge_pages(torch.empty(shape, dtype=dtype, device=weight.device)).zero_()

    @staticmethod
    def read(weight: Tensor, rows: Tensor) -> Tensor:
        """Rows of the table (n, D), float32 at least."""
        found = weight.index_select(0, rows)
        return found.float() if found.dtype is torch.bfloat16 else found

    @staticmethod
    def write(weight: Tensor, rows: Tensor, moved: Tensor) -> None:
        """Put rows back."""
        weight.index_copy_(0, rows, rounded_at_random(moved) if weight.dtype is torch.bfloat16 else moved)

    @abstractmethod
    def update(self, weight: Tensor, rows: Tensor, gradient: Tensor, state: Any, group: dict[str, Any]) -> None:
        """Update in place. On a CPU ``index_select`` and ``index_copy_`` together take half the time of ``index_add_``.

        Args:
            weight: (R, D). rows: (n,) distinct. gradient: (n, D), theirs. state, group: the optimiser's own.
        """
