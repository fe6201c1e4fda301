"""The Lightning module: one forward, one backward through the balancer, one step of the combined optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.layers.stages import stage
from recbole_dtn.loss.tasks import loss_weights
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.optim.build import build_optimizer, sparse_gradients
from recbole_dtn.optim.schedule import build_schedule
from recbole_dtn.registry import BALANCERS
from recbole_dtn.training.compiled import compiled_forward

__all__ = ["GateMeans", "TrainingModule"]


class GateMeans(nn.Module):
    """Mean weight of every gate column over the rows seen; sums are reduced over processes before the division."""

    def __init__(self, names: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.names = dict(names)
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}

    def update(self, gates: Mapping[str, Tensor]) -> None:
        """Add a batch: ``gates`` as in :class:`ModelOutput`, (B, M) each."""
        for key, weights in gates.items():
            if key in self.names:
                total = weights.detach().double().sum(0).cpu()
                self.sums[key] = self.sums[key] + total if key in self.sums else total
                self.rows[key] = self.rows.get(key, 0) + weights.shape[0]

    def compute(self) -> dict[str, dict[str, float]]:
        """``{task: {owner/module: mean weight}}`` over all processes."""
        means: dict[str, dict[str, float]] = {}
        for key, names in self.names.items():
            packed = torch.zeros(len(names) + 1, dtype=torch.float64)
            if key in self.sums:
                packed[:-1], packed[-1] = self.sums[key], self.rows[key]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                device = torch.device("cuda") if torch.distributed.get_backend() == "nccl" else packed.device
                moved = packed.to(device)
                torch.distributed.all_reduce(moved)
                packed = moved.cpu()
            if packed[-1] > 0:
                means[key] = dict(zip(names, (packed[:-1] / packed[-1]).tolist(), strict=True))
        return means


class TrainingModule(lightning.LightningModule):
    """Trains any :class:`MultiTaskRecommender`.

    Optimisation is manual, so that a balancer owns the backward pass: loss weighting and gradient surgery need no
    special case here.

    Args:
        model: the model. settings: typed settings. steps_per_epoch: optimiser steps of one epoch, for schedules.
    """

    def __init__(self, model: MultiTaskRecommender, settings: Settings, *, steps_per_epoch: int = 1) -> None:
        super().__init__()
        self.automatic_optimization = False
        # Before DDP wraps the model: only then does it learn which gradients are sparse.
        model.set_sparse(sparse_gradients(settings))
        self.model = model
        self.compiled = compiled_forward(model, settings)
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        tasks = model.schema.tasks
        self.balancer: LossBalancer = BALANCERS.build(settings.balancer, tasks)
        self.metrics = MultiTaskMetrics(tasks)
        self.gate_means = GateMeans(model.gate_names)
        self.latest: dict[str, dict[str, float | None]] = {}
        """Metrics of the last evaluation; None where undefined."""
        self.parameters_of_model = tuple(model.parameters())
        self.loss_sum = torch.zeros(())
        self.loss_steps = 0

    def forward(self, features: Features) -> ModelOutput:
        output: ModelOutput = (self.compiled or self.model)(features)
        return output

    def transfer_batch_to_device(self, batch: Features, device: torch.device, dataloader_idx: int) -> Features:
        return batch if batch.ids.device == device else batch.to(device, non_blocking=device.type != "cpu")

    # ---- training -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.model, self.settings)
        schedule = build_schedule(
            optimizer, self.settings.scheduler, steps_per_epoch=self.steps_per_epoch, epochs=self.settings.epochs
        )
        return [optimizer], [schedule]

    def on_train_epoch_start(self) -> None:
        self.loss_sum, self.loss_steps = torch.zeros((), device=self.device), 0

    def training_step(self, batch: Features, batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        output = self(batch)
        with stage("loss"):
            losses = self.model.task_losses(batch, output, self._observed_per_process(batch))
            extra = losses.new_zeros(())
            for term in (*output.auxiliary.values(), *self.model.penalties().values()):
                extra = extra + term
        with stage("backward"):
            total = self.balancer.backward(losses, extra, self.parameters_of_model, self._backward)
        with stage("optimiser"):
            optimizer.step()
        schedule = self.lr_schedulers()
        assert schedule is not None
        assert not isinstance(schedule, list | torch.optim.lr_scheduler.ReduceLROnPlateau)
        schedule.step()
        self.loss_sum += total.detach()
        self.loss_steps += 1

    def _observed_per_process(self, batch: Features) -> Tensor | None:
        """What each task's loss is divided by, (T,), when the batch is spread over processes.

        DDP averages the processes' gradients. That is the gradient of the whole batch's mean loss only if all of them
        divide by the same number, however many labels each has: the sum over all, per process.
        """
        if self.trainer.world_size == 1:
            return None
        total = loss_weights(batch.observed, batch.sample_weight, torch.float32).sum(0)
        torch.distributed.all_reduce(total)
        return total / self.trainer.world_size

    def _backward(self, loss: Tensor) -> None:
        # Lightning keeps autocast on during the whole step; it is for forward passes alone.
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here, and not in training_step: under fp16 the gradients are unscaled only now.
        if self.settings.gradient_clip is not None:
            tables = {id(table.weight) for table in self.model.tables()}
            dense = [p for p in self.model.parameters() if id(p) not in tables and p.grad is not None]
            nn.utils.clip_grad_norm_(dense, self.settings.gradient_clip)

    # ---- evaluation ---------------------------------------------------------------------------------------------

    def _start_evaluation(self) -> None:
        self.metrics.reset()
        self.gate_means = GateMeans(self.model.gate_names)

    def _evaluate(self, batch: Features) -> None:
        output = self(batch)
        with stage("metrics"):
            self.metrics.update(output.logits, batch.labels, batch.observed, batch.sample_weight)
            self.gate_means.update(output.gates)

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation()

    def validation_step(self, batch: Features, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        with stage("metrics"):
            self.latest = self.metrics.compute()
        self.log_dict(
            {
                f"valid/{task}_{metric}": value
                for task, values in self.latest.items()
                for metric, value in values.items()
                if value is not None
            },
            rank_zero_only=True,
        )

    def on_test_epoch_start(self) -> None:
        self._start_evaluation()

    def test_step(self, batch: Features, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self.latest = self.metrics.compute()
