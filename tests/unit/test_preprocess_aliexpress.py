"""AliExpress: raw search logs to atomic files, against a slow parser written here, real rows and faulty ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.config.preprocess import preprocess_options
from recbole_dtn.errors import DataError, TooManyRejectedError, UsageError
from recbole_dtn.preprocess.aliexpress import preprocessor as aliexpress
from recbole_dtn.preprocess.aliexpress.options import AliExpressOptions
from recbole_dtn.preprocess.aliexpress.preprocessor import AliExpress
from recbole_dtn.preprocess.prepare import open_sources, prepare
from recbole_dtn.preprocess.raw_files import RawFolder

Row = list[str]
USER_CATEGORICAL = [*range(2, 9), 32, 33]
ITEM_CATEGORICAL = [19, 34, 35, 36, 40, 41, 42]
USER_NUMERIC = list(range(9, 32))
ITEM_NUMERIC = [*range(2, 19), *range(20, 34), *range(37, 40), *range(43, 49)]
CATEGORICAL = [f"categorical_{number}" for number in range(1, 17)]
NUMERIC = [f"numerical_{number}" for number in range(1, 64)]


def draw_country(seed: int, searches: int, most_items: int = 12, first_id: int = 81) -> dict[str, list[Row]]:
    """Rows of the four files of a country; a search's products lie together, numbers are spelled in several ways."""
    draw = np.random.default_rng(seed)
    found: dict[str, list[Row]] = {}
    for split, count in (("train", searches), ("test", max(searches // 4, 2))):
        users, items = [], []
        for search in range(count):
            name = str(first_id + 3 * search)
            users.append([name, *(draw_cell(draw, place, USER_CATEGORICAL) for place in range(2, 34))])
            for _ in range(draw.integers(0, most_items)):
                cells = [draw_cell(draw, place, ITEM_CATEGORICAL) for place in range(2, 49)]
                items.append([name, *cells, str(draw.choice(3, p=[0.8, 0.15, 0.05]))])
        found |= {f"user_{split}": users, f"item_{split}": items}
    return found


def draw_cell(draw: np.random.Generator, place: int, categorical: list[int]) -> str:
    if place in categorical:
        return str(draw.integers(0, 40))
    return str(draw.choice([repr(float(draw.random())), "0.0", "0", "1e-05", "-0.25", f"{draw.random():.3f}"]))


def as_csv(rows: list[Row]) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode()


def write_raw(folder: Path, countries: dict[str, dict[str, list[Row]]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for country, files in countries.items():
        for kind, rows in files.items():
            (folder / f"{country.lower()}_{kind}.csv").write_bytes(as_csv(rows))
    return folder


def make(raw: Path, out: Path, **options: Any) -> tuple[Path, list[str]]:
    """The folder of atomic files, and what was said."""
    said: list[str] = []
    allowed = options.pop("max_rejected", 0.0)
    given = preprocess_options("aliexpress", options)
    return AliExpress(raw, out, options=given, base={}).run(said.append, max_rejected=allowed), said


def read(path: Path) -> list[dict[str, str]]:
    """An atomic file as rows of texts; the header's types are cut off."""
    lines = path.read_text().split("\n")
    assert lines.pop() == ""
    names = [column.split(":")[0] for column in lines[0].split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines[1:]]


def joined(folder: Path, part: str) -> list[dict[str, str]]:
    """The interactions of a part with their searches' columns."""
    users = {row["search_id"]: row for row in read(folder / f"{folder.name}.user")}
    return [{**users[row["search_id"]], **row} for row in read(folder / f"{folder.name}.{part}.inter")]


def slow(raw: Path, country: str, split: str, prefix: str = "") -> list[dict[str, str]]:
    """The join as the csv module and a dictionary give it."""
    with (raw / f"{country.lower()}_user_{split}.csv").open(newline="") as file:
        users = {row[0]: row for row in csv.reader(file)}
    found = []
    with (raw / f"{country.lower()}_item_{split}.csv").open(newline="") as file:
        for item in csv.reader(file):
            user = users[item[0]]
            row = {"search_id": f"{prefix}{split}:{item[0]}"}
            ids = [user[place - 1] for place in USER_CATEGORICAL] + [item[place - 1] for place in ITEM_CATEGORICAL]
            numbers = [user[place - 1] for place in USER_NUMERIC] + [item[place - 1] for place in ITEM_NUMERIC]
            row |= {name: prefix + value for name, value in zip(CATEGORICAL, ids, strict=True)}
            row |= dict(zip(NUMERIC, numbers, strict=True))
            row |= {"click": str(int(item[48] != "0")), "conversion": str(int(item[48] == "2"))}
            found.append(row | ({"country": country} if prefix else {}))
    return found


def expected_cut(rows: list[dict[str, str]]) -> int:
    """The first row of a search that is nearest to nine tenths of the rows (rows of a search lie together)."""
    target = len(rows) - max(round(len(rows) * 0.1), 1)
    starts = [i for i in range(1, len(rows)) if rows[i]["search_id"] != rows[i - 1]["search_id"]]
    return min(starts, key=lambda start: abs(start - target))


# ---- values -----------------------------------------------------------------------------------------------------


def test_the_real_rows_are_those_of_the_processed_files(shared_data: Path, tmp_path: Path) -> None:
    folder, _ = make(shared_data / "aliexpress" / "raw_layout", tmp_path, countries=["US"])
    for split, parts in {"train": ("train", "valid"), "test": ("test",)}.items():
        with (shared_data / "aliexpress" / "processed" / f"aliexpress_{split}_sample.csv").open(newline="") as file:
            processed = list(csv.DictReader(file))
        found = [row for part in parts for row in joined(folder, part)]
        assert len(found) == len(processed) == {"train": 100, "test": 20}[split]
        assert list(processed[0]) == ["search_id", *CATEGORICAL, *NUMERIC, "click", "conversion"]
        for made, row in zip(found, processed, strict=True):
            assert made["search_id"] == f"{split}:{row['search_id']}"
            assert [made[name] for name in CATEGORICAL] == [row[name] for name in CATEGORICAL]
            for name in (*NUMERIC, "click", "conversion"):
                assert float(made[name]) == float(row[name])


def test_one_country_is_what_a_slow_parser_gives(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", {"NL": draw_country(1, 200)})
    folder, said = make(raw, tmp_path / "data", countries=["NL"])
    assert folder.name == "aliexpress-nl"
    train, test = slow(raw, "NL", "train"), slow(raw, "NL", "test")
    assert len(train) > 1000
    cut = expected_cut(train)
    assert abs(len(train) - cut - len(train) / 10) <= 12  # a search has at most 11 products
    assert joined(folder, "train") == train[:cut]
    assert joined(folder, "valid") == train[cut:]
    assert joined(folder, "test") == test
    assert any(f"the last {len(train) - cut:,} of {len(train):,} training rows" in text for text in said)
    assert {(row["click"], row["conversion"]) for row in train} == {("0", "0"), ("1", "0"), ("1", "1")}
    assert len(read(folder / "aliexpress-nl.user")) == 200 + 50  # each once


def test_countries_are_joined_with_prefixed_ids_and_a_validation_part_of_each(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", {"NL": draw_country(1, 60), "ES": draw_country(2, 40)})
    folder, _ = make(raw, tmp_path / "data", countries=["ES", "NL"])
    assert folder.name == "aliexpress-nl-es"
    expected: dict[str, list[dict[str, str]]] = {"train": [], "valid": [], "test": []}
    for country in ("NL", "ES"):
        train = slow(raw, country, "train", f"{country}:")
        cut = expected_cut(train)
        expected["train"] += train[:cut]
        expected["valid"] += train[cut:]
        expected["test"] += slow(raw, country, "test", f"{country}:")
    for part, rows in expected.items():
        assert joined(folder, part) == rows
    assert expected["valid"][0]["search_id"].startswith("NL:train:")
    assert expected["train"][-1]["categorical_10"].startswith("ES:")
    meaning = (folder / "aliexpress-nl-es.yaml").read_text()
    assert "domain_field: country" in meaning


def test_a_search_never_straddles_the_cut_though_its_rows_lie_apart(tmp_path: Path) -> None:
    files = draw_country(3, 120)
    order = np.random.default_rng(4).permutation(len(files["item_train"]))
    files["item_train"] = [files["item_train"][row] for row in order]
    raw = write_raw(tmp_path / "raw", {"FR": files})
    folder, _ = make(raw, tmp_path / "data", countries=["FR"])
    train, valid = (joined(folder, part) for part in ("train", "valid"))
    assert not {row["search_id"] for row in train} & {row["search_id"] for row in valid}
    every = slow(raw, "FR", "train")
    first: dict[str, int] = {}
    for place, row in enumerate(every):
        first.setdefault(row["search_id"], place)
    target = len(every) - round(len(every) * 0.1)
    cut = min((place for place in first.values() if place), key=lambda place: abs(place - target))
    assert train == [row for row in every if first[row["search_id"]] < cut]
    assert valid == [row for row in every if first[row["search_id"]] >= cut]
    assert any(first[row["search_id"]] < cut for row in every[cut:])  # some rows had to go back


def test_mtreclib_selects_on_the_test_rows_and_says_so(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", {"US": draw_country(5, 40)})
    folder, said = make(raw, tmp_path / "data", countries=["US"], protocol="mtreclib")
    assert folder.name == "aliexpress-us-mtreclib"
    assert joined(folder, "train") == slow(raw, "US", "train")
    test = folder / f"{folder.name}.test.inter"
    assert (folder / f"{folder.name}.valid.inter").read_bytes() == test.read_bytes()
    assert any("selects on the test set" in text and "optimistic" in text for text in said)
    record = json.loads((folder / "preprocess.json").read_text())
    assert record["tables"]["US item test"]["written"] == len(slow(raw, "US", "test"))


def test_one_search_alone_cannot_be_held_out(tmp_path: Path) -> None:
    files = draw_country(6, 2, most_items=3)
    files["item_train"] = [[files["user_train"][0][0], *["0"] * 48]] * 5
    raw = write_raw(tmp_path / "raw", {"NL": files})
    with pytest.raises(DataError, match="of one search"):
        make(raw, tmp_path / "data", countries=["NL"])
    assert not (tmp_path / "data").exists()


# ---- files ------------------------------------------------------------------------------------------------------


def atomic_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".inter", ".user", ".yaml")
    }


def test_blocks_and_a_second_run_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = draw_country(7, 80)
    files["item_train"][10], files["item_train"][500 % len(files["item_train"])] = ["bad"], [*["1"] * 48, "7"]
    files["user_train"] += files["user_train"][:5]
    files["item_train"].append(list(files["item_train"][0]))
    raw = write_raw(tmp_path / "raw", {"NL": files, "US": draw_country(8, 30)})
    options: dict[str, Any] = {"countries": ["NL", "US"], "max_rejected": 0.1}
    first, said = make(raw, tmp_path / "a", **options)
    again, _ = make(raw, tmp_path / "b", **options)
    monkeypatch.setattr(aliexpress, "BLOCK_BYTES", 3000)
    small, told = make(raw, tmp_path / "c", **options)
    assert atomic_bytes(first) == atomic_bytes(again) == atomic_bytes(small)
    assert [text for text in said if "rows in" in text] == [text for text in told if "rows in" in text]


def test_the_publishers_zips_gz_and_zst_read_the_same(tmp_path: Path) -> None:
    files = draw_country(9, 40)
    plain, _ = make(write_raw(tmp_path / "plain", {"NL": files}), tmp_path / "a", countries=["NL"])
    for number, inner in enumerate(("nl_{}.csv", "data.csv", "AliExpress/nl_{}.csv")):
        folder = tmp_path / f"zips{number}"
        folder.mkdir()
        with zipfile.ZipFile(folder / "aliexpress_NL_datasets.zip", "w") as outer:
            for kind, rows in files.items():
                held = io.BytesIO()
                with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as own:
                    own.writestr(inner.format(kind), as_csv(rows))
                outer.writestr(f"aliexpress_NL_datasets/nl_{kind}.zip", held.getvalue())
        found, _ = make(folder, tmp_path / f"b{number}", countries=["NL"])
        assert atomic_bytes(found) == atomic_bytes(plain)
    for ending, pack in ((".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)):
        folder = tmp_path / f"packed{ending}"
        folder.mkdir()
        for kind, rows in files.items():
            (folder / f"nl_{kind}.csv{ending}").write_bytes(pack(as_csv(rows)))
        found, _ = make(folder, tmp_path / f"c{ending}", countries=["NL"])
        assert atomic_bytes(found) == atomic_bytes(plain)


def with_cell(row: Row, place: int, value: str) -> Row:
    return [*row[: place - 1], value, *row[place:]]


def test_every_kind_of_faulty_row_is_rejected_with_file_line_and_reason(tmp_path: Path) -> None:
    files = draw_country(10, 60)
    users, items = files["user_train"], files["item_train"]
    item_faults = [
        (with_cell(items[0], 1, ""), "column 1 (search_id): expected an integer"),
        (with_cell(items[0], 1, "x1"), "column 1 (search_id): expected an integer"),
        (with_cell(items[0], 2, ""), "column 2 (numerical_24): expected a finite number"),
        (with_cell(items[0], 48, "inf"), "column 48 (numerical_63): expected a finite number"),
        (with_cell(items[0], 20, "nan"), "column 20 (numerical_41): expected a finite number"),
        (with_cell(items[0], 33, "abc"), "column 33 (numerical_54): expected a finite number"),
        (with_cell(items[0], 19, "1.5"), "column 19 (categorical_10): expected an integer"),
        (with_cell(items[0], 42, ""), "column 42 (categorical_16): expected an integer"),
        (with_cell(items[0], 49, "3"), "column 49 (label): expected 0, 1 or 2"),
        (with_cell(items[0], 49, ""), "column 49 (label): expected 0, 1 or 2"),
        (items[0][:-1], "expected 49 columns, found 48"),
        ([*items[0], "1"], "expected 49 columns, found 50"),
        ([""], "blank line"),
    ]
    user_faults = [
        (with_cell(users[0], 33, "-"), "column 33 (categorical_9): expected an integer"),
        (with_cell(users[0], 31, "1e999"), "column 31 (numerical_23): expected a finite number"),
        (with_cell(users[0], 9, "0.123456"), "its search is there already, with other values"),
        (users[0][:5], "expected 33 columns, found 5"),
    ]
    good = len(items)
    files["item_train"] = [*items, *(row for row, _ in item_faults), with_cell(items[0], 1, "999999")]
    files["user_train"] = [*users, *(row for row, _ in user_faults), users[3]]
    raw = write_raw(tmp_path / "raw", {"NL": files})
    not_utf8 = ",".join(with_cell(items[0], 5, "?")).replace("?", "\udcff").encode("utf-8", "surrogateescape")
    with (raw / "nl_item_train.csv").open("ab") as file:
        file.write(not_utf8 + b"\n")
    folder, said = make(raw, tmp_path / "data", countries=["NL"], max_rejected=0.5)
    with (folder / "rejected.tsv").open() as file:
        rejected = {(row["file"], int(row["line"]), row["reason"]) for row in csv.DictReader(file, delimiter="\t")}
    expected = {("nl_item_train.csv", good + 1 + at, reason) for at, (_, reason) in enumerate(item_faults)}
    expected |= {("nl_user_train.csv", len(users) + 1 + at, reason) for at, (_, reason) in enumerate(user_faults)}
    expected.add(("nl_item_train.csv", good + len(item_faults) + 2, "not UTF-8"))
    assert rejected == expected
    tables = json.loads((folder / "preprocess.json").read_text())["tables"]
    assert tables["NL item train"]["dropped"] == {"inner join: no user row of its search": 1}
    assert tables["NL user train"]["dropped"] == {"the same row again": 1}
    for table in tables.values():
        sums = table["written"] + sum(table["dropped"].values()) + sum(table["rejected"].values())
        assert table["rows_in"] == sums
    assert tables["NL item train"]["rows_in"] == good + len(item_faults) + 2
    assert len(joined(folder, "train")) + len(joined(folder, "valid")) == good == tables["NL item train"]["written"]
    assert any(text.startswith("NL item train:") and "14 rejected" in text for text in said)


def test_too_many_faulty_rows_stop_and_leave_their_list_alone(tmp_path: Path) -> None:
    files = draw_country(11, 30)
    files["item_test"][0] = with_cell(files["item_test"][0], 49, "9")
    raw = write_raw(tmp_path / "raw", {"NL": files})
    with pytest.raises(TooManyRejectedError, match="expected 0, 1 or 2"):
        make(raw, tmp_path / "data", countries=["NL"])
    assert [path.name for path in (tmp_path / "data" / "aliexpress-nl").iterdir()] == ["rejected.tsv"]


@pytest.mark.parametrize("block_bytes", [1 << 24, 3000])
@pytest.mark.parametrize("fault", ["value", "columns"])
def test_products_of_a_rejected_search_are_rejected_and_not_dropped(
    fault: str, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliexpress, "BLOCK_BYTES", block_bytes)
    files = draw_country(12, 40)
    bad, absent = (files["item_train"][at][0] for at in (5, 60))
    at = next(at for at, row in enumerate(files["user_train"]) if row[0] == bad)
    files["user_train"][at] = with_cell(files["user_train"][at], 9, "?") if fault == "value" else [bad, "1", "2"]
    files["user_train"] = [row for row in files["user_train"] if row[0] != absent]
    raw = write_raw(tmp_path / "raw", {"NL": files})
    folder, _ = make(raw, tmp_path / "data", countries=["NL"], max_rejected=0.5)
    lines = [number for number, row in enumerate(files["item_train"], 1) if row[0] == bad]
    dropped = sum(row[0] == absent for row in files["item_train"])
    assert lines
    assert dropped
    with (folder / "rejected.tsv").open() as file:
        rejected = [row for row in csv.DictReader(file, delimiter="\t") if row["file"] == "nl_item_train.csv"]
    assert [(int(row["line"]), row["reason"]) for row in rejected] == [
        (line, "its user row is rejected") for line in lines
    ]
    assert rejected[0]["text"].startswith(f"{bad},")
    table = json.loads((folder / "preprocess.json").read_text())["tables"]["NL item train"]
    assert table["dropped"] == {"inner join: no user row of its search": dropped}
    assert table["rejected"] == {"its user row is rejected": len(lines)}


def test_a_search_whose_sound_row_stands_beside_a_faulty_one_keeps_its_products(tmp_path: Path) -> None:
    files = draw_country(13, 20)
    found, _ = make(write_raw(tmp_path / "raw", {"NL": files}), tmp_path / "a", countries=["NL"])
    for at in (0, len(files["user_train"])):
        files["user_train"].insert(at, with_cell(files["user_train"][2], 9, "?"))
    raw = write_raw(tmp_path / "again", {"NL": files})
    again, _ = make(raw, tmp_path / "b", countries=["NL"], max_rejected=0.5)
    assert atomic_bytes(found) == atomic_bytes(again)


def test_a_failed_overwrite_keeps_the_list_of_the_set_that_stays(tmp_path: Path) -> None:
    files = draw_country(14, 30)
    files["item_test"][0] = with_cell(files["item_test"][0], 49, "9")
    raw = write_raw(tmp_path / "raw", {"NL": files})
    folder, _ = make(raw, tmp_path / "data", countries=["NL"], max_rejected=0.5)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["item_test"][1] = with_cell(files["item_test"][1], 49, "8")
    write_raw(raw, {"NL": files})
    made = AliExpress(raw, tmp_path / "data", options=preprocess_options("aliexpress", {"countries": ["NL"]}), base={})
    with pytest.raises(TooManyRejectedError) as caught:
        made.run(overwrite=True)
    failed = folder / "rejected.failed.tsv"
    assert f"see {failed}" in str(caught.value)
    assert len(failed.read_text().splitlines()) == 3
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path != failed}
    assert after == before
    made.run(overwrite=True, max_rejected=0.5)
    assert not failed.exists()
    assert len((folder / "rejected.tsv").read_text().splitlines()) == 3


# ---- changed raw files ------------------------------------------------------------------------------------------


def settings_of(raw: Path | None, data_path: Path) -> Any:
    given = {
        "model": "MMoE",
        "dataset": "aliexpress-nl",
        "data_path": str(data_path),
        **({} if raw is None else {"raw": str(raw)}),
    }
    return resolve(given).settings


@pytest.mark.parametrize("default", [False, True])
def test_raw_files_that_have_changed_are_noticed(default: bool, tmp_path: Path) -> None:
    data_path = tmp_path / "data"
    files = draw_country(15, 30)
    raw = write_raw(data_path / "aliexpress" / "raw" if default else tmp_path / "raw", {"NL": files})
    settings = settings_of(None if default else raw, data_path)
    said: list[str] = []
    open_sources(settings, log=said.append)
    record = json.loads((data_path / "aliexpress-nl" / "preprocess.json").read_text())
    assert [stamp["file"] for stamp in record["raw"]["files"]] == sorted(path.name for path in raw.iterdir())
    said.clear()
    open_sources(settings, log=said.append)
    assert said == []
    files["item_train"][0] = with_cell(files["item_train"][0], 2, "0.75")
    write_raw(raw, {"NL": files})
    open_sources(settings, log=said.append)
    (warning,) = said
    assert warning.startswith("warning: ")
    assert f"nl_item_train.csv in {raw}" in warning
    assert "preprocess aliexpress" in warning
    assert "--overwrite" in warning


def test_files_of_another_raw_folder_are_no_change(tmp_path: Path) -> None:
    """A set made from a folder of its own, with other files of the same names in the default one."""
    data_path = tmp_path / "data"
    raw = write_raw(tmp_path / "raw", {"NL": draw_country(16, 30)})
    said: list[str] = []
    open_sources(settings_of(raw, data_path), log=lambda text: None)
    write_raw(data_path / "aliexpress" / "raw", {"NL": draw_country(17, 30)})
    open_sources(settings_of(None, data_path), log=said.append)
    assert said == []
    (data_path / "aliexpress-nl" / "preprocess.json").unlink()
    open_sources(settings_of(raw, data_path), log=said.append)
    assert said == []


def announced(made: AliExpress) -> str:
    return made.announce().replace(str(made.raw), "RAW").replace(str(made.folder), "FOLDER")


def test_the_estimate_allows_for_compressed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AliExpress, "bytes_per_second", 10.0)
    options = preprocess_options("aliexpress", {"countries": ["NL"]})
    for ending, size in (("", 500), (".gz", 500)):
        folder = tmp_path / f"raw{ending}"
        folder.mkdir()
        for kind in ("user_train", "item_train", "user_test", "item_test"):
            (folder / f"nl_{kind}.csv{ending}").write_bytes(b"x" * size)
    found = [
        announced(AliExpress(tmp_path / f"raw{ending}", tmp_path, options=options, base={})) for ending in ("", ".gz")
    ]
    assert found[0].endswith("(2 kB): making FOLDER under protocol 'clean', once; about 3 min on two cores")
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (tmp_path / "raw").iterdir():
            archive.writestr(path.name, path.read_bytes())
            path.unlink()
    (tmp_path / "raw.zip").rename(tmp_path / "raw" / "all.zip")
    zipped = announced(AliExpress(tmp_path / "raw", tmp_path, options=options, base={}))
    assert zipped.endswith("(2 kB): making FOLDER under protocol 'clean', once; at least 3 min on two cores")
    # 2,000 bytes, 3.5 bytes of text for each, 10 bytes a second
    assert found[1].endswith(
        "(2 kB, compressed): making FOLDER under protocol 'clean', once; at least 12 min on two cores"
    )


def test_zips_inside_zips_are_announced_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    with zipfile.ZipFile(folder / "everything.zip", "w") as outer:
        for kind, rows in draw_country(9, 40).items():
            held = io.BytesIO()
            with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as own:
                own.writestr("data.csv", as_csv(rows))
            outer.writestr(f"nl_{kind}.zip", held.getvalue())
    monkeypatch.setattr(RawFolder, "_unpacked", None)
    options = preprocess_options("aliexpress", {"countries": ["NL"]})
    assert "compressed): making FOLDER" in announced(AliExpress(folder, tmp_path, options=options, base={}))
    (folder / "everything.zip").unlink()
    with pytest.raises(DataError, match=r"nl_user_train\.csv, .* are missing"):
        AliExpress(folder, tmp_path, options=options, base={}).announce()


# ---- options and the command line -----------------------------------------------------------------------------


def test_names_say_the_countries_and_the_protocol() -> None:
    def name(**options: Any) -> str:
        return AliExpress.name_of(AliExpressOptions(**options))

    assert name() == "aliexpress"
    assert name(countries=["US", "FR", "ES", "NL"]) == "aliexpress"
    assert name(countries=["RU"]) == "aliexpress-ru"
    assert name(countries=["US"], protocol="mtreclib") == "aliexpress-us-mtreclib"
    with pytest.raises(UsageError, match="named twice"):
        preprocess_options("aliexpress", {"countries": ["NL", "NL"]})
    with pytest.raises(UsageError, match=r"preprocess\.countries.*NL, ES, FR, US, RU"):
        preprocess_options("aliexpress", {"countries": ["DE"]})
    with pytest.raises(UsageError, match=r"found \[\]"):
        preprocess_options("aliexpress", {"countries": []})


def test_without_raw_files_it_says_what_is_missing_and_from_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["preprocess", "aliexpress", "--countries=NL", f"--data_path={tmp_path}"]) == 2
    said = capsys.readouterr().err
    for text in ("nl_item_test.csv", "aliexpress_NL_datasets.zip", "Tianchi", "--like=aliexpress"):
        assert text in said


@pytest.mark.parametrize("name", ["aliexpress-nl", "aliexpress", "aliexpress-nl-mtreclib"])
def test_the_shipped_sets_are_made_and_read_with_one_command(name: str, tmp_path: Path) -> None:
    countries = {code: draw_country(20 + at, 15) for at, code in enumerate(("NL", "ES", "FR", "US"))}
    raw = write_raw(tmp_path / "raw", countries)
    settings = resolve([f"--dataset={name}", f"--data_path={tmp_path}", f"--raw={raw}"]).settings
    data = prepare(settings)
    assert [field.name for field in data.schema.fields] == [*CATEGORICAL, *NUMERIC]
    assert data.schema.task_names == ("click", "conversion")
    assert data.schema.num_domains == (4 if name == "aliexpress" else 0)
    used = countries if name == "aliexpress" else {"NL": countries["NL"]}
    total = sum(len(files[f"item_{split}"]) for files in used.values() for split in ("train", "test"))
    test = sum(len(files["item_test"]) for files in used.values())
    doubled = test if name.endswith("mtreclib") else 0
    assert sum(data.summary.rows.values()) == total + doubled
    assert data.summary.rows["test"] == test
    assert not (data.folder / f"{name}.yaml").exists()  # the shipped one says it


def test_training_settings_of_mtreclib_yield_to_the_command_line(tmp_path: Path) -> None:
    shipped = resolve(["--dataset=aliexpress-nl-mtreclib", f"--data_path={tmp_path}"]).settings
    assert (shipped.embedding_size, shipped.train_batch_size, shipped.optimizer.lr) == (128, 2048, 1e-3)
    assert (shipped.embedding_l2, shipped.stopping_step) == (1e-6, 1)
    assert [task.weight for task in shipped.tasks] == [0.5, 0.5]
    own = ["--embedding_size=8", "--learning_rate=0.1"]
    given = resolve(["--dataset=aliexpress-nl-mtreclib", f"--data_path={tmp_path}", *own]).settings
    assert (given.embedding_size, given.optimizer.lr, given.train_batch_size) == (8, 0.1, 2048)
    clean = resolve(["--dataset=aliexpress-nl", f"--data_path={tmp_path}"]).settings
    assert [task.weight for task in clean.tasks] == [1.0, 1.0]
    with pytest.raises(UsageError, match="task 'click' is made from it"):
        resolve(["--dataset=aliexpress-nl", "--fields=[{name: click}]", f"--data_path={tmp_path}"])
