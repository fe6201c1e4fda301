"""Scoring: ours beside torch-rechub, FuxiCTR and a hand-written forward pass.

    python -m benchmarks.peers peers            # once: the peers' environments
    python -m benchmarks.inference --peers=peers --threads=2 --rounds=5

Model and data are those of benchmarks.train. Every side scores 30 batches of 8192 rows, ready in its own form, and
2000 batches of one row. ``ours, predict`` begins with a Polars frame of texts and looks every token up; two more sides
are the command ``predict`` on a file of these texts, with its scores written as Parquet; the others begin with ids.
With ``--accelerator=gpu`` batches are on the GPU beforehand, but for the ``predict`` sides (ours score on the CPU,
torch-rechub moves its batches), and a row counts until the GPU is done with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import plots
from benchmarks.harness import (
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
from benchmarks.train import MFLOP, data_of

STEPS = 60
FOLDER = Path(__file__).parent / "sides"
PEERS = {
    "torch-rechub, forward": ("rechub", "inference_rechub.py", "forward"),
    "torch-rechub, predict": ("rechub", "inference_rechub.py", "predict"),
    "fuxictr, forward": ("fuxictr", "inference_fuxictr.py", "forward"),
}
OURS = {
    "ours, forward": "forward",
    "ours, scores": "scores",
    "ours, predict": "predict",
    "ours, predict, Parquet file": "parquet",
    "ours, predict, CSV file": "csv",
    "hand-written": "hand",
}


def sides(arguments: argparse.Namespace, folder: Path) -> list[Side]:
    """Every side that can run here."""
    words = [str(folder), arguments.model, str(arguments.threads), arguments.accelerator]
    threads = str(arguments.threads)
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads}
    command = [sys.executable, "-m", "benchmarks.sides.inference_ours"]
    found = [Side(name, [*command, kind, *words], environment) for name, kind in OURS.items()]
    for name, (environment_name, script, kind) in PEERS.items():
        python = interpreter(arguments.peers, environment_name)
        if python is None:
            print(f"{name} is left out: no environment in {arguments.peers}; python -m benchmarks.peers FOLDER")
        else:
            found.append(Side(name, [python, str(FOLDER / script), kind, *words], environment))
    return found


def report(samples: Mapping[str, Sequence[Sample]]) -> str:
    """The table of docs/benchmarks.md."""
    lines = []
    for name, runs in samples.items():
        single = [median(runs, lambda run, key=key: float(run.found.get(key, 0))) for key in ("p50_us", "p99_us")]
        lines.append(
            [
                name,
                f"{median(runs, lambda run: run.found['scored'] / run.seconds):,.0f}",
                f"{median(runs, lambda run: float(run.found['call_cpu'])):.2f}",
                *(f"{micros / 1000:.3f}" if micros else "" for micros in single),
                *gpu_cells(samples, name),
                *(
                    "–" if name == own else "{:.2f} ({:.2f}–{:.2f})".format(*ratio(samples, own, name))
                    for own in ("ours, scores", "ours, predict")
                ),
                f"{median(runs, lambda run: run.others):.2f}",
            ]
        )
    columns = ["side", "rows/s at 8192", "processor s", "one row, p50 ms", "p99 ms", *gpu_columns(samples)]
    ratios = ["ours, scores is × faster", "ours, predict is × faster"]
    return markdown([*columns, *ratios, "other processes, cores"], lines)


def plot(path: Path, samples: Mapping[str, Sequence[Sample]], title: str) -> None:
    """Rows per second of large batches, and milliseconds of one row."""
    figure, (left, right) = plots.new(12, 0.4 * len(samples) + 1.3, columns=2)
    rates = {name: [run.found["scored"] / run.seconds for run in runs] for name, runs in samples.items()}
    single = {
        name: [run.found["p50_us"] / 1000 for run in runs]
        for name, runs in samples.items()
        if all("p50_us" in run.found for run in runs)
    }
    plots.bars(left, rates, "rows scored per second, batches of 8192")
    plots.bars(right, single, "ms for one row (p50), less is better", more_is_better=False, digits=3)
    figure.suptitle(title)
    plots.write(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder that benchmarks.peers made")
    parser.add_argument("--ids", type=int, default=1_000_000, help="rows of the embedding table, about")
    parser.add_argument("--model", choices=list(MFLOP), default="MMoE")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every side")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"), help="gets the data")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plot")
    add_accelerator(parser)
    arguments = parser.parse_args()
    data = data_of(arguments.folder, arguments.ids, STEPS)
    samples = compare(sides(arguments, data), arguments.rounds)
    settings = {key: getattr(arguments, key) for key in ("ids", "model", "threads", "accelerator")}
    name = f"inference-{arguments.model}-{arguments.ids}{on_gpu(arguments.accelerator)}"
    save(arguments.output / f"{name}.json", "inference", settings, samples)
    where = "a GPU" if arguments.accelerator == "gpu" else f"{arguments.threads} threads"
    plot(arguments.output / f"{name}.png", samples, f"Scoring: {arguments.model}, {arguments.ids:,} ids, {where}")
    print(report(samples))


if __name__ == "__main__":
    main()
