"""The cost of one update of the embedding table, by its rows and by the optimiser.

    python -m benchmarks.scaling --threads=2 --rounds=5

A step looks up 94,208 rows (a batch of 4096 rows of 23 fields) of width 16 in tables of 10^5, 10^6 and 10^7 rows, with
the same number of distinct rows and the same repetitions in each; timed are the gather, the sparse gradient and the
optimiser's step. ``adam`` is dense, as ``torch.optim.Adam`` over the whole table; its cost grows with the table.
Every side starts as a new process; each table is small beside the machine's memory. With ``--accelerator=gpu`` tables,
gradients and ids lie on the first CUDA device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
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
    save,
)
from benchmarks.sides.train_common import AnonymousMemory, Place

LOOK_UPS, DISTINCT, WIDTH = 94_208, 20_000, 16
ROWS = (100_000, 1_000_000, 10_000_000)
RULES = ("sgd", "rowwise_adagrad", "adagrad", "lazy_adam", "adam")
WARM_UP, STEPS = 5, 40


def side(rule: str, rows: int, threads: int, accelerator: str) -> None:
    """One optimiser over one table; prints the median seconds of a step."""
    import numpy as np
    import torch

    from recbole_dtn.layers.table import RowTable
    from recbole_dtn.optim.lazy import LazyAdam
    from recbole_dtn.optim.rowwise import SGD, Adagrad, RowwiseAdagrad

    place = Place(accelerator)
    torch.set_num_threads(threads)
    memory, random = AnonymousMemory(), np.random.default_rng(0)
    table = RowTable(rows, WIDTH, std=0.01).to(place.device)
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
    gradient = torch.randn(LOOK_UPS, WIDTH, device=place.device) * 1e-4
    seconds, cpu = [], []
    for step in range(WARM_UP + STEPS):
        chosen = random.choice(rows, DISTINCT, replace=False)
        of_look_up = np.searchsorted(shares / shares[-1], random.random(LOOK_UPS))
        of_look_up[:DISTINCT] = np.arange(DISTINCT)
        looked_up = torch.from_numpy(chosen[of_look_up]).to(place.device)
        optimizer.zero_grad()
        start, cpu_start = place.clock(), time.process_time()
        table.look_up(looked_up, batch_size=4096).backward(gradient)
        optimizer.step()
        if step >= WARM_UP:
            seconds.append(place.clock() - start)
            cpu.append(time.process_time() - cpu_start)
    line = {"seconds": statistics.median(seconds), "step_cpu": statistics.median(cpu), "anon_mib": memory.peak}
    print(json.dumps({**line, **place.found()}))


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
        own = gpu_cells(samples, f"{rule} {ROWS[-1]}")
        table.append([rule, *cells, f"{statistics.median(growth):.2f}", peak, *own, others])
    sizes = [f"ms at {rows:,} rows" for rows in ROWS]
    columns = ["optimiser", *sizes, "largest / smallest", "peak anonymous MiB", *gpu_columns(samples)]
    return markdown([*columns, "other processes, cores"], table)


def plot(path: Path, samples: Mapping[str, Sequence[Sample]]) -> None:
    """Milliseconds of a step against the rows of the table."""
    figure, axes = plots.new(6.5, 4)
    for rule, colour in zip(RULES, plots.COLOURS, strict=False):
        points = [(rows, samples[f"{rule} {rows}"]) for rows in ROWS if f"{rule} {rows}" in samples]
        milliseconds = [1e3 * median(runs, lambda run: run.seconds) for _, runs in points]
        label = "adam (dense)" if rule == "adam" else rule
        axes.plot([rows for rows, _ in points], milliseconds, marker="o", color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="rows of the table", ylabel="ms per update of 94,208 look-ups")
    axes.set_title("One update of the embedding table")
    axes.grid(True, which="major", color="#eee")
    axes.legend(frameon=False)
    plots.write(figure, path)


def main() -> None:
    if len(sys.argv) == 6 and sys.argv[1] == "side":
        side(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every side")
    parser.add_argument("--rules", type=lambda text: text.split(","), default=RULES, help=f"some of {','.join(RULES)}")
    add_accelerator(parser)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plot")
    arguments = parser.parse_args()
    threads = str(arguments.threads)
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": threads}
    own = [sys.executable, "-m", "benchmarks.scaling", "side"]
    sides = [
        Side(f"{rule} {rows}", [*own, rule, str(rows), threads, arguments.accelerator], environment)
        for rule in arguments.rules
        for rows in ROWS
    ]
    samples = compare(sides, arguments.rounds)
    settings = {"threads": arguments.threads, "accelerator": arguments.accelerator}
    settings |= {"look_ups": LOOK_UPS, "distinct": DISTINCT, "width": WIDTH}
    name = f"scaling-{threads}{on_gpu(arguments.accelerator)}"
    save(arguments.output / f"{name}.json", "scaling", settings, samples)
    plot(arguments.output / f"{name}.png", samples)
    print(report(samples))


if __name__ == "__main__":
    main()
