"""Vocabularies from counts, through a checkpoint, and raw values encoded with them."""

import io

import numpy as np
import polars as pl
import pytest
import torch

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import FieldSettings
from recbole_dtn.data import vocabulary
from recbole_dtn.data.escape import escape
from recbole_dtn.data.floats import FloatStatistics, bin_ids
from recbole_dtn.data.schemas import make_schema
from recbole_dtn.data.vocabulary import TokenVocabulary, Vocabularies
from recbole_dtn.errors import UsageError

FIELDS = [
    FieldSettings(name="user"),
    FieldSettings(name="tags", type="token_seq", pooling="sum", weights="w"),
    FieldSettings(name="price", type="float"),
    FieldSettings(name="age", type="float", encoding="bins", bins=4),
    FieldSettings(name="city", min_count=3),
]
COUNTS = {"user": {"b": 2, "a": 2, "Z": 2, "%4EA": 1}, "tags": {"x": 5, "y%20z": 9}, "city": {"p": 3, "q": 2}}
FLOATS = {"price": np.array([1.0, 2.0, 3.0, np.nan]), "age": np.arange(1.0, 9.0)}


@pytest.fixture
def vocabularies():
    return Vocabularies.from_counts(FIELDS, COUNTS, FLOATS, min_count=1)


@pytest.fixture
def schema(vocabularies):
    settings = resolve({"model": "MMoE", "dataset": "ml-100k"}).settings
    return make_schema(FIELDS, settings.tasks, vocabularies, settings)


def test_order_and_sizes(vocabularies, schema):
    assert vocabularies.tokens("user") == ["Z", "a", "b", "%4EA"]
    assert vocabularies.tokens("city") == ["p"]
    assert vocabularies.tokens("price") == []
    assert [(spec.size, spec.offset) for spec in schema.fields] == [(6, 0), (4, 6), (2, 10), (6, 12), (3, 18)]
    assert schema.num_rows == 21
    assert [spec.pooling for spec in schema.fields] == ["mean", "sum", "mean", "mean", "mean"]
    assert schema.extra["zero_unknown"] == [0, 1]
    assert schema.fields[3].bins == (2.75, 4.5, 6.25)
    assert (schema.fields[2].mean, schema.fields[2].std) == (2.0, pytest.approx(np.sqrt(2 / 3)))


def test_lookup_takes_file_tokens(vocabularies):
    assert vocabularies.lookup("user", ["Z", "%4EA", "NA", "", "é"]).tolist() == [2, 5, 1, 0, 1]
    assert vocabularies.lookup("user", []).tolist() == []
    with pytest.raises(TypeError, match="'price' is a number"):
        vocabularies.lookup("price", ["1"])


def test_through_a_checkpoint(vocabularies):
    buffer = io.BytesIO()
    torch.save(vocabularies.to_dict(), buffer)
    buffer.seek(0)
    loaded = Vocabularies.from_dict(torch.load(buffer, weights_only=True))
    assert loaded.to_dict() == vocabularies.to_dict()
    assert [loaded.tokens(spec.name) for spec in FIELDS] == [vocabularies.tokens(spec.name) for spec in FIELDS]
    empty = Vocabularies.from_counts([FieldSettings(name="u")], {"u": {}}, {})
    assert Vocabularies.from_dict(empty.to_dict()).lookup("u", ["a", ""]).tolist() == [1, 0]


FRAME = pl.DataFrame(
    {
        "user": ["a", "NA", None, "?"],
        "tags": [["x", "y z", "new"], [], None, ["", "x"]],
        "w": [[1.0, 2.0, 3.0], [], None, [9.0, 4.0]],
        "price": [2.0, None, 3.0, float("nan")],
        "age": [2, 3, None, 100],
        "city": ["p", "q", "", "p"],
        "unused": [0, 0, 0, 0],
    }
)


def test_raw_values(vocabularies, schema):
    batch = vocabularies.encode(FRAME, schema)
    std = np.sqrt(2 / 3)
    assert batch.ids.tolist() == [
        [3, -1, -1, 12 + 2, 18 + 2],
        [5, -1, -1, 12 + 3, 18 + 1],
        [0, -1, -1, 12 + 0, 18 + 0],
        [1, -1, -1, 12 + 5, 18 + 2],
    ]
    np.testing.assert_allclose(batch.dense[:, 0], [0, np.nan, 1 / std, np.nan], rtol=1e-6)
    many = batch.multi[1]
    assert many.values.tolist() == [6 + 3, 6 + 2, 6 + 1, 6 + 3]
    assert many.offsets.tolist() == [0, 3, 3, 3, 4]
    assert many.weights.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert batch.labels.shape == batch.observed.shape == (4, 0)
    assert batch.domain is None
    assert len(vocabularies.encode(FRAME.head(0), schema)) == 0
    as_text = FRAME.with_columns(tags=pl.Series(["x new", "", None, " x"]), w=pl.Series(["1", "", None, "4"]))
    with pytest.raises(UsageError, match="'tags' and its weights 'w' differ in length"):
        vocabularies.encode(as_text, schema)
    as_text = as_text.with_columns(w=pl.Series(["1 2", "", None, "4"]))
    many = vocabularies.encode(as_text, schema).multi[1]
    assert (many.values.tolist(), many.offsets.tolist(), many.weights.tolist()) == (
        [9, 7, 9],
        [0, 2, 2, 2, 3],
        [1, 2, 4],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            FRAME.drop("user").rename({"unused": "users"}),
            "no column 'user', a field of this data set: did you mean 'users'",
        ),
        (FRAME.rename({"user": "user:token"}), "no column 'user', a field of this data set: rename 'user:token'"),
        (FRAME.drop("w"), "no column 'w'"),
        (FRAME.with_columns(user=pl.lit(1.0)), "field 'user' holds tokens, the column holds Float64"),
        (FRAME.with_columns(user=pl.col("tags")), "field 'user' holds one token per row"),
        (
            FRAME.with_columns(tags=pl.lit(3)),
            "field 'tags' is multi-valued: expected a list or text column, found Int32",
        ),
        (FRAME.with_columns(price=pl.lit("cheap")), "field 'price' holds numbers, the column (String) does not"),
    ],
)
def test_raw_columns_of_another_kind_are_refused(vocabularies, schema, change, message):
    with pytest.raises(UsageError) as caught:
        vocabularies.encode(change, schema)
    assert message in str(caught.value)


def test_domains(vocabularies, schema):
    known = Vocabularies(vocabularies.fields, ("x", "y"), "unused")
    frame = FRAME.with_columns(unused=pl.Series(["y", "x", "y", "y"]))
    assert known.encode(frame, schema).domain.tolist() == [1, 0, 1, 1]
    assert known.encode(frame.drop("unused"), schema).domain is None
    with pytest.raises(UsageError, match="domain_field 'unused': a value is none of x, y"):
        known.encode(FRAME, schema)


def test_bins_of_equal_values_and_without_values():
    constant = FloatStatistics.from_values(np.full(9, 4.0), 10)
    assert (constant.edges, constant.size) == ((4.0,), 4)
    assert bin_ids(np.array([3.0, 4.0, 5.0, np.nan]), constant.edges).tolist() == [2, 3, 3, 0]
    assert FloatStatistics.from_values(np.array([np.nan]), 10).edges == (0.0,)
    assert FloatStatistics.from_values(np.array([np.nan]), None) == FloatStatistics(0.0, 1.0)
    assert FloatStatistics.from_values(np.full(3, 7.0), None) == FloatStatistics(7.0, 1.0)


def test_an_edge_is_met_from_float32_and_from_text_alike():
    values = np.array([0.1, 0.2, 0.3, 0.7], np.float64)
    statistics = FloatStatistics.from_values(np.repeat(values, 5), 4)
    assert bin_ids(values, statistics.edges).tolist() == bin_ids(values.astype(np.float32), statistics.edges).tolist()


@pytest.mark.parametrize("rows", [1, 2, 7, 1_000])
def test_statistics_by_blocks_and_by_weights_are_those_of_all_values(rows):
    rng = np.random.default_rng(rows)
    values = rng.normal(5, 2, rows).round(1)
    values[rng.random(rows) < 0.2] = np.nan
    counts = rng.integers(0, 4, rows)
    repeated = np.repeat(values, counts)
    blocks = list(zip(np.array_split(values, 3), np.array_split(counts, 3), strict=True))
    for expected, made in (
        (values, lambda bins: FloatStatistics.from_blocks(lambda: ((block, None) for block, _ in blocks), bins)),
        (repeated, lambda bins: FloatStatistics.from_blocks(lambda: iter(blocks), bins)),
    ):
        present = expected[~np.isnan(expected)].astype(np.float32).astype(np.float64)
        if not len(present):
            assert made(None) == FloatStatistics(0.0, 1.0)
            assert made(7).edges == (0.0,)
            continue
        statistics = made(None)
        assert statistics.mean == pytest.approx(present.mean(), rel=1e-12)
        assert statistics.std == pytest.approx(present.std() or 1.0, rel=1e-12)
        # The quantiles where they leave none of the 7 bins empty; of fewer values than bins each has one.
        edges = np.unique(np.quantile(present, np.linspace(0, 1, 8)[1:-1]).astype(np.float32))
        distinct = np.unique(present)
        filled = len(np.unique(np.searchsorted(edges, present.astype(np.float32), side="right")))
        expected_edges = edges if filled == 7 else distinct[-max(1, len(distinct) - 1) :]
        assert made(7).edges == tuple(expected_edges.astype(float).tolist())
        assert FloatStatistics.from_values(expected, 7).edges == made(7).edges


def test_ids_of_the_tokens_that_were_counted():
    tokens = pl.Series(["rare", "b", "never", "a", "é", "valid"])
    counts = np.array([1, 3, 0, 3, 9, 2])
    known, ids = TokenVocabulary.ranked(tokens, counts, 2, training=np.array([1, 3, 0, 3, 9, 0]))
    assert known.series.to_list() == ["é", "a", "b", "valid"]
    assert ids.tolist() == [1, 4, 1, 3, 2, 5]
    assert ids.tolist() == known.ids(tokens).tolist()
    assert known.rare == 1
    # A token that only other rows show, too rarely, leaves the row of unknown untrained.
    assert TokenVocabulary.ranked(tokens, counts, 3, training=np.array([0, 3, 0, 3, 9, 0]))[0].rare == 0


def reference_ids(tokens, offset, values, literal=False):
    """Rows of one field's values by plain look-ups: an escaped value's place among the tokens."""
    places = {token: place for place, token in enumerate(tokens)}
    spelled = [None if value is None else str(value) if literal else escape(str(value)) for value in values]
    return [offset + (places.get(text, -1) + 2 if text else 0) for text in spelled]


VALUES = ["a", "b c", "NA", "%4EA", "nan", "%41", "A", '"q', "%22q", "", None, "[PAD]", "50 %", "é", "x\ty", "new"]


@pytest.mark.parametrize("on_threads", [False, True])
@pytest.mark.parametrize("rows", [1, 40])
def test_single_values_of_many_fields_equal_plain_look_ups(monkeypatch, rows, on_threads):
    """Fields whose tokens need no escaping, hold escaped ones, or are spelled as another program would."""
    monkeypatch.setattr(vocabulary, "ROWS_PER_THREAD", 1 if on_threads else 10**9)
    counts = {
        "plain": dict.fromkeys(["a", "b c", "A", "50 %", "é"], 1),
        "escaped": dict.fromkeys(["%4EA", "%2541", "%22q", "x%09y", "b c"], 1),
        "foreign": dict.fromkeys(["%41", "a", "NA"], 1),
        "raw_words": dict.fromkeys(["NA", "nan", "a"], 1),
        "number": dict.fromkeys(["3", "-7", "10"], 1),
        "nothing": {},
    }
    fields = [FieldSettings(name=name) for name in counts]
    made = Vocabularies.from_counts(fields, counts, {})
    settings = resolve({"model": "MMoE", "dataset": "ml-100k"}).settings
    schema = make_schema(fields, settings.tasks, made, settings)
    rng = np.random.default_rng(rows)
    for start in range(1 if rows > 1 else len(VALUES)):
        picks = np.arange(start, start + 1) if rows == 1 else rng.integers(0, len(VALUES), rows)
        columns = {name: [VALUES[i] for i in picks] for name in counts if name != "number"}
        numbers = [[3, -7, 10, 4, None][i % 5] for i in picks]
        frame = pl.DataFrame(
            {**columns, "number": numbers}, schema={**dict.fromkeys(columns, pl.String), "number": pl.Int32}
        )
        batch = made.encode(frame, schema)
        for position, spec in enumerate(schema.fields):
            values = numbers if spec.name == "number" else columns[spec.name]
            expected = reference_ids(made.tokens(spec.name), spec.offset, values, literal=spec.name == "foreign")
            assert batch.ids[:, position].tolist() == expected, spec.name


def test_values_of_a_list_are_escaped_only_where_that_matters():
    plain = TokenVocabulary(pl.Series(["a", "b"]), 0)
    spaced = TokenVocabulary(pl.Series(["a%20b", "b"]), 0)
    raw = TokenVocabulary(pl.Series(["a b"]), 0)
    values = pl.Series(["a", "a b", "NA", None, "", "b"])
    assert plain.raw_ids(values, in_sequence=True).tolist() == [2, 1, 1, 0, 0, 3]
    assert spaced.raw_ids(values, in_sequence=True).tolist() == [1, 2, 1, 0, 0, 3]
    assert raw.raw_ids(values).tolist() == [1, 2, 1, 0, 0, 1]
    assert raw.raw_ids(values, in_sequence=True).tolist() == [1, 1, 1, 0, 0, 1]
    assert plain.spelled(values, in_sequence=True) is values


def test_one_query_looks_up_all_single_valued_fields(monkeypatch, vocabularies, schema):
    vocabularies.encode(FRAME, schema)
    queries = []
    select = pl.DataFrame.select_seq
    monkeypatch.setattr(
        pl.DataFrame, "select_seq", lambda frame, *a, **k: queries.append(frame.columns) or select(frame, *a, **k)
    )
    vocabularies.encode(FRAME, schema)
    assert [columns for columns in queries if len(columns) > 1] == [["user", "city"]]
