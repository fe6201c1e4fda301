"""Tune one model: its trials, its best settings as YAML, and a page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from recbole_dtn.config.digest import NOT_DIGESTED
from recbole_dtn.config.load import resolve as resolve_settings
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.leaderboard.cell_run import Fingerprint, RunCell, present_fingerprint
from recbole_dtn.leaderboard.cells import Resolve, plan_cells, resolve_cell
from recbole_dtn.leaderboard.choose import Chooser, candidates_of, schema_of
from recbole_dtn.leaderboard.page.tuning import changed, state_words, tuning_page
from recbole_dtn.leaderboard.plan import BoardPlan, ChosenRow, RowTuning, TuneWanted
from recbole_dtn.leaderboard.run import run_trials
from recbole_dtn.leaderboard.session import Sessions
from recbole_dtn.report.console import say
from recbole_dtn.report.files import write_text
from recbole_dtn.report.tables import show_table
from recbole_dtn.report.text import counted, decimal, share
from recbole_dtn.training.signals import Signals
from recbole_dtn.tuning.study import RANDOM_TRIALS

__all__ = ["Tuned", "best_yaml", "tune_model"]

SHORTENS = frozenset({"epochs", "limit_rows"})
"""Settings of trials that the best settings do not have."""
SHOWN = 10
"""Most trials in the table on the terminal."""


@dataclass(frozen=True)
class Tuned:
    """What tuning has found, and the files with it."""

    tuning: RowTuning
    best_file: Path
    page: Path


def tune_model(
    model: str,
    dataset: str,
    overrides: Sequence[str],
    wanted: TuneWanted,
    output: Path,
    console: Console,
    *,
    workers: int = 1,
    run_cell: RunCell | None = None,
    fingerprint: Fingerprint | None = None,
    resolve: Resolve = resolve_cell,
) -> Tuned:
    """Run the trials of one model that are missing, and keep its files up to date.

    Args:
        model, dataset: their names. overrides: settings of every trial, which are not tuned.
        wanted: number of trials, their epochs, and the space. output: folder of the files. console: where to print.
        workers: trials that start together, each in a process of one thread.
        run_cell, fingerprint, resolve: as for :func:`~.run.run_board`.

    Raises:
        UsageError: for wrong settings or a space that does not fit, before the first trial.
        RecBoleDTNError: when no trial has a value.
        KeyboardInterrupt, Preempted: after Ctrl-C or SIGTERM; the same command goes on.
    """
    known_data = fingerprint or present_fingerprint
    cells = plan_cells([model], [dataset], [wanted.first_seed], overrides, resolve=resolve)
    chooser = Chooser(
        candidates_of(cells), None, wanted, resolve=resolve, fingerprint=known_data, schema=schema_of,
        console=console, parallel=workers,
    )  # fmt: skip
    chooser.refuse_nothing_to_tune()
    chooser.open_studies()
    study = chooser.candidates[0].study
    assert study is not None
    if len(study.trials) > wanted.trials:
        chooser.tune = wanted.model_copy(update={"trials": len(study.trials)})
        say(console, f"{len(study.trials)} trials are recorded, more than trials={wanted.trials}: all of them count")
    name = f"{model}-{dataset}"
    best_file, page = output / f"{name}.best.yaml", output / f"{name}.html"

    def keep(plan: BoardPlan) -> None:
        tuning = _tuning(plan.rows[0])
        if tuning.best is not None:
            settings, _ = resolve([*cells[0].overrides, *plan.rows[0].words])
            write_text(best_file, best_yaml(tuning, settings))
        write_text(page, tuning_page(f"Tuning {model} on {dataset}", [(model, tuning)]))
        _say_best(tuning, console)

    with Signals(), Sessions(cells, console, run_cell, known_data, workers) as session_of:
        session_of.expect(chooser.trials_left)
        run_trials(chooser, session_of, keep)
    tuning = _tuning(chooser.chosen().rows[0])
    if tuning.best is None:
        raise RecBoleDTNError(f"no trial of {len(tuning.trials)} has a value: {tuning.trials[-1].reason}")
    _print(tuning, console)
    plugins = ",".join(cells[0].settings.plugins)
    more = f" --plugins={shlex.quote(plugins)}" if plugins else ""
    say(console, f"best settings: --config_files={best_file}{more}; page: {page}")
    return Tuned(tuning, best_file, page)


def _tuning(row: ChosenRow) -> RowTuning:
    assert row.tuning is not None
    return row.tuning


def best_yaml(tuning: RowTuning, settings: Settings) -> str:
    """The settings of the best trial for ``--config_files``: those that are not the defaults of model and data set.

    Paths, machines and seeds stay out of it, and what shortens trials: epochs and limit_rows.

    Args:
        tuning: with the best trial. settings: of a run with its values.
    """
    usual = resolve_settings([f"--model={settings.model}", f"--dataset={settings.dataset}"]).settings.dump()
    values = {key: value for key, value in settings.dump().items() if key not in NOT_DIGESTED | SHORTENS}
    found = {"model": settings.model, "dataset": settings.dataset, **_differing(values, usual)}
    best = tuning.best_trial
    assert best is not None
    rows = f", limit_rows={settings.limit_rows}" if settings.limit_rows else ""
    epochs = f", of at most {counted(tuning.epochs, 'epoch')}" if tuning.epochs else ""
    head = (
        f"# Trial {best.number} of {len(tuning.trials)}{epochs}{rows}: {tuning.metric} {decimal(best.value, 4)} on "
        "validation.\n"
    )
    text: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return head + text


def _differing(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the usual ones; of maps, and of tasks by their names, the keys that differ.

    >>> _differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 0, "d": 3}})
    {'b': {'c': 2}}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        other = usual.get(key)
        if value == other:
            continue
        if key == "tasks" and [task["name"] for task in value] == [task["name"] for task in other or ()]:
            value, other = ({task["name"]: task for task in each} for each in (value, other or ()))
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value.get("name") == other.get("name"):
            value = _differing(value, other)
        found[key] = value
    return found


def _say_best(tuning: RowTuning, console: Console) -> None:
    best = tuning.best_trial
    if best is not None:
        count = f"{len(tuning.trials)} of {tuning.wanted} trials"
        say(console, f"{count}; best: trial {best.number}, {decimal(best.value, 4)}: {changed(tuning, best)}")


def _print(tuning: RowTuning, console: Console) -> None:
    """The best trials, and what mattered."""
    sign = -1 if tuning.higher else 1
    ended = sorted(tuning.trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0), trial.number))
    lines = [
        [
            str(trial.number),
            decimal(trial.value, 4),
            state_words(trial),
            decimal(trial.seconds, 1),
            changed(tuning, trial),
        ]
        for trial in ended[:SHOWN]
    ]
    say(console, "")
    show_table(console, ["trial", tuning.metric, "state", "seconds", "settings"], lines)
    if tuning.importances:
        say(console, f"\nshare of the variance of {tuning.metric} that each setting explains (fANOVA)")
        show_table(console, ["setting", "share"], [[key, share(value, 0)] for key, value in tuning.importances.items()])
    else:
        say(console, f"\nno importance of the settings: it needs {RANDOM_TRIALS} complete trials of unequal values")
    say(console, "")
