"""Which size, learning rate and penalties a model ships with: one space, one budget, chosen on validation only.

    python -m benchmarks.sizes --shared=DIR --folder=trajectories

Every trial is one point of the space for all models: hidden widths of what lies in front of the towers (a bottom, each
expert, the first layers of a single network; for DTN the width of its modules), learning rate, embedding L2, dropout.
A trial's score is the normalised entropy (log loss by that of the base rate) of the best epoch by that number, mean
over tasks, splits and data sets. The test rows are not read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.trajectories import Run, arguments, load, work_off

MODELS = ("SharedBottom", "MMoE", "PLE", "SingleTask", "DTN")
SETS = ("ml-100k", "funnel-a", "kuairand")
TRIALS: tuple[tuple[list[int], float, float, float], ...] = (
    ([128], 0.004, 0.001, 0.0),
    ([128], 0.002, 0.01, 0.0),
    ([256, 128], 0.004, 0.001, 0.0),
    ([256, 128], 0.002, 0.01, 0.2),
    ([128, 64], 0.004, 0.001, 0.2),
    ([128, 64], 0.002, 0.01, 0.0),
    ([128], 0.004, 0.01, 0.0),
)
"""Hidden widths, learning rate, embedding L2, dropout."""
EPOCHS = 5
TOWER = [64]
Array = npt.NDArray[Any]


def settings(model: str, trial: int) -> dict[str, Any]:
    """The settings of a trial."""
    hidden, rate, penalty, dropout = TRIALS[trial]
    found: dict[str, Any] = {"optimizer.lr": rate, "embedding_l2": penalty, "dropout": dropout}
    if model == "SingleTask":
        return found | {"hidden": [*hidden, *TOWER]}
    if model == "DTN":
        return found | {"module_dim": hidden[-1], "tower_hidden": TOWER}
    return found | {"bottom_hidden" if model == "SharedBottom" else "expert_hidden": hidden, "tower_hidden": TOWER}


def entropy(logits: Array, labels: Array, observed: Array) -> Array:
    """(points, T): log loss over that of the base rate, of logits (points, N, T)."""
    x = logits.astype(np.float64)
    losses = np.logaddexp(0, x) - labels * x
    seen = observed.astype(np.float64)
    loss = np.where(observed, losses, 0.0).sum(1) / seen.sum(0)
    rate = np.where(observed, labels, 0).sum(0) / seen.sum(0)
    base = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return np.asarray(loss / base)


def score(found: Mapping[str, Any]) -> float:
    """Least mean entropy over the points of one run."""
    curve = entropy(found["valid"], found["valid_labels"], found["valid_observed"])
    return float(curve.mean(1).min())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--splits", type=int, default=2, help="splits of each set, from 0")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sizes.json"))
    given = parser.parse_args(argv)
    points = [
        (model, trial, dataset, split)
        for split in range(given.splits)
        for dataset in SETS
        for trial in range(len(TRIALS))
        for model in MODELS
    ]
    runs = {key: Run(key[2], key[0], key[3], EPOCHS, settings(key[0], key[1])) for key in points}
    work_off(list(runs.values()), given.folder, given.data_path, given.shared, given.processes)
    scores = {key: score(load(given.folder, run)) for key, run in runs.items()}
    lines = []
    for model in MODELS:
        for trial, point in enumerate(TRIALS):
            each = {
                name: float(np.mean([scores[model, trial, name, split] for split in range(given.splits)]))
                for name in SETS
            }
            lines.append({"model": model, "trial": trial, "point": point, "entropy": each})
            mean = float(np.mean(list(each.values())))
            parts = "  ".join(f"{name} {value:.4f}" for name, value in each.items())
            print(f"{model:<13} {trial} {point!s:<32} {mean:.4f}  {parts}")
    given.output.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
