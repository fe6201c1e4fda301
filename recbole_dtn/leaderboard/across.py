"""A leaderboard over several data sets: win rates, Elo ratings with intervals, and mean ranks where there are many.

As TabArena (Erickson et al., NeurIPS 2025) does: every pair of rows plays once per data set, and intervals are those of
a bootstrap over data sets. Related data sets are one block: they count as one and are drawn together. These are the
countries of AliExpress, the data sets of one log or census, and all planted ones, whose first task may be the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_dtn.leaderboard.compare import compared_metric
from recbole_dtn.leaderboard.details import Table
from recbole_dtn.leaderboard.statistics import REACH, BoardRow, by_dataset, more_is_better
from recbole_dtn.report.tables import csv_text
from recbole_dtn.report.text import NONE, decimal, p_value, share

__all__ = ["RANKS_NEED", "Across", "Standing", "across", "across_csv", "across_table", "block_of", "critical_groups"]

FAMILIES = ("aliccp", "aliexpress", "census-income", "kuairand")
"""Data sets whose names are or begin so are related: they share rows or users."""
PLANTED = "planted"
"""The block of data whose best AUC is known."""
RANKS_NEED = 10
"""Fewest blocks for mean ranks with a critical difference (Demsar, JMLR 2006)."""
INTERVALS_NEED = 5
"""Fewest blocks for intervals of the ratings: of fewer, a bootstrap has hardly any different draws."""
DRAWS = 500
SEED = 2020
MEAN_ELO = 1000.0
SCALE = 400 / math.log(10)
PRIOR = 0.1
"""Weight of the ratings' squares in the fit: a row that won every game would otherwise rate infinitely high."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """One row over all blocks.

    Attributes:
        wins: the share of its games that it won, a tie counting half.
        elo: its rating, with a 95 % interval; None with fewer than :data:`INTERVALS_NEED` blocks.
        rank: its mean rank over the blocks, 1 the best; None with fewer than :data:`RANKS_NEED` blocks.
    """

    name: str
    wins: float
    elo: float
    low: float | None
    high: float | None
    rank: float | None = None


@dataclass(frozen=True)
class Across:
    """Rows over several data sets, the best first.

    Attributes:
        blocks: the data sets of each block. left_out: rows that are not on all data sets.
        p: of Friedman's test that all rows rank alike. difference: critical difference of mean ranks (Nemenyi, .05).
    """

    standings: tuple[Standing, ...]
    blocks: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()
    p: float | None = None
    difference: float | None = None


def block_of(dataset: str) -> str:
    """The block of a data set: its family, or itself.

    >>> block_of("aliexpress-nl"), block_of("census-income"), block_of("ml-100k")
    ('aliexpress', 'census-income', 'ml-100k')
    """
    return next((family for family in FAMILIES if f"{dataset}-".startswith(f"{family}-")), dataset)


def across(rows: Sequence[BoardRow]) -> Across | None:
    """The rows over all data sets; None with fewer than two blocks, or two rows that are on all data sets.

    A game of two rows on a data set is won by the better mean of the test metric, for each task; the tasks of a data
    set and the data sets of a block share one game.
    """
    sets = by_dataset(rows)
    names = [name for name in dict.fromkeys(row.name for row in rows) if all(
        any(row.name == name for row in of_set) for of_set in sets.values())]  # fmt: skip
    blocks: dict[str, list[str]] = {}
    for dataset in sets:
        planted = any(metric.name == REACH for row in sets[dataset] for metric in row.metrics)
        blocks.setdefault(PLANTED if planted else block_of(dataset), []).append(dataset)
    if len(blocks) < 2 or len(names) < 2:
        return None
    wins = {dataset: _wins(of_set, names) for dataset, of_set in sets.items()}
    # (blocks, rows, rows): the share of the game that the first wins.
    of_block = np.stack([np.mean([wins[dataset] for dataset in datasets], axis=0) for datasets in blocks.values()])
    elo = _elo(of_block.mean(0), len(blocks))
    low, high = _elo_interval(of_block) if len(blocks) >= INTERVALS_NEED else (None, None)
    rate = of_block.mean(0).sum(1) / (len(names) - 1)
    ranks, p, difference = _ranks(of_block)
    standings = [
        Standing(name, float(rate[i]), float(elo[i]),
                 *(None if values is None else float(values[i]) for values in (low, high, ranks)))
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Across(
        tuple(sorted(standings, key=lambda each: -each.elo)),
        {name: tuple(datasets) for name, datasets in blocks.items()},
        tuple(name for name in dict.fromkeys(row.name for row in rows) if name not in names),
        p,
        difference,
    )


def _wins(rows: Sequence[BoardRow], names: Sequence[str]) -> Floats:
    """(rows, rows) the share of a game that each wins of each other, the mean over the tasks; 0 of itself."""
    by_name = {row.name: row for row in rows}
    games = []
    for task in by_name[names[0]].tasks:
        metric = compared_metric(by_name[names[0]], task)
        if metric is None:
            continue
        sign = 1 if more_is_better(metric.name) else -1
        means = [found.mean if (found := by_name[name].metrics.get(metric)) else None for name in names]
        # Undefined is worse than any number, and ties with undefined.
        values = np.array([-math.inf if mean is None else sign * mean for mean in means])
        games.append((values[:, None] > values) + 0.5 * (values[:, None] == values))
    wins: Floats = np.mean(games, axis=0) if games else np.full((len(names), len(names)), 0.5)
    np.fill_diagonal(wins, 0.0)
    return wins


def _elo(wins: Floats, games: int) -> Floats:
    """Ratings of the Bradley-Terry model by Newton's method, with mean 1000; 400 points are odds of 10 to 1.

    Maximises ``sum of games x wins_ij log s(r_i - r_j) - PRIOR / 2 sum r_i^2``.

    Args:
        wins: (rows, rows) the share that each wins of each other. games: of each pair.
    """
    number = len(wins)
    ratings = np.zeros(number)
    for _ in range(50):
        chance = 1 / (1 + np.exp(ratings[None] - ratings[:, None]))
        gradient = games * (wins - chance).sum(1) + games * np.diag(chance) - PRIOR * ratings
        weight = games * chance * (1 - chance)
        np.fill_diagonal(weight, 0.0)
        curvature = np.diag(weight.sum(1) + PRIOR) - weight
        step = np.linalg.solve(curvature, gradient)
        ratings = ratings + step
        if np.abs(step).max() < 1e-10:
            break
    found: Floats = MEAN_ELO + SCALE * (ratings - ratings.mean())
    return found


def _elo_interval(of_block: Floats) -> tuple[Floats, Floats]:
    """95 % interval of the ratings, over draws of blocks."""
    random, number = np.random.default_rng(SEED), len(of_block)
    drawn = np.stack([_elo(of_block[random.integers(number, size=number)].mean(0), number) for _ in range(DRAWS)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


def _ranks(of_block: Floats) -> tuple[Floats | None, float | None, float | None]:
    """Mean ranks, Friedman's p, and Nemenyi's critical difference; None with few blocks or fewer than three rows."""
    blocks, number = of_block.shape[:2]
    if blocks < RANKS_NEED or number < 3:
        return None, None, None
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    points = of_block.sum(2)
    ranks = np.stack([rankdata(-of) for of in points])
    p = float(friedmanchisquare(*points.T).pvalue)
    spread = math.sqrt(number * (number + 1) / (6 * blocks))
    return ranks.mean(0), p, float(studentized_range.ppf(0.95, number, math.inf)) / math.sqrt(2) * spread


def across_table(found: Across) -> tuple[Table, list[str]]:
    """The table over all data sets, and the notes to it."""
    ranked = found.difference is not None
    cells = [
        [each.name, share(each.wins, 1), f"{each.elo:.0f}",
         NONE if each.low is None or each.high is None else f"{each.low:.0f} to {each.high:.0f}",
         *([decimal(each.rank, 2)] if ranked else [])]
        for each in found.standings
    ]  # fmt: skip
    columns = ["model", "win rate", "Elo", "95 % interval", *(["mean rank"] if ranked else [])]
    related = [f"{name}: {', '.join(sets)}" for name, sets in found.blocks.items() if len(sets) > 1]
    notes = [
        f"Each pair of rows plays once on each of {len(found.blocks)} data sets, by the mean test metric of each task. "
        "Elo: mean 1000, 400 points are odds of 10 to 1; "
        + (f"interval of {DRAWS:,} draws of data sets." if len(found.blocks) >= INTERVALS_NEED
           else f"no intervals with fewer than {INTERVALS_NEED} data sets.")
    ]  # fmt: skip
    notes += [f"Related data sets count as one: {'; '.join(related)}."] if related else []
    notes += [f"Not on all data sets, and left out: {', '.join(found.left_out)}."] if found.left_out else []
    if ranked:
        notes.append(
            f"Friedman's test that all rank alike: p {p_value(found.p)}. Mean ranks closer than "
            f"{decimal(found.difference, 2)} do not differ (Nemenyi, .05)."
        )
    else:
        notes.append(f"With fewer than {RANKS_NEED} data sets there are no mean ranks with a critical difference.")
    return Table("all data sets", columns, cells), notes


def across_csv(found: Across) -> str:
    """A line per row, with eight digits: those behind them differ between builds of numpy."""
    lines = [
        (each.name, *map(_rounded, (each.wins, each.elo, each.low, each.high, each.rank, found.p, found.difference)))
        for each in found.standings
    ]
    columns = ("name", "win_rate", "elo", "elo_low", "elo_high", "mean_rank", "friedman_p", "critical_difference")
    return csv_text(columns, lines)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.8g}")


def critical_groups(found: Across) -> list[tuple[float, float]]:
    """Rows, by mean rank, that do not differ: the bars of a critical-difference plot, each from rank to rank."""
    ordered = sorted(each.rank for each in found.standings if each.rank is not None)
    bars: list[tuple[float, float]] = []
    for start in ordered:
        reach = [rank for rank in ordered if start <= rank <= start + (found.difference or 0.0)]
        if len(reach) > 1 and not any(low <= reach[0] and reach[-1] <= high for low, high in bars):
            bars.append((reach[0], reach[-1]))
    return bars
