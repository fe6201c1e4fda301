"""The cost of one update of the embedding table, by its rows and by the optimiser.

    python -m benchmarks.scaling --threads=2 --rounds=5

A step looks up 94,208 rows (a batch of 4096 rows of 23 fields) of width 16 in tables of 10^5, 10^6 and 10^7 rows, with
the same number of distinct rows and the same repetitions in each; timed are the building of the sparse gradient and
the optimiser's step. ``adam`` is dense, as ``torch.optim.Adam`` over the whole table; its cost grows with the table.
Every side starts as a new process; each table is small beside the machine's memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import Sample, Side, compare, markdown, median, save

LOOK_UPS, DISTINCT, WIDTH = 94_208, 20_000, 16
ROWS = (100_000, 1_000_000, 10_000_000)
RULES = ("sgd", "rowwise_adagrad", "adagrad", "lazy_adam", "adam")
WARM_UP, STEPS = 5, 40


def side(rule: str, rows: int, threads: int) -> None:
    """One optimiser over one table; prints the median seconds of a step."""
    import numpy as np
    import torch

    from benchmarks.sides.train_common import AnonymousMemory
    from recbole_dtn.layers.table import RowTable
    from recbole_dtn.optim.lazy import LazyAdam
    from recbole_dtn.optim.rowwise import SGD, Adagrad, RowwiseAdagrad

    torch.set_num_threads(threads)
    memory, random = AnonymousMemory(), np.random.default_rng(0)
    table = RowTable(rows, WIDTH, std=0.01)
    table.sparse = rule != "adam"
    weights = [table.weight]
    optimizers = {
        "sgd": lambda: SGD(weights),
        "rowwise_adagrad": lambda: RowwiseAdagrad(weights),
        "adagrad": lambda: Adagrad(weights),
        "lazy_adam": lambda: LazyAdam(weights),
        "adam": lambda: torch.optim.Adam(weights, foreach=True),
    }
    optimizer = optimizers[rule]()
    shares = np.cumsum(np.arange(1, DISTINCT + 1) ** -1.05)
    gradient = torch.randn(LOOK_UPS, WIDTH) * 1e-4
    seconds, cpu = [], []
    for step in range(WARM_UP + STEPS):
        chosen = random.choice(rows, DISTINCT, replace=False)
        of_look_up = np.searchsorted(shares / shares[-1], random.random(LOOK_UPS))
        of_look_up[:DISTINCT] = np.arange(DISTINCT)
        found = table.look_up(torch.from_numpy(chosen[of_look_up]), batch_size=4096)
        optimizer.zero_grad()
        start, cpu_start = time.perf_counter(), time.process_time()
        found.backward(gradient)
        optimizer.step()
        if step >= WARM_UP:
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
    found_cpu = statistics.median(cpu)
    print(json.dumps({"seconds": statistics.median(seconds), "step_cpu": found_cpu, "anon_mib": memory.peak}))


def report(samples: Mapping[str, Sequence[Sample]]) -> str:
    """The table of docs/benchmarks.md: milliseconds by optimiser and rows, and the largest table over the smallest."""
    table = []
    for rule in RULES:
        runs = [samples[f"{rule} {rows}"] for rows in ROWS if f"{rule} {rows}" in samples]
        if not runs:
            continue
        cells = [f"{1e3 * median(each, lambda run: run.seconds):.2f}" for each in runs]
        growth = [after.seconds / before.seconds for before, after in zip(runs[0], runs[-1], strict=True)]
        peak = f"{median(runs[-1], lambda run: float(run.found['anon_mib'])):,.0f}"
        others = f"{statistics.median(run.others for each in runs for run in each):.2f}"
        table.append([rule, *cells, f"{statistics.median(growth):.2f}", peak, others])
    sizes = [f"ms at {rows:,} rows" for rows in ROWS]
    return markdown(["optimiser", *sizes, "largest / smallest", "peak anonymous MiB", "other processes, cores"], table)


def plot(path: Path, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Milliseconds of a step against the rows of the table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for rule in RULES:
        points = [(rows, samples[f"{rule} {rows}"]) for rows in ROWS if f"{rule} {rows}" in samples]
        milliseconds = [1e3 * median(runs, lambda run: run.seconds) for _, runs in points]
        axes.plot([rows for rows, _ in points], milliseconds, marker="o", label=rule)
    axes.set(xscale="log", yscale="log", xlabel="rows of the table", ylabel="ms per step")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    if len(sys.argv) == 5 and sys.argv[1] == "side":
        side(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rules", type=lambda text: text.split(","), default=RULES)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plot")
    arguments = parser.parse_args()
    threads = str(arguments.threads)
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": threads}
    own = [sys.executable, "-m", "benchmarks.scaling", "side"]
    sides = [
        Side(f"{rule} {rows}", [*own, rule, str(rows), threads], environment)
        for rule in arguments.rules
        for rows in ROWS
    ]
    samples = compare(sides, arguments.rounds)
    settings = {"threads": arguments.threads, "look_ups": LOOK_UPS, "distinct": DISTINCT, "width": WIDTH}
    save(arguments.output / f"scaling-{threads}.json", "scaling", settings, samples)
    plot(arguments.output / f"scaling-{threads}.png", samples)
    print(report(samples))


if __name__ == "__main__":
    main()
