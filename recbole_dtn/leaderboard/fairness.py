"""Whether the rows of a leaderboard were given the same: equal settings, matched sizes, budgets of tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.leaderboard.cells import Cell
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.leaderboard.match import MATCHED, can_match
from recbole_dtn.leaderboard.plan import BoardPlan, MatchedSize, RowTuning
from recbole_dtn.leaderboard.statistics import BoardRow, summarise
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import MODELS
from recbole_dtn.report.text import counted

__all__ = ["board_rows", "fairness_notes", "setting_notes", "with_plan"]

EQUAL = ("embedding_size", "train_batch_size", "epochs", "stopping_step", "valid_metric")
"""Settings that rows are expected to share."""
OF_EPOCHS = ("embedding_size", "train_batch_size", "epochs", "stopping_step")
"""Those that a model without epochs does not read."""


def with_plan(rows: Sequence[BoardRow], plan: BoardPlan | None) -> list[BoardRow]:
    """The rows with what was chosen for each, and the number of their trials."""
    if plan is None:
        return list(rows)
    found = []
    for row in rows:
        chosen = plan.row(row.dataset, row.name)
        tuning = None if chosen is None else chosen.tuning
        trials = None if plan.tune is None or chosen is None else len(tuning.trials) if tuning else 0
        found.append(replace(row, chosen=chosen, trials=trials))
    return found


def board_rows(
    records: Sequence[RunRecord],
    names: Mapping[str, str],
    design: Design,
    stored: Stored,
    plan: BoardPlan | None,
) -> list[BoardRow]:
    """The rows of a leaderboard with all that is known of them, as :func:`~.forms.write_forms` takes it."""
    return with_plan(stored.rows(summarise(records, names, design), records), plan)


def fairness_notes(rows: Sequence[BoardRow], names: Sequence[str]) -> list[str]:
    """A line on what all rows of a data set share and which rows differ;
    one each on matching, on tuning and on what all of it took.

    Args:
        rows: of one data set. names: as the tables call them.
    """
    if len(rows) < 2:
        return []
    named = list(zip(names, rows, strict=True))
    return [*_equal(named), *_matched(named), *_tuned(named), *_spent(named)]


Named = Sequence[tuple[str, BoardRow]]


def setting_notes(cells: Sequence[Cell]) -> list[str]:
    """A line for each data set on whose cells rows differ in settings that they are expected to share."""
    rows: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.shown_dataset, {}).setdefault(cell.name, cell)
    found = []
    for dataset, of_set in rows.items():
        _, differing = _shared_and_not(
            [(name, cell.key.model, cell.settings.dump()) for name, cell in of_set.items()], (*EQUAL, "limit_rows")
        )
        found += [f"Not equal on {dataset}: {'; '.join(differing)}."] if differing else []
    return found


def _equal(named: Named) -> list[str]:
    same = len({row.source_fingerprint for _, row in named}) == 1 and len({row.splits for _, row in named}) == 1
    # Told only where it is set, so that numbers on a part of the data do not look like those on all of it.
    keys = (*EQUAL, "limit_rows") if any(row.settings.get("limit_rows") for _, row in named) else EQUAL
    settings, differing = _shared_and_not([(name, row.model, row.settings) for name, row in named], keys)
    shared = [*(["data and split"] if same else []), *settings]
    found = [f"Equal for all rows: {', '.join(shared)}."] if shared else []
    return [*found, *([f"Not equal: {'; '.join(differing)}."] if differing else [])]


def _shared_and_not(
    rows: Sequence[tuple[str, str, Mapping[str, Any]]], keys: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Settings that all rows share, and what rows have in place of those that most have.

    Args:
        rows: of each its name, model and settings. keys: of the settings.
    """
    shared, differing = [], []
    for key in keys:
        values = {
            name: flow_yaml(settings[key])
            for name, model, settings in rows
            if key in settings and (key not in OF_EPOCHS or _has_epochs(model))
        }
        if not values:
            continue
        usual = Counter(values.values()).most_common(1)[0][0]
        others = [f"{name} has {key} {value}, not {usual}" for name, value in values.items() if value != usual]
        differing += others
        if not others:
            shared.append(f"{key} {usual}")
    return shared, differing


def _has_epochs(model: str) -> bool:
    return model not in MODELS.names() or can_match(model)


def _matched(named: Named) -> list[str]:
    sizes: list[tuple[str, MatchedSize]] = [
        (name, row.chosen.matched) for name, row in named if row.chosen is not None and row.chosen.matched is not None
    ]
    if not sizes:
        return []
    first = sizes[0][1]
    counts, factors = [size.size for _, size in sizes], [size.factor for _, size in sizes]
    left = [name for name, row in named if row.chosen is None or row.chosen.matched is None]
    return [
        f"Matched to {first.reference} within {first.tolerance:.0%} of its {first.target:,} {MATCHED[first.by]}: "
        f"{min(counts):,} to {max(counts):,}, with widths x {min(factors):.3g} to {max(factors):.3g}."
        + (f" Not matched, as they have no widths: {', '.join(left)}." if left else "")
    ]


def _tuned(named: Named) -> list[str]:
    tunings: list[tuple[str, RowTuning]] = [
        (name, row.chosen.tuning) for name, row in named if row.chosen is not None and row.chosen.tuning is not None
    ]
    if not tunings:
        return []
    counts = {len(tuning.trials) - tuning.also for _, tuning in tunings}
    first = tunings[0][1]
    # A trial has no more epochs than a run of its row.
    most = min(first.epochs, max(int(row.settings["epochs"]) for _, row in named)) if first.epochs else None
    epochs = f" of at most {counted(most, 'epoch')}" if most else ""
    if counts == {first.wanted - first.also}:
        budget = f"{counted(first.wanted - first.also, 'trial')}{epochs} for each row"
        budget += _also_tried(tunings)
    else:
        budget = "unequal budgets: " + ", ".join(f"{name} {len(tuning.trials)} trials" for name, tuning in tunings)
    pruned = sum(trial.state == "pruned" for _, tuning in tunings for trial in tuning.trials)
    failed = {name: number for name, tuning in tunings if (number := sum(t.state == "failed" for t in tuning.trials))}
    ended = [f"{pruned} pruned"] if pruned else []
    ended += (
        [f"{sum(failed.values())} failed ({', '.join(f'{name} {n}' for name, n in failed.items())})"] if failed else []
    )
    left = [name for name, row in named if row.chosen is not None and row.chosen.tuning is None]
    return [
        f"Tuned: {budget}, by {first.metric} on validation, the defaults first; no trial reads the test rows, and the "
        "seeds of trials are not those of the rows."
        + (f" Trials that ended early count too: {', '.join(ended)}." if ended else "")
        + (f" Without a setting in the search space, and not tuned: {', '.join(left)}." if left else "")
    ]


def _also_tried(tunings: Sequence[tuple[str, RowTuning]]) -> str:
    """Trials with settings that are named for every row."""
    more = max(tuning.also for _, tuning in tunings)
    fewer = [f"{name} {tuning.also}" for name, tuning in tunings if tuning.also != more]
    told = f" (fewer: {', '.join(fewer)})" if fewer else ""
    return f", and {more} more with settings that all rows try, or have as defaults{told}" if more else ""


def _spent(named: Named) -> list[str]:
    runs, seconds = sum(row.runs for _, row in named), sum(row.spent_seconds for _, row in named)
    trials = [
        trial.seconds or 0.0
        for _, row in named
        if row.chosen is not None and row.chosen.tuning is not None
        for trial in row.chosen.tuning.trials
    ]
    tuned = f" and {len(trials):,} trials {_hours(sum(trials))}" if trials else ""
    return [f"Took: {runs:,} runs {_hours(seconds)}{tuned}, added up over the processes."] if seconds else []


def _hours(seconds: float) -> str:
    """A duration in its largest unit.

    >>> _hours(5), _hours(150), _hours(9000)
    ('5.0 s', '2.5 min', '2.5 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
