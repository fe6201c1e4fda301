"""From T task losses to gradients: the one interface of loss weighting and of gradient surgery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from recbole_dtn.schema import TaskSpec

__all__ = ["LossBalancer"]


class LossBalancer(nn.Module, ABC):
    """Base class. A balancer owns the backward pass, so that the training loop has no special case for any method.

    It is a module: what it learns are its parameters, what it remembers are its buffers, and both move between
    devices and into checkpoints with it.

    Args:
        tasks: the T tasks, in the order of the losses.
    """

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def backward(
        self, losses: Tensor, extra: Tensor, shared: Sequence[nn.Parameter], run: Callable[[Tensor], None]
    ) -> Tensor:
        """Accumulate the gradients of one step into ``.grad``.

        Args:
            losses: (T,), unweighted, each with its graph.
            extra: scalar, auxiliary losses and penalties, which no method re-weights; 0 where there are none.
            shared: the model's parameters; a method of gradient surgery works on those that more than one loss reaches.
            run: the trainer's ``backward`` of a scalar: it scales under AMP and reduces under DDP.

        Returns:
            The scalar to log: the total loss of the step.
        """
