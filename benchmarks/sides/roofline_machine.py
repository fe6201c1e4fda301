"""What this machine can do: ``python -m benchmarks.sides.roofline_machine - FOLDER MODEL THREADS cpu|gpu``.

Rates of products in float32 (by torch's own library and by oneDNN) and bfloat16, at the shapes of the work and of a
large square; of copying memory; of gathering rows of 64 bytes. Each is the best of many tries: a limit, no average.
A copy's and a gather's bytes are those read and those written.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional

from benchmarks.sides.train_common import BATCH, EXPERTS, HIDDEN, TASKS, TOWER, WIDTH, Work

SQUARE = 2048
CODEBOOK = 10_000
LARGE = 1 << 26
"""Floats of a tensor that is far larger than a cache: 256 MiB."""


def shapes(model: str, fields: int) -> dict[str, tuple[int, int, int]]:
    """Rows, inputs and outputs of the largest products of a step, by name."""
    flat = fields * WIDTH
    wide = {"MMoE": EXPERTS * HIDDEN, "PLE": 6 * HIDDEN, "DTN": 2 * flat}[model]
    found = {
        "forward": (BATCH, flat, wide),
        "gradient of the input": (BATCH, wide, flat),
        "gradient of the weight": (flat, BATCH, wide),
        "tower": (BATCH, HIDDEN, TOWER),
    }
    if model == "DTN":
        found["cross layer"] = (BATCH, flat, flat)
    return {**found, "square": (SQUARE, SQUARE, SQUARE)}


def main() -> None:
    work = Work()
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    place, device = work.place, work.place.device
    start = time.perf_counter()

    def best(call: Callable[[], object], seconds: float = 0.5) -> float:
        """Least seconds of one call, tried for so long."""
        call()
        least, until = math.inf, place.clock() + seconds
        while (before := place.clock()) < until:
            call()
            least = min(least, place.clock() - before)
        return least

    rates: dict[str, dict[str, float]] = {}
    for name, (rows, inputs, outputs) in shapes(work.model, len(work.sizes)).items():
        x, weight = torch.randn(rows, inputs, device=device), torch.randn(outputs, inputs, device=device)
        narrow_x, narrow_weight = x.bfloat16(), weight.bfloat16()
        calls = {
            "float32": lambda x=x, weight=weight: functional.linear(x, weight),
            "bfloat16": lambda x=narrow_x, weight=narrow_weight: functional.linear(x, weight),
        }
        if not place.gpu and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            calls["float32, oneDNN"] = lambda x=x, weight=weight: torch.ops.mkldnn._linear_pointwise(
                x, weight, None, "none", [], ""
            )
        flops = 2 * rows * inputs * outputs
        rates[name] = {kind: flops / best(call) / 1e9 for kind, call in calls.items()}
    offsets = np.concatenate([[0], np.cumsum(work.sizes)[:-1]])
    look_ups = [
        torch.from_numpy((work.ids[first : first + BATCH] + offsets).ravel()).to(device)
        for first in range(0, len(work.ids), BATCH)
    ]
    table = torch.randn(sum(work.sizes), WIDTH, device=device)
    found = torch.empty(len(look_ups[0]), WIDTH, device=device)
    uniform = [torch.randint(len(table), (len(found),), device=device) for _ in look_ups]
    small = [torch.randint(CODEBOOK, (len(found),), device=device) for _ in look_ups]
    moved = 2 * 4 * found.numel()

    def gather(rows: list[torch.Tensor], source: torch.Tensor) -> float:
        """GB/s over all batches, so that none of them stays in a cache."""

        def all_batches() -> None:
            for each in rows:
                torch.index_select(source, 0, each, out=found)

        return len(rows) * moved / best(all_batches, 1.0) / 1e9

    large = torch.ones(LARGE, device=device)
    other = torch.zeros_like(large)
    batch = torch.ones(BATCH * len(work.sizes) * WIDTH // 2, device=device)
    of_batch = torch.zeros_like(batch)
    bandwidth = {
        "copy": 2 * 4 * LARGE / best(lambda: other.copy_(large), 1.0) / 1e9,
        "copy in cache": 2 * 4 * len(batch) / best(lambda: of_batch.copy_(batch)) / 1e9,
        "gather": gather(look_ups, table),
        "gather, uniform rows": gather(uniform, table),
        "gather in cache": gather(small, table[:CODEBOOK]),
    }
    touched = sum(len(torch.unique(each)) for each in look_ups) / len(look_ups)
    line = {"gflops": rates, "bandwidth": bandwidth, "touched": touched, "tasks": len(TASKS), **place.found()}
    print(json.dumps({"seconds": time.perf_counter() - start, **line}))


if __name__ == "__main__":
    main()
