"""Synthetic AliExpress, KuaiRand and Census-Income files, read by plain Python and held against the real layouts."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recbole_dtn.synthetic.census_values import COLUMNS, shares
from recbole_dtn.synthetic.generate import generate

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
INTEGERS = {"user": {*range(2, 9), 32, 33}, "item": {19, *range(34, 37), *range(40, 46), 49}}


def aliexpress_files(folder: Path) -> dict[str, list[list[str]]]:
    found = {}
    for archive in sorted(folder.glob("*.zip")):
        country = re.fullmatch(r"aliexpress_([A-Z]{2})_datasets\.zip", archive.name)
        assert country
        outer = zipfile.ZipFile(archive)
        prefix = country[1].lower()
        assert sorted(outer.namelist()) == sorted(
            f"{prefix}_{kind}_{part}.zip" for kind in ("item", "user") for part in ("train", "test")
        )
        for name in outer.namelist():
            inner = zipfile.ZipFile(io.BytesIO(outer.read(name)))
            assert inner.namelist() == [name.replace(".zip", ".csv")]
            text = inner.read(inner.namelist()[0]).decode()
            found[name.removesuffix(".zip")] = [line.split(",") for line in text.splitlines()]
    return found


def test_aliexpress(tmp_path: Path) -> None:
    generate("aliexpress", 3001, 4, tmp_path / "raw", countries="NL,US", click_rate=0.1, buy_rate=0.02)
    files = aliexpress_files(tmp_path / "raw")
    assert len(files) == 8
    items = [row for name, rows in files.items() if "item" in name for row in rows]
    assert len(items) == 3001
    for name, rows in files.items():
        kind = name.split("_")[1]
        assert {len(row) for row in rows} == {33 if kind == "user" else 49}
        assert all(set(row[column - 1]) <= set("0123456789") for row in rows for column in INTEGERS[kind])
        others = set(range(2, len(rows[0]) + 1)) - INTEGERS[kind]
        assert all(re.fullmatch(r"[01]\.\d{1,6}", row[column - 1]) for row in rows for column in others)
        searches = [int(row[0]) for row in rows]
        assert searches == sorted(searches)
        if kind == "user":
            assert len(set(searches)) == len(searches)
            assert set(searches) == {int(row[0]) for row in files[name.replace("user", "item")]}
            assert len({row[1] for row in rows}) == 1  # the country
    labels = Counter(row[48] for row in items)
    assert set(labels) == {"0", "1", "2"}
    assert abs(labels["1"] + labels["2"] - 300) < 5 * math.sqrt(300)
    assert abs(labels["2"] - 60) < 5 * math.sqrt(60)


def test_aliexpress_as_plain_files(tmp_path: Path) -> None:
    generate("aliexpress", 500, 4, tmp_path / "zips")
    generate("aliexpress", 500, 4, tmp_path / "plain", zipped=False)
    packed = aliexpress_files(tmp_path / "zips")
    assert sorted(path.name for path in (tmp_path / "plain").glob("*.csv")) == sorted(f"{name}.csv" for name in packed)
    for name, rows in packed.items():
        assert (tmp_path / "plain" / f"{name}.csv").read_text().splitlines() == [",".join(row) for row in rows]


def test_aliexpress_has_the_columns_of_the_real_rows(tmp_path: Path) -> None:
    real = REAL / "aliexpress" / "raw_layout"
    if not real.is_dir():
        pytest.skip("the real sample rows are not at hand")
    generate("aliexpress", 500, 4, tmp_path / "raw", countries="US", zipped=False)
    for path in sorted(real.glob("us_*.csv")):
        ours = (tmp_path / "raw" / path.name).read_text().splitlines()
        for line in path.read_text().splitlines():
            cells = line.split(",")
            assert len(cells) == len(ours[0].split(","))
            # whole numbers where ours are, fractions elsewhere
            assert ["." in cell for cell in cells] == ["." in cell for cell in ours[0].split(",")]


LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)


@pytest.mark.parametrize("version", ["1k", "pure", "27k"])
def test_kuairand_files(version: str, tmp_path: Path) -> None:
    generate("kuairand", 1200, 4, tmp_path / "raw", version=version)
    names = sorted(path.name for path in (tmp_path / "raw" / "data").iterdir())
    logs = ["log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08"]
    parts = ("_part1", "_part2", "_part3") if version == "27k" else ("",)
    expected = [f"{log}_{version}{part}.csv" for log in logs for part in parts[:2]]
    expected += [f"log_random_4_22_to_5_08_{version}.csv"]
    expected += [f"{name}_{version}.csv" for name in ("user_features", "video_features_basic")]
    expected += [f"video_features_statistic_{version}{part}.csv" for part in parts]
    assert names == sorted(expected)
    rows = 0
    for name in names:
        with (tmp_path / "raw" / "data" / name).open(newline="") as lines:
            table = list(csv.reader(lines))
        widths = {"log": 19, "user": 31, "video_features_basic": 12, "video_features_statistic": 52}
        width = next(width for start, width in widths.items() if name.startswith(start))
        assert {len(row) for row in table} == {width}
        rows += len(table) - 1 if name.startswith("log") else 0
    assert rows == 1200


def test_kuairand_rows(tmp_path: Path) -> None:
    generate("kuairand", 4000, 4, tmp_path / "raw", version="pure")
    folder = tmp_path / "raw" / "data"
    users = list(csv.DictReader((folder / "user_features_pure.csv").open(newline="")))
    videos = list(csv.DictReader((folder / "video_features_basic_pure.csv").open(newline="")))
    statistics = list(csv.DictReader((folder / "video_features_statistic_pure.csv").open(newline="")))
    assert [row["video_id"] for row in videos] == [row["video_id"] for row in statistics]
    durations = {row["video_id"]: row["video_duration"] for row in videos}
    known = {row["user_id"] for row in users}
    counts: Counter[str] = Counter()
    for name, first, last in (
        ("log_standard_4_08_to_4_21", "20220408", "20220421"),
        ("log_standard_4_22_to_5_08", "20220422", "20220508"),
        ("log_random_4_22_to_5_08", "20220422", "20220508"),
    ):
        text = (folder / f"{name}_pure.csv").read_text()
        assert text.startswith(LOG + "\n")
        log = list(csv.DictReader(io.StringIO(text)))
        assert [row["date"] for row in (log[0], log[-1])] == [first, last]
        for row in log:
            at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(row["time_ms"]), hours=8)
            assert (row["date"], row["hourmin"]) == (at.strftime("%Y%m%d"), str(at.hour * 100))
            assert row["user_id"] in known
            assert float(durations[row["video_id"]] or 0) == int(row["duration_ms"])
            assert row["is_rand"] == str(int(name.startswith("log_random")))
            assert 0 <= int(row["tab"]) < 15
            assert int(row["long_view"]) <= int(row["is_click"])
            played, duration = int(row["play_time_ms"]), int(row["duration_ms"])
            if duration:  # valid play from 7 s, long view from 18 s, or all of a shorter video
                assert (played > min(duration, 7000)) == (row["is_click"] == "1")
                assert (played >= min(duration, 18_000)) == (row["long_view"] == "1")
            counts.update(key for key, value in row.items() if key.startswith(("is_", "long")) and value == "1")
            counts["no duration"] += duration == 0
    assert abs(counts["is_click"] - 1600) < 5 * math.sqrt(1600)
    assert 0 < counts["is_follow"] < counts["is_profile_enter"] < counts["is_like"] + 60
    assert 0.05 < counts["no duration"] / 4000 < 0.2
    assert any(row["is_live_streamer"] == "-124" for row in users)
    assert '"(0,10]"' in (folder / "user_features_pure.csv").read_text()
    assert re.search(r',"\d+,\d+', (folder / "video_features_basic_pure.csv").read_text())
    for row in users:
        amount, text = int(row["fans_user_num"]), row["fans_user_num_range"]
        bounds = {"0": (0, 0), "[1,10)": (1, 9), "[10,100)": (10, 99), "[100,1k)": (100, 999), "[1k,5k)": (1000, 4999)}
        low, high = bounds.get(text, (5000, 99_999))
        assert low <= amount <= high


def test_kuairand_has_the_header_of_a_real_log() -> None:
    real = REAL / "kuairand_27k_subset" / "log_standard_4_08_to_4_21_27k_part1.csv"
    if not real.is_file():
        pytest.skip("the real sample rows are not at hand")
    with real.open() as lines:
        assert next(lines).strip() == LOG


def test_census_rows(tmp_path: Path) -> None:
    generate("census-income", 3000, 4, tmp_path / "raw")
    sizes, income, never, rows = [], 0, 0, []
    for name in ("census-income.data", "census-income.test"):
        text = (tmp_path / "raw" / name).read_text()
        assert text.endswith(".\n")
        lines = [line.removesuffix(".").split(", ") for line in text.splitlines()]
        sizes.append(len(lines))
        rows += lines
    assert sizes == [2000, 1000]
    assert {len(row) for row in rows} == {42}
    for row in rows:
        values = dict(zip(COLUMNS, row, strict=True))
        assert values["income_50k"] in ("- 50000", "50000+")
        income += values["income_50k"] == "50000+"
        never += values["marital_stat"] == "Never married"
        assert re.fullmatch(r"\d+(\.\d{1,2})?", values["instance_weight"])
        assert 0 <= int(values["age"]) <= 90
        assert 0 <= int(values["weeks_worked"]) <= 52
        assert all(values[name] in shares(name) for name in ("education", "state_prev_res", "country_father", "race"))
    assert abs(income - 186) < 5 * math.sqrt(186)
    assert abs(never - 1297.5) < 5 * math.sqrt(1297.5)
    for name in ("sex", "major_ind_code", "hisp_origin"):  # drawn with the real shares
        found = Counter(row[COLUMNS.index(name)] for row in rows)
        for value, share in shares(name).items():
            expected = share / 1e5 * len(rows)
            assert abs(found[value] - expected) < 5 * math.sqrt(expected) + 3


def test_census_has_the_values_of_the_real_file() -> None:
    real = REAL / "census_income_kdd" / "census-income.test.gz"
    if not real.is_file():
        pytest.skip("the real file is not at hand")
    with gzip.open(real, "rt") as lines:
        rows = [line.rstrip("\n").split(", ") for line in lines]
    for name in set(COLUMNS) - {"age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends"}:
        if name not in ("instance_weight", "income_50k"):
            found = Counter(row[COLUMNS.index(name)] for row in rows)
            assert shares(name) == {value: max(1, round(1e5 * n / len(rows))) for value, n in found.items()}
    assert {row[-1] for row in rows} == {"- 50000.", "50000+."}
