"""Score rows of raw values with a model that ``export --format=onnx`` wrote; needs onnxruntime and numpy alone.

    python examples/serving/scorer.py exported rows.jsonl > scores.jsonl
    python examples/serving/scorer.py exported rows.jsonl --latency

``rows.jsonl`` has a JSON object per line, such as ``{"user_id": "7", "age": 24, "genres": ["Comedy", "Drama"]}``. Null
is a missing value; an id that training has not seen is scored as unknown.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

BATCH_ROWS = 1024
WARM_UP, CALLS = 200, 2000


class Scorer:
    """An exported model.

    Args:
        folder: with ``model.onnx`` and ``encoder.json``. threads: of onnxruntime.

    Attributes:
        fields: of ``encoder.json``: the name of each, its kind (``token``, ``token_seq``, ``float``), and the name of
            its weights or None; the domain, where the model reads it, is a token. tasks: names of the scores.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        content = json.loads((Path(folder) / "encoder.json").read_text(encoding="utf-8"))
        self.fields: list[dict[str, Any]] = content["fields"]
        self.tasks: list[str] = content["tasks"]
        domain = content.get("domain")
        if domain is not None and all(field["name"] != domain["name"] for field in self.fields):
            self.fields.append({"name": domain["name"], "kind": "token", "weights": None})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        # What the model does not read is no input.
        self.inputs = {each.name for each in self.session.get_inputs()}
        self.outputs = [f"{task}.score" for task in self.tasks]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """The scores of each row, by task: the probability of a binary task, the value of a regression.

        Raises:
            KeyError: for a row without a field. ValueError: for a number that is none.
        """
        if not rows:
            return []
        given: dict[str, Any] = {}
        for field in self.fields:
            name = field["name"]
            values = [row[name] for row in rows]
            if field["kind"] == "float":
                given[name] = np.array([math.nan if value is None else float(value) for value in values], np.float32)
            elif field["kind"] == "token":
                given[name] = _texts(values)
            else:
                given |= self._lists(field, values, rows)
        found = self.session.run(self.outputs, {name: given[name] for name in self.inputs})
        return [dict(zip(self.tasks, scores, strict=True)) for scores in np.stack(found, 1).tolist()]

    def _lists(self, field: Mapping[str, Any], column: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> Any:
        lists = [values or [] for values in column]
        name, weights = field["name"], field["weights"]
        made: dict[str, Any] = {
            name: _texts([value for values in lists for value in values]),
            f"{name}.offsets": np.cumsum([0, *(len(values) for values in lists)], dtype=np.int64),
        }
        if weights is not None:
            own = [row[weights] or [] for row in rows]
            for number, (values, masses) in enumerate(zip(lists, own, strict=True)):
                if len(values) != len(masses):
                    raise ValueError(f"row {number}: {len(values)} values of {name}, {len(masses)} of {weights}")
            made[weights] = np.array([mass for masses in own for mass in masses], np.float32)
        return made


def _texts(values: Iterable[Any]) -> np.ndarray[Any, Any]:
    return np.array(["" if value is None else str(value) for value in values], object)


def latency(scorer: Scorer, rows: Sequence[Mapping[str, Any]], batch: int) -> tuple[float, float]:
    """p50 and p99 of a call with ``batch`` rows, in milliseconds."""
    times = []
    for call in range(WARM_UP + CALLS):
        part = [rows[(call * batch + place) % len(rows)] for place in range(batch)]
        start = time.perf_counter()
        scorer(part)
        times.append(1000 * (time.perf_counter() - start))
    times = sorted(times[WARM_UP:])
    return times[CALLS // 2], times[CALLS * 99 // 100]


def main(argv: Sequence[str] | None = None) -> None:
    """The command of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="that `export` wrote")
    parser.add_argument("rows", help="file with a JSON object per line, or - for the standard input")
    parser.add_argument("--threads", type=int, default=1, help="of onnxruntime")
    parser.add_argument("--latency", action="store_true", help="print how long a call takes instead of scores")
    given = parser.parse_args(argv)
    scorer = Scorer(given.folder, threads=given.threads)
    with sys.stdin if given.rows == "-" else Path(given.rows).open(encoding="utf-8") as lines:
        rows: Iterator[Any] = map(json.loads, lines)
        if given.latency:
            some = list(islice(rows, BATCH_ROWS))
            for batch in (1, 64):
                p50, p99 = latency(scorer, some, batch)
                print(f"batch of {batch:2d}: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
            return
        while part := list(islice(rows, BATCH_ROWS)):
            for scores in scorer(part):
                print(json.dumps(scores))


if __name__ == "__main__":
    main()
