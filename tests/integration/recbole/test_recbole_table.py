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
from recbole_dtn.data.datamodule import prepare
from recbole_dtn.data.escape import unescape
from recbole_dtn.data.preprocess.table import preprocess_table

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
