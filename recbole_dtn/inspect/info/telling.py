"""Inputs that tell one class alone: values that occur only where a label is 1, or only where it is 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.floats import in_units
from recbole_dtn.data.store import Column
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.inspect.info.fields import value_name
from recbole_dtn.inspect.info.view import StoreView, ragged_of
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, UNKNOWN, FieldSpec

__all__ = ["CHANCE", "Telling", "beta_shares", "telling_inputs"]

CHANCE = 1e-6
"""Probability, over everything looked at, below which rows of one class are no coincidence."""
FEWEST = 20
"""Fewest rows: those of one user or session come together, and are not independent."""
UNSET_SHARE, VALUE_SHARE = 2 / 3, 1 / 3
"""Largest share of the class among all rows: of a field that is missing or 0 in the other class, and of any value. A
frequent class is the only one in many ordinary segments (nobody under 15 earns above 50,000, all children are
unmarried), so that a value counts only where it triples the chance of its class."""
MANY_VALUES = 20
"""From so many values on, their own spread is the measure, as users differ."""
Ids = npt.NDArray[np.int64]
Counts = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Kind = Literal["set", "value"]


@dataclass(frozen=True)
class Telling:
    """An input that tells one class of a task in some rows.

    Attributes:
        kind: ``set``: all rows where the field has another value than ``value`` are of the class (it is missing, or 0,
            in all rows of the other class). ``value``: all rows with ``value`` are.
        value: in words (``missing``, ``0``, a token, a bin).
        label: 1 or 0, the class. rows: how many rows tell. others: values of the field that tell too (``value`` only).
        observed, share: training rows looked at in which the task is observed, and the share of the class in them.
    """

    field: str
    task: str
    kind: Kind
    value: str
    label: int
    rows: int
    others: int
    observed: int
    share: float


def telling_inputs(
    view: StoreView, vocabularies: Vocabularies, rows: Ids, labels: npt.NDArray[np.float32], observed: Mask
) -> tuple[Telling, ...]:
    """Every field that tells one class of a binary task, one finding per field and task.

    k rows of one class, whose share is q, have the probability q^k by chance. Where a field has many values, the share
    differs from value to value: it is then beta-distributed, with the spread of the field's other values
    (:func:`beta_shares`). A finding has at least 20 rows, and a probability below 1e-6 after multiplication by
    everything that was looked at.

    Args:
        view: the data. vocabularies: names of values. rows: (N,) training rows.
        labels, observed: (N, T), of these rows.
    """
    tasks = [(at, task.name) for at, task in enumerate(view.schema.tasks) if task.kind == "binary"]
    seen = {at: observed[:, at] for at, _ in tasks}
    tables = []
    for spec in view.schema.fields:
        states = _states(view, spec, rows)
        for at, name in tasks:
            tables.append((spec, name, states, states.counts(labels[:, at] > 0, seen[at])))
    # Two classes, each value and its complement.
    looked_at = 4 * sum(len(found.rows) for _, _, _, found in tables)
    limit = math.log(CHANCE / max(looked_at, 1))
    findings = []
    for spec, name, states, counts in tables:
        found = _telling(states, counts, limit, partial(_is_unset, spec, vocabularies, states))
        if found is not None:
            kind, at, label, telling, others = found
            value = _described(spec, vocabularies, states, at)
            share = counts.share if label else 1 - counts.share
            findings.append(
                Telling(spec.name, name, kind, value, label, telling, others, int(counts.total), float(share))
            )
    return tuple(findings)


@dataclass(frozen=True)
class _Table:
    """Rows and positives of each state of a field, over the rows where a task is observed."""

    rows: Counts
    positives: Counts
    total: float
    ones: float

    @property
    def share(self) -> float:
        return self.ones / self.total if self.total else 0.0


class _States:
    """The states of a field in some rows: its values, and missing.

    Attributes:
        names: (S,) the value of each state: an id, or a standardised number. missing: (S,) which state is none.
        number: whether values are numbers: one amount or bin alone says little (7,688 is a line of a tax table), so
            that only set, not set and missing are looked at.
    """

    def __init__(
        self, names: npt.NDArray[np.float64], states: Ids, owners: Ids | None, *, number: bool, continuous: bool
    ) -> None:
        self.names, self.states, self.owners, self.number = names, states, owners, number
        self.missing: Mask = np.isnan(names) if continuous else names == ABSENT

    def counts(self, labels: Mask, seen: Mask) -> _Table:
        """Rows and positives by state; a list counts once for each of its distinct values."""
        kept = seen if self.owners is None else seen[self.owners]
        truth = labels if self.owners is None else labels[self.owners]
        states = self.states[kept]
        rows = np.bincount(states, minlength=len(self.names)).astype(np.float64)
        positives = np.bincount(states, truth[kept], len(self.names)).astype(np.float64)
        return _Table(rows, positives, float(seen.sum()), float((labels & seen).sum()))


def _states(view: StoreView, spec: FieldSpec, rows: Ids) -> _States:
    column = view.store.columns[spec.name]
    pointed = view.pointed(column.table, rows)
    if column.offsets is not None:
        return _list_states(column, pointed)
    names, states = _distinct(np.asarray(column.values[pointed]))
    number, continuous = spec.kind == "float", spec.continuous
    return _States(names.astype(np.float64), states, None, number=number, continuous=continuous)


def _distinct(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Ids]:
    """What ``np.unique`` gives with its inverse; small ids are counted instead of sorted."""
    if values.dtype.kind == "f" or not len(values) or int(values.max()) > 4 * len(values):
        names, states = np.unique(values, return_inverse=True)
        return names, states.astype(np.int64)
    used = np.bincount(values) > 0
    return np.flatnonzero(used), (np.cumsum(used) - 1)[values]


def _list_states(column: Column, pointed: Ids) -> _States:
    values, lengths = ragged_of(column, pointed)
    owners = np.repeat(np.arange(len(pointed)), lengths)
    # A list with a value twice is one row; an empty list is a state of its own.
    size = int(values.max()) + 1 if len(values) else 1
    pairs = np.unique(owners * size + values.astype(np.int64))
    empty = np.flatnonzero(lengths == 0)
    owners = np.concatenate([pairs // size, empty])
    names, states = _distinct(np.concatenate([pairs % size, np.full(len(empty), ABSENT)]))
    return _States(names.astype(np.float64), states, owners, number=False, continuous=False)


def _telling(
    states: _States, counts: _Table, limit: float, is_unset: Callable[[int], bool]
) -> tuple[Kind, int, int, int, int] | None:
    """The finding of one field for one task: kind, state, class, rows, and how many other values tell."""
    for label in (1, 0):
        share = counts.share if label else 1 - counts.share
        of_class = counts.positives if label else counts.rows - counts.positives
        members = counts.ones if label else counts.total - counts.ones
        if not 0 < share <= UNSET_SHARE:
            continue
        # Rows in another state than each: all of the class where every row of the other class has this state.
        rest = counts.total - counts.rows
        pure = (members - of_class == rest) & (rest >= FEWEST) & (rest * math.log(share) < limit)
        if states.owners is not None:
            pure &= states.missing  # the values of a list do not exclude each other
        if pure.any():
            at = int(np.argmax(np.where(pure, rest, -1)))
            if share <= VALUE_SHARE or is_unset(at):
                return "set", at, label, int(rest[at]), 0
        if share > VALUE_SHARE:
            continue
        single = states.missing if states.number else np.ones(len(states.names), np.bool_)
        found = list(_values(counts, of_class, share, limit, single))
        if found:
            at = max(found, key=lambda one: counts.rows[one])
            return "value", at, label, int(counts.rows[at]), len(found) - 1
    return None


def _values(counts: _Table, of_class: Counts, share: float, limit: float, single: Mask) -> Iterator[int]:
    """The states among ``single`` all of whose rows are of the class, beyond chance."""
    pure = single & (of_class == counts.rows) & (counts.rows >= FEWEST) & (counts.rows * math.log(share) < limit)
    used = counts.rows > 0
    for at in np.flatnonzero(pure):
        if used.sum() >= MANY_VALUES:
            others = used.copy()
            others[at] = False
            if _log_chance(int(counts.rows[at]), *beta_shares(of_class[others], counts.rows[others])) >= limit:
                continue
        yield int(at)


def beta_shares(members: Counts, rows: Counts) -> tuple[float, float]:
    """Parameters a, b of the beta distribution of the share from value to value, by moments.

    With ``p_i = members_i / rows_i`` and the intra-class correlation rho of the analysis of variance
    (Ridout et al., Biometrics 1999, eq. 1), ``a + b = (1 - rho) / rho`` and ``a / (a + b)`` is the overall share.
    Without spread beyond the binomial, b is infinite.

    Args:
        members, rows: (S,) rows of the class and all rows of each value; rows > 0.

    >>> beta_shares(np.array([10.0, 10.0, 0.0, 0.0]), np.array([10.0, 10.0, 10.0, 10.0]))
    (0.0, 0.0)
    >>> beta_shares(np.array([5.0, 5.0]), np.array([10.0, 10.0]))
    (inf, inf)
    """
    total, groups = float(rows.sum()), len(rows)
    share = float(members.sum()) / total
    shares = members / rows
    between = float((rows * (shares - share) ** 2).sum()) / max(groups - 1, 1)
    within = float((rows * shares * (1 - shares)).sum()) / max(total - groups, 1)
    size = (total - float((rows**2).sum()) / total) / max(groups - 1, 1)
    spread = between - within
    if spread <= 0:
        return math.inf, math.inf
    correlation = spread / (between + (size - 1) * within)
    weight = max(0.0, (1 - correlation) / correlation)
    return share * weight, (1 - share) * weight


def _log_chance(rows: int, a: float, b: float) -> float:
    """Logarithm of the probability that all rows of a value are of the class: ``B(a + k, b) / B(a, b)``."""
    if math.isinf(b):
        return -math.inf  # the plain test has decided
    if b == 0:  # every value is of one class
        return 0.0
    return math.lgamma(a + rows) - math.lgamma(a) + math.lgamma(a + b) - math.lgamma(a + b + rows)


def _is_unset(spec: FieldSpec, vocabularies: Vocabularies, states: _States, at: int) -> bool:
    """Whether a state is none or 0."""
    if states.missing[at]:
        return True
    if spec.bins:
        position = int(states.names[at]) - FIRST_TOKEN
        low = spec.bins[position - 1] if position else -math.inf
        high = spec.bins[position] if position < len(spec.bins) else math.inf
        return low <= 0 < high
    return _described(spec, vocabularies, states, at) in ("0", "0.0")


def _described(spec: FieldSpec, vocabularies: Vocabularies, states: _States, at: int) -> str:
    """A state in words."""
    value = float(states.names[at])
    if spec.continuous:
        return "missing" if math.isnan(value) else f"{in_units(value, spec):.6g}"
    if value == ABSENT:
        return "missing"
    if value == UNKNOWN:
        return "a rare value"
    return value_name(int(value) - FIRST_TOKEN, spec, vocabularies.fields[spec.name])
