"""Our sides of the training benchmark: ``python -m benchmarks.sides.train_ours SIDE FOLDER MODEL THREADS cpu|gpu``.

``run:RULE`` is the product's own run (``fit_settings``: Lightning, the loader, the clock, logging, the progress bar),
timed over the same steps as every side, so that validation and checkpoint are not in it; ``bare:RULE`` is the same
model, optimiser and batches in a loop with nothing else, its batches cut beforehand (and moved to the GPU where one is
used); ``full:RULE`` is the whole run, from data that is ready to the record, ``steps:RULE`` all its training steps,
bare, and ``loaded:RULE`` the same with batches cut by our loader as they are asked for (``full:RULE:EPOCHS``, and so
on). RULE is the setting ``embedding_optimizer.name``. Data is handed over ready: preparing it is another benchmark.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Collection
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytorch_lightning as lightning
import torch
from rich.console import Console

from benchmarks.sides.train_common import (
    BATCH,
    LEARNING_RATE,
    TASKS,
    WARM_UP,
    AnonymousMemory,
    Place,
    Timed,
    Work,
    finish,
)
from recbole_dtn.config.load import Resolved, resolve
from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.data.schemas import make_schema
from recbole_dtn.data.store import Column, Split, Store
from recbole_dtn.data.summary import DataSummary
from recbole_dtn.data.vocabulary import TokenVocabulary, Vocabularies
from recbole_dtn.optim.build import build_optimizer
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.schema import FIRST_TOKEN
from recbole_dtn.training import fit as training
from recbole_dtn.training.allocator import keep_large_blocks

DTN = {
    "tasks": [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "after": ["click"]}],
    "interactions": ["gdcn", "masknet", {"name": "memonet", "top_fields": None}],
    "dropout": 0.0,
}
"""DTN's own sizes: the work of benchmarks.dtn, which the roofline takes from here."""


def settings_of(work: Work, rule: str, output: str, **others: Any) -> Resolved:
    """Sizes of the benchmark; L2 of the looked-up rows is off, since no other side has it."""
    return resolve(
        {
            "accelerator": work.accelerator,
            "model": work.model,
            "dataset": work.folder.name,
            "data_path": str(work.folder.parent),
            "embedding_l2": 0.0,
            "epochs": 1,
            "train_batch_size": BATCH,
            "optimizer.lr": LEARNING_RATE,
            "embedding_optimizer.name": rule,
            "threads": work.threads,
            "output_dir": output,
            "progress": True,
            **(DTN if work.model == "DTN" else {}),
            **others,
        }
    )


def prepared_of(work: Work, resolved: Resolved) -> PreparedData:
    """The data as preparing it would hand it over; validation and test are each a tenth of the rows, seen again."""
    settings, rows = resolved.settings, len(work.ids)
    tokens = {
        name: TokenVocabulary(pl.int_range(size, eager=True).cast(pl.String), 0)
        for name, size in zip(work.names, work.sizes, strict=True)
    }
    vocabularies = Vocabularies(tokens)
    schema = make_schema(settings.fields, settings.tasks, vocabularies, settings)
    columns = {
        name: Column("inter", np.ascontiguousarray(work.ids[:, i]) + np.int32(FIRST_TOKEN))
        for i, name in enumerate(work.names)
    }
    labels = work.labels.astype(np.int8)
    store = Store(schema, columns, {}, labels, np.broadcast_to(np.True_, labels.shape), {})
    splits = {"train": Split(store, 0, rows), "valid": Split(store, 0, rows // 10), "test": Split(store, 0, rows // 10)}
    counts = {
        name: {task: (int(labels[: split.rows, i].sum()), split.rows) for i, task in enumerate(TASKS)}
        for name, split in splits.items()
    }
    summary = DataSummary({name: split.rows for name, split in splits.items()}, (), counts)
    return PreparedData(schema, vocabularies, "bench", splits, summary, True, work.folder, work.folder)


class Stopwatch(lightning.Callback):
    """Seconds from the end of the warm-up's last step to the end of the epoch's last step."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.start = self.seconds = self.cpu_start = self.cpu = 0.0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        step = trainer.global_step
        if step == WARM_UP:
            self.start, self.cpu_start = self.place.clock(), time.process_time()
        elif step == trainer.num_training_batches:
            self.seconds, self.cpu = self.place.clock() - self.start, time.process_time() - self.cpu_start


def bare(work: Work, resolved: Resolved, *, whole: bool, load: bool = False) -> tuple[float, float, dict[str, Any]]:
    """Steps of the model and its optimiser; ``whole``: without a warm-up; ``load``: batches are cut meanwhile."""
    prepared, settings = prepared_of(work, resolved), resolved.settings
    model = training.build_model(settings, prepared).train().to(work.place.device)
    optimizer = build_optimizer(model, settings)
    batches: Collection[Features] = BatchLoader(prepared.splits["train"], BATCH, shuffle=True, seed=0)
    if not load:
        batches = [batch.to(torch.device(work.place.device)) for batch in batches]
    seconds = cpu = 0.0
    for _ in range(settings.epochs):
        steps = Timed(batches, work.place, warm_up=0 if whole else WARM_UP)
        for batch in steps:
            if load:
                batch = batch.to(torch.device(work.place.device))
            optimizer.zero_grad()
            output = model(batch)
            model.task_losses(batch, output).sum().backward()
            optimizer.step()
        seconds, cpu = seconds + steps.seconds, cpu + steps.cpu
    return seconds, cpu, {}


def run(work: Work, resolved: Resolved, *, whole: bool) -> tuple[float, float, dict[str, Any]]:
    """The product's run; ``whole``: all of it counts, and not its training steps alone."""
    prepared = prepared_of(work, resolved)
    watch, clock = Stopwatch(work.place), work.place.clock
    with mock.patch.object(training, "prepare", return_value=prepared), open(os.devnull, "w") as nowhere:
        screen = Console(file=nowhere, force_terminal=True, emoji=False)  # bars are drawn as on a terminal
        start, cpu = clock(), time.process_time()
        record = training.fit_settings(resolved, console=screen, callbacks=[watch]).record
        seconds, cpu = clock() - start, time.process_time() - cpu
    found = {"wall": record.wall_seconds, "rate": record.train_samples_per_second, "anon": record.peak_anon_bytes}
    return (seconds, cpu, found) if whole else (watch.seconds, watch.cpu, found)


def main() -> None:
    work, memory = Work(), AnonymousMemory()
    kind, rule, *epochs = work.side.split(":")
    torch.set_num_threads(work.threads)
    keep_large_blocks()  # as a run does, unless the environment says otherwise
    with tempfile.TemporaryDirectory() as output:
        resolved = settings_of(work, rule, output, epochs=int(epochs[0]) if epochs else 1)
        if kind in ("bare", "steps", "loaded"):
            seconds, cpu, found = bare(work, resolved, whole=kind != "bare", load=kind == "loaded")
        else:
            seconds, cpu, found = run(work, resolved, whole=kind == "full")
    finish(seconds, cpu, memory, work.place, **found)


if __name__ == "__main__":
    main()
