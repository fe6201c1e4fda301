"""From settings to encoded splits: find or make the atomic files, then open or build the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import Timeout

from recbole_dtn.config.datasets import has_atomic_files
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.data.cache import open_or_build, split_free_fingerprint
from recbole_dtn.data.encode import Encoded, check_count_parts
from recbole_dtn.data.mapped import load_array
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.schemas import make_schema
from recbole_dtn.data.sources import PARTS, Sources, data_folder, find_sources
from recbole_dtn.data.staging import dataset_lock
from recbole_dtn.data.store import Column, Split, Store
from recbole_dtn.data.summary import DataSummary, field_summaries
from recbole_dtn.data.targets import target_statistics
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import read_record
from recbole_dtn.preprocess.from_settings import check_record, make_again, preprocessor_of, raw_set
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.preprocess.stamps import changed
from recbole_dtn.schema import DataSchema

__all__ = ["PreparedData", "Split", "open_sources", "prepare"]


@dataclass(frozen=True)
class PreparedData:
    """An encoded data set.

    Attributes:
        source_fingerprint: the same for all splits of one data set, with domains and without.
        splits: ``train``, ``valid``, ``test``. cached: whether the cache entry existed before.
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
    source_fingerprint: str = ""


def prepare(
    settings: Settings, *, log: Callable[[str], None] = lambda text: None, meter: Meter = silent
) -> PreparedData:
    """Find or make the atomic files of a data set, and encode them unless the cache has them.

    One process at a time works on a data set; another waits for it, and then finds what it has made.

    Args:
        settings: resolved settings. log: gets messages about slow steps and doubtful values.
        meter: gets the progress of reading and encoding, from several threads.

    Raises:
        UsageError: for fields and tasks that cannot be right. DataError: for missing or faulty files.
    """
    check_fields_and_tasks(settings)
    check_count_parts(settings)
    with _alone(data_folder(settings), log):
        sources = open_sources(settings, log=log, meter=meter)
        _check_labels(settings, sources)
        encoded, folder, cached = open_or_build(settings, sources, log=log, meter=meter)
    positives = {
        split: {task: (counts[0], counts[1]) for task, counts in tasks.items()}
        for split, tasks in encoded.tasks.items()
    }
    targets = _targets(settings, folder, encoded)
    schema = make_schema(settings.fields, settings.tasks, encoded.vocabularies, settings, positives["train"], targets)
    summary = DataSummary(
        rows=encoded.rows,
        fields=field_summaries(schema, encoded.rows, encoded.tables, encoded.fields),
        positives=positives,
        how=encoded.how,
    )
    splits = _splits(_store(folder, schema, encoded), encoded)
    source = split_free_fingerprint(settings, sources)
    return PreparedData(
        schema, encoded.vocabularies, folder.name, splits, summary, cached, sources.folder, folder, source
    )


@contextmanager
def _alone(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a data set's folder, a file beside it; none where it cannot be written."""
    lock = dataset_lock(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log(f"waiting for another process that prepares {folder.name}")
            lock.acquire()
    except OSError:  # a read-only disk: nothing is made there either
        pass
    try:
        yield
    finally:
        lock.release()


def _check_labels(settings: Settings, sources: Sources) -> None:
    """Refuse a label that stock RecBole would take for an input."""
    for task in settings.tasks:
        table = sources.table(sources.owner(task.label, wanted_by=f"task {task.name!r}"))
        if task.condition is None and table.type_of(task.label) == "token":
            raise DataError(
                f"{table.paths[0]}, line 1: the label {task.label!r} of task {task.name!r} is of type token, which "
                f"stock RecBole would make an input: write {task.label}:float"
            )


def open_sources(
    settings: Settings, *, log: Callable[[str], None] = lambda text: None, meter: Meter = silent
) -> Sources:
    """The atomic files of a data set; made by its preprocessor where they are missing and the raw files are there.

    Raises:
        DataError: when they are missing, were made with other options, or a header is faulty.
    """
    folder = data_folder(settings)
    given = settings.split == "given"
    if settings.preprocessor is not None:
        if not has_atomic_files(folder):
            _make(settings, folder.name, log, meter)
        else:
            check_record(settings, folder)
            _warn_of_changes(settings, folder, log)
    hints = [name for name in (settings.user_field,) if name is not None]
    return find_sources(folder, given=given, key_hints=hints)


def _make(settings: Settings, name: str, log: Callable[[str], None], meter: Meter) -> None:
    """Make the atomic files of a data set from its raw files."""
    made = preprocessor_of(settings, name)
    if isinstance(made, RawSet):
        log(made.announce())
    made.run(
        log,
        meter=meter,
        max_rejected=settings.max_rejected,
        strict=settings.strict,
        max_line=settings.max_line << 20,
        with_meaning=False,
    )


def _warn_of_changes(settings: Settings, folder: Path, log: Callable[[str], None]) -> None:
    """Warn of raw files that have changed since the atomic files were made from them.

    Without the setting ``raw`` only the default folder is checked, and only if the files came from there.
    """
    record = read_record(folder)
    recorded = record.get("raw") if record is not None and record.get("set") == settings.preprocessor else None
    if not isinstance(recorded, dict) or not isinstance(recorded.get("files"), list):
        return
    if settings.raw is None and recorded.get("given"):
        return
    made = raw_set(settings, folder.name)
    found = changed(recorded["files"], made.raw)
    if found:
        log(
            f"warning: raw files have changed since {folder} was made from them: {', '.join(found)} in {made.raw}. "
            f"To use them as they are now: `{make_again(settings, made)}`"
        )


def _targets(settings: Settings, folder: Path, encoded: Encoded) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the training labels of regressions."""
    if all(task.kind == "binary" for task in settings.tasks):
        return {}
    labels = load_array(folder / "labels.npy")[: encoded.rows["train"]]
    file = folder / "observed.npy"
    observed = load_array(file)[: len(labels)] if file.is_file() else np.broadcast_to(np.True_, labels.shape)
    return target_statistics(settings.tasks, labels, observed)


def _store(folder: Path, schema: DataSchema, encoded: Encoded) -> Store:
    columns = {}
    for position, spec in enumerate(schema.fields):
        # As `write_field` names them: by the position of the field.
        base = f"f{position}"
        offsets = weights = None
        if spec.kind == "token_seq":
            offsets = load_array(folder / f"{base}.offsets.npy")
            weights = load_array(folder / f"{base}.weights.npy") if spec.weights is not None else None
        columns[spec.name] = Column(encoded.tables[spec.name], load_array(folder / f"{base}.npy"), offsets, weights)
    # Pointers are opened only for side tables that some field lies in.
    used = {column.table for column in columns.values()} - {"inter"}
    extra = {
        name: load_array(folder / f"{name}.npy")
        for name in ("row", "weight", "domain", "group")
        if (folder / f"{name}.npy").is_file()
    }
    labels = load_array(folder / "labels.npy")
    # One True with strides 0 stands for all rows: no memory.
    observed: npt.NDArray[np.bool_] = np.broadcast_to(np.True_, labels.shape)
    if any(task.observed_when is not None for task in schema.tasks):
        observed = load_array(folder / "observed.npy")
    return Store(
        schema=schema,
        columns=columns,
        pointers={kind: load_array(folder / f"pointer.{kind}.npy") for kind in sorted(used)},
        labels=labels,
        observed=observed,
        extra=extra,
    )


def _splits(store: Store, encoded: Encoded) -> dict[str, Split]:
    splits, start = {}, 0
    for name in PARTS:
        stop = start + encoded.rows[name]
        splits[name] = Split(store, start, stop)
        start = stop
    return splits
