"""Synthetic Ali-CCP files, read by plain Python and held against what is known of the real ones."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from recbole_dtn.synthetic import aliccp, layout
from recbole_dtn.synthetic.generate import Planted, generate

FEATURE = re.compile(r"(\d+(?:_14)?)\x02([1-9]\d*)\x03(\d\.\d{1,5})")
USER = {"101", "121", "122", "124", "125", "126", "127", "128", "129"}
HISTORY = {"109_14", "110_14", "127_14", "150_14"}
ITEM = {"205", "206", "207", "216", "301", "508", "509", "702"}
ITEM_LISTS = {"210", "853"}
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "aliccp_raw"
ROWS = 4000
Features = list[tuple[str, int, str]]


def features(text: str) -> Features:
    found = []
    for feature in text.split("\x01"):
        match = FEATURE.fullmatch(feature)
        assert match, feature
        found.append((match[1], int(match[2]), match[3]))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return generate("aliccp", ROWS, 11, tmp_path_factory.mktemp("aliccp") / "raw")


def commons(folder: Path, part: str) -> dict[str, Features]:
    text = (folder / f"common_features_{part}.csv").read_bytes().decode()
    assert text.endswith("\n")
    found: dict[str, Features] = {}
    for line in text[:-1].split("\n"):
        index, number, tokens = line.split(",")
        assert re.fullmatch(r"[0-9a-f]{16}", index)
        assert index not in found
        found[index] = features(tokens)
        assert int(number) == len(found[index])
    return found


def skeleton(folder: Path, part: str) -> list[tuple[int, int, int, str, Features]]:
    text = (folder / f"sample_skeleton_{part}.csv").read_bytes().decode()
    assert text.endswith("\n")
    found = []
    for line in text[:-1].split("\n"):
        sample, click, buy, index, number, tokens = line.split(",")
        found.append((int(sample), int(click), int(buy), index, features(tokens)))
        assert int(number) == len(found[-1][4])
    return found


def test_skeletons(made: Planted) -> None:
    train, test = (skeleton(made.folder, part) for part in ("train", "test"))
    assert len(train) + len(test) == ROWS
    assert len(test) == round(ROWS * 43_016_840 / 85_316_975)
    for rows, part in ((train, "train"), (test, "test")):
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert {row[3] for row in rows} == set(commons(made.folder, part))
    rows = train + test
    present: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    for *_, tokens in rows:
        count = Counter(name for name, _, _ in tokens)
        present.update(count.keys())
        repeated.update(name for name in count if count[name] > 1)
        assert len({token[:2] for token in tokens}) == len(tokens)  # no token twice
        assert all(value == "1.0" for name, _, value in tokens if name in {"205", "206", "207", "210", "216", "301"})
    assert set(present) == ITEM | ITEM_LISTS
    assert set(repeated) == ITEM_LISTS
    assert present["301"] == ROWS
    for name, least, most in (("216", 0.2, 0.35), ("509", 0.6, 0.8), ("702", 0.55, 0.8), ("853", 0.1, 0.6)):
        assert least < 1 - present[name] / ROWS < most, name
    orders = {tuple(dict.fromkeys(name for name, _, _ in tokens)) for *_, tokens in rows}
    assert len(orders) > 16
    assert any(  # a repeated field stands in two places
        "".join("x" if name == "210" else "." for name, _, _ in tokens).strip(".").count(".") for *_, tokens in rows
    )


def test_labels(made: Planted) -> None:
    rows = [row for part in ("train", "test") for row in skeleton(made.folder, part)]
    clicks, buys = sum(row[1] for row in rows), sum(row[2] for row in rows)
    odd = sum(row[1] < row[2] for row in rows)
    assert abs(clicks - 0.0405 * ROWS) < 5 * math.sqrt(0.0405 * ROWS)
    # 2 % of 4,000 rows would be less than one purchase: a quarter of the clicks are, at most.
    assert abs(buys - odd - 0.0405 / 4 * ROWS) < 5 * math.sqrt(0.0405 / 4 * ROWS)
    assert 1 <= odd < 15
    assert "0.010125" in made.record["notes"][0]


def test_common_features(made: Planted) -> None:
    users = [tokens for part in ("train", "test") for tokens in commons(made.folder, part).values()]
    assert 30 < ROWS / len(users) < 90
    present: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    for tokens in users:
        count = Counter(name for name, _, _ in tokens)
        present.update(count.keys())
        lengths.update(count)
        assert all(count[name] == 1 for name in count if name in USER)
        assert len({token[:2] for token in tokens}) == len(tokens)
        profile = {name for name in ("121", "122", "124", "125", "127", "128") if name in count}
        assert len(profile) in (0, 6)
    assert set(present) == USER | HISTORY
    assert 250 < sum(lengths.values()) / len(users) < 900
    assert 0.4 < 1 - present["126"] / len(users) < 0.78
    assert 0.2 < 1 - present["129"] / len(users) < 0.55
    values = Counter(value for tokens in users for name, _, value in tokens if name == "110_14")
    counted = {f"{math.log1p(c):.5f}".rstrip("0") for c in range(1, 1101)}
    assert set(values) <= counted
    assert values.most_common(1)[0][0] == "0.69315"
    assert len({value for tokens in users for name, _, value in tokens if name == "150_14"} - counted) > 100


def test_ids_are_global(made: Planted) -> None:
    field_of: dict[int, str] = {}
    for part in ("train", "test"):
        lists = [*commons(made.folder, part).values(), *(row[4] for row in skeleton(made.folder, part))]
        for name, number, _ in (token for tokens in lists for token in tokens):
            assert field_of.setdefault(number, name) == name


@pytest.mark.parametrize(
    ("combined", "history", "item"), [("508", "109_14", "206"), ("702", "127_14", "216"), ("853", "150_14", "210")]
)
def test_combinations_agree_with_history_and_item(made: Planted, combined: str, history: str, item: str) -> None:
    """The ids of one thing differ by a constant between fields, which only a consistent set leaves possible."""
    to_item: set[int] | None = None
    to_history: set[int] | None = None
    seen = 0
    for part in ("train", "test"):
        users = commons(made.folder, part)
        for *_, index, tokens in skeleton(made.folder, part):
            own = [number for name, number, _ in tokens if name == item]
            for number, value in ((number, value) for name, number, value in tokens if name == combined):
                seen += 1
                steps = {number - other for other in own}
                to_item = steps if to_item is None else to_item & steps
                steps = {number - other for name, other, v in users[index] if name == history and v == value}
                to_history = steps if to_history is None else to_history & steps
    assert seen > 500
    assert to_item is not None
    assert to_history is not None
    assert len(to_item) == len(to_history) == 1
    (item_step,), (history_step,) = to_item, to_history
    # ... and a row has the combination whenever its user's history holds what the item is.
    for part in ("train", "test"):
        held = {
            index: {n for name, n, _ in tokens if name == history}
            for index, tokens in commons(made.folder, part).items()
        }
        for *_, index, tokens in skeleton(made.folder, part):
            expected = {
                n + item_step for name, n, _ in tokens if name == item and n + item_step - history_step in held[index]
            }
            assert {n for name, n, _ in tokens if name == combined} == expected


def test_an_index_means_nothing_outside_its_file(made: Planted) -> None:
    train, test = (commons(made.folder, part) for part in ("train", "test"))
    both = set(train) & set(test)
    assert both
    assert all(train[index] != test[index] for index in both)


def test_popular_ids(made: Planted) -> None:
    shown = Counter(n for *_, tokens in skeleton(made.folder, "train") for name, n, _ in tokens if name == "206")
    top = sorted(shown.values(), reverse=True)
    assert top[0] > 5 * sum(top) / len(top)
    assert top[-1] <= 3


def test_blocks_follow_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (layout, aliccp):
        monkeypatch.setattr(module, "BLOCK_ROWS", 2000)
    generate("aliccp", 5000, 2, tmp_path / "raw", test_share=0.01)
    rows = skeleton(tmp_path / "raw", "train")
    assert len(rows) > 2 * 2000
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert {row[3] for row in rows} == set(commons(tmp_path / "raw", "train"))


def test_real_rows_have_the_same_grammar() -> None:
    if not REAL.is_dir():
        pytest.skip("the real sample rows are not at hand")
    for name, columns in (("sample_skeleton_train.csv", 6), ("common_features_train.csv", 3)):
        for line in (REAL / name).read_text().splitlines():
            parts = line.split(",")
            assert len(parts) == columns
            assert {feature[0] for feature in features(parts[-1])} <= USER | HISTORY | ITEM | ITEM_LISTS
