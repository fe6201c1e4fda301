"""The step that the training loop gives to a balancer."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from recbole_dtn.balancer.processes import mean_over_processes
from recbole_dtn.balancer.reach import Reach
from recbole_dtn.balancer.step import Step
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.loss.tasks import loss_weights
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender

__all__ = ["TrainingLoop", "TrainingStep"]


class TrainingLoop(Protocol):
    """What a step reads of the training loop; :class:`recbole_dtn.training.module.TrainingModule` has it."""

    model: MultiTaskRecommender
    settings: Settings
    steps_taken: int

    @property
    def current_epoch(self) -> int: ...
    @property
    def trainer(self) -> Any: ...
    def reach(self, batch: Features) -> Reach: ...
    def run_backward(self, loss: Tensor, *, retain_graph: bool) -> None: ...
    def update_balancer(self) -> None: ...


class TrainingStep(Step):
    """A :class:`Step` of the training loop. What costs time is worked out when a balancer asks for it.

    Args:
        module: the Lightning module. batch: its rows. output: what the model returned. losses, extra: as in Step.
        total: (T,), what the losses were divided by, where the batch is spread over processes; else None.
    """

    def __init__(
        self,
        module: TrainingLoop,
        batch: Features,
        output: ModelOutput,
        losses: Tensor,
        extra: Tensor,
        total: Tensor | None,
    ) -> None:
        super().__init__(
            losses,
            extra,
            output=output,
            epoch=module.current_epoch,
            index=module.steps_taken,
            seed=module.settings.seed,
        )
        self.module, self.batch, self.total = module, batch, total

    @property
    def reach(self) -> Reach:
        return self.module.reach(self.batch)

    @cached_property
    def observed(self) -> Tensor:
        total = self.total
        # Over processes ``total`` is reduced already, so that a row on any process counts.
        if total is None:
            total = loss_weights(self.batch.observed, self.batch.sample_weight, torch.float32).sum(0)
        return total > 0

    @cached_property
    def scale(self) -> float:
        scaler = getattr(self.module.trainer.precision_plugin, "scaler", None)
        # Not get_scale(): the scaler sets itself up when it first scales something.
        return 1.0 if scaler is None else float(scaler.scale(self.losses.new_ones(())))

    def run(self, loss: Tensor, retain_graph: bool = False) -> None:
        self.module.run_backward(loss, retain_graph=retain_graph)

    @torch.no_grad()
    def losses_again(self) -> Tensor:
        model, device = self.module.model, self.losses.device
        # The call works on copies of the buffers: running means do not move.
        copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            output: ModelOutput = functional_call(model, copies, (self.batch,))
        return mean_over_processes([model.task_losses(self.batch, output, self.total)])[0]

    def update(self) -> None:
        self.module.update_balancer()
