"""Two tasks that depend on pairs of fields, written as atomic files; how much they have in common is an option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.data.hashing import Floats, effects, rng, uniform
from recbole_dtn.data.write import write_dataset_yaml
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.synthetic.faults import LineFile
from recbole_dtn.synthetic.layout import DrawnBlock, Part, Place, Plan, SyntheticLayout, check_rates
from recbole_dtn.synthetic.planted import Field, Goal, Labels

__all__ = ["FIRST", "SECOND", "PlantedPairs", "dataset_yaml"]

FIRST, SECOND = "first", "second"
DIFFER = ("tables", "pairs")
TRUTH = "truth.test.csv"
TRAIN, VALID = 0.7, 0.1
"""Shares of the rows; the others are test rows."""


class PlantedPairs(SyntheticLayout):
    """Tasks ``first`` and ``second`` whose log-odds are sums of tables over pairs of fields.

    ``fields`` columns hold tokens 0 to ``ids`` - 1, drawn uniformly and independently. Nothing depends on one field
    alone but for the chance of a table's row means.

    Args:
        plan: rows, seed and the like; the seed draws the pairs, their tables and the rows. ``overlap`` is what the
            tasks have in common, 1: the log-odds are the same but for the intercept.
        differ_in: ``tables``: both tasks have the same pairs of fields, and ``overlap`` is the correlation of their
            tables, -1 (the sign flipped) to 1. ``pairs``: they share this part of their pairs, with one table for both,
            0 to 1; the other pairs and tables are their own.
        fields, ids: columns, and tokens of each. first_rate, second_rate: shares of positives among all rows.
        chain: a row can be positive for ``second`` only where it is for ``first``.

    Raises:
        UsageError: for an option out of its range.
    """

    name = "planted"
    unit = "rows"
    atomic = True
    least_overlap = -1

    def __init__(
        self,
        plan: Plan,
        *,
        differ_in: str = "tables",
        fields: int = 12,
        ids: int = 20,
        first_rate: float = 0.3,
        second_rate: float = 0.05,
        chain: bool = False,
    ) -> None:
        check_rates(first_rate=first_rate, second_rate=second_rate)
        if differ_in not in DIFFER:
            raise UsageError(f"--differ_in={differ_in}: expected tables or pairs; {nearest(differ_in, DIFFER)}")
        for name, value, low, high in (("fields", fields, 3, 200), ("ids", ids, 2, 1_000_000)):
            if not low <= value <= high:
                raise UsageError(f"--{name}: expected a number from {low} to {high}; found {value}")
        if differ_in == "pairs" and plan.overlap < 0:
            raise UsageError(
                f"--overlap={plan.overlap}: with --differ_in=pairs a share from 0 to 1; a negative overlap is one of "
                "tables (--differ_in=tables)"
            )
        if chain and second_rate >= first_rate:
            raise UsageError(
                f"--second_rate={second_rate}: expected less than --first_rate={first_rate}, which it is a part of "
                "with --chain=true"
            )
        if plan.faults:
            raise UsageError("--faults: this layout writes atomic files, which have no faulty rows; leave it out")
        self.differ_in, self.fields, self.ids, self.chain = differ_in, fields, ids, chain
        self.rates = first_rate, second_rate
        found = list(combinations(range(fields), 2))
        order = np.argsort(uniform(f"{plan.seed}|pairs", np.arange(len(found))), kind="stable")
        self.pairs = {f"f{a}*f{b}": (a, b) for a, b in (found[place] for place in order)}
        self.files: dict[str, LineFile] = {}
        self.truth: LineFile | None = None
        super().__init__(plan)
        # The pairs that the tasks share come first among those of each.
        shared = round(plan.overlap * plan.informative) if differ_in == "pairs" else plan.informative
        self.common = set(list(self.pairs)[:shared])

    def goals(self) -> tuple[Goal, ...]:
        pairs = tuple(Field(name, "pair") for name in self.pairs)
        first, second = self.rates
        after = FIRST if self.chain else None
        # The rate of a task in a chain is that among the rows of the task before.
        return Goal(FIRST, first, pairs), Goal(SECOND, second / first if self.chain else second, pairs, after)

    def shared(self) -> float:
        return self.plan.overlap if self.differ_in == "pairs" else 1.0

    def parts(self) -> list[Part]:
        rows = self.plan.rows
        train, valid = round(TRAIN * rows), max(1, round(VALID * rows))
        return [
            Part("train", train, "train"),
            Part("valid", valid, "valid"),
            Part("test", rows - train - valid, "test"),
        ]

    def notes(self) -> list[str]:
        return [
            f"f<a>*f<b> is a table of {self.ids} x {self.ids} effects, one per pair of tokens",
            f"the true probabilities of the test rows are in {TRUTH}, in the order of the rows",
        ]

    def draw(self, part: Part, block: int, rows: int, needed: Sequence[tuple[str, Field]]) -> DrawnBlock:
        random = rng(self.plan.seed, f"rows|{part.name}", block)
        tokens = (random.random((self.fields, rows)) * self.ids).astype(np.int64)
        found = {(task, one.name): self._effect(task, one.name, tokens) for task, one in needed}
        return DrawnBlock(part, block, rows, found, {"tokens": tokens})

    def _effect(self, task: str, pair: str, tokens: Any) -> Floats:
        """The effect of a pair of fields on every row: the entry of its table."""
        a, b = self.pairs[pair]
        found: Floats = self.table(task, pair)[tokens[a], tokens[b]]
        return found

    def table(self, task: str, pair: str) -> Floats:
        """The (ids, ids) effects of a pair on a task: ``r e_first + sqrt(1 - r^2) e_second`` of the second task.

        r is the overlap where the tasks differ in tables, 1 for a pair that they share, and 0 for one that they do not.
        """
        keys = np.arange(self.ids**2)
        shape = self.ids, self.ids
        first = effects(self.plan.seed, FIRST, pair, keys).reshape(shape)
        if task == FIRST:
            return first
        own = effects(self.plan.seed, SECOND, pair, keys).reshape(shape)
        r = self.plan.overlap if self.differ_in == "tables" else float(pair in self.common)
        found: Floats = r * first + math.sqrt(1 - r * r) * own
        return found

    def open(self, place: Place) -> None:
        names = [f"f{k}" for k in range(self.fields)]
        header = "\t".join([*(f"{name}:token" for name in names), f"{FIRST}:float", f"{SECOND}:float"])
        for part in ("train", "valid", "test"):
            self.files[part] = place.open(f"{place.name}.{part}.inter")
            self.files[part].header(header)
        self.truth = place.open(TRUTH)
        self.truth.header(f"{FIRST},{SECOND}")
        about = f"Made by `preprocess synthetic --like=planted --seed={self.plan.seed}`; see planted.json."
        write_dataset_yaml(place.folder / f"{place.name}.yaml", dataset_yaml(self.fields, chain=self.chain), about)

    def write(self, block: DrawnBlock, labels: Labels) -> None:
        columns = {f"f{k}": pl.Series(tokens) for k, tokens in enumerate(block.data["tokens"])}
        columns |= {task: pl.Series(labels.label[task].astype(np.int64)) for task in (FIRST, SECOND)}
        text = pl.DataFrame(columns).write_csv(include_header=False, separator="\t")
        self.files[block.part.name].write(text.encode(), block.rows)
        if block.part.name == "test":
            assert self.truth is not None
            true = pl.DataFrame({task: labels.joint[task] for task in (FIRST, SECOND)})
            self.truth.write(true.write_csv(include_header=False).encode(), block.rows)


def dataset_yaml(fields: int, *, chain: bool) -> dict[str, Any]:
    """The data set's YAML: ``fields`` columns of tokens, two tasks, and parts in files of their own."""
    second: dict[str, Any] = {"name": SECOND, "label": SECOND}
    return {
        "fields": [{"name": f"f{k}"} for k in range(fields)],
        "tasks": [{"name": FIRST, "label": FIRST}, second | ({"after": [FIRST]} if chain else {})],
        "split": "given",
    }
