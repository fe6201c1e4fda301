"""How fast a model trains and answers, how many operations a row takes, and the peak memory: measured by itself."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pytorch_lightning as lightning
import torch

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.data.store import Split
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.sizes import model_flops
from recbole_dtn.preprocess.prepare import PreparedData, prepare
from recbole_dtn.record.checkpoint import read_weights
from recbole_dtn.report.console import make_console
from recbole_dtn.training.allocator import keep_large_blocks
from recbole_dtn.training.build import build_model, use_threads
from recbole_dtn.training.loaders import Loaders
from recbole_dtn.training.memory import MemoryWatch
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.report import Report
from recbole_dtn.training.trainer import new_trainer, quiet_lightning

__all__ = ["LARGE_BATCH", "Speed", "machine", "measure"]

LARGE_BATCH = 8192
WARM = 3
"""Training steps, and answers, that come before those that are measured."""
FEWEST = 5


@dataclass(frozen=True)
class Speed:
    """What was measured; null where it does not apply, as training steps of a model that a solver fits.

    Attributes:
        train_samples_per_second: of training steps, with the settings' batch size.
        latency_p50_ms, latency_p99_ms: of one row, from a batch in memory to its scores.
        throughput: rows per second with 8,192 rows at a time (all training rows where there are fewer).
        flops: of a forward pass per row, as :func:`~recbole_dtn.model.sizes.forward_flops` counts them.
        peak_memory_mib: resident memory of the process.
    """

    train_samples_per_second: float | None
    latency_p50_ms: float
    latency_p99_ms: float
    throughput: float
    flops: int | None
    peak_memory_mib: float


def measure(overrides: list[str], folder: Path | None = None, seconds: float = 5.0) -> Speed:
    """Measure one model; nothing else should run on the machine.

    Args:
        overrides: its settings, as on the command line. folder: of a run of it, whose weights a model that a solver
            fits needs. seconds: of training, of single rows and of large batches each.

    Raises:
        UsageError, DataError: as a run with these settings does.
    """
    settings = resolve([*overrides, "--quiet=true"]).settings
    keep_large_blocks()
    use_threads(settings)
    with MemoryWatch() as memory:
        prepared = prepare(settings)
        model = build_model(settings, prepared)
        rate = None if model.fits_directly else _training_rate(settings, prepared, model, seconds)
        if model.fits_directly and folder is not None:
            model.load_state_dict(read_weights(folder))
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        model.eval()

        def answer(batch: Features) -> None:
            model.served(model(batch.to(device))).logits.cpu()  # waits for a GPU

        with torch.inference_mode():
            singles = [one * 1e3 for one in _times(answer, _batches(prepared.splits["test"], 1), seconds)]
            size = min(LARGE_BATCH, prepared.splits["train"].rows)
            # The fastest half: what else the machine does makes a batch slower and never faster.
            large = sorted(_times(answer, _batches(prepared.splits["train"], size), seconds))
    low, high = np.quantile(singles, [0.5, 0.99]).tolist()
    throughput = size / float(np.median(large[: max(1, len(large) // 2)]))
    flops = None if model.fits_directly else model_flops(settings, prepared.schema)
    return Speed(rate, low, high, throughput, flops, memory.peak_rss / 2**20)


def _training_rate(
    settings: Settings, prepared: PreparedData, model: MultiTaskRecommender, seconds: float
) -> float | None:
    """Samples per second of training steps alone; it changes the model's weights."""
    steps = _Steps(seconds)
    many = settings.model_copy(update={"epochs": 1_000_000, "loggers": [], "profile": False})
    with TemporaryDirectory() as folder, quiet_lightning():
        trainer = new_trainer(many, Path(folder), [steps])
        trainer.limit_val_batches = 0
        per_epoch = max(1, -(-prepared.splits["train"].rows // settings.train_batch_size))
        module = TrainingModule(model, settings, steps_per_epoch=per_epoch)
        trainer.fit(module, datamodule=Loaders(settings, prepared, Report(make_console(quiet=True))))
    return steps.rows / steps.seconds if steps.seconds > 0 else None


class _Steps(lightning.Callback):
    """Counts rows and seconds of training steps after the first, and ends the training after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.wanted = seconds
        self.taken = self.rows = 0
        self.seconds = 0.0
        self.last = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.last = time.perf_counter()  # what lies between two epochs is no training

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.taken += 1
        if self.taken > WARM:
            self.rows += len(batch)
            self.seconds += now - self.last
        trainer.should_stop = self.seconds >= self.wanted and self.taken >= WARM + FEWEST
        self.last = now


def _batches(split: Split, size: int) -> Iterator[Features]:
    """Batches of ``size`` rows, over and over."""
    while True:
        loader = iter(BatchLoader(split, size, shuffle=False, seed=0))
        yield from (batch for batch in loader if len(batch) == size)


def _times(answer: Callable[[Features], None], batches: Iterator[Features], seconds: float) -> list[float]:
    """Seconds of each answer, the first few left out."""
    for batch in islice(batches, WARM):
        answer(batch)
    found: list[float] = []
    while len(found) < FEWEST or (sum(found) < seconds and len(found) < 10_000):
        batch = next(batches)
        start = time.perf_counter()
        answer(batch)
        found.append(time.perf_counter() - start)
    return found


def machine(settings: Settings) -> str:
    """The machine in words: its processor, cores and threads in use, a GPU, and torch's version."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [line.partition(":")[2] for line in cpu.read_text().splitlines() if line.startswith("model name")]
        name = " ".join(names[0].split()) if names else name
    gpu = settings.accelerator not in ("cpu",) and torch.cuda.is_available()
    threads = settings.threads or torch.get_num_threads()
    parts = [
        f"{name}, {os.cpu_count()} cores, {threads} {'thread' if threads == 1 else 'threads'} of torch",
        *([torch.cuda.get_device_name()] if gpu else []),
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        f"torch {torch.__version__}",
    ]
    return ", ".join(parts)
