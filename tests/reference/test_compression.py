"""Compressed fields against a table with one row per token, built from the shared rows by the rule itself."""

import numpy as np
import pytest
import torch

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.layers.compression import Compression, row_blocks
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.optim.lazy import LazyAdam
from recbole_dtn.optim.rowwise import SGD, Adagrad, RowwiseAdagrad
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import check_reference, embed

METHODS = {
    "hash": Compression("hash", above=7, collisions=3),
    "hash, two kept": Compression("hash", above=7, collisions=2, keep=2),
    "product": Compression("quotient_remainder", above=7, collisions=3),
    "product, one kept": Compression("quotient_remainder", above=7, collisions=3, keep=1),
    "sum": Compression("quotient_remainder", above=7, collisions=3, operation="sum"),
    "every field": Compression("quotient_remainder", above=1, collisions=2),
}
SCHEMAS = {
    "single ids": tiny_schema(multi=(), dense=0),
    "one field": tiny_schema(tokens=1, multi=(), dense=0, vocabulary=9),
    "every kind": tiny_schema(weighted=True),
    "no single id": tiny_schema(tokens=0, multi=("mean", "sum"), dense=1, vocabulary=7),
}


def one_row_per_token(table, schema, options):
    """The table that an uncompressed model would hold: a row for each id of each field, in the schema's order."""
    rows = []
    place = 0
    for spec in schema.fields:
        tokens = 0 if spec.kind == "float" else spec.size - 2
        shared = tokens - options.keep if tokens > options.above else 0
        m = int(np.ceil(shared / options.collisions))
        own = table[place : place + spec.size - shared]
        place += len(own)
        remainders = table[place : place + m]
        place += m
        rows.extend(own)
        if options.method == "hash":
            rows.extend(remainders[i % m] for i in range(shared))
            continue
        count = int(np.ceil(shared / m)) if shared else 0
        quotients = table[place : place + count]
        place += count
        for i in range(shared):
            first, second = remainders[i % m], quotients[i // m]
            rows.append(first + second if options.operation == "sum" else first * second)
    assert len(table) - place == (options.method == "quotient_remainder"), "every row is used, but for the row of zeros"
    return np.array(rows)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SCHEMAS)
def test_equals_a_row_per_token(name, method, rows):
    schema, options = SCHEMAS[name], METHODS[method]
    features = tiny_features(schema, rows, seed=3)
    table = EmbeddingTable(schema, 4, std=0.5, compression=options)
    assert table.compressed is not None
    assert table(features).shape == (rows, schema.num_fields, 4)
    check_reference(
        table,
        lambda model: model(features),
        lambda p: embed(one_row_per_token(p["table.weight"], schema, options), schema, features),
        entries=12,
    )


def test_by_hand():
    schema = DataSchema((FieldSpec("a", "token", 3, 0), FieldSpec("b", "token", 9, 3)), (TaskSpec("t", "binary", "y"),))
    options = Compression("quotient_remainder", above=4, collisions=2, keep=1)
    table = EmbeddingTable(schema, 1, std=0.1, compression=options)
    # a: 0 1 2;  b: absent 3, unknown 4, first token 5, six tokens on R = 6 7 8 and Q = 9 10;  zeros 11
    assert table.table.weight.shape == (12, 1)
    with torch.no_grad():
        table.table.weight.copy_(torch.tensor([1, 2, 3, 4, 5, 6, 10, 20, 30, 1.5, 3, 0]).unsqueeze(1))
    ids = torch.tensor([[0, 3], [1, 4], [2, 5], [0, 6], [0, 7], [0, 8], [0, 9], [0, 10], [0, 11]])
    out = table(Features(ids=ids))
    assert out[:, 0, 0].tolist() == [1, 2, 3, 1, 1, 1, 1, 1, 1]
    assert out[:, 1, 0].tolist() == [4, 5, 6, 15, 30, 45, 30, 60, 90]
    out[:, 1].sum().backward()
    # Each row of R is read with Q = 1.5 and 3, each row of Q with R = 10, 20 and 30.
    assert table.table.weight.grad.flatten().tolist() == [0, 0, 0, 1, 1, 1, 4.5, 4.5, 4.5, 60, 60, 0]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("method", ["hash", "product, one kept", "sum"])
def test_one_gather_and_one_gradient(monkeypatch, method, sparse):
    schema, options = SCHEMAS["every kind"], METHODS[method]
    table = EmbeddingTable(schema, 4, std=0.5, compression=options)
    table.table.sparse = sparse
    looked_up = []
    real = table.table.look_up

    def spy(rows, *, batch_size):
        looked_up.append(rows)
        assert batch_size == 30
        return real(rows, batch_size=batch_size)

    monkeypatch.setattr(table.table, "look_up", spy)
    features = tiny_features(schema, 30)
    table(features).sum().backward()
    (rows,) = looked_up
    assert 0 <= rows.min() <= rows.max() < len(table.table.weight)
    gradient = table.table.weight.grad
    assert gradient.is_sparse == sparse
    touched = (gradient.to_dense() if sparse else gradient).abs().sum(1).nonzero().squeeze(1)
    assert set(touched.tolist()) <= set(rows.tolist())


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad, Adagrad, SGD, torch.optim.Adam])
@pytest.mark.parametrize("method", ["product, one kept", "sum"])
def test_the_row_of_zeros_stays_zero(method, optimizer):
    schema = SCHEMAS["single ids"]
    table = EmbeddingTable(schema, 4, std=0.5, compression=METHODS[method])
    table.table.sparse = optimizer is not torch.optim.Adam
    table.table.l2 = 0.1
    before = table.table.weight.detach().clone()
    optimiser = optimizer([table.table.weight], lr=0.1)
    for seed in range(3):
        optimiser.zero_grad()
        features = tiny_features(schema, 20, seed=seed)
        assert (features.ids == torch.tensor([spec.offset for spec in schema.fields])).any(), "absent ids are read"
        (table(features).square().sum() + table.table.penalty).backward()
        optimiser.step()
    assert (table.table.weight[-1] == 0).all()
    assert (table.table.weight[:-1] != before[:-1]).any(1).float().mean() > 0.8


def test_penalty_is_on_every_row_looked_up():
    schema = tiny_schema(tokens=1, multi=(), dense=0, vocabulary=9)
    table = EmbeddingTable(schema, 3, std=0.5, compression=METHODS["product"])
    table.table.l2 = 0.25
    table(Features(ids=torch.tensor([[0], [1], [2], [6]])))
    # absent and unknown; tokens 0 and 4 of 9, m = 3: R 0 and Q 0, R 1 and Q 1
    squares = (table.table.weight.detach().double().numpy() ** 2).sum(1)
    expected = 0.25 / 2 * squares[[0, 1, 2, 5, 3, 6]].sum() / 4
    assert table.table.penalty.item() == pytest.approx(expected, rel=1e-6)


def test_which_tokens_share():
    schema = tiny_schema(tokens=1, multi=(), dense=0, vocabulary=1000)
    ids = torch.arange(2, 1002).unsqueeze(1)
    vectors = {
        method: EmbeddingTable(schema, 4, std=0.5, compression=Compression(method, above=999, collisions=4, keep=100))
        (Features(ids=ids)).detach().squeeze(1)
        for method in ("hash", "quotient_remainder")
    }  # fmt: skip
    assert len(vectors["hash"].unique(dim=0)) == 100 + 900 / 4
    assert len(vectors["hash"][: 100 + 225].unique(dim=0)) == 325, "the most frequent tokens share with rare ones alone"
    assert len(vectors["quotient_remainder"].unique(dim=0)) == 1000, "each token has a vector of its own"


@pytest.mark.parametrize("options", [Compression("quotient_remainder", above=10, collisions=50, operation=operation)
                                     for operation in ("product", "sum")], ids=["product", "sum"])  # fmt: skip
def test_initial_vectors_have_the_standard_deviation_asked_for(options):
    schema = tiny_schema(tokens=2, multi=(), dense=0, vocabulary=2500, zero_unknown=[1])
    table = EmbeddingTable(schema, 64, std=0.1, compression=options)
    ids = torch.stack([torch.arange(2502), 2502 + torch.arange(2502)], 1)
    vectors = table(Features(ids=ids)).detach()
    assert vectors[2:].std().item() == pytest.approx(0.1, rel=0.05)
    assert vectors[:2].std().item() == pytest.approx(0.1, rel=0.3)
    assert (vectors[1, 1] == 0).all(), "zero_unknown"
    assert (vectors[1, 0] != 0).all()


def test_nothing_changes_where_no_field_is_large_enough():
    schema = SCHEMAS["single ids"]
    torch.manual_seed(1)
    plain = EmbeddingTable(schema, 4, std=0.5)
    torch.manual_seed(1)
    compressed = EmbeddingTable(schema, 4, std=0.5, compression=Compression("quotient_remainder", 8, 2))
    assert compressed.compressed is None
    assert compressed.only_ids
    assert torch.equal(plain.table.weight, compressed.table.weight)
    assert plain.state_dict().keys() == compressed.state_dict().keys()


def test_a_field_keeps_its_rows_where_sharing_would_not_save_any():
    schema = tiny_schema(tokens=1, multi=(), dense=0, vocabulary=6)
    # Six tokens on m = 1: one row of R and six of Q.
    (block,) = row_blocks(schema, Compression("quotient_remainder", above=3, collisions=6))
    assert (block.size, block.shared) == (8, 0)
    (block,) = row_blocks(schema, Compression("hash", above=3, collisions=6))
    assert (block.size, block.shared) == (3, 6)


def test_bins_and_numbers_are_not_compressed():
    fields = (FieldSpec("x", "float", 12, 0, bins=tuple(range(9))), FieldSpec("y", "float", 2, 12))
    schema = DataSchema(fields, ())
    assert [block.shared for block in row_blocks(schema, Compression("hash", above=1, collisions=2))] == [0, 0]


def test_empty_lists_and_bfloat16():
    schema = tiny_schema(tokens=1, multi=("mean",), dense=0, vocabulary=20)
    table = EmbeddingTable(schema, 2, std=0.5, dtype=torch.bfloat16, compression=METHODS["product"])
    many = MultiValued(torch.empty(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    out = table(Features(ids=torch.tensor([[0, -1], [21, -1]]), multi={1: many}))
    assert out.dtype is torch.float32
    assert (out[:, 1] == 0).all()
    out.sum().backward()
    assert table.table.weight.grad.dtype is torch.bfloat16
    assert table.table.weight.grad.isfinite().all()
    first, second = table.table.weight[2 + 19 % 7].float(), table.table.weight[2 + 7 + 19 // 7].float()
    assert torch.equal(out[1, 0], first * second)


@pytest.mark.parametrize("model", ["DTN", "MMoE", "PLE", "SharedBottom", "SingleTask"])
def test_models_have_fewer_parameters_and_the_same_inputs(model):
    from recbole_dtn.registry import MODELS

    schema = tiny_schema(vocabulary=50)
    options = {"method": "quotient_remainder", "above": 50, "collisions": 5, "keep": 0, "operation": "product"}
    settings = make_settings(model, embedding_compression=options, task_chain={}) if model == "DTN" else (
        make_settings(model, embedding_compression=options)
    )  # fmt: skip
    built = MODELS.load(model)(settings, schema)
    # t0 (52 rows) is too small; m0, t1, m1, t2 have 51 to 54 tokens on 2 + 11 + 5 rows; d0 has 2; zeros 1.
    tables = 2 if model == "SingleTask" else 1
    assert built.count_parameters()["embedding"] == tables * (52 + 4 * 18 + 2 + 1) * settings.embedding_size
    assert built.field_shape().field_sizes == tuple(spec.size for spec in schema.fields)
    features = tiny_features(schema, 8)
    built.task_losses(features, built(features)).sum().backward()
    assert all(table.weight.grad is not None for table in built.tables())
