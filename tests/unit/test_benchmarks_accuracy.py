"""The statistics of the accuracy benchmark, and the ratios of the others."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import accuracy
from benchmarks.accuracy import DENSE_RATES, EPOCHS, RATES, Kept, Trial, compared, interval, remarks, ruled, tuned
from benchmarks.harness import Sample, ratio


class Runs(dict):
    """Stands for the runs that are kept, by trial."""

    def __getitem__(self, trial):
        return super().__getitem__(trial.key)

    def put(self, trial, *, valid=0.8, test=0.8, epochs=5, code="a"):
        self[trial.key] = {
            "valid": {"x": valid, "y": valid}, "test": {"x": test, "y": test + 0.1}, "best_epoch": 3,
            "curve": [None] * epochs, "code": code,
        }  # fmt: skip


def test_the_interval_is_that_of_a_paired_t_test():
    random = np.random.default_rng(0)
    first, second = random.normal(0.8, 0.01, 7), random.normal(0.8, 0.01, 7)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    middle, half = interval(list(first - second))
    assert (middle - half, middle + half) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_rates_are_chosen_by_the_mean_of_validation_over_the_tuning_seeds():
    runs, best = Runs(), {}
    for rule in RATES:
        best[rule] = RATES[rule][1], DENSE_RATES[1]
        for rates in accuracy.grid(rule):
            for seed in accuracy.tuning_seeds():
                lucky = rates == (RATES[rule][0], DENSE_RATES[0]) and seed == accuracy.FIRST_TUNED
                good = 0.81 if rates == best[rule] else 0.80
                runs.put(ruled(rule, rates, seed), valid=0.82 if lucky else good, test=0.9 - good)
    chosen, tried = tuned(runs)
    assert chosen == best
    assert len(tried) == sum(len(accuracy.grid(rule)) for rule in RATES)


def test_pairs_are_compared_seed_by_seed():
    runs, first, second = Runs(), [Trial("A", seed) for seed in (1, 2, 3)], [Trial("B", seed) for seed in (1, 2, 3)]
    for trial, value in zip([*first, *second], [0.81, 0.72, 0.93, 0.80, 0.70, 0.90], strict=True):
        runs.put(trial, test=value)
    lines = list(compared({"A – B": (first, second)}, runs))
    assert [line["task"] for line in lines] == ["x", "y"]
    assert lines[0]["differences"] == pytest.approx([0.01, 0.02, 0.03])
    assert lines[0]["mean_difference"] == pytest.approx(0.02)
    assert lines[0]["half_width"] == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 / 3**0.5)
    assert not lines[0]["below_bound"]


def test_remarks_name_edges_runs_that_were_cut_off_and_other_code():
    runs, rule = Runs(), "rowwise_adagrad"
    inner, edge = (RATES[rule][1], DENSE_RATES[1]), (RATES[rule][0], DENSE_RATES[1])
    trials = [ruled(rule, inner, seed) for seed in (1, 2)]
    for trial in trials:
        runs.put(trial)
    assert remarks({rule: inner}, trials, runs) == []
    runs.put(trials[1], epochs=EPOCHS, code="b")
    assert remarks({rule: edge}, trials, runs) == [
        "rowwise_adagrad: the best rate lies on the edge of its grid (table)",
        "1 of the compared runs ended by the number of epochs, not by early stopping",
        "the compared runs are of 2 versions of the code: a, b",
    ]


def test_kept_runs_are_read_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "code_digest", lambda: "now")
    kept, trial = Kept(tmp_path / "runs.jsonl"), Trial("MMoE", 1, {"fused": False})
    kept.add(trial, {"test": {"x": 0.5}})
    monkeypatch.setattr(accuracy, "code_digest", lambda: "later")
    again = Kept(tmp_path / "runs.jsonl")
    assert trial in again
    assert again[trial] == {"test": {"x": 0.5}, "code": "now"}
    assert Trial("MMoE", 2, {"fused": False}) not in again
    assert "1 of them by other code" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs.jsonl").read_text())["trial"]["seed"] == 1


def test_a_ratio_is_the_median_of_those_within_rounds():
    def samples(*seconds):
        return [Sample(**{**dict.fromkeys(Sample.__dataclass_fields__, 0.0), "seconds": each}) for each in seconds]

    assert ratio({"ours": samples(1.0, 2.0, 4.0), "peer": samples(3.0, 4.0, 20.0)}, "ours", "peer") == (3.0, 2.0, 5.0)
