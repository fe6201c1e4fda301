"""The planted model, worked out again in plain Python from planted.json and the raw rows, for every layout."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recbole_dtn.data.hashing import rng
from recbole_dtn.synthetic.auc import AucSketch
from recbole_dtn.synthetic.generate import generate
from recbole_dtn.synthetic.planted import Field, Goal, Model, choose
from recbole_dtn.synthetic.zipf import Scatter, Zipf

BITS = (1 << 64) - 1
Row = tuple[dict[str, list[Any]], dict[str, int]]  # values per field (none: absent), labels


def key_of(token: Any) -> int:
    if isinstance(token, int):
        return token & BITS
    return int.from_bytes(blake2b(token.encode(), digest_size=8).digest(), "little")


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def effect(seed: int, task: str, field: str, token: Any) -> float:
    h = mix(key_of(f"{seed}|{task}|{field}") ^ mix((key_of(token) + 0x9E3779B97F4A7C15) & BITS))
    parts = sum((h >> shift) & 0xFFFF for shift in (0, 16, 32, 48))
    return (parts - 131070) * math.sqrt(3) / 65536


def field_effect(record: dict[str, Any], task: str, one: dict[str, Any], values: list[Any]) -> float:
    seed, name = record["seed"], one["name"]
    if one["kind"] == "number":
        slope = 1 if effect(seed, task, name, 0) >= 0 else -1
        return slope * (float(values[0]) - one["centre"]) / one["scale"]
    return sum(effect(seed, task, name, token) for token in values) / math.sqrt(max(len(values), 1))


def probabilities(record: dict[str, Any], fields: dict[str, list[Any]]) -> dict[str, float]:
    reached: dict[str, float] = {}
    for task in record["tasks"]:
        score = task["intercept"] + sum(
            one["weight"] * field_effect(record, task["name"], one, fields.get(one["name"], []))
            for one in task["informative"]
        )
        reached[task["name"]] = reached.get(task["after"], 1.0) / (1 + math.exp(-score))
    if record["stray"]:
        reached["buy"] = record["stray"] + (1 - record["stray"]) * reached["buy"]
        reached["click"] *= 1 - record["stray"]
    return reached


def aliccp_rows(folder: Path, part: str) -> Iterator[Row]:
    def features(text: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for feature in text.split("\x01"):
            name, _, rest = feature.partition("\x02")
            found.setdefault(name, []).append(int(rest.partition("\x03")[0]))
        return found

    lines = (folder / f"common_features_{part}.csv").read_text().splitlines()
    users = {line.split(",")[0]: features(line.split(",")[2]) for line in lines}
    for line in (folder / f"sample_skeleton_{part}.csv").read_text().splitlines():
        _, click, buy, index, _, text = line.split(",")
        yield users[index] | features(text), {"click": int(click), "buy": int(buy)}


def aliexpress_rows(folder: Path, part: str) -> Iterator[Row]:
    outer = zipfile.ZipFile(folder / "aliexpress_NL_datasets.zip")

    def lines(kind: str) -> list[list[str]]:
        inner = zipfile.ZipFile(io.BytesIO(outer.read(f"nl_{kind}_{part}.zip")))
        return [line.split(",") for line in inner.read(f"nl_{kind}_{part}.csv").decode().splitlines()]

    users = {row[0]: row for row in lines("user")}
    for row in lines("item"):
        user = users[row[0]]
        categorical = [user[c - 1] for c in (*range(2, 9), 32, 33)] + [row[c - 1] for c in (19, 34, 35, 36, 40, 41, 42)]
        numbers = [user[c - 1] for c in range(9, 32)]
        numbers += [row[c - 1] for c in (*range(2, 19), *range(20, 34), *range(37, 40), *range(43, 49))]
        fields: dict[str, list[Any]] = {f"categorical_{k}": [int(v)] for k, v in enumerate(categorical, 1)}
        fields |= {f"numerical_{k}": [float(v)] for k, v in enumerate(numbers, 1)}
        yield fields, {"click": int(row[48] != "0"), "conversion": int(row[48] == "2")}


def kuairand_rows(folder: Path, part: str) -> Iterator[Row]:
    def table(name: str) -> list[dict[str, str]]:
        with (folder / "data" / f"{name}_pure.csv").open(newline="") as lines:
            return list(csv.DictReader(lines))

    def typed(text: str) -> Any:
        return int(text) if text.lstrip("-").isdigit() else text

    texts = ("user_active_degree", "upload_type", "video_type")  # and every range: "0" is a text there
    users = {row["user_id"]: row for row in table("user_features")}
    videos = {row["video_id"]: row for row in table("video_features_basic")}
    name = {"train": "standard_4_08_to_4_21", "test": "standard_4_22_to_5_08", "random": "random_4_22_to_5_08"}[part]
    for row in table(f"log_{name}"):
        joined = users[row["user_id"]] | videos[row["video_id"]] | {"tab": row["tab"]}
        fields = {key: [v if key in texts or key.endswith("_range") else typed(v)] for key, v in joined.items()}
        fields["tag"] = [int(tag) for tag in joined["tag"].split(",") if tag]
        yield fields, {label: int(row[label]) for label in ("is_click", "long_view", "is_like")}


def census_rows(folder: Path, part: str) -> Iterator[Row]:
    from recbole_dtn.synthetic.census_values import COLUMNS

    file = {"train": "census-income.data", "test": "census-income.test"}[part]
    for line in (folder / file).read_text().splitlines():
        row = dict(zip(COLUMNS, line.removesuffix(".").split(", "), strict=True))
        fields: dict[str, list[Any]] = {name: [text.strip()] for name, text in row.items()}
        never = int(row["marital_stat"] == "Never married")
        yield fields, {"income": int(row["income_50k"] == "50000+"), "never_married": never}


LAYOUTS: dict[str, tuple[Callable[[Path, str], Iterator[Row]], dict[str, Any], tuple[str, ...]]] = {
    "aliccp": (aliccp_rows, {"click_rate": 0.2, "buy_rate": 0.04}, ("train", "test")),
    "aliexpress": (aliexpress_rows, {"countries": "NL", "click_rate": 0.2, "buy_rate": 0.05}, ("train", "test")),
    "kuairand": (kuairand_rows, {"version": "pure"}, ("train", "test", "random")),
    "census-income": (census_rows, {}, ("train", "test")),
}


@pytest.mark.parametrize("like", LAYOUTS)
def test_true_probabilities_follow_from_the_files(like: str, tmp_path: Path) -> None:
    rows_of, options, parts = LAYOUTS[like]
    generate(like, 1500, 3, tmp_path / "raw", **options)
    record = json.loads((tmp_path / "raw" / "planted.json").read_text())
    total = {task["name"]: 0.0 for task in record["tasks"]}
    reached = dict(total)
    everything = 0
    for part in parts:
        rows = list(rows_of(tmp_path / "raw", part))
        found = [probabilities(record, fields) for fields, _ in rows]
        everything += len(rows)
        for task in record["tasks"]:
            name = task["name"]
            said = task["reachable"][name][part]
            p = np.array([one[name] for one in found])
            y = np.array([labels[name] for _, labels in rows])
            assert said["rows"] == len(rows)
            assert said["positives"] == y.sum()
            assert said["expected_positives"] == pytest.approx(p.sum(), rel=1e-9)
            assert abs(y.sum() - p.sum()) < 4.5 * math.sqrt((p * (1 - p)).sum())
            assert said["drawn_auc"] == pytest.approx(roc_auc_score(y, p), abs=2e-3)
            total[name] += p.sum()
            before = sum(one.get(task["after"], 1.0) if task["after"] else 1.0 for one in found)
            reached[name] += before
    assert everything == 1500
    for task in record["tasks"]:  # calibrated on all rows of a small set; the stray rows come on top
        name = task["name"]
        assert total[name] / reached[name] == pytest.approx(task["rate"], rel=0.01 if not record["stray"] else 0.08)


def test_every_row_of_aliccp_has_the_probability_that_its_label_was_drawn_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_dtn.synthetic.aliccp import AliCCP

    kept: dict[str, Any] = {}
    write = AliCCP.write

    def keeping(self: Any, block: Any, labels: Any) -> None:
        kept[block.part.name] = labels
        write(self, block, labels)

    monkeypatch.setattr(AliCCP, "write", keeping)
    made = generate("aliccp", 600, 5, tmp_path / "raw", overlap=0.5, signal=1.5)
    for part in ("train", "test"):
        rows = list(aliccp_rows(tmp_path / "raw", part))
        for place, (fields, labels) in enumerate(rows):
            p = probabilities(made.record, fields)
            for task in ("click", "buy"):
                assert p[task] == pytest.approx(kept[part].joint[task][place], rel=1e-9)
                assert labels[task] == kept[part].label[task][place]


@pytest.mark.parametrize("like", ["aliccp", "census-income"])
def test_only_informative_fields_carry_signal(like: str, tmp_path: Path) -> None:
    rows_of, options, _ = LAYOUTS[like]
    made = generate(like, 9000, 1, tmp_path / "raw", overlap=0.0, **options)
    rows = list(rows_of(tmp_path / "raw", "test"))
    planted = {task["name"]: {one["name"]: one for one in task["informative"]} for task in made.record["tasks"]}
    first, second = planted
    assert not set(planted[first]) & set(planted[second])
    y = [labels[first] for _, labels in rows]
    for own, fields in planted.items():
        aucs = {}
        for name, one in fields.items():
            z = [field_effect(made.record, first, one, values.get(name, [])) for values, _ in rows]
            aucs[name] = roc_auc_score(y, z)
        if own == first:
            assert min(aucs.values()) > 0.53, aucs
        else:
            assert max(abs(auc - 0.5) for auc in aucs.values()) < 0.035, aucs


def test_overlap_decides_which_fields_are_shared() -> None:
    names = [Field(f"a{k}") for k in range(6)]
    own = [Field(f"b{k}") for k in range(6)]
    goals = [Goal("first", 0.5, tuple(names)), Goal("second", 0.5, (*own, *names))]
    for overlap, shared in ((0.0, 0), (1 / 3, 2), (0.5, 3), (1.0, 6)):
        first, second = choose(goals, 6, overlap, 1.0)
        assert list(first.spread) == [one.name for one in names]
        assert list(second.spread) == [one.name for one in names[:shared]] + [one.name for one in own[: 6 - shared]]
        assert math.sqrt(sum(s * s for s in first.spread.values())) == pytest.approx(1.0)
        assert sorted(first.spread.values(), reverse=True) == list(first.spread.values())


def test_calibration_meets_rates_and_spreads() -> None:
    z = rng(0, "a test", 0).random((2, 4000)) - 0.5
    goals = [Goal("click", 0.1, (Field("x"),)), Goal("buy", 0.3, (Field("y"), Field("x")), after="click")]
    model = Model(choose(goals, 1, 0.0, 2.0))
    model.calibrate([{("click", "x"): z[0], ("buy", "y"): z[1]}])
    click, buy = model.tasks
    p = 1 / (1 + np.exp(-click.intercept - click.weights["x"] * z[0]))
    q = 1 / (1 + np.exp(-buy.intercept - buy.weights["y"] * z[1]))
    assert p.mean() == pytest.approx(0.1, abs=1e-6)
    assert (p * q).sum() / p.sum() == pytest.approx(0.3, abs=1e-6)
    assert (buy.weights["y"] * z[1]).std() == pytest.approx(2.0, rel=1e-6)


def test_sketch_is_the_exact_auc() -> None:
    u = rng(0, "another test", 0).random((3, 700))
    p = 1 / (1 + np.exp(3 - 3 * u[0]))
    p[:50] = p[50:100]  # ties
    y = (u[1] < p).astype(float)
    sketch = AucSketch()
    for start in (0, 350):
        sketch.add(p[start : start + 350], y[start : start + 350])
    above = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
    pairs = p[:, None] * (1 - p)[None, :]
    assert sketch.best == pytest.approx((above * pairs).sum() / pairs.sum(), abs=sketch.error)
    assert sketch.drawn == pytest.approx(roc_auc_score(y, p), abs=1e-3)
    assert (sketch.rows, sketch.positives) == (700, int(y.sum()))
    assert AucSketch().best is None


def test_zipf_and_scatter() -> None:
    u = (np.arange(100_000) + 0.5) / 100_000
    for exponent in (0.0, 0.8, 1.0, 1.3):
        ranks = Zipf(50, exponent).ranks(u)
        share = np.bincount(ranks, minlength=50) / len(u)
        integral = np.array([k**-exponent for k in np.linspace(1, 51, 500_001)[:-1]]).reshape(50, 10_000).sum(1)
        assert share == pytest.approx(integral / integral.sum(), abs=2e-4)
    for size in (1, 2, 7, 12, 1000):
        assert sorted(Scatter(size)(np.arange(size)).tolist()) == list(range(size))
