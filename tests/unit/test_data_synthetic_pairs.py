"""The planted pairs: tables, probabilities and best AUC worked out again from planted.json and the files."""

from __future__ import annotations

import math
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recbole_dtn.cli import main
from recbole_dtn.errors import UsageError
from recbole_dtn.synthetic.generate import generate
from recbole_dtn.synthetic.layout import Plan
from recbole_dtn.synthetic.pairs import PlantedPairs

BITS = (1 << 64) - 1
IDS = 4
SIZES = {"fields": 5, "ids": IDS, "informative": 3}


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def effect(seed: int, task: str, pair: str, key: int) -> float:
    """As docs/datasets/synthetic.md defines it, in whole numbers of Python."""
    name = int.from_bytes(blake2b(f"{seed}|{task}|{pair}".encode(), digest_size=8).digest(), "little")
    h = mix(name ^ mix((key + 0x9E3779B97F4A7C15) & BITS))
    return (sum((h >> shift) & 0xFFFF for shift in (0, 16, 32, 48)) - 131070) * math.sqrt(3) / 65536


def rows_of(folder: Path, part: str) -> pl.DataFrame:
    """Columns f0, f1, ..., first, second."""
    found = pl.read_csv(folder / f"{folder.name}.{part}.inter", separator="\t")
    return found.rename({name: name.partition(":")[0] for name in found.columns})


def table_of(record: dict[str, Any], task: str, pair: str) -> np.ndarray:
    """The table of a pair, in plain Python."""
    own, first = (
        np.array([[effect(record["seed"], name, pair, a * IDS + b) for b in range(IDS)] for a in range(IDS)])
        for name in (task, "first")
    )
    overlap = record["options"]["overlap"]
    if record["options"]["differ_in"] == "pairs":
        shared = {one["name"] for one in record["tasks"][0]["informative"]}
        overlap = float(pair in shared)
    return first if task == "first" else overlap * first + math.sqrt(1 - overlap**2) * own


def probabilities(record: dict[str, Any], rows: pl.DataFrame) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for task in record["tasks"]:
        score = np.full(rows.height, task["intercept"])
        for one in task["informative"]:
            a, b = (rows[name].to_numpy() for name in one["name"].split("*"))
            score += one["weight"] * table_of(record, task["name"], one["name"])[a, b]
        found[task["name"]] = 1 / (1 + np.exp(-score)) * (found[task["after"]] if task["after"] else 1.0)
    return found


@pytest.mark.parametrize("options", [{"overlap": -0.6}, {"overlap": 1 / 3, "differ_in": "pairs", "chain": True}])
def test_true_probabilities_and_best_auc_follow_from_the_files(options: dict[str, Any], tmp_path: Path) -> None:
    record = generate("planted", 3000, 7, tmp_path / "mine", signal=1.5, second_rate=0.1, **SIZES, **options).record
    rows = rows_of(tmp_path / "mine", "test")
    true = pl.read_csv(tmp_path / "mine" / "truth.test.csv")
    assert rows.height == true.height == 600
    for task, p in probabilities(record, rows).items():
        assert true[task].to_numpy() == pytest.approx(p, rel=1e-9)
        y = rows[task].to_numpy()
        assert abs(y.sum() - p.sum()) < 4.5 * math.sqrt((p * (1 - p)).sum())
        # P(p_i > p_j), i drawn with weight p and j with weight 1 - p.
        above = (p[:, None] > p[None, :]) + 0.5 * (p[:, None] == p[None, :])
        pairs = p[:, None] * (1 - p)[None, :]
        said = next(one for one in record["tasks"] if one["name"] == task)["reachable"][task]["test"]
        # Rows of one bin that are no ties: few among 600.
        assert said["best_auc"] == pytest.approx((above * pairs).sum() / pairs.sum(), abs=1e-4)
    if options.get("chain"):
        assert not ((rows["second"] == 1) & (rows["first"] == 0)).any()
    whole = pl.concat([rows_of(tmp_path / "mine", part) for part in ("train", "valid", "test")])
    assert whole.height == 3000
    total = {task: p.mean() for task, p in probabilities(record, whole).items()}
    assert total == {"first": pytest.approx(0.3, abs=1e-6), "second": pytest.approx(0.1, abs=1e-6)}


def layout(overlap: float, differ_in: str = "tables", seed: int = 3) -> PlantedPairs:
    plan = Plan(100, seed, overlap=overlap, informative=4)
    return PlantedPairs(plan, differ_in=differ_in, fields=6, ids=40)


def test_overlap_is_the_correlation_of_the_tables() -> None:
    pair = next(iter(layout(1).pairs))
    first = layout(1).table("first", pair)
    assert np.array_equal(layout(1).table("second", pair), first)
    assert np.array_equal(layout(-1).table("second", pair), -first)
    for overlap in (0.0, 0.5, -0.3):
        second = layout(overlap).table("second", pair)
        # 1,600 entries: the standard error of a correlation of 0 is .025.
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] == pytest.approx(overlap, abs=0.08)
        assert second.std() == pytest.approx(1, abs=0.06)


def test_overlap_is_the_share_of_common_pairs(tmp_path: Path) -> None:
    for overlap, common in ((0.0, 0), (0.5, 2), (1.0, 4)):
        made = generate("planted", 200, 3, tmp_path / str(common), overlap=overlap, differ_in="pairs", informative=4)
        first, second = ([one["name"] for one in task["informative"]] for task in made.record["tasks"])
        assert first[:common] == second[:common]
        assert len(set(first) & set(second)) == common
    planted = layout(0.5, "pairs")
    shared, _, own, *_ = planted.pairs
    assert np.array_equal(planted.table("first", shared), planted.table("second", shared))
    assert abs(np.corrcoef(planted.table("first", own).ravel(), planted.table("second", own).ravel())[0, 1]) < 0.08


def test_same_log_odds_with_overlap_1_and_other_tables_and_pairs_for_another_seed(tmp_path: Path) -> None:
    one, again, other = (
        generate("planted", 400, seed, tmp_path / name / "x", overlap=1.0, second_rate=0.3)
        for name, seed in (("one", 3), ("again", 3), ("other", 4))
    )
    first, second = one.record["tasks"]
    assert first["informative"] == second["informative"]
    assert first["intercept"] == second["intercept"]
    assert first["reachable"]["first"]["test"]["best_auc"] == second["reachable"]["second"]["test"]["best_auc"]
    names = sorted(path.name for path in one.folder.iterdir())
    assert names == ["planted.json", "truth.test.csv", "x.test.inter", "x.train.inter", "x.valid.inter", "x.yaml"]
    for name in names:
        assert (
            (one.folder / name).read_bytes() == (again.folder / name).read_bytes() != (other.folder / name).read_bytes()
        )
    assert [f["name"] for f in first["informative"]] != [f["name"] for f in other.record["tasks"][0]["informative"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"differ_in": "table"}, r"--differ_in=table: expected tables or pairs; did you mean 'tables'"),
        ({"differ_in": "pairs", "overlap": -0.5}, r"--overlap=-0\.5: with --differ_in=pairs a share from 0 to 1"),
        ({"overlap": -1.5}, r"--overlap: expected a number from -1 to 1; found -1\.5"),
        ({"chain": True, "second_rate": 0.3}, r"--second_rate=0\.3: expected less than --first_rate=0\.3"),
        ({"faults": 1}, r"--faults: this layout writes atomic files"),
        ({"fields": 4, "informative": 4}, r"--informative: at most 3 for planted; found 4"),
        ({"ids": 1}, r"--ids: expected a number from 2"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        generate("planted", 100, 0, tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_command_writes_a_data_set_that_can_be_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--like=planted", "--rows=500", "--seed=2", "--overlap=0.5", "--chain=true", "--fields=6"]
    assert main(["preprocess", "synthetic", *words, f"--output={tmp_path / 'mine'}"]) == 0
    said = capsys.readouterr().out
    assert f"--model=DTN --dataset=mine --data_path={tmp_path}" in said
    assert main(["data", "info", "--dataset=mine", f"--data_path={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "350" in shown
    assert "f5" in shown
    assert "second" in shown
