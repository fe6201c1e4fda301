"""The schema of an encoded data set, from its settings and its vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_dtn.config.settings import FieldSettings, Settings, TaskSettings
from recbole_dtn.data.floats import FloatStatistics
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec

__all__ = ["make_schema"]


def make_schema(
    fields: Sequence[FieldSettings],
    tasks: Sequence[TaskSettings],
    vocabularies: Vocabularies,
    settings: Settings,
    positives: Mapping[str, tuple[int, int]] | None = None,
    targets: Mapping[str, tuple[float, float]] | None = None,
) -> DataSchema:
    """The schema: sizes from the vocabularies, offsets cumulative over the fields in their order.

    ``extra["zero_unknown"]`` lists the token fields none of whose training tokens is rare.

    Args:
        positives: of each task, its positive and its observed training rows; None: not known.
        targets: mean and standard deviation of the labels of each regression that is standardised.
    """
    made: list[FieldSpec] = []
    zero_unknown: list[int] = []
    # The joint table holds the rows of field 0, then of field 1, and so on; a continuous number has its FIRST_TOKEN
    # rows too.
    offset = 0
    for position, spec in enumerate(fields):
        known = vocabularies.fields[spec.name]
        numbers: dict[str, Any] = {}
        if isinstance(known, FloatStatistics):
            numbers = {"bins": known.edges, **{key: getattr(known, key) for key in ("mean", "std", "clip", "log1p")}}
        elif known.rare == 0:
            # No training row has the id UNKNOWN: training cannot reach its embedding, which starts at zero.
            zero_unknown.append(position)
        made.append(
            FieldSpec(
                spec.name, spec.type, known.size, offset, spec.pooling or settings.pooling, spec.weights, **numbers
            )
        )
        offset += known.size
    specs = tuple(
        TaskSpec(
            **{**task.model_dump(), "after": tuple(task.after)},
            rate=_rate(*positives[task.name]) if positives is not None and task.kind == "binary" else None,
            mean=(targets or {}).get(task.name, (None, None))[0],
            std=(targets or {}).get(task.name, (None, None))[1],
        )
        for task in tasks
    )
    return DataSchema(tuple(made), specs, len(vocabularies.domains), {"zero_unknown": zero_unknown})


def _rate(positives: int, observed: int) -> float:
    # Half a row of each class is added: the log-odds stay finite where training has one class only.
    return (positives + 0.5) / (observed + 1)
