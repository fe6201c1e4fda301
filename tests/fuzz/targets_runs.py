"""Targets that read what a run wrote: its record and its checkpoint."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import torch

from recbole_dtn.record.checkpoint import FILE_NAME, Checkpoint, checkpoint_epoch, read_checkpoint, read_weights
from recbole_dtn.record.record import SUM, read_record
from recbole_dtn.serving.load import load
from recbole_dtn.training.fit import fit
from tests.fuzz.runner import ChangedError, Target

__all__ = ["CheckpointFile", "Record"]

YAML = """\
fields: [{name: user, type: token}, {name: tags, type: token_seq}, {name: price, type: float}]
tasks: [{name: click, label: click}, {name: buy, label: buy, after: [click]}]
"""


def tiny_run(folder: Path) -> Path:
    """The folder of a finished run on 60 invented rows; made once."""
    if (folder / "made").exists():
        return Path((folder / "made").read_text())
    draw = random.Random(0)
    rows = [f"{draw.randrange(9)}\t{draw.choice(['a', 'b', 'a b'])}\t{draw.random():.3f}\t{i % 2}\t{i % 4 // 3}"
            for i in range(60)]  # fmt: skip
    data = folder / "dataset" / "toy"
    data.mkdir(parents=True)
    header = "user:token\ttags:token_seq\tprice:float\tclick:float\tbuy:float"
    (data / "toy.inter").write_text("\n".join([header, *rows]) + "\n")
    (data / "toy.yaml").write_text(YAML)
    given = {"data_path": str(folder / "dataset"), "output_dir": str(folder / "runs"), "epochs": 1, "embedding_size": 2,
             "experts": 2, "expert_hidden": [3], "tower_hidden": [2], "split_ratio": [0.5, 0.25, 0.25],
             "accelerator": "cpu"}  # fmt: skip
    run = fit("MMoE", "toy", given, quiet=True)
    (folder / "made").write_text(str(run.folder))
    return run.folder


class _OfRun(Target):
    """A file of a run."""

    file: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.run = tiny_run(folder)
        self.path = self.run / self.file
        self.seeds = [self.path.read_bytes()]

    def check(self, data: bytes) -> None:
        try:
            self.path.write_bytes(data)
            self.read()
        finally:
            self.path.write_bytes(self.seeds[0])

    def read(self) -> None:
        raise NotImplementedError


class Record(_OfRun):
    """``record.json``; what is accepted must say what the file says, and with a checksum what was written."""

    name = "record"
    file = "record.json"
    words = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"Infinity", b"1e999",
             b'"settings"', b"[" * 2000,
             b'"status": "finished"')  # fmt: skip

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.known = json.loads(self.seeds[0])
        del self.known[SUM]

    def read(self) -> None:
        record = read_record(self.run)
        made, written = record.model_dump(), json.loads(self.path.read_bytes())
        if written.pop(SUM, None) is not None and written != self.known:
            raise ChangedError("other values have the checksum")
        for key, value in written.items():
            if not _alike(made[key], value):
                raise ChangedError(f"{key} differs: {str(made[key])[:200]} is not {str(value)[:200]}")


def _alike(one: Any, other: Any) -> bool:
    """Equal, with no number for a text, or for true and false."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(key in one and _alike(one[key], value) for key, value in other.items())
    if isinstance(one, list | tuple) and isinstance(other, list):
        return len(one) == len(other) and all(_alike(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    if isinstance(one, float) and type(other) is int:  # 3 may stand for 3.0, at the precision of a float64
        return abs(other) < 2**1000 and one == float(other)
    return one == other and isinstance(one, str | bool | None) == isinstance(other, str | bool | None)


class CheckpointFile(_OfRun):
    """``checkpoint.ckpt``; one that is accepted must hold what was written."""

    name = "checkpoint"
    file = FILE_NAME
    words = (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"data.pkl", b"\x80\x02}", b"ctorch\n",
             b"cos\nsystem\n", b"state_dict",
             b"schema", b"epoch", b"format", b"\x00\x00\x80\x3f")  # fmt: skip

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.known = read_checkpoint(self.run)

    def read(self) -> None:
        found = read_checkpoint(self.run)
        self._same(found)
        weights = read_weights(self.run)
        if not _equal(weights, self.known.state_dict):
            raise ChangedError("weights differ where they are mapped")
        if checkpoint_epoch(self.run) != self.known.epoch:
            raise ChangedError("epoch differs")
        load(self.run)

    def _same(self, found: Checkpoint) -> None:
        if not _equal(found.state_dict, self.known.state_dict):
            raise ChangedError("weights differ")
        for name in ("schema", "settings", "epoch", "tables", "record"):
            if getattr(found, name) != getattr(self.known, name):
                raise ChangedError(f"{name} differs")
        if found.vocabularies.to_dict() != self.known.vocabularies.to_dict():
            raise ChangedError("vocabularies differ")


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    if not isinstance(one, dict) or one.keys() != other.keys():
        return False
    return all(isinstance(one[name], torch.Tensor) and torch.equal(one[name], other[name]) for name in other)
