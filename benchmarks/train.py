"""Training steps per second: ours beside FuxiCTR, torch-rechub, DeepCTR-Torch and a hand-written loop.

    python -m benchmarks.peers peers            # once: the peers' environments
    python -m benchmarks.train --peers=peers --ids=1000000 --model=MMoE --threads=2 --rounds=5

The data: 23 single-valued fields of Zipf-distributed ids (exponent 1.05), numbered by frequency, and two labels. Every
side trains the same sizes on the same rows: embeddings of width 16, batches of 4096; MMoE with 4 experts of one layer
of 128, linear gates and towers 64-1; PLE of one level with 2 shared experts and 2 of each task. 8 steps warm up, then
52 (``--steps``) are timed. The peers and ``dense_adam`` use Adam, as they come; a rule in brackets is that of the
embedding table. Every side starts as a new process; its imports are not counted. glibc's allocator has the same raised
thresholds for all sides, unless ``--allocator=default``: then every side is as it comes (the product raises its own).

    python -m benchmarks.train --full=300 --rules=rowwise_adagrad

times whole runs of ours: from data that is ready until the model is trained, validated on a tenth of the rows, tested
on another and the record written. Beside them the same steps alone, their batches cut beforehand ("bare"), and the same
with batches cut by our loader meanwhile. It prints the whole run's overhead over either.

``--accelerator=gpu`` puts every side on the first CUDA device. The peers move each batch themselves; the hand-written
loop and ours, bare, have theirs there beforehand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from benchmarks import plots
from benchmarks.harness import (
    AS_IT_COMES,
    Sample,
    Side,
    add_accelerator,
    compare,
    gpu_cells,
    gpu_columns,
    markdown,
    median,
    on_gpu,
    ratio,
    save,
)
from benchmarks.peers import interpreter
from benchmarks.preprocess import EXPONENT, FIELDS
from benchmarks.sides.train_common import BATCH, TASKS, WARM_UP

STEPS = 52
SIDES = Path(__file__).parent / "sides"
PEERS = {"fuxictr": "fuxictr", "torch-rechub": "rechub", "deepctr-torch": "rechub"}
SCRIPTS = {"fuxictr": "train_fuxictr.py", "torch-rechub": "train_rechub.py", "deepctr-torch": "train_deepctr.py"}
RULES = ("lazy_adam", "rowwise_adagrad")
MFLOP = {"MMoE": 1.25, "PLE": 1.82}
"""Forward and backward pass of one sample, products alone."""


def field_sizes(ids: int) -> list[int]:
    """Distinct ids of each field, from about ten per million to a third of all; they sum to about ``ids``."""
    sizes = np.geomspace(10, 330_000, FIELDS)
    return [max(2, int(size)) for size in sizes * (ids - 5) / sizes.sum()]


def make_data(folder: Path, ids: int, rows: int) -> None:
    """ids.npy, labels.npy, sizes.json, and the YAML that makes the folder a data set of ours."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = field_sizes(ids)
    columns = np.empty((rows, len(sizes)), np.int32)
    for position, size in enumerate(sizes):
        shares = np.cumsum(np.arange(1, size + 1) ** -EXPONENT)
        columns[:, position] = np.searchsorted(shares / shares[-1], random.random(rows))
    labels = np.stack([random.random(rows) < 0.3, random.random(rows) < 0.1], axis=1).astype(np.float32)
    np.save(folder / "labels.npy", labels)
    (folder / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    meaning = {
        "fields": [{"name": f"c{position}"} for position in range(len(sizes))],
        "tasks": [{"name": name, "label": name} for name in TASKS],
    }
    (folder / f"{folder.name}.yaml").write_text(yaml.safe_dump(meaning), encoding="utf-8")
    np.save(folder / "ids.npy", columns)


def data_of(folder: Path, ids: int, steps: int) -> Path:
    """The folder of so many ids and batches, made if it is not there."""
    data = (folder / f"train-{ids}-{steps}").resolve()
    if not (data / "ids.npy").is_file():
        make_data(data, ids, steps * BATCH)
    return data


def sides(arguments: argparse.Namespace, folder: Path, smaller: Path | None) -> list[Side]:
    """Every side that can run here; with ``smaller``, ours over that data too."""
    after = [arguments.model, str(arguments.threads), arguments.accelerator]
    words = [str(folder), *after]
    environment: dict[str, str | None] = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": str(arguments.threads)}
    if arguments.allocator == "default":
        environment |= AS_IT_COMES

    def ours(kind: str, rule: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.sides.train_ours", f"{kind}:{rule}", *words]

    found = []
    if arguments.full:
        for rule in arguments.rules:
            found += [
                Side(f"{name} ({rule})", ours(kind, f"{rule}:{arguments.epochs}"), environment)
                for name, kind in (("full run", "full"), ("bare steps", "steps"), ("steps and loader", "loaded"))
            ]
        return kept(found, arguments.leave_out)
    for rule in arguments.rules:
        hand = [sys.executable, "-m", "benchmarks.handwritten", rule, *words]
        found += [
            Side(f"ours ({rule})", ours("run", rule), environment),
            Side(f"ours, bare ({rule})", ours("bare", rule), environment),
            Side(f"hand-written ({rule})", hand, environment),
        ]
        if smaller is not None:
            command = [sys.executable, "-m", "benchmarks.sides.train_ours", f"run:{rule}", str(smaller), *after]
            found.append(Side(f"{arguments.against:,} ids, ours ({rule})", command, environment))
    for name, folder_name in PEERS.items():
        python = interpreter(arguments.peers, folder_name)
        if python is None:
            print(f"{name} is left out: no environment in {arguments.peers}; python -m benchmarks.peers FOLDER")
        else:
            found.append(Side(name, [python, str(SIDES / SCRIPTS[name]), "peer", *words], environment))
    hand = [sys.executable, "-m", "benchmarks.handwritten", "dense_adam", *words]
    found.append(Side("hand-written (dense_adam)", hand, environment))
    return kept(found, arguments.leave_out)


def kept(found: Sequence[Side], leave_out: Sequence[str]) -> list[Side]:
    """The sides whose names hold none of the words."""
    return [side for side in found if not any(word and word in side.name for word in leave_out)]


def report(samples: Mapping[str, Sequence[Sample]], rows: int, model: str) -> str:
    """The table of docs/benchmarks.md."""
    ours = [name for name in samples if name.startswith(("ours (", "full run"))]
    table = []
    for name, runs in samples.items():
        rate = rows / median(runs, lambda run: run.seconds)
        cells = [name, f"{rate:,.0f}", f"{rate * MFLOP[model] / 1000:,.0f}"]
        cells.append(f"{median(runs, lambda run: float(run.found['anon_mib'])):,.0f}")
        cells += gpu_cells(samples, name)
        cells.append(f"{median(runs, lambda run: float(run.found['step_cpu'])):.2f}")
        for own in ours:
            middle, least, largest = ratio(samples, own, name)
            cells.append("–" if name == own else f"{middle:.2f} ({least:.2f}–{largest:.2f})")
        table.append([*cells, f"{median(runs, lambda run: run.others):.2f}"])
    columns = [
        "side",
        "samples/s",
        "GFLOP/s",
        "peak anonymous MiB",
        *gpu_columns(samples),
        "processor s",
        *(f"{own} is × faster" for own in ours),
    ]
    return markdown([*columns, "other processes, cores"], table)


def overheads(samples: Mapping[str, Sequence[Sample]], rules: Sequence[str]) -> str:
    """How much longer a whole run takes than its training steps, in percent."""
    others = {"bare steps": "over bare steps (batches cut beforehand)", "steps and loader": "over steps and loader"}
    others = {name: title for name, title in others.items() if f"{name} ({rules[0]})" in samples}
    lines = []
    for rule in rules:
        cells = [rule]
        for other in others:
            found = ratio(samples, f"full run ({rule})", f"{other} ({rule})")
            middle, least, largest = (100 * (1 / each - 1) for each in found)
            cells.append(f"{middle:.1f} % ({largest:.1f}–{least:.1f})")
        lines.append(cells)
    return "overhead of a whole run:\n" + markdown(["rule", *others.values()], lines)


def plot(path: Path, samples: Mapping[str, Sequence[Sample]], rows: int, title: str) -> None:
    """A bar per side: median, least and largest samples/s."""
    figure, axes = plots.new(8, 0.4 * len(samples) + 1.2)
    rates = {name: [rows / run.seconds for run in runs] for name, runs in samples.items()}
    plots.bars(axes, rates, "training samples per second")
    axes.set_title(title)
    plots.write(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder that benchmarks.peers made")
    parser.add_argument("--ids", type=int, default=1_000_000, help="rows of the embedding table, about")
    parser.add_argument("--against", type=int, default=0, metavar="IDS", help="ours over a table of so many rows too")
    parser.add_argument("--model", choices=list(MFLOP), default="MMoE")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every side")
    parser.add_argument("--rules", type=lambda text: text.split(","), default=RULES, help="of the embedding table")
    parser.add_argument("--steps", type=int, default=STEPS, help="timed steps")
    parser.add_argument("--full", type=int, default=0, metavar="STEPS", help="whole runs, ours alone: steps an epoch")
    parser.add_argument("--epochs", type=int, default=1, help="of whole runs (--full)")
    parser.add_argument(
        "--allocator", choices=("raised", "default"), default="raised", help="glibc's thresholds (default: raised)"
    )
    add_accelerator(parser)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"), help="gets the data")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plot")
    parser.add_argument(
        "--leave_out", type=lambda text: text.split(","), default=[], help="words in sides to leave out"
    )
    arguments = parser.parse_args()
    steps = arguments.full or WARM_UP + arguments.steps
    data = data_of(arguments.folder, arguments.ids, steps)
    smaller = data_of(arguments.folder, arguments.against, steps) if arguments.against else None
    samples = compare(sides(arguments, data, smaller), arguments.rounds)
    rows = arguments.epochs * steps * BATCH if arguments.full else arguments.steps * BATCH
    name = f"train-{arguments.model}-{arguments.ids}-{arguments.threads}"
    name += f"-full-{arguments.epochs}" if arguments.full else ""
    name += "-as-it-comes" * (arguments.allocator == "default") + on_gpu(arguments.accelerator)
    settings = {
        key: getattr(arguments, key)
        for key in ("ids", "against", "model", "threads", "full", "epochs", "allocator", "accelerator")
    }
    save(arguments.output / f"{name}.json", "train", {**settings, "steps": steps, "batch": BATCH}, samples)
    where = "a GPU" if arguments.accelerator == "gpu" else f"{arguments.threads} threads"
    title = f"{arguments.model}, {arguments.ids:,} ids, {where}"
    plot(arguments.output / f"{name}.png", samples, rows, title)
    print(report(samples, rows, arguments.model))
    if arguments.full:
        print(overheads(samples, arguments.rules))


if __name__ == "__main__":
    main()
