"""DTN's training step: the fused path beside the plain one (``fused: false``), and both beside the machine's products.

    python -m benchmarks.dtn --threads=2 --rounds=5

The work: 23 single-valued fields with Zipf-distributed ids (about a million), D 16, module_dim 64, two tasks and the
shared owner, GDCN, MaskNet and MemoNet with their default options but all 253 pairs, batches of 4096. A side is a new
process that takes training steps on one batch: forward, loss, backward, optimiser; its figure is the median step. Both
sides have the same optimisers, the same look-ups and the same allocator settings. With ``--each`` every module is
measured as a DTN of its own, too. With ``--accelerator=gpu`` all sides compute on the first CUDA device, and each part
of a step is timed until it is done; oneDNN is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import plots
from benchmarks.harness import (
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

MODULES = ("gdcn", "masknet", "memonet")
FIELDS, WIDTH, OUTPUT, OWNERS = 23, 16, 64, 3
FLAT, PAIRS = FIELDS * WIDTH, FIELDS * (FIELDS - 1) // 2


def flops(batch: int, *, forward_only: bool = False) -> dict[str, float]:
    """Floating-point operations of a step by stage, forward and backward, two per multiplication and addition.

    Products only; a weight's and an input's gradient cost as much as the forward product each (the sum of a field's
    pairs is a product with a constant, which has no gradient). ``memonet`` is the fused path's (W_r applied to the
    codebook), ``memonet, plain`` that of the equations as they are written.
    """
    layers, blocks, hidden, block, codes, hashes, attention = 2, 2, 2 * FLAT, 64, 10_000, 2, 64
    gdcn = layers * 2 * FLAT * FLAT + FLAT * OUTPUT
    masknet = blocks * (2 * FLAT * hidden + FLAT * block) + blocks * block * OUTPUT
    shrink = FLAT * attention + attention * PAIRS + 2 * FLAT * OUTPUT
    of_fields = FIELDS * PAIRS * WIDTH
    restore = PAIRS * hashes * WIDTH * WIDTH
    # Each task: two gates over x and over 3 modules or 6; the mix; a tower 128-64-1.
    heads = 2 * (FLAT * 9 + 9 * OUTPUT + 2 * OUTPUT * OUTPUT + OUTPUT)
    step = 2 if forward_only else 3 * 2  # forward and two gradients; multiplication and addition
    constant = 2 if forward_only else 2 * 2
    memonet = batch * (step * shrink + constant * of_fields)
    return {
        "gdcn": float(step * OWNERS * batch * gdcn),
        "masknet": float(step * OWNERS * batch * masknet),
        "memonet": float(OWNERS * (memonet + step * codes * hashes * WIDTH * WIDTH)),
        "memonet, plain": float(OWNERS * (memonet + step * batch * restore)),
        "gates and towers": float(step * batch * heads),
    }


def looked_up_bytes(batch: int) -> dict[str, float]:
    """Bytes that MemoNet's look-ups read and add up in a step, all owners (fp32)."""
    rows = batch * PAIRS * 2 * WIDTH * 4
    return {"gathered, forward and again in backward": 2.0 * OWNERS * rows, "added into the codebook": OWNERS * rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--rounds", type=int, default=5, help="runs of every side")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each process")
    parser.add_argument("--batch", type=int, default=4096, help="rows of the batch")
    parser.add_argument("--each", action="store_true", help="also a DTN of each module alone")
    add_accelerator(parser)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON and the plot")
    arguments = parser.parse_args()

    def side(kind: str, modules: str) -> Side:
        words = [
            kind,
            str(arguments.threads),
            str(arguments.steps),
            str(arguments.batch),
            modules,
            arguments.accelerator,
        ]
        environment = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": str(arguments.threads)}
        name = kind if kind.startswith("gemm") else f"{kind} {modules}"
        return Side(name, [sys.executable, "-m", "benchmarks.sides.dtn", *words], environment)

    works = [",".join(MODULES), *(MODULES if arguments.each else ())]
    sides = [side(kind, work) for work in works for kind in ("fused", "plain")]
    sides += [side(kind, "-") for kind in products(arguments.accelerator)]
    samples = compare(sides, arguments.rounds)
    name = f"dtn{on_gpu(arguments.accelerator)}"
    save(
        arguments.output / f"{name}.json",
        "dtn",
        {
            "threads": arguments.threads, "batch": arguments.batch, "steps": arguments.steps,
            "accelerator": arguments.accelerator,
            "flops": flops(arguments.batch), "looked_up_bytes": looked_up_bytes(arguments.batch),
        },
        samples,
    )  # fmt: skip
    plot(arguments.output / f"{name}.png", samples, works, arguments.batch)
    print(report(samples, works, arguments.batch, arguments.threads))


def products(accelerator: str) -> dict[str, str]:
    """The sides that measure products alone, and what each is called."""
    return {"gemm-torch": "cuBLAS"} if accelerator == "gpu" else {"gemm-onednn": "oneDNN", "gemm-torch": "MKL"}


def plot(path, samples, works: list[str], batch: int) -> None:  # type: ignore[no-untyped-def]
    """The parts of a step, fused and plain."""
    figure, axes = plots.new(8, 0.8 * len(works) + 1.8)
    names = [f"{kind} {work}" for work in reversed(works) for kind in ("plain", "fused")]
    left = [0.0] * len(names)
    parts = zip(("forward", "backward", "optimiser"), ("#1f6f8b", "#7fb3c4", "#d1603d"), strict=True)
    for part, colour in parts:
        widths = [1e3 * median(samples[name], lambda run, part=part: run.found[part]) for name in names]
        axes.barh(names, widths, left=left, color=colour, label=part)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axes.annotate(
            f"{total:,.0f}", (total, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_xlabel(f"ms per training step, batch {batch:,}")
    axes.set_title("DTN, fused and plain")
    axes.margins(x=0.12)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    plots.write(figure, path)


def report(samples, works: list[str], batch: int, threads: int) -> str:  # type: ignore[no-untyped-def]
    """The table of docs/benchmarks.md, and a line of rates."""
    accelerator = "cpu" if "gemm-onednn" in samples else "gpu"
    named = products(accelerator)
    peak = {kind: median(samples[kind], lambda run: run.found["gflops"]) for kind in named}
    counts = flops(batch)
    rows = []
    for work in works:
        middle, least, largest = ratio(samples, f"fused {work}", f"plain {work}")
        by_cpu = median(samples[f"plain {work}"], lambda run: run.found["cpu"]) / median(
            samples[f"fused {work}"], lambda run: run.found["cpu"]
        )
        for kind in ("fused", "plain"):
            runs = samples[f"{kind} {work}"]
            parts = [
                median(runs, lambda run, part=part: run.found[part]) for part in ("forward", "backward", "optimiser")
            ]
            total = median(runs, lambda run: run.seconds)
            names = [f"{name}, plain" if (kind, name) == ("plain", "memonet") else name for name in work.split(",")]
            needed = sum(counts[name] for name in (*names, "gates and towers"))
            rate = needed / (parts[0] + parts[1]) / 1e9
            last = [f"{middle:.2f} ({least:.2f}–{largest:.2f})", f"{by_cpu:.2f}"] if kind == "fused" else ["", ""]
            rows.append(
                [
                    f"{work} {kind}", *(f"{1e3 * part:.0f}" for part in (*parts, total)),
                    f"{needed / 1e9:.1f}", f"{rate:.0f}", *(f"{100 * rate / peak[each]:.0f}" for each in named),
                    *gpu_cells(samples, f"{kind} {work}"), *last,
                    f"{median(runs, lambda run: run.others):.2f}",
                ]
            )  # fmt: skip
    columns = [
        "DTN", "forward ms", "backward ms", "optimiser ms", "step ms", "GFLOP", "GFLOP/s",
        *(f"% of {name}'s products" for name in named.values()), *gpu_columns(samples), "fused is × faster",
        "the same by processor time", "other processes, cores",
    ]  # fmt: skip
    parameters = samples[f"fused {works[0]}"][0].found["parameters"]
    return "\n".join(
        [
            markdown(columns, rows),
            f"Products of these shapes, {threads} threads: "
            + ", ".join(f"{name} {peak[kind]:.0f} GFLOP/s" for kind, name in named.items())
            + f". Parameters: {parameters}.",
        ]
    )


if __name__ == "__main__":
    main()
