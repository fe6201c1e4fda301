"""What a balancer is given in each training step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from recbole_dtn.balancer.gradients import TaskGradients, stack_gradients
from recbole_dtn.balancer.processes import count_processes, mean_over_processes
from recbole_dtn.balancer.reach import Reach
from recbole_dtn.model.base import ModelOutput

__all__ = ["Step"]


class Step:
    """One training step: the losses of a batch, and the ways to turn them into gradients.

    Loss-weighting methods call :meth:`run`, which runs the backward pass of a scalar. Gradient-surgery methods call
    :meth:`gradients`, which computes the gradient of each task separately, and :meth:`apply`, which writes a
    combination of them into ``.grad``. Both support the fp16 scaler (:meth:`gradients` returns unscaled gradients;
    ``.grad`` holds scaled ones) and several processes (gradients are means over the processes). Gradients are not
    accumulated over steps: each step starts without any.

    This class is for one model outside of a trainer, as in tests; the training loop gives a subclass.

    Args:
        losses: (T,), unweighted, each with its graph; 0 for a task without an observed row.
        extra: scalar, auxiliary losses and penalties, which no method re-weights; None for 0.
        reach: the parameters by task; for :meth:`gradients`, :meth:`apply`, ``shared`` and ``specific``.
        observed: (T,) bool, whether a task has a row in this batch, on any process; None: all of them.
        output: what the model returned. epoch, index: of this step, both from 0. seed: of :meth:`random`.
    """

    def __init__(
        self,
        losses: Tensor,
        extra: Tensor | None = None,
        *,
        reach: Reach | None = None,
        observed: Tensor | None = None,
        output: ModelOutput | None = None,
        epoch: int = 0,
        index: int = 0,
        seed: int = 0,
    ) -> None:
        self.losses = losses
        self.extra = losses.new_zeros(()) if extra is None else extra
        self.output = output
        self.epoch, self.index, self.seed = epoch, index, seed
        self._reach, self._observed = reach, observed
        # Per task, the gradients of its own parameters; filled with those of the shared ones (_of_shared).
        self._specific: list[Sequence[Tensor | None]] = []

    # ---- what there is ------------------------------------------------------------------------------------------

    @property
    def reach(self) -> Reach:
        """The trainable parameters by the tasks that depend on them."""
        if self._reach is None:
            raise ValueError("Step: no reach was given, so that shared and specific parameters are not known")
        return self._reach

    @property
    def shared(self) -> tuple[nn.Parameter, ...]:
        """The parameters that two tasks or more depend on."""
        return self.reach.shared

    @property
    def specific(self) -> tuple[tuple[nn.Parameter, ...], ...]:
        """Per task, the parameters that it alone depends on."""
        return self.reach.specific

    @property
    def observed(self) -> Tensor:
        """(T,) bool: whether a task has an observed row in this batch, on any process."""
        return torch.ones_like(self.losses, dtype=torch.bool) if self._observed is None else self._observed

    @cached_property
    def values(self) -> Tensor:
        """(T,): the losses as numbers, means over the processes, the same on each."""
        return mean_over_processes([self.losses.detach()])[0]

    @cached_property
    def scale(self) -> float:
        """What the fp16 scaler multiplies losses by; 1 elsewhere."""
        return 1.0

    def random(self) -> np.random.Generator:
        """Random numbers that the seed and the step's index alone decide: equal on all processes, nothing to save."""
        return np.random.default_rng([self.seed, self.index])

    def agreed(self, weights: Tensor) -> Tensor:
        """The first process's ``weights``, so that rounding can't let processes take different steps."""
        if count_processes() > 1:
            weights = weights.to(self.losses.device)
            torch.distributed.broadcast(weights, 0)
        return weights

    # ---- to gradients -------------------------------------------------------------------------------------------

    def run(self, loss: Tensor, retain_graph: bool = False) -> None:
        """Add the gradients of a scalar to ``.grad``.

        A method that calls this several times in a step sets ``retain_graph`` in all calls but the last. Over several
        processes that last one reduces the gradients, and has to reach every parameter of the model.
        """
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]

    def gradients(self, parameters: Sequence[nn.Parameter] | None = None) -> TaskGradients:
        """Each task's gradient of ``parameters``; by default of the shared ones, for :meth:`apply`.

        Costs one backward pass for each task. ``.grad`` stays as it is, and the graph is kept.
        """
        if parameters is not None:
            return stack_gradients(parameters, [self._gradient(loss, parameters) for loss in self.losses])
        return self._of_shared

    @cached_property
    def _of_shared(self) -> TaskGradients:
        count = len(self.shared)
        # One backward pass per task gives both, the shared parameters' and its own.
        each = [
            self._gradient(loss, [*self.shared, *own]) for loss, own in zip(self.losses, self.specific, strict=True)
        ]
        self._specific = [found[count:] for found in each]
        return stack_gradients(self.shared, [found[:count] for found in each])

    def apply(self, weights: Tensor, specific: Tensor | None = None, *, gradients: TaskGradients | None = None) -> None:
        """Add gradients to ``.grad``: ``sum_t weights_t g_t + g_extra`` for shared parameters, ``specific_t g_t +
        g_extra`` for those of task t alone.

        Args:
            weights: (T,), from the same numbers on every process (:meth:`agreed`). specific: (T,); None for ones.
            gradients: what takes the place of :meth:`gradients` as the g_t of the shared parameters; None for those.
        """
        # First: it also fills ``_specific``, which the lines below read.
        raw = self.gradients()
        combined = (raw if gradients is None else gradients).combine(weights)
        reach = self.reach
        alone = [parameter for own in reach.specific for parameter in own]
        own = [part for found in self._specific for part in found]
        if specific is not None:
            factors = [factor for factor, found in zip(specific.tolist(), self._specific, strict=True) for _ in found]
            own = [part if part is None else part * factor for part, factor in zip(own, factors, strict=True)]
        of_extra = self._gradient(self.extra, [*reach.shared, *alone, *reach.other])
        # Means over the processes already (stack_gradients); the rest is averaged below.
        self._add(reach.shared, combined)
        # These gradients are local to each process; those of the shared parameters are already means over the
        # processes.
        count = len(reach.shared)
        self._add_mean([*reach.shared, *reach.other], [*of_extra[:count], *of_extra[count + len(alone) :]])
        self._add_mean(alone, [_sum(*pair) for pair in zip(own, of_extra[count:], strict=False)])

    def _add_mean(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
        pairs = [(p, gradient) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        self._add([parameter for parameter, _ in pairs], mean_over_processes([gradient for _, gradient in pairs]))

    def _add(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            # The scaler's ``step`` divides what lies in ``.grad`` by this factor.
            scaled = gradient if self.scale == 1.0 else gradient * self.scale
            parameter.grad = _sum(parameter.grad, scaled)

    def _gradient(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
        """On this process, of the unscaled loss; computed scaled, so that fp16 does not lose small numbers."""
        if not parameters or not loss.requires_grad:
            return [None] * len(parameters)
        start = torch.full_like(loss, self.scale)
        # Autocast is for forward passes; each operation's backward runs in the type of its forward.
        with torch.autocast(loss.device.type, enabled=False):
            found = torch.autograd.grad(loss, parameters, start, retain_graph=True, allow_unused=True)
        if self.scale == 1.0:
            return found
        return [part if part is None else part / self.scale for part in found]

    # ---- after the optimiser's step -----------------------------------------------------------------------------

    def losses_again(self) -> Tensor:
        """(T,): the losses of the same batch with the parameters as they are now, means over the processes, no graph.

        Costs one forward pass. Buffers and the order of random numbers stay as they are; dropout draws other units.
        """
        raise NotImplementedError("losses_again needs the training loop's step")

    def update(self) -> None:
        """Step the optimiser of the balancer's own parameters, from the ``.grad`` that ``after_step`` has set."""
        raise NotImplementedError("update needs the training loop's step")


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
