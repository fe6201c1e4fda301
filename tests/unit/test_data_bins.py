"""Edges of bins: quantiles where none is empty, else values of their own and the quantiles of the others."""

import io

import numpy as np
import pytest
from rich.console import Console

from recbole_dtn.config.load import resolve
from recbole_dtn.data.bins import bin_edges
from recbole_dtn.data.floats import bin_ids
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.training.report import Report


def edges_of(values, bins):
    return bin_edges([(np.asarray(values, np.float64), None)], bins)


def rows_per_bin(values, edges):
    return np.bincount(bin_ids(np.asarray(values, np.float64), edges) - 2, minlength=len(edges) + 1).tolist()


def test_without_equal_quantiles_the_edges_are_those_of_numpy():
    values = np.random.default_rng(0).normal(5, 2, 997)
    expected = np.quantile(values.astype(np.float32).astype(np.float64), np.linspace(0, 1, 21)[1:-1])
    assert edges_of(values, 20) == tuple(expected.astype(np.float32).astype(float).tolist())


def test_a_value_that_holds_most_rows_has_a_bin_of_its_own():
    # 5 bins: 0 takes one. Of the 12 others 3 belong to a bin; 7 occurs three times, the others once.
    values = [0] * 88 + [1, 2, 3, 4, 5, 6, 7, 7, 7, 8, 9, 10]
    assert edges_of(values, 5) == (1, 4, 7, 8)
    assert rows_per_bin(values, edges_of(values, 5)) == [88, 3, 3, 3, 3]


def test_values_become_heavy_once_heavier_ones_have_their_bins():
    # 100 rows, 4 bins: 0 is above 25; of the other 40 rows, 1 is above 40 / 3; of the other 20, 9 is not above 20 / 2.
    values = [0] * 60 + [1] * 20 + [5] * 3 + [6] * 3 + [7] * 4 + [9] * 10
    assert edges_of(values, 4) == (1, 5, 9)
    assert rows_per_bin(values, (1, 5, 9)) == [60, 20, 10, 10]


def test_bins_on_both_sides_of_a_heavy_value_follow_the_rows():
    # 0 takes one of 6 bins; below it are 4 rows, above it 16: one bin and four.
    values = [-4, -3, -2, -1] + [0] * 80 + list(range(1, 17))
    assert edges_of(values, 6) == (0, 1, 5, 9, 13)
    assert rows_per_bin(values, edges_of(values, 6)) == [4, 80, 4, 4, 4, 4]


def test_a_heavy_value_shares_its_bin_where_too_few_are_left():
    # 4 bins are too few for 0 and 2 alone and the rows below, between and above: 2, the lighter, joins its neighbours.
    # The 34 rows of 1 to 7 have two bins: the cut behind 2 leaves 31 and 3, nearer to 17 than that before it.
    values = [-3, -2, -1] + [0] * 60 + [1] + [2] * 30 + [5, 6, 7]
    assert edges_of(values, 4) == (0, 1, 5)
    assert rows_per_bin(values, (0, 1, 5)) == [3, 60, 31, 3]


@pytest.mark.parametrize("bins", [3, 4, 10])
def test_a_few_values_have_a_bin_each(bins):
    values = [7.5] * 2 + [-1] * 70 + [30] * 5
    assert edges_of(values, bins) == (7.5, 30)


def test_one_value_and_none():
    assert edges_of([4] * 9, 10) == (4,)
    assert edges_of([], 10) == (0,)


@pytest.mark.parametrize("seed", range(40))
def test_as_many_bins_as_wanted_or_as_there_are_values_and_none_is_empty(seed):
    random = np.random.default_rng(seed)
    rows, bins = int(random.integers(2, 400)), int(random.integers(2, 30))
    sizes = np.round(np.exp(random.normal(0, random.uniform(0.3, 2), rows)), int(random.integers(0, 3)))
    values = np.where(random.random(rows) < random.random(), 0, sizes * random.choice([-1, 1], rows))
    found = rows_per_bin(values, edges_of(values, bins))
    distinct = len(np.unique(values.astype(np.float32)))
    assert len(found) == max(min(bins, distinct), 2)
    assert distinct == 1 or min(found) > 0
    # The same from values and their counts, in any order, with values that no row has.
    once, counts = np.unique(values, return_counts=True)
    order = random.permutation(len(once) + 1)
    once, counts = np.append(once, 5e6)[order], np.append(counts, 0)[order]
    blocks = zip(np.array_split(once, 2), np.array_split(counts, 2), strict=True)
    assert bin_edges(blocks, bins) == edges_of(values, bins)


def test_the_bins_that_were_made_are_those_of_recbole_and_their_number_is_told(tmp_path):
    amounts = [0.0] * 90 + list(range(1, 11))
    values = {"amount": amounts, "grade": [1.0, 2.0, 5.0, 5.0] * 25, "size": amounts}
    rows = ["\t".join(f"{column[i]:g}" for column in values.values()) + f"\t{i % 2}" for i in range(100)]
    header = "\t".join([*(f"{name}:float" for name in values), "y:float"])
    (tmp_path / "toy").mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / "toy" / f"toy.{part}.inter").write_text("\n".join([header, *rows]) + "\n")
    bins = {"type": "float", "encoding": "bins", "bins": 5}
    fields = [{"name": "amount", **bins}, {"name": "grade", **bins}, {"name": "size", "type": "float"}]
    fields[2]["encoding"] = "log1p"
    given = {"dataset": "toy", "data_path": str(tmp_path), "split": "given", "fields": fields}
    settings = resolve({**given, "model": "MMoE", "tasks": [{"name": "y", "label": "y"}]}).settings
    prepared = prepare(settings)
    assert [spec.bins for spec in prepared.schema.fields] == [(1, 3, 6, 8), (2, 5), ()]
    arrays = {name: np.array(column) for name, column in values.items()}
    assert Vocabularies.from_counts(settings.fields, {}, arrays).fields == prepared.vocabularies.fields
    out = io.StringIO()
    Report(Console(file=out, width=100)).data("toy", prepared, 0.0)
    lines = out.getvalue().splitlines()
    for name, kind in (("amount", "number in 5 bins"), ("grade", "number in 3 bins"), ("size", "logarithm")):
        (line,) = [line for line in lines if line.startswith(name)]
        assert f" {kind} " in line
    assert [field.vocabulary for field in inspect(prepared, quick=True).fields] == [5, 3, 0]
