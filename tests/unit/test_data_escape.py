"""Hostile values: raw -> atomic file -> our reader -> the same raw value; pandas, as stock RecBole reads, agrees."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.data.escape import MISSING_WORDS, escape, escape_series, needs_escaping, unescape
from recbole_dtn.data.vocabulary import TokenVocabulary
from recbole_dtn.data.write import write_atomic

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
HOSTILE = st.sampled_from(
    [
        "NA",
        "null",
        "None",
        "[PAD]",
        '"',
        '"a',
        "a\tb",
        "a\nb",
        "a\r",
        "%41",
        "%",
        "%%20",
        "é",
        "日本",
        " ",
        "007",
        "\x00",
        "\x7f",
        "\ufeff",
        "\ufeffa",
        "a\ufeff",
        "a b",
    ]
)


def pandas_reads(path):
    """As recbole.data.dataset.Dataset._load_feat does."""
    frame = pd.read_csv(path, delimiter="\t", dtype=str, encoding="utf-8")
    return [[None if pd.isna(value) else value for value in row] for row in frame.to_numpy().tolist()]


@given(TEXT | HOSTILE, st.booleans())
def test_unescape_is_the_inverse(raw, in_sequence):
    assert unescape(escape(raw, in_sequence=in_sequence)) == raw


@given(TEXT | HOSTILE, TEXT | HOSTILE)
@example("%41", "A")
@example("\t", "%09")
def test_different_values_stay_different(first, second):
    assert (escape(first) == escape(second)) == (first == second)


@pytest.mark.parametrize("word", sorted(MISSING_WORDS))
def test_no_missing_word_survives(word):
    assert escape(word) not in MISSING_WORDS
    assert escape_series(pl.Series([word, "plain", None])).to_list() == [escape(word), "plain", None]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT | HOSTILE, st.lists(TEXT | HOSTILE, max_size=3)), min_size=1, max_size=6))
def test_round_trip_through_a_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("escape") / "x.inter"
    tokens, lists = [row[0] for row in rows], [row[1] for row in rows]
    frame = pl.DataFrame(
        {"t": tokens, "s": lists, "n": ["k"] * len(rows)},
        schema={"t": pl.String, "s": pl.List(pl.String), "n": pl.String},
    )
    assert write_atomic(frame, path, {"t": "token", "s": "token_seq", "n": "token"}) == len(rows)
    read = pl.concat([batch.frame for batch in AtomicTable([path]).batches()])
    assert [unescape(text or "") for text in read["t"]] == tokens
    split = [[unescape(part) for part in (text or "").split(" ") if part] for text in read["s"]]
    assert split == [[value for value in row if value] for row in lists]
    assert pandas_reads(path) == [list(row) for row in read.rows()]
    distinct = read["t"].drop_nulls().unique()
    vocabulary = TokenVocabulary.from_counts(distinct, np.ones(len(distinct), np.int64), 1)
    ids = vocabulary.raw_ids(pl.Series(tokens, dtype=pl.String))
    assert [int(i) == 0 for i in ids] == [token == "" for token in tokens]
    assert all(vocabulary.series[int(i) - 2] == escape(token) for i, token in zip(ids, tokens, strict=True) if token)


@pytest.mark.parametrize("word", sorted({*MISSING_WORDS, "[PAD]"}))
def test_a_word_is_seen_wherever_it_stands_and_its_likes_are_not(word):
    for row in ([word, "a", "b"], ["", word, ""], ["a", "n", word], ["n", "n", "n"]):
        text = "x\ty\tz\n" + "\t".join(row) + "\nnan1\tNon\tann\n"
        assert needs_escaping(text.encode(), 3, 3) == ("words" if word in row else "no")
    if word[0] in "nN":
        for like in (f"{word}a", f"a{word}", f"{word} ", f" {word}", word[:-1]):
            assert like in MISSING_WORDS or needs_escaping(f"{like}\tx\n".encode(), 1, 2) == "no"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT | HOSTILE, TEXT | HOSTILE), min_size=1, max_size=4))
def test_bytes_that_need_no_escaping_hold_nothing_hostile(rows):
    written = "".join("\t".join(row) + "\n" for row in rows).encode()
    hostile = {text for row in rows for text in row if escape(text) != text}
    found = needs_escaping(written, len(rows), 2)
    if found == "no":
        assert not hostile
    if found == "words":
        assert hostile <= {*MISSING_WORDS, "[PAD]"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(TEXT | HOSTILE, max_size=3), min_size=1, max_size=5))
def test_a_text_of_values_is_written_as_a_list_of_them(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("sequence")
    rows = [[value for value in row if value and " " not in value] for row in rows]
    frames = {
        "list": pl.DataFrame({"s": rows, "n": ["k"] * len(rows)}, schema={"s": pl.List(pl.String), "n": pl.String}),
        "text": pl.DataFrame({"s": [" ".join(row) for row in rows], "n": ["k"] * len(rows)}),
    }
    for name, frame in frames.items():
        write_atomic(frame, folder / name, {"s": "token_seq", "n": "token"})
    expected = "".join(" ".join(escape(value, in_sequence=True) for value in row) + "\tk\n" for row in rows)
    assert (folder / "list").read_text(encoding="utf-8").partition("\n")[2] == expected
    assert (folder / "text").read_bytes() == (folder / "list").read_bytes()


def test_foreign_percent_signs_are_looked_up_as_they_are():
    foreign = TokenVocabulary(pl.Series(["http%3A%2F%2Fa", "b"]), 0)
    assert foreign.literal
    assert foreign.raw_ids(pl.Series(["http%3A%2F%2Fa", "b", "c"])).tolist() == [2, 3, 1]
    ours = TokenVocabulary(pl.Series(["%2541", "b"]), 0)
    assert not ours.literal
    assert ours.raw_ids(pl.Series(["%41", "A"])).tolist() == [2, 1]
