"""Choose the settings of a leaderboard's rows before they run: widths that match a reference, and the best trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_dtn.config.load import resolve as resolve_settings
from recbole_dtn.config.metrics import higher_is_better
from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.leaderboard.cells import Cell, CellKey, Resolve
from recbole_dtn.leaderboard.match import can_match, match_widths, size_of
from recbole_dtn.leaderboard.plan import BoardPlan, ChosenRow, MatchedSize, MatchWanted, RowTuning, TuneWanted
from recbole_dtn.plugins import plugin_states
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.console import say
from recbole_dtn.report.text import decimal
from recbole_dtn.schema import DataSchema
from recbole_dtn.tuning.space import Dimension, Space, extremes, named_values, read_space, space_of_run
from recbole_dtn.tuning.study import Storage, Study, importances
from recbole_dtn.tuning.trial import Trial, best_of
from recbole_dtn.version import __version__

__all__ = ["Candidate", "Chooser", "Fill", "FixedSize", "candidates_of", "refuse_trial_seeds", "schema_of"]

Fill = Callable[[Sequence[Cell]], tuple[Mapping[int, RunRecord], Mapping[int, str]]]
"""Runs cells: records, and reasons of failures, by the cell's place."""
MOST_TRIALS = 10_000
"""Most trials of a row."""
STORAGE = Path(".tuning") / "studies.db"
"""The trials of all studies, below ``output_dir``."""


@dataclass(frozen=True)
class FixedSize:
    """The size that the rows of one data set are matched to."""

    wanted: MatchWanted
    target: int


@dataclass
class Candidate:
    """One row on one data set, before its settings are chosen: its first cell, and what is tuned.

    ``also``: values of trials that come after those of the study.
    """

    cell: Cell
    schema: DataSchema | None = None
    size: FixedSize | None = None
    space: Sequence[Dimension] = ()
    also: Sequence[dict[str, Any]] = ()
    study: Study | None = None
    fingerprint: str = ""

    @property
    def dataset(self) -> str:
        return self.cell.shown_dataset

    @property
    def own(self) -> bool:
        """Whether the row is matched."""
        return self.size is not None and can_match(self.cell.key.model)


def candidates_of(cells: Sequence[Cell]) -> list[Candidate]:
    """One for each row and data set, from the first of its cells: of several plantings the first stands for all."""
    found: dict[tuple[str, str], Candidate] = {}
    for cell in cells:
        found.setdefault((cell.shown_dataset, cell.name), Candidate(cell))
    return list(found.values())


class Chooser:
    """Chooses the settings of all rows.

    Args:
        candidates: the rows of all data sets. match, tune: what is wanted; None: nothing.
        resolve: settings and digest of words. fingerprint: of the data that settings name, None if not known.
        schema: of the data that settings name, for matching. console: where progress is printed.
        parallel: trials of one row that start together. known: an earlier plan, whose trials need not run again.

    Raises:
        UsageError: for a reference that is no row, a row that cannot be matched, a space that does not fit, final
            seeds among those of trials, several splits, or too many trials; nothing has run by then.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        match: MatchWanted | None,
        tune: TuneWanted | None,
        *,
        resolve: Resolve,
        fingerprint: Callable[[Settings], str | None],
        schema: Callable[[Settings], DataSchema],
        console: Console,
        parallel: int = 1,
        known: BoardPlan | None = None,
    ) -> None:
        self.candidates, self.match, self.tune = list(candidates), match, tune
        self.resolve, self.console, self.parallel = resolve, console, parallel
        self.plan = BoardPlan(match=match, tune=tune)
        self.known = {row.tuning.study: row.tuning for row in known.rows if row.tuning} if known else {}
        places = {(candidate.dataset, candidate.cell.name) for candidate in self.candidates}
        alike = known is not None and (known.match, known.tune) == (match, tune)
        self.others = [row for row in known.rows if (row.dataset, row.name) not in places] if known and alike else []
        """What an earlier plan has of rows and data sets that are left out this time."""
        self.found: dict[str, dict[str, float]] = {}
        """Importances by study."""
        self.sizes: dict[tuple[str, str, tuple[str, ...]], tuple[MatchedSize, tuple[str, ...]]] = {}
        """Matched sizes and widths by data set, row and words."""
        if match is not None:
            self._fix_sizes(match, schema)
        if tune is not None:
            if tune.trials > MOST_TRIALS:
                raise UsageError(f"trials: expected 1 to {MOST_TRIALS}, found {tune.trials}")
            space = read_space(tune.space)
            for candidate in self.candidates:
                _refuse_splits(candidate.cell)
                candidate.space = self._space(candidate, space)
                candidate.also = _trials_also(candidate, tune)
                candidate.fingerprint = fingerprint(candidate.cell.settings) or ""
            _refuse_untuned(tune, self.candidates)

    # ---- matching -----------------------------------------------------------------------------------------------

    def _fix_sizes(self, match: MatchWanted, schema_of: Callable[[Settings], DataSchema]) -> None:
        for dataset in dict.fromkeys(candidate.dataset for candidate in self.candidates):
            rows = [candidate for candidate in self.candidates if candidate.dataset == dataset]
            reference = next((row for row in rows if row.cell.name == match.reference), None)
            if reference is None:
                known = [row.cell.name for row in rows]
                raise UsageError(
                    f"reference: {match.reference!r} is not a row of the leaderboard; {nearest(match.reference, known)}"
                )
            if not can_match(reference.cell.key.model):
                raise UsageError(f"reference: {match.reference!r} has no widths; expected a row that is a network")
            for row in rows:
                if can_match(row.cell.key.model):
                    row.schema = schema_of(row.cell.settings)
            assert reference.schema is not None
            size = FixedSize(match, size_of(reference.cell.settings, reference.schema, match.by))
            for row in rows:
                row.size = size
        for row in self.candidates:  # what cannot be matched is told before anything runs
            self.matched(row, ())

    def matched(self, row: Candidate, words: Sequence[str]) -> tuple[MatchedSize | None, tuple[str, ...]]:
        """The size of a row with other settings, and the widths that give it.

        Raises:
            UsageError: where it cannot be matched, or the settings are wrong.
        """
        if row.size is None or not row.own:
            return None, ()
        place = row.dataset, row.cell.name, tuple(words)
        if place not in self.sizes:
            self.sizes[place] = self._matched(row, row.size, words)
        return self.sizes[place]

    def _matched(self, row: Candidate, size: FixedSize, words: Sequence[str]) -> tuple[MatchedSize, tuple[str, ...]]:
        settings, _ = self.resolve([*row.cell.overrides, *words])
        wanted = size.wanted
        assert row.schema is not None
        found = match_widths(
            settings, row.schema, by=wanted.by, target=size.target, tolerance=wanted.tolerance, row=row.cell.name
        )
        told = MatchedSize(**wanted.model_dump(), factor=found.factor, size=found.size, target=found.target)
        return told, found.words

    # ---- tuning -------------------------------------------------------------------------------------------------

    def _space(self, row: Candidate, space: Space) -> list[Dimension]:
        """What is tuned of a row; every value that may come is checked."""
        words = list(row.cell.overrides)
        found = space_of_run(space, resolve_settings(words), words)
        for values in extremes(found):
            try:
                self.resolve([*words, *values])
            except UsageError as error:
                raise UsageError(f"space of {row.cell.name!r}: {error}") from None
        return found

    def refuse_nothing_to_tune(self) -> None:
        """Refuse rows of which nothing is tuned.

        Raises:
            UsageError: naming the first.
        """
        for row in self.candidates:
            if self.tune is not None and not row.space:
                raise UsageError(
                    f"nothing of {row.cell.name} is tuned: the space ({self.tune.space}) has no setting of it that the "
                    "command line leaves free"
                )

    def open_studies(self) -> None:
        """Open the study of every row that has something to tune."""
        assert self.tune is not None
        storages: dict[Path, Storage] = {}
        for row in self.candidates:
            if row.space and row.study is None:
                settings = row.cell.settings
                file = Path(settings.output_dir) / STORAGE
                storage = storages[file] if file in storages else storages.setdefault(file, Storage(file))
                row.study = self._study(storage, row, row.also)
                # Of a leaderboard whose runs are on another machine.
                earlier = self.known.get(row.study.name)
                found = list(earlier.trials) if earlier else []
                if row.also:  # the first trials are those of a study without `also`
                    before = self._study(storage, row, ())
                    for each in (self.known.get(before.name), before):
                        found += each.trials[: self.tune.trials] if each else []
                for trial in found:
                    row.study.add(trial)

    def _study(self, storage: Storage, row: Candidate, also: Sequence[dict[str, Any]]) -> Study:
        assert self.tune is not None
        higher, seed = _higher(row.cell.settings), self.tune.first_seed
        return Study(storage, self._study_name(row, also), row.space, higher=higher, seed=seed, parallel=self.parallel)

    def _study_name(self, row: Candidate, also: Sequence[dict[str, Any]]) -> str:
        """What makes two studies the same: all that can change what a trial finds."""
        assert self.tune is not None
        plugins = [state.sha256 for state in plugin_states(row.cell.settings)]
        known = [
            row.cell.key.settings_digest, row.fingerprint, row.cell.key.split.title, __version__, self.tune.epochs,
            self.tune.first_seed, self.parallel, [repr(dimension) for dimension in row.space],
            [row.size.wanted.by, row.size.target, row.size.wanted.tolerance] if row.size and row.own else None,
            *([self.tune.trials, also] if also else []), *([plugins] if plugins else []),
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(known, ensure_ascii=False, default=str).encode()).hexdigest()[:12]
        return f"{row.dataset}-{row.cell.key.model}-{digest}"

    def wanted(self, row: Candidate) -> int:
        """How many trials a row has."""
        return self.tune.trials + len(row.also) if self.tune is not None and row.space else 0

    @property
    def trials_left(self) -> list[int]:
        """The most epochs of every trial that has not run."""
        assert self.tune is not None
        self.open_studies()
        found = []
        for row in self.candidates:
            if row.study is not None:
                found += [self.tune.epochs_of(row.cell.settings)] * max(0, self.wanted(row) - len(row.study.trials))
        return found

    def run_trials(self, fill: Fill, keep: Callable[[BoardPlan], object]) -> None:
        """Run what is missing of every row's trials, each row's one after another and the rows side by side.

        Args:
            fill: runs cells; the pass ends after a step of which some have neither ended nor failed.
            keep: gets the plan after each step, for files that are kept up to date.
        """
        assert self.tune is not None
        self.open_studies()
        for first in range(0, max(map(self.wanted, self.candidates), default=0), self.parallel):
            waiting: list[tuple[Candidate, int, dict[str, Any]]] = []
            cells: list[Cell] = []
            # The longest first, so that no worker is left with a long one at the end of the step.
            for row in sorted(self.candidates, key=_longest_trial, reverse=True):
                if row.study is None:
                    continue
                last = min(first + self.parallel, self.wanted(row))
                for number in range(max(first, len(row.study.trials)), last):
                    params = self.params(row, number)
                    try:
                        cells.append(self.trial_cell(row, number, params))
                        waiting.append((row, number, params))
                    except UsageError as error:  # such as a size that cannot be matched with these settings
                        row.study.add(Trial(number=number, state="failed", params=params, reason=str(error)))
            records, failures = fill(cells)
            for place, (row, number, params) in enumerate(waiting):
                assert row.study is not None
                if place in records:
                    row.study.add(_ended(number, params, records[place], cells[place].settings))
                elif place in failures:
                    row.study.add(Trial(number=number, state="failed", params=params, reason=failures[place]))
            keep(self.chosen())
            if len(records) + len(failures) < len(cells):
                return

    def params(self, row: Candidate, number: int) -> dict[str, Any]:
        """The values that a trial of a row tries, by key."""
        assert self.tune is not None
        assert row.study is not None
        further = number - self.tune.trials
        return row.also[further] if further >= 0 else row.study.suggest(number)

    def trial_cell(self, row: Candidate, number: int, params: Mapping[str, Any]) -> Cell:
        """The cell of a trial: the row's settings with those that are tried, its own seed, and no test.

        Raises:
            UsageError: for settings that do not go together, or a size that cannot be matched with them.
        """
        assert self.tune is not None
        assert row.study is not None
        words = _tried(row.space, params)
        _, widths = self.matched(row, words)
        epochs = self.tune.epochs_of(row.cell.settings)
        needed = row.study.needed(number, epochs) if number < self.tune.trials else []
        trial = {"study": row.study.name, "number": number, "needed": needed}
        overrides = (
            *row.cell.overrides, *words, *widths, f"--epochs={epochs}", f"--trial={flow_yaml(trial)}",
            f"--seed={self.tune.first_seed + number}",
        )  # fmt: skip
        settings, digest = self.resolve(list(overrides))
        key: CellKey = replace(row.cell.key, settings_digest=digest, seed=settings.seed)
        return replace(
            row.cell, key=key, settings=settings, overrides=overrides, name=f"{row.cell.name}, trial {number},"
        )

    def chosen(self) -> BoardPlan:
        """The plan as it is now: of rows that are tuned, with the best trial so far."""
        rows = [*(self._chosen(row) for row in self.candidates), *self.others]
        return self.plan.model_copy(update={"rows": rows})

    def _chosen(self, row: Candidate) -> ChosenRow:
        tuning, words = None, []
        if row.study is not None and self.tune is not None:
            trials = row.study.trials[: self.wanted(row)]  # it may have more from an earlier leaderboard
            best = best_of(trials, higher=row.study.higher)
            tuning = RowTuning(
                study=row.study.name, wanted=self.wanted(row), also=len(row.also), epochs=self.tune.epochs,
                metric=row.cell.settings.valid_metric, higher=row.study.higher, trials=trials,
                best=None if best is None else best.number, importances=self._importances(row, len(trials)),
            )  # fmt: skip
            words = [] if best is None else _tried(row.space, best.params)
        matched, widths = self.matched(row, words)
        return ChosenRow(
            dataset=row.dataset, name=row.cell.name, words=[*words, *widths], matched=matched, tuning=tuning
        )

    def _importances(self, row: Candidate, count: int) -> dict[str, float]:
        """Of a study that has all of its trials; each is found once."""
        study = row.study
        if study is None or count < self.wanted(row):
            return {}
        if study.name not in self.found:
            self.found[study.name] = importances(study, count)
        return self.found[study.name]

    def say_best(self) -> None:
        """Print the best trial of every row."""
        for row in self.candidates:
            if row.study is None or self.tune is None:
                continue
            trials = row.study.trials[: self.wanted(row)]
            best = best_of(trials, higher=row.study.higher)
            failed = sum(trial.state == "failed" for trial in trials)
            told = f"; {failed} failed" if failed else ""
            if best is None:
                say(self.console, f"{row.cell.name} {row.dataset}: no trial has a value, the defaults stay{told}")
                continue
            metric = row.cell.settings.valid_metric
            value = decimal(best.value, 4)
            changed = " ".join(_tried(row.space, best.params)).replace("--", "") or "the defaults"
            say(self.console, f"{row.cell.name} {row.dataset}: trial {best.number}, {metric} {value}: {changed}{told}")


def _trials_also(row: Candidate, tune: TuneWanted) -> list[dict[str, Any]]:
    """The values of the trials that ``also`` names for a row, without its defaults."""
    found: list[dict[str, Any]] = []
    defaults = {dimension.key: dimension.default for dimension in row.space}
    for named in tune.also:
        try:
            params = named_values(row.space, named)
        except UsageError as error:
            raise UsageError(f"tune.also: {row.cell.name}: {error}") from None
        if params not in (defaults, *found):
            found.append(params)
    return found


def _refuse_untuned(tune: TuneWanted, rows: Sequence[Candidate]) -> None:
    """Refuse settings in ``also`` that no row tunes."""
    known = list(dict.fromkeys(dimension.key for row in rows for dimension in row.space))
    for key in (key for named in tune.also for key in named):
        if key not in known:
            raise UsageError(f"tune.also: no row tunes {key!r}; {nearest(key, known)}")


def _tried(space: Sequence[Dimension], params: Mapping[str, Any]) -> list[str]:
    """The settings of a trial that differ from the defaults, as words of a command line."""
    return [
        dimension.word(params[dimension.key])
        for dimension in space
        if dimension.key in params and params[dimension.key] != dimension.default
    ]


def _longest_trial(row: Candidate) -> float:
    """Seconds of the longest trial of a row so far."""
    return max((trial.seconds or 0.0 for trial in row.study.trials), default=0.0) if row.study is not None else 0.0


def _higher(settings: Settings) -> bool:
    return higher_is_better(settings.valid_metric, [task.name for task in settings.tasks])


def _ended(number: int, params: Mapping[str, Any], record: RunRecord, settings: Settings) -> Trial:
    """What a trial's run has come to."""
    assert settings.trial is not None
    history = [epoch.selected for epoch in record.history]
    needed = settings.trial.needed
    reached = record.valid_value
    least = needed[record.epochs - 1] if 0 < record.epochs <= len(needed) else None
    behind = least is not None and reached is not None and (reached < least if _higher(settings) else reached > least)
    if reached is None:
        return Trial(number=number, state="failed", params=dict(params), reason="it has no value on validation")
    return Trial(
        number=number, state="pruned" if behind else "complete", value=reached, params=dict(params), history=history,
        seconds=record.wall_seconds.get("train"), run=record.run_id,
    )  # fmt: skip


def _refuse_splits(cell: Cell) -> None:
    if cell.several_splits:
        raise UsageError(
            "tune: expected one split: rows that validate the trials of one split are test rows of another; leave "
            "out split_seeds and folds, and repeat by seeds"
        )


def refuse_trial_seeds(seeds: Sequence[int], tune: TuneWanted) -> None:
    """Final seeds are to be apart from those of the trials.

    Raises:
        UsageError: naming the seeds that are both.
    """
    of_trials = range(tune.first_seed, tune.first_seed + tune.trials + len(tune.also))
    both = sorted(seed for seed in set(seeds) if seed in of_trials)
    if both:
        raise UsageError(
            f"seeds: {', '.join(map(str, both))} are seeds of trials too; choose others, or tune.first_seed"
        )


def schema_of(settings: Settings) -> DataSchema:
    """The schema of the data that settings name; the data is prepared for it."""
    from recbole_dtn.preprocess.prepare import prepare

    return prepare(settings).schema
