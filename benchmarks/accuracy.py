"""What speed costs in accuracy: fast update rules beside dense Adam, and fused computation beside plain, on ml-100k.

    python -m benchmarks.accuracy --seeds=5

1. MMoE with four rules for the embedding table. Both rates of each (``embedding_optimizer.lr`` of the table and
   ``optimizer.lr`` of the dense parameters, which stay with Adam) are tuned on validation alone: a grid of one size
   for each rule, by the mean task AUC over the seeds 1001, 1002, .... Then the others are compared with dense ``adam``
   (``torch.optim.Adam`` over the whole table) over the seeds 2020, 2021, ..., which the tuning never saw. Runs end by
   early stopping; those that end by the number of epochs are counted in the report.
2. MMoE and DTN as they ship beside the same with ``fused: false``, over the same seeds.

A difference is paired by seed: test AUC of the first minus that of the second, its mean and the 95 % interval of
Student's t over the seeds. All runs share one split. Every run ends with a test, as any run does; rates are chosen by
validation alone.

Every run that ended is a line of accuracy-runs.jsonl in the output folder, with its AUC after each epoch: the same
command goes on where it was stopped, and more seeds use the runs that are there. Remove the file to start afresh. A
run takes one thread; two processes work at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.harness import machine, markdown

DATASET = "ml-100k"
RATES = {
    "adam": (0.002, 0.004, 0.008),
    "lazy_adam": (0.002, 0.004, 0.008),
    "rowwise_adagrad": (0.02, 0.05, 0.1),
    "adagrad": (0.02, 0.05, 0.1),
}
"""Rates of the table tried for each rule: Adam's steps have the size of the rate, Adagrad's shrink from there on. Where
the best lies on the edge of its grid, the report says so."""
DENSE_RATES = (0.002, 0.004, 0.008)
"""Rates of the dense parameters, tried with each of the table's."""
EPOCHS = 40
"""More than any run of the rules needs before early stopping."""
REFERENCE = "adam"
FUSED = ["MMoE", "DTN"]
TUNING_SEEDS, FIRST_TUNED, FIRST_COMPARED = 3, 1001, 2020
BOUND = 0.001
RUNS = "accuracy-runs.jsonl"


@dataclass(frozen=True)
class Trial:
    """One training run: a model, a seed, and the settings that differ from the shipped ones."""

    model: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return json.dumps([self.model, self.seed, dict(sorted(self.settings.items()))])

    @property
    def name(self) -> str:
        words = [
            str(value) if key.endswith(".name") else f"{key.rpartition('.')[2]} {value}"
            for key, value in self.settings.items()
        ]
        return ", ".join([self.model, *words])


Rates = tuple[float, float]
"""Of the table and of the dense parameters."""


def grid(rule: str) -> list[Rates]:
    """What is tried for a rule."""
    return list(itertools.product(RATES[rule], DENSE_RATES))


def label(rates: Rates) -> str:
    return " / ".join(f"{rate:g}" for rate in rates)


def ruled(rule: str, rates: Rates, seed: int) -> Trial:
    """MMoE with one rule for its table."""
    names = "embedding_optimizer.name", "embedding_optimizer.lr", "optimizer.lr"
    return Trial("MMoE", seed, {**dict(zip(names, (rule, *rates), strict=True)), "epochs": EPOCHS})


def plain(model: str, seed: int) -> Trial:
    """A model as it ships, but for ``fused``."""
    return Trial(model, seed, {"fused": False})


def run(trial: Trial, data_path: str, threads: int) -> dict[str, Any]:
    """Train, validate and test once; the AUC of every task, on validation after every epoch too."""
    import pytorch_lightning as lightning
    import torch

    from recbole_dtn.config.load import resolve
    from recbole_dtn.training.fit import fit_settings

    class Curve(lightning.Callback):
        def __init__(self) -> None:
            self.valid: list[dict[str, float | None]] = []

        def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
            self.valid.append({task: values["auc"] for task, values in pl_module.latest.items()})

    curve = Curve()
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        given = {
            **trial.settings, "model": trial.model, "dataset": DATASET, "data_path": data_path, "seed": trial.seed,
            "threads": threads, "accelerator": "cpu", "output_dir": folder, "quiet": True,
        }  # fmt: skip
        start = time.perf_counter()
        record = fit_settings(resolve(given), callbacks=[curve]).record
        seconds = time.perf_counter() - start
    assert record.valid is not None
    assert record.test is not None
    return {
        "valid": {task: values["auc"] for task, values in record.valid.items()},
        "test": {task: values["auc"] for task, values in record.test.items()},
        "curve": curve.valid,
        "best_epoch": record.best_epoch,
        "seconds": round(seconds, 1),
    }


# ---- runs that are kept ---------------------------------------------------------------------------------------------


def code_digest() -> str:
    """Digest of the package's code and defaults: runs of another one are named."""
    digest = hashlib.sha256()
    for folder, kind in (("recbole_dtn", "*.py"), ("properties", "*.yaml")):
        for path in sorted(Path(folder).rglob(kind)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Kept:
    """The finished runs of a file, by trial."""

    def __init__(self, path: Path) -> None:
        self.path, self.code = path, code_digest()
        self.runs: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            found = json.loads(line)
            self.runs[Trial(**found.pop("trial")).key] = found
        others = sum(found["code"] != self.code for found in self.runs.values())
        if self.runs:
            print(f"{len(self.runs)} runs are there already; {others} of them by other code (remove {RUNS} to redo)")

    def __getitem__(self, trial: Trial) -> dict[str, Any]:
        return self.runs[trial.key]

    def __contains__(self, trial: Trial) -> bool:
        return trial.key in self.runs

    def add(self, trial: Trial, found: dict[str, Any]) -> None:
        found = {**found, "code": self.code}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"trial": asdict(trial), **found}) + "\n")
        self.runs[trial.key] = found


def work_off(trials: Sequence[Trial], kept: Kept, arguments: argparse.Namespace) -> None:
    """Run what is not there yet, some at a time; a line for each."""
    left = list({trial.key: trial for trial in trials if trial not in kept}.values())
    if not left:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, context) as pool:
        waiting: dict[Future[dict[str, Any]], Trial] = {
            pool.submit(run, trial, str(arguments.data_path), arguments.threads): trial for trial in left
        }
        try:
            for number, done in enumerate(as_completed(waiting), 1):
                trial, found = waiting[done], done.result()
                kept.add(trial, found)
                test = "  ".join(f"{task} {value:.4f}" for task, value in found["test"].items())
                print(
                    f"{number:3d}/{len(left)}  seed {trial.seed}  {trial.name:<42} valid {mean_auc(found):.4f}  "
                    f"test {test}  epoch {found['best_epoch']} of {len(found['curve'])}  {found['seconds']:.0f} s",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def mean_auc(found: Mapping[str, Any]) -> float:
    """Mean task AUC on validation, of the best epoch."""
    return statistics.fmean(found["valid"].values())


# ---- comparisons ----------------------------------------------------------------------------------------------------


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences and half the width of its 95 % interval by Student's t.

    >>> middle, half = interval([0.001, 0.003])
    >>> round(middle, 4), round(half, 4)
    (0.002, 0.0127)
    """
    from scipy import stats

    count = len(differences)
    spread = statistics.stdev(differences) / count**0.5
    return statistics.fmean(differences), float(stats.t.ppf(0.975, count - 1)) * spread


def tuned(kept: Kept) -> tuple[dict[str, Rates], list[dict[str, Any]]]:
    """The best rates of each rule, and validation AUC of all that were tried."""
    best, tried = {}, []
    for rule in RATES:
        scores = {}
        for rates in grid(rule):
            each = [mean_auc(kept[ruled(rule, rates, seed)]) for seed in tuning_seeds()]
            scores[rates] = statistics.fmean(each)
            tried.append({"rule": rule, "rates": rates, "valid_auc": scores[rates], "each": each})
        best[rule] = max(scores, key=scores.__getitem__)
    return best, tried


def on_edge(rule: str, rates: Rates) -> list[str]:
    """Which of the best rates has no neighbour on one side.

    >>> on_edge("adam", (RATES["adam"][1], DENSE_RATES[-1]))
    ['dense']
    """
    grids = {"table": RATES[rule], "dense": DENSE_RATES}
    return [name for (name, tried), rate in zip(grids.items(), rates, strict=True) if rate in (tried[0], tried[-1])]


def remarks(best: Mapping[str, Rates], trials: Sequence[Trial], kept: Kept) -> list[str]:
    """What a reader should know of the runs beside their means."""
    found = [
        f"{rule}: the best rate lies on the edge of its grid ({', '.join(edges)})"
        for rule, rates in best.items()
        if (edges := on_edge(rule, rates))
    ]
    ended = sum(trial.settings.get("epochs") == len(kept[trial]["curve"]) for trial in trials)
    if ended:
        found.append(f"{ended} of the compared runs ended by the number of epochs, not by early stopping")
    codes = {kept[trial]["code"] for trial in trials}
    if len(codes) > 1:
        found.append(f"the compared runs are of {len(codes)} versions of the code: {', '.join(sorted(codes))}")
    return found


def tuning_seeds() -> range:
    return range(FIRST_TUNED, FIRST_TUNED + TUNING_SEEDS)


def compared(pairs: Mapping[str, tuple[Sequence[Trial], Sequence[Trial]]], kept: Kept) -> Iterator[dict[str, Any]]:
    """A line per pair and task."""
    for name, (first, second) in pairs.items():
        for task in kept[first[0]]["test"]:
            a, b = ([kept[trial]["test"][task] for trial in trials] for trials in (first, second))
            differences = [x - y for x, y in zip(a, b, strict=True)]
            middle, half = interval(differences)
            yield {
                "pair": name, "task": task, "first": statistics.fmean(a), "second": statistics.fmean(b),
                "mean_difference": middle, "half_width": half, "differences": differences,
                "below_bound": abs(middle) < BOUND, "interval_below_bound": abs(middle) + half < BOUND,
                "epochs": [[kept[trial]["best_epoch"] for trial in trials] for trials in (first, second)],
            }  # fmt: skip


def report(lines: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """The tables of docs/benchmarks.md."""
    rows = []
    for line in lines:
        middle, half = line["mean_difference"], line["half_width"]
        rows.append(
            [
                line["pair"], line["task"], f"{line['first']:.4f}", f"{line['second']:.4f}", f"{middle:+.5f}",
                f"{middle - half:+.5f} to {middle + half:+.5f}",
                *("yes" if line[key] else "no" for key in ("below_bound", "interval_below_bound")),
            ]
        )  # fmt: skip
    bound = f"{BOUND:g}".removeprefix("0")
    columns = ["pair", "task", "test AUC, first", "second", "mean difference", "95 % interval", f"mean below {bound}"]
    scores = [[line["rule"], *(f"{rate:g}" for rate in line["rates"]), f"{line['valid_auc']:.4f}"] for line in tried]
    return "\n".join(
        [
            f"Validation AUC (mean of tasks and of {TUNING_SEEDS} seeds) by rule and rates:",
            markdown(["rule", "table", "dense", "valid AUC"], scores),
            f"Test AUC, paired over {seeds} seeds, 95 % interval by Student's t:",
            markdown([*columns, "whole interval too"], rows),
        ]
    )


def plot(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Mean difference and interval of every pair and task, the bound as a band."""
    figure, axes = plots.new(10, 0.9 + 0.4 * len(lines))
    axes.axvspan(-BOUND, BOUND, color=plots.LIGHT)
    axes.axvline(0, color="#444", linewidth=1)
    for place, line in enumerate(reversed(lines)):
        axes.errorbar(line["mean_difference"], place, xerr=line["half_width"], fmt="o", color=plots.OURS, capsize=3)
    axes.set_yticks(range(len(lines)), [f"{line['pair']}: {line['task']}" for line in reversed(lines)], fontsize=8)
    axes.locator_params(axis="x", nbins=6)
    axes.margins(y=0.1)
    axes.set_xlabel(f"difference in test AUC (band: {BOUND:g})", fontsize=9)
    plots.write(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="compared runs of each side, 2 at least (5, 10, 20)")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--data_path", type=Path, default=Path("dataset"), help="folder of the data sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the runs")
    parser.add_argument("--only", choices=("rules", "fused"), help="one of the two comparisons alone")
    parser.add_argument(
        "--models", type=lambda text: text.split(","), default=FUSED, help="of the second comparison (MMoE,DTN)"
    )
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"--seeds={arguments.seeds}: an interval needs 2 seeds at least")
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    arguments.output.mkdir(parents=True, exist_ok=True)
    prepare_data(arguments.data_path)
    kept = Kept(arguments.output / RUNS)
    seeds = range(FIRST_COMPARED, FIRST_COMPARED + arguments.seeds)
    pairs: dict[str, tuple[Sequence[Trial], Sequence[Trial]]] = {}
    rates: dict[str, Rates] = {}
    tried: list[dict[str, Any]] = []
    if arguments.only != "fused":
        print(f"rates: {sum(len(grid(rule)) for rule in RATES)} pairs, {TUNING_SEEDS} seeds each")
        work_off(
            [ruled(rule, pair, seed) for seed in tuning_seeds() for rule in RATES for pair in grid(rule)],
            kept, arguments,
        )  # fmt: skip
        rates, tried = tuned(kept)
        print("chosen on validation: " + ", ".join(f"{rule} {label(rates[rule])}" for rule in RATES))
        of_rule = {rule: [ruled(rule, pair, seed) for seed in seeds] for rule, pair in rates.items()}
        for rule in RATES:
            if rule != REFERENCE:
                name = f"MMoE, {rule} ({label(rates[rule])}) – dense {REFERENCE} ({label(rates[REFERENCE])})"
                pairs[name] = of_rule[rule], of_rule[REFERENCE]
    if arguments.only != "rules":
        for model in arguments.models:
            shipped = [Trial(model, seed) for seed in seeds]
            pairs[f"{model}, fused – plain"] = shipped, [plain(model, seed) for seed in seeds]
    by_seed = zip(*[trials for pair in pairs.values() for trials in pair], strict=True)
    trials = [trial for group in by_seed for trial in group]
    work_off(trials, kept, arguments)
    lines, notes = list(compared(pairs, kept)), remarks(rates, trials, kept)
    content = {
        "benchmark": "accuracy", "machine": machine(), "seeds": [*seeds], "tuning_seeds": [*tuning_seeds()],
        "rates": RATES, "dense_rates": DENSE_RATES, "chosen": rates, "tried": tried, "pairs": lines,
        "code": sorted({kept[trial]["code"] for trial in trials}), "remarks": notes,
    }  # fmt: skip
    name = f"accuracy-{arguments.only}" if arguments.only else "accuracy"
    path = arguments.output / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    plot(arguments.output / f"{name}.png", lines)
    print(report(lines, tried, arguments.seeds))
    for note in notes:
        print(f"note: {note}")


def prepare_data(data_path: Path) -> None:
    """Encode the data once, before several processes want it."""
    from recbole_dtn.config.load import resolve
    from recbole_dtn.preprocess.prepare import prepare

    prepare(resolve({"model": "MMoE", "dataset": DATASET, "data_path": str(data_path)}).settings)


if __name__ == "__main__":
    main()
