"""Single cells and small things of encoding: spellings, spaces, exceptions, what is stored and what is told."""

import itertools

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data import atomic, raw
from recbole_dtn.data import fields as field_encoding
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.preprocess.prepare import prepare

TASKS = [{"name": "y", "label": "y"}]


def settings_of(folder, **change):
    places = {"model": "MMoE", "dataset": folder.name, "data_path": str(folder.parent)}
    return resolve({"tasks": TASKS, **places, **change}).settings


def plain_vocabulary(values):
    counts = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    kept = sorted(counts, key=lambda token: (-counts[token], token))
    return {token: 2 + number for number, token in enumerate(kept)}


GIVEN = {
    "train": ["a\tx", "a\tx", "b\tx y", "c\ty"],
    "valid": ["b\ty", "d\tz", "d\tz"],
    "test": ["e\tq", "e\tq"],
}


def given(tmp_path, fields, split="given"):
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    for part, rows in GIVEN.items():
        lines = [f"{row}\t{number % 2}" for number, row in enumerate(rows)]
        (folder / f"toy.{part}.inter").write_text("\n".join(["u:token\ts:token_seq\ty:float", *lines]) + "\n")
    return settings_of(folder, fields=fields, split=split, min_count=2)


def test_count_parts_count_other_files_too(tmp_path):
    wide = ["train", "valid"]
    fields = [{"name": "u", "count_parts": wide}, {"name": "s", "type": "token_seq", "count_parts": wide}]
    plain = prepare(given(tmp_path, [{"name": "u"}, {"name": "s", "type": "token_seq"}]))
    assert (plain.vocabularies.tokens("u"), plain.vocabularies.tokens("s")) == (["a"], ["x", "y"])
    counted = prepare(given(tmp_path, fields))
    assert counted.fingerprint != plain.fingerprint
    # a 2, b 1 + 1, c 1, d 0 + 2; e is in test alone. x 3, y 2 + 1, z 0 + 2; q is in test alone.
    assert (counted.vocabularies.tokens("u"), counted.vocabularies.tokens("s")) == (["a", "b", "d"], ["x", "y", "z"])
    ids = {name: split.batch(np.arange(split.rows)) for name, split in counted.splits.items()}
    assert [batch.ids[:, 0].tolist() for batch in ids.values()] == [[2, 2, 3, 1], [3, 4, 4], [1, 1]]
    # Training has the rare c, and no rare value of s.
    assert counted.schema.extra["zero_unknown"] == [1]


@pytest.mark.parametrize(
    ("field", "split", "message"),
    [
        (
            {"name": "u", "count_parts": ["train", "valid"]},
            "random",
            "count_parts needs split: given, found split",
        ),
        ({"name": "u", "count_parts": ["valid"]}, "given", "names train, found"),
        ({"name": "u", "type": "float", "count_parts": ["train"]}, "given", "for token and token_seq fields"),
    ],
)
def test_count_parts_that_mean_nothing_are_refused(tmp_path, field, split, message):
    with pytest.raises(UsageError, match=message):
        prepare(given(tmp_path, [{"name": "s", "type": "token_seq"}, field], split))


def toy(tmp_path, header, rows, **change):
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    (folder / "toy.inter").write_text("\n".join([header, *rows]) + "\n")
    return settings_of(folder, **change)


def test_nothing_is_stored_that_need_not_be(tmp_path):
    rows = [f"u{i}\t{i % 9}\t{i}\t{i % 2}" for i in range(400)]
    fields = [{"name": "u"}, {"name": "i"}]
    header = "u:token\ti:token\tt:float\ty:float"
    # In the order of time already, so that rows need no numbers: 320 users of training take two bytes, nine items one.
    ordered = prepare(toy(tmp_path, header, rows, fields=fields, split="time", time_field="t"))
    sizes = {path.name: path.stat().st_size - 128 for path in ordered.cache_folder.glob("*.npy")}
    assert sizes == {"f0.npy": 800, "f1.npy": 400, "labels.npy": 400}
    drawn = prepare(toy(tmp_path, header, rows, fields=fields))
    assert {path.name: path.stat().st_size - 128 for path in drawn.cache_folder.glob("*.npy")} == {
        **sizes,
        "row.npy": 800,
    }
    masked = [{"name": "y", "label": "y", "observed_when": "t > 9"}]
    seen = prepare(toy(tmp_path, header, rows, fields=fields, tasks=masked, split="time", time_field="t"))
    assert {path.name for path in seen.cache_folder.glob("*.npy")} == {*sizes, "observed.npy"}


def test_scratch_files_go_as_soon_as_nothing_needs_them(tmp_path, monkeypatch):
    left = {}
    real = field_encoding.ArrayWriter.__exit__

    def watch(self, *details):
        scratch = tmp_path / "toy" / ".cache"
        left[len(left)] = sum(1 for path in scratch.rglob("c*.*"))
        return real(self, *details)

    monkeypatch.setattr(field_encoding.ArrayWriter, "__exit__", watch)
    monkeypatch.setattr("recbole_dtn.data.encode.workers", lambda tasks: 1)
    rows = [f"u{i % 5}\t{i % 9}\t{i}\t{i % 2}" for i in range(40)]
    settings = toy(tmp_path, "u:token\ti:token\tt:float\ty:float", rows, fields=[{"name": "u"}, {"name": "i"}])
    prepare(settings)
    # u, i, y; while row.npy and the labels are written all are there, then one goes with each column.
    assert list(left.values()) == [3, 3, 2, 1]


SPELLED = ["7", "007", "+7", "-7", "7.0", "0", "-0", "00", "2147483648", "9" * 30, "70000000", "seven", "7e0", "NA"]


@pytest.mark.parametrize("odd", SPELLED)
@pytest.mark.parametrize("place", [0, 45, 89])
@pytest.mark.parametrize("block", [60, 1 << 24])
def test_integers_are_tokens_by_their_spelling(tmp_path, monkeypatch, odd, place, block):
    monkeypatch.setattr(atomic, "BLOCK_BYTES", block)
    monkeypatch.setattr(raw, "BLOCK_ROWS", 11)
    cells = [str(3 + number * number % 17) if number % 10 else "" for number in range(90)]
    cells[place] = odd
    rows = [f"{cell}\t{number}\t{number % 2}\t5 {cell}" for number, cell in enumerate(cells)]
    fields = [{"name": "u"}, {"name": "s", "type": "token_seq"}]
    header = "u:token\tt:float\ty:float\ts:token_seq"
    prepared = prepare(toy(tmp_path, header, rows, fields=fields, split="time", time_field="t"))
    known = plain_vocabulary(cell for cell in cells[:72] if cell not in ("", "NA"))
    assert prepared.vocabularies.tokens("u") == list(known)
    many = plain_vocabulary(cell for cell in [*cells[:72], *["5"] * 72] if cell not in ("", "NA"))
    assert prepared.vocabularies.tokens("s") == list(many)
    for start, split in zip((0, 72, 81), prepared.splits.values(), strict=True):
        ids = split.batch(np.arange(split.rows)).ids[:, 0].tolist()
        mine = cells[start : start + split.rows]
        assert ids == [0 if cell in ("", "NA") else known.get(cell, 1) for cell in mine]
        values = split.batch(np.arange(split.rows)).multi[1].values - prepared.schema.fields[1].offset
        expected = [value for cell in mine for value in ("5", cell) if value]
        assert values.tolist() == [0 if value == "NA" else many.get(value, 1) for value in expected]


def test_integers_far_apart_are_tokens_like_any(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "BLOCK_BYTES", 60)
    rows = [f"{5 + number // 40 * raw.WIDEST}\t{number}\t{number % 2}" for number in range(90)]
    settings = toy(tmp_path, "u:token\tt:float\ty:float", rows, fields=[{"name": "u"}], split="time", time_field="t")
    assert prepare(settings).vocabularies.tokens("u") == ["5", str(5 + raw.WIDEST)]


def test_sequences_with_any_spaces(tmp_path):
    cells = ["a b", " a  b ", "", "b", "   ", "a", "c a b", "b  b"] * 5
    weights = ["1 2", "1   2", "", " 3", "", "4 ", "5 6 7", "8 9"] * 5
    rows = [f"{cell}\t{weight}\t{number % 2}" for number, (cell, weight) in enumerate(zip(cells, weights, strict=True))]
    fields = [{"name": "s", "type": "token_seq", "weights": "w"}]
    prepared = prepare(toy(tmp_path, "s:token_seq\tw:float_seq\ty:float", rows, fields=fields))
    tokens = {2 + number: token for number, token in enumerate(prepared.vocabularies.tokens("s"))}
    for split in prepared.splits.values():
        batch = split.batch(np.arange(split.rows))
        for row, (start, stop) in zip(batch.row.tolist(), itertools.pairwise(batch.multi[0].offsets), strict=True):
            assert [tokens[value] for value in batch.multi[0].values[start:stop].tolist()] == cells[row].split()
            assert batch.multi[0].weights[start:stop].tolist() == [float(w) for w in weights[row].split()]


@pytest.mark.parametrize(
    ("header", "row", "fields", "message"),
    [
        ("x:float\ty:float", "1e39\t1", [{"name": "x", "type": "float"}], "line 7: field 'x': 1e\\+39 is too large"),
        (
            "s:token_seq\tw:float_seq\ty:float",
            "a b\t1 1e39\t1",
            [{"name": "s", "type": "token_seq", "weights": "w"}],
            "line 7: column 'w': expected finite numbers with a space between, found '1e39'",
        ),
    ],
)
def test_numbers_beyond_float32_are_refused(tmp_path, header, row, fields, message):
    other = row.replace("e39", "")
    with pytest.raises(DataError, match=message):
        prepare(toy(tmp_path, header, [other] * 5 + [row] + [other.removesuffix("1") + "0"] * 30, fields=fields))


def test_numbers_are_the_same_read_fast_and_read_as_text(tmp_path):
    spelled = ["1", "-2.5", "1e3", "1E-3", ".5", "5.", "00.1", "123456789.123456789", "4e-320", "0.1", "-0", "1e22"]
    table = tmp_path / "toy.inter"
    table.write_text("x:float\ty:float\n" + "".join(f"{text}\t1\n" for text in spelled))
    fast = [row for batch in atomic.AtomicTable([table]).batches() for row in batch.frame["x"].to_list()]
    assert fast == [float(text) for text in spelled]
    table.write_text("x:float\ty:float\n" + "".join(f"{text} \t1\n" for text in [*spelled, "+5"]))
    slow = [row for batch in atomic.AtomicTable([table]).batches() for row in batch.frame["x"].to_list()]
    assert slow == [*fast, 5.0]


def test_a_column_that_is_not_asked_for_may_hold_anything(tmp_path):
    table = tmp_path / "toy.inter"
    table.write_text("x:float\ty:float\nwhat\t1\n\t2\n")
    assert [row for batch in atomic.AtomicTable([table]).batches(["y"]) for row in batch.frame.rows()] == [
        (1.0,),
        (2.0,),
    ]
