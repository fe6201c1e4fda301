"""Ali-CCP's raw files against a plain Python parser, fault by fault, whatever the blocks, threads and archives."""

from __future__ import annotations

import csv
import gzip
import io
import math
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.preprocess import preprocess_options
from recbole_dtn.errors import TooManyRejectedError, UsageError
from recbole_dtn.preprocess.aliccp.join import CommonRows, valid_rows
from recbole_dtn.preprocess.aliccp.preprocessor import AliCCP
from recbole_dtn.preprocess.aliccp.rows import COMMON, SKELETON, read_block
from recbole_dtn.preprocess.base import read_record
from recbole_dtn.preprocess.lines import Lines

USER = ["101", "121", "122", "124", "125", "126", "127", "128", "129", "109_14", "110_14", "127_14", "150_14"]
ITEM = ["205", "206", "207", "210", "216", "508", "509", "702", "853", "301"]
MANY = ["109_14", "110_14", "127_14", "150_14", "210", "853"]
AITM = ["101", "121", "122", "124", "125", "126", "127", "128", "129", "205", "206", "207", "216", "508", "509", "702",
        "853", "301"]  # fmt: skip
WHAT: dict[str, dict[str, Any]] = {
    "dtn23": {"fields": USER + ITEM, "lists": MANY},
    "full": {"fields": USER + ITEM, "lists": [*MANY, "508", "509", "702"]},
    "aitm": {"fields": AITM, "lists": [], "last": True, "least": 12, "drop": True},
    "aitm-clean": {"fields": AITM, "lists": ["853"]},
}
"""What each protocol is, written again here."""
NAMES = protocols("aliccp")
BASES = {protocol: dataset_values(name, None) for protocol, name in NAMES.items()}
Files = dict[str, bytes]
Cells = dict[str, str]


# ---- raw files -------------------------------------------------------------------------------------------------------


def feature_list(features: list[tuple[str, str, str]]) -> str:
    return "\x01".join(f"{name}\x02{number}\x03{value}" for name, number, value in features)


def common_row(index: str, features: list[tuple[str, str, str]]) -> str:
    return f"{index},{len(features)},{feature_list(features)}"


def skeleton_row(number: int, click: int, buy: int, index: str, features: list[tuple[str, str, str]]) -> str:
    return f"{number},{click},{buy},{index},{len(features)},{feature_list(features)}"


def as_files(rows: dict[str, list[str]]) -> Files:
    return {f"{name}.csv": "".join(f"{row}\n" for row in lines).encode() for name, lines in rows.items()}


def rare_or_not(draw: random.Random) -> str:
    """An id; among a thousand of them, many are seen about twelve times."""
    return str(int(40 * draw.random() ** 2))


def drawn(count: int, seed: int = 0) -> dict[str, list[str]]:
    """Rows in the layout of the real files: fields absent, in any order, and many-valued ones in several places."""
    draw = random.Random(seed)
    made: dict[str, list[str]] = {}
    for part in ("train", "test"):
        indices = [f"{draw.getrandbits(64):016x}" for _ in range(count // 20)]
        common, skeleton = [], []
        for index in indices:
            features = [(name, str(3_000_000 + draw.randrange(60)), "1.0") for name in USER[:9] if draw.random() < 0.8]
            for name in USER[9:]:
                ids = draw.sample(range(10 ** draw.randint(2, 7)), draw.randint(0, 60))
                features += [(name, str(number), f"{math.log1p(draw.randint(1, 90)):.5f}") for number in ids]
            draw.shuffle(features)
            common.append(common_row(index, features))
        for number in range(1, count + 1):
            features = [(name, rare_or_not(draw), "1.0") for name in ("205", "206", "207", "216", "301")]
            features += [(name, rare_or_not(draw), f"{draw.random() * 12:.5g}") for name in ("508", "509", "702")]
            features = [feature for feature in features if draw.random() < 0.8]
            features += [("210", str(draw.randrange(10**7)), "1.0") for _ in range(draw.randint(0, 6))]
            features += [("853", str(draw.randrange(30)), f"{draw.random():.5f}") for _ in range(draw.randint(0, 3))]
            draw.shuffle(features)
            click = int(draw.random() < 0.2)
            buy = int(draw.random() < 0.1)
            skeleton.append(skeleton_row(number, click, buy, indices[int(len(indices) * draw.random() ** 2)], features))
        made |= {f"sample_skeleton_{part}": skeleton, f"common_features_{part}": common}
    return made


def write_raw(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def preprocessor(raw: Path, out: Path, protocol: str = "dtn23", **options: Any) -> AliCCP:
    base = BASES[protocol]
    made = preprocess_options("aliccp", {**base["preprocess"], **options})
    return AliCCP(raw, out, options=made, base=base, name=NAMES[protocol])


def made(raw: Path, out: Path, protocol: str = "dtn23", *, rejected: float = 1.0, **options: Any) -> Path:
    return preprocessor(raw, out, protocol, **options).run(max_rejected=rejected)


def contents(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".inter", ".user")}


# ---- the plain parser ------------------------------------------------------------------------------------------------


def parsed(data: bytes) -> list[tuple[list[str], dict[str, list[tuple[str, str]]]]]:
    rows = []
    for row in csv.reader(io.StringIO(data.decode())):
        features: dict[str, list[tuple[str, str]]] = {}
        for feature in filter(None, row[-1].split("\x01")):
            name, rest = feature.split("\x02")
            number, value = rest.split("\x03")
            features.setdefault(name, []).append((number, value))
        rows.append((row, features))
    return rows


def is_valid_row(number: int, seed: int = 2020, share: float = 0.1) -> bool:
    """SplitMix64 of the seed and the row's number, in Python integers."""
    z = (seed + number * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return (z >> 11) / 2**53 < share


def expected(files: Files, what: dict[str, Any]) -> dict[str, list[Cells]]:
    """The atomic files that good raw files become, as rows of cells."""
    fields, lists, last = what["fields"], what["lists"], what.get("last", False)
    tables = {name.removesuffix(".csv"): parsed(data) for name, data in files.items()}

    def dropped(row: list[str]) -> bool:
        return bool(what.get("drop")) and row[1] == "0" and row[2] == "1"

    counts: Counter[tuple[str, str]] = Counter()
    users = {row[0]: features for row, features in tables["common_features_train"]}
    for row, features in tables["sample_skeleton_train"]:
        if not dropped(row):
            for name, values in {**features, **users[row[3]]}.items():
                counts.update((name, number) for number, _ in (values[-1:] if last else values))
    least = what.get("least", 1)

    def cells(features: dict[str, list[tuple[str, str]]], names: list[str]) -> Cells:
        found = {}
        for name in names:
            if name not in fields:
                continue
            values = features.get(name, [])
            values = values[-1:] if last else values
            values = [pair for pair in values if least == 1 or counts[name, pair[0]] >= least]
            values = values[: what.get("most")] if name in lists else values
            found[name] = " ".join(number for number, _ in values)
            if name in lists:
                found[f"{name}_value"] = " ".join(value for _, value in values)
        return found

    made: dict[str, list[Cells]] = {"train.inter": [], "valid.inter": [], "test.inter": [], "user": []}
    for part in ("train", "test"):
        for row, features in tables[f"common_features_{part}"]:
            made["user"].append({"user_key": f"{part}:{row[0]}", **cells(features, USER)})
        for number, (row, features) in enumerate(tables[f"sample_skeleton_{part}"]):
            if dropped(row):
                continue
            target = "valid" if part == "train" and is_valid_row(number) else part
            labels = {"click": row[1], "purchase": "1" if row[1] == row[2] == "1" else "0", "buy": row[2]}
            made[f"{target}.inter"].append({"user_key": f"{part}:{row[3]}", **cells(features, ITEM), **labels})
    return made


def read_back(folder: Path) -> dict[str, list[Cells]]:
    found = {}
    for name, data in contents(folder).items():
        header, *lines = data.decode().removesuffix("\n").split("\n")
        names = [column.split(":")[0] for column in header.split("\t")]
        rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
        found[name.removeprefix(f"{folder.name}.")] = rows
    return found


@pytest.fixture(scope="module")
def thousand() -> Files:
    return as_files(drawn(1000))


@pytest.fixture(scope="module")
def few() -> Files:
    return as_files(drawn(120, seed=1))


# ---- value for value -------------------------------------------------------------------------------------------------


def order_of(fields: list[str]) -> Callable[[str], int]:
    """The key first, fields as they are listed with their values behind, then labels."""
    columns = ["user_key", *(column for name in fields for column in (name, f"{name}_value"))]
    return [*columns, "click", "purchase", "buy"].index


@pytest.mark.parametrize("protocol", WHAT)
def test_a_thousand_rows_equal_a_plain_parser(thousand: Files, protocol: str, tmp_path: Path) -> None:
    folder = made(write_raw(tmp_path / "raw", thousand), tmp_path, protocol)
    found, wanted = read_back(folder), expected(thousand, WHAT[protocol])
    assert found == wanted
    if protocol == "aitm":
        item_ids = {row["205"] for row in found["test.inter"]}
        assert 10 < len(item_ids) < 35  # some of the 40 are rare
    assert {name: list(rows[0]) for name, rows in found.items()} == {
        name: sorted(rows[0], key=order_of(WHAT[protocol]["fields"])) for name, rows in wanted.items()
    }


@pytest.mark.parametrize("protocol", WHAT)
def test_the_real_rows_equal_a_plain_parser(shared_data: Path, protocol: str, tmp_path: Path) -> None:
    files: Files = {}
    for kind in ("sample_skeleton", "common_features"):
        data = (shared_data / "aliccp_raw" / f"{kind}_train.csv").read_bytes()
        files |= {f"{kind}_train.csv": data, f"{kind}_test.csv": data}
    folder = made(write_raw(tmp_path / "raw", files), tmp_path, protocol)
    found = read_back(folder)
    assert found == expected(files, WHAT[protocol])
    assert sum(len(rows) for name, rows in found.items() if name != "user") == 20
    assert not (folder / "rejected.tsv").exists()


def test_rare_ids_can_be_counted_once_per_common_row(tmp_path: Path) -> None:
    user = [("101", "5", "1.0")]
    rows = {"common_features_test": [common_row("f" * 16, user)], "sample_skeleton_test": []}
    rows["common_features_train"] = [common_row(f"{k:016x}", [("101", str(k // 2), "1.0")]) for k in range(4)]
    rows["common_features_train"].append(common_row(f"{0:016x}", [("101", "1", "1.0")]))  # twice: it counts nowhere
    rows["sample_skeleton_train"] = [skeleton_row(k, 0, 0, f"{0:016x}", [("205", "9", "1.0")]) for k in range(3)]
    raw = write_raw(tmp_path / "raw", as_files(rows))

    def users(count: str) -> list[str]:
        options: dict[str, Any] = {"min_occurrences": 2, "count": count, "drop_unclicked_buys": False}
        return [row["101"] for row in read_back(made(raw, tmp_path / count, "aitm", **options))["user"]]

    assert users("impressions") == ["0", "0", "", "", ""]  # user 0 has three impressions, user 1 has none
    assert users("rows") == ["0", "0", "1", "1", ""]


def test_the_first_values_of_a_list_stay(thousand: Files, tmp_path: Path) -> None:
    folder = made(write_raw(tmp_path / "raw", thousand), tmp_path, max_list=2)
    assert read_back(folder) == expected(thousand, {**WHAT["dtn23"], "most": 2})


def test_the_validation_rows_are_a_hash_of_seed_and_row() -> None:
    found = valid_rows(np.arange(20_000), 7, 0.1)
    assert found[:500].tolist() == [is_valid_row(number, 7) for number in range(500)]
    assert abs(found.mean() - 0.1) < 0.01
    assert (found != valid_rows(np.arange(20_000), 8, 0.1)).any()


def test_train_valid_and_test_share_no_row(tmp_path: Path) -> None:
    index = "0" * 16
    rows = {f"common_features_{part}": [common_row(index, [("101", "1", "1.0")])] for part in ("train", "test")}
    for part in ("train", "test"):
        rows[f"sample_skeleton_{part}"] = [
            skeleton_row(k, 0, 0, index, [("205", f"{k}{len(part)}", "1.0")]) for k in range(1, 301)
        ]
    found = read_back(made(write_raw(tmp_path / "raw", as_files(rows)), tmp_path))
    train, valid, test = ([row["205"] for row in found[f"{part}.inter"]] for part in ("train", "valid", "test"))
    assert not set(train) & set(valid)
    assert sorted(train + valid, key=int) == [f"{k}5" for k in range(1, 301)]
    assert test == [f"{k}4" for k in range(1, 301)]
    assert 10 < len(valid) < 60


def test_labels_have_no_part_in_the_user_file(few: Files, tmp_path: Path) -> None:
    flipped = dict(few)
    for part in ("train", "test"):
        rows = [line.split(b",") for line in few[f"sample_skeleton_{part}.csv"].splitlines()]
        for row in rows:
            row[1] = b"1" if row[1] == b"0" else b"0"
        flipped[f"sample_skeleton_{part}.csv"] = b"".join(b",".join(row) + b"\n" for row in rows)
    one = made(write_raw(tmp_path / "raw", few), tmp_path / "one")
    other = made(write_raw(tmp_path / "other raw", flipped), tmp_path / "other")
    assert (one / "aliccp.user").read_bytes() == (other / "aliccp.user").read_bytes()
    assert (one / "aliccp.test.inter").read_bytes() != (other / "aliccp.test.inter").read_bytes()


# ---- the same files whatever the blocks, threads, archives -----------------------------------------------------------


@pytest.mark.parametrize("protocol", ["dtn23", "aitm"])
def test_files_depend_on_neither_blocks_nor_threads_nor_the_run(
    few: Files, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**few, "sample_skeleton_train.csv": b"1,2,3\n" + few["sample_skeleton_train.csv"] + b"\nend\n"}
    raw = write_raw(tmp_path / "raw", files)
    found = []
    for place, (block_bytes, workers) in enumerate([(1 << 22, 2), (1 << 22, 2), (20_000, 1), (900, 3)]):
        monkeypatch.setattr(AliCCP, "block_bytes", block_bytes)
        monkeypatch.setattr(AliCCP, "workers", workers)
        folder = made(raw, tmp_path / str(place), protocol)
        found.append({**contents(folder), "rejected": (folder / "rejected.tsv").read_bytes()})
    assert all(each == found[0] for each in found)
    assert found[0]["rejected"].count(b"\n") == 4  # the header, a short row, a blank line, another short row


def archive(folder: Path, files: Files) -> None:
    for part in ("train", "test"):
        with tarfile.open(folder / f"sample_{part}.tar.gz", "w:gz") as tar:
            for name, data in files.items():
                if part in name:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


WAYS: dict[str, Callable[[Path, Files], Any]] = {
    "gz": lambda folder, files: write_raw(folder, {f"{name}.gz": gzip.compress(data) for name, data in files.items()}),
    "zst": lambda folder, files: write_raw(
        folder, {f"{name}.zst": zstandard.compress(data) for name, data in files.items()}
    ),
    "tar.gz": archive,
    "crlf": lambda folder, files: write_raw(
        folder, {name: data.replace(b"\n", b"\r\n") for name, data in files.items()}
    ),
    "no last line feed": lambda folder, files: write_raw(
        folder, {name: data.removesuffix(b"\n") for name, data in files.items()}
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_archives_give_the_same_files(few: Files, way: str, tmp_path: Path) -> None:
    plain = made(write_raw(tmp_path / "plain", few), tmp_path / "from plain")
    raw = tmp_path / "raw"
    raw.mkdir()
    WAYS[way](raw, few)
    assert contents(made(raw, tmp_path / "from archive")) == contents(plain)


# ---- faulty rows -----------------------------------------------------------------------------------------------------

INDEX = "00000000000000ab"
SHOWN = [("205", "4", "1.0"), ("210", "5", "1.0"), ("210", "6", "0.5")]
GOOD = skeleton_row(1, 0, 0, INDEX, SHOWN)
FAULTS = {
    "": "blank line",
    "1,0,0": "expected 6 columns, found 3",
    GOOD + ",": "expected 6 columns, found 7",
    GOOD.replace("1,", "1;", 1): "expected 6 columns, found 5",
    "x" + GOOD: "sample_id is not 1 to 20 digits",
    "-" + GOOD: "sample_id is not 1 to 20 digits",
    "1" * 21 + GOOD: "sample_id is not 1 to 20 digits",
    GOOD.replace(",0,0,", ",2,0,"): "click is neither 0 nor 1",
    GOOD.replace(",0,0,", ",,0,"): "click is neither 0 nor 1",
    GOOD.replace(",0,0,", ",0,01,"): "buy is neither 0 nor 1",
    GOOD.replace(INDEX, INDEX.upper()): "common_feature_index is not 16 hexadecimal digits (0-9, a-f)",
    GOOD.replace(INDEX, INDEX[1:]): "common_feature_index is not 16 hexadecimal digits (0-9, a-f)",
    GOOD.replace(INDEX, INDEX[1:] + "g"): "common_feature_index is not 16 hexadecimal digits (0-9, a-f)",
    GOOD.replace(INDEX, INDEX[:-1] + "c"): "no good row of the common features has this common_feature_index",
    GOOD.replace(",3,", ",4,"): "feature_num is not the number of features",
    GOOD.replace(",3,", ",,"): "feature_num is not the number of features",
    GOOD.replace(",3,", ",+3,"): "feature_num is not the number of features",
    GOOD.replace(",3,", ",000000003,"): "feature_num is not the number of features",
    GOOD.replace("\x02", ":"): "a feature is not field 0x02 id 0x03 value",
    GOOD.replace("\x02", "\x03", 1): "a feature is not field 0x02 id 0x03 value",
    GOOD[: GOOD.index(",3,")] + ",0,205": "a feature is not field 0x02 id 0x03 value",
    GOOD + "\x01": "a feature is not field 0x02 id 0x03 value",
    GOOD.replace("\x01", "\x01\x01", 1): "a feature is not field 0x02 id 0x03 value",
    GOOD + "\x031.0": "a feature is not field 0x02 id 0x03 value",
    GOOD.replace("205", "205\t"): "a feature is not field 0x02 id 0x03 value",
    GOOD.replace("205", "101"): "a field that this file does not have",
    GOOD.replace("205", ""): "a field that this file does not have",
    GOOD.replace("205", "205205205205"): "a field that this file does not have",
    GOOD.replace("\x024", "\x02x4"): "an id is not an unsigned 64-bit integer (digits only, without leading zeros)",
    GOOD.replace("\x024", "\x02"): "an id is not an unsigned 64-bit integer (digits only, without leading zeros)",
    GOOD.replace("\x024", "\x02-4"): "an id is not an unsigned 64-bit integer (digits only, without leading zeros)",
    GOOD.replace("\x024", "\x02007"): "an id is not an unsigned 64-bit integer (digits only, without leading zeros)",
    GOOD.replace("\x024", "\x0218446744073709551616"): (
        "an id is not an unsigned 64-bit integer (digits only, without leading zeros)"
    ),
    GOOD.replace("0.5", "nan"): "a value is not a finite number",
    GOOD.replace("0.5", "0.5.1"): "a value is not a finite number",
    GOOD.replace("0.5", "."): "a value is not a finite number",
    GOOD.replace("0.5", ""): "a value is not a finite number",
    GOOD.replace("0.5", "1e999"): "a value is not a finite number",
    GOOD.replace("0.5", "1_0"): "a value is not a finite number",
    GOOD.replace("0.5", "1" * 64): "a value is not a finite number",
    GOOD.replace("210", "205"): ("field 205 occurs more than once: name it in `lists`, or set repeated: last"),
}


def small(skeleton: list[bytes], common: list[bytes] | None = None) -> Files:
    user = common_row(INDEX, [("101", "1", "1.0"), ("150_14", "2", "0.5")]).encode()
    files = {"common_features_test.csv": user + b"\n", "sample_skeleton_test.csv": GOOD.encode() + b"\n"}
    files["common_features_train.csv"] = b"\n".join([*(common or [user]), b""])
    return {**files, "sample_skeleton_train.csv": b"\n".join([*skeleton, b""])}


def rejections(folder: Path) -> list[tuple[str, int, str]]:
    if not (folder / "rejected.tsv").exists():
        return []
    lines = [line.split("\t") for line in (folder / "rejected.tsv").read_text().splitlines()[1:]]
    return [(file, int(line), reason) for file, line, reason, _ in lines]


def test_every_fault_is_rejected_with_its_line_and_reason(tmp_path: Path) -> None:
    good = [skeleton_row(k, 0, 0, INDEX, [("205", str(k), "1.0")]) for k in range(1, len(FAULTS) + 1)]
    lines = [line.encode() for pair in zip(good, FAULTS, strict=True) for line in pair]
    lines += [GOOD.encode().replace(b",0,0,", b",\xff,0,"), GOOD.encode().replace(b"1,", b"\xfe1,", 1)]
    folder = made(write_raw(tmp_path / "raw", small(lines)), tmp_path)
    wanted = [("sample_skeleton_train.csv", 2 * k, reason) for k, reason in enumerate(FAULTS.values(), 1)]
    wanted += [("sample_skeleton_train.csv", len(lines) - k, "not UTF-8") for k in (1, 0)]
    assert rejections(folder) == wanted
    found = read_back(folder)
    written = [row["205"] for part in ("train", "valid") for row in found[f"{part}.inter"]]
    assert sorted(written, key=int) == [str(k) for k in range(1, len(FAULTS) + 1)]
    table = (read_record(folder) or {})["tables"]["skeleton, train"]
    assert table["rows_in"] == len(lines) == table["written"] + sum(table["rejected"].values())


def test_a_faulty_common_row_takes_its_impressions_with_it(tmp_path: Path) -> None:
    other = "0123456789abcdef"
    common = [
        common_row(INDEX, [("101", "1", "1.0")]).encode(),
        common_row(other, [("205", "1", "1.0")]).encode(),  # a field of the other file
        common_row(INDEX, [("101", "2", "1.0")]).encode(),
        b"",
        b"\xff" + common_row("1" * 16, []).encode(),
        common_row("2" * 16, []).encode(),  # no features: a user of whom nothing is known
    ]
    skeleton = [skeleton_row(1, 1, 0, index, SHOWN).encode() for index in (INDEX, other, "1" * 16, "2" * 16)]
    folder = made(write_raw(tmp_path / "raw", small(skeleton, common)), tmp_path)
    orphan = "no good row of the common features has this common_feature_index"
    assert rejections(folder) == [
        ("common_features_train.csv", 2, "a field that this file does not have"),
        ("common_features_train.csv", 3, "common_feature_index occurs in an earlier row"),
        ("common_features_train.csv", 4, "blank line"),
        ("common_features_train.csv", 5, "not UTF-8"),
        ("sample_skeleton_train.csv", 2, orphan),
        ("sample_skeleton_train.csv", 3, orphan),
    ]
    users = read_back(folder)["user"]
    assert [(row["user_key"], row["101"]) for row in users[:2]] == [(f"train:{INDEX}", "1"), (f"train:{'2' * 16}", "")]


def test_a_feature_at_fault_is_shown(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", small([GOOD.encode().replace(b"\x025\x03", b"\x02five\x03")]))
    folder = made(raw, tmp_path)
    text = (folder / "rejected.tsv").read_text().splitlines()[1].split("\t")[3]
    assert "210" in text
    assert "five" in text
    assert "205" not in text


def test_odd_but_valid_texts_stay_as_they_are_spelled(tmp_path: Path) -> None:
    ids = ["0", "7", "18446744073709551615", "1234567", "12345678", "123456789012345", "1234567890123456"]
    values = ["-0.5", "1e-05", "+1.", ".5", "0", "0.69314718055994530941723212145818", "00.50"]
    row = skeleton_row(1, 1, 1, INDEX, [("210", *pair) for pair in zip(ids, values, strict=True)])
    found = read_back(made(write_raw(tmp_path / "raw", small([row.encode()])), tmp_path))
    (written,) = found["train.inter"] + found["valid.inter"]
    assert written["210"].split(" ") == ids
    assert written["210_value"].split(" ") == values
    assert (written["click"], written["purchase"]) == ("1", "1")


def test_rows_without_features_are_rows(tmp_path: Path) -> None:
    rows = [skeleton_row(1, 1, 0, INDEX, []), GOOD]
    found = read_back(made(write_raw(tmp_path / "raw", small([row.encode() for row in rows])), tmp_path))
    first = (found["train.inter"] + found["valid.inter"])[0]
    assert first["click"] == "1"
    assert {value for name, value in first.items() if name not in ("user_key", "click", "purchase", "buy")} == {""}


def test_rejections_stop_the_run_when_they_are_too_many_or_strict(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", small([GOOD.encode()] * 99 + [b"x"]))
    made(raw, tmp_path / "one", rejected=0.01)
    with pytest.raises(TooManyRejectedError, match=r"skeleton, train: 1 of the first 100 rows"):
        made(raw, tmp_path / "two", rejected=0.009)
    with pytest.raises(TooManyRejectedError, match="line 100: expected 6 columns, found 1"):
        preprocessor(raw, tmp_path / "three").run(strict=True, max_rejected=1.0)
    assert not (tmp_path / "two" / "aliccp" / "aliccp.user").exists()


def test_what_is_not_written_is_said(tmp_path: Path) -> None:
    lines = [GOOD, GOOD.replace(",0,0,", ",0,1,"), GOOD.replace("205\x024\x031.0", "205\x024\x032.5")]
    files = small([line.encode() for line in lines])
    files["common_features_train.csv"] += common_row("c" * 16, [("101", "8", "1")]).encode() + b"\n"
    said: list[str] = []
    preprocessor(write_raw(tmp_path / "raw", files), tmp_path, drop_unclicked_buys=True).run(said.append)
    text = "\n".join(said)
    assert "1 of 2 common rows of train belong to no impression; they are kept" in text
    assert "field 205: 1 features have another value than 1" in text
    assert "skeleton, train: 3 rows in = 2 written + 1 dropped (click = 0 and buy = 1) + 0 rejected" in text
    assert "field 101" not in text


def plain_fault(line: bytes, table: str) -> bool:
    """Whether a row is faulty, in plain Python; whether its common row exists is left out."""
    try:
        columns = line.decode().split(",")
    except UnicodeDecodeError:
        return True
    fields, expected = (ITEM, 6) if table == "skeleton" else (USER, 3)
    if len(columns) != expected:
        return True

    def number(text: str, most: int) -> bool:
        return text.isascii() and text.isdigit() and len(text) <= most

    index = columns[3 if table == "skeleton" else 0]
    if len(index) != 16 or set(index) - set("0123456789abcdef"):
        return True
    if table == "skeleton" and not (number(columns[0], 20) and columns[1] in "01" and columns[2] in "01"):
        return True
    if table == "skeleton" and "" in columns[1:3]:
        return True
    features = columns[-1].split("\x01") if columns[-1] else []
    if not number(columns[-2], 8) or int(columns[-2]) != len(features):
        return True
    for feature in features:
        parts = feature.replace("\x03", "\x02").split("\x02")
        if feature.count("\x02") != 1 or feature.count("\x03") != 1 or feature.index("\x02") > feature.index("\x03"):
            return True
        if parts[0] not in fields or not number(parts[1], 20) or str(int(parts[1])) != parts[1]:
            return True
        if int(parts[1]) >= 2**64 or len(parts[2]) > 63 or set(parts[2]) - set("0123456789.eE+-"):
            return True
        try:
            if not math.isfinite(float(parts[2])):
                return True
        except ValueError:
            return True
    return False


EDITS = st.tuples(
    st.integers(0, 10**6), st.integers(0, 2), st.sampled_from(list(b",\x01\x02\x03\x00\x0b\t .-+eE01479afgxF_\xff\xc3"))
)


@settings(max_examples=75, deadline=None)
@given(st.lists(st.lists(EDITS, max_size=3), min_size=1, max_size=8), st.sampled_from(["skeleton", "common"]))
def test_damaged_rows_are_found_as_by_a_plain_check(edits: list[list[tuple[int, int, int]]], table: str) -> None:
    user = common_row(INDEX, [("101", "12345678", "1.0"), ("150_14", "2", "0.69315"), ("109_14", "77", "10.30895")])
    good = (GOOD if table == "skeleton" else user).encode()
    rows = []
    for some in edits:
        row = bytearray(good)
        for place, length, byte in some:
            row[place % len(row) : place % len(row) + length] = bytes([byte])
        rows.append(bytes(row))
    layout = SKELETON if table == "skeleton" else COMMON
    block = read_block(Lines(b"".join(row + b"\n" for row in rows), 1), layout)
    assert (~block.good).tolist() == [plain_fault(row, table) for row in rows]
    assert sorted(fault.row for fault in block.faults) == np.flatnonzero(~block.good).tolist()


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_numbers_of_long_ids() -> None:
    ids = ["0", "1234567", "12345678", "123456789012345", "1234567890123456", "18446744073709551615"]
    row = skeleton_row(1, 0, 0, INDEX, [("210", number, "1.0") for number in ids]).encode()
    block = read_block(Lines(row + b"\n", 1), SKELETON)
    assert block.numbers(np.arange(len(ids))).tolist() == [int(number) for number in ids]


def test_common_rows_are_found_by_their_index() -> None:
    rows = CommonRows(np.array([9, 3, 2**63], np.uint64))
    assert rows.find(np.array([3, 3, 4, 2**63, 9], np.uint64)).tolist() == [0, 0, -1, 2, 1]
    assert CommonRows(np.empty(0, np.uint64)).find(np.array([1], np.uint64)).tolist() == [-1]


def test_options_change_the_meaning(tmp_path: Path) -> None:
    base = dataset_values("aliccp", None)
    fields = ["101", "109_14", "205", "210", "508"]
    last = preprocessor(tmp_path, tmp_path, fields=fields, repeated="last").adapted(base)["fields"]
    assert last == [{"name": name} for name in fields]
    lists = preprocessor(tmp_path, tmp_path, "aitm", fields=fields, repeated="all", lists=["210", "508"])
    assert lists.adapted(dataset_values("aliccp-aitm", None))["fields"] == [
        {"name": "101"},
        {"name": "205"},
        {"name": "508", "type": "token_seq"},
        {"name": "109_14"},
        {"name": "210", "type": "token_seq"},
    ]
    for protocol, name in NAMES.items():
        assert preprocessor(tmp_path, tmp_path, protocol).meaning() is None
        assert AliCCP.name_of(preprocess_options("aliccp", BASES[protocol]["preprocess"])) == name


@pytest.mark.parametrize(
    ("option", "value"), [("valid_share", 1.0), ("repeated", "first"), ("fields", ["999"]), ("min_occurrences", 0)]
)
def test_wrong_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=option):
        preprocess_options("aliccp", {option: value})
