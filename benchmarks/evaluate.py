"""Exact AUC: ours beside scikit-learn, torchmetrics, and one sort of score and label packed in an integer.

    python -m benchmarks.evaluate --threads=2 --rounds=5

``exact_auc`` takes all scores at once, as the others do; ``ExactAUC`` is the metric that a run uses, fed in batches of
8192. Every side must find the same value, to 1e-6. With ``--accelerator=gpu`` scores and labels begin on the first CUDA
device, where a run leaves them: ours and torchmetrics take them there, the others copy them to the CPU, which counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import plots
from benchmarks.harness import Sample, Side, add_accelerator, compare, markdown, median, on_gpu, ratio, save
from benchmarks.sides.evaluate_auc import SIDES

OURS = "exact_auc"


def sides(rows: int, share: float, threads: int, accelerator: str) -> list[Side]:
    """A side per way to the AUC."""
    environment = {"OMP_NUM_THREADS": str(threads), "POLARS_MAX_THREADS": str(threads), "PYTHONPATH": str(Path.cwd())}
    words = [str(rows), str(share), str(threads), accelerator]
    command = [sys.executable, "-m", "benchmarks.sides.evaluate_auc"]
    return [Side(name, [*command, name, *words], environment) for name in SIDES]


def check(samples: Mapping[str, Sequence[Sample]]) -> None:
    """All sides agree.

    Raises:
        RuntimeError: when they do not.
    """
    values = {name: [float(run.found["value"]) for run in runs] for name, runs in samples.items()}
    every = [value for found in values.values() for value in found]
    if max(every) - min(every) > 1e-6:
        raise RuntimeError(f"the sides found different values: {values}")


def table(samples: Mapping[str, Sequence[Sample]], rows: int, share: float) -> list[list[str]]:
    """A line per side."""
    found = []
    for name, runs in samples.items():
        middle, least, largest = ratio(samples, OURS, name)
        found.append(
            [
                f"{rows:,}",
                f"{share:.0%}",
                name,
                f"{median(runs, lambda run: run.seconds):.4f}",
                f"{median(runs, lambda run: float(run.found['call_cpu'])):.4f}",
                f"{median(runs, lambda run: float(run.found['anon_mib'])) * 2**20 / rows:.0f}" if rows >= 10**6 else "",
                "–" if name == OURS else f"{middle:.1f} ({least:.1f}–{largest:.1f})",
                f"{median(runs, lambda run: run.others):.2f}",
            ]
        )
    return found


def plot(path: Path, measured: Mapping[tuple[int, float], Mapping[str, Sequence[Sample]]], share: float) -> None:
    """Seconds against scores, for one share of positives."""
    sizes = sorted(rows for rows, own in measured if own == share)
    figure, axes = plots.new(6.5, 4)
    for side, colour in zip(SIDES, plots.COLOURS, strict=False):
        seconds = [median(measured[rows, share][side], lambda run: run.seconds) for rows in sizes]
        ours = plots.is_ours(side)
        axes.plot(sizes, seconds, "o-" if ours else "o--", color=colour, label=side, linewidth=2 if ours else 1.2)
    axes.set(xscale="log", yscale="log", xlabel="scores", ylabel="seconds")
    axes.set_title(f"Exact AUC, {share:.0%} positive")
    axes.grid(True, which="major", color="#eee")
    axes.legend(frameon=False)
    plots.write(figure, path)


def _numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=_numbers, default="1e5,1e6,1e7", help="scores, several with commas between")
    parser.add_argument("--shares", type=_numbers, default="0.01,0.3", help="of positives")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every side")
    add_accelerator(parser)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plots")
    arguments = parser.parse_args()
    lines, measured = [], {}
    for rows in map(int, arguments.rows):
        for share in arguments.shares:
            print(f"{rows:,} scores, {share:.0%} positive")
            samples = compare(sides(rows, share, arguments.threads, arguments.accelerator), arguments.rounds)
            measured[rows, share] = samples
            check(samples)
            settings = {"rows": rows, "share": share}
            settings |= {key: getattr(arguments, key) for key in ("threads", "accelerator")}
            name = f"evaluate-{rows}-{share}{on_gpu(arguments.accelerator)}"
            save(arguments.output / f"{name}.json", "evaluate", settings, samples)
            lines += table(samples, rows, share)
    for share in arguments.shares:
        plot(arguments.output / f"evaluate-{share}{on_gpu(arguments.accelerator)}.png", measured, share)
    columns = ["scores", "positive", "side", "seconds", "processor s", "bytes a row", "exact_auc is × faster"]
    print(markdown([*columns, "other processes, cores"], lines))


if __name__ == "__main__":
    main()
