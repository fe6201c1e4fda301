"""The time of a run by stage: a trace and a table, from a few of its steps."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import nn
from torch.profiler import ProfilerActivity

from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.interaction.base import FeatureInteraction
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.layers.stages import PREFIX, stage
from recbole_dtn.report.files import write_text
from recbole_dtn.training.report import Report

__all__ = ["STAGES", "ProfiledLoader", "Profiler", "StageTime", "label_modules"]

STAGES = (
    *("load", "forward", "embed", "interact", "experts", "gate", "tower"),
    *("loss", "backward", "optimiser", "metrics"),
)
"""The stages in the order of a step. "forward" is a compiled forward pass as a whole; "experts" includes the gates
where both are fused. The rest of a step (concatenation, balancing, hooks) is "other"."""
WARM_UP, STEPS, BATCHES = 3, 20, 20
WHOLE = "whole"


def label_modules(model: nn.Module) -> list[Any]:
    """Count the forward pass of each part as its stage, by its class; returns the hooks' handles.

    A part inside a labelled one (an MLP of a tower) counts with it.
    """
    handles: list[Any] = []

    def visit(module: nn.Module) -> None:
        name = _stage_of(module)
        # A labelled module is not searched further: its parts count with it.
        if name is None:
            for child in module.children():
                visit(child)
            return
        # One stack per module: the hooks before and after a forward pass share it.
        open_stages = ExitStack()

        def before(*_: Any) -> None:
            if torch.compiler.is_compiling():
                return
            open_stages.enter_context(stage(name))

        def after(*_: Any) -> None:
            if torch.compiler.is_compiling():
                return
            open_stages.close()

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))

    visit(model)
    return handles


def _stage_of(module: nn.Module) -> str | None:
    if isinstance(module, EmbeddingTable):
        return "embed"
    if isinstance(module, FeatureInteraction):
        return "interact"
    kind = type(module).__name__.lower()
    return next((name for word, name in _WORDS.items() if word in kind), None)


_WORDS = {"experts": "experts", "gate": "gate", "tower": "tower"}


class ProfiledLoader(BatchLoader):
    """A loader whose cutting of batches counts as the stage "load"."""

    def __iter__(self) -> Iterator[Features]:
        batches = super().__iter__()
        while True:
            with stage("load"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


@dataclass(frozen=True)
class StageTime:
    """Milliseconds of one stage in a step (or evaluated batch): of the CPU, and of the device where there is one."""

    cpu: float
    device: float


class Profiler(lightning.Callback):
    """Profiles steps ``WARM_UP`` to ``WARM_UP + STEPS`` of the first epoch, then the first batches of its validation.

    Writes ``trace.train.json`` and ``trace.valid.json`` (for chrome://tracing or Perfetto) and ``stages.tsv`` into
    the run's folder, and shows the stages.

    Args:
        folder: of the run. report: where the table is shown.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder, self.report = folder, report
        self.times: dict[str, dict[str, StageTime]] = {}
        self._running: tuple[str, torch.profiler.profile, ExitStack] | None = None
        self._count = 0
        self._handles: list[Any] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            logging.getLogger("torch.profiler").setLevel(logging.WARNING)
            self._handles = label_modules(pl_module)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        if self._running is None and "train" not in self.times and trainer.is_global_zero:
            # Started at the end of a batch, so that the next step is measured whole, its loading included.
            if trainer.global_step >= WARM_UP:
                self._start("train")
        elif self._running is not None:
            self._count += 1
            if self._count == STEPS:
                self._stop()

    def on_train_epoch_end(self, *_: Any) -> None:
        self._stop()

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._stop()
        if "valid" not in self.times and trainer.is_global_zero:
            self._start("valid")

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        self._count += 1
        if self._count == BATCHES:
            self._stop()

    def on_validation_end(self, *_: Any) -> None:
        self._stop()

    def on_train_end(self, *_: Any) -> None:
        self._stop()
        for handle in self._handles:
            handle.remove()
        if self.times:
            write_text(self.folder / "stages.tsv", self._text())
            self._show()

    # ---- the parts --------------------------------------------------------------------------------------------------

    def _start(self, part: str) -> None:
        kinds = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it prints lines of its own between ours
        running = torch.profiler.profile(activities=kinds)
        running.start()
        whole = ExitStack()
        # A stage around everything: what no other stage covers becomes "other".
        whole.enter_context(stage(WHOLE))
        self._running, self._count = (part, running, whole), 0

    def _stop(self) -> None:
        if self._running is None:
            return
        part, running, whole = self._running
        self._running = None
        if torch.cuda.is_available():
            # Kernels run behind the CPU: the last ones belong to the measured steps.
            torch.cuda.synchronize()
        whole.close()
        running.stop()
        if self._count:
            running.export_chrome_trace(str(self.folder / f"trace.{part}.json"))
            self.times[part] = stage_times(running, self._count)

    def _rows(self) -> list[list[str]]:
        rows = []
        for part, times in self.times.items():
            whole = times[WHOLE].cpu
            for name, time in times.items():
                share = f"{time.cpu / whole:.1%}" if whole else "–"
                rows.append([part, name, f"{time.cpu:.3f}", share, f"{time.device:.3f}"])
        return rows

    def _text(self) -> str:
        lines = [["part", "stage", "cpu_ms", "share", "device_ms"], *self._rows()]
        return "".join("\t".join(line) + "\n" for line in lines)

    def _show(self) -> None:
        self.report.table(
            f"stages, ms per step (train) and per batch (valid); traces in {self.folder}",
            ["part", "stage", "CPU ms", "share", "device ms"],
            self._rows(),
        )


def stage_times(profile: torch.profiler.profile, count: int) -> dict[str, StageTime]:
    """Mean time of every stage that occurred, of the rest as "other", and of the whole, per step."""
    found: dict[str, StageTime] = {}
    for entry in profile.key_averages():
        # The profiler reports microseconds.
        if entry.key.startswith(PREFIX) and entry.cpu_time_total > 0:
            name = entry.key.removeprefix(PREFIX)
            scale = 1e-3 / count
            found[name] = StageTime(entry.cpu_time_total * scale, entry.device_time_total * scale)
    ordered = {name: found[name] for name in STAGES if name in found}
    whole = found.get(WHOLE, StageTime(0.0, 0.0))
    ordered["other"] = StageTime(
        whole.cpu - sum(time.cpu for time in ordered.values()),
        whole.device - sum(time.device for time in ordered.values()),
    )
    return ordered | {WHOLE: whole}
