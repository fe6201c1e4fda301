"""A target that encodes: from an atomic file to the cache and the batches of a training."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from recbole_dtn.config.load import resolve
from recbole_dtn.preprocess.prepare import prepare
from tests.fuzz.atomic_oracle import MISSING, FormatError, Parsed, parse
from tests.fuzz.runner import ChangedError, Target

__all__ = ["Encode"]

YAML = """\
fields: [{name: user, type: token}, {name: tags, type: token_seq}, {name: price, type: float}]
tasks: [{name: click, label: click}]
split_ratio: [0.6, 0.2, 0.2]
"""


class Encode(Target):
    """An atomic file as a training has it: every id, number and label of every row must be the oracle's."""

    name = "encode"
    words = (b"\t", b"\n", b"\t1\n", b"\t0\n", b"%41", b"%4EA")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        draw = random.Random(0)
        tags = ("a", "b", "a b", "c  a", "", "NULL", "%41 b", "é 日")
        rows = [f"u{draw.randrange(5)}\t{draw.choice(tags)}\t{draw.choice(('0.5', ' 2 ', '1e-3', '', '-7'))}\t{i % 2}"
                for i in range(24)]  # fmt: skip
        head = "user:token\ttags:token_seq\tprice:float\tclick:float"
        self.seeds = ["\n".join([head, *rows, ""]).encode()]
        self.home = folder / "encode"

    def check(self, data: bytes) -> None:
        data_set = self.home / "fz"
        data_set.mkdir(parents=True)
        try:
            (data_set / "fz.inter").write_bytes(data)
            (data_set / "fz.yaml").write_text(YAML)
            settings = resolve({"model": "MMoE", "dataset": "fz", "data_path": str(self.home)}).settings
            prepared = prepare(settings)
            try:
                parsed = parse(data)
            except FormatError as error:
                raise ChangedError(f"a faulty file is encoded: {error}") from error
            self._compare(prepared, parsed)
        finally:
            shutil.rmtree(self.home)

    def _compare(self, prepared: Any, parsed: Parsed) -> None:
        names = [spec.name for spec in prepared.schema.fields]
        order = {name: split.row_numbers() for name, split in prepared.splits.items()}
        if sorted(np.concatenate(list(order.values())).tolist()) != list(range(len(parsed.lines))):
            raise ChangedError("rows are not each in one split")
        train = np.array([parsed.columns["price"][row] for row in order["train"]], np.float64)  # None: NaN
        numbers = train[~np.isnan(train)].astype(np.float32).astype(np.float64)
        mean, spread = (numbers.mean(), numbers.std() or 1.0) if len(numbers) else (0.0, 1.0)
        for split, rows in order.items():
            batch = prepared.splits[split].batch(np.arange(len(rows)))
            lists = batch.multi[names.index("tags")]
            for place, row in enumerate(rows.tolist()):
                cells = {name: values[row] for name, values in parsed.columns.items()}
                if batch.labels[place].tolist() != [cells["click"]]:
                    raise ChangedError(f"a label differs: {batch.labels[place]} is not {cells['click']}")
                self._token(prepared, "user", int(batch.ids[place, names.index("user")]), cells["user"])
                found = lists.values[lists.offsets[place] : lists.offsets[place + 1]].tolist()
                if len(found) != len(cells["tags"] or []):
                    raise ChangedError(f"a list is of another length: {found} is not {cells['tags']}")
                for one, token in zip(found, cells["tags"] or [], strict=True):
                    self._token(prepared, "tags", one, None if token in MISSING else token)
                self._number(prepared, batch, names.index("price"), place, cells["price"], mean, spread)

    def _token(self, prepared: Any, name: str, found: int, token: Any) -> None:
        spec = next(spec for spec in prepared.schema.fields if spec.name == name)
        known = prepared.vocabularies.fields[name].series.to_list()
        expected = 0 if token is None else known.index(token) + 2 if token in known else 1
        if found - spec.offset != expected:
            raise ChangedError(f"a token differs: {found - spec.offset} is not {expected} of {token!r} in {known}")

    def _number(self, prepared: Any, batch: Any, at: int, place: int, value: Any, mean: float, spread: float) -> None:
        if prepared.schema.fields[at].bins:
            edges = np.array(prepared.schema.fields[at].bins, np.float32)
            expected = 0 if value is None else 2 + int((edges <= np.float32(value)).sum())
            if int(batch.ids[place, at]) - prepared.schema.fields[at].offset != expected:
                raise ChangedError(f"a bin differs: {batch.ids[place, at]} is not {expected}")
            return
        found = float(batch.dense[place, 0])
        if value is None:
            right = np.isnan(found)
        else:
            wide = (float(np.float32(value)) - mean) / spread
            right = abs(found - max(-10.0, min(10.0, wide))) <= 1e-4 * max(1.0, abs(wide))
        if not right:
            raise ChangedError(f"a number differs: {found} of {value} (mean {mean}, deviation {spread})")
