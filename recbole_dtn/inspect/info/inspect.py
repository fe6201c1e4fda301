"""All statistics of ``data info`` from prepared data, with warnings in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from recbole_dtn.config.settings import SELECTED_ON_TEST
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.inspect.info.duplicates import duplicates
from recbole_dtn.inspect.info.fields import field_info
from recbole_dtn.inspect.info.inputs import input_sentences
from recbole_dtn.inspect.info.report import DataInfo, DuplicateInfo, FieldInfo, PairInfo
from recbole_dtn.inspect.info.skewed import skewed_numbers
from recbole_dtn.inspect.info.suspects import SAMPLED, SUSPICIOUS, single_field_aucs
from recbole_dtn.inspect.info.tasks import few_in_test, task_infos
from recbole_dtn.inspect.info.telling import Telling, telling_inputs
from recbole_dtn.inspect.info.view import StoreView

if TYPE_CHECKING:
    from recbole_dtn.preprocess.prepare import PreparedData

__all__ = ["inspect"]

MOSTLY_UNSEEN = 0.5


def inspect(
    prepared: PreparedData,
    *,
    dataset: str = "",
    selected_on_test: bool = False,
    quick: bool = False,
    meter: Meter = silent,
) -> DataInfo:
    """Compute every statistic. Memory depends on vocabularies and side tables, not on the number of interactions.

    Args:
        prepared: the data. dataset: its name, for the report. selected_on_test: its setting of that name.
        quick: leave out duplicates and the AUC of each single field. meter: gets the progress.
    """
    view = StoreView(prepared)
    fields = []
    for number, spec in enumerate(view.schema.fields):
        fields.append(field_info(view, spec, prepared.vocabularies.fields[spec.name]))
        meter("counting fields", number + 1, view.schema.num_fields)
    tasks, pairs = task_infos(view)
    repeated, alone, sampled = None, None, None
    telling: tuple[Telling, ...] = ()
    if not quick:
        root = prepared.cache_folder.parent
        # Beside the cache entry, on a disk that holds data of this size; else the system's temporary folder.
        repeated = duplicates(view, root if os.access(root, os.W_OK) else None, meter)
        alone, sampled = single_field_aucs(view, meter)
        rows = view.sample("train", SAMPLED)
        telling = telling_inputs(view, prepared.vocabularies, rows, *view.labels_of(rows))
    return DataInfo(
        dataset=dataset,
        folder=str(prepared.folder),
        fingerprint=prepared.fingerprint,
        rows=view.rows,
        fields=tuple(fields),
        tasks=tasks,
        pairs=pairs,
        duplicates=repeated,
        single_field_auc=alone,
        sampled_rows=sampled,
        warnings=(
            *([SELECTED_ON_TEST] if selected_on_test else []),
            *few_in_test(
                [task.name for task in view.schema.tasks if task.kind == "binary"], prepared.summary.positives["test"]
            ),
            *input_sentences([spec.name for spec in view.schema.fields], alone or (), telling, above=SUSPICIOUS),
            *(text for field in fields for text in _field_warnings(field)),
            *skewed_numbers(prepared.splits["train"]).values(),
            *_nesting(pairs),
            *_leaks(repeated or {}),
        ),
    )


def _field_warnings(field: FieldInfo) -> Iterator[str]:
    train = field.splits["train"]
    if train.missing == 1:
        yield f"field {field.name!r} is missing in every training row: a model learns nothing from it"
    elif train.constant:
        yield f"field {field.name!r} has one value in training: a model learns nothing from it"
    for split, found in field.splits.items():
        if split == "train":
            continue
        if found.missing == 1 and train.missing < 1:
            yield f"field {field.name!r} is missing in every row of {split}, but not in training"
        elif found.constant and not train.constant:
            yield f"field {field.name!r} has one value in {split}, but not in training"
        if train.missing == 1 and found.missing < 1:
            yield f"field {field.name!r} has values in {split}, where training has none"
        elif found.coverage is not None and found.coverage < MOSTLY_UNSEEN:
            yield (
                f"field {field.name!r}: {1 - found.coverage:.1%} of its values in {split} have no id "
                "(too rare or not in training)"
            )


def _nesting(pairs: tuple[PairInfo, ...]) -> Iterator[str]:
    for pair in pairs:
        if pair.violations:
            yield (
                f"task {pair.task!r} comes after {pair.other!r}, but in {pair.violations:,} rows of {pair.split} "
                f"{pair.task} is 1 and {pair.other} is 0"
            )


def _leaks(found: dict[str, DuplicateInfo]) -> Iterator[str]:
    for split, counts in found.items():
        for shared, share, same, other in (
            (counts.leaked, counts.leaked_share, counts.leaked_same, "training"),
            (counts.in_valid, counts.in_valid_share, counts.in_valid_same, "validation"),
        ):
            if shared:
                rows, have = ("row", "has") if shared == 1 else ("rows", "have")
                yield (
                    f"{shared:,} {rows} of {split} ({share:.2%}) {have} the inputs of a {other} row, {same:,} of them "
                    "its labels too"
                )
