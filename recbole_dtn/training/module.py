"""The Lightning module: one forward, one backward through the balancer, one step of the combined optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.balancer.processes import mean_over_processes
from recbole_dtn.balancer.reach import Reach, find_reach
from recbole_dtn.config.metrics import is_error
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.layers.stages import stage
from recbole_dtn.loss.tasks import loss_weights
from recbole_dtn.metric.tasks import Details, new_metrics
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.optim.build import build_optimizer, sparse_gradients
from recbole_dtn.optim.combined import CombinedOptimizer
from recbole_dtn.optim.schedule import build_schedule
from recbole_dtn.record.scores import ScoreKeeper
from recbole_dtn.registry import BALANCERS
from recbole_dtn.training.chain import ChainBreaks
from recbole_dtn.training.compiled import compiled_forward
from recbole_dtn.training.parts import check_parts, forward_in_parts
from recbole_dtn.training.step import TrainingStep

__all__ = ["GateMeans", "TrainingModule", "rates"]


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
            # The M sums, then the number of rows: one reduction per task gives both.
            packed = torch.zeros(len(names) + 1, dtype=torch.float64)
            if key in self.sums:
                packed[:-1], packed[-1] = self.sums[key], self.rows[key]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                # NCCL reduces tensors of a GPU only.
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
        # Lightning then calls neither backward, the optimiser nor the schedule: training_step does.
        self.automatic_optimization = False
        check_parts(model, settings.batch_parts)
        # Before DDP wraps the model: only then does it learn which gradients are sparse.
        model.set_sparse(sparse_gradients(settings))
        self.model = model
        # A plain attribute and no module, so that parameters keep the names of the model.
        self.compiled = None if model.fits_directly else compiled_forward(model, settings)
        self.settings = settings
        self.steps_per_epoch = steps_per_epoch
        tasks = model.schema.tasks
        self.balancer: LossBalancer = BALANCERS.build(settings.balancer, tasks)
        self.metrics = new_metrics(settings, tasks)
        self.gate_means = GateMeans(model.gate_names)
        self.chain_breaks = ChainBreaks(tasks)
        self.latest: dict[str, dict[str, float | None]] = {}
        """Metrics of the last evaluation; None where undefined."""
        self.latest_factors: dict[str, dict[str, float | None]] = {}
        self.latest_details: Details = {}
        self.test_scores: ScoreKeeper | None = None
        """Keeps the logits of the test rows, where they are wanted."""
        self.steps_taken = 0
        self.known_reach: Reach | None = None
        # DDP expects a gradient of every parameter in every backward pass; those of a balancer are averaged here.
        self._ddp_params_and_buffers_to_ignore = [f"balancer.{name}" for name, _ in self.balancer.named_parameters()]
        self.loss_sum = torch.zeros(())
        self.loss_steps = 0
        # Sums of the losses are kept only for a balancer that overrides epoch_start.
        self.means_wanted = type(self.balancer).epoch_start is not LossBalancer.epoch_start
        # Row 0: sums of the losses over steps; row 1: steps in which the task was observed.
        self.task_sums = torch.zeros(2, len(tasks))

    def forward(self, features: Features) -> ModelOutput:
        output: ModelOutput = (self.compiled or self.model)(features)
        return output

    def transfer_batch_to_device(self, batch: Features, device: torch.device, dataloader_idx: int) -> Features:
        # non_blocking: the CPU does not wait for a copy from page-locked memory.
        return batch if batch.ids.device == device else batch.to(device, non_blocking=device.type != "cpu")

    # ---- training -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.model, self.settings, [*self.balancer.parameters()], self.balancer.lr)
        schedule = build_schedule(
            optimizer, self.settings.scheduler, steps_per_epoch=self.steps_per_epoch, epochs=self.settings.epochs
        )
        return [optimizer], [schedule]

    def on_train_epoch_start(self) -> None:
        self.loss_sum, self.loss_steps = torch.zeros((), device=self.device), 0
        if self.means_wanted:
            # The mean over processes scales both rows alike, so the ratio is that of the sums.
            sums, steps = mean_over_processes([self.task_sums])[0] if self.steps_taken else (None, None)
            self.balancer.epoch_start(self.current_epoch, None if sums is None else sums / steps)
            self.task_sums = torch.zeros(2, len(self.model.schema.tasks), device=self.device)

    def training_step(self, batch: Features, batch_idx: int) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        output, penalties = self._forward_in_training(batch)
        with stage("loss"):
            observed = self._observed_per_process(batch)
            losses = self.model.task_losses(batch, output, observed)
            extra = losses.new_zeros(())
            for term in (*output.auxiliary.values(), *penalties.values()):
                extra = extra + term
        step = TrainingStep(self, batch, output, losses, extra, observed)
        with stage("backward"):
            total = self._balance(step)
        with stage("optimiser"):
            # Lightning's wrapper: it unscales under fp16, calls on_before_optimizer_step, and counts global_step.
            self._step(optimizer)
        # The graph of the losses is freed by now: a balancer that needs them again calls losses_again.
        self.balancer.after_step(step)
        schedule = self.lr_schedulers()
        assert schedule is not None
        assert not isinstance(schedule, list | torch.optim.lr_scheduler.ReduceLROnPlateau)
        schedule.step()
        self.loss_sum += total.detach()
        self.loss_steps += 1
        self.steps_taken += 1

    def _forward_in_training(self, batch: Features) -> tuple[ModelOutput, Mapping[str, Tensor]]:
        """The output and the penalties of a forward pass, of the batch at once or in parts."""

        def forward(part: Features) -> tuple[ModelOutput, Mapping[str, Tensor]]:
            # In this order: a forward sets the penalties of the tables.
            return self(part), self.model.penalties()

        parts = self.settings.batch_parts
        return forward(batch) if parts == 1 else forward_in_parts(forward, batch, parts)

    def _step(self, optimizer: LightningOptimizer) -> None:
        """Step.

        Raises:
            RecBoleDTNError: for a step beyond the numbers of float32.
        """
        try:
            optimizer.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise RecBoleDTNError(
                "a step of the optimizer is larger than any number of float32: lower optimizer.lr (now "
                f"{rates(self.settings)})"
            ) from error

    def _balance(self, step: TrainingStep) -> Tensor:
        """The balancer's backward pass; the scalar to log."""
        total = self.balancer.backward(step)
        # DDP ignores these parameters (constructor), so their gradients are averaged here.
        own = [parameter for parameter in self.balancer.parameters() if parameter.grad is not None]
        for parameter, mean in zip(own, mean_over_processes([p.grad for p in own if p.grad is not None]), strict=True):
            parameter.grad = mean
        if self.means_wanted:
            self.task_sums += torch.stack([step.losses.detach() * step.observed, step.observed.float()])
        return total

    def reach(self, batch: Features) -> Reach:
        """The model's parameters by the tasks that depend on them, found when a balancer first asks."""
        if self.known_reach is None:
            self.known_reach = find_reach(self.model, batch.split(self.settings.batch_parts)[0])
        return self.known_reach

    def update_balancer(self) -> None:
        """Step the optimiser of the balancer's own parameters alone, from their unscaled gradients."""
        # Without Lightning's wrapper: no unscaling, and no step of the run is counted.
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, CombinedOptimizer)
        optimizer.parts[-1].step()

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

    def run_backward(self, loss: Tensor, *, retain_graph: bool) -> None:
        """Backward of a scalar, scaled under fp16. DDP reduces gradients in the pass that does not keep the graph."""
        wrapper = self.trainer.strategy.model
        if isinstance(wrapper, DistributedDataParallel):
            # DDP's hooks reduce once per step, in the last backward pass.
            wrapper.require_backward_grad_sync = not retain_graph
        # Lightning keeps autocast on during the whole step; it is for forward passes alone.
        with torch.autocast(self.device.type, enabled=False):
            self.manual_backward(loss, retain_graph=retain_graph)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Here, and not in training_step: under fp16 the gradients are unscaled only now.
        if self.settings.gradient_clip is not None:
            tables = {id(table.weight) for table in self.model.tables()}
            # Tables are left out: clip_grad_norm_ takes no sparse gradients.
            dense = [p for p in self.model.parameters() if id(p) not in tables and p.grad is not None]
            nn.utils.clip_grad_norm_(dense, self.settings.gradient_clip)

    def training_state(self) -> dict[str, Any]:
        """What a training checkpoint has beside parameters, buffers and optimisers."""
        return {
            "steps_taken": self.steps_taken,
            "loss_sum": self.loss_sum.cpu(),
            "loss_steps": self.loss_steps,
            "task_sums": self.task_sums.cpu(),
        }

    def set_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`training_state`."""
        self.steps_taken, self.loss_steps = state["steps_taken"], state["loss_steps"]
        self.loss_sum, self.task_sums = state["loss_sum"].to(self.device), state["task_sums"].to(self.device)

    # ---- evaluation ---------------------------------------------------------------------------------------------

    def _start_evaluation(self) -> None:
        self.metrics.reset()
        # A new object for each evaluation: after a run it holds the test rows.
        self.gate_means = GateMeans(self.model.gate_names)
        self.chain_breaks = ChainBreaks(self.model.schema.tasks)

    def _evaluate(self, batch: Features) -> ModelOutput:
        output = self.model.served(self(batch))
        with stage("metrics"):
            self.metrics.add_batch(batch, output)
            self.gate_means.update(output.gates)
            self.chain_breaks.update(output.logits.detach())
        return output

    def _end_evaluation(self) -> None:
        with stage("metrics"):
            self.latest, self.latest_factors = self.metrics.compute(), self.metrics.compute_factors()
            self.latest_details = self.metrics.details()

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation()

    def validation_step(self, batch: Features, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._end_evaluation()
        self.log_dict(
            {
                f"valid/{task}_{metric}": value
                for task, values in {**self.latest, **self.latest_factors}.items()
                for metric, value in values.items()
                if value is not None and not is_error(metric)
            },
            rank_zero_only=True,
        )

    def on_test_epoch_start(self) -> None:
        self._start_evaluation()

    def test_step(self, batch: Features, batch_idx: int) -> None:
        output = self._evaluate(batch)
        if self.test_scores is not None:
            self.test_scores.add(batch, output.logits)

    def on_test_epoch_end(self) -> None:
        self._end_evaluation()


def rates(settings: Settings) -> str:
    """The learning rates, for a message."""
    own = settings.embedding_optimizer.lr
    return f"{settings.optimizer.lr:g}" + (f", of embeddings {own:g}" if own is not None else "")
