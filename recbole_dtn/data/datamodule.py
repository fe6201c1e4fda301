"""From settings to encoded splits: find the files (or make them), then open or build the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.data.cache import build, cache_root, fingerprint, open_entry
from recbole_dtn.data.encode import Encoded
from recbole_dtn.data.info import DataSummary, field_summaries
from recbole_dtn.data.preprocess.base import Preprocessor
from recbole_dtn.data.sources import PARTS, Sources, data_folder, find_sources
from recbole_dtn.data.store import Column, Split, Store, load_array
from recbole_dtn.data.vocabulary import Vocabularies, make_schema
from recbole_dtn.errors import DataError
from recbole_dtn.registry import PREPROCESSORS
from recbole_dtn.schema import DataSchema

__all__ = ["PreparedData", "Split", "open_sources", "prepare"]


@dataclass(frozen=True)
class PreparedData:
    """A data set, ready to be cut into batches.

    Attributes:
        splits: ``train``, ``valid``, ``test``. cached: whether the cache was there.
        folder: of the atomic files. cache_folder: of the encoded arrays.
    """

    schema: DataSchema
    vocabularies: Vocabularies
    fingerprint: str
    splits: dict[str, Split]
    summary: DataSummary
    cached: bool
    folder: Path
    cache_folder: Path


def prepare(settings: Settings, *, log: Callable[[str], None] = lambda text: None) -> PreparedData:
    """Make a data set ready.

    Args:
        settings: resolved settings. log: told what takes time, and what in the files is doubtful.

    Raises:
        UsageError: for fields and tasks that cannot be right. DataError: for missing or faulty files.
    """
    check_fields_and_tasks(settings)
    sources = open_sources(settings, log=log)
    digest = fingerprint(settings, sources)
    folder = cache_root(settings) / digest
    encoded = open_entry(folder)
    cached = encoded is not None
    if encoded is None:
        log(f"encoding {sources.folder}{' again: its cache is torn' if folder.exists() else ''}")
        encoded = build(settings, sources, folder, log)
    schema = make_schema(settings.fields, settings.tasks, encoded.vocabularies, settings)
    summary = DataSummary(
        rows=encoded.rows,
        fields=field_summaries(schema, encoded.rows, encoded.tables, encoded.fields),
        positives={
            split: {task: (counts[0], counts[1]) for task, counts in tasks.items()}
            for split, tasks in encoded.tasks.items()
        },
    )
    splits = _splits(_store(folder, schema, encoded), encoded)
    return PreparedData(schema, encoded.vocabularies, digest, splits, summary, cached, sources.folder, folder)


def open_sources(settings: Settings, *, log: Callable[[str], None] = lambda text: None) -> Sources:
    """The atomic files of a data set; made by its preprocessor where they are missing and need no download.

    Raises:
        DataError: when they are missing, or a header is faulty.
    """
    folder = data_folder(settings)
    given = settings.split == "given"
    if settings.preprocessor is not None and not any(folder.glob(f"{folder.name}*.inter")):
        maker: type[Preprocessor] = PREPROCESSORS.load(settings.preprocessor)
        if not maker.bundled:
            raise DataError(
                f"{folder}: the atomic files are missing; get the raw files ({maker.source}) and run: python "
                f"run_recbole_dtn.py preprocess {settings.preprocessor} --raw=FOLDER --data_path={settings.data_path}"
            )
        maker(None, Path(settings.data_path), name=folder.name).run(log)
    hints = [name for name in (settings.user_field,) if name is not None]
    return find_sources(folder, given=given, key_hints=hints)


def _store(folder: Path, schema: DataSchema, encoded: Encoded) -> Store:
    columns = {}
    for position, spec in enumerate(schema.fields):
        base = f"f{position}"
        offsets = weights = None
        if spec.kind == "token_seq":
            offsets = load_array(folder / f"{base}.offsets.npy")
            weights = load_array(folder / f"{base}.weights.npy") if spec.weights is not None else None
        columns[spec.name] = Column(encoded.tables[spec.name], load_array(folder / f"{base}.npy"), offsets, weights)
    used = {column.table for column in columns.values()} - {"inter"}
    extra = {
        name: load_array(folder / f"{name}.npy")
        for name in ("row", "weight", "domain", "group")
        if (folder / f"{name}.npy").is_file()
    }
    return Store(
        schema=schema,
        columns=columns,
        pointers={kind: load_array(folder / f"pointer.{kind}.npy") for kind in sorted(used)},
        labels=load_array(folder / "labels.npy"),
        observed=load_array(folder / "observed.npy"),
        extra=extra,
    )


def _splits(store: Store, encoded: Encoded) -> dict[str, Split]:
    splits, start = {}, 0
    for name in PARTS:
        stop = start + encoded.rows[name]
        splits[name] = Split(store, start, stop)
        start = stop
    return splits
