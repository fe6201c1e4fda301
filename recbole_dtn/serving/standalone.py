"""Raw field values to the inputs of an exported model, with numpy alone; `export` copies this file beside the model.

    encoder = Encoder("encoder.json")
    inputs = encoder({"user": ["u1", None], "price": [3.5, float("nan")], "tags": [["a", "b"], []]})
    program = torch.export.load("model.pt2").module()
    outputs = program(*(torch.from_numpy(array) for array in inputs))

A missing token is None or "", a missing number None or NaN, a missing list None or [].
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Encoder"]


class Encoder:
    """Encodes batches as the description in a file says.

    Args:
        path: ``encoder.json``.

    Attributes:
        tasks: names of the model's outputs, in their order.
    """

    def __init__(self, path: str | Path) -> None:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        self.fields: list[dict[str, Any]] = content["fields"]
        self.tasks: list[str] = content["tasks"]
        self.domain: dict[str, Any] | None = content.get("domain")
        self.rows = {
            field["name"]: {token: field["offset"] + 2 + place for place, token in enumerate(field["tokens"])}
            for field in self.fields
            if "tokens" in field
        }

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> list[np.ndarray[Any, Any]]:
        """The inputs in the model's order: ids (B, F), dense (B, N), of each list its values, offsets and weights, and
        the domain (B,) where the model reads it.

        Args:
            batch: a sequence of B values for every field, and for every column of weights. A single row is given
                twice, since a program of torch.export takes two or more: read the first of its outputs.

        Raises:
            KeyError: for a missing column. ValueError: for a number that is none, weights of another length, and a
                domain that the model does not know.
        """
        rows = len(batch[self.fields[0]["name"]])
        if rows == 1:
            batch, rows = {name: [*values, *values] for name, values in batch.items()}, 2
        ids = np.full((rows, len(self.fields)), -1, np.int64)
        dense: list[np.ndarray[Any, Any]] = []
        lists: list[np.ndarray[Any, Any]] = []
        for position, field in enumerate(self.fields):
            column = batch[field["name"]]
            if field["kind"] == "token":
                ids[:, position] = [self._row(field, value) for value in column]
            elif field["kind"] == "token_seq":
                lists += self._lists(field, column, batch)
            elif field["edges"]:
                ids[:, position] = _bins(field, _numbers(column))
            else:
                dense.append(_standardised(field, _numbers(column)))
        if self.domain is not None:
            lists.append(self._domains(self.domain, batch[self.domain["name"]]))
        return [ids, np.stack(dense, 1) if dense else np.empty((rows, 0), np.float32), *lists]

    def _domains(self, domain: Mapping[str, Any], column: Sequence[Any]) -> np.ndarray[Any, Any]:
        numbers = {token: number for number, token in enumerate(domain["tokens"])}
        for value in column:
            if value is None or str(value) not in numbers:
                raise ValueError(f"{domain['name']}: {value!r} is none of the domains {', '.join(domain['tokens'])}")
        return np.array([numbers[str(value)] for value in column], np.int64)

    def _row(self, field: Mapping[str, Any], value: Any) -> int:
        if value is None or value == "":
            return int(field["offset"])
        return int(self.rows[field["name"]].get(str(value), field["offset"] + 1))

    def _lists(self, field: Mapping[str, Any], column: Sequence[Any], batch: Mapping[str, Sequence[Any]]) -> list[Any]:
        lists = [list(values or ()) for values in column]
        weights = [[1.0] * len(values) for values in lists]
        if field["weights"] is not None:
            weights = [[float(weight) for weight in values or ()] for values in batch[field["weights"]]]
            for values, own in zip(lists, weights, strict=True):
                if len(values) != len(own):
                    raise ValueError(f"{field['name']}: {len(values)} values and {len(own)} weights in a row")
        # An empty value is none, and its weight goes with it.
        kept = [
            [
                (self._row(field, value), weight)
                for value, weight in zip(values, own, strict=True)
                if value not in (None, "")
            ]
            for values, own in zip(lists, weights, strict=True)
        ]
        offsets = np.cumsum([0, *(len(values) for values in kept)], dtype=np.int64)
        flat = [pair for values in kept for pair in values]
        found = [np.array([row for row, _ in flat], np.int64), offsets]
        return [*found, np.array([weight for _, weight in flat], np.float32)] if field["weights"] is not None else found


def _numbers(column: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Numbers as float32, as training reads them; NaN where missing."""
    with np.errstate(over="ignore"):
        return np.array([math.nan if value in (None, "") else float(value) for value in column]).astype(np.float32)


def _bins(field: Mapping[str, Any], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    ids = 2 + np.searchsorted(np.array(field["edges"], np.float32), values, side="right")
    return np.asarray(field["offset"] + np.where(np.isnan(values), 0, ids))


def _standardised(field: Mapping[str, Any], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if field["log1p"]:
            wide = np.copysign(np.log1p(np.abs(wide)), wide)
        found = (wide - field["mean"]) / field["std"]
        if field["clip"] is not None:
            found = np.clip(found, -field["clip"], field["clip"])
        return np.asarray(found.astype(np.float32))
