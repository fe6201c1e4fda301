"""Training checkpoints: when they are written, what they hold, and how a run goes on from one.

A run is saved between two batches. Position (epoch, batch) says how many batches of the epoch are done; after the last
one its validation is still to come, and a run that is stopped in a validation is saved as it was before it.
"""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.loggers import CSVLogger

from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.record.checkpoint import checkpoint_epoch
from recbole_dtn.record.record import RunRecord
from recbole_dtn.record.training import read_training, write_training
from recbole_dtn.training.callbacks import BestKeeper, Clock
from recbole_dtn.training.loaders import Loaders
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.report import Report
from recbole_dtn.training.signals import Signals

__all__ = ["TrainingKeeper", "random_state", "set_random_state"]

METRICS = "metrics.csv"


class TrainingKeeper(lightning.Callback):
    """Writes the training checkpoint of a run, and goes on from one.

    The last of the callbacks, so that the others have seen the batch after which it writes.

    Args:
        folder: of the run. keeper, clock, data, report, signals: of the run.
        describe: the run's record so far.
        resumed: go on from the training checkpoint of the folder.
    """

    def __init__(
        self,
        folder: Path,
        keeper: BestKeeper,
        clock: Clock,
        data: Loaders,
        report: Report,
        signals: Signals,
        describe: Callable[[], RunRecord],
        *,
        resumed: bool = False,
    ) -> None:
        self.folder, self.keeper, self.clock, self.data = folder, keeper, clock, data
        self.report, self.signals, self.describe = report, signals, describe
        self.every = keeper.settings.checkpoint
        self.trained = False
        """Whether the training has ended: the test alone is left."""
        self.seconds = 0.0
        """Of training before this process went on with it."""
        self._found: dict[str, Any] | None = None
        self._rows: list[dict[str, Any]] = []
        self._start = self._saved = time.perf_counter()
        self._before_validation: dict[str, Any] = {}
        self.resumed = resumed
        if resumed:
            self._found = read_training(folder)
            self._rows = _csv_rows(folder / METRICS)
            self.seconds = self._found["seconds"]
            self.trained = self._found["trained"]
            best, there = self._found["keeper"]["best_epoch"], checkpoint_epoch(folder)
            if best is not None and (there is None or there < best):
                raise DataError(
                    f"resume={folder}: expected the checkpoint of epoch {best} beside the training checkpoint, found "
                    + ("none" if there is None else f"that of epoch {there}")
                )
            keeper.written = there if there != best else None
            if self.trained:
                keeper.restore(self._found["keeper"])
                clock.restore(self._found["clock"])
                report.show(f"the training had ended: goes on with the test of {folder}")

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, over all processes that went on with it."""
        return self.seconds if self.trained else self.seconds + time.perf_counter() - self._start

    # ---- when ---------------------------------------------------------------------------------------------------

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        steps, minutes = self.every.every_steps, self.every.every_minutes
        due = steps is not None and trainer.global_step % steps == 0
        if minutes is not None and time.perf_counter() - self._saved >= 60 * minutes:
            due = True
        self.signals.asked, due = self._agreed(trainer, self.signals.asked, due)
        if self.signals.asked or due:
            position, begun = self._position(trainer, batch_idx + 1), time.perf_counter()
            self.write(trainer, pl_module, position)
            self.clock.leave_out(time.perf_counter() - begun)
        self.signals.check()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._before_validation = self._position(trainer, int(trainer.num_training_batches))

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        # Processes have different numbers of batches here, so that each acts for itself.
        if self.signals.asked and trainer.state.fn == "fit":
            self.write(trainer, pl_module, self._before_validation)
        self.signals.check()

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.signals.check()

    def end_training(self, trainer: lightning.Trainer) -> None:
        """Note that the test alone is left; the weights are those of the best epoch's checkpoint."""
        self.seconds, self.trained = self.elapsed, True
        if trainer.is_global_zero:
            self._write({"trained": True, "seconds": self.seconds, "keeper": self.keeper.state(),
                         "clock": self.clock.state()})  # fmt: skip
        self.signals.check()

    @staticmethod
    def _agreed(trainer: lightning.Trainer, stop: int, due: bool) -> tuple[int, bool]:
        """The signal that any process has got, or 0, and whether the first is to write: all act at the same step."""
        if trainer.world_size == 1:
            return stop, due
        asked = torch.tensor([stop, int(due and trainer.is_global_zero)], device=trainer.strategy.root_device)
        # SIGTERM is a larger number than SIGINT, and wins.
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        stop, write = asked.tolist()
        return stop, bool(write)

    # ---- what ---------------------------------------------------------------------------------------------------

    def _position(self, trainer: lightning.Trainer, batch: int) -> dict[str, Any]:
        """Where the training is, and all that a validation changes or that differs between processes."""
        state = random_state(trainer.strategy.root_device)
        states: list[Any] = [state]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, state)
        return {
            "epoch": trainer.current_epoch,
            "batch": batch,
            "batches": int(trainer.num_training_batches),
            "step": trainer.global_step,
            "logged_steps": trainer.fit_loop.epoch_loop._batches_that_stepped,
            "random": states,
            "keeper": self.keeper.state(),
            "clock": self.clock.state(),
        }

    def write(self, trainer: lightning.Trainer, module: TrainingModule, position: Mapping[str, Any]) -> None:
        """Write the training checkpoint; what is not in ``position`` is as it is now."""
        # All processes have come this far: how long the writing takes is no matter.
        self.signals.met = bool(self.signals.asked)
        self._saved = time.perf_counter()
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.save()
        self._write({
            "trained": False,
            "seconds": self.elapsed,
            "model": _on_cpu(module.model.state_dict()),
            "balancer": _on_cpu(module.balancer.state_dict()),
            "module": module.training_state(),
            "optimizers": [_on_cpu(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "precision": trainer.precision_plugin.state_dict(),
            **position,
        })  # fmt: skip
        self._saved = time.perf_counter()

    def _write(self, content: dict[str, Any]) -> None:
        record = self.describe()
        try:
            write_training(self.folder, content, record)
        except DataError as error:
            self.report.show(
                f"warning: no training checkpoint could be written: {error}; the run goes on, and can be resumed from "
                "the one before at most"
            )

    # ---- going on -----------------------------------------------------------------------------------------------

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        found = self._found
        if found is None:
            return
        if self.trained:
            self._restore_rows(trainer, self._rows)
        if stage != "fit":
            return
        if len(found["random"]) != trainer.world_size:
            raise UsageError(
                f"resume={self.folder}: it was trained by {len(found['random'])} processes, here are "
                f"{trainer.world_size}: give as many devices"
            )
        self.data.start = found["epoch"], found["batch"]
        _set_loops(trainer, found)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        found, self._found = self._found, None
        if found is not None:
            self._restore(trainer, pl_module, found)
        self._start = self._saved = time.perf_counter()

    def _restore(self, trainer: lightning.Trainer, module: TrainingModule, found: dict[str, Any]) -> None:
        if found["batches"] != trainer.num_training_batches:
            raise DataError(
                f"resume={self.folder}: an epoch had {found['batches']} batches, here it has "
                f"{trainer.num_training_batches}"
            )
        module.model.load_state_dict(found["model"])
        module.balancer.load_state_dict(found["balancer"])
        module.set_training_state(found["module"])
        for optimizer, state in zip(trainer.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for config, state in zip(trainer.lr_scheduler_configs, found["schedules"], strict=True):
            config.scheduler.load_state_dict(state)
        trainer.precision_plugin.load_state_dict(found["precision"])
        self.keeper.restore(found["keeper"])
        self.clock.restore(found["clock"])
        # Without those of validations that come again.
        self._restore_rows(trainer, [row for row in self._rows if int(row["step"]) < found["step"] - 1])
        # Last: what was done above may have drawn numbers.
        set_random_state(found["random"][trainer.global_rank], trainer.strategy.root_device)
        epoch, batch = found["epoch"] + 1, found["batch"]
        self.report.show(f"goes on in epoch {epoch} after batch {batch:,} of {found['batches']:,}: {self.folder}")

    @staticmethod
    def _restore_rows(trainer: lightning.Trainer, rows: list[dict[str, Any]]) -> None:
        """Put rows into Lightning's metrics.csv, which it begins anew."""
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and trainer.is_global_zero:
                logger.experiment.metrics = list(rows)


def _set_loops(trainer: lightning.Trainer, found: Mapping[str, Any]) -> None:
    """Put Lightning's counters where they were, as its own checkpoints do.

    After the last batch of an epoch, they are those of a validation that was stopped in its first batch: Lightning then
    begins it anew. It calls no ``on_train_epoch_start`` for the epoch in which it goes on.
    """
    epoch, batch, step = found["epoch"], found["batch"], found["step"]
    last = batch == found["batches"]
    validates = (epoch + 1) % trainer.check_val_every_n_epoch == 0 if trainer.check_val_every_n_epoch else False

    def counted(done: int, begun: int | None = None) -> dict[str, int]:
        begun = done if begun is None else begun
        return {"ready": begun, "started": begun, "processed": done, "completed": done}

    def both(total: dict[str, int], current: dict[str, int], **more: Any) -> dict[str, Any]:
        return {"total": total, "current": current, **more}

    steps = {"ready": step, "completed": step}
    total = epoch * found["batches"] + batch
    # Lightning raises the number of logged steps after a batch's validation.
    logged = found["logged_steps"] + (0 if last and validates else 1)
    trainer.fit_loop.load_state_dict({
        "state_dict": {},
        "epoch_progress": both(counted(epoch, epoch + 1), counted(epoch, epoch + 1)),
        "epoch_loop.state_dict": {"_batches_that_stepped": logged},
        "epoch_loop.batch_progress": both(counted(total), counted(batch), is_last_batch=last),
        "epoch_loop.manual_optimization.optim_step_progress": both(steps, dict(steps)),
        "epoch_loop.val_loop.batch_progress": both(
            counted(0, 1) if last and validates else counted(0), counted(0), is_last_batch=False
        ),
    })  # fmt: skip


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of Lightning's metrics.csv, without cells that are empty."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file) if row.get("step")]


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(each) for each in value)
    return value


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators of torch (of the CPU and of ``device``), numpy and Python, as plain values."""
    name, keys, *rest = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
