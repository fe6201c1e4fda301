"""Dropout, forward and backward, beside torch's, alone and in a training step of an MLP.

    python -m benchmarks.dropout --threads=1 --rounds=40

Both are timed alternately in one process; a figure is the fastest round's. The MLP has the hidden layers and the
dropout that a row says, and reads 64 values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.harness import machine, markdown
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.mlp import Tower

P = 0.2
SIZES = ((1024, 64), (4096, 64), (4096, 256))
HIDDEN = ((64,), (256, 128))
BATCH, INPUTS, REPEATS = 4096, 64, 5


def fastest(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Microseconds of each work: the mean of some calls in the fastest round."""
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            start = time.perf_counter()
            for _ in range(REPEATS):
                work()
            best[place] = min(best[place], (time.perf_counter() - start) / REPEATS * 1e6)
    return best


def alone(layer: nn.Module, size: tuple[int, int]) -> Callable[[], object]:
    """One forward and backward pass of ``layer`` over (B, H)."""
    x, gradient = torch.randn(size, requires_grad=True), torch.randn(size)
    return lambda: torch.autograd.backward(layer(x), gradient)


def step(hidden: Sequence[int], drop: type[nn.Dropout]) -> Callable[[], object]:
    """One training step of a tower, without an optimiser."""
    model = Tower(INPUTS, hidden, dropout=P)
    for name, part in model.hidden.layers.named_children():
        if isinstance(part, nn.Dropout):
            setattr(model.hidden.layers, name, drop(P))
    x: Tensor = torch.randn(BATCH, INPUTS)
    labels = torch.rand(BATCH).round()
    return lambda: torch.autograd.backward(nn.functional.binary_cross_entropy_with_logits(model(x), labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kinds = (nn.Dropout, Dropout)
    works = {f"alone, {rows:,} x {width}": [alone(drop(P), (rows, width)) for drop in kinds] for rows, width in SIZES}
    for hidden in HIDDEN:
        name = f"step of an MLP {'-'.join(map(str, hidden))}, {BATCH:,} rows"
        works[name] = [step(hidden, drop) for drop in kinds]
    rows = []
    for name, both in works.items():
        theirs, ours = fastest(both, given.rounds)
        rows.append([name, f"{theirs / 1e3:.2f}", f"{ours / 1e3:.2f}", f"{theirs / ours:.2f}"])
    print(f"{machine()['processor']}, {given.threads} thread(s), torch {torch.__version__}\n")
    print(markdown(["", "torch, ms", "ours, ms", "ours is × faster"], rows))


if __name__ == "__main__":
    main()
