"""Runs that are worse than a constant: which log losses count, and how a leaderboard marks them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.leaderboard.render import board_csv, markdown, print_board
from recbole_dtn.leaderboard.statistics import Metric, summarise
from recbole_dtn.record.constant import Worse, worse_than_constant
from recbole_dtn.record.record import RunRecord
from recbole_dtn.training.warn import refuse_untrusted, result_warnings, untrusted

Runs = Callable[..., list[RunRecord]]
BASE = 0.3250829733914482
"""-.1 ln .1 - .9 ln .9: the log loss of a share of positives of one in ten."""
ROWS = 1000


def one(board_runs: Runs, logloss: float, *, ne: bool = False, **task: Any) -> RunRecord:
    """A run of one task of 100 positives in 1,000 rows of each split, whose test log loss is ``logloss``."""
    (run,) = board_runs("MMoE", 0.7, [2020])
    found = {"logloss": logloss, **({"ne": logloss / BASE} if ne else {})}
    positives = {} if ne else {split: {"like": (100, ROWS)} for split in ("train", "valid", "test")}
    settings = {**run.settings, "tasks": [{"name": "like", **task}]}
    return run.model_copy(
        update={"valid": {"like": {"logloss": 0.3}}, "test": {"like": found}, "positives": positives,
                "settings": settings}
    )  # fmt: skip


@pytest.mark.parametrize("ne", [True, False])
def test_chance_is_four_nats_over_all_rows(board_runs: Runs, ne: bool) -> None:
    allowed = BASE if ne else BASE + 4 / ROWS  # without positives the rows are unknown: 4 nats in a single one
    beyond = BASE + 4.01 if ne else allowed + 1e-6
    assert list(worse_than_constant(one(board_runs, allowed - 1e-6, ne=ne))) == []
    (found,) = worse_than_constant(one(board_runs, beyond, ne=ne))
    assert (found.split, found.task, found.loss) == ("test", "like", beyond)
    assert found.base == pytest.approx(BASE, abs=1e-12)


@pytest.mark.parametrize("task", [{"pos_weight": 5.0}, {"loss": {"name": "focal"}}])
def test_probabilities_that_are_not_those_of_the_data_count_from_five_nats(
    board_runs: Runs, task: dict[str, Any]
) -> None:
    assert list(worse_than_constant(one(board_runs, 4.9, **task))) == []
    assert list(worse_than_constant(one(board_runs, 5.1, **task))) == [Worse("test", "like", 5.1, 5.0)]


def test_the_sentence_tells_a_divergence_from_overfitting(board_runs: Runs) -> None:
    (overfits,) = untrusted(one(board_runs, 0.5))
    (diverged,) = untrusted(one(board_runs, 3.7e17))
    assert "log loss of 0.5000 in test, above 0.3251, " in overfits
    assert "the run diverged or overfits: try" in overfits
    assert "log loss of 3.7e+17 in test, above 0.3251, " in diverged
    assert "the run diverged: try" in diverged
    assert result_warnings(one(board_runs, 3.7e17)) == [diverged]


def test_the_sentence_tells_a_share_that_has_changed_by_more_than_chance(board_runs: Runs) -> None:
    def sentence(trained: int) -> str:
        run = one(board_runs, 0.5)
        changed = {**run.positives, "train": {"like": (trained, 10 * ROWS)}}
        (found,) = untrusted(run.model_copy(update={"positives": changed}))
        return found

    # The standard error of the difference is about .01: 6.6, 4.3 and 3.1 of it.
    assert "overfits, or predicts the share of training, 5.00% positives, where it is 10.00%: try" in sentence(500)
    assert "overfits, or predicts the share of training, 15.00% positives, where it is 10.00%: try" in sentence(1500)
    assert "overfits: try" in sentence(1350)


def test_strict_names_the_run_and_leaves_sound_ones_alone(board_runs: Runs) -> None:
    sound, lost = one(board_runs, 0.3), one(board_runs, 0.5)
    refuse_untrusted([("a", sound)])
    with pytest.raises(RecBoleDTNError, match=r"^strict: 1 of 2 runs have results that are not to be trusted; b: task"):
        refuse_untrusted([("a", sound), ("b", lost)])


def test_a_board_marks_the_row_and_says_which_runs(board_runs: Runs) -> None:
    losses = [0.30, 0.32, 7.0]
    runs = [one(board_runs, loss).model_copy(update={"seed": seed}) for seed, loss in enumerate(losses)]
    sound = board_runs("PLE", 0.7, range(3))
    rows = summarise([*runs, *sound])
    # The mean is that of all runs, (.30 + .32 + 7) / 3, and says so.
    assert rows[0].metrics[Metric("test", "like", "logloss")].mean == pytest.approx(2.54)
    assert [{seed: tasks for (_, seed), tasks in row.worse.items()} for row in rows] == [{2: ("like",)}, {}]
    text = markdown(rows)
    assert "| MMoE ‡ |" in text
    assert "| PLE |" in text
    assert "learned from rows with another share. Such runs are in the means: MMoE ‡ 1 of 3 (like; seed 2)." in text
    out = io.StringIO()
    print_board(rows, Console(file=out, width=200))
    assert "MMoE ‡" in out.getvalue()
    lines = list(csv.DictReader(io.StringIO(board_csv(rows))))
    found = {(line["name"], line["runs"], line["runs_above_constant"]) for line in lines}
    assert found == {("MMoE", "3", "1"), ("PLE", "3", "0")}
