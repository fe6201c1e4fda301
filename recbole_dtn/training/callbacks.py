"""Callbacks of training: keep the best epoch, measure samples per second, show progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning

from recbole_dtn.config.metrics import higher_is_better
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.metric.select import is_better, select, task_weights
from recbole_dtn.metric.tasks import Details, with_domain_names
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.record.checkpoint import write_checkpoint
from recbole_dtn.record.record import EpochRecord, RunRecord
from recbole_dtn.training.module import TrainingModule, rates
from recbole_dtn.training.report import Report

__all__ = ["BestKeeper", "Clock", "ProgressLine"]

KEPT = ("best", "best_epoch", "valid", "factors", "details", "worse", "epochs", "best_round")
"""Plain values of a BestKeeper that a training checkpoint has."""
LOOK_AGAIN = 50
"""Steps on a GPU after which the training loss is looked at."""


class BestKeeper(lightning.Callback):
    """Writes the checkpoint of the best epoch on validation, and stops the training (RecBole's rule) after more than
    ``stopping_step`` validations in a row without a better one.

    The metric is the same on every process, so all of them stop together; only the first writes.

    Args:
        settings: of the run. vocabularies: of the checkpoint. path: of its file.
        positives: positive and observed validation rows of each task, for ``weighted_<metric>``.
        describe: the run's record so far, for the checkpoint.
    """

    def __init__(
        self,
        settings: Settings,
        vocabularies: Vocabularies,
        path: Path,
        positives: Mapping[str, tuple[int, int]],
        describe: Callable[[], RunRecord] | None = None,
    ) -> None:
        self.settings = settings
        self.weights = task_weights(positives, {task.name: task.kind for task in settings.tasks})
        self.tasks = [task.name for task in settings.tasks]
        self.vocabularies = vocabularies
        self.path = path
        self.describe = describe
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.valid: dict[str, dict[str, float | None]] | None = None
        self.factors: dict[str, dict[str, float | None]] = {}
        self.details: Details = {}
        self.worse = 0
        self.epochs = 0
        self.history: list[EpochRecord] = []
        self._selected: float | None = None
        self.interrupted_at: str | None = None
        self.written: int | None = None
        """Epoch of the checkpoint of a run that goes on from before it was written."""
        self.best_round: int | None = None
        """Of a model that was fitted directly; it is recorded as the epoch."""

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self._check_loss(trainer, pl_module)  # before the logits are looked at: it says more

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        name = self.settings.valid_metric
        # The module's on_validation_epoch_end has computed ``latest`` before callbacks hear of on_validation_end.
        value = select(pl_module.latest, name, self.weights)
        if value is None or not math.isfinite(value):
            raise RecBoleDTNError(
                f"valid_metric={name} is undefined on the validation split (one class only, or no observed label): "
                "choose another valid_metric or another split"
            )
        self._selected = value
        # Lightning counts from 0, the user from 1.
        epoch = trainer.current_epoch + 1 if self.best_round is None else self.best_round
        # On a GPU a validation that is done again may find another number. The file has its epoch already, and no epoch
        # before.
        again = epoch == self.written
        if again or is_better(higher_is_better(name, self.tasks), value, self.best):
            self._check_weights(trainer, pl_module.model)

            def note() -> None:
                self.best, self.best_epoch, self.worse = value, epoch, 0
                self.valid, self.factors = pl_module.latest, pl_module.latest_factors
                self.details = pl_module.latest_details

            # Every process notes the best epoch, one writes the file; it notes it when the file is there.
            if trainer.is_global_zero:
                write_checkpoint(
                    self.path,
                    pl_module.model,
                    self.vocabularies,
                    epoch=epoch,
                    balancer=pl_module.balancer,
                    record=self._record(trainer, pl_module, epoch),
                    replaced=note,
                )
            else:
                note()
        else:
            self.worse += 1
            if self.worse > self.settings.stopping_step:
                trainer.should_stop = True
        if self._falls_behind(epoch):
            trainer.should_stop = True

    def _falls_behind(self, epoch: int) -> bool:
        """Whether a trial has not reached by now what is needed of it."""
        needed = [] if self.settings.trial is None else self.settings.trial.needed
        least = needed[epoch - 1] if epoch <= len(needed) else None
        higher = higher_is_better(self.settings.valid_metric, self.tasks)
        return least is not None and self.best is not None and is_better(higher, least, self.best)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self.epochs = trainer.current_epoch + 1
        self._check_loss(trainer, pl_module)
        self.history.append(self._entry(trainer, pl_module))

    def _entry(self, trainer: lightning.Trainer, module: TrainingModule) -> EpochRecord:
        epoch = trainer.current_epoch + 1
        validated = epoch % self.settings.eval_step == 0
        return EpochRecord(
            epoch=epoch,
            step=trainer.global_step,
            loss=float(module.loss_sum) / max(module.loss_steps, 1),
            valid=module.latest if validated else None,
            selected=self._selected if validated else None,
        )

    def _record(self, trainer: lightning.Trainer, module: TrainingModule, epoch: int) -> dict[str, Any] | None:
        """The run's record with the epoch that has just been validated as its best."""
        if self.describe is None:
            return None
        found: dict[str, Any] = {
            "best_epoch": epoch,
            "valid": module.latest,
            "valid_value": self._selected,
            "factors": {"valid": module.latest_factors} if module.latest_factors else {},
            "details": {"valid": named} if (named := self._named(module.latest_details)) else {},
        }
        if self.best_round is None:
            found |= {"epochs": epoch, "history": [*self.history, self._entry(trainer, module)]}
        return self.describe().model_copy(update=found).model_dump(mode="json")

    def _named(self, details: Details) -> Details:
        return with_domain_names(details, self.vocabularies.domains)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes, as plain values."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "history": [entry.model_dump() for entry in self.history],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        for name in KEPT:
            setattr(self, name, state[name])
        self.history = [EpochRecord.model_validate(entry) for entry in state["history"]]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        # Reading the loss of each step would wait for a GPU.
        if pl_module.device.type == "cpu" or (batch_idx + 1) % LOOK_AGAIN == 0:
            self._check_loss(trainer, pl_module)

    def _check_loss(self, trainer: lightning.Trainer, pl_module: TrainingModule) -> None:
        # Of the sum over steps: once not finite, it stays so.
        loss = float(pl_module.loss_sum) / max(pl_module.loss_steps, 1)
        if not math.isfinite(loss):
            raise self._diverged(trainer, f"the training loss is {loss}")

    def _check_weights(self, trainer: lightning.Trainer, model: MultiTaskRecommender) -> None:
        """Before they are written: rows of a table that no validation row looks up have not been seen."""
        for name, weight in model.named_parameters():
            # The sum is finite where all are; it may be infinite where all are finite.
            if not bool(weight.sum().isfinite()) and not bool(weight.isfinite().all()):
                raise self._diverged(trainer, f"the weights {name} are not finite")

    def _diverged(self, trainer: lightning.Trainer, what: str) -> RecBoleDTNError:
        kept = (
            f"that of epoch {self.best_epoch} is kept in {self.path.parent}: `test --run` tests it"
            if self.best_epoch is not None
            else "there is no epoch before it to keep"
        )
        return RecBoleDTNError(
            f"{what} in epoch {trainer.current_epoch + 1}, step {trainer.global_step:,}: try a lower optimizer.lr "
            f"(now {rates(self.settings)}), gradient_clip, or precision 32; {kept}"
        )

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self.interrupted_at = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"


class Clock(lightning.Callback):
    """Samples per second of the training steps alone (validation and checkpoints left out), over all processes."""

    def __init__(self) -> None:
        self.rows = 0
        self.seconds = 0.0
        self._start = 0.0
        self._last = 0.0
        self._epoch_rows = 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Restarted per epoch, so that validation between two epochs is in neither rate.
        self._start = self._last = time.perf_counter()
        self._epoch_rows = 0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.perf_counter()
        # The batch of this process times the processes, all of which have batches of one size in training.
        self._epoch_rows += len(batch) * trainer.world_size
        self.rows += len(batch) * trainer.world_size
        self.seconds += now - self._last
        self._last = now

    def leave_out(self, seconds: float) -> None:
        """Take the last seconds, in which something else was done, out of both rates."""
        self._start += seconds
        self._last += seconds

    def state(self) -> dict[str, float]:
        """What :meth:`restore` takes."""
        return {"rows": self.rows, "seconds": self.seconds, "epoch_rows": self._epoch_rows,
                "epoch_seconds": self._last - self._start}  # fmt: skip

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`state`, in the middle of an epoch."""
        self.rows, self.seconds, self._epoch_rows = int(state["rows"]), state["seconds"], int(state["epoch_rows"])
        self._last = time.perf_counter()
        self._start = self._last - state["epoch_seconds"]

    @property
    def epoch_rate(self) -> float | None:
        """Samples per second of the running epoch."""
        elapsed = self._last - self._start
        return self._epoch_rows / elapsed if elapsed > 0 else None

    @property
    def rate(self) -> float | None:
        """Samples per second of all epochs."""
        return self.rows / self.seconds if self.seconds > 0 else None


class ProgressLine(lightning.Callback):
    """A live bar with samples/s while an epoch runs (on a terminal), then one line per epoch."""

    def __init__(self, report: Report, clock: Clock, keeper: BestKeeper) -> None:
        self.report = report
        self.clock = clock
        self.keeper = keeper

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert trainer.max_epochs is not None
        self.report.start_bar(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", int(trainer.num_training_batches)
        )

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.report.move_bar(self.clock.epoch_rate)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.report.stop_bar()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        assert trainer.max_epochs is not None
        self.report.stop_bar()
        epoch = trainer.current_epoch + 1
        self.report.epoch(
            epoch,
            trainer.max_epochs,
            loss=float(pl_module.loss_sum) / max(pl_module.loss_steps, 1),
            # Not validated in this epoch: ``latest`` would be that of an earlier one.
            metrics=pl_module.latest if epoch % self.keeper.settings.eval_step == 0 else None,
            rate=self.clock.epoch_rate,
            best=self.keeper.best_epoch == epoch,
        )

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self.report.stop_bar()
