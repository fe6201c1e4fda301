"""A side of the AUC benchmark: ``python -m benchmarks.sides.evaluate_auc SIDE ROWS SHARE THREADS cpu|gpu``.

Every side gets the same float32 probabilities and labels, made from one seed, as the arrays that it takes. One small
call first, then as many as make 10^7 rows in all; ``seconds`` is the mean of one. ``anon_mib`` is what the calls took
of anonymous memory, at most, beyond the scores and labels. On a GPU all begin with tensors there.
"""

from __future__ import annotations

import ctypes
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sides.train_common import AnonymousMemory, Place

Floats, Bools = NDArray[np.float32], NDArray[np.bool_]
BATCH = 8192


def make(rows: int, share: float) -> tuple[Floats, Bools]:
    random = np.random.default_rng(0)
    labels = random.random(rows) < share
    logits = random.standard_normal(rows, dtype=np.float32) + labels
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


def tensors(scores: Any, labels: Any) -> tuple[Any, Any]:
    """Arrays as tensors over the same memory; tensors (of a GPU) as they are."""
    import torch

    return (torch.from_numpy(scores), torch.from_numpy(labels)) if isinstance(scores, np.ndarray) else (scores, labels)


def arrays(side: Callable[[Floats, Bools], float]) -> Callable[[Any, Any], float]:
    """A side that takes arrays, on tensors of a GPU: the copy is part of its work."""

    def auc(scores: Any, labels: Any) -> float:
        if isinstance(scores, np.ndarray):
            return side(scores, labels)
        return side(scores.cpu().numpy(), labels.cpu().numpy())

    return auc


def ours() -> Callable[[Floats, Bools], float]:
    from recbole_dtn.metric.auc import exact_auc

    return lambda scores, labels: exact_auc(*tensors(scores, labels))


def ours_metric() -> Callable[[Floats, Bools], float]:
    from recbole_dtn.metric.auc import ExactAUC

    def auc(scores: Floats, labels: Bools) -> float:
        metric = ExactAUC()
        batches = zip(*(column.split(BATCH) for column in tensors(scores, labels)), strict=True)
        for part, truth in batches:
            metric.update(part, truth)
        return float(metric.compute())

    return auc


def scikit_learn() -> Callable[[Floats, Bools], float]:
    from sklearn.metrics import roc_auc_score

    return arrays(lambda scores, labels: float(roc_auc_score(labels, scores)))


def torchmetrics() -> Callable[[Floats, Bools], float]:
    from torchmetrics.functional.classification import binary_auroc

    def auc(scores: Any, labels: Any) -> float:
        found, truth = tensors(scores, labels)
        return float(binary_auroc(found, truth.long()))

    return auc


def packed(sort: Callable[[NDArray[np.uint64]], NDArray[np.uint64]]) -> Callable[[Floats, Bools], float]:
    """Score bits and label in one integer, sorted once; right for scores of zero and above."""

    def auc(scores: Floats, labels: Bools) -> float:
        found = sort((scores.view(np.uint32).astype(np.uint64) << 1) | labels)
        value, positive = found >> 1, (found & 1).astype(np.int64)
        ends = np.append(np.flatnonzero(value[1:] != value[:-1]), len(value) - 1)
        positives = np.cumsum(positive)[ends]
        negatives = ends + 1 - positives
        steps = np.diff(positives, prepend=0)
        wins = int((steps * (2 * negatives - np.diff(negatives, prepend=0))).sum())
        return wins / (2 * int(positives[-1]) * int(negatives[-1]))

    return arrays(auc)


def numpy_packed() -> Callable[[Floats, Bools], float]:
    return packed(np.sort)


def polars_packed() -> Callable[[Floats, Bools], float]:
    import polars as pl

    return packed(lambda keys: pl.Series(keys).sort().to_numpy())


SIDES = {
    "exact_auc": ours,
    "ExactAUC": ours_metric,
    "scikit-learn": scikit_learn,
    "torchmetrics": torchmetrics,
    "numpy-packed": numpy_packed,
    "polars-packed": polars_packed,
}


def anonymous() -> int:
    """MiB of anonymous memory now (0 where the system does not tell)."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon:")), 0)


def give_back_free_memory() -> None:
    """What was freed and is still held would hide what the calls take."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    side, rows, share, threads = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    place, auc = Place(sys.argv[5]), SIDES[side]()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    auc(*make(1000, 0.3))
    scores, labels = make(rows, share)
    if place.gpu:
        scores, labels = (column.to(place.device) for column in tensors(scores, labels))  # type: ignore[assignment]
        auc(scores, labels)
    calls = math.ceil(10**7 / rows)
    give_back_free_memory()
    before, memory = anonymous(), AnonymousMemory()
    start, cpu = place.clock(), time.process_time()
    for _ in range(calls):
        value = auc(scores, labels)
    seconds, used = (place.clock() - start) / calls, (time.process_time() - cpu) / calls
    peak = max(memory.peak - before, 0)
    print(json.dumps({"seconds": seconds, "call_cpu": used, "anon_mib": peak, "value": value, **place.found()}))


if __name__ == "__main__":
    main()
