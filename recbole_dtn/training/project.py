"""What a run would cost, measured on a few steps of the real model and data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.layers.backends import require
from recbole_dtn.layers.compression import describe
from recbole_dtn.optim.build import build_optimizer
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.report.text import counted
from recbole_dtn.training.build import build_model, use_threads
from recbole_dtn.training.compiled import check_compiler
from recbole_dtn.training.room import check_memory

__all__ = ["Projection", "project"]

WARM_UP, TIMED = 2, 5


@dataclass(frozen=True)
class Projection:
    """Size and projected time of a run; times in seconds, on this machine's CPU."""

    rows: int
    parameters: dict[str, int]
    steps_per_epoch: int
    seconds_per_epoch: float | None
    """None for a model that is fitted directly, whose time steps do not tell."""
    epochs: int
    memory: Sequence[str] = ()
    """Lines on the memory that a run takes and what is free."""
    compression: str | None = None
    """What :func:`recbole_dtn.layers.compression.describe` says, where the setting is on."""

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {count:,}" for part, count in self.parameters.items() if count)
        compression = f"{self.compression}\n" if self.compression else ""
        memory = "".join(f"{line}\n" for line in self.memory)
        if self.seconds_per_epoch is None:
            return f"fitted at once on {self.rows:,} training rows, without epochs; its time is not projected"
        longest = self.seconds_per_epoch * self.epochs
        return (
            f"parameters: {sum(self.parameters.values()):,} ({parts})\n{compression}{memory}"
            f"projected: {self.steps_per_epoch:,} steps and {self.seconds_per_epoch:.1f} s per epoch over "
            f"{self.rows:,} training rows, at most {longest:.0f} s for {counted(self.epochs, 'epoch')} "
            f"(validation left out; from {TIMED} steps on this CPU)"
        )


def project(settings: Settings) -> Projection:
    """Prepare the data, build the model, time a few training steps; nothing is kept."""
    require(settings.embedding_backend)
    check_compiler(settings)
    use_threads(settings)
    prepared = prepare(settings)
    rooms, near = check_memory(settings, prepared)
    memory = [*(f"memory: {room}" for room in rooms), *(f"warning: {sentence}" for sentence in near)]
    model = build_model(settings, prepared).train()
    if model.fits_directly:
        return Projection(prepared.splits["train"].rows, model.count_parameters(), 0, None, 1)
    optimizer = build_optimizer(model, settings)
    loader = BatchLoader(prepared.splits["train"], settings.train_batch_size, shuffle=True, seed=settings.seed)
    start = time.perf_counter()
    # cycle: small data may have fewer batches than the steps that are timed.
    for step, batch in enumerate(islice(cycle(loader), WARM_UP + TIMED)):
        if step == WARM_UP:
            start = time.perf_counter()
        optimizer.zero_grad()
        output = model(batch)
        terms = (*output.auxiliary.values(), *model.penalties().values())
        sum(terms, model.task_losses(batch, output).sum()).backward()
        optimizer.step()
    per_step = (time.perf_counter() - start) / TIMED
    return Projection(
        rows=prepared.splits["train"].rows,
        parameters=model.count_parameters(),
        steps_per_epoch=len(loader),
        seconds_per_epoch=per_step * len(loader),
        epochs=settings.epochs,
        memory=memory,
        compression=None if model.compression is None else describe(prepared.schema, model.compression),
    )
