"""The statistics of ``data info`` against slow plain Python on a small random data set with every kind of field."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.errors import DataError
from recbole_dtn.inspect.info import duplicates, fields, suspects, view
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.inspect.info.report import DataInfo
from recbole_dtn.inspect.info.tasks import auc_error
from recbole_dtn.preprocess.prepare import PreparedData, prepare

Row = dict[str, Any]
SPLITS = ("train", "valid", "test")
SIZES = {"train": 150, "valid": 40, "test": 60}
MIN_COUNT = 3
YAML = f"""\
fields:
- {{name: user}}
- {{name: item, min_count: {MIN_COUNT}}}
- {{name: words, type: token_seq}}
- {{name: x, type: float}}
- {{name: b, type: float, encoding: bins, bins: 3}}
- {{name: age}}
- {{name: tags, type: token_seq, weights: tag_weights}}
- {{name: income, type: float}}
- {{name: one}}
tasks:
- {{name: click, label: click}}
- {{name: buy, label: buy, observed_when: seen == 1, after: [click]}}
- {{name: stars, label: stars, kind: regression}}
split: given
"""


def rows_of(rng: random.Random, split: str, count: int) -> list[Row]:
    """Interactions with few distinct values, so that many are the same."""
    items = ["i0", "i1", "i2", "i3", "rare" + split, "rarer" + split]
    rows = []
    for _ in range(count):
        words = [rng.choice("abc") for _ in range(rng.choice([0, 1, 2]))]
        click, seen = int(rng.random() < 0.5), int(rng.random() < 0.7)
        rows.append(
            {
                "user": rng.choice(["u0", "u1", "u2", "nobody"]),
                "item": rng.choices(items, [6, 4, 3, 2, 0.1, 0.1])[0],
                "words": words if split != "test" else [*words, "z"][: rng.choice([1, 3])],
                "x": rng.choice([1.5, 2.5, None]),
                "b": rng.choice([1.0, 2.0, 3.0, 4.0, None]),
                "one": "same",
                "click": click,
                "buy": int(rng.random() < 0.3),
                "seen": seen,
                "stars": rng.choice([1.0, 2.0, 5.0]),
            }
        )
    return rows


USERS: dict[str, Row] = {
    "u0": {"age": "old", "tags": ["p", "q", "p"], "tag_weights": [1.0, 2.0, 0.5], "income": 10.0},
    "u1": {"age": "old", "tags": ["q", "p", "p"], "tag_weights": [2.0, 0.5, 1.0], "income": 10.0},
    "u2": {"age": "", "tags": [], "tag_weights": [], "income": None},
    "unused": {"age": "never", "tags": ["r"], "tag_weights": [1.0], "income": 1e6},
}
NOBODY: Row = {"age": "", "tags": [], "tag_weights": [], "income": None}


def text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Row]]:
    rng = random.Random(3)
    drawn = {split: rows_of(rng, split, count) for split, count in SIZES.items()}
    drawn["valid"] += [dict(row) for row in drawn["train"][:9]]  # repeated as they are
    drawn["test"] += [{**row, "click": 1 - row["click"]} for row in drawn["train"][:5]]  # with another label
    return drawn


@pytest.fixture(scope="module")
def prepared(drawn: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("data") / "mine"
    folder.mkdir()
    (folder / "mine.yaml").write_text(YAML)
    types = {"words": "token_seq", "user": "token", "item": "token", "one": "token"}
    names = list(drawn["train"][0])
    for split, rows in drawn.items():
        lines = ["\t".join(f"{name}:{types.get(name, 'float')}" for name in names)]
        lines += ["\t".join(text(row[name]) for name in names) for row in rows]
        (folder / f"mine.{split}.inter").write_text("\n".join(lines) + "\n")
    lines = ["user:token\tage:token\ttags:token_seq\ttag_weights:float_seq\tincome:float"]
    lines += ["\t".join([user, *(text(value) for value in row.values())]) for user, row in USERS.items()]
    (folder / "mine.user").write_text("\n".join(lines) + "\n")
    return prepare(resolve(["--dataset=mine", f"--data_path={folder.parent}"]).settings)


@pytest.fixture(scope="module")
def joined(drawn: dict[str, list[Row]]) -> dict[str, list[Row]]:
    return {split: [{**row, **USERS.get(row["user"], NOBODY)} for row in rows] for split, rows in drawn.items()}


@pytest.fixture(params=[None, 7], ids=["whole", "blocks of 7 rows"])
def info(prepared: PreparedData, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DataInfo:
    """Taken in one block, and in many with the rows parted on disk."""
    if request.param is not None:
        monkeypatch.setattr(view, "BLOCK_ROWS", request.param)
        monkeypatch.setattr(view, "BLOCK_VALUES", 5)
        monkeypatch.setattr(duplicates, "PART_ROWS", 11)
        monkeypatch.setattr(duplicates, "SIDE_ROWS_IN_MEMORY", 0)
    return inspect(prepared, dataset="mine")


def known_tokens(joined: dict[str, list[Row]], name: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in joined["train"]:
        counts.update(row[name] if isinstance(row[name], list) else [row[name]] if row[name] else [])
    return {token: count for token, count in counts.items() if count >= (MIN_COUNT if name == "item" else 1)}


# ---- fields -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["user", "item", "age", "one", "words", "tags"])
def test_tokens_are_counted(info: DataInfo, joined: dict[str, list[Row]], name: str) -> None:
    field = next(field for field in info.fields if field.name == name)
    known = known_tokens(joined, name)
    assert field.vocabulary == len(known)
    for split, rows in joined.items():
        found = field.splits[split]
        lists = [row[name] if isinstance(row[name], list) else [row[name]] if row[name] else [] for row in rows]
        values = [value for one in lists for value in one]
        assert found.missing == pytest.approx(sum(not one for one in lists) / len(rows))
        assert found.values == len(values)
        assert found.unknown == pytest.approx(sum(value not in known for value in values) / len(values))
        assert found.coverage == pytest.approx(1 - found.unknown)
        assert found.distinct == len({value if value in known else None for value in values})
        assert found.constant == (len({tuple(one) for one in lists}) == 1)
        if field.lengths is not None:
            lengths = sorted(map(len, lists))
            assert field.lengths[split].mean == pytest.approx(sum(lengths) / len(lengths))
            assert field.lengths[split].median == lengths[math.ceil(0.5 * len(rows)) - 1]
            assert field.lengths[split].p95 == lengths[math.ceil(0.95 * len(rows)) - 1]
            assert field.lengths[split].longest == lengths[-1]


@pytest.mark.parametrize("name", ["user", "item", "words", "tags"])
def test_tokens_are_ranked(info: DataInfo, joined: dict[str, list[Row]], name: str) -> None:
    field = next(field for field in info.fields if field.name == name)
    assert field.tokens is not None
    known = known_tokens(joined, name)
    present = field.splits["train"].values
    ranked = sorted(known.items(), key=lambda pair: (-pair[1], pair[0]))
    assert [token for token, _ in field.tokens.top] == [token for token, _ in ranked[:5]]
    assert [share for _, share in field.tokens.top] == pytest.approx([count / present for _, count in ranked[:5]])
    assert field.tokens.top_percent_share == pytest.approx(ranked[0][1] / present)
    total = sum(known.values())
    entropy = -sum(count / total * math.log(count / total) for count in known.values())
    assert field.tokens.entropy == pytest.approx(entropy)
    assert field.tokens.effective == pytest.approx(math.exp(entropy))
    assert field.tokens.frequency == tuple((rank, count) for rank, (_, count) in enumerate(ranked, 1))


@pytest.mark.parametrize("name", ["x", "income"])
def test_numbers_have_their_moments_in_the_units_of_the_file(
    info: DataInfo, joined: dict[str, list[Row]], name: str
) -> None:
    field = next(field for field in info.fields if field.name == name)
    assert field.numbers is not None
    assert (field.kind, field.vocabulary, field.tokens) == ("float", 0, None)
    for split, rows in joined.items():
        values = np.array([row[name] for row in rows if row[name] is not None])
        found = field.numbers[split]
        assert field.splits[split].missing == pytest.approx(1 - len(values) / len(rows))
        assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()), rel=1e-6)
        assert (found.smallest, found.largest) == (values.min(), values.max())
        assert found.quantiles == pytest.approx(tuple(np.quantile(values, fields.QUANTILES)), rel=1e-6)
        assert found.sampled == len(rows)


def test_bins_are_tokens_named_by_their_bounds(info: DataInfo, joined: dict[str, list[Row]]) -> None:
    field = next(field for field in info.fields if field.name == "b")
    assert field.tokens is not None
    values = [row["b"] for row in joined["train"] if row["b"] is not None]
    edges = [float(edge) for edge in np.unique(np.quantile(values, [1 / 3, 2 / 3]))]
    names = [f"{edge:.5g}" for edge in edges]
    assert len(edges) == 2
    counts = {
        f"(-inf, {names[0]})": sum(value < edges[0] for value in values),
        f"[{names[0]}, {names[1]})": sum(edges[0] <= value < edges[1] for value in values),
        f"[{names[1]}, inf)": sum(value >= edges[1] for value in values),
    }
    assert dict(field.tokens.top) == pytest.approx({name: count / len(values) for name, count in counts.items()})
    assert field.splits["train"].coverage is None


# ---- tasks --------------------------------------------------------------------------------------------------------


def label(row: Row, task: str) -> float | None:
    return None if task == "buy" and not row["seen"] else row[task]


def test_tasks_are_counted_where_they_are_observed(info: DataInfo, joined: dict[str, list[Row]]) -> None:
    for task in info.tasks:
        for split, rows in joined.items():
            values = [value for row in rows if (value := label(row, task.name)) is not None]
            found = task.splits[split]
            assert found.observed == len(values)
            if task.kind == "regression":
                assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values)))
                assert (found.positives, found.rate, found.auc_error) == (None, None, None)
                continue
            rate = sum(values) / len(values)
            assert (found.positives, found.rate) == (sum(values), pytest.approx(rate))
            assert found.rate_error == pytest.approx(math.sqrt(rate * (1 - rate) / len(values)))
            assert found.auc_error == auc_error(int(sum(values)), len(values) - int(sum(values)))


def test_pairs_of_tasks(info: DataInfo, joined: dict[str, list[Row]]) -> None:
    assert {(pair.split, pair.task, pair.other) for pair in info.pairs} == {
        (split, *names) for split in SPLITS for names in (("click", "buy"), ("buy", "click"))
    }
    for pair in info.pairs:
        both = [
            (first, second)
            for row in joined[pair.split]
            if (first := label(row, pair.task)) is not None and (second := label(row, pair.other)) is not None
        ]
        first, second = np.array(both).T
        assert pair.both == len(both)
        assert pair.given == pytest.approx(first[second == 1].mean())
        assert pair.phi == pytest.approx(np.corrcoef(first, second)[0, 1])
        assert pair.violations == (int(((first == 1) & (second == 0)).sum()) if pair.task == "buy" else None)


def test_the_error_of_a_random_auc_is_that_of_the_rank_sum() -> None:
    for ones, zeros in ((1, 1), (7, 30), (1000, 20)):
        assert auc_error(ones, zeros, auc=0.5) == pytest.approx(math.sqrt((ones + zeros + 1) / (12 * ones * zeros)))
    assert auc_error(0, 5) is None
    assert auc_error(5, 0) is None


# ---- duplicates ---------------------------------------------------------------------------------------------------


def inputs(row: Row, known: dict[str, dict[str, int]], edges: tuple[float, ...]) -> tuple[Any, ...]:
    """What a row's inputs are once encoded."""

    def token(name: str, value: str) -> str:
        return value if not value or value in known[name] else "unknown"

    return (
        *(token(name, row[name]) for name in ("user", "item", "age", "one")),
        tuple(sorted(token("words", value) for value in row["words"])),
        tuple(sorted(zip([token("tags", v) for v in row["tags"]], row["tag_weights"], strict=True))),
        row["x"],
        None if row["b"] is None else sum(row["b"] >= edge for edge in edges),
        row["income"],
    )


def test_duplicates_and_leaks(info: DataInfo, prepared: PreparedData, joined: dict[str, list[Row]]) -> None:
    known = {name: known_tokens(joined, name) for name in ("user", "item", "age", "one", "words", "tags")}
    edges = next(spec.bins for spec in prepared.schema.fields if spec.name == "b")
    tasks = [task.name for task in info.tasks]
    keys = {
        split: [(inputs(row, known, edges), tuple(label(row, task) for task in tasks)) for row in rows]
        for split, rows in joined.items()
    }
    train_inputs, train_rows = {key for key, _ in keys["train"]}, set(keys["train"])
    assert info.duplicates is not None
    for split, rows in keys.items():
        counts = Counter(key for key, _ in rows)
        labels: dict[Any, set[Any]] = {}
        for key, label_values in rows:
            labels.setdefault(key, set()).add(label_values)
        found = info.duplicates[split]
        assert found.rows == len(rows)
        assert found.distinct == len(counts)
        assert found.repeated == sum(count for count in counts.values() if count > 1)
        assert found.conflicting == sum(len(labels[key]) > 1 for key, _ in rows)
        if split == "train":
            assert (found.leaked, found.leaked_share, found.leaked_same) == (None, None, None)
            assert (found.in_valid, found.in_valid_share, found.in_valid_same) == (None, None, None)
            continue
        assert found.leaked == sum(key in train_inputs for key, _ in rows)
        assert found.leaked_share == pytest.approx(found.leaked / len(rows))
        assert found.leaked_same == sum(row in train_rows for row in rows)
        if split == "valid":
            assert (found.in_valid, found.in_valid_share, found.in_valid_same) == (None, None, None)
            continue
        valid_inputs = {key for key, _ in keys["valid"]}
        assert found.in_valid == sum(key in valid_inputs for key, _ in rows)
        assert found.in_valid_share == pytest.approx(found.in_valid / len(rows))
        assert found.in_valid_same == sum(row in set(keys["valid"]) for row in rows)
    valid, test = info.duplicates["valid"], info.duplicates["test"]
    assert valid.leaked_same is not None
    assert valid.leaked_same >= 9
    assert test.leaked is not None
    assert test.leaked_same is not None
    assert test.leaked >= 5
    assert test.leaked > test.leaked_same
    assert 0 < info.duplicates["train"].conflicting < info.duplicates["train"].rows


def test_user_rows_with_equal_fields_differ_by_the_user_alone(prepared: PreparedData) -> None:
    """u0 and u1 have the same tags with the same weights in another order: their side rows are the same."""
    hashes = duplicates._RowHashes(view.StoreView(prepared), prepared.cache_folder)
    users = hashes.side["user"].T.tolist()
    assert users[0] == users[1]
    assert users[2] == users[4]  # no user at all is a user without values
    assert len({tuple(words) for words in users}) == 3


def test_nothing_is_left_beside_the_cache(info: DataInfo, prepared: PreparedData) -> None:
    assert info.rows["train"] == SIZES["train"]
    assert list(prepared.cache_folder.parent.glob(".writing-*")) == []


def test_a_scratch_folder_that_fails_is_a_message_with_a_way_on(prepared: PreparedData, tmp_path: Path) -> None:
    scratch = tmp_path / "gone"
    with pytest.raises(DataError, match=r"rows cannot be compared there .*--quick") as caught:
        duplicates.duplicates(view.StoreView(prepared), scratch)
    assert str(caught.value).startswith(f"{scratch}: ")


# ---- fields alone -------------------------------------------------------------------------------------------------


def half(row: int) -> int:
    """The lowest bit of splitmix64's finaliser, in plain integers."""
    mask = 2**64 - 1
    row = (row ^ row >> 30) * 0xBF58476D1CE4E5B9 & mask
    row = (row ^ row >> 27) * 0x94D049BB133111EB & mask
    return (row ^ row >> 31) & 1


def slow_auc(scores: list[float], labels: list[float]) -> float:
    ones = [score for score, value in zip(scores, labels, strict=True) if value]
    zeros = [score for score, value in zip(scores, labels, strict=True) if not value]
    wins = sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros)
    return wins / (len(ones) * len(zeros))


def slow_single_auc(lists: list[list[Any]], labels: list[float | None], *, multi: bool) -> float:
    seen = [row for row, value in enumerate(labels) if value is not None]
    aucs = []
    for side in (0, 1):
        other = [row for row in seen if half(row) != side]
        mine = [row for row in seen if half(row) == side]
        filled = [value for row in other for value in lists[row]]
        pairs = [(value, labels[row]) for row in other for value in lists[row]]
        rate = sum(ones for _, ones in pairs) / max(len(filled), 1)  # type: ignore[misc]
        overall = sum(labels[row] for row in other) / len(other)  # type: ignore[misc]
        empty = [labels[row] for row in other if not lists[row]]

        def score(value: Any, pairs: list[Any] = pairs, rate: float = rate) -> float:
            hits = [ones for one, ones in pairs if one == value]
            return (sum(hits) + rate) / (len(hits) + 1)

        scores = [
            sum(map(score, lists[row])) / len(lists[row])
            if lists[row] or not multi
            else (sum(empty) + overall) / (len(empty) + 1)  # type: ignore[arg-type]
            for row in mine
        ]
        aucs.append(slow_auc(scores, [labels[row] for row in mine]))  # type: ignore[misc]
    return sum(aucs) / 2


def test_each_field_alone(
    prepared: PreparedData, joined: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "FEWEST", 5)
    info = inspect(prepared)
    assert info.single_field_auc is not None
    assert info.sampled_rows == SIZES["train"]
    found = {(one.field, one.task): one.auc for one in info.single_field_auc}
    assert len(found) == 2 * len(info.fields)
    known = {name: known_tokens(joined, name) for name in ("user", "item", "age", "words", "tags")}
    for (name, task), auc in found.items():
        if name in ("one", "b"):
            continue
        multi = name in ("words", "tags")
        lists = [
            row[name] if multi else [row[name] if name in ("x", "income") or row[name] in ("", *known[name]) else "?"]
            for row in joined["train"]
        ]
        labels = [label(row, task) for row in joined["train"]]
        assert auc == pytest.approx(slow_single_auc(lists, labels, multi=multi)), (name, task)
    assert found["one", "click"] == 0.5


def test_a_sample_is_evenly_spaced_and_says_its_size(
    prepared: PreparedData, joined: dict[str, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = [i * SIZES["train"] // 97 for i in range(97)]
    monkeypatch.setattr(fields, "SAMPLED", 97)
    monkeypatch.setattr(suspects, "SAMPLED", 97)
    monkeypatch.setattr(suspects, "FEWEST", 2)
    monkeypatch.setattr(suspects, "SAMPLED_VALUES", 80)
    monkeypatch.setattr(view, "BLOCK_ROWS", 10)
    info = inspect(prepared)
    assert info.sampled_rows == 97
    numbers = next(field for field in info.fields if field.name == "x").numbers
    assert numbers is not None
    values = [value for i in taken if (value := joined["train"][i]["x"]) is not None]
    assert numbers["train"].sampled == 97
    assert numbers["train"].quantiles == pytest.approx(tuple(np.quantile(values, fields.QUANTILES)))
    labels, observed = view.StoreView(prepared).labels_of(np.array(taken))
    expected = [[label(joined["train"][i], task.name) for task in info.tasks] for i in taken]
    wanted = np.array([[math.nan if value is None else value for value in row] for row in expected])
    np.testing.assert_array_equal(np.where(observed, labels, np.nan), wanted)
    lists = suspects._Lists(view.StoreView(prepared), prepared.splits["train"].store.columns["words"], np.array(taken))
    total = sum(len(joined["train"][i]["words"]) for i in taken)
    assert lists.step == math.ceil(total / 80)
    assert lists.lengths.tolist() == [len(joined["train"][i]["words"]) for i in taken[:: lists.step]]


# ---- the meter ------------------------------------------------------------------------------------------------------


def test_the_meter_reaches_every_end(prepared: PreparedData) -> None:
    seen: dict[str, tuple[int, int]] = {}
    inspect(prepared, meter=lambda stage, done, total: seen.__setitem__(stage, (done, total)))
    rows = sum(len(split) for split in prepared.splits.values())
    assert seen["hashing rows"] == (rows, rows)
    assert all(done == total for done, total in seen.values())
    assert set(seen) == {"counting fields", "hashing rows", "comparing rows", "each field alone"}
