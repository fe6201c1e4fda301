"""Small inputs, mutated: each is refused with an error of the package, or every value is the oracle's.

The same 25 inputs of each test at every run; ``HOSTILE_INPUTS=2000`` draws so many, others at every run.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.formula import parse_formula
from recbole_dtn.config.load import resolve, restore
from recbole_dtn.data.condition import to_expression
from recbole_dtn.errors import DataError, RecBoleDTNError, UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.preprocess.raw_files import RawFolder
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record
from recbole_dtn.serving.tables import Reading, numbers_of, open_input
from recbole_dtn.training.fit import fit
from tests.oracles import atomic, grammar, tables

INPUTS = os.environ.get("HOSTILE_INPUTS")
hostile = settings(max_examples=int(INPUTS or 25), derandomize=INPUTS is None, deadline=None)

PIECES: tuple[bytes, ...] = (
    b"", b"\0", b"\t", b"\n", b"\r", b"\r\n", b"\x1b[31m", b" ", b'"', b"'", b"`", b"%", b"%41", b"\\", b"../", b":",
    b",", b"#", b"[", b"]", b"{", b"}", b"(", b")", b"<", b"==", b"--", b"&a", b"*a", b"!!python/object:os.system",
    b"[PAD]", b"NA", b"\xff", b"\xed\xa0\x80", "\u202e".encode(), "\u2028".encode(), "\u0085".encode(),
    "\ufeff".encode(), "日本".encode(), "１".encode(), b"0", b"-1", b"256", b"2147483648", b"9223372036854775808",
    b"1e308", b"1e309", b"4.9e-324", b"3.5e38", b"007", b".5", b"5.", b"1e", b"1_000", b"0x10", b"inf", b"nan", b"NULL",
    b"None", b"true", b"~", b"9" * 400,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """A seed whose slices are replaced by pieces, by parts of it and of the other seeds."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.one_of(st.just(0), st.integers(0, 8), st.integers(0, len(data)))))
        other = draw(st.sampled_from(seeds))
        at = draw(st.integers(0, len(other)))
        part = st.just(other[at : at + 64])
        data = data[:start] + draw(st.one_of(st.sampled_from((*PIECES, *words)), part)) + data[stop:]
    return data


# ---- atomic files, as validate and a training read them ----------------------------------------------------

ROWS = b"".join(
    f"u{i % 5}\t{tags}\t{price}\t{i % 2}\n".encode()
    for i, (tags, price) in enumerate(
        [("a", "0.5"), ("a b", " 2 "), ("c  a", "1e-3"), ("", ""), ("NULL", "-7"), ("%41 b", "3"), ("é 日", "0")] * 3
    )
)
ATOMIC = (
    b"user:token\ttags:token_seq\tprice:float\tclick:float\n" + ROWS,
    b"user:token\ttags:token_seq\tprice:float\tclick:float\r\n" + ROWS.replace(b"\n", b"\r\n\r\n"),
)
DATASET = """\
fields: [{name: user, type: token}, {name: tags, type: token_seq}, {name: price, type: float, encoding: standardise}]
tasks: [{name: click, label: click}]
split_ratio: [0.6, 0.2, 0.2]
"""


@hostile
@given(mutated(ATOMIC, [b"\t1\n", b"\t0\n", b"%4EA", b"token", b":float"]))
def test_atomic_files(data: bytes) -> None:
    parsed, fault = None, None
    try:
        parsed = atomic.parse(data)
    except atomic.FormatError as error:
        fault = error
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "fz"
        folder.mkdir()
        (folder / "fz.inter").write_bytes(data)
        (folder / "fz.yaml").write_text(DATASET)
        try:
            fatal = [found for found in validate(folder) if found.fatal]
            prepared = prepare(resolve({"model": "MMoE", "dataset": "fz", "data_path": home}).settings)
        except RecBoleDTNError:
            return  # also for what the format allows: no label, too few rows
        assert parsed is not None, f"a faulty file is encoded: {fault}"
        assert not fatal, f"validate finds a fault in a file that is encoded: {fatal[0]}"
        _compare(prepared, parsed)


def _compare(prepared: Any, parsed: atomic.Parsed) -> None:
    """Every id, number and label of every row is the oracle's."""
    specs = {spec.name: (place, spec) for place, spec in enumerate(prepared.schema.fields)}
    order = {name: split.row_numbers() for name, split in prepared.splits.items()}
    assert sorted(np.concatenate(list(order.values())).tolist()) == list(range(len(parsed.lines)))
    numbers = np.array([parsed.columns["price"][row] for row in order["train"]], np.float64)  # None: NaN
    numbers = numbers[~np.isnan(numbers)].astype(np.float32).astype(np.float64)
    mean, spread = (numbers.mean(), numbers.std() or 1.0) if len(numbers) else (0.0, 1.0)

    def expected(name: str, token: Any) -> int:
        known = prepared.vocabularies.fields[name].series.to_list()
        code = 0 if token is None else known.index(token) + 2 if token in known else 1
        offset: int = specs[name][1].offset + code
        return offset

    for split, rows in order.items():
        batch = prepared.splits[split].batch(np.arange(len(rows)))
        lists = batch.multi[specs["tags"][0]]
        for place, row in enumerate(rows.tolist()):
            cells = {name: values[row] for name, values in parsed.columns.items()}
            assert batch.labels[place].tolist() == [cells["click"]]
            assert int(batch.ids[place, specs["user"][0]]) == expected("user", cells["user"])
            found = lists.values[lists.offsets[place] : lists.offsets[place + 1]].tolist()
            tags = [None if tag in atomic.MISSING else tag for tag in cells["tags"] or []]
            assert found == [expected("tags", tag) for tag in tags]
            price = cells["price"]
            if price is None:
                assert math.isnan(batch.dense[place, 0])
            else:
                wide = (float(np.float32(price)) - mean) / spread
                assert float(batch.dense[place, 0]) == pytest.approx(max(-10.0, min(10.0, wide)), rel=1e-4, abs=1e-4)


# ---- tables and archives -----------------------------------------------------------------------------------

TABLES = (
    b'user,item,price,tags\nu1,i1,1.5,a b\nu2,i2,,"x,y"\nu3,i3, 2 ,"say ""hi""\nline 2"\nu4,,nan,NULL\n',
    b"\xef\xbb\xbfa,b\r\n1,2\r\n3,-4e-1\r\n",
    b'x\n1\n"2"\n"3\n4"\n',
    "id,n\né日本,1\n\u2028,0.1\n".encode(),
)


@hostile
@given(mutated(TABLES, [b'""', b'","', b'"\n', b'\n"']))
def test_tables_of_predict(data: bytes) -> None:
    rows: list[list[str | None]] | None = None
    with suppress(tables.FormatError):
        rows = tables.parse_table(data, ",")
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "rows.csv"
        path.write_bytes(data)
        try:
            table = open_input("input", str(path), Reading())
            blocks = list(table.blocks(table.names))
        except (DataError, UsageError) as error:
            good = rows and len(set(rows[0])) == len(rows[0]) and None not in rows[0]
            if good:
                raise AssertionError("a good table is refused") from error
            return
    if table.escaped:  # a header of name:type makes it an atomic file
        return
    assert rows is not None, "a faulty table is accepted"
    # An empty text between quotes counts as a missing one.
    assert [[cell or None for cell in row] for block in blocks for row in block.frame.rows()] == rows[1:]
    for position, name in enumerate(table.names):
        expected = None
        with suppress(tables.FormatError):
            expected = [tables.number(row[position]) for row in rows[1:]]
        try:
            found = [value for block in blocks for value in numbers_of(block, name, "field")]
        except RecBoleDTNError as error:
            if expected is not None:
                raise AssertionError("good numbers are refused") from error
            continue
        assert found == expected


TEXT = b"".join(b"%d\t%d\t%d\t%d\n" % (i % 7, i % 5, i % 5 + 1, 880000000 + i) for i in range(40))


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("ml/readme.txt"), "x")
        archive.writestr(zipfile.ZipInfo("ml/u.data"), TEXT)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in (("ml/readme.txt", b"x"), ("ml/u.data", TEXT)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _unzip(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.split("/")[-1] == "u.data"))


def _untar(content: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        file = archive.extractfile(next(info for info in archive if info.name.split("/")[-1] == "u.data"))
        assert file is not None
        return file.read()


def _unzstd(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()


ARCHIVES: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "raw.zip": (_zip(), _unzip),
    "raw.tar": (_tar(), _untar),
    "raw.tar.gz": (gzip.compress(_tar(), mtime=0), lambda content: _untar(gzip.decompress(content))),
    "u.data.gz": (gzip.compress(TEXT, mtime=0), gzip.decompress),
    "u.data.zst": (zstandard.compress(TEXT[:100]) + zstandard.compress(TEXT[100:]), _unzstd),
}


@pytest.mark.parametrize("name", ARCHIVES)
@hostile
@given(data=st.data())
def test_archives(name: str, data: st.DataObject) -> None:
    made, read = ARCHIVES[name]
    content = data.draw(mutated([made], [b"u.data", b"PK\x03\x04", b"PK\x01\x02", b"\x1f\x8b\x08", b"ustar"]))
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / name).write_bytes(content)
        try:
            raw = RawFolder(Path(home)).find("u.data")
            assert raw is not None or content != made
            if raw is None:
                return
            with raw.open() as (stream, _):
                found = stream.read(1 << 26)
        except RecBoleDTNError:
            assert content != made
            return
    assert found == TEXT or found == read(content)


# ---- what a user writes ------------------------------------------------------------------------------------

SETTINGS = (
    b"model: DTN\ndataset: ml-100k\nepochs: 3\nseed: 007\noptimizer: {name: adam, lr: 1e-3}\n"
    b"interactions: [gdcn, {name: memonet, codes: 50}]\nbalancer: gradnorm\nsplit_ratio: [0.8, 0.1, 0.1]\n"
    b"valid_metric: mean_auc\nembedding_size: 8\ngradient_clip: null\n",
    b"model: MMoE\nfields:\n  - {name: user_id}\n  - {name: price, type: float}\n"
    b"tasks:\n  - {name: click, label: watched, condition: watched >= 0.5}\n"
    b"  - {name: buy, label: bought, condition: bought == 'yes', observed_when: watched >= 0.5, after: [click]}\n",
)
YAML_WORDS = (b": ", b"- ", b"\n  ", b"? ", b"|\n", b">\n", b"<<: ", b"!!int ", b"!!binary ", b"---\n", b"%YAML 1.1\n",
              b"[]", b"null", b"2020-01-01", b"1:30", b"0b1", b"0o7", b".inf", b"config_files", b"name")  # fmt: skip


@hostile
@given(mutated(SETTINGS, YAML_WORDS))
def test_settings_files(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "given.yaml"
        path.write_bytes(data)
        try:
            settings = resolve(["--dataset=ml-100k"], config_files=[path]).settings
        except RecBoleDTNError:
            return
    dumped = settings.dump()
    assert restore(dumped) == settings or "nan" in str(dumped)


FORMULAS = (b"click * buy ** 0.5", b"-click ** 2 + max(buy, 0.1, `add to cart`) / (1 - buy)",
            b"log(click) - log1p(buy) * sqrt(abs(-1e-3)) / exp(min(click, buy))", b"a.b*2.5e-1--+buy")  # fmt: skip


@hostile
@given(mutated(FORMULAS, [b"**", b"*", b"/", b"+", b"-", b"click", b"buy", b"max(", b"log("]))
def test_formulas_of_scores(data: bytes) -> None:
    source = data.decode("utf-8", "replace")
    try:
        formula = parse_formula(source)
    except RecBoleDTNError:
        assert data not in FORMULAS
        return
    drawn = np.array([0.0, 0.25, 0.5, 1.0, 3.0])
    values = {name: np.roll(drawn, zlib.crc32(name.encode()) % 5) for name in formula.names}
    made = formula(values)
    np.testing.assert_array_equal(made, np.broadcast_to(grammar.formula(source, values), made.shape))


CONDITIONS = (b"rating >= 4 and is_click == 1", b"not (genre in ['a', 'b'] or price < 1.5) and `a b` != 'x'",
              b"x not in [1, 2, -3e1] or user-id == 'nan'", b"a == '1' and not not b == 2 or c > 0")  # fmt: skip
CONDITION_WORDS = (b" and ", b" or ", b" not ", b" in ", b"!=", b">=", b"'1'", b"rating", b"'nan'", b"'inf'")
TEXTS = ("1", "a", None, " 2 ", "nan", "inf", "4.0", "1_0", "\x0b1", "-3e1")
NUMBERS = (1.0, 0.0, None, 2.0, 4.0, -30.0, 1.5, None, 10.0, 3.0)


@hostile
@given(mutated(CONDITIONS, CONDITION_WORDS))
def test_conditions_of_labels(data: bytes) -> None:
    source = data.decode("utf-8", "replace")
    try:
        condition = parse_condition(source)
    except RecBoleDTNError:
        assert data not in CONDITIONS
        return
    columns = {name: TEXTS if zlib.crc32(name.encode()) % 2 else NUMBERS for name in sorted(condition.columns())}
    frame = pl.DataFrame(
        {
            name: pl.Series(values, dtype=pl.String if values is TEXTS else pl.Float64)
            for name, values in columns.items()
        }
    )
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    try:
        expected = [grammar.condition(source, row) for row in rows]
    except grammar.RefusedError:
        with pytest.raises(RecBoleDTNError):
            to_expression(condition, frame.schema)
        return
    assert frame.select(y=to_expression(condition, frame.schema))["y"].to_list() == expected


# ---- what a run wrote --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on few invented rows."""
    home = tmp_path_factory.mktemp("hostile")
    folder = home / "dataset" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.inter").write_bytes(ATOMIC[0])
    (folder / "toy.yaml").write_text(DATASET)
    given = {"data_path": str(home / "dataset"), "output_dir": str(home / "runs"), "epochs": 1, "embedding_size": 2,
             "experts": 2, "expert_hidden": [3], "tower_hidden": [2], "accelerator": "cpu"}  # fmt: skip
    return fit("MMoE", "toy", given, quiet=True).folder


@hostile
@given(data=st.data())
def test_records(run: Path, data: st.DataObject) -> None:
    file = run / "record.json"
    good = file.read_bytes()
    known = read_record(run)
    try:
        file.write_bytes(data.draw(mutated([good], [b"null", b"NaN", b"1e999", b"[" * 2000, b'"status": "finished"'])))
        if re.search(rb'"sum"', file.read_bytes()):
            with suppress(RecBoleDTNError):
                assert read_record(run) == known, "other values have the checksum"
        else:
            with suppress(RecBoleDTNError):
                json.loads(read_record(run).model_dump_json())
    finally:
        file.write_bytes(good)


@hostile
@given(data=st.data())
def test_checkpoints(run: Path, data: st.DataObject) -> None:
    file = run / CHECKPOINT
    good, known = file.read_bytes(), read_checkpoint(run)
    try:
        file.write_bytes(
            data.draw(mutated([good], [b"PK\x03\x04", b"PK\x01\x02", b"cos\nsystem\n", b"\x00\x00\x80\x3f"]))
        )
        found = read_checkpoint(run)
    except RecBoleDTNError:
        return
    finally:
        file.write_bytes(good)
    assert found.epoch == known.epoch
    assert found.schema == known.schema
    assert found.state_dict.keys() == known.state_dict.keys()
    for name, value in known.state_dict.items():
        assert torch.equal(found.state_dict[name], value)


# ---- the oracles -------------------------------------------------------------------------------------------


def test_the_oracle_of_atomic_files() -> None:
    found = atomic.parse(b"u:token\tx:float\ts:token_seq\tv:float_seq\r\n1\t 2.5 \ta  b\t.1\n\nNA\tnan\t\t\r\n")
    assert found.lines == [2, 4]
    assert found.columns == {
        "u": ["1", None],
        "x": [2.5, None],
        "s": [["a", "b"], []],
        "v": [[0.10000000149011612], []],
    }
    for data in (b"", b"u\n", b"u:token\nu\rv\n", b"u:token\n1\t2\n", b"u:float\n1_0\n", b"u:float\n \n",
                 b"u:token\n\xff\n",
                 b"u:token\tu:float\n", b"u:float_seq\n3.5e38\n", b"u:float\ninf\n", b"u:token\n1\r"):  # fmt: skip
        with pytest.raises(atomic.FormatError):
            atomic.parse(data)


def test_the_oracle_of_text_tables() -> None:
    assert tables.parse_table(b'\xef\xbb\xbfa,b\r\n1,"x ""y"",\n z"\n,\n', ",") == [
        ["a", "b"],
        ["1", 'x "y",\n z'],
        [None, None],
    ]
    for data in (b'a\n"x', b'a\nx"y"\n', b'a\n"x"y\n', b"a\nx\ry\n", b"a\n\n", b"a,b\n1\n", b"a\n\xff\n"):
        with pytest.raises(atomic.FormatError):
            tables.parse_table(data, ",")
    assert [tables.number(text) for text in (None, " ", "nan", " 1e1 ")] == [None, None, None, 10.0]
    with pytest.raises(atomic.FormatError):
        tables.number("inf")
    with pytest.raises(atomic.FormatError):
        tables.number("\x1c")


def test_the_oracle_of_conditions() -> None:
    row = {"a": 1.0, "b": None, "c": "x", "d": " 2 "}
    answers = {"a == 1": True, "b == 1": None, "not b > 1": None, "a > 1 and b > 1": False, "a == 1 or b > 1": True,
               "c in ['x', 'y']": True, "a not in [2, 3]": True, "d >= 2": True, "not (a == 1)": False,
               "c == 1": None}  # fmt: skip
    assert {source: grammar.condition(source, row) for source in answers} == answers
