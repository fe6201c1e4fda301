"""Ours in the inference benchmark: ``python -m benchmarks.sides.inference_ours SIDE FOLDER MODEL THREADS cpu|gpu``.

``forward``: the model on ready batches. ``scores``: ``LoadedRun.scores`` on ready batches, to probabilities.
``predict``: ``LoadedRun.predict`` on a Polars frame of texts. ``parquet``, ``csv``: the command ``predict`` on a file
of these texts, from its first byte to scores on disk. ``hand``: the model of benchmarks.handwritten.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.handwritten import Mixture
from benchmarks.sides.inference_common import LARGE, finish, starts
from benchmarks.sides.train_common import WIDTH, Place, Work
from benchmarks.sides.train_ours import prepared_of, settings_of
from recbole_dtn.data.features import Features
from recbole_dtn.schema import FIRST_TOKEN
from recbole_dtn.serving.load import LoadedRun
from recbole_dtn.serving.predict import score_files
from recbole_dtn.training.build import build_model


def hand(work: Work) -> None:
    device = work.place.device
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(work.sizes)[:-1]]))
    table = torch.empty(sum(work.sizes), WIDTH, device=device).normal_(0, 0.01)
    model = Mixture(len(work.sizes) * WIDTH, work.model).to(device).eval()
    ids = (torch.from_numpy(work.ids).long() + offsets).to(device)
    with torch.inference_mode():
        finish(
            lambda rows: torch.sigmoid(model(table[rows.flatten()].view(len(rows), -1))),
            [ids[start : start + LARGE] for start in starts(len(ids))],
            [ids[row : row + 1] for row in range(1000)],
            work.place,
        )


def files(run: LoadedRun, frame: pl.DataFrame, kind: str, place: Place) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{kind}"
        getattr(frame, f"write_{kind}")(path)

        def score() -> None:
            score_files(run, str(path), f"{folder}/scores.parquet", keep=["c0"], overwrite=True)

        score()
        start, cpu = place.clock(), time.process_time()
        score()
        seconds, used = place.clock() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "scored": frame.height, "call_cpu": used, **place.found()}))


def main() -> None:
    work = Work()
    torch.set_num_threads(work.threads)
    if work.side == "hand":
        return hand(work)
    resolved = settings_of(work, "rowwise_adagrad", "unused")
    prepared = prepared_of(work, resolved)
    model = build_model(resolved.settings, prepared)
    if work.side not in ("predict", "parquet", "csv"):  # which score on the CPU
        model.to(work.place.device)
    run = LoadedRun(model, resolved.settings, prepared.vocabularies, None)
    if work.side in ("predict", "parquet", "csv"):
        columns = {name: work.ids[:, i].astype(str) for i, name in enumerate(work.names)}
        frame = pl.DataFrame(columns)
        if work.side != "predict":
            return files(run, frame[: len(frame) // LARGE * LARGE], work.side, work.place)
        large, single = [frame[start : start + LARGE] for start in starts(frame.height)], frame[:100]
        return finish(run.predict, large, [single[row : row + 1] for row in range(100)], work.place)
    offsets = torch.tensor([field.offset for field in prepared.schema.fields])
    ids = (torch.from_numpy(work.ids).long() + (FIRST_TOKEN + offsets)).to(work.place.device)
    large = [Features(ids[start : start + LARGE]) for start in starts(len(ids))]
    single = [Features(ids[row : row + 1]) for row in range(1000)]
    with torch.inference_mode():
        finish(run.model if work.side == "forward" else run.scores, large, single, work.place)


if __name__ == "__main__":
    main()
