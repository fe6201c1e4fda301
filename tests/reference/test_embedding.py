"""The joint embedding table against field-by-field numpy, and by hand."""

import numpy as np
import pytest
import torch

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.layers.compression import Compression, row_blocks
from recbole_dtn.layers.embedding import EmbeddingTable, pool
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import tiny_features, tiny_schema
from recbole_dtn.testing.numeric import check_reference, embed

TASKS = (TaskSpec("t", "binary", "y"),)

SCHEMAS = {
    "single ids": tiny_schema(multi=(), dense=0),
    "one field": tiny_schema(tokens=1, multi=(), dense=0),
    "every kind": tiny_schema(),
    "weighted": tiny_schema(weighted=True),
    "two numbers": tiny_schema(tokens=2, multi=("mean",), dense=2),
    "no single id": tiny_schema(tokens=0, multi=("mean", "sum"), dense=1),
    "numbers alone": tiny_schema(tokens=0, multi=(), dense=3),
}


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("name", SCHEMAS)
def test_equals_field_by_field(name, rows):
    schema = SCHEMAS[name]
    features = tiny_features(schema, rows, seed=3)
    table = EmbeddingTable(schema, 4, std=0.5)
    assert table(features).shape == (rows, schema.num_fields, 4)
    check_reference(
        table, lambda model: model(features), lambda p: embed(p["table.weight"], schema, features), entries=12
    )


def test_pooling_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [7.0, 1.0]])
    offsets = torch.tensor([0, 2, 2, 3, 4])
    plain = MultiValued(torch.arange(4), offsets)
    weighted = MultiValued(torch.arange(4), offsets, torch.tensor([1.0, 3.0, 0.0, 0.5]))
    assert pool(vectors, plain, "sum").tolist() == [[4, 2], [0, 0], [5, 5], [7, 1]]
    assert pool(vectors, plain, "mean").tolist() == [[2, 1], [0, 0], [5, 5], [7, 1]]
    assert pool(vectors, weighted, "sum").tolist() == [[10, 6], [0, 0], [0, 0], [3.5, 0.5]]
    # The weighted mean divides by the sum of the weights: (1*1 + 3*3) / 4, and .5 * 7 / .5.
    assert pool(vectors, weighted, "mean").tolist() == [[2.5, 1.5], [0, 0], [0, 0], [7, 1]]


def test_continuous_field_by_hand():
    schema = DataSchema((FieldSpec("a", "token", 3, 0), FieldSpec("x", "float", 2, 3)), TASKS)
    table = EmbeddingTable(schema, 2, std=0.1)
    with torch.no_grad():
        table.table.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [7.0, 8.0], [3.0, -1.0]]))
    features = Features(
        ids=torch.tensor([[2, -1], [0, -1], [1, -1]]), dense=torch.tensor([[2.0], [float("nan")], [0.0]])
    )
    out = table(features)
    assert out.tolist() == [[[2, 2], [6, -2]], [[0, 0], [7, 8]], [[1, 1], [0, 0]]]
    out.sum().backward()
    # Row 3 (absent) is read once; row 4 with the values 2 and 0; a NaN reaches no gradient.
    assert table.table.weight.grad.tolist() == [[1, 1], [1, 1], [1, 1], [1, 1], [2, 2]]


def test_one_gather_per_batch_and_never_minus_one(monkeypatch):
    schema = SCHEMAS["weighted"]
    table = EmbeddingTable(schema, 4, std=0.5)
    looked_up = []
    real = table.table.look_up

    def spy(rows, *, batch_size):
        looked_up.append((rows, batch_size))
        return real(rows, batch_size=batch_size)

    monkeypatch.setattr(table.table, "look_up", spy)
    features = tiny_features(schema, 6)
    assert (features.ids == -1).any()
    table(features)
    ((rows, batch_size),) = looked_up
    values = sum(len(many.values) for many in features.multi.values())
    assert len(rows) == 6 * (3 + 1) + values
    assert rows.min() >= 0
    assert rows.max() < schema.num_rows
    assert batch_size == 6


def test_penalty_is_on_the_rows_looked_up():
    schema = tiny_schema(tokens=2, multi=(), dense=0)
    table = EmbeddingTable(schema, 3, std=0.5)
    table.table.l2 = 0.25
    ids = torch.tensor([[2, 9], [2, 10], [3, 9], [0, 8]])
    table(Features(ids=ids))
    squares = (table.table.weight.detach().double().numpy() ** 2).sum(1)
    expected = 0.25 / 2 * squares[ids.flatten().numpy()].sum() / 4
    assert table.table.penalty.item() == pytest.approx(expected, rel=1e-6)
    table.eval()
    table(Features(ids=ids))
    assert table.table.penalty is None


def test_initial_rows():
    schema = tiny_schema(tokens=2, multi=(), dense=0, vocabulary=4000, zero_unknown=[1])
    weight = EmbeddingTable(schema, 8, std=0.01).table.weight.detach()
    second = schema.fields[1].offset + 1
    assert (weight[second] == 0).all()
    assert (weight.abs().sum(1) == 0).sum() == 1
    assert weight[1].abs().min() > 0
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert weight.mean().item() == pytest.approx(0.0, abs=3e-4)


def test_multi_valued_field_of_empty_rows():
    schema = tiny_schema(tokens=1, multi=("mean",), dense=0)
    many = MultiValued(torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    table = EmbeddingTable(schema, 2, std=0.5)
    out = table(Features(ids=torch.tensor([[0, -1], [1, -1]]), multi={1: many}))
    assert np.array_equal(out[:, 1].detach().numpy(), np.zeros((2, 2)))
    out.sum().backward()
    assert table.table.weight.grad.isfinite().all()


@pytest.mark.parametrize("compression", [None, Compression("quotient_remainder", above=6, collisions=3, keep=1)])
@pytest.mark.parametrize("positions", [(0,), (1, 4), (2,), (5, 3, 0), (1, 2, 3, 4)])
@pytest.mark.parametrize("rows", [1, 9])
def test_a_table_of_some_fields_gives_the_columns_of_a_table_of_all(positions, compression, rows):
    schema = tiny_schema(weighted=True, vocabulary=20, zero_unknown=[0, 3])
    features = tiny_features(schema, rows, seed=5)
    some = EmbeddingTable(schema, 4, std=0.5, compression=compression, fields=positions)
    whole = EmbeddingTable(schema, 4, std=0.5, compression=compression)
    kept = sorted(positions)
    blocks = row_blocks(schema, compression)
    start = 0
    with torch.no_grad():
        for position in kept:
            block = blocks[position]
            whole.table.weight[block.offset : block.offset + block.size] = some.table.weight[start : start + block.size]
            assert (some.table.weight[start + 1] == 0).all() == (position in (0, 3))
            start += block.size
    assert some.table.num_embeddings == start + (compression is not None and bool(some.compressed))
    assert some.field_names == tuple(schema.fields[i].name for i in kept)
    assert some.output_dim == 4 * len(kept)
    found = some(features)
    assert torch.equal(found, whole(features)[:, kept])
    found.square().sum().backward()
    whole(features)[:, kept].square().sum().backward()
    start = 0
    for position in kept:
        block = blocks[position]
        gradient = whole.table.weight.grad[block.offset : block.offset + block.size]
        torch.testing.assert_close(some.table.weight.grad[start : start + block.size], gradient)
        start += block.size
