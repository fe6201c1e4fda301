"""Win rates, Elo and mean ranks over several data sets, against worked numbers and scipy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from scipy import stats

from recbole_dtn.leaderboard.across import Across, across, across_csv, critical_groups
from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.render import markdown
from recbole_dtn.leaderboard.statistics import BoardRow, summarise
from recbole_dtn.record.record import RunRecord

Runs = Callable[..., list[RunRecord]]
AUCS = Mapping[str, Mapping[str, float]]


@pytest.fixture
def rows_of(board_runs: Runs) -> Callable[[AUCS], list[BoardRow]]:
    """Rows from ``{data set: {model: AUC}}``."""

    def rows(aucs: AUCS) -> list[BoardRow]:
        return summarise(
            run
            for dataset, models in aucs.items()
            for model, auc in models.items()
            for run in board_runs(model, auc, [1], dataset=dataset)
        )

    return rows


def found_of(rows: list[BoardRow]) -> Across:
    found = across(rows)
    assert found is not None
    return found


def test_two_rows_by_hand(rows_of: Callable[[AUCS], list[BoardRow]]) -> None:
    # A wins three games of four: without the prior the odds are 3 to 1, 400 log10(3) = 190.8 points.
    aucs = {f"d{i}": {"A": 0.8, "B": 0.7 if i else 0.9} for i in range(4)}
    assert "no intervals with fewer than 5 data sets" in markdown(rows_of(aucs))
    best, other = found_of(rows_of(aucs)).standings
    assert (best.name, best.wins, other.wins) == ("A", 0.75, 0.25)
    assert best.elo + other.elo == pytest.approx(2000)
    # With it: 4 (.75 - s(d)) = .1 d / 2, d the difference of both ratings in natural units.
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        if 4 * (0.75 - 1 / (1 + math.exp(-middle))) > 0.1 * middle / 2:
            low = middle
        else:
            high = middle
    assert best.elo - other.elo == pytest.approx(low * 400 / math.log(10), abs=1e-4)
    assert best.elo - other.elo < 400 * math.log10(3)
    assert (best.low, best.high, best.rank) == (None, None, None)


def test_ratings_have_intervals_from_five_data_sets_on(rows_of: Callable[[AUCS], list[BoardRow]]) -> None:
    rows = rows_of({f"d{i}": {"A": 0.8, "B": 0.7 if i else 0.9} for i in range(5)})
    best = found_of(rows).standings[0]
    assert best.low is not None
    assert best.high is not None
    assert best.low < best.elo < best.high
    assert f"{best.elo:.0f} | {best.low:.0f} to {best.high:.0f} |" in markdown(rows)


def test_tasks_share_a_game_and_ties_count_half(board_runs: Runs) -> None:
    def run(model: str, like: float, love: float, dataset: str) -> list[RunRecord]:
        return board_runs(model, 0.5, [1], dataset=dataset, test={"like": {"auc": like}, "love": {"auc": love}})

    runs = [*run("A", 0.8, 0.6, "d"), *run("B", 0.7, 0.7, "d"), *run("A", 0.8, 0.6, "e"), *run("B", 0.8, 0.5, "e")]
    wins = {each.name: each.wins for each in found_of(summarise(runs)).standings}
    # d: one task each. e: a tie and a win.
    assert wins == {"A": (0.5 + 0.75) / 2, "B": (0.5 + 0.25) / 2}


def test_related_data_sets_are_one_block(rows_of: Callable[[AUCS], list[BoardRow]]) -> None:
    aucs = {f"aliexpress-{c}": {"A": 0.8, "B": 0.7} for c in ("nl", "es", "fr")} | {"films": {"A": 0.6, "B": 0.7}}
    rows = rows_of(aucs)
    found = found_of(rows)
    assert found.blocks == {"aliexpress": ("aliexpress-nl", "aliexpress-es", "aliexpress-fr"), "films": ("films",)}
    assert [each.wins for each in found.standings] == [0.5, 0.5], "three countries count as one"
    assert "Related data sets count as one: aliexpress: aliexpress-nl" in markdown(rows)
    assert across(rows[:6]) is None, "one block"


def test_a_row_that_lacks_a_data_set_is_left_out(rows_of: Callable[[AUCS], list[BoardRow]]) -> None:
    found = found_of(rows_of({"d": {"A": 0.8, "B": 0.7, "C": 0.9}, "e": {"A": 0.8, "B": 0.7}}))
    assert ({each.name for each in found.standings}, found.left_out) == ({"A", "B"}, ("C",))


def test_mean_ranks_from_ten_data_sets_on(rows_of: Callable[[AUCS], list[BoardRow]], board_runs: Runs) -> None:
    random = np.random.default_rng(3)
    values = random.random((10, 4)) * 0.1 + np.array([0.6, 0.65, 0.7, 0.71])
    aucs = {f"d{i}": {f"M{j}": float(values[i, j]) for j in range(4)} for i in range(10)}
    rows = rows_of(aucs)
    found = found_of(rows)
    ranks = np.stack([stats.rankdata(-line) for line in values]).mean(0)
    assert {each.name: each.rank for each in found.standings} == pytest.approx({f"M{j}": ranks[j] for j in range(4)})
    assert found.p == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    # Demsar, table 5: q of four rows at .05 is 2.569.
    assert found.difference == pytest.approx(2.569 * math.sqrt(4 * 5 / 60), abs=1e-3)
    for low, high in critical_groups(found):
        assert 0 < high - low <= (found.difference or 0)
    assert found_of([row for row in rows if row.dataset != "d9"]).difference is None
    text = board_page([[row for row in rows if row.dataset == name] for name in aucs], [
        run for name, models in aucs.items() for model, auc in models.items()
        for run in board_runs(model, auc, [1], dataset=name)
    ], "b")  # fmt: skip
    assert text.count('<circle class="mean"') == 4
    assert "critical difference 1.48" in text
    assert across_csv(found).splitlines()[0].startswith("name,win_rate,elo,")
    assert across_csv(found) == across_csv(found_of(rows)), "the same bytes"
