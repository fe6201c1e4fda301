"""Encoding against hand-worked vocabularies, splits, labels and side tables."""

import itertools

import numpy as np
import polars as pl
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data import fields as field_encoding
from recbole_dtn.data import layout
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.preprocess.prepare import prepare

HEADER = "u:token\ti:token\tt:float\ty:float"


def settings_of(tmp_path, inter, *, user=None, item=None, parts=None, **change):
    """Settings of a data set `toy` with the given lines of its files."""
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    files = {"toy.inter": inter, "toy.user": user, "toy.item": item}
    files |= {f"toy.{part}.inter": lines for part, lines in (parts or {}).items()}
    for name, lines in files.items():
        if lines is not None:
            (folder / name).write_text("\n".join(lines) + "\n")
    values = {"fields": [{"name": "u"}, {"name": "i"}], "tasks": [{"name": "y", "label": "y"}]}
    places = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path)}
    return resolve({**values, **places, **change}).settings


def everything(prepared, split="train"):
    found = prepared.splits[split]
    return found.batch(np.arange(found.rows))


def local(prepared, name, split="train"):
    """Local ids of a field with one id, in the order of the split."""
    position = [spec.name for spec in prepared.schema.fields].index(name)
    return (everything(prepared, split).ids[:, position] - prepared.schema.fields[position].offset).tolist()


PARTS = {
    "train": [HEADER, "b\t1\t1\t1", "a\t1\t2\t0", "a\t2\t3\t0", "b\t3\t4\t1", "c\t3\t5\t0", "\t3\t6\t0"],
    "valid": [HEADER, "a\t9\t7\t1", "d\t1\t8\t0"],
    "test": [HEADER, "c\tNA\t9\t1"],
}


def test_vocabulary_is_the_training_tokens_by_count_then_bytes(tmp_path):
    prepared = prepare(settings_of(tmp_path, None, parts=PARTS, split="given"))
    # u in training: a 2, b 2, c 1, one empty; i: 3 three times, 1 twice, 2 once. 9, d and NA are not in training.
    assert prepared.vocabularies.tokens("u") == ["a", "b", "c"]
    assert prepared.vocabularies.tokens("i") == ["3", "1", "2"]
    assert [(spec.size, spec.offset) for spec in prepared.schema.fields] == [(5, 0), (5, 5)]
    assert prepared.schema.extra["zero_unknown"] == [0, 1]
    assert local(prepared, "u") == [3, 2, 2, 3, 4, 0]
    assert local(prepared, "i") == [3, 3, 4, 2, 2, 2]
    assert local(prepared, "u", "valid") == [2, 1]
    assert local(prepared, "i", "valid") == [1, 3]
    assert local(prepared, "i", "test") == [0]
    assert everything(prepared).labels.tolist() == [[1.0], [0.0], [0.0], [1.0], [0.0], [0.0]]
    assert everything(prepared, "test").row.tolist() == [8]
    user, item = prepared.summary.fields
    assert user.missing == {"train": 1 / 6, "valid": 0.0, "test": 0.0}
    assert user.coverage == {"train": 1.0, "valid": 0.5, "test": 1.0}
    assert item.coverage == {"train": 1.0, "valid": 0.5, "test": None}
    assert prepared.summary.positives == {"train": {"y": (2, 6)}, "valid": {"y": (1, 2)}, "test": {"y": (1, 1)}}


def test_min_count_per_field(tmp_path):
    fields = [{"name": "u"}, {"name": "i", "min_count": 1}]
    prepared = prepare(settings_of(tmp_path, None, parts=PARTS, split="given", fields=fields, min_count=2))
    assert prepared.vocabularies.tokens("u") == ["a", "b"]
    assert prepared.vocabularies.tokens("i") == ["3", "1", "2"]
    assert local(prepared, "u") == [3, 2, 2, 3, 1, 0]
    assert prepared.schema.extra["zero_unknown"] == [1]  # c is rare: the row of unknown is trained


def lines(rows, header=HEADER):
    return [header, *("\t".join(map(str, row)) for row in rows)]


TWENTY = lines([(i % 3, i, (i * 7) % 20, i % 2) for i in range(20)])


def test_random_split_depends_on_split_seed_alone(tmp_path):
    first = prepare(settings_of(tmp_path, TWENTY))
    order = np.random.default_rng(2020).permutation(20)
    expected = [np.sort(part).tolist() for part in np.split(order, [16, 18])]
    assert [everything(first, split).row.tolist() for split in ("train", "valid", "test")] == expected
    other_seed = prepare(settings_of(tmp_path, TWENTY, seed=7))
    assert (other_seed.fingerprint, other_seed.cached) == (first.fingerprint, True)
    other_split = prepare(settings_of(tmp_path, TWENTY, split_seed=7))
    assert other_split.fingerprint != first.fingerprint
    assert everything(other_split).row.tolist() != expected[0]


def test_time_splits(tmp_path):
    prepared = prepare(settings_of(tmp_path, TWENTY, split="time", time_field="t", split_ratio=[0.5, 0.25, 0.25]))
    time = (np.arange(20) * 7) % 20
    order = np.argsort(time)
    for name, part in zip(("train", "valid", "test"), np.split(order, [10, 15]), strict=True):
        assert everything(prepared, name).row.tolist() == sorted(part.tolist())
    settings = settings_of(tmp_path, TWENTY, split="user_time", time_field="t", user_field="u", split_ratio=[2, 1, 1])
    prepared = prepare(settings)
    expected = {"train": [], "valid": [], "test": []}
    for user in range(3):  # 7, 7 and 6 rows: a quarter is 1
        mine = sorted((row for row in range(20) if row % 3 == user), key=lambda row: time[row])
        expected["train"] += mine[:-2]
        expected["valid"] += mine[-2:-1]
        expected["test"] += mine[-1:]
    for name, part in expected.items():
        assert everything(prepared, name).row.tolist() == sorted(part)


def test_limit_rows(tmp_path):
    prepared = prepare(settings_of(tmp_path, TWENTY, limit_rows=10))
    assert prepared.summary.rows == {"train": 8, "valid": 1, "test": 1}
    assert sorted(row for name in prepared.splits for row in everything(prepared, name).row.tolist()) == list(range(10))


def test_limit_rows_of_given_parts(tmp_path):
    prepared = prepare(settings_of(tmp_path, None, parts=PARTS, split="given", limit_rows=2))
    assert prepared.summary.rows == {"train": 2, "valid": 2, "test": 1}
    assert [everything(prepared, name).labels[:, 0].tolist() for name in prepared.splits] == [[1, 0], [1, 0], [1]]


def test_floats_standardised_or_binned_by_training(tmp_path):
    header = "u:token\tx:float\tz:float\ty:float"
    parts = {
        "train": lines([("a", 1, 10, 0), ("a", 3, 20, 1), ("a", "", 30, 0), ("a", 5, 40, 1)], header),
        "valid": lines([("a", 7, 5, 0)], header),
        "test": lines([("a", 3, "", 0), ("a", 3, 99, 0)], header),
    }
    fields = [
        {"name": "x", "type": "float"},
        {"name": "u"},
        {"name": "z", "type": "float", "encoding": "bins", "bins": 2},
    ]
    prepared = prepare(settings_of(tmp_path, None, parts=parts, split="given", fields=fields))
    x, _, z = prepared.schema.fields
    std = np.sqrt(8 / 3)  # of 1, 3, 5
    assert (x.mean, x.std, x.size, x.continuous) == (3.0, pytest.approx(std), 2, True)
    assert (z.bins, z.size, z.single_id) == ((25.0,), 4, True)
    np.testing.assert_allclose(everything(prepared).dense[:, 0], [-2 / std, 0, np.nan, 2 / std], rtol=1e-6)
    np.testing.assert_allclose(everything(prepared, "valid").dense[:, 0], [4 / std], rtol=1e-6)
    assert everything(prepared).ids[:, 0].tolist() == [-1] * 4
    assert local(prepared, "z") == [2, 2, 3, 3]
    assert local(prepared, "z", "valid") == [2]
    assert local(prepared, "z", "test") == [0, 3]
    assert prepared.summary.fields[0].missing == {"train": 0.25, "valid": 0.0, "test": 0.0}
    assert prepared.summary.fields[2].missing == {"train": 0.0, "valid": 0.0, "test": 0.5}


USER = ["u:token\tage:float\ttags:token_seq\tw:float_seq", "a\t20\tx y\t1 0.5", "b\t40\ty\t2", "c\t60\t\t"]
ITEM = ["i:token\tyear:token", "1\t1999", "2\t2001", "3\t1999"]
SIDE_FIELDS = [
    {"name": "u"},
    {"name": "age", "type": "float"},
    {"name": "tags", "type": "token_seq", "weights": "w"},
    {"name": "year"},
]


def test_side_tables_count_by_interaction_and_are_stored_once(tmp_path):
    said = []
    settings = settings_of(tmp_path, None, parts=PARTS, user=USER, item=ITEM, split="given", fields=SIDE_FIELDS)
    prepared = prepare(settings, log=said.append)
    # Training interactions: users b a a b c -, items 1 1 2 3 3 3.
    assert prepared.vocabularies.tokens("year") == ["1999", "2001"]  # 5 and 1 interactions
    assert prepared.vocabularies.tokens("tags") == ["y", "x"]  # 4 and 2
    age = prepared.schema.fields[1]
    assert age.mean == pytest.approx((40 + 20 + 20 + 40 + 60) / 5)
    assert local(prepared, "year") == [2, 2, 3, 2, 2, 2]
    assert local(prepared, "year", "valid") == [0, 2]  # item 9 is not in toy.item
    tags = everything(prepared).multi[2]
    offset = prepared.schema.fields[2].offset
    assert (tags.values - offset).tolist() == [2, 3, 2, 3, 2, 2]
    assert tags.offsets.tolist() == [0, 1, 3, 5, 6, 6, 6]
    assert tags.weights.tolist() == [2.0, 1.0, 0.5, 1.0, 0.5, 2.0]
    dense = everything(prepared).dense[:, 0] * age.std + age.mean
    np.testing.assert_allclose(dense, [40, 20, 20, 40, 60, np.nan], rtol=1e-6)
    # Stored once: three users and an absent row.
    assert prepared.splits["train"].store.columns["age"].values.shape == (4,)
    folder, absent = tmp_path / "toy", "its fields are absent there"
    assert [text for text in said if text.startswith("warning")] == [
        f"warning: {folder}/toy.test.inter, line 2: column 'i': 'NA' is read as missing, as stock RecBole does (1 such "
        "values)",
        f"warning: {folder}/toy.train.inter, line 7: u (empty) is not in toy.user (2 such rows); {absent}",
        f"warning: {folder}/toy.valid.inter, line 2: i '9' is not in toy.item (2 such rows); {absent}",
    ]
    fields = {spec.name: spec for spec in prepared.summary.fields}
    assert fields["year"].missing == {"train": 0.0, "valid": 0.5, "test": 1.0}
    assert fields["tags"].missing == {"train": 2 / 6, "valid": 0.5, "test": 1.0}
    assert fields["year"].table == "item"


def ragged_lines(rng, rows):
    return [
        (
            f"u{rng.integers(5)}",
            " ".join(f"t{rng.integers(9)}" for _ in range(rng.integers(4))),
            int(rng.random() < 0.5),
        )
        for _ in range(rows)
    ]


def test_ragged_batches_against_a_plain_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_ROWS", 7)
    monkeypatch.setattr(field_encoding, "BLOCK_VALUES", 5)
    rng = np.random.default_rng(0)
    rows = ragged_lines(rng, 60)
    fields = [{"name": "s", "type": "token_seq"}, {"name": "u"}]
    prepared = prepare(settings_of(tmp_path, lines(rows, "u:token\ts:token_seq\ty:float"), fields=fields))
    train = everything(prepared).row.tolist()
    counts = {}
    for row in train:
        for token in rows[row][1].split():
            counts[token] = counts.get(token, 0) + 1
    ids = {token: 2 + at for at, token in enumerate(sorted(counts, key=lambda token: (-counts[token], token)))}
    for name, split in prepared.splits.items():
        numbers = everything(prepared, name).row.tolist()
        for size in (1, 3, 8):
            chosen = rng.integers(split.rows, size=size)
            batch = split.batch(chosen)
            expected = [[ids.get(token, 1) for token in rows[numbers[at]][1].split()] for at in chosen]
            offsets = batch.multi[0].offsets.tolist()
            found = [batch.multi[0].values[a:b].tolist() for a, b in itertools.pairwise(offsets)]
            assert found == expected
            assert batch.row.tolist() == [numbers[at] for at in chosen]
            assert batch.labels[:, 0].tolist() == [rows[numbers[at]][2] for at in chosen]


def test_conditions_masks_weights_groups_and_domains(tmp_path):
    header = "u:token\td:token\tclick:float\tbuy:token\tw:float"
    rows = [("a", "x", 1, 1, 0.5), ("b", "y", 1, 0, 2), ("b", "y", 0, "", 1), ("a", "x", 0, 0, 0)]
    parts = {name: lines(rows, header) for name in ("train", "valid", "test")}
    tasks = [
        {"name": "click", "label": "click"},
        {"name": "buy", "label": "buy", "condition": "buy == 1", "observed_when": "click == 1", "after": ["click"]},
        {"name": "amount", "label": "w", "kind": "regression"},
    ]
    change = {"domain_field": "d", "group_field": "u", "fields": [{"name": "u"}], "tasks": tasks}
    prepared = prepare(settings_of(tmp_path, None, parts=parts, split="given", **change))
    batch = everything(prepared)
    assert batch.labels.tolist() == [[1, 1, 0.5], [1, 0, 2], [0, 0, 1], [0, 0, 0]]
    assert batch.observed.tolist() == [[True, True, True]] * 2 + [[True, False, True]] * 2
    assert batch.domain.tolist() == [0, 1, 1, 0]
    assert batch.group.tolist() == [0, 1, 1, 0]
    assert batch.sample_weight is None
    assert (prepared.schema.num_domains, prepared.vocabularies.domains) == (2, ("x", "y"))
    assert prepared.summary.positives["train"] == {"click": (2, 4), "buy": (1, 2), "amount": (3, 4)}
    weighted = prepare(
        settings_of(tmp_path, None, parts=parts, split="given", **{**change, "tasks": tasks[:2], "weight_field": "w"})
    )
    assert everything(weighted).sample_weight.tolist() == [0.5, 2, 1, 0]


def bad(tmp_path, row, **change):
    rows = [("a", 1, 1, 1), ("b", 2, 2, 0), ("a", 1, 3, 1), ("b", 2, 4, 0)] * 3
    text = lines([*rows, row])
    text.insert(2, "")  # a blank line is no row but counts as a line: the bad row is on line 15
    return lambda: prepare(settings_of(tmp_path, text, **change))


BUY = [{"name": "y", "label": "y"}, {"name": "z", "label": "y", "condition": "y == 7"}]


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (
            ("a", 1, 1, 2),
            {},
            "toy.inter, line 15: the label of task 'y' must be 0 or 1, found y = 2.0; give the task a",
        ),
        (("a", 1, 1, ""), {}, "toy.inter, line 15: the label of task 'y' is missing: y = missing; use observed_when"),
        (
            ("a", 1, 1, "nan"),
            {},
            "toy.inter, line 15: the label of task 'y' is missing: y = missing; use observed_when",
        ),
        (
            ("a", 1, 1, ""),
            {"tasks": [{"name": "y", "label": "y", "condition": "y >= 1"}]},
            "toy.inter, line 15: the label of task 'y' (y >= 1) is undecided: y = missing",
        ),
        (("a", 1, 1, "x"), {}, "toy.inter, line 15: column 'y': expected a finite number, found 'x'"),
        (("a", 1, 1, 1), {"tasks": BUY}, "task 'z' (condition: y == 7) has no positive among its 11 observed training"),
        (
            ("a", 1, 1, 1),
            {"tasks": [{"name": "z", "label": "y", "condition": "y < 7"}]},
            "task 'z' (condition: y < 7) has no negative",
        ),
        (
            ("a", 1, 1, 1),
            {"tasks": [{"name": "z", "label": "y", "observed_when": "t > 99"}]},
            "task 'z' (label: y, observed_when: t > 99) has no observed row in training",
        ),
        (("a", 1, 1, 1), {"limit_rows": 3}, "the valid split is empty (3 rows in all, split: random"),
        (("a", 1, "", 1), {"split": "time", "time_field": "t"}, "line 15: time_field 't' has no number"),
        (("a", 1, -1, 1), {"weight_field": "t"}, "line 15: weight_field 't': expected a number from 0 up, found -1.0"),
        (
            ("a", 1, 1, 1),
            {"fields": [{"name": "user"}]},
            "no file has the column 'user' (field 'user'); known: i, t, u, y",
        ),
        (
            ("a", 1, 1, 1),
            {"fields": [{"name": "t"}]},
            "line 1: column 't' is of type float, the data set's field says token",
        ),
        (("a", 1, 1, 1), {"group_field": "t"}, "column 't' must be of type token to number its values"),
        (("a", 1, 1), {}, "toy.inter, line 15: a short row"),
    ],
)
def test_bad_data_is_named(tmp_path, row, change, message):
    with pytest.raises((DataError, UsageError)) as caught:
        bad(tmp_path, row, **change)()
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    left = [path.name for path in (tmp_path / "toy" / ".cache").rglob("*")]
    assert left in ([], ["digests.json"])


def test_bad_side_tables_are_named(tmp_path):
    twice = [*USER, "a\t30\tx\t1"]
    with pytest.raises(DataError, match=r"toy\.user, line 5: u 'a' is there twice \(first on .*toy\.user, line 2\)"):
        prepare(settings_of(tmp_path, None, parts=PARTS, user=twice, item=ITEM, split="given", fields=SIDE_FIELDS))
    short = [*USER[:2], "b\t40\ty\t2 3", USER[3]]
    with pytest.raises(DataError, match=r"toy\.user, line 3: 'tags' has 1 values, its weights 'w' have 2"):
        prepare(settings_of(tmp_path, None, parts=PARTS, user=short, item=ITEM, split="given", fields=SIDE_FIELDS))
    domain = {"domain_field": "i", "fields": [{"name": "u"}]}
    with pytest.raises(DataError, match=r"toy\.test\.inter, line 2: domain_field 'i' is missing"):
        prepare(settings_of(tmp_path, None, parts=PARTS, split="given", **domain))


def test_huge_ids_and_widths(tmp_path):
    huge = [2**70 + i for i in range(150)]
    rows = [(huge[i % 150], "x" * 3_000 if i == 0 else i % 7, 1, i % 2) for i in range(400)]
    prepared = prepare(settings_of(tmp_path, lines(rows)))
    assert set(prepared.vocabularies.tokens("u")) <= {str(value) for value in huge}
    columns = prepared.splits["train"].store.columns
    assert (columns["u"].values.dtype, columns["i"].values.dtype) == (np.int16, np.int8)
    assert prepared.splits["train"].batch(np.array([0])).ids.dtype.is_signed


def test_a_batch_of_the_whole_split_in_any_order_and_empty(tmp_path):
    prepared = prepare(settings_of(tmp_path, TWENTY))
    split = prepared.splits["train"]
    flipped = split.batch(np.arange(split.rows)[::-1])
    assert flipped.row.tolist() == everything(prepared).row.tolist()[::-1]
    assert len(split.batch(np.empty(0, np.int64))) == 0


def test_raw_values_and_files_are_encoded_alike(tmp_path):
    fields = [{"name": "u"}, {"name": "i"}, {"name": "t", "type": "float", "encoding": "bins", "bins": 3}]
    prepared = prepare(settings_of(tmp_path, TWENTY, fields=fields))
    frame = pl.DataFrame(
        {"u": [i % 3 for i in range(20)], "i": list(range(20)), "t": [(i * 7) % 20 for i in range(20)]}
    )
    raw = prepared.vocabularies.encode(frame, prepared.schema)
    for name in prepared.splits:
        batch = everything(prepared, name)
        assert batch.ids.tolist() == raw.ids[batch.row].tolist()
