"""What is said after a run, from its record: each warning provoked, and silent just below it; gates by their groups."""

from __future__ import annotations

import math
from typing import Any

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.record.record import RunRecord, TaskRecord
from recbole_dtn.training.gates import gate_groups, gate_rows
from recbole_dtn.training.warn import failure_signs, few_rows, result_warnings

BASE = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))  # of a tenth of positives: .3251
COUNTS = {"click": (2000, 10_000), "buy": (1000, 10_000)}
CLEAN = {
    "click": {"auc": 0.75, "logloss": 0.45, "ne": 0.9, "calibration": 1.0},
    "buy": {"auc": 0.78, "logloss": 0.28, "ne": 0.86, "calibration": 1.0},
}


def record(**changes: Any) -> RunRecord:
    """A finished run without anything to warn of."""
    values: dict[str, Any] = {
        "run_id": "r",
        "status": "finished",
        "interrupted_at": None,
        "model": "MMoE",
        "dataset": "d",
        "seed": 1,
        "split_seed": 1,
        "settings": {"tasks": [{"name": "click"}, {"name": "buy"}], "valid_metric": "mean_auc"},
        "settings_digest": "0",
        "data_fingerprint": "0",
        "code_version": "0",
        "tasks": [TaskRecord(name="click", label="c", after=[]), TaskRecord(name="buy", label="b", after=["click"])],
        "valid": CLEAN,
        "test": CLEAN,
        "best_epoch": 3,
        "epochs": 5,
        "parameters": {},
        "train_samples_per_second": None,
        "peak_rss_bytes": 1,
        "peak_anon_bytes": None,
        "wall_seconds": {},
        "gate_weights": {},
        "versions": {},
        "positives": {"valid": COUNTS, "test": COUNTS},
        "chain_breaks": {"buy": {"click": (10, 10_000)}},
    }
    return RunRecord.model_validate({**values, **changes})


def of_buy(**changes: float | None) -> dict[str, dict[str, float | None]]:
    return {**CLEAN, "buy": {**CLEAN["buy"], **changes}}


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_a_clean_run_says_nothing() -> None:
    assert result_warnings(record()) == []


@pytest.mark.parametrize(
    ("auc", "ne", "told"),
    [(0.9951, 0.05, True), (0.9951, 0.13, False), (0.9951, None, True), (0.9995, 0.3, True), (0.989, 0.05, False)],
)
def test_an_auc_that_is_too_good(auc: float, ne: float | None, told: bool) -> None:
    found = result_warnings(record(test=of_buy(auc=auc, ne=ne, logloss=None)))
    assert [text.split(":")[0] for text in found] == [f"task 'buy' has a test AUC of {auc:.4f}"] * told


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_log_loss_above_that_of_the_base_rate(split: str) -> None:
    words = {"valid": "validation"}.get(split, split)
    text = only(result_warnings(record(**{split: of_buy(logloss=0.4, ne=0.4 / BASE)})))
    assert text.startswith(f"task 'buy' has a log loss of 0.4000 in {words}, above 0.3251, that of predicting the ")
    # Without NE it is worked out from the positives: .3251 + 4 / 10,000 is the limit.
    assert result_warnings(record(**{split: of_buy(logloss=0.3254, ne=None)})) == []
    text = only(result_warnings(record(**{split: of_buy(logloss=0.3256, ne=None)})))
    assert "0.3256" in text
    assert "above 0.3251" in text


def test_weighted_positives_or_rows_have_no_base_rate_to_compare_with() -> None:
    bad = of_buy(logloss=0.9, ne=None)
    focal = {"name": "buy", "loss": {"name": "focal", "gamma": 2.0}}
    for tasks in ([{"name": "buy", "pos_weight": 5.0}], [focal]):
        assert result_warnings(record(test=bad, settings={"tasks": tasks})) == []
    assert result_warnings(record(test=bad, settings={"tasks": [], "weight_field": "w"})) == []


def test_the_first_epoch_is_the_best() -> None:
    text = only(result_warnings(record(best_epoch=1)))
    assert text.startswith("the best of 5 epochs is the first: the model overfits from the second one on, or mean_auc ")
    assert "MemoNet" not in text
    assert result_warnings(record(best_epoch=1, epochs=1)) == []
    assert result_warnings(record(best_epoch=1, model="Boosting")) == [], "its rounds are trees"
    memonet = {"interactions": ["gdcn", {"name": "memonet", "codes": 9}]}
    assert "MemoNet memorises" in only(result_warnings(record(best_epoch=1, settings=memonet)))
    assert failure_signs(record(best_epoch=1, settings=memonet)) == []
    assert "the best epoch is 2: MemoNet" in only(failure_signs(record(best_epoch=2, settings=memonet)))


def test_a_chain_that_is_often_broken() -> None:
    text = only(result_warnings(record(chain_breaks={"buy": {"click": (600, 10_000)}})))
    assert text.startswith(
        "task 'buy' is predicted to be more probable than 'click', which it comes after, in 600 of 10,000 test rows "
        "(6.0%)"
    )


def test_a_record_of_an_earlier_version_can_be_read_and_says_nothing() -> None:
    values = record().model_dump(mode="json")
    for name in ("positives", "chain_breaks", "warnings"):
        del values[name]
    old = RunRecord.model_validate(values)
    assert (old.positives, old.chain_breaks, old.warnings) == ({}, {}, [])
    assert result_warnings(old) == []


# ---- before a run -------------------------------------------------------------------------------------------------


def few(
    test: tuple[int, int], valid: tuple[int, int], *overrides: str, love: tuple[int, int] = (500, 1000)
) -> list[str]:
    settings = resolve(["--dataset=ml-100k", *overrides]).settings
    rows = {"test": {"like": test, "love": (500, 1000)}, "valid": {"like": valid, "love": love}}
    return list(few_rows(settings, rows))


def test_few_positives_or_negatives() -> None:
    enough = (100, 1000)
    assert few(enough, enough) == []
    # Hanley and McNeil at A = .7: Q1 = .53846, Q2 = .57647, SE^2 = (.21 + 98 * .04846 + 900 * .08647) / (99 * 901)
    error = math.sqrt((0.21 + 98 * (0.7 / 1.3 - 0.49) + 900 * (0.98 / 1.7 - 0.49)) / (99 * 901))
    text = only(few((99, 1000), enough))
    assert text.startswith(
        f"task 'like' has 99 positives in test (1,000 rows); an AUC of .7 has a standard error of {error:.3f} there, "
        f"so that models closer than about {2 * error:.2f}"
    )
    assert only(few((901, 1000), enough)).startswith("task 'like' has 99 negatives in test (1,000 rows); ")
    assert "without both classes it has no AUC" in only(few((0, 1000), enough))


def test_few_positives_in_validation_matter_where_they_select() -> None:
    enough, scarce = (100, 1000), (60, 1000)
    text = only(few(enough, scarce, "--valid_metric=mean_auc"))
    assert text.startswith("task 'like' has 60 positives in validation (1,000 rows); the epoch that ")
    assert len(few(enough, scarce, "--valid_metric=like_auc")) == 1
    assert few(enough, scarce, "--valid_metric=love_auc") == []
    # Weighted, a rare task counts little; where both are rare, there is nothing else.
    assert few(enough, scarce, "--valid_metric=weighted_auc") == []
    assert len(few(enough, scarce, "--valid_metric=weighted_auc", love=(950, 1000))) == 2
    tasks = [{"name": "like", "label": "rating", "condition": "rating >= 4"}]
    tasks.append({"name": "stars", "label": "rating", "kind": "regression"})
    positives = {"test": {"like": enough, "stars": enough}, "valid": {"like": scarce, "stars": enough}}
    for metric, number in (("mean_rmse", 0), ("stars_mae", 0), ("weighted_logloss", 1), ("like_auc", 1)):
        given = {"dataset": "ml-100k", "tasks": tasks, "valid_metric": metric}
        assert len(list(few_rows(resolve(given).settings, positives))) == number, metric


def test_a_model_without_epochs_has_none_selected() -> None:
    text = only(few((100, 1000), (60, 1000), "--model=Logistic"))
    assert text.startswith("task 'like' has 60 positives in validation (1,000 rows); what the model chooses there")


# ---- gates --------------------------------------------------------------------------------------------------------

DTN = {
    "click": {"click/gdcn": 0.4, "click/masknet": 0.6, "buy/gdcn": 0.3, "buy/masknet": 0.7},
    "buy": {"buy/gdcn": 0.5, "buy/masknet": 0.5, "click/gdcn": 0.2, "click/masknet": 0.8},
}


def test_each_group_of_gates_stands_under_its_own_heading() -> None:
    title, rows = gate_rows(DTN)
    assert title == "mean gate weights over the test rows"
    assert rows == [
        ["own (sum to 1)", "", ""],
        ["  gdcn", "0.400", "0.500"],
        ["  masknet", "0.600", "0.500"],
        ["others (sum to 1)", "", ""],
        ["  buy/gdcn", "0.300", "–"],
        ["  buy/masknet", "0.700", "–"],
        ["  click/gdcn", "–", "0.200"],
        ["  click/masknet", "–", "0.800"],
    ]


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"buy/gdcn": 1.0, "click/gdcn": 0.25, "shared/gdcn": 0.75}, ["own", "others and shared"]),
        ({"buy/gdcn": 1.0, "shared/gdcn": 1.0}, ["own", "shared"]),
        ({"buy/gdcn": 1.0}, [""]),  # one task, no shared owner
        ({"shared/expert0": 0.5, "shared/expert1": 0.5}, [""]),  # MMoE
        ({"buy/expert0": 0.25, "shared/expert0": 0.75}, [""]),  # PLE
        ({"buy/expert0": 1.0, "shared/expert0": 0.0}, [""]),  # PLE that reads its own expert alone
        ({"buy/a": 0.9, "shared/b": 0.8}, []),  # gates that are no softmax
    ],
)
def test_groups_are_those_that_sum_to_one(weights: dict[str, float], names: list[str]) -> None:
    assert [group.name for group in gate_groups("buy", weights)] == names


def test_one_group_per_task_is_said_in_the_title() -> None:
    weights = {"click": {"shared/expert0": 0.2, "shared/expert1": 0.8}, "buy": {"shared/expert0": 1.0}}
    title, rows = gate_rows(weights)
    assert title == "mean gate weights over the test rows (each task's sum to 1)"
    assert rows == [["shared/expert0", "0.200", "1.000"], ["shared/expert1", "0.800", "–"]]
    title, _ = gate_rows({"click": {"shared/a": 0.9, "shared/b": 0.9}})
    assert title == "mean gate weights over the test rows"


def test_signs_are_told_per_group() -> None:
    assert failure_signs(record(gate_weights=DTN)) == []
    alone = {"buy": {"buy/gdcn": 1.0, "click/gdcn": 0.4, "shared/gdcn": 0.6}}
    assert failure_signs(record(gate_weights=alone)) == [], "one module has no choice, so its gate cannot collapse"
    collapsed = {"buy": {"buy/gdcn": 1.0, "click/gdcn": 0.02, "shared/gdcn": 0.98}}
    assert only(failure_signs(record(gate_weights=collapsed))) == (
        "the gate of buy has collapsed: shared/gdcn has a mean weight of 0.980"
    )
    third = 1 / 3
    flat = {"buy": {f"{owner}/m{k}": third for owner in ("buy", "shared") for k in range(3)}}
    assert only(failure_signs(record(gate_weights=flat))).startswith("the gates of buy stayed uniform")
