"""The run record: one ``record.json`` per run, the only thing a leaderboard reads."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recbole_dtn.errors import DataError
from recbole_dtn.plugins import PluginState
from recbole_dtn.record.code import code_digest
from recbole_dtn.report.files import read_json, write_text

__all__ = [
    "SCHEMA_VERSION",
    "SUM",
    "EpochRecord",
    "PluginRecord",
    "RunRecord",
    "TaskRecord",
    "checked_record",
    "package_versions",
    "read_record",
    "record_from",
    "sealed_content",
    "write_record",
]

SCHEMA_VERSION = 1
FILE_NAME = "record.json"
SUM = "sum"
"""Last key of a record's file: the checksum of its values. Earlier versions wrote none."""
Pair = Annotated[tuple[int, int], Field(strict=False)]
"""Two whole numbers, which JSON has as a list."""


class TaskRecord(BaseModel):
    """A task as it was trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    label: str
    after: list[str]


class PluginRecord(BaseModel):
    """A plug-in that the run used: its file and the SHA-256 of its bytes, and of an installed package its module."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str
    sha256: str | None
    package: str | None = None
    module: str | None = None


class EpochRecord(BaseModel):
    """One epoch: optimiser steps so far, mean training loss, validation metrics, and the number that selects.

    ``valid`` and ``selected`` are null in an epoch that is not validated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    epoch: int
    step: int
    loss: float
    valid: dict[str, dict[str, float | None]] | None
    selected: float | None


class RunRecord(BaseModel):
    """What one run did. A number that is undefined (an AUC over one class) or not reached is null, never 0.

    ``valid`` and ``test`` map task -> metric -> value; ``factors`` maps both to the same for a model's factors,
    such as ``buy@click`` (pCVR over the clicked rows). ``gate_weights`` maps task -> {owner/module: mean weight
    over the test rows}; ``history`` has an entry per epoch; ``wall_seconds`` has prepare, train, test; sizes are in
    bytes. With ``selected_on_test`` the best epoch was chosen on rows of the test set: the numbers are optimistic.
    ``split_seed``, ``folds`` and ``fold`` are the split; ``source_fingerprint`` is the same for all splits of one data
    set, ``data_fingerprint`` that of this one. ``rows`` has train, valid, test; ``valid_value`` is ``valid_metric`` at
    the best epoch. ``processes`` is how many trained, each with ``train_batch_size`` rows a step.
    ``beside_others``: other runs of a leaderboard shared the machine, so that times and rates tell nothing.

    ``positives`` maps split -> task -> [positive rows, observed rows]. ``chain_breaks`` maps a task and each task that
    it comes after to [test rows where it is predicted to be the more probable one, test rows] (binary tasks observed
    on the same rows). ``details`` maps valid and test -> task or factor -> metric -> what that metric tells beside its
    value: a reliability table, a fit on the validation rows, values by domain. ``warnings`` are the sentences that the
    run printed as such. ``choices`` are sentences about what the size of the data decided in the model, such as a rank
    or the fields of pairs. ``plugins`` are the plug-in files and installed packages whose methods were used.
    ``best_auc`` maps task -> the best AUC on the test rows that any model can reach, of planted data. Records of
    earlier versions have none of the seven.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    run_id: str
    status: Literal["finished", "interrupted", "preempted"]
    interrupted_at: str | None
    model: str
    dataset: str
    seed: int
    split_seed: int
    settings: dict[str, Any]
    settings_digest: str
    data_fingerprint: str
    selected_on_test: bool = False
    code_version: str
    tasks: list[TaskRecord]
    valid: dict[str, dict[str, float | None]] | None
    test: dict[str, dict[str, float | None]] | None
    factors: dict[str, dict[str, dict[str, float | None]]] = {}
    details: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    best_epoch: int | None
    epochs: int
    history: list[EpochRecord] = []
    parameters: dict[str, int]
    train_samples_per_second: float | None
    peak_rss_bytes: int
    peak_anon_bytes: int | None
    wall_seconds: dict[str, float]
    gate_weights: dict[str, dict[str, float]]
    versions: dict[str, str]
    folds: int | None = None
    fold: int | None = None
    rows: dict[str, int] = {}
    source_fingerprint: str | None = None
    valid_value: float | None = None
    positives: dict[str, dict[str, Pair]] = {}
    chain_breaks: dict[str, dict[str, Pair]] = {}
    warnings: list[str] = []
    choices: list[str] = []
    processes: int = 1
    beside_others: bool = False
    plugins: list[PluginRecord] = []
    best_auc: dict[str, float] = {}

    @property
    def block(self) -> str | None:
        """The setting ``block``: several folders that are draws of one data set."""
        found: str | None = self.settings.get("block")
        return found

    @property
    def draw(self) -> str:
        """The folder among those of :attr:`block`; empty without one."""
        return str(self.settings.get("folder") or self.dataset) if self.block is not None else ""

    @property
    def shown_dataset(self) -> str:
        """The name under which a leaderboard shows its data: the block's where there is one."""
        return self.block or self.dataset

    @field_validator("settings")
    @classmethod
    def _usable(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Check the settings that are read of a record itself; ``restore`` checks all of them."""
        for key, kind in (("plugins", str), ("tasks", dict)):
            found = settings.get(key, [])
            if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
                raise ValueError(f"{key}: expected a list of {'texts' if kind is str else 'maps'}")
        for task in settings.get("tasks", []):
            weight = task.get("pos_weight", 1.0)
            if not isinstance(task.get("name"), str) or type(weight) not in (int, float):
                raise ValueError("tasks: expected a name (text) and a pos_weight (a number) in each")
        return settings

    def plugin_states(self) -> list[PluginState]:
        """The plug-ins that the run used; an earlier version's without digests."""
        found = [PluginState(**plugin.model_dump()) for plugin in self.plugins]
        known = {state.path for state in found}
        return [*found, *(PluginState(path, None) for path in self.settings.get("plugins", []) if path not in known)]


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on; ``code``: the state of this one's files."""
    packages = ("torch", "pytorch-lightning", "torchmetrics", "recbole", "polars", "numpy")
    return {
        "python": platform.python_version(), **{name: version(name) for name in packages}, "code": code_digest()
    }  # fmt: skip


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write ``record.json``, with the checksum of its values, into the run's folder; returns its path."""
    path = folder / FILE_NAME
    # allow_nan=False: JSON has no NaN, and undefined numbers are null by now.
    write_text(path, json.dumps(sealed_content(record), indent=2, allow_nan=False) + "\n")
    return path


def sealed_content(record: RunRecord) -> dict[str, Any]:
    """The values of a record as its file has them, the last of which is their checksum."""
    content = record.model_dump(mode="json")
    return {**content, SUM: _sum(content)}


def _sum(content: dict[str, Any]) -> str:
    """The checksum of values, not of their text: another layout or order of keys is the same record."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def read_record(path: Path) -> RunRecord:
    """Read a record (the file, or the run folder that holds it).

    Raises:
        DataError: when the file is missing, is not JSON, lacks a key or has one of another type (the message names the
            file and the key), or when its values do not have its checksum. One without a checksum is read.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"no run record at {file}: expected a run folder, as printed at the end of a run")
    return checked_record(read_json(file), str(file))


def checked_record(content: Any, where: str) -> RunRecord:
    """The record that the values of its file are.

    Args:
        content: the values. where: the file, for messages.

    Raises:
        DataError: as :func:`read_record`.
    """
    written = [content.pop(SUM)] if isinstance(content, dict) and SUM in content else []
    record = record_from(content, where)
    if written not in ([], [_sum(content)]):
        raise DataError(
            f"{where} was changed after it was written, or damaged: its values do not have its checksum; put back a "
            f"copy of it, or delete the key `{SUM}` if you changed it yourself"
        )
    return record


def record_from(content: Any, where: str) -> RunRecord:
    """The record that plain values are.

    Args:
        content: the values. where: the file, for messages.

    Raises:
        DataError: when they are none of this version; the message names the key.
    """
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        # One fault is enough to tell a foreign file from an old one.
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{where}: not a run record of version {SCHEMA_VERSION}: {key + ': ' if key else ''}"
            + first["msg"].removeprefix("Value error, ").replace("dictionary or instance of RunRecord", "map")
        ) from error
