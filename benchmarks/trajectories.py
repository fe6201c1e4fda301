"""Trains models for a fixed number of epochs on several splits and keeps their scores after every half epoch.

    python -m benchmarks.trajectories --plan=selection --shared=DIR --folder=trajectories

A run keeps the logits of all validation and test rows at each point, so that every rule that selects an epoch can be
evaluated afterwards on the same runs (benchmarks/selection.py), and settings can be compared (benchmarks/sizes.py).
Runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sets

__all__ = ["Run", "load", "work_off"]


@dataclass(frozen=True)
class Run:
    """One training run: what differs from the shipped settings is in ``settings``."""

    dataset: str
    model: str
    split: int
    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A file name: readable, and distinct by settings."""
        text = json.dumps(dict(sorted(self.settings.items())))
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.dataset}_{self.model}_s{self.split}_e{self.epochs}_{digest}"


def train(run: Run, data_path: str, folder: str) -> float:
    """Train, and write ``<key>.npz``; returns seconds."""
    import pytorch_lightning as lightning
    import torch

    from recbole_dtn.config.load import resolve
    from recbole_dtn.data.loader import BatchLoader
    from recbole_dtn.preprocess.prepare import prepare
    from recbole_dtn.serving.load import load as load_run
    from recbole_dtn.training.fit import fit_settings

    torch.set_num_threads(1)
    points: dict[str, list[Any]] = {"valid": [], "test": [], "epoch": [], "loss": []}
    known: dict[str, Any] = {}

    def keep(model: Any, splits: Mapping[str, Any], epoch: float, loss: float) -> None:
        """Add a point."""
        model.eval()
        for split in ("valid", "test"):
            loader = BatchLoader(splits[split], 8192, shuffle=False, seed=0)
            with torch.no_grad():
                batches = [(batch, model(batch).logits.float()) for batch in loader]
            points[split].append(torch.cat([logits for _, logits in batches]).numpy())
            if f"{split}_labels" not in known:
                known[f"{split}_labels"] = torch.cat([batch.labels for batch, _ in batches]).numpy()
                known[f"{split}_observed"] = torch.cat([batch.observed for batch, _ in batches]).numpy()
        points["epoch"].append(epoch)
        points["loss"].append(loss)

    class Keep(lightning.Callback):
        def _keep(self, trainer: Any, module: Any, epoch: float) -> None:
            loss = float(module.loss_sum) / max(int(module.loss_steps), 1)
            keep(module.model, trainer.datamodule.prepared.splits, epoch, loss)
            module.model.train()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if rest[-1] + 1 == max(1, trainer.num_training_batches // 2):
                self._keep(trainer, pl_module, trainer.current_epoch + 0.5)

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self._keep(trainer, pl_module, trainer.current_epoch + 1.0)

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        given = {
            **run.settings, "model": run.model, "dataset": run.dataset, "data_path": data_path, "epochs": run.epochs,
            "split_seed": run.split, "seed": 2020 + run.split, "stopping_step": 1000, "threads": 1,
            "accelerator": "cpu", "output_dir": output, "quiet": True,
        }  # fmt: skip
        settings = resolve(given)
        finished = fit_settings(settings, callbacks=[Keep()])
        record = finished.record
        if not points["epoch"]:  # a model that is not trained by epochs: one point
            keep(load_run(finished.folder).model, prepare(settings.settings).splits, 1.0, 0.0)
    seconds = time.perf_counter() - start
    path = Path(folder) / f"{run.key}.npz"
    partial = path.with_suffix(".partial.npz")
    about = {
        "dataset": run.dataset, "model": run.model, "split": run.split, "epochs": run.epochs,
        "settings": dict(run.settings), "tasks": [task.name for task in record.tasks],
        "parameters": record.parameters, "seconds": seconds,
    }  # fmt: skip
    np.savez_compressed(
        partial, about=json.dumps(about), **{key: np.asarray(found, np.float32) for key, found in points.items()},
        **known,
    )  # fmt: skip
    partial.rename(path)
    return seconds


def load(folder: Path, run: Run) -> dict[str, Any]:
    """What :func:`train` kept."""
    with np.load(folder / f"{run.key}.npz") as file:
        found = {key: file[key] for key in file.files}
    return {**found, "about": json.loads(str(found["about"]))}


def work_off(runs: Sequence[Run], folder: Path, data_path: Path, shared: Path | None, processes: int) -> None:
    """Do the runs that are not there yet; a line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    left = [run for run in {run.key: run for run in runs}.values() if not (folder / f"{run.key}.npz").is_file()]
    for name in dict.fromkeys(run.dataset for run in left):
        sets.make(name, data_path, shared)
    print(f"{len(left)} of {len(runs)} runs to do", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        waiting = {pool.submit(train, run, str(data_path), str(folder)): run for run in left}
        start = time.perf_counter()
        for number, done in enumerate(as_completed(waiting), 1):
            run = waiting[done]
            each = (time.perf_counter() - start) / number
            left_over = f"{(len(left) - number) * each / 60:.0f} min left"
            name = f"{run.dataset:<14} {run.model:<13} split {run.split}  {done.result():5.1f} s"
            print(f"{number:4d}/{len(left)}  {name}  {left_over}  {dict(run.settings)}", flush=True)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every experiment on trajectories has."""
    parser.add_argument("--folder", type=Path, default=Path("trajectories"), help="where the runs are kept")
    parser.add_argument("--data_path", type=Path, default=Path("dataset"), help="folder of the data sets")
    parser.add_argument("--shared", type=Path, default=None, help="folder of the files that census and others read")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, of one thread each")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
