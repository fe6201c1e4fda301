"""Two leaderboards beside each other: what changed in each row, paired by seed or split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from recbole_dtn.config.splits import SplitKey
from recbole_dtn.leaderboard.compare import CLAIMS_NEED, COMPARED
from recbole_dtn.leaderboard.differences import signed
from recbole_dtn.leaderboard.labels import SHOWN, row_labels
from recbole_dtn.leaderboard.page.chosen import by_task
from recbole_dtn.leaderboard.statistics import (
    BoardRow,
    Metric,
    Paired,
    Runs,
    Summary,
    UnitKey,
    corrected_t,
    paired_t,
    runs_of_rows,
    summarise,
    summary,
)
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.tables import escaped, markdown_table
from recbole_dtn.report.text import NONE, decimal

__all__ = ["COLUMNS", "Against", "Change", "against", "against_markdown"]

COLUMNS = ("model", "test metric", "A", "B", "B - A", "95 % interval", "n")


@dataclass(frozen=True)
class Change:
    """The test metric of a row in two leaderboards: the means of each, and the difference over what both have run."""

    label: str
    metric: Metric
    before: Summary
    after: Summary
    paired: Paired

    @property
    def partly(self) -> bool:
        """Whether one of the two has runs that the other lacks."""
        return self.paired.n != max(self.before.n, self.after.n)

    @property
    def cells(self) -> list[str]:
        """A line of a table with :data:`COLUMNS`."""
        interval = NONE if self.paired.low is None else f"{signed(self.paired.low)} to {signed(self.paired.high)}"
        name = f"{self.metric.task} {SHOWN[self.metric.name]}"
        means = [decimal(self.before.mean, 4), decimal(self.after.mean, 4), signed(self.paired.mean)]
        return [self.label, name, *means, interval, str(self.paired.n)]


@dataclass(frozen=True)
class Against:
    """Two leaderboards. ``notes``: rows of one alone, and what differs besides the numbers."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def against(
    before: Sequence[RunRecord],
    after: Sequence[RunRecord],
    names_before: Mapping[str, str],
    names_after: Mapping[str, str],
) -> Against:
    """Compare leaderboard B with leaderboard A, row by row.

    Rows are the same by data set and name. Differences are paired by seed, or split by split.

    Args:
        before, after: the records of A and of B. names_before, names_after: of rows, by the digest of their settings.
    """
    first, second = _rows(before, names_before), _rows(after, names_after)
    changes: list[Change] = []
    notes = []
    for side, mine, other in (("A", first, second), ("B", second, first)):
        alone = [label for label in mine if label not in other]
        notes += [f"Only in {side}: {', '.join(alone)}."] if alone else []
    for label in first:
        if label in second:
            (old, old_runs), (new, new_runs) = first[label], second[label]
            changes += _changes(label, old, new)
            notes += _what_differs(label, old, new, old_runs, new_runs)
    versions = [sorted({_version(run) for run in runs}) for runs in (before, after)]
    if versions[0] != versions[1]:
        notes.append(f"Versions of recbole_dtn: {', '.join(versions[0])} in A, {', '.join(versions[1])} in B.")
    if any(change.partly for change in changes):
        notes.append("Differences are over the n seeds or splits that both have run; the means are over all of each.")
    if any(change.paired.low is not None for change in changes):
        notes.append("Intervals are of the n pairs alone; the test rows are taken as they are.")
    few = list(dict.fromkeys(change.label for change in changes if change.paired.n < CLAIMS_NEED))
    if few:
        rows = "" if len(few) == len({change.label for change in changes}) else f" of {', '.join(few)}"
        notes.append(f"Fewer than {CLAIMS_NEED} pairs{rows}: descriptive, no difference is claimed.")
    return Against(tuple(changes), tuple(notes))


def against_markdown(found: Against) -> str:
    """The comparison as Markdown."""
    table = markdown_table(COLUMNS, [change.cells for change in found.changes])
    return "\n".join([*table, "", *(f"- {escaped(note)}" for note in found.notes)]).strip() + "\n"


def _version(run: RunRecord) -> str:
    code = run.versions.get("code")
    return run.code_version if code is None else f"{run.code_version} (code {code})"


def _rows(records: Sequence[RunRecord], names: Mapping[str, str]) -> dict[str, tuple[BoardRow, Runs]]:
    rows = summarise(records, names)
    datasets = {row.dataset for row in rows}
    labels = [f"{label} ({row.dataset})" if len(datasets) > 1 else label
              for label, row in zip(row_labels(rows, marked=False), rows, strict=True)]  # fmt: skip
    return dict(zip(labels, zip(rows, runs_of_rows(rows, records), strict=True), strict=True))


def _changes(label: str, old: BoardRow, new: BoardRow) -> Iterator[Change]:
    for task in old.tasks:
        metric = next((m for name in COMPARED if (m := Metric("test", task, name)) in old.values), None)
        if metric is None or metric not in new.values:
            continue
        several = len(old.splits) > 1 or len(new.splits) > 1
        given = _differences(old.values[metric], new.values[metric], several=several)
        corrected = several and old.test_is_drawn
        paired = corrected_t(given, old.train_rows, old.test_rows) if corrected else paired_t(given)
        yield Change(label, metric, old.metrics[metric], new.metrics[metric], paired)


def _differences(
    old: Mapping[UnitKey, float | None], new: Mapping[UnitKey, float | None], *, several: bool
) -> list[float]:
    """By split (the mean over its seeds) or by seed, of runs in which both are defined."""
    by_unit: dict[SplitKey | int, list[float | None]] = {}
    for (split, seed), value in old.items():
        other = new.get((split, seed))
        if value is not None and other is not None:
            by_unit.setdefault(split if several else seed, []).append(other - value)
    return [mean for mean in (summary(values).mean for values in by_unit.values()) if mean is not None]


def _what_differs(label: str, old: BoardRow, new: BoardRow, old_runs: Runs, new_runs: Runs) -> Iterator[str]:
    if old.source_fingerprint != new.source_fingerprint:
        yield f"{label}: the data differ, so the difference is not one of the model alone."
    a, b = (by_task(next(iter(runs.values())).settings) for runs in (old_runs, new_runs))
    differing = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    told = [f"{key} {a.get(key, NONE)} -> {b.get(key, NONE)}" for key in differing]
    if told:
        yield f"{label}: {'; '.join(told)}."
