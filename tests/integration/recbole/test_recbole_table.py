"""Ids of any spelling: raw CSV -> ``preprocess table`` -> stock RecBole's Dataset, and -> our cache."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recbole.data import create_dataset
from recbole.model.context_aware_recommender.deepfm import DeepFM

from recbole_dtn.config.load import resolve
from recbole_dtn.data.escape import unescape
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.preprocess.table.preprocessor import preprocess_table

SPEC = "fields: [{name: user}, {name: shop}]\ntasks: [{name: click, label: click}]\n"
ODD = [
    "NA", "nan", "null", "None", "N/A", "[PAD]", '"', '"a', 'a"b', "a\tb", "a\nb", "a\r\nb", "a\r", "%41", "%", "%%20",
    "é", "日本", " ", " 7", "7", "007", "7.0", "\x00", "\x7f", ",", "", "a b", "1e5", "-", "#N/A", "\ufeff", "\u2028",
    "'", "\\", "0x1", "True", "\x1f",
]  # fmt: skip
ID = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(ODD)
ROWS = 40


def preprocess(toy: Any, ids: list[tuple[str, str]], kind: str) -> Path:
    """The ids again and again, to 40 rows or more, through the table route."""
    raw: Path = toy.data_path / f"raw.{kind}"
    rows = [(*pair, str(number % 2)) for number, pair in enumerate(repeated(ids))]
    if kind == "csv":
        with raw.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("user", "shop", "click"), *rows])
    else:
        pl.DataFrame(rows, schema=["user", "shop", "click"], orient="row").write_parquet(raw)
    (toy.data_path / "spec.yaml").write_text(SPEC)
    return preprocess_table(raw, toy.data_path / "spec.yaml", "toy", toy.data_path, overwrite=True)


def repeated(ids: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return ids * -(-ROWS // len(ids))


def check(toy: Any, ids: list[tuple[str, str]], kind: str) -> None:
    preprocess(toy, ids, kind)
    raw = repeated(ids)
    stock = create_dataset(toy.stock_config(DeepFM, numerical_features=[], benchmark_filename=None))
    assert len(stock.inter_feat) == len(raw)
    found = resolve({"model": "MMoE", "dataset": "toy", "data_path": str(toy.data_path)}).settings
    prepared = prepare(found)
    train = prepared.splits["train"].batch(np.arange(prepared.splits["train"].rows))
    for at, field in enumerate(("user", "shop")):
        texts = [pair[at] for pair in raw]
        read = stock.id2token(field, stock.inter_feat[field])
        assert ["" if token == "[PAD]" else unescape(token) for token in read] == texts
        assert len(set(read)) == len(set(texts))
        trained = {texts[row] for row in train.row.tolist()} - {""}
        assert {unescape(token) for token in prepared.vocabularies.tokens(field)} == trained
        absent = [text == "" for text in (texts[row] for row in train.row.tolist())]
        assert (train.ids[:, at] == prepared.schema.fields[at].offset).tolist() == absent


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_odd_id_survives(toy: Any, kind: str) -> None:
    check(toy, [*zip(ODD, reversed(ODD), strict=True)], kind)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.tuples(ID, ID), min_size=1, max_size=6))
@example(ids=[("\ufeff", "\ufeffa"), ('""', "\r")])
def test_any_id_survives(toy: Any, ids: list[tuple[str, str]]) -> None:
    check(toy, ids, "csv")


# ---- the same with the two id fields set ----------------------------------------------------------------------------


def survivors(rows: list[tuple[str, str]]) -> list[int] | None:
    """The rows that stock RecBole keeps, of those with two keys; None where it fails.

    ``Dataset._filter_nan_user_or_item`` takes the labels of the empty rows for positions, which they are no longer once
    the rows without a user are gone.
    """
    kept = [row for row, (user, _) in enumerate(rows) if user]
    without_item = [row for row in kept if not rows[row][1]]
    if any(row >= len(kept) for row in without_item):
        return None
    dropped = {kept[row] for row in without_item}
    return [row for row in kept if row not in dropped] or None


def keyed(toy: Any) -> Any:
    keys = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "shop"}
    return create_dataset(toy.stock_config(DeepFM, numerical_features=[], benchmark_filename=None, **keys))


def read_ids(stock: Any) -> list[tuple[str, str]]:
    columns = [
        ["" if token == "[PAD]" else unescape(token) for token in stock.id2token(field, stock.inter_feat[field])]
        for field in ("user", "shop")
    ]
    return list(zip(*columns, strict=True))


def check_keyed(toy: Any, ids: list[tuple[str, str]]) -> None:
    preprocess(toy, ids, "csv")
    raw = repeated(ids)
    kept = survivors(raw)
    if kept is None:
        with pytest.raises((IndexError, ValueError)):
            keyed(toy)
        return
    assert read_ids(keyed(toy)) == [raw[row] for row in kept]


def test_stock_drops_a_whole_row_and_keeps_one_without_item(toy: Any) -> None:
    rows = [("a", "s"), ("", "t"), ("b", ""), ("c", "u"), ("d", "v"), ("e", "w")]
    lines = ["user:token\tshop:token\tclick:float", *(f"{user}\t{shop}\t1" for user, shop in rows)]
    (toy.data_path / "toy/toy.inter").write_text("\n".join(lines) + "\n")
    assert read_ids(keyed(toy)) == [("a", "s"), ("b", ""), ("d", "v"), ("e", "w")]
    assert survivors(rows) == [0, 2, 4, 5]


def test_in_given_parts_stock_keeps_rows_without_an_id_and_joins_a_side_row_without_one(toy: Any) -> None:
    parts = {"train": ["a", "", "b"], "valid": ["c", "d"], "test": ["", "f"]}
    (toy.data_path / "toy/toy.user").write_text("user:token\tcity:token\na\tx\n\ty\nb\tx\nc\tx\nd\tx\nf\tx\n")
    for part, users in parts.items():
        lines = ["user:token\tshop:token\tclick:float", *(f"{user}\ts\t1" for user in users)]
        (toy.data_path / f"toy/toy.{part}.inter").write_text("\n".join(lines) + "\n")
    keys = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "shop"}
    stock = create_dataset(toy.stock_config(DeepFM, numerical_features=[], **keys)).build()
    found = [list(one.id2token("user", one.inter_feat["user"])) for one in stock]
    assert found == [["a", "[PAD]", "b"], ["c", "d"], ["[PAD]", "f"]]
    joined = stock[0].join(stock[0].inter_feat)
    assert list(stock[0].id2token("city", joined["city"])) == ["x", "y", "x"]


def test_every_odd_id_that_is_not_empty_survives_as_a_key(toy: Any) -> None:
    filled = [text for text in ODD if text]
    check_keyed(toy, [*zip(filled, reversed(filled), strict=True)])
    preprocess(toy, [*zip(filled, reversed(filled), strict=True)], "csv")
    assert len(keyed(toy).inter_feat) == len(repeated([*zip(filled, filled, strict=True)]))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.tuples(ID, ID), min_size=1, max_size=6))
@example(ids=[("a", "b"), ("", "c"), ("d", "")])
@example(ids=[("a", "b"), ("a", "c"), ("", "c"), ("d", ""), ("e", "f")])
@example(ids=[("", "")])
@example(ids=[("a", "")])
def test_what_survives_as_a_key_is_known(toy: Any, ids: list[tuple[str, str]]) -> None:
    check_keyed(toy, ids)
