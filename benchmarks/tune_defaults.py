"""The short tuning behind the shipped defaults: the same random trials for every model, chosen on validation only.

    python -m benchmarks.tune_defaults --trials=10 --dataset=ml-100k --models=DTN,MMoE,PLE,SharedBottom,SingleTask

Trial i draws the same point of the space for every model (trial 0 is what properties/ says now); the codebook's
penalty matters to DTN alone. One JSON line per trial goes to standard output; the best of each model comes last.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_dtn import fit

SPACE: dict[str, Sequence[float]] = {
    "optimizer.lr": (1e-3, 2e-3, 4e-3),
    "embedding_l2": (1e-3, 1e-2, 5e-2),
    "codebook_l2": (1e-2, 1e-1, 1.0),
    "dropout": (0.0, 0.1, 0.3),
}


def draw(trial: int) -> dict[str, Any]:
    """The settings of a trial; the same for every model."""
    if trial == 0:
        return {}
    generator = np.random.default_rng(trial)
    return {name: values[generator.integers(len(values))] for name, values in SPACE.items()}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--models", default="DTN,MMoE,PLE,SharedBottom,SingleTask")
    parser.add_argument("--output_dir", default="runs-tuning")
    chosen, rest = parser.parse_known_args(argv)
    extra = dict(part.removeprefix("--").split("=", 1) for part in rest)
    for model in chosen.models.split(","):
        best: tuple[float, dict[str, Any]] | None = None
        for trial in range(chosen.first, chosen.first + chosen.trials):
            point = draw(trial)
            run = fit(model, chosen.dataset, {**extra, **point, "output_dir": chosen.output_dir}, quiet=True)
            assert run.record.valid is not None
            score = float(np.mean([values["auc"] for values in run.record.valid.values()]))
            line = {
                "model": model,
                "trial": trial,
                **point,
                "valid_mean_auc": round(score, 5),
                "valid": {task: round(values["auc"] or 0, 5) for task, values in run.record.valid.items()},
                "best_epoch": run.record.best_epoch,
                "seconds": round(run.record.wall_seconds["train"], 1),
            }
            print(json.dumps(line), flush=True)
            if best is None or score > best[0]:
                best = (score, line)
        assert best is not None
        print(json.dumps({"best of": model, **best[1]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
