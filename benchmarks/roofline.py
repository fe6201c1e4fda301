"""How far each stage of a training step is from what this machine can do.

    python -m benchmarks.roofline --model=MMoE --threads=2 --rounds=3

Model and data are those of benchmarks.train (DTN: the work of benchmarks.dtn). Measured are the machine's limits (the
best rate of float32 products at the shapes of the work and of a large square, by either library; of copying memory; of
gathering rows) and the time of each stage in the product's own run with ``profile: true``, whose backward pass is split
by the forward stage that each operation belongs to. From the sizes follow each stage's floating-point operations and
the bytes that it must read and write once. Its limit is the larger of two times: operations over the best product rate,
bytes over bandwidth (the copy's inside the cache for what is streamed, the gather's for rows of the table).

- Operations are those of products, two per multiplication and addition; of the loss and the optimisers, which have no
  product, those per element.
- Embed's gradient, the sort and the sums of equal rows and the update of the table are one stage, "table".
- "load" is the time the training step waits for a batch. "metrics" belongs to validation and is per batch of it.
- On a CPU the profiler adds some microseconds per operation; the step without it is printed below the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import dtn, plots
from benchmarks.harness import Sample, Side, add_accelerator, compare, markdown, median, on_gpu, save
from benchmarks.sides.train_common import (
    BATCH,
    EXPERTS,
    HIDDEN,
    SHARED_EXPERTS,
    TASK_EXPERTS,
    TASKS,
    TOWER,
    WARM_UP,
    WIDTH,
)
from benchmarks.train import STEPS, data_of

FLOAT, ID = 4, 8
MODELS = ("MMoE", "PLE", "DTN")
MACHINE, STAGES, STEP = "machine", "stages", "step"
STATE_ROWS = {"lazy_adam": 2.0, "adagrad": 1.0, "rowwise_adagrad": 1 / WIDTH, "sgd": 0.0}
"""Floats of state per float of the table."""


@dataclass(frozen=True)
class Stage:
    """One stage's work in a step, and how it was measured.

    Attributes:
        flops: operations. streamed, gathered, cached: bytes read and written one after another, by rows of the
            table, by rows of a codebook that stays in the cache. measured: names of the times that make it up.
    """

    name: str
    measured: tuple[str, ...]
    flops: float = 0.0
    streamed: float = 0.0
    gathered: float = 0.0
    cached: float = 0.0

    @property
    def bytes(self) -> float:
        return self.streamed + self.gathered + self.cached

    def seconds(self, limits: Mapping[str, float]) -> tuple[float, float]:
        """Least seconds for the operations, and for the bytes."""
        moving = self.streamed / limits["copy in cache"] + self.gathered / limits["gather"]
        return self.flops / limits["flops"] / 1e9, (moving + self.cached / limits["gather in cache"]) / 1e9


def core_flops(model: str, fields: int, batch: int = BATCH) -> tuple[float, float]:
    """Operations between the embedding and the towers, forward and backward: experts or interactions, gates, mix."""
    tasks, flat = len(TASKS), fields * WIDTH
    if model == "DTN":
        gates = 2.0 * batch * tasks * (flat * 9 + 9 * dtn.OUTPUT)  # two over x, of 3 modules and of 6, and their mix
        forward, step = (
            sum(dtn.flops(batch, forward_only=only)[name] for name in dtn.MODULES) for only in (True, False)
        )
        return forward + gates, step - forward + 2 * gates
    experts, choices = mixture(model)
    forward = 2.0 * batch * (flat * experts * HIDDEN + tasks * choices * (flat + HIDDEN))
    return forward, 2 * forward


def mixture(model: str) -> tuple[int, int]:
    """Experts in all, and those that one task's gate chooses among."""
    if model == "MMoE":
        return EXPERTS, EXPERTS
    return len(TASKS) * TASK_EXPERTS + SHARED_EXPERTS, TASK_EXPERTS + SHARED_EXPERTS


def tower_flops(model: str, batch: int = BATCH) -> float:
    """Forward operations of all towers."""
    return 2.0 * batch * len(TASKS) * (tower_input(model) * TOWER + TOWER)


def tower_input(model: str) -> int:
    return 2 * dtn.OUTPUT if model == "DTN" else HIDDEN


def stages(model: str, rule: str, fields: int, touched: float, dense: int, found: Mapping[str, Any]) -> list[Stage]:
    """Every stage of a step.

    Args:
        touched: distinct rows that a batch looks up. dense: parameters outside the tables. found: what
            sides/roofline_stages.py printed.
    """
    tasks, flat, look_ups = len(TASKS), fields * WIDTH, BATCH * fields
    x = FLOAT * BATCH * flat
    mixed = FLOAT * BATCH * tasks * tower_input(model)
    if model == "DTN":
        core, weights = "interactions, gates", FLOAT * dense
        outputs = FLOAT * BATCH * dtn.OWNERS * len(dtn.MODULES) * dtn.OUTPUT
        moved = dtn.looked_up_bytes(BATCH)
        gathered = moved["gathered, forward and again in backward"]
        cached = (gathered / 2, gathered / 2 + 2 * moved["added into the codebook"])
    else:
        experts, choices = mixture(model)
        core = "experts, gates, mix"
        weights = FLOAT * flat * (experts * HIDDEN + tasks * choices)
        outputs = FLOAT * BATCH * (experts * HIDDEN + tasks * choices)
        cached = (0.0, 0.0)
    towers, (forward, backward) = tower_flops(model), core_flops(model, fields)
    hidden = FLOAT * tasks * (BATCH * TOWER + tower_input(model) * TOWER)
    state = STATE_ROWS[rule]
    row = FLOAT * WIDTH
    batch, rows = found["eval_batch"], found["eval_rows"]
    evaluated = rows / -(-rows // batch)
    parts = {name for name in found["stages"]["train"] if name.startswith("optimiser, ")}
    table = tuple(sorted(parts - {"optimiser, Adam", "optimiser, CombinedOptimizer"}))
    return [
        Stage("load", ("load",), streamed=BATCH * (fields * (4 + ID) + tasks * (1 + FLOAT + 1))),
        Stage("embed", ("embed",), streamed=ID * look_ups, gathered=2 * row * look_ups),
        Stage(core, ("core", "gate"), forward, x + weights + outputs + mixed, cached=cached[0]),
        Stage("towers", ("tower",), towers, mixed + hidden + FLOAT * BATCH * tasks),
        Stage(
            "loss", ("loss", "loss, backward"), 20.0 * BATCH * tasks, BATCH * tasks * (3 * FLOAT + 1)
        ),
        Stage("towers, backward", ("tower, backward",), 2 * towers, 2 * (mixed + hidden)),
        Stage(
            f"{core}, backward", ("core, backward", "gate, backward"), backward,
            2 * x + 2 * weights + 2 * outputs + mixed, cached=cached[1],
        ),
        Stage(
            f"table ({rule})", ("embed, backward", *table), WIDTH * (look_ups + touched * 6 * (1 + state)),
            2 * ID * look_ups, row * look_ups + 2 * row * touched * (1 + state),
        ),
        Stage("dense parameters (Adam)", ("optimiser, Adam",), 12.0 * dense, 7 * FLOAT * dense),
        Stage("metrics (validation)", ("metrics",), streamed=evaluated * tasks * (2 * FLOAT + 2 * FLOAT + 2)),
    ]  # fmt: skip


def limits(samples: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """The best of all rounds: ``flops`` in GFLOP/s (float32), bandwidths in GB/s."""
    runs = [run.found for run in samples[MACHINE]]
    rates = [
        rate for run in runs for shape in run["gflops"].values() for kind, rate in shape.items() if "float32" in kind
    ]
    return {"flops": max(rates), **{name: max(run["bandwidth"][name] for run in runs) for name in runs[0]["bandwidth"]}}


def rates_of(samples: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, float]]:
    """GFLOP/s of products by shape and kind, the best of all rounds."""
    runs = [run.found["gflops"] for run in samples[MACHINE]]
    return {shape: {kind: max(run[shape][kind] for run in runs) for kind in kinds} for shape, kinds in runs[0].items()}


def measured(stage: Stage, samples: Mapping[str, Sequence[Sample]]) -> float:
    """Milliseconds of a stage, the median of the rounds."""
    part = "valid" if stage.measured == ("metrics",) else "train"
    return statistics.median(
        sum(run.found["stages"][part].get(name, 0.0) for name in stage.measured) for run in samples[STAGES]
    )


def lines(work: Sequence[Stage], samples: Mapping[str, Sequence[Sample]]) -> list[dict[str, Any]]:
    """Each stage with its limit and its time."""
    found, limit = [], limits(samples)
    for stage in work:
        computing, moving = stage.seconds(limit)
        bound, time = 1e3 * max(computing, moving), measured(stage, samples)
        found.append(
            {
                **asdict(stage), "bytes": stage.bytes, "bound_ms": bound, "measured_ms": time,
                "bound_by": "products" if computing > moving else "memory",
                "of_limit": bound / time if time else None,
                "gflops": stage.flops / time / 1e6 if time else None,
                "intensity": stage.flops / stage.bytes,
            }
        )  # fmt: skip
    return found


def percent(share: float | None) -> str:
    """A share in percent; one below half a percent is called so."""
    if share is None:
        return ""
    return "< 1 %" if share < 0.005 else f"{100 * share:.0f} %"


def report(work: Sequence[Mapping[str, Any]], samples: Mapping[str, Sequence[Sample]]) -> str:
    """The tables of docs/benchmarks.md."""
    rows = [
        [
            line["name"], f"{line['flops'] / 1e9:.3f}", f"{line['streamed'] / 1e6:.1f}",
            f"{(line['gathered'] + line['cached']) / 1e6:.1f}", line["bound_by"], f"{line['bound_ms']:.2f}",
            f"{line['measured_ms']:.2f}", percent(line["of_limit"]),
        ]
        for line in work
    ]  # fmt: skip
    of_step = [line for line in work if line["measured"] != ("metrics",)]
    bound = sum(line["bound_ms"] for line in of_step)
    profiled = median(samples[STAGES], lambda run: run.found["stages"]["train"]["whole"])
    rows.append(
        [
            "other (hooks, Lightning, logging)", "", "", "", "", "",
            f"{profiled - sum(line['measured_ms'] for line in of_step):.2f}", "",
        ]
    )  # fmt: skip
    step = 1e3 * median(samples[STEP], lambda run: run.seconds) / STEPS
    flops = sum(line["flops"] for line in of_step)
    rows.append(
        [
            "step, profiled", f"{flops / 1e9:.3f}", "", "", "", f"{bound:.2f}", f"{profiled:.2f}",
            percent(bound / profiled),
        ]
    )  # fmt: skip
    rows.append(
        [
            "step, as it runs",
            f"{flops / 1e9:.3f}",
            "",
            "",
            "",
            f"{bound:.2f}",
            f"{step:.2f}",
            percent(bound / step),
        ]
    )
    columns = ["stage", "GFLOP", "MB streamed", "MB gathered", "bound by", "limit ms", "measured ms", "of the limit"]
    limit, rates = limits(samples), rates_of(samples)
    kinds = list(next(iter(rates.values())))
    return "\n".join(
        [
            markdown(columns, rows),
            f"As it runs: {BATCH * 1e3 / step:,.0f} samples/s, {flops / step / 1e6:,.0f} GFLOP/s "
            f"({100 * flops / step / 1e6 / limit['flops']:.0f} % of the best product).",
            "",
            markdown(
                ["products, GFLOP/s", *kinds], [[shape, *(f"{rates[shape][k]:,.0f}" for k in kinds)] for shape in rates]
            ),
            "",
            markdown(
                ["memory", "GB/s (read and written)"],
                [[name, f"{value:,.1f}"] for name, value in limit.items() if name != "flops"],
            ),
        ]
    )


def plot(path: Path, work: Sequence[Mapping[str, Any]], samples: Mapping[str, Sequence[Sample]], title: str) -> None:
    """The roofline, and beside it each stage's time and limit."""
    import numpy as np

    figure, (left, right) = plots.new(13.5, 5.4, columns=2, width_ratios=(1.15, 1))
    limit, rates = limits(samples), rates_of(samples)
    peak = limit["flops"]
    points = [line for line in work if line["flops"] and line["measured_ms"]]
    span = np.geomspace(0.02, max(400.0, 3 * max(line["intensity"] for line in points)), 200)
    roofs = [("copy in cache", "-", "#333"), ("copy", "--", "#777"), ("gather", ":", "#777")]
    lines_of_roofs = [
        left.plot(
            span, np.minimum(limit[name] * span, peak), style, color=colour, linewidth=1.4,
            label=f"{name}: {limit[name]:,.0f} GB/s",
        )[0]
        for name, style, colour in roofs
    ]  # fmt: skip
    left.annotate(
        f"best float32 product: {peak:,.0f} GFLOP/s", (span[-1], peak), xytext=(-2, 4), textcoords="offset points",
        ha="right", fontsize=8, color="#333",
    )  # fmt: skip
    narrow = max(rate for shape in rates.values() for kind, rate in shape.items() if kind == "bfloat16")
    left.axhline(narrow, color="#bbb", linewidth=1)
    left.annotate(
        f"best bfloat16 product: {narrow:,.0f} GFLOP/s", (span[-1], narrow), xytext=(-2, 4),
        textcoords="offset points", ha="right", fontsize=8, color="#888",
    )  # fmt: skip
    colours = {line["name"]: plots.COLOURS[place % len(plots.COLOURS)] for place, line in enumerate(points)}
    marks = []
    for place, line in enumerate(points):
        mark = "osD^vPXp"[place % 8]
        label = f"{place + 1}  {line['name']}"
        colour = colours[line["name"]]
        marks += left.plot(line["intensity"], line["gflops"], mark, color=colour, markersize=8, label=label)
        left.annotate(
            f"{place + 1}",
            (line["intensity"], line["gflops"]),
            xytext=(7, 4 if line["name"].endswith("backward") else -10),
            textcoords="offset points",
            fontsize=8,
        )
    left.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", xlim=(span[0], span[-1]))
    left.set_ylim(min(0.5, *(0.5 * line["gflops"] for line in points)), 30 * max(narrow, peak))
    left.grid(True, which="major", color="#eee")
    left.add_artist(left.legend(handles=lines_of_roofs, frameon=False, fontsize=8, loc="upper left"))
    left.legend(handles=marks, frameon=False, fontsize=8, loc="lower right")
    shown = [line for line in reversed(work) if line["measured_ms"]]
    names, times = [line["name"] for line in shown], [line["measured_ms"] for line in shown]
    right.barh(names, times, color=plots.LIGHT, label="measured")
    right.barh(names, [line["bound_ms"] for line in shown], height=0.45, color=plots.OURS, label="limit")
    for place, line in enumerate(shown):
        right.annotate(
            f"{line['measured_ms']:.2f} ms, {percent(line['of_limit'])}",
            (max(line["measured_ms"], line["bound_ms"]), place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color="#333",
        )  # fmt: skip
    right.set_xlabel("ms per step; % of the limit")
    right.margins(x=0.25)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(title)
    plots.write(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="MMoE")
    parser.add_argument("--rule", choices=list(STATE_ROWS), default="lazy_adam", help="of the embedding table")
    parser.add_argument("--ids", type=int, default=1_000_000, help="rows of the embedding table, about")
    parser.add_argument("--threads", type=int, default=2, help="of every measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of all three measurements")
    add_accelerator(parser)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"), help="gets the data")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plot")
    arguments = parser.parse_args()
    data = data_of(arguments.folder, arguments.ids, WARM_UP + STEPS)
    words = [str(data), arguments.model, str(arguments.threads), arguments.accelerator]
    environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": str(arguments.threads)}

    def side(name: str, module: str, kind: str) -> Side:
        return Side(name, [sys.executable, "-m", f"benchmarks.sides.{module}", kind, *words], environment)

    samples = compare(
        [
            side(MACHINE, "roofline_machine", "-"),
            side(STAGES, "roofline_stages", arguments.rule),
            side(STEP, "train_ours", f"run:{arguments.rule}"),
        ],
        arguments.rounds,
    )
    first = samples[STAGES][0].found
    dense = first["parameters"]["dense"]
    touched = statistics.fmean(run.found["touched"] for run in samples[MACHINE])
    work = stages(arguments.model, arguments.rule, len(field_sizes_of(data)), touched, dense, first)
    found = lines(work, samples)
    name = f"roofline-{arguments.model}-{arguments.threads}{on_gpu(arguments.accelerator)}"
    settings = {key: getattr(arguments, key) for key in ("model", "rule", "ids", "threads", "accelerator")}
    content = {**settings, "batch": BATCH, "limits": limits(samples), "products": rates_of(samples), "stages": found}
    save(arguments.output / f"{name}.json", "roofline", content, samples)
    where = "a GPU" if arguments.accelerator == "gpu" else f"{arguments.threads} threads"
    title = f"{arguments.model} ({arguments.rule}), batch {BATCH:,}, {arguments.ids:,} ids, {where}"
    plot(arguments.output / f"{name}.png", found, samples, title)
    print(report(found, samples))


def field_sizes_of(folder: Path) -> list[int]:
    """Sizes of the fields."""
    sizes: list[int] = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    return sizes


if __name__ == "__main__":
    main()
