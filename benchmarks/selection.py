"""Which rule selects the epoch: every candidate on the same runs, chosen on some data sets and confirmed on others.

    python -m benchmarks.selection --shared=DIR --folder=trajectories

Each run is trained for a fixed number of epochs (benchmarks/trajectories.py). A rule reads validation scores alone,
point by point, stops as early stopping does, and names a point; the test metrics there are the rule's result. Gains
are against ``mean_auc`` on the same runs, mean over models, paired over splits, with the interval of Nadeau and Bengio
(Machine Learning 2003), whose variance has the factor 1/n + test rows / training rows in place of 1/n.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, t

from benchmarks.sets import SETS
from benchmarks.trajectories import Run, arguments, load, work_off

CHOICE = ("ml-100k", "funnel-a", "kuairand-rare", "rare-a", "bandit")
CONFIRM = tuple(name for name in SETS if name not in CHOICE)
MODELS = ("SharedBottom", "MMoE", "PLE", "DTN")
EPOCHS = 6
TEST_OVER_TRAIN = 0.1 / 0.8
REFERENCE = "mean_auc"
Array = npt.NDArray[np.float64]


# ---- metrics of every point -----------------------------------------------------------------------------------------


def curves(logits: npt.NDArray[Any], labels: npt.NDArray[Any], observed: npt.NDArray[Any]) -> dict[str, Array]:
    """Metrics (points, T) of logits (points, N, T); ``precision`` (T,), P N / (P + N), and ``positives`` P."""
    points, _, tasks = logits.shape
    found = {name: np.full((points, tasks), np.nan) for name in ("auc", "logloss", "ne", "calibration")}
    precision, positives = np.zeros(tasks), np.zeros(tasks)
    for task in range(tasks):
        seen = observed[:, task]
        y = labels[seen, task] > 0.5
        ones, zeros = int(y.sum()), int((~y).sum())
        precision[task], positives[task] = ones * zeros / (ones + zeros), ones
        rate = ones / (ones + zeros)
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
        for point in range(points):
            x = logits[point, seen, task].astype(np.float64)
            ranks = rankdata(x)
            found["auc"][point, task] = (ranks[y].sum() - ones * (ones + 1) / 2) / (ones * zeros)
            loss = float((np.logaddexp(0, x) - y * x).mean())
            found["logloss"][point, task] = loss
            found["ne"][point, task] = loss / entropy
            found["calibration"][point, task] = float((1 / (1 + np.exp(-x))).sum()) / ones
    return {**found, "precision": precision, "positives": positives}


# ---- rules ----------------------------------------------------------------------------------------------------------

Score = Callable[[Mapping[str, Array]], Array]


def mean(metric: str, sign: float = 1.0) -> Score:
    """Equal weights."""
    return lambda found: sign * found[metric].mean(1)


def weighted(metric: str, sign: float = 1.0, power: float = 1.0) -> Score:
    """Weights ``precision ** power``: 1, inverse variances; 1/2, inverse standard errors, as ``weighted_<metric>``."""
    return lambda found: sign * np.average(found[metric], axis=1, weights=found["precision"] ** power)


def smoothed(score: Score) -> Score:
    """Mean of a point and the one before it."""

    def result(found: Mapping[str, Array]) -> Array:
        raw = score(found)
        return np.concatenate([raw[:1], (raw[1:] + raw[:-1]) / 2])

    return result


RULES: dict[str, tuple[Score, bool, int]] = {
    "mean_auc": (mean("auc"), False, 2),
    "mean_auc, smoothed": (smoothed(mean("auc")), False, 2),
    "mean_auc, half epochs": (mean("auc"), True, 4),
    "weighted_auc": (weighted("auc", power=0.5), False, 2),
    "weighted_auc, smoothed": (smoothed(weighted("auc", power=0.5)), False, 2),
    "weighted_auc, half epochs": (weighted("auc", power=0.5), True, 4),
    "AUC by precision": (weighted("auc"), False, 2),
    "AUC by precision, smoothed": (smoothed(weighted("auc")), False, 2),
    "AUC by precision, half epochs": (weighted("auc"), True, 4),
    "mean_logloss": (mean("logloss", -1), False, 2),
    "mean_logloss, half epochs": (mean("logloss", -1), True, 4),
    "log loss by precision": (weighted("logloss", -1), False, 2),
    "mean_ne": (mean("ne", -1), False, 2),
    "mean_ne, half epochs": (mean("ne", -1), True, 4),
    "weighted_ne": (weighted("ne", -1, power=0.5), False, 2),
    "NE by precision": (weighted("ne", -1), False, 2),
    "last epoch": (lambda found: np.arange(len(found["auc"]), dtype=np.float64), False, 10**6),
}
"""Score (larger is better), whether half epochs are looked at, and points without improvement that are waited for."""


def stop(scores: Array, patience: int) -> int:
    """The best point until more than ``patience`` in a row are no better.

    >>> stop(np.array([1.0, 2.0, 1.5, 1.6, 1.7, 9.0]), 2), stop(np.array([1.0, 2.0, 1.5, 1.6, 9.0]), 2)
    (1, 4)
    """
    best = 0
    for point in range(1, len(scores)):
        if scores[point] > scores[best]:
            best = point
        elif point - best > patience:
            break
    return best


def chosen(rule: str, valid: Mapping[str, Array], epochs: Array) -> int:
    """The point that a rule names."""
    score, halves, patience = RULES[rule]
    points = np.arange(len(epochs)) if halves else np.flatnonzero(epochs == np.round(epochs))
    some = {name: value if value.ndim == 1 else value[points] for name, value in valid.items()}
    return int(points[stop(score(some), patience)])


# ---- results --------------------------------------------------------------------------------------------------------


def corrected(differences: Array) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval, variance by Nadeau and Bengio."""
    count = len(differences)
    error = float(np.sqrt(differences.var(ddof=1) * (1 / count + TEST_OVER_TRAIN)))
    return float(differences.mean()), float(t.ppf(0.975, count - 1)) * error


def evaluate(folder: Path, runs: Mapping[tuple[str, str, int], Run]) -> list[dict[str, Any]]:
    """A line per run, rule and task: the test metrics at the chosen point."""
    lines = []
    for (dataset, model, split), run in runs.items():
        found = load(folder, run)
        valid, test = (curves(found[p], found[f"{p}_labels"], found[f"{p}_observed"]) for p in ("valid", "test"))
        for rule in RULES:
            point = chosen(rule, valid, found["epoch"])
            for position, task in enumerate(found["about"]["tasks"]):
                metrics = {name: float(test[name][point, position]) for name in ("auc", "logloss", "ne", "calibration")}
                lines.append(
                    {
                        "dataset": dataset, "model": model, "split": split, "rule": rule, "task": task,
                        "epoch": float(found["epoch"][point]), "positives": float(test["positives"][position]),
                        **metrics,
                    }
                )  # fmt: skip
    return lines


def calibration(lines: Sequence[Mapping[str, Any]]) -> float:
    """Predicted over observed positives, of the test rows of all lines together: few positives weigh little."""
    ones = np.array([line["positives"] for line in lines])
    return float(np.average([line["calibration"] for line in lines], weights=ones))


def gains(
    lines: Sequence[Mapping[str, Any]],
    dataset: str,
    rule: str,
    metric: str,
    *,
    over: str = REFERENCE,
    others: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, tuple[float, float]]:
    """By task: mean gain over a rule and half its interval, paired over splits, mean over models.

    Args:
        over: the other rule. others: its lines; None: the same runs.
    """
    found = {}
    tasks = dict.fromkeys(line["task"] for line in lines if line["dataset"] == dataset)
    for task in tasks:
        values = {
            side: {(line["model"], line["split"]): line[metric] for line in those
                   if (line["dataset"], line["task"], line["rule"]) == (dataset, task, name)}
            for side, name, those in (("mine", rule, lines), ("theirs", over, lines if others is None else others))
        }  # fmt: skip
        shared = values["mine"].keys() & values["theirs"].keys()
        each = [
            np.mean([values["mine"][key] - values["theirs"][key] for key in shared if key[1] == split])
            for split in sorted({split for _, split in shared})
        ]
        found[task] = corrected(np.array(each))
    return found


SHOWN = ("weighted_auc", "AUC by precision", "mean_ne", "mean_logloss", "last epoch")
FLOOR = "Logistic"


def report(lines: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a summary by rule, gains by task of some rules, and the models against the floor."""
    trained = [line for line in lines if line["model"] != FLOOR]
    parts = []
    for title, names in (("Choice", CHOICE), ("Confirmation", CONFIRM)):
        present = [name for name in names if any(line["dataset"] == name for line in trained)]
        if present:
            parts += [f"\n{title}: {', '.join(present)}\n", *_summary(trained, present)]
            parts += [f"\n{title}: gain in test AUC x 1000 over {REFERENCE}\n", *_gains(trained, present, "auc", 1000)]
            parts += [f"\n{title}: fall in test NE x 1000\n", *_gains(trained, present, "ne", -1000)]
    if any(line["model"] == FLOOR for line in lines):
        parts += [f"\nAgainst {FLOOR}, rule {SHOWN[0]}\n", *_against(lines)]
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows)]


def _summary(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    rows = []
    for rule in RULES:
        cells, losses = [], []
        for metric, scale in (("auc", 1000), ("ne", -1000)):
            found = {
                (name, task): (scale * middle, abs(scale) * half)
                for name in names
                for task, (middle, half) in gains(lines, name, rule, metric).items()
            }
            middles = [middle for middle, _ in found.values()]
            cells += [f"{np.mean(middles):+.1f}", f"{min(middles):+.1f}"]
            losses += [f"{metric} {name} {task}" for (name, task), (m, half) in found.items() if m < -half]
        rows.append([rule, *cells, "; ".join(losses)])
    return table(["rule", "AUC, mean", "AUC, worst task", "NE, mean", "NE, worst task", "loses with confidence"], rows)


def _gains(lines: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str, scale: float) -> list[str]:
    rows = []
    for name in names:
        found = {rule: gains(lines, name, rule, metric) for rule in SHOWN}
        for task in found[SHOWN[0]]:
            values = [(scale * found[rule][task][0], abs(scale) * found[rule][task][1]) for rule in SHOWN]
            rows.append([f"{name} {task}", *(f"{middle:+.1f} ± {half:.1f}" for middle, half in values)])
    return table(["set, task", *SHOWN], rows)


def _against(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Difference of test AUC of each model to the floor's, with its standard error, and calibration."""
    rule = SHOWN[0]
    rows = []
    models = [model for model in dict.fromkeys(line["model"] for line in lines) if model != FLOOR]
    keys = dict.fromkeys((line["dataset"], line["task"]) for line in lines if line["model"] == FLOOR)
    for dataset, task in keys:
        here = [x for x in lines if (x["dataset"], x["task"], x["rule"]) == (dataset, task, rule)]
        floor = {x["split"]: x["auc"] for x in here if x["model"] == FLOOR}
        cells = [f"{dataset} {task}", f"{np.mean(list(floor.values())):.4f}"]
        for model in models:
            own = [x for x in here if x["model"] == model and x["split"] in floor]
            if len(own) < 2:
                cells.append("–")
                continue
            differences = np.array([x["auc"] - floor[x["split"]] for x in own])
            middle, half = corrected(differences)
            error = half / float(t.ppf(0.975, len(own) - 1))
            cells.append(f"{1000 * middle:+.1f} ± {1000 * error:.1f} ({calibration(own):.2f})")
        rows.append(cells)
    return table(["set, task", FLOOR, *models], rows)


def compared(lines: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], rule: str) -> str:
    """Markdown: one rule's results with the shipped settings against those of other settings."""
    rows = []
    for dataset in dict.fromkeys(line["dataset"] for line in others):
        found = {name: gains(lines, dataset, rule, name, over=rule, others=others) for name in ("auc", "ne")}
        for task in found["auc"]:
            cells = [f"{scale * found[name][task][0]:+.1f} ± {abs(scale) * found[name][task][1]:.1f}"
                     for name, scale in (("auc", 1000), ("ne", -1000))]  # fmt: skip
            here = [[x for x in those if (x["dataset"], x["task"], x["rule"]) == (dataset, task, rule)]
                    for those in (lines, others)]  # fmt: skip
            cells += [f"{calibration(side):.3f}" for side in here]
            cells += [f"{np.mean([x['epoch'] for x in side]):.1f}" for side in here]
            rows.append([f"{dataset} {task}", *cells])
    columns = ["AUC x 1000", "NE x 1000", "calibration", "with the other", "epoch", "with the other"]
    return "\n".join(table(["set, task", *columns], rows))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--splits", type=int, default=10, help="splits of each set, from 0")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS), help="some of the sets")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--output", type=Path, default=Path("selection.json"), help="every line behind the tables")
    parser.add_argument("--rule", choices=list(RULES), default="weighted_auc", help="of the comparison by --without")
    parser.add_argument(
        "--without", help='other settings as JSON, such as \'{"head_bias": "random"}\': compared with the shipped ones'
    )
    parser.add_argument("--report_only", action="store_true", help="evaluate the runs that are there")
    given = parser.parse_args(argv)
    if given.without:
        print(_compare(given))
        return
    runs = _runs(given, {})
    if not given.report_only:
        work_off(list(runs.values()), given.folder, given.data_path, given.shared, given.processes)
    lines = evaluate(given.folder, _present(given, runs))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(lines) + "\n", encoding="utf-8")
    print(report(lines))


Runs = dict[tuple[str, str, int], Run]


def _runs(given: argparse.Namespace, settings: Mapping[str, Any]) -> Runs:
    return {
        (dataset, model, split): Run(dataset, model, split, EPOCHS, settings)
        for split in range(given.splits)
        for model in given.models
        for dataset in given.sets
    }


def _present(given: argparse.Namespace, runs: Runs) -> Runs:
    return {key: run for key, run in runs.items() if (given.folder / f"{run.key}.npz").is_file()}


def _compare(given: argparse.Namespace) -> str:
    both = [_runs(given, settings) for settings in ({}, json.loads(given.without))]
    if not given.report_only:
        work_off([run for runs in both for run in runs.values()], given.folder, given.data_path, given.shared,
                 given.processes)  # fmt: skip
    mine, theirs = (evaluate(given.folder, _present(given, runs)) for runs in both)
    return compared(mine, theirs, given.rule)


if __name__ == "__main__":
    main()
