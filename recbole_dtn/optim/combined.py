"""Several optimisers behind one: schedulers, GradScaler, Lightning and checkpoints see an ordinary optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from recbole_dtn.optim.rows import keep_wide_states

__all__ = ["DECAY", "CombinedOptimizer"]

DECAY = "decoupled_decay"
"""Key of a parameter group: the lambda of ``w <- w - lr * lambda * w``, before the part's own update."""


class CombinedOptimizer(torch.optim.Optimizer):
    """Steps its parts in turn, after decoupled weight decay of the groups that ask for it.

    It shares ``param_groups`` and ``state`` with its parts, so that a part sees what a scheduler writes into a group.
    ``state_dict`` has the form of any torch optimiser's.

    The decay multiplies weights by ``1 - lr * lambda`` (Loshchilov and Hutter, ICLR 2019), the same for Adam, Adagrad
    and SGD. Parameters without a gradient do not decay.

    Args:
        parts: optimisers over disjoint parameters; at least one.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        # torch keeps the group dicts that it is given, so these are the parts' own.
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.__setstate__({"state": self.state, "param_groups": self.param_groups[start:end]})
            start = end

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every part."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        # As in torch's AdamW: first the decay, then the update, from gradients of the undecayed weights.
        self._decay()
        self._align()
        for part in self.parts:
            part.step()
        return result

    def _align(self) -> None:
        """Copy each dense gradient whose memory layout differs from its parameter's.

        ``backward()`` gives none; ``torch.autograd.grad`` may, such as the transpose of a product. On a CPU
        ``torch.optim.Adam(fused=True)`` reads both in memory order and would combine the wrong elements.
        """
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = weight.grad
                if gradient is None or gradient.is_sparse or gradient.stride() == weight.stride():
                    continue
                strides = zip(weight.shape, weight.stride(), gradient.stride(), strict=True)
                # The stride of an axis of size 1 says nothing about the order.
                if any(size > 1 and own != other for size, own, other in strides):
                    weight.grad = torch.empty_like(weight).copy_(gradient)

    @torch.no_grad()
    def _decay(self) -> None:
        for group in self.param_groups:
            rate = group.get(DECAY, 0.0)
            if rate > 0.0:
                weights = [weight for weight in group["params"] if weight.grad is not None]
                if weights:
                    torch._foreach_mul_(weights, 1.0 - float(group["lr"]) * rate)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`. The parts go on sharing groups and state."""
        # torch makes new group dicts and a new state here, which the parts do not know yet.
        super().load_state_dict(state_dict)
        keep_wide_states(self, state_dict)
        self._share()
