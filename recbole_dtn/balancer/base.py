"""Base classes of balancers: the common interface of loss weighting and gradient surgery."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from recbole_dtn.balancer.step import Step
from recbole_dtn.schema import TaskSpec

__all__ = ["GradientBalancer", "LossBalancer"]


class LossBalancer(nn.Module, ABC):
    """Base class. A balancer owns the backward pass, so that the training loop has no special case for any method.

    A balancer is an ``nn.Module``: learned values are parameters, other state is in buffers. Both move between devices
    with it and are saved in the checkpoint. Its parameters are stepped by an Adam of their own, without weight decay
    and without clipping, in the run's optimiser and under its schedule.

    Options are keyword-only arguments of the constructor, with defaults. The weights that a data set's ``tasks:`` gives
    are read by ``fixed`` alone.

    Args:
        tasks: the T tasks, in the order of the losses.

    Attributes:
        reads_weights: whether it reads the ``weight`` of the tasks; where it does not, a run with weights warns.
        lr: learning rate of the balancer's own parameters; None for that of ``optimizer``.
    """

    reads_weights: ClassVar[bool] = False
    lr: float | None = None

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    @abstractmethod
    def backward(self, step: Step) -> Tensor:
        """Put the gradients of one step into ``.grad``: of the model's parameters, and of the balancer's own.

        Args:
            step: losses, parameters and ways to gradients (:class:`Step`).

        Returns:
            The scalar to log, without a graph: the total loss of the step.
        """

    def epoch_start(self, epoch: int, mean_losses: Tensor | None) -> None:
        """Called at the start of every epoch.

        Args:
            epoch: from 0. mean_losses: (T,), mean over the steps of the epoch before, of the steps where a task is
                observed (NaN if there was none); None in the first epoch.
        """

    def after_step(self, step: Step) -> None:
        """Called after the optimiser's step, with the step that :meth:`backward` had."""


class GradientBalancer(LossBalancer):
    """Base class of methods that weigh the tasks' gradients of the shared parameters by their inner products.

    Such a method writes :meth:`solve`. With g_t the gradient of L_t with respect to the shared parameters, these get
    ``sum_t weights_t g_t``, and the parameters of one task their own gradient of the unweighted loss. A task without an
    observed row is left out. Gradients that are not finite are summed as they are: the fp16 scaler then skips the step.
    """

    @abstractmethod
    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        """Weights of the K observed tasks.

        Args:
            gram: (K, K) float64 on the CPU, ``<g_s, g_t>``. step: the step. tasks: places of the K tasks among the T.

        Returns:
            (K,).
        """

    def backward(self, step: Step) -> Tensor:
        step.apply(step.agreed(self.weigh(step.gradients().gram(), step)))
        return step.losses.detach().sum() + step.extra.detach()

    def weigh(self, gram: Tensor, step: Step) -> Tensor:
        """(T, T) inner products of all tasks -> (T,) float64: :meth:`solve` for the observed tasks, 1 for others.

        All are 1 where a product is not finite.
        """
        observed = step.observed.nonzero().squeeze(1).cpu()
        # The gradient of an unobserved task is 0, so its weight of 1 has no effect.
        weights = torch.ones(len(gram), dtype=torch.float64)
        if len(observed) and bool(gram.isfinite().all()):
            part = gram[observed][:, observed]
            weights[observed] = torch.as_tensor(self.solve(part, step, observed.tolist())).to(weights)
        return weights
