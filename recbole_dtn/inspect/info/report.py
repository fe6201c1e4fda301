"""The statistics of ``data info`` as plain values, and as JSON.

The JSON is :class:`DataInfo` with its attributes as keys, in all depths; mappings by split have the keys ``train``,
``valid`` and ``test``. A number that is undefined (a rate without rows, an AUC without positives) is null, and no
number in it is infinite. With ``quick``, ``duplicates`` and ``single_field_auc`` are null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "DataInfo",
    "DuplicateInfo",
    "FieldInfo",
    "FieldSplit",
    "Lengths",
    "Numbers",
    "PairInfo",
    "SingleFieldAuc",
    "TaskInfo",
    "TaskSplit",
    "Tokens",
    "to_json",
]


@dataclass(frozen=True)
class FieldSplit:
    """One field in one split.

    Attributes:
        missing: share of rows without a value (of a multi-valued field: with an empty list).
        values: values that are present; one per row, or the lengths of the lists added up.
        unknown: share of ``values`` whose token has no id of its own: rarer than ``min_count`` or, in valid and test,
            not in training at all; None for numbers and where no value is present.
        coverage: ``1 - unknown``.
        distinct: distinct ids among the values, those without one of their own counted as one; None for numbers.
        constant: whether every row holds the same (missing in all of them is constant too).
    """

    missing: float
    values: int
    unknown: float | None
    coverage: float | None
    distinct: int | None
    constant: bool


@dataclass(frozen=True)
class Tokens:
    """The tokens of one field in training (bins, for a number that is binned).

    Attributes:
        top: up to five ``(token, share of the present values)``, the most frequent first.
        top_percent_share: share of the present values on the most frequent 1 % of tokens (at least one token).
        entropy: of the tokens that have an id, in nats. effective: ``exp(entropy)``, the effective number of tokens.
        frequency: ``(rank, count)`` at up to 40 ranks, evenly spaced on a logarithmic scale.
    """

    top: tuple[tuple[str, float], ...]
    top_percent_share: float | None
    entropy: float | None
    effective: float | None
    frequency: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Lengths:
    """Lengths of the lists of a multi-valued field, over all rows of a split, empty lists too.

    ``median`` and ``p95`` are the smallest lengths that at least half and 95 % of the rows do not exceed.
    """

    mean: float
    median: int
    p95: int
    longest: int


@dataclass(frozen=True)
class Numbers:
    """The present values of a number in one split, in the units of the file (float32); None where there is none.

    ``quantiles`` are those of 1, 25, 50, 75 and 99 %, of all rows or of ``sampled`` rows evenly spaced in the split.
    ``clipped`` values lie at or beyond the field's ``clip`` and count as that bound in all of these.
    """

    mean: float | None
    std: float | None
    smallest: float | None
    largest: float | None
    quantiles: tuple[float, ...]
    sampled: int
    clipped: int = 0


@dataclass(frozen=True)
class FieldInfo:
    """One field.

    Attributes:
        kind: token, token_seq or float. table: ``inter``, ``user`` or ``item``, where its column lies.
        vocabulary: tokens (or bins) with an id of their own; 0 for a continuous number.
        rare: training tokens without an id, for they are rarer than ``min_count``.
        splits: by split. tokens: None for a continuous number. lengths: by split, of a multi-valued field.
        numbers: by split, of a continuous number.
    """

    name: str
    kind: str
    table: str
    vocabulary: int
    rare: int
    splits: Mapping[str, FieldSplit]
    tokens: Tokens | None
    lengths: Mapping[str, Lengths] | None
    numbers: Mapping[str, Numbers] | None


@dataclass(frozen=True)
class TaskSplit:
    """One task in one split.

    Attributes:
        positives, rate, rate_error: of a binary task, over the observed rows; ``rate_error`` is the binomial standard
            error. auc_error: standard error of an AUC of 0.7 at that many positives and negatives (Hanley and McNeil
            1982): two models closer than about twice this cannot be distinguished here, unless they are compared in
            pairs on the same rows.
        mean, std: of a regression's labels.
    """

    observed: int
    positives: int | None
    rate: float | None
    rate_error: float | None
    auc_error: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class TaskInfo:
    """One task, with what it comes ``after``."""

    name: str
    kind: str
    after: tuple[str, ...]
    splits: Mapping[str, TaskSplit]


@dataclass(frozen=True)
class PairInfo:
    """Two binary tasks in one split, over the rows where both are observed.

    Attributes:
        given: P(``task`` = 1 | ``other`` = 1). phi: their correlation. both: rows observed in both.
        violations: rows where ``task`` is 1 and ``other``, which it comes after, is 0; None where it does not.
    """

    split: str
    task: str
    other: str
    both: int
    given: float | None
    phi: float | None
    violations: int | None


@dataclass(frozen=True)
class DuplicateInfo:
    """Rows of a split with the same inputs, compared as they are encoded.

    Tokens are compared by id, so that all tokens unknown to training are the same; numbers by their float32 bits; lists
    whatever their order.

    Attributes:
        distinct: different inputs. repeated: rows whose inputs another row of the split has too. conflicting: rows
            among those whose inputs occur with more than one combination of labels.
        leaked: rows whose inputs some training row has; leaked_share: of the split's rows; leaked_same: with the same
            labels too (None in training).
        in_valid, in_valid_share, in_valid_same: the same for validation rows (None but in test).
    """

    rows: int
    distinct: int
    repeated: int
    conflicting: int
    leaked: int | None
    leaked_share: float | None
    leaked_same: int | None
    in_valid: int | None
    in_valid_share: float | None
    in_valid_same: int | None


@dataclass(frozen=True)
class SingleFieldAuc:
    """AUC of one field alone for one task in training, each value scored by its rate on the other half of the rows."""

    field: str
    task: str
    auc: float


@dataclass(frozen=True)
class DataInfo:
    """Everything that ``data info`` knows.

    Attributes:
        folder: of the atomic files. fingerprint: of the files and the settings that shape the encoded data.
        rows: by split. sampled_rows: training rows that ``single_field_auc`` was taken on.
        warnings: sentences; every one names its field, task or split.
    """

    dataset: str
    folder: str
    fingerprint: str
    rows: Mapping[str, int]
    fields: tuple[FieldInfo, ...]
    tasks: tuple[TaskInfo, ...]
    pairs: tuple[PairInfo, ...]
    duplicates: Mapping[str, DuplicateInfo] | None
    single_field_auc: tuple[SingleFieldAuc, ...] | None
    sampled_rows: int | None
    warnings: tuple[str, ...]


def to_json(info: DataInfo) -> dict[str, Any]:
    """Plain values, ready for ``json.dumps(..., allow_nan=False)``."""
    content: dict[str, Any] = _finite(asdict(info))
    return content


def _finite(value: Any) -> Any:
    """The same with null for what is not finite.

    >>> _finite({"a": [1.5, float("nan")], "b": (2, float("inf"))})
    {'a': [1.5, None], 'b': [2, None]}
    """
    # JSON has neither NaN nor infinity.
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
