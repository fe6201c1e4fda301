"""Studies: what a trial tries, when it is pruned, and what a study that goes on does."""

from __future__ import annotations

import functools
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import event

from recbole_dtn.errors import DataError
from recbole_dtn.tuning.space import Dimension
from recbole_dtn.tuning.study import Storage, Study, importances
from recbole_dtn.tuning.trial import Trial, best_of, best_so_far

SPACE = (
    Dimension("optimizer.lr", 0.01, 0.001, 0.1, log=True),
    Dimension("experts", 4, 2, 8, whole=True),
    Dimension("dropout", "0.0", choices=("0.0", "0.2")),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage for all: making one takes seconds."""
    return tmp_path_factory.mktemp("studies") / "deep" / "studies.db"


def study(file: Path, name: str, **options: Any) -> Study:
    return Study(storage(file), name, SPACE, **{"higher": True, "seed": 7, **options})


@functools.cache
def storage(file: Path) -> Storage:
    return Storage(file)


def value(params: dict[str, Any]) -> float:
    return float(params["optimizer.lr"]) + 0.001 * int(params["experts"])


def run(found: Study, number: int) -> dict[str, Any]:
    params = found.suggest(number)
    found.add(Trial(number=number, state="complete", value=value(params), params=params, seconds=1.5, run=f"r{number}"))
    return params


def test_trial_0_has_the_defaults_and_others_are_inside_of_the_space(file: Path) -> None:
    found = study(file, "inside")
    tried = [run(found, number) for number in range(12)]
    assert tried[0] == {"optimizer.lr": 0.01, "experts": 4, "dropout": "0.0"}
    assert all(0.001 <= each["optimizer.lr"] <= 0.1 and each["experts"] in range(2, 9) for each in tried)
    assert {each["dropout"] for each in tried} == {"0.0", "0.2"}
    assert [trial.params for trial in found.trials] == tried
    assert [(trial.number, trial.seconds, trial.run) for trial in found.trials][3] == (3, 1.5, "r3")
    # The sampler learns: the later half has larger learning rates, which are better here.
    assert max(each["optimizer.lr"] for each in tried[6:]) > max(each["optimizer.lr"] for each in tried[:4])


def test_a_study_that_goes_on_tries_what_it_would_have_tried(file: Path) -> None:
    whole = study(file, "whole")
    expected = [run(whole, number) for number in range(9)]
    for number in range(9):  # opened anew for each, as by as many commands; a suggestion that is asked for twice is one
        assert study(file, "parts").suggest(number) == run(study(file, "parts"), number) == expected[number]
    assert study(file, "other seed", seed=8).suggest(1) != expected[1]


def test_random_trials_are_equal_for_spaces_that_begin_equally(file: Path) -> None:
    longer = Study(storage(file), "longer", (*SPACE, Dimension("more", 1, 1, 9, whole=True)), higher=True, seed=7)
    short = study(file, "short")
    assert {key: longer.suggest(2)[key] for key in short.suggest(2)} == short.suggest(2)


def test_suggestions_are_those_of_optuna(file: Path) -> None:
    found = study(file, "reference")
    for number in range(6):
        run(found, number)
    sampler = optuna.samplers.TPESampler(seed=(7 * 1_000_003 + 6) % 2**32, n_startup_trials=4)
    other = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in found.trials:
        other.add_trial(optuna.create_trial(value=trial.value, params=trial.params, distributions=found.distributions))
    asked = other.ask()
    expected = {
        "optimizer.lr": asked.suggest_float("optimizer.lr", 0.001, 0.1, log=True),
        "experts": asked.suggest_int("experts", 2, 8),
        "dropout": asked.suggest_categorical("dropout", ("0.0", "0.2")),
    }
    expected["optimizer.lr"] = float(f"{expected['optimizer.lr']:.4g}")
    assert found.suggest(6) == expected


def test_trials_that_start_together_do_not_know_each_other(file: Path) -> None:
    together = study(file, "together", parallel=3)
    for number in range(6):
        run(together, number)
    before = together.suggest(7)
    run(together, 6)
    assert together.suggest(7) == before  # 6, 7 and 8 start together
    alone = study(file, "together")  # the same trials, of which each knows those before it
    assert alone.suggest(7) != before


@pytest.mark.parametrize("higher", [True, False])
def test_needed_is_the_bound_of_optunas_median_pruner(file: Path, higher: bool) -> None:
    found = study(file, f"median {higher}", higher=higher)
    curves = [[0.70, 0.74, 0.75], [0.60, 0.78, 0.79], [0.71, 0.72, 0.73], [0.50, 0.80, 0.70]]
    for number, curve in enumerate(curves):
        assert found.needed(number, 3) == []  # too few trials
        found.add(Trial(number=number, state="complete", value=curve[-1], params=found.suggest(number), history=curve))
    found.add(Trial(number=4, state="failed", params=found.suggest(4), reason="NaN"))
    needed = found.needed(5, 3)
    assert needed == pytest.approx([0.65, 0.76])
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0)
    for at in (1, 2):
        for offset in (-1e-6, 1e-6):
            bound = needed[at - 1]
            assert bound is not None
            reached = bound + offset
            stored = found.stored.get_trials(deepcopy=False)[0]
            trial = optuna.create_trial(
                state=optuna.trial.TrialState.RUNNING, params=stored.params, distributions=stored.distributions,
                intermediate_values={at: reached},
            )  # fmt: skip
            worse = reached < bound if higher else reached > bound
            assert bool(pruner.prune(found.stored, trial)) is worse


def test_failed_and_pruned_trials_count_and_are_not_the_best(file: Path) -> None:
    found = study(file, "states")
    states = [("failed", None), ("complete", 0.7), ("pruned", 0.9), ("complete", 0.7), ("complete", 0.6)]
    for number, (state, reached) in enumerate(states):
        history = [] if reached is None else [reached]
        found.add(
            Trial.model_validate(
                {"number": number, "state": state, "value": reached, "params": found.suggest(number),
                 "history": history, "reason": "the loss is nan" if state == "failed" else None}
            )
        )  # fmt: skip
    trials = found.trials
    assert [(trial.state, trial.value) for trial in trials] == states
    assert trials[0].reason == "the loss is nan"
    best = best_of(trials, higher=True)
    assert best is not None
    assert best.number == 1  # the first of equal ones
    worst = best_of(trials, higher=False)
    assert worst is not None
    assert worst.number == 4
    assert best_so_far(trials, higher=True) == [None, 0.7, 0.7, 0.7, 0.7]


def test_a_trial_is_kept_once(file: Path) -> None:
    found, other = study(file, "once"), study(file, "once")
    run(found, 0)
    other.add(Trial(number=0, state="failed", params=other.suggest(0), reason="late"))
    assert [trial.state for trial in other.trials] == ["complete"]
    with sqlite3.connect(file) as base:  # no trial is left that has not ended
        assert base.execute("select count(*) from trials where state = 'RUNNING'").fetchone() == (0,)


def test_importances_find_what_the_values_depend_on(file: Path) -> None:
    found = study(file, "importance")
    for number in range(10):
        params = found.suggest(number)
        found.add(Trial(number=number, state="complete", value=float(params["dropout"]), params=params))
    shares = importances(found, 10)
    assert next(iter(shares)) == "dropout"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(found, 10) == shares
    assert importances(found, 3) == {}


def test_a_file_that_is_no_storage_is_told(tmp_path: Path) -> None:
    place = tmp_path / "studies.db"
    place.write_text("not a database")
    with pytest.raises(DataError) as caught:
        study(place, "any")
    said = str(caught.value)
    assert said.startswith(f"{place}: the trials cannot be kept there (DatabaseError: file is not a database)")
    assert "remove it" in said
    assert "recorded, or that are in the `.plan.json` of a leaderboard, do not run again" in said


def test_a_full_disk_and_a_file_that_is_read_only_are_told(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)  # Optuna tries five times
    run(study(file, "full"), 0)
    copy = Path(shutil.copy(file, tmp_path))
    pragma = "max_page_count = 1"  # no more pages than there are
    full = Storage(copy)
    found = Study(full, "full", SPACE, higher=True, seed=7)
    event.listen(full.of_optuna.engine, "checkout", lambda connection, *_: connection.execute(f"PRAGMA {pragma}"))
    with pytest.raises(DataError) as caught:
        found.add(Trial(number=1, state="failed", params=found.suggest(1), reason="x" * 1_000_000))
    told = "cannot be written (database or disk is full): free space there, or choose a place on another disk"
    assert str(caught.value) == f"{copy}: {told}"
    assert len(found.trials) == 1
    pragma = "query_only = 1"
    with pytest.raises(DataError) as caught:
        Study(full, "another", SPACE, higher=True, seed=7)
    assert str(caught.value).startswith(
        f"{copy}: cannot be written (attempt to write a readonly database): look at the owner and the permissions"
    )


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(DataError, match=r"studies\.db: cannot be written \(Not a directory\): a file is where"):
        Storage(tmp_path / "runs" / ".tuning" / "studies.db")


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_a_trial_of_another_program_that_has_not_ended_is_told(file: Path, state: str) -> None:
    found = study(file, f"foreign {state}")
    run(found, 0)
    other = optuna.load_study(storage=storage(file).of_optuna, study_name=found.name)
    if state == "running":
        other.ask()
    else:
        other.enqueue_trial({})
    told = rf"studies\.db: study foreign {state}, trial 1: it is {state}.*optuna delete-study .*'foreign {state}'"
    for use in (lambda: found.trials, lambda: run(found, 1), lambda: found.suggest(1), lambda: found.needed(1, 3)):
        with pytest.raises(DataError, match=told):
            use()


@pytest.mark.parametrize(
    ("key", "content", "told"),
    [
        ("seconds", '"soon"', "study changed seconds, trial 0: seconds: Input should be a valid number"),
        ("history", '"a"', "study changed history, trial 0: history.0: Input should be a valid number"),
        ("run", "{", "the trials cannot be kept there (JSONDecodeError: "),
    ],
)
def test_attributes_of_a_trial_that_were_changed_are_told(file: Path, key: str, content: str, told: str) -> None:
    found = study(file, f"changed {key}")
    found.add(Trial(number=0, state="complete", value=0.7, params=found.suggest(0), history=[0.7], seconds=1, run="r"))
    with sqlite3.connect(file) as base:
        base.execute(
            "update trial_user_attributes set value_json = ? where key = ? and trial_id = ("
            "select trial_id from trials natural join studies where study_name = ?)",
            (content, key, found.name),
        )
    with pytest.raises(DataError) as caught:
        _ = study(file, found.name).trials
    assert str(caught.value).startswith(f"{file}: {told}")


def test_attributes_that_others_gave_a_trial_are_left_out(file: Path) -> None:
    found = study(file, "attributes")
    found.stored.add_trial(optuna.create_trial(value=0.7, user_attrs={"number": 7, "state": "mine", "note": "x"}))
    assert found.trials == [Trial(number=0, state="complete", value=0.7)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"params": {"experts": 99}}, "99 of parameter 'experts' isn't contained"),
        ({"params": {"experts": [4]}}, r"'\[4\]' is not a valid type"),
        ({"params": {"dropout": "0.7"}}, "'0.7' not in"),
        ({"params": {"towers": 4}}, "'towers' is not tuned"),
        ({"value": None}, "values should be set for a complete trial"),
        ({"state": "failed"}, "values should be None for a failed trial"),
    ],
)
def test_a_trial_that_does_not_fit_is_told(file: Path, changes: dict[str, Any], told: str) -> None:
    found = study(file, "fitting")
    trial = Trial.model_validate({"number": 0, "state": "complete", "value": 0.7, **changes})
    with pytest.raises(DataError, match=f"^study fitting: trial 0 does not fit.*({told}).*plan.json"):
        found.add(trial)
    assert found.trials == []
