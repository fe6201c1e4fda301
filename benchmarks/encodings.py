"""How numbers are best given to the models: standardised, as logarithms, in bins, as tokens.

    python -m benchmarks.encodings --data=DIR

Every number of a set is encoded in the same way, for each way of ENCODINGS, and SharedBottom and MMoE are trained as
they ship; a one-hot logistic regression (strength .3) stands beside them. The sets CHOSEN are for choosing; the sets
CONFIRMED were not looked at before the choice. Every run has a random split of its own (70 % training, 10 %
validation, which selects the epoch, and 20 % test), the same for all encodings: a difference is paired by split. The
report has, per set, task and model, the test AUC of ``standardise`` and the mean difference of each encoding from it, ±
its standard error over the splits. The splits overlap, so that the plain standard error would be too small; the factor
sqrt(1 / n + test / train) of Nadeau and Bengio (Machine Learning 2003) takes the place of sqrt(1 / n). A number in
brackets says that an encoding was run on fewer splits.

Every run that ended is a line of encodings-runs.jsonl in the work folder: the same command goes on where it was
stopped. One process, one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.encoding_sets import SETS, Table, atomic
from benchmarks.harness import machine, markdown
from recbole_dtn.config.load import resolve
from recbole_dtn.inspect.info.skewed import skewed_numbers
from recbole_dtn.model.direct.onehot import one_hot
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.training.fit import fit_settings

RATIO = (0.7, 0.1, 0.2)
STRENGTH = 0.3
FLOOR = "Logistic"
MODELS = ("SharedBottom", "MMoE", FLOOR)
LEAST = 3
"""Splits below which nothing is reported."""
REFERENCE = "standardise"
CHOSEN = ("census", "census-few", "loans", "planted-skewed")
CONFIRMED = ("kuairand", "movies", "planted-linear")
ENCODINGS: dict[str, Sequence[dict[str, Any]]] = {
    "standardise": [{"encoding": "standardise"}],
    "log1p": [{"encoding": "log1p"}],
    "bins 10": [{"encoding": "bins", "bins": 10}],
    "bins 20": [{"encoding": "bins", "bins": 20}],
    "bins 50": [{"encoding": "bins", "bins": 50}],
    "tokens": [{"column": "text", "type": "token", "min_count": 5}],
    "bins 20 + log1p": [{"encoding": "bins", "bins": 20}, {"column": "too", "encoding": "log1p"}],
}
"""By name, the fields that stand for one number: ``column`` names a copy of it, see ``encoding_sets.atomic``."""
SKEWED = " where skewed"
"""Such an encoding is for the numbers that ``data info`` warns of; the others are standardised."""
ENCODINGS |= {f"{name}{SKEWED}": ENCODINGS[name] for name in ("log1p", "bins 20")}
Run = dict[str, Any]


def fields(table: Table, encoding: str, skewed: Collection[str] = ()) -> list[dict[str, Any]]:
    """The inputs of a set, its numbers encoded in one way."""
    made = [{"name": name} for name in table.tokens]
    for name in table.floats:
        plain = encoding.endswith(SKEWED) and name not in skewed
        for part in ENCODINGS[REFERENCE if plain else encoding]:
            column = part.get("column")
            rest = {key: value for key, value in part.items() if key != "column"}
            made.append({"name": name if column is None else f"{name}_{column}", "type": "float", **rest})
    return made


def one_run(name: str, table: Table, model: str, encoding: str, split: int, work: Path) -> dict[str, Any]:
    """Train and test once: AUC and log loss of every task on the test split."""
    given = {
        "model": "SharedBottom" if model == FLOOR else model,
        "dataset": name,
        "data_path": str(work / "data"),
        "output_dir": str(work / "runs"),
        "fields": fields(table, encoding),
        "tasks": [{"name": task, "label": task} for task in table.tasks],
        "split_ratio": list(RATIO),
        "split_seed": split,
        "seed": 2020 + split,
        "threads": 1,
        "quiet": True,
        **SETS[name][1],
    }
    if encoding.endswith(SKEWED):
        train = prepare(resolve({**given, "fields": fields(table, REFERENCE)}).settings).splits["train"]
        given["fields"] = fields(table, encoding, skewed_numbers(train))
    resolved = resolve(given)
    if model == FLOOR:
        return logistic(resolved.settings)
    record = fit_settings(resolved).record
    assert record.test is not None
    found = {task: {key: values[key] for key in ("auc", "logloss")} for task, values in record.test.items()}
    return {"test": found, "best_epoch": record.best_epoch, "epochs": record.epochs}


def logistic(settings: Any) -> dict[str, Any]:
    """The floor, on the same rows and encodings."""
    prepared = prepare(settings)
    batches = [prepared.splits[part].batch(np.arange(prepared.splits[part].rows)) for part in ("train", "test")]
    x, x_test = (one_hot(batch, prepared.schema) for batch in batches)
    y, y_test = (batch.labels.numpy() for batch in batches)
    found = {}
    for position, task in enumerate(prepared.schema.task_names):
        model = LogisticRegression(C=STRENGTH, max_iter=200).fit(x, y[:, position])
        scores = model.predict_proba(x_test)[:, 1]
        truth = y_test[:, position]
        found[task] = {"auc": float(roc_auc_score(truth, scores)), "logloss": float(log_loss(truth, scores))}
    return {"test": found}


# ---- report ---------------------------------------------------------------------------------------------------------


def difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Mean paired difference and its corrected standard error."""
    apart = [a - b for a, b in zip(values, reference, strict=True)]
    factor = math.sqrt(1 / len(apart) + RATIO[2] / RATIO[0])
    return statistics.mean(apart), statistics.stdev(apart) * factor


def by_split(runs: Sequence[Run], name: str, model: str, encoding: str, task: str, metric: str) -> dict[int, float]:
    """The values of the splits that were run."""
    wanted = (name, model, encoding)
    return {
        run["split"]: run["test"][task][metric] for run in runs if (run["set"], run["model"], run["encoding"]) == wanted
    }


def cell(values: dict[int, float], reference: dict[int, float]) -> str:
    """The difference over the splits that both have, which are counted in brackets where they are not all."""
    common = sorted({*values} & {*reference})
    if len(common) < LEAST:
        return ""
    mean, error = difference([values[split] for split in common], [reference[split] for split in common])
    return f"{mean:+.4f} ± {error:.4f}" + (f" ({len(common)})" if len(common) < len(reference) else "")


def report(runs: Sequence[Run], names: Sequence[str], metric: str = "auc") -> str:
    """A table for docs/encodings.md: a row per set, task and model; encodings without runs are left out."""
    shown = [name for name in list(ENCODINGS)[1:] if any(run["encoding"] == name for run in runs)]
    rows = []
    for name in names:
        tasks = dict.fromkeys(task for run in runs if run["set"] == name for task in run["test"])
        for task, model in itertools.product(tasks, MODELS):
            reference = by_split(runs, name, model, REFERENCE, task, metric)
            cells = [cell(by_split(runs, name, model, one, task, metric), reference) for one in shown]
            if any(cells):
                rows.append([name, task, model, f"{statistics.mean(reference.values()):.4f}", *cells])
    return f"{metric}\n\n{markdown(['set', 'task', 'model', REFERENCE, *shown], rows)}"


def save(path: Path, runs: Sequence[Run]) -> None:
    """All runs, as ``{set: {model: {encoding: {split: {task: [AUC, log loss]}}}}}``."""
    content: dict[str, Any] = {"benchmark": "encodings", "machine": machine(), "runs": {}}
    for run in runs:
        place = content["runs"].setdefault(run["set"], {}).setdefault(run["model"], {}).setdefault(run["encoding"], {})
        place[run["split"]] = {
            task: [round(values["auc"], 5), round(values["logloss"], 5)] for task, values in run["test"].items()
        }
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of census_income_kdd/, kuairand_27k_subset/")
    parser.add_argument("--sets", default=",".join(CHOSEN), help="of " + ", ".join(SETS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--encodings", default=",".join(ENCODINGS), help="of " + ", ".join(ENCODINGS))
    parser.add_argument("--splits", type=int, default=5, help="random splits, with split_seed 0, 1, ...")
    parser.add_argument("--work", type=Path, default=Path("encodings-work"), help="folder of data, runs and results")
    parser.add_argument("--output", type=Path, help="write all results as JSON to this file")
    given = parser.parse_args(argv)
    log = given.work / "encodings-runs.jsonl"
    runs: list[Run] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(run["set"], run["model"], run["encoding"], run["split"]) for run in runs}
    names = given.sets.split(",")
    for name in names:
        table = SETS[name][0](given.data)
        if not (given.work / "data" / name / f"{name}.inter").is_file():
            atomic(table, given.work / "data" / name)
        for split in range(given.splits):
            for encoding in given.encodings.split(","):
                for model in given.models.split(","):
                    if (name, model, encoding, split) in done:
                        continue
                    start = time.process_time()
                    found = one_run(name, table, model, encoding, split, given.work)
                    run = {"set": name, "model": model, "encoding": encoding, "split": split, **found}
                    run["cpu_seconds"] = round(time.process_time() - start, 1)
                    runs.append(run)
                    with log.open("a") as file:
                        file.write(json.dumps(run) + "\n")
                    scores = ", ".join(f"{task} {values['auc']:.4f}" for task, values in run["test"].items())
                    print(f"{name}, split {split}, {model}, {encoding}: {scores}", flush=True)
    print(report(runs, names))
    print("\n" + report(runs, names, "logloss"))
    if given.output is not None:
        save(given.output, runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
