"""Test scores of a run, and the labels and groups of the rows: what tests over the test sample read.

The scores are in the run's folder. Labels, groups and weights are the same for all runs on one data set and split, and
stand once beside the folders of its models, under the fingerprint of the data::

    <output_dir>/<dataset>/<model>/<run>/test_scores.npz    scores (N, T) float32, fingerprint
    <output_dir>/<dataset>/.test/<fingerprint>.npz          labels (N, T) float32, group (N,), weight (N,)
"""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_dtn.data.features import Features
from recbole_dtn.errors import DataError

__all__ = ["FILE_NAME", "MOST_BYTES", "ScoreKeeper", "TestRows", "read_rows", "read_scores"]

FILE_NAME = "test_scores.npz"
ROWS_FOLDER = ".test"
MOST_BYTES = 64 * 2**20
"""Most bytes of a run's test scores; of a larger test split none are kept."""
Array = NDArray[Any]


@dataclass(frozen=True)
class TestRows:
    """The test rows of a data set and split.

    Attributes:
        labels: (N, T) float32, NaN where a task is not observed. group: (N,) integers, or None. weight: (N,) float32,
            or None.
    """

    __test__ = False  # no class of tests

    labels: Array
    group: Array | None = None
    weight: Array | None = None


class ScoreKeeper:
    """Keeps the logits of the test rows, in the order of the data.

    Args:
        rows: of the test split. tasks: T.
    """

    def __init__(self, rows: int, tasks: int) -> None:
        self.fits = rows * tasks * 4 <= MOST_BYTES
        self.parts: dict[str, list[Tensor]] = {}

    def add(self, batch: Features, logits: Tensor) -> None:
        """Add a batch with its logits (B, T)."""
        if not self.fits:
            return
        labels = torch.where(batch.observed, batch.labels.float(), torch.nan)
        found = {"row": batch.row, "labels": labels, "scores": logits.float(), "group": batch.group,
                 "weight": batch.sample_weight}  # fmt: skip
        for name, part in found.items():
            if part is not None:
                self.parts.setdefault(name, []).append(part.detach().cpu())

    def write(self, folder: Path, fingerprint: str) -> None:
        """Write the scores into the folder of a run, and the rows' labels beside those of its models.

        Raises:
            DataError: when a file cannot be written.
        """
        if not self.parts:
            return
        found = {name: torch.cat(parts).numpy() for name, parts in self.parts.items()}
        order = np.argsort(found.pop("row"), kind="stable")
        found = {name: values[order] for name, values in found.items()}
        scores = found.pop("scores")
        rows = _rows_file(folder, fingerprint)
        if read_rows(folder, fingerprint) is None:  # missing, or damaged
            _save(rows, found, compressed=True)
        _save(folder / FILE_NAME, {"scores": scores, "fingerprint": np.array(fingerprint)}, compressed=False)


def read_scores(folder: Path, fingerprint: str) -> Array | None:
    """The (N, T) test scores of the run in a folder; None where there are none, or those of other data."""
    found = _load(folder / FILE_NAME)
    if found is None or "scores" not in found or str(found.get("fingerprint")) != fingerprint:
        return None
    return found["scores"]


def read_rows(folder: Path, fingerprint: str) -> TestRows | None:
    """The test rows that the scores of the run in a folder belong to; None where they are missing."""
    found = _load(_rows_file(folder, fingerprint))
    return None if found is None or "labels" not in found else TestRows(**found)


def _rows_file(folder: Path, fingerprint: str) -> Path:
    return folder.parent.parent / ROWS_FOLDER / f"{fingerprint}.npz"


def _load(path: Path) -> dict[str, Array] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile):  # missing, or damaged
        return None


def _save(path: Path, arrays: dict[str, Array], *, compressed: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                (np.savez_compressed if compressed else np.savez)(file, **arrays)
            os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
