"""The page of ``data info``: one file, well-formed, with a title for every plot, and nothing from the network."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from recbole_dtn.inspect.info.page import page
from recbole_dtn.inspect.info.report import (
    DataInfo,
    DuplicateInfo,
    FieldInfo,
    FieldSplit,
    Lengths,
    Numbers,
    PairInfo,
    SingleFieldAuc,
    TaskInfo,
    TaskSplit,
    Tokens,
)

SPLITS = ("train", "valid", "test")
SVG = "{http://www.w3.org/2000/svg}"


def field(name: str, kind: str) -> FieldInfo:
    split = FieldSplit(0.25, 30, 0.5, 0.5, 3, False)
    tokens = Tokens((("<b>&", 0.5), ("x", 0.25)), 0.5, 1.0, 2.7, ((1, 20), (2, 10), (3, 4)))
    return FieldInfo(
        name=name,
        kind=kind,
        table="inter",
        vocabulary=0 if kind == "float" else 3,
        rare=0,
        splits=dict.fromkeys(SPLITS, split),
        tokens=None if kind == "float" else tokens,
        lengths=dict.fromkeys(SPLITS, Lengths(2.5, 2, 7, 300)) if kind == "token_seq" else None,
        numbers=dict.fromkeys(SPLITS, Numbers(None, None, None, None, (), 0)) if kind == "float" else None,
    )


@pytest.fixture(scope="module")
def info() -> DataInfo:
    binary = TaskSplit(100, 4, 0.04, 0.0196, 0.14, None, None)
    nothing = TaskSplit(0, 0, None, None, None, None, None)
    stars = TaskSplit(100, None, None, None, None, 3.5, 1.0)
    return DataInfo(
        dataset="a & b",
        folder="data/<odd>",
        fingerprint="0123",
        rows={"train": 100, "valid": 10, "test": 10},
        fields=(field("user_$x$_<i>", "token"), field("_list", "token_seq"), field("price", "float")),
        tasks=(
            TaskInfo("click", "binary", (), dict.fromkeys(SPLITS, binary)),
            TaskInfo("buy", "binary", ("click",), {**dict.fromkeys(SPLITS, nothing), "train": binary}),
            TaskInfo("stars", "regression", (), dict.fromkeys(SPLITS, stars)),
        ),
        pairs=tuple(
            PairInfo(split, *names, 90, None, None, 3 if names[0] == "buy" else None)
            for split in SPLITS
            for names in (("click", "buy"), ("buy", "click"))
        ),
        duplicates={split: DuplicateInfo(100, 90, 12, 2, 5, 0.05, 1, 4, 0.04, 3) for split in SPLITS},
        single_field_auc=(SingleFieldAuc("price", "click", 0.987),),
        sampled_rows=100,
        warnings=("field 'price' <is> an outcome?",),
    )


class Tags(HTMLParser):
    """Whether every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawings(text: str) -> dict[str, ElementTree.Element]:
    found = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    return {str(svg.findtext(f"{SVG}title")): svg for svg in found}


def test_the_page_is_well_formed_and_asks_for_nothing(info: DataInfo) -> None:
    text = page(info)
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert not re.findall(r"<(?:script|link|img|iframe)\b|@import", text)
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", text)
    assert loaded
    assert all("".join(target).startswith("#") for target in loaded)
    assert page(info) == text


def test_every_plot_has_a_title_and_says_its_numbers_in_words(info: DataInfo) -> None:
    found = drawings(page(info))
    words = {title: svg.findtext(f"{SVG}desc") for title, svg in found.items()}
    assert words == {
        "Rows per split": "train: 100 rows; valid: 10 rows; test: 10 rows",
        "Positives per task and split": "; ".join(
            f"{task} in {split}: {'–' if task == 'buy' and split != 'train' else '4.00%'}"
            for task in ("click", "buy")
            for split in SPLITS
        ),
        "Tasks together, in training": "P(click | buy) = –; P(buy | click) = –",
        "Missing values, and values known to training": "; ".join(
            f"{name}: 25.00% missing in training, 50.00% known in test" for name in ("user_$x$_<i>", "_list", "price")
        ),
        "Token frequencies of the largest fields": "user_$x$_<i>: 3 tokens, effectively 3; "
        "_list: 3 tokens, effectively 3",
        "Lengths of lists": "_list: mean 2.5, median 2, 95 % 7, longest 300",
    }
    for title, svg in found.items():
        assert svg.get("role") == "img"
        labels = str(svg.get("aria-labelledby")).split()
        assert next(element.text for name in labels for element in svg.iter() if element.get("id") == name) == title
        assert "#010203" not in ElementTree.tostring(svg, encoding="unicode")


def test_names_are_text_in_plots_and_tables(info: DataInfo) -> None:
    text = page(info)
    assert "<i>" not in text
    assert "<b>" not in text
    assert "<odd>" not in text
    drawn = drawings(text)["Missing values, and values known to training"]
    assert "user_$x$_<i>" in [str(element.text).strip() for element in drawn.iter(f"{SVG}text")]
    legend = drawings(text)["Token frequencies of the largest fields"]
    assert "_list" in [str(element.text).strip() for element in legend.iter(f"{SVG}text")]


@pytest.mark.parametrize("rates", [(0.04, 0.001), (0.9, 0.00001), (0.05, 0.04), (1.0, 0.0)])
def test_axes_are_numbered_in_plain_text(info: DataInfo, rates: tuple[float, float]) -> None:
    tasks = tuple(
        TaskInfo(name, "binary", (), dict.fromkeys(SPLITS, TaskSplit(1000, 1, rate, rate / 10, None, None, None)))
        for name, rate in zip(("click", "buy"), rates, strict=True)
    )
    drawn = drawings(page(replace(info, tasks=tasks)))
    for title in ("Positives per task and split", "Token frequencies of the largest fields", "Lengths of lists"):
        texts = [str(element.text).strip() for element in drawn[title].iter(f"{SVG}text")]
        assert not [text for text in texts if "math" in text]
        assert len([text for text in texts if text[:1].isdigit()]) >= 2


def test_the_page_shows_what_was_counted(info: DataInfo) -> None:
    rows = re.findall(r"<tr>.*?</tr>", page(info), re.DOTALL)
    cells = [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).strip() for row in rows]
    assert "train 100 83.33% 90 12 2 5 5.00% 1 4 4.00% 3" in cells
    assert "click train 100 4 4.00% 1.960% 0.1400 – –" in cells
    assert "stars test 100 – – – – 3.5 1" in cells
    assert "buy after click valid 90 3" in cells
    assert "_list train 2.5 2 7 300 30" in cells
    assert "click price 0.987" in cells


def test_a_page_without_pairs_lists_or_tokens(info: DataInfo) -> None:
    plain = DataInfo(
        dataset="",
        folder="f",
        fingerprint="0",
        rows={"train": 3, "valid": 1, "test": 1},
        fields=(field("price", "float"),),
        tasks=(info.tasks[2],),
        pairs=(),
        duplicates=None,
        single_field_auc=None,
        sampled_rows=None,
        warnings=(),
    )
    text = page(plain)
    assert set(drawings(text)) == {"Rows per split", "Missing values, and values known to training"}
    assert "warnings" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert "Each field alone" not in text
