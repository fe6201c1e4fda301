"""Synthetic Census-Income (KDD): ``census-income.data`` and ``census-income.test``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.data.hashing import Floats, effects, rng, text_key
from recbole_dtn.synthetic.census_values import COLUMNS, shares
from recbole_dtn.synthetic.faults import LineFile, spoil
from recbole_dtn.synthetic.layout import DrawnBlock, Part, Place, Plan, SyntheticLayout, check_rates
from recbole_dtn.synthetic.planted import Field, Goal, Labels, number_effect

__all__ = ["CensusIncome"]

INCOME_RATE, NEVER_RATE = 0.062, 0.4325
NEVER = "Never married"
LABELS = ("marital_stat", "income_50k")
FAULTS = ("fields", "separator", "label", "overflow", "text", "utf8", "blank")
AMOUNTS = {
    # share of rows above 0, smallest, largest
    "wage_per_hour": (0.056, 100, 9_900),
    "capital_gains": (0.037, 114, 99_999),
    "capital_losses": (0.019, 155, 4_608),
    "stock_dividends": (0.106, 1, 99_999),
}


class CensusIncome(SyntheticLayout):
    """Income above 50,000 dollars, and never married: two tasks without an order.

    Each column is drawn by itself with the frequencies of the real file, so that no two inputs depend on each other.

    Args:
        plan: rows (persons of both files), seed and the like. income_rate: P(income above 50,000).
        never_rate: P(never married).
    """

    name = "census-income"
    unit = "persons"

    def __init__(self, plan: Plan, *, income_rate: float = INCOME_RATE, never_rate: float = NEVER_RATE) -> None:
        check_rates(income_rate=income_rate, never_rate=never_rate)
        self.income_rate, self.never_rate = income_rate, never_rate
        self.tables = {
            name: _Table(shares(name))
            for name in COLUMNS
            if name not in (*AMOUNTS, "age", "instance_weight", "income_50k")
        }
        marital = shares("marital_stat")
        # Drawn among the married and formerly married; the label then puts "Never married" over it.
        marital.pop(NEVER)
        self.tables["marital_stat"] = _Table(marital)
        self.files: dict[str, LineFile] = {}
        super().__init__(plan)

    def goals(self) -> tuple[Goal, ...]:
        age, weeks = Field("age", "number", 35.0, 24.6), Field("weeks_worked", "number", 23.0, 24.4)
        income = (
            _token("education"),
            age,
            _token("major_occ_code"),
            _token("sex"),
            weeks,
            _token("tax_filer_stat"),
            _token("num_emp"),
        )
        never = (
            "det_hh_summ",
            "fam_under_18",
            "race",
            "hisp_origin",
            "vet_benefits",
            "full_or_part_emp",
            "citizenship",
        )
        return (
            Goal("income", self.income_rate, income),
            Goal("never_married", self.never_rate, (*map(_token, never), *income)),
        )

    def parts(self) -> list[Part]:
        test = max(1, round(self.plan.rows / 3))
        return [Part("train", self.plan.rows - test, "train"), Part("test", test, "test")]

    def notes(self) -> list[str]:
        return [
            "inputs are drawn one by one with the frequencies of the real test part: they do not depend on each other, "
            "on the other label or on instance_weight, as the real ones do",
            "income is 'income_50k is 50000+.', never_married is 'marital_stat is Never married'; given the inputs, "
            "neither depends on the other",
        ]

    def draw(self, part: Part, block: int, rows: int, needed: Sequence[tuple[str, Field]]) -> DrawnBlock:
        random = rng(self.plan.seed, f"rows|{part.name}", block)
        data: dict[str, Any] = {}
        for name in COLUMNS:
            # Also for columns that do not use it: the stream of the others stays the same.
            u = random.random(rows)
            if name in self.tables:
                data[name] = self.tables[name].codes(u)
            elif name == "age":
                # 0 to 90, young ages more often.
                data[name] = (91 * u**1.6).astype(np.int64)
            elif name in AMOUNTS:
                data[name] = _amounts(u, *AMOUNTS[name])
            elif name == "instance_weight":
                data[name] = np.round(40 + 1640 * (2 * random.random((4, rows)).sum(0) / 4) ** 1.5, 2)
        found = {(task, one.name): self._effect(task, one, data[one.name]) for task, one in needed}
        return DrawnBlock(part, block, rows, found, data)

    def _effect(self, task: str, one: Field, values: Any) -> Floats:
        seed = self.plan.seed
        if one.name == "age":
            return number_effect(seed, task, one, values.astype(np.float64))
        table = self.tables[one.name]
        if one.kind == "number":
            found: Floats = number_effect(seed, task, one, np.array([float(text) for text in table.texts]))[values]
            return found
        # One effect per distinct text, then one look-up per row.
        keys = np.array([text_key(text.strip()) for text in table.texts], dtype=np.uint64)
        found = effects(seed, task, one.name, keys)[values]
        return found

    def open(self, place: Place) -> None:
        def make(kind: str, line: bytes) -> bytes:
            if kind == "label":  # the label ends with a full stop, as in the real files
                return line.rpartition(b", ")[0] + b", 7."
            return spoil(kind, line, number=0, separator=b", ")

        for part, file in (("train", "census-income.data"), ("test", "census-income.test")):
            self.files[part] = place.open(file, FAULTS, make)

    def write(self, block: DrawnBlock, labels: Labels) -> None:
        columns: dict[str, pl.Series] = {}
        for name in COLUMNS[:-1]:
            values = block.data[name]
            columns[name] = self.tables[name].series(values) if name in self.tables else pl.Series(values)
        never = pl.Series(labels.label["never_married"] > 0)
        frame = pl.DataFrame(columns).with_columns(
            pl.when(never).then(pl.lit(NEVER)).otherwise(pl.col("marital_stat")).alias("marital_stat"),
            pl.when(pl.Series(labels.label["income"] > 0))
            .then(pl.lit("50000+."))
            .otherwise(pl.lit("- 50000."))
            .alias("income_50k"),
        )
        lines = frame.select(pl.concat_str([pl.col(name).cast(pl.String) for name in COLUMNS], separator=", "))
        text = "\n".join(lines.to_series().to_list()) + "\n"
        self.files[block.part.name].write(text.encode(), block.rows)


class _Table:
    """The values of a column with their shares."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.texts = list(counts)
        self.bounds = np.cumsum(list(counts.values()), dtype=np.float64) / sum(counts.values())

    def codes(self, u: Floats) -> Any:
        """The value drawn by each uniform number, as its place in ``texts``."""
        return np.minimum(np.searchsorted(self.bounds, u, side="right"), len(self.texts) - 1)

    def series(self, codes: Any) -> pl.Series:
        """The texts of codes."""
        return pl.Series(self.texts).gather(codes)


def _token(name: str) -> Field:
    return Field(name)


def _amounts(u: Floats, share: float, least: int, most: int) -> Any:
    """0, and in ``share`` of the rows a whole number between two bounds, small ones more often."""
    return np.where(u < share, np.floor(least * (most / least) ** (u / share)), 0).astype(np.int64)
