"""The records that a leaderboard is made of again: those of its cells, or all below a folder."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from recbole_dtn.config.digest import NOT_DIGESTED
from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.config.splits import SplitKey
from recbole_dtn.errors import why
from recbole_dtn.leaderboard.archive import read_archive
from recbole_dtn.leaderboard.cells import Cell, CellKey
from recbole_dtn.leaderboard.design import NO_DESIGN, Design
from recbole_dtn.leaderboard.page.chosen import by_task, defaults_of
from recbole_dtn.leaderboard.plan import BoardPlan, find_plan
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.record import FILE_NAME, RunRecord

__all__ = ["Remade", "all_records", "names_of", "of_archive", "of_cells", "of_folder", "read_below", "records_of"]


@dataclass(frozen=True)
class Remade:
    """What a leaderboard is made of again.

    Attributes:
        records: in the order of the rows. names: of rows, by the digest of their settings. name: of the files.
        missing: cells without a record; None: which cells there are is not known.
        unreadable: a message per record that could not be read.
        folders: of the runs, by data set, model and ``run_id``. design: which rows are compared.
        beside: folder of an archive.
        plan: what was chosen for the rows, where they were matched or tuned.
        changed: plug-ins that are not what they were, with the number of records that are of an earlier state.
    """

    records: list[RunRecord]
    names: Mapping[str, str]
    name: str
    missing: Sequence[Cell] | None = None
    unreadable: Sequence[str] = ()
    folders: Mapping[tuple[str, str, str], Path] = field(default_factory=dict)
    design: Design = NO_DESIGN
    beside: Path | None = None
    plan: BoardPlan | None = None
    changed: Mapping[str, int] = field(default_factory=dict)

    def folder_of(self, run: RunRecord) -> Path | None:
        """Where a run's files are; None where it is not known."""
        return self.folders.get((run.dataset, run.model, run.run_id))


def of_cells(
    cells: Sequence[Cell],
    folder: Path | None,
    name: str,
    known: Recorded | None = None,
    plan: BoardPlan | None = None,
    archive: Path | None = None,
) -> Remade:
    """The records of cells, below ``folder`` or (None) below ``output_dir`` of their settings and in ``archive``.

    ``known``: what was read before, to which new records are added. ``plan``: what was chosen for the rows.
    """
    folders = [folder] if folder is not None else [Path(cell.settings.output_dir) for cell in cells]
    recorded = read_below(folders, known)
    if folder is None and archive is not None:
        recorded.read_archive(archive)
    records, names, missing, changed = records_of(cells, recorded)
    return Remade(records, names, name, missing, recorded.unreadable, recorded.folders, plan=plan, changed=changed)


def of_folder(folder: Path, known: Recorded | None = None) -> Remade:
    """Every finished run below a folder, by data set and name of its row; the files are named after the folder."""
    recorded = read_below([folder], known)
    records = all_records(recorded)
    names = names_of(records)
    records.sort(key=lambda run: (run.shown_dataset, names[run.settings_digest]))
    return Remade(records, names, folder.resolve().name, unreadable=recorded.unreadable, folders=recorded.folders)


def of_archive(path: Path) -> Remade:
    """The leaderboard whose records are in one file, in the order of its rows.

    Raises:
        DataError: for a file that cannot be read whole.
    """
    found = read_archive(path)
    plan = find_plan([path.parent], found.name)
    return Remade(
        found.records, found.head.rows, found.name, design=found.head.design, beside=path.parent, plan=plan
    )  # fmt: skip


def read_below(folders: Iterable[Path], known: Recorded | None = None) -> Recorded:
    """Every finished run's record at any depth below the folders, but those in hidden ones; added to ``known``."""
    found = Recorded() if known is None else known
    for folder in dict.fromkeys(folders):
        places = {path.parent.parent for path in _files(folder, found.unreadable)}
        for place in sorted(place for place in places if not _hidden(place.relative_to(folder))):
            found.read(place)
    return found


def _files(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    """The records at any depth below a folder; a folder that cannot be looked into is added to ``unreadable``."""

    def told(error: OSError) -> None:
        message = f"{error.filename}: cannot be read {why(error)}"
        if error.errno != errno.ENOENT and message not in unreadable:
            unreadable.append(message)

    for place, _, files in os.walk(folder, onerror=told):
        if FILE_NAME in files:
            yield Path(place) / FILE_NAME


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def all_records(recorded: Recorded) -> list[RunRecord]:
    """All records, in an order that depends on nothing but what is in them."""
    # Trials of tuning are no rows: they have no test.
    runs = (record for runs in recorded.runs.values() for _, record in runs)
    records = [record for record in runs if record.settings.get("trial") is None]
    return sorted(
        records,
        key=lambda run: (
            run.shown_dataset, run.model, run.settings_digest, *SplitKey.of(run).order, run.seed, run.run_id,
        ),
    )  # fmt: skip


def records_of(
    cells: Sequence[Cell], recorded: Recorded
) -> tuple[list[RunRecord], dict[str, str], list[Cell], dict[str, int]]:
    """The newest record of each cell, whatever version of this package made it.

    A record fills a cell of the same data set, model, split and seed, with the same settings. Where no digest agrees,
    as with records from before a setting was added, the settings that both have are compared instead.

    Returns:
        The records in the order of the cells; the names of their rows by the digest of the records' settings; the
        cells without a record; and :attr:`Remade.changed`.
    """
    filled: dict[CellKey, list[RunRecord]] = {}
    of_place: dict[CellKey, list[RunRecord]] = {}
    for record in all_records(recorded):
        key = _without_version(CellKey.of(record))
        filled.setdefault(key, []).append(record)
        of_place.setdefault(replace(key, settings_digest=""), []).append(record)
    found: list[RunRecord] = []
    names: dict[str, str] = {}
    missing: list[Cell] = []
    changed: Counter[str] = Counter()
    for cell in cells:
        key = _without_version(cell.key)
        fitting = filled.get(key) or [
            record
            for record in of_place.get(replace(key, settings_digest=""), [])
            if _agree(cell.settings.dump(), record.settings, top=True)
        ]
        if not fitting:
            missing.append(cell)
            continue
        newest = max(fitting, key=lambda record: record.run_id)  # run ids begin with the time
        found.append(newest)
        names[newest.settings_digest] = cell.name
        changed.update(changed_plugins(newest.plugin_states(), cell.settings))
    return found, names, missing, changed


def _without_version(key: CellKey) -> CellKey:
    return replace(key, code_version="")


def _agree(ours: Any, recorded: Any, *, top: bool = False) -> bool:
    """Whether two settings are equal in all keys that both have."""
    if isinstance(ours, Mapping) and isinstance(recorded, Mapping):
        shared = ours.keys() & recorded.keys()
        return all(_agree(ours[key], recorded[key]) for key in (shared - NOT_DIGESTED if top else shared))
    if isinstance(ours, list) and isinstance(recorded, list):
        return len(ours) == len(recorded) and all(_agree(a, b) for a, b in zip(ours, recorded, strict=True))
    return bool(ours == recorded)


def names_of(records: Sequence[RunRecord]) -> dict[str, str]:
    """Names of rows by the digest of their settings.

    A name is the model's, with the settings in which rows of this model differ and which are not at their defaults.
    """
    of_model: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        of_model.setdefault((record.shown_dataset, record.model), {})[record.settings_digest] = record.settings
    names: dict[str, str] = {}
    for (_, model), of_digest in of_model.items():
        usual = by_task(defaults_of(model))
        written = {digest: by_task(settings) for digest, settings in of_digest.items()}
        keys = dict.fromkeys(key for settings in written.values() for key in settings)
        differing = [key for key in keys if len({settings.get(key) for settings in written.values()}) > 1]
        told = {
            digest: [key for key in differing if key in settings and settings[key] != usual.get(key)]
            for digest, settings in written.items()
        }
        short = {digest: _name(model, {key: _brief(written[digest][key]) for key in told[digest]}) for digest in told}
        for digest, name in short.items():
            alone = list(short.values()).count(name) == 1
            names[digest] = name if alone else _name(model, {key: written[digest][key] for key in told[digest]})
    return names


def _name(model: str, told: Mapping[str, str]) -> str:
    return f"{model} ({', '.join(f'{key}={value}' for key, value in told.items())})" if told else model


def _brief(text: str) -> str:
    """A setting's YAML with methods by their names alone.

    >>> _brief("{name: gdcn, layers: 2}"), _brief("[{name: gdcn, layers: 2}, masknet]"), _brief("0.5")
    ('gdcn', '[gdcn, masknet]', '0.5')
    """
    value = yaml.safe_load(text)
    if isinstance(value, list):
        return flow_yaml([_method(item) for item in value])
    return text if _method(value) is value else str(_method(value))


def _method(value: Any) -> Any:
    return value["name"] if isinstance(value, dict) and "name" in value else value
