"""KuaiRand: raw logs and features to atomic files, against a slow parser written here, real rows and faulty ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.config.preprocess import preprocess_options
from recbole_dtn.errors import DataError, TooManyRejectedError, UsageError
from recbole_dtn.preprocess.kuairand import log as kuairand_log
from recbole_dtn.preprocess.kuairand import sides as kuairand_sides
from recbole_dtn.preprocess.kuairand.preprocessor import KuaiRand
from recbole_dtn.preprocess.prepare import prepare

Table = list[dict[str, str]]
SIGNALS = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view", "is_profile_enter",
    "play_time_ms", "profile_stay_time", "comment_stay_time",
)  # fmt: skip
LOG = [
    "user_id", "video_id", "date", "hourmin", "time_ms", *SIGNALS[:7], "play_time_ms", "duration_ms",
    "profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand", "tab",
]  # fmt: skip
USER = [
    "user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num",
    "follow_user_num_range", "fans_user_num", "fans_user_num_range", "friend_user_num", "friend_user_num_range",
    "register_days", "register_days_range", *(f"onehot_feat{number}" for number in range(18)),
]  # fmt: skip
VIDEO = [
    "video_id", "author_id", "video_type", "upload_dt", "upload_type", "visible_status", "video_duration",
    "server_width", "server_height", "music_id", "music_type", "tag",
]  # fmt: skip
FIRST, SECOND = "log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08"
RANDOM = "log_random_4_22_to_5_08"


def draw_log(seed: int, days: Sequence[int], rows: int, *, random: bool = False) -> Table:
    """Rows of a log over some days (counted from 1 April), users in a row as in the published files."""
    draw = np.random.default_rng(seed)
    found = []
    for row in range(rows):
        day = int(draw.choice(days))
        month, of_month = (4, day) if day <= 30 else (5, day - 30)
        values = {
            "user_id": str(row * 12 // rows), "video_id": str(draw.integers(0, 60)),
            "date": f"2022{month:02d}{of_month:02d}", "hourmin": f"{draw.integers(0, 24) * 100}",
            "time_ms": str(1649347200000 + row), "duration_ms": str(draw.choice([0, 7000, 45916])),
            "is_rand": str(int(random)), "tab": str(draw.integers(0, 15)),
        }  # fmt: skip
        for name in SIGNALS:
            values[name] = str(draw.integers(0, 2 if name.startswith("is_") or name == "long_view" else 50_000))
        found.append({name: values[name] for name in LOG})
    return found


def draw_users(seed: int, count: int = 13) -> Table:
    draw = np.random.default_rng(seed)
    found = []
    for user in range(count):
        row = {
            "user_id": str(user), "user_active_degree": str(draw.choice(["full_active", "UNKNOWN"])),
            "is_lowactive_period": "0", "is_video_author": "1",
            "is_live_streamer": str(draw.choice(["-124", "0", "1"])),
            "follow_user_num": "5", "follow_user_num_range": "(0,10]", "fans_user_num": str(draw.integers(0, 100)),
            "fans_user_num_range": "[1,10)", "friend_user_num": "0", "friend_user_num_range": "0",
            "register_days": str(draw.integers(1, 900)), "register_days_range": "61-90",
        }  # fmt: skip
        row |= {f"onehot_feat{number}": str(draw.choice(["3", "-124", ""])) for number in range(18)}
        found.append(row)
    return found


def draw_videos(seed: int, count: int = 70) -> Table:
    draw = np.random.default_rng(seed)
    return [
        {
            "video_id": str(video), "author_id": str(draw.integers(0, 9)), "video_type": "NORMAL",
            "upload_dt": "2022-04-01", "upload_type": "Short Import", "visible_status": "1",
            "video_duration": str(draw.choice(["", "12000.0", "9000"])), "server_width": "720", "server_height": "1280",
            "music_id": str(draw.integers(0, 10**12)), "music_type": str(draw.choice(["9", "-124"])),
            "tag": str(draw.choice(["12", "12,65", "1,2,3", "-124", "", "7,-124"])),
        }
        for video in range(count)
    ]  # fmt: skip


def as_csv(rows: Table, columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class Raw:
    """Raw tables of a version and the folder that they are written into."""

    def __init__(self, folder: Path, version: str = "1k", *, rows: int = 600) -> None:
        self.folder, self.version = folder, version
        self.tables = {
            FIRST: draw_log(1, range(8, 22), rows // 2),
            SECOND: draw_log(2, range(22, 39), rows // 2),
            RANDOM: draw_log(3, range(22, 39), rows // 3, random=True),
            "user_features": draw_users(4),
            "video_features_basic": draw_videos(5),
        }
        self.columns = {FIRST: LOG, SECOND: LOG, RANDOM: LOG, "user_features": USER, "video_features_basic": VIDEO}

    def files(self) -> dict[str, bytes]:
        return {f"{name}_{self.version}.csv": as_csv(rows, self.columns[name]) for name, rows in self.tables.items()}

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files().items():
            (self.folder / name).write_bytes(data)
        return self.folder


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw")


def make(folder: Path, out: Path, **options: Any) -> tuple[Path, list[str]]:
    """The folder of atomic files, and what was said."""
    said: list[str] = []
    max_rejected = options.pop("max_rejected", 0.0)
    given = preprocess_options("kuairand", options)
    return KuaiRand(folder, out, options=given, base={}).run(said.append, max_rejected=max_rejected), said


def read(path: Path) -> Table:
    lines = path.read_text().split("\n")
    assert lines.pop() == ""
    names = [column.split(":")[0] for column in lines[0].split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines[1:]]


def slow_log(data: bytes, keep: Callable[[str], bool]) -> Table:
    """The interactions of a log as the csv module gives them, of the days that are kept."""
    found = []
    for row in csv.DictReader(io.StringIO(data.decode())):
        if keep(row["date"]):
            day = date(int(row["date"][:4]), int(row["date"][4:6]), int(row["date"][6:]))
            made = {"hour": str(int(row["hourmin"]) // 100), "weekday": str(day.isoweekday())}
            copied = ("user_id", "video_id", "date", "time_ms", "duration_ms", "is_rand", "tab", *SIGNALS)
            made["duration_known"] = str(int(row["duration_ms"] != "0"))
            made["click_long_view"] = str(int(row["is_click"] == "1" and row["long_view"] == "1"))
            found.append(made | {name: row[name] for name in copied})
    return found


def slow_features(data: bytes, key: str, seen: set[str]) -> Table:
    """Features of the ids in the logs: -124 is nothing, a tag list has spaces, a number is a float."""
    found = []
    for row in csv.DictReader(io.StringIO(data.decode())):
        if row[key] in seen:
            made = {name: "" if value == "-124" else value for name, value in row.items()}
            if "tag" in made:
                made["tag"] = " ".join(tag for tag in made["tag"].split(",") if tag not in ("", "-124"))
            for name in ("follow_user_num", "fans_user_num", "friend_user_num", "register_days", "video_duration"):
                if made.get(name):
                    made[name] = str(float(made[name])).removesuffix(".0")
            found.append(made)
    return found


def by_day(low: str, high: str) -> Callable[[str], bool]:
    return lambda day: low <= day <= high


# ---- values -----------------------------------------------------------------------------------------------------


def test_the_real_rows_are_those_of_a_slow_parser(shared_data: Path, raw: Raw, tmp_path: Path) -> None:
    name = f"{FIRST}_27k_part1.csv"
    data = (shared_data / "kuairand_27k_subset" / name).read_bytes()
    raw.version = "27k"
    real = list(csv.DictReader(io.StringIO(data.decode())))
    users, videos = (sorted({row[key] for row in real}) for key in ("user_id", "video_id"))
    raw.tables = {
        "user_features": [draw_users(1, 1)[0] | {"user_id": user} for user in users],
        "video_features_basic": [draw_videos(2, 1)[0] | {"video_id": video} for video in videos],
    }
    raw.write()
    (raw.folder / name).write_bytes(data)
    days = {"train_until": "2022-04-18", "valid_until": "2022-04-19"}
    with pytest.raises(DataError, match="part2") as missing:
        make(raw.folder, tmp_path / "data", version="27k", **days)
    assert "--partial=true" in str(missing.value)
    folder, said = make(raw.folder, tmp_path / "data", version="27k", partial=True, **days)
    assert any("made without" in text and "part2" in text for text in said)
    bounds = {"train": ("", "20220418"), "valid": ("20220419", "20220419"), "test": ("20220420", "9")}
    rows = 0
    for part, (low, high) in bounds.items():
        found = read(folder / f"kuairand-27k.{part}.inter")
        assert found == slow_log_ordered(data, by_day(low, high), found)
        rows += len(found)
    assert rows == len(real) == 2000
    assert len(read(folder / "kuairand-27k.item")) == len(videos)


def slow_log_ordered(data: bytes, keep: Callable[[str], bool], like: Table) -> Table:
    """:func:`slow_log` with the columns in the order of other rows, so that a difference shows well."""
    return [{name: row[name] for name in like[0]} for row in slow_log(data, keep)]


def test_all_files_are_what_a_slow_parser_gives(tmp_path: Path) -> None:
    raw = Raw(tmp_path / "raw", rows=1000)
    order = np.random.default_rng(6).permutation(len(LOG))
    raw.columns[SECOND] = [LOG[place] for place in order]  # columns are found by name
    raw.write()
    folder, _ = make(raw.folder, tmp_path / "data")
    files = raw.files()
    first, second = files[f"{FIRST}_1k.csv"], files[f"{SECOND}_1k.csv"]
    expected = {
        "train": slow_log(first, by_day("", "9")) + slow_log(second, by_day("", "20220506")),
        "valid": slow_log(second, by_day("20220507", "20220507")),
        "test": slow_log(second, by_day("20220508", "9")),
    }
    assert sum(map(len, expected.values())) == 1000
    for part, rows in expected.items():
        assert read(folder / f"kuairand-1k.{part}.inter") == rows
    every = [row for rows in expected.values() for row in rows]
    for kind, table, key in (("user", "user_features", "user_id"), ("item", "video_features_basic", "video_id")):
        seen = {row[key] for row in every}
        found = read(folder / f"kuairand-1k.{kind}")
        assert found == slow_features(files[f"{table}_1k.csv"], key, seen)
        assert len(found) == len(seen) < len(raw.tables[table])  # what the logs lack is left out
    assert {row["tag"] for row in read(folder / "kuairand-1k.item")} == {"", "12", "12 65", "1 2 3", "7"}
    assert {row["follow_user_num_range"] for row in read(folder / "kuairand-1k.user")} == {"(0,10]"}


def test_weekday_and_hour_by_hand(raw: Raw, tmp_path: Path) -> None:
    raw.tables[FIRST] = [row | {"date": "20220410", "hourmin": "1705"} for row in raw.tables[FIRST][:3]]  # a Sunday
    raw.tables[SECOND][0] |= {"date": "20220502", "hourmin": "5"}  # a Monday, five past midnight
    raw.write()
    folder, _ = make(raw.folder, tmp_path / "data")
    rows = read(folder / "kuairand-1k.train.inter")
    assert [(row["weekday"], row["hour"]) for row in rows[:4]] == [("7", "17")] * 3 + [("1", "0")]


@pytest.mark.parametrize(("days", "low"), [("after_train", "20220507"), ("all", "")])
def test_the_random_log_is_an_unbiased_test(raw: Raw, tmp_path: Path, days: str, low: str) -> None:
    raw.write()
    folder, said = make(raw.folder, tmp_path / "data", protocol="stem-unbiased", test_log="random", random_days=days)
    assert folder.name == "kuairand-1k-stem-unbiased"
    files = raw.files()
    found = read(folder / f"{folder.name}.test.inter")
    assert found == slow_log(files[f"{RANDOM}_1k.csv"], by_day(low, "9"))
    assert {row["is_rand"] for row in found} == {"1"}
    tables = json.loads((folder / "preprocess.json").read_text())["tables"]
    left_out = len(slow_log(files[f"{SECOND}_1k.csv"], by_day("20220508", "9")))
    assert tables["standard log"]["dropped"] == {"after valid_until: the test part is the random log": left_out}
    assert tables["random log"]["rows_in"] == 200
    assert sum(tables["random log"]["dropped"].values()) == 200 - len(found)
    assert any("days of the training part" in text for text in said) == (days == "all")


# ---- files ------------------------------------------------------------------------------------------------------


def atomic_bytes(folder: Path) -> dict[str, bytes]:
    kinds = (".inter", ".user", ".item", ".yaml")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in kinds}


def test_blocks_and_a_second_run_change_no_byte(raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw.tables[FIRST][7]["is_click"] = "2"
    raw.tables["user_features"].append(dict(raw.tables["user_features"][0]))
    raw.tables["video_features_basic"].append(raw.tables["video_features_basic"][0] | {"author_id": "77"})
    raw.write()
    first, said = make(raw.folder, tmp_path / "a", max_rejected=0.1)
    again, _ = make(raw.folder, tmp_path / "b", max_rejected=0.1)
    for module in (kuairand_log, kuairand_sides):
        monkeypatch.setattr(module, "BLOCK_BYTES", 700)
    monkeypatch.setattr(kuairand_log, "LARGEST_MERGE", 10)
    small, told = make(raw.folder, tmp_path / "c", max_rejected=0.1)
    assert atomic_bytes(first) == atomic_bytes(again) == atomic_bytes(small)
    assert [text for text in said if "rows in" in text] == [text for text in told if "rows in" in text]


def test_archives_gz_zst_and_a_byte_order_mark_read_the_same(raw: Raw, tmp_path: Path) -> None:
    raw.write()
    plain, _ = make(raw.folder, tmp_path / "a")
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / "KuaiRand-1K.tar.gz", "w:gz") as archive:
        for name, data in raw.files().items():
            member = tarfile.TarInfo(f"KuaiRand-1K/data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert atomic_bytes(make(packed, tmp_path / "b")[0]) == atomic_bytes(plain)
    for ending, pack in ((".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)):
        folder = tmp_path / f"folder{ending}"
        folder.mkdir()
        for name, data in raw.files().items():
            crlf = b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
            (folder / f"{name}{ending}").write_bytes(pack(crlf))
        assert atomic_bytes(make(folder, tmp_path / f"c{ending}")[0]) == atomic_bytes(plain)


LOG_FAULTS = [
    ("user_id", "", "user_id: expected an integer from 0"),
    ("video_id", "-1", "video_id: expected an integer from 0"),
    ("video_id", "007", "video_id: expected an integer from 0"),
    ("date", "20220431", "date: expected a day such as 20220421"),
    ("date", "2022-4-1", "date: expected a day such as 20220421"),
    ("hourmin", "2400", "hourmin: expected hour and minute such as 1705"),
    ("hourmin", "1260", "hourmin: expected hour and minute such as 1705"),
    ("time_ms", "1.5", "time_ms: expected an integer from 0"),
    ("is_click", "2", "is_click: expected 0 or 1"),
    ("is_profile_enter", "", "is_profile_enter: expected 0 or 1"),
    ("long_view", "yes", "long_view: expected 0 or 1"),
    ("is_rand", "-1", "is_rand: expected 0 or 1"),
    ("play_time_ms", "-5", "play_time_ms: expected a number from 0"),
    ("profile_stay_time", "inf", "profile_stay_time: expected a number from 0"),
    ("comment_stay_time", "", "comment_stay_time: expected a number from 0"),
    ("duration_ms", "-1", "duration_ms: expected a number from 0"),
    ("tab", "", "tab: expected an integer from 0"),
]


def test_every_kind_of_faulty_row_is_rejected_with_file_line_and_reason(raw: Raw, tmp_path: Path) -> None:
    good = raw.tables[FIRST]
    count = len(good)
    users, videos = raw.tables["user_features"], raw.tables["video_features_basic"]
    assert "11" in {row["user_id"] for row in raw.tables[SECOND]}
    raw.tables[FIRST] = [*good, *(good[0] | {name: value} for name, value, _ in LOG_FAULTS)]
    raw.tables["user_features"] = [
        *users, dict(users[11]), users[11] | {"user_active_degree": "other"}, users[11] | {"user_id": "x"},
        users[11] | {"fans_user_num": "-3"},
    ]  # fmt: skip
    raw.tables["video_features_basic"] = [*videos, videos[0] | {"video_duration": "long"}]
    raw.write()
    log = raw.folder / f"{FIRST}_1k.csv"
    with log.open("ab") as file:
        file.write(b"1,2,3\n\n" + ",".join(good[0].values()).encode() + b",9\n")
        file.write(b"\xff" + ",".join(good[0].values()).encode() + b"\n")
    folder, _ = make(raw.folder, tmp_path / "data", max_rejected=0.5)
    with (folder / "rejected.tsv").open() as file:
        rejected = {(row["file"], int(row["line"]), row["reason"]) for row in csv.DictReader(file, delimiter="\t")}
    end = count + 2 + len(LOG_FAULTS)
    expected = {(log.name, count + 2 + at, reason) for at, (_, _, reason) in enumerate(LOG_FAULTS)}
    reasons = ("expected 19 columns, found 3", "blank line", "expected 19 columns, found 20", "not UTF-8")
    expected |= {(log.name, end + at, reason) for at, reason in enumerate(reasons)}
    user, video = "user_features_1k.csv", "video_features_basic_1k.csv"
    expected |= {
        (user, len(users) + 3, "user_id is there already, with other values"),
        (user, len(users) + 4, "user_id: expected an integer from 0"),
        (user, len(users) + 5, "fans_user_num: expected a number from 0, or nothing"),
        (video, len(videos) + 2, "video_duration: expected a number from 0, or nothing"),
    }
    assert rejected == expected
    tables = json.loads((folder / "preprocess.json").read_text())["tables"]
    for table in tables.values():
        assert table["rows_in"] == sum([table["written"], *table["dropped"].values(), *table["rejected"].values()])
    assert tables["standard log"]["written"] == 600
    assert tables["standard log"]["rows_in"] == 600 + len(LOG_FAULTS) + 4
    assert tables["user features"]["dropped"] == {"not in the logs that are used": 1, "the same row again": 1}


def test_a_faulty_row_too_many_stops(raw: Raw, tmp_path: Path) -> None:
    raw.tables[SECOND][5]["tab"] = "-3"
    raw.write()
    with pytest.raises(TooManyRejectedError, match="tab: expected an integer from 0"):
        make(raw.folder, tmp_path / "data")


def test_a_header_without_a_column_is_refused(raw: Raw, tmp_path: Path) -> None:
    raw.columns[FIRST] = [name for name in LOG if name != "long_view"]
    raw.write()
    with pytest.raises(DataError, match=r"4_21_1k\.csv, line 1: the header has no column 'long_view'"):
        make(raw.folder, tmp_path / "data")
    raw.columns[FIRST] = [*LOG, "tab"]
    raw.write()
    with pytest.raises(DataError, match="has twice the column 'tab'"):
        make(raw.folder, tmp_path / "data")
    (raw.folder / f"{FIRST}_1k.csv").write_bytes(b"")
    with pytest.raises(DataError, match="is empty; expected a header"):
        make(raw.folder, tmp_path / "data")


def test_a_column_that_is_not_known_is_passed_over(raw: Raw, tmp_path: Path) -> None:
    raw.write()
    plain, _ = make(raw.folder, tmp_path / "a")
    for name in (FIRST, "user_features"):
        raw.columns[name] = [*raw.columns[name][:3], "new_column", *raw.columns[name][3:]]
    raw.write()
    assert atomic_bytes(make(raw.folder, tmp_path / "b")[0]) == atomic_bytes(plain)


def test_features_that_are_not_there_are_counted(raw: Raw, tmp_path: Path) -> None:
    raw.tables["user_features"] = raw.tables["user_features"][:4]
    gaps = sum(not row["video_duration"] for row in raw.tables["video_features_basic"][:60])
    raw.write()
    _, said = make(raw.folder, tmp_path / "data")
    assert "8 of 12 users of the logs have no features" in said
    assert any(f"'video_duration' is not known in {gaps} rows" in text for text in said)


def test_days_that_leave_a_part_empty_are_refused_with_the_days_there_are(raw: Raw, tmp_path: Path) -> None:
    raw.write()
    with pytest.raises(DataError, match="no row for the test part: the logs have 2022-04-08 to 2022-05-08"):
        make(raw.folder, tmp_path / "data", train_until="2022-05-07", valid_until="2022-05-08")
    assert not (tmp_path / "data").exists()


# ---- tasks, options, the command line -------------------------------------------------------------------------


def test_any_signals_are_tasks_and_a_long_view_counts_after_a_click(raw: Raw, tmp_path: Path) -> None:
    raw.write()
    chosen = ",".join(SIGNALS)
    words = [f"--raw={raw.folder}", f"--data_path={tmp_path}", f"--tasks={chosen}", "--version=1k"]
    assert main(["preprocess", "kuairand", *words]) == 0
    settings = resolve(["--dataset=kuairand-1k", f"--data_path={tmp_path}"]).settings
    tasks = {task.name: task for task in settings.tasks}
    assert [name.replace("click_long_view", "long_view") for name in tasks] == list(SIGNALS)
    assert [name for name, task in tasks.items() if task.kind == "regression"] == list(SIGNALS[-3:])
    assert tasks["click_long_view"].condition == "long_view == 1 and is_click == 1"
    assert tasks["click_long_view"].after == ["is_click"]
    data = prepare(settings)
    rows = raw.tables[FIRST] + raw.tables[SECOND]
    assert sum(data.summary.rows.values()) == len(rows)
    both = sum(row["is_click"] == row["long_view"] == "1" for row in rows)
    assert sum(part["click_long_view"][0] for part in data.summary.positives.values()) == both


@pytest.mark.parametrize("signal", [*SIGNALS, "click_long_view"])
@pytest.mark.parametrize("task", ["is_like", "is_click"])
def test_no_feedback_column_is_ever_an_input(signal: str, task: str, tmp_path: Path) -> None:
    words = [f"--tasks=[{{name: {task}, label: {task}}}]", f"--fields=[{{name: {signal}, type: float}}]"]
    with pytest.raises(UsageError, match=rf"field '{signal}' cannot be an input"):
        resolve(["--dataset=kuairand-1k", f"--data_path={tmp_path}", *words])


def test_no_shipped_set_has_a_signal_among_its_fields(tmp_path: Path) -> None:
    for name in ("1k", "pure", "27k", "1k-stem", "1k-stem-unbiased"):
        settings = resolve([f"--dataset=kuairand-{name}", f"--data_path={tmp_path}"]).settings
        assert not {field.name for field in settings.fields} & {*SIGNALS, "is_rand", "time_ms", "date"}
        assert [task.name for task in settings.tasks] == ["is_click", "click_long_view"]


def test_regression_tasks_alone_are_selected_by_their_error() -> None:
    options = preprocess_options("kuairand", {"tasks": ["play_time_ms"]})
    made = KuaiRand(None, Path("data"), options=options, base={})
    assert made.adapted({})["valid_metric"] == "play_time_ms_rmse"


@pytest.mark.parametrize("name", ["kuairand-1k-stem", "kuairand-1k-stem-unbiased", "kuairand-pure", "kuairand-27k"])
def test_the_shipped_sets_are_made_and_read_with_one_command(name: str, raw: Raw, tmp_path: Path) -> None:
    raw.version = name.split("-")[1]
    files = raw.files()
    raw.folder.mkdir()
    for file, content in files.items():
        halves = [content]
        if raw.version == "27k" and "standard" in file:
            lines = content.splitlines(keepends=True)
            halves = [b"".join(lines[:200]), b"".join([lines[0], *lines[200:]])]
        for number, half in enumerate(halves, 1):
            ending = f"_part{number}.csv" if len(halves) > 1 else ".csv"
            (raw.folder / file.replace(".csv", ending)).write_bytes(half)
    data = prepare(resolve([f"--dataset={name}", f"--data_path={tmp_path}", f"--raw={raw.folder}"]).settings)
    train = slow_log(files[f"{FIRST}_{raw.version}.csv"], by_day("", "9"))
    train += slow_log(files[f"{SECOND}_{raw.version}.csv"], by_day("", "20220506"))
    assert data.summary.rows["train"] == len(train)
    test = RANDOM if name.endswith("unbiased") else SECOND
    after = "20220507" if test == RANDOM else "20220508"
    assert data.summary.rows["test"] == len(slow_log(files[f"{test}_{raw.version}.csv"], by_day(after, "9")))
    assert data.summary.positives["train"]["is_click"][0] == sum(row["is_click"] == "1" for row in train)
    assert not (data.folder / f"{name}.yaml").exists()  # the shipped one says it


def test_wrong_days_and_versions_are_refused() -> None:
    for given, said in (
        ({"train_until": "2022-02-30"}, "expected a day such as 2022-05-06; found '2022-02-30'"),
        ({"train_until": "2022-05-07"}, "must be a day before valid_until"),
        ({"version": "2k"}, "one of 1k, pure, 27k"),
        ({"tasks": ["is_clik"]}, "is_click"),
        ({"tasks": ["is_click", "is_click"]}, "each once"),
    ):
        with pytest.raises(UsageError, match=said):
            preprocess_options("kuairand", given)


def test_without_raw_files_it_says_what_is_missing_and_from_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preprocess", "kuairand", "--version=pure", f"--data_path={tmp_path}"]) == 2
    said = capsys.readouterr().err
    for text in ("log_standard_4_08_to_4_21_pure.csv", "video_features_basic_pure.csv", "CC BY-SA 4.0", "kuairand.com"):
        assert text in said
    assert main(["preprocess", "kuairand", "--help"]) == 0
    assert "stem-unbiased" in capsys.readouterr().out
