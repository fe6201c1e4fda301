"""Targets that read what a user writes: settings, boards, command lines, formulas, conditions."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from recbole_dtn.cli import main
from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.formula import parse_formula
from recbole_dtn.config.load import resolve, restore
from recbole_dtn.config.properties import read_typed
from recbole_dtn.data.condition import to_expression
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.board import read_board, setting_words
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.preprocess.table.spec import TableSpec
from recbole_dtn.shipped import properties_folder
from tests.fuzz import grammar_oracle
from tests.fuzz.runner import ChangedError, Target

__all__ = ["Board", "CommandLine", "Condition", "Formula", "Yaml"]

SPEC = b"""\
fields:
  - {name: user_id}
  - {name: price, type: float, fill: 0}
  - {name: genres, type: token_seq, list_separator: "|", min_count: 2}
tasks:
  - {name: click, label: watched, condition: watched >= 0.5}
  - {name: buy, label: bought, condition: bought == 'yes', observed_when: watched >= 0.5, after: [click]}
reader: {separator: ";", null_values: ["NA", "?"]}
split: time
time_field: time
"""
SETTINGS = b"""\
model: DTN
dataset: ml-100k
epochs: 3
seed: 007
optimizer: {name: adam, lr: 1e-3}
interactions: [gdcn, {name: memonet, codes: 50}]
balancer: gradnorm
split_ratio: [0.8, 0.1, 0.1]
valid_metric: mean_auc
embedding_size: 8
gradient_clip: null
"""
YAML_WORDS = (b": ", b"- ", b"\n  ", b"? ", b"|\n", b">\n", b"&a ", b"*a", b"<<: ", b"!!int ", b"!!binary ",
              b"!!set ", b"---\n",
              b"...\n", b"%YAML 1.1\n", b"{}", b"[]", b"null", b"2020-01-01", b"1:30", b"0b1", b"0o7", b".inf", b".nan",
              b"\\u202e", b"plugins", b"config_files", b"name")  # fmt: skip


def _shipped(*names: str) -> list[bytes]:
    return [(properties_folder() / name).read_bytes() for name in names]


class Yaml(Target):
    """Settings files and specs of tables; accepted settings must come back from what a record keeps of them."""

    name = "yaml"
    words = YAML_WORDS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        fields = SPEC.partition(b"reader")[0].replace(b'list_separator: "|", ', b"").replace(b", fill: 0", b"")
        self.seeds = [SETTINGS, SPEC, SETTINGS + fields, *_shipped("dataset/ml-100k.yaml")]

    def check(self, data: bytes) -> None:
        path = self.folder / "given.yaml"
        path.write_bytes(data)
        if b"list_separator" in data:
            read_typed(path, TableSpec)
            return
        with _inside(self.folder):
            words = [] if b"model:" in data else ["--model=MMoE", "--dataset=ml-100k"]
            found = resolve(words, config_files=[path]).settings
        again = restore(found.dump())
        if again != found and "nan" not in str(found.dump()):
            raise ChangedError("settings are not what a record keeps of them")


class Board(Target):
    """Files of leaderboards."""

    name = "board"
    words = (*YAML_WORDS, b"models", b"datasets", b"seeds", b"folds")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shipped = sorted((properties_folder() / "leaderboard").iterdir())
        for file in shipped:  # some extend others, which are looked for beside them
            shutil.copy(file, folder)
        self.seeds = [
            b"models:\n  - MMoE\n  - {name: a, model: DTN, interactions: [gdcn]}\ndatasets: [ml-100k]\nseeds: [1, 2]\n"
            b"settings: {epochs: 1, optimizer: {lr: 0.01}}\n",
            *_shipped(*(f"leaderboard/{file.name}" for file in shipped)),
        ]

    def check(self, data: bytes) -> None:
        path = self.folder / "board.yaml"
        path.write_bytes(data)
        board = read_board(path)
        with _inside(self.folder):
            # The checks that `leaderboard run` makes before anything runs; of a few cells, for speed.
            plan_cells(board.entries[:3], board.data[:1], [1], [], settings=setting_words(board.settings))


RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")
HARMFUL = re.compile("serve|index|synthetic|workers|/|~|processes|devices|nodes")
"""Words of commands that write beside the fuzzer's folder, wait for a browser or start processes: not given."""


class CommandLine(Target):
    """Words of the command line, parted by null bytes; an exit code of 0 to 3, and no raw control character."""

    name = "cli"
    words = (b"\0--", b"=", b"--", b"-", b"[", b"{", b"data", b"validate", b"list", b"train", b"--help",
             b"--debug", b"\0", b".",
             b"--model", b"--dataset", b"None", b"null")  # fmt: skip
    seeds = tuple(
        line.replace(" ", "\0").encode()
        for line in (
            "--model=DTN --dataset=ml-100k --dry_run --interactions=[gdcn,masknet] --optimizer.lr=1e-3 --seed=7",
            "--model MMoE --dataset toy --dry_run --epochs 3 --valid_metric=mean_auc",
            "--dry_run --balancer={name:gradnorm,alpha:1} --split_ratio=[0.8,0.1,0.1]",
            "data validate --dataset=toy --all",
            "data validate toy",
            "data info --dataset=toy --json=-",
            "data cache list --dataset=toy",
            "data split --dataset=toy --name=new",
            "list models",
            "list --details gdcn",
            "test --run=missing --json",
            "predict --run=missing --input=rows.csv --output=out.csv --keep=user",
            "export --run=missing --format=onnx --output=out",
            "evaluate --predictions=rows.csv --labels=rows.csv --task=click --key=row",
            "leaderboard render --output=out rows.csv",
            "leaderboard add board.yaml --model=DTN --name=a --epochs=1",
            "preprocess table --input=rows.csv --spec=spec.yaml --name=made --overwrite",
            "new interaction Mine",
            "--help=interaction",
            "--version",
        )
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.home = folder / "cli"

    def check(self, data: bytes) -> None:
        # As the system hands them over: bytes that are not UTF-8 are halves of pairs.
        words = [os.fsdecode(word) for word in data.split(b"\0")]
        line = " ".join(words)
        if HARMFUL.search(line) or not ({"--dry_run"} & set(words) or not _trains(words)):
            return
        self.home.mkdir()
        out, err = io.StringIO(), io.StringIO()
        try:
            (self.home / "rows.csv").write_text("row,user,click\n1,u1,0\n2,u2,1\n")
            (self.home / "spec.yaml").write_text(
                "fields: [{name: user}]\ntasks: [{name: click, label: click}]\nsplit_ratio: [0.4, 0.3, 0.3]\n"
            )
            with _inside(self.home), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
        finally:
            shutil.rmtree(self.home)
        told = out.getvalue() + err.getvalue()
        if "this is a bug" in told or ("Traceback" in told and "--debug" not in words):
            raise AssertionError(_said(told))
        if code not in (0, 1, 2, 3):
            raise AssertionError(f"exit code {code}")
        if RAW.search(told):
            raise ChangedError(f"raw control characters in the output: {told!r}")
        if code:
            raise UsageError("refused")


def _said(text: str) -> str:
    """The line that says what went wrong."""
    return next((line for line in text.splitlines() if "this is a bug" in line), text[-300:])


def _trains(words: list[str]) -> bool:
    """Whether the words may start a training, which takes seconds."""
    return not words or words[0].startswith("-") or "=" in words[0] or words[0] in ("train", "leaderboard")


class Formula(Target):
    """Formulas of ``predict --score``; values as Python's parser and numpy have them."""

    name = "formula"
    seeds = (b"click * buy ** 0.5", b"-click ** 2 + max(buy, 0.1, `add to cart`) / (1 - buy)",
             b"log(click) - log1p(buy) * sqrt(abs(-1e-3)) / exp(min(click, buy))", b"a.b*2.5e-1--+buy")  # fmt: skip
    words = (
        b"**",
        b"*",
        b"/",
        b"+",
        b"-",
        b"(",
        b")",
        b",",
        b"click",
        b"buy",
        b"max(",
        b"log(",
        b"`",
        b"1e",
        b"_",
        b" ",
        b"0",
        b".",
    )
    values = np.array([0.0, 0.25, 0.5, 1.0, 3.0])

    def check(self, data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        found = parse_formula(source)
        # Each name has values of its own, in another order.
        values = {name: np.roll(self.values, zlib.crc32(name.encode()) % 5) for name in found.names}
        made = found(values)
        expected = np.broadcast_to(grammar_oracle.formula(source, values), made.shape)
        if not np.array_equal(made, expected, equal_nan=True):
            raise ChangedError(f"values differ: {made} is not {expected}")


class Condition(Target):
    """Conditions of labels and filters; the answer in each row, missing values among them."""

    name = "condition"
    seeds = (b"rating >= 4 and is_click == 1", b"not (genre in ['a', 'b'] or price < 1.5) and `a b` != 'x'",
             b"x not in [1, 2, -3e1] or user-id == 'nan'", b"a == '1' and not not b == 2 or c > 0")  # fmt: skip
    words = (b" and ", b" or ", b" not ", b" in ", b"[", b"]", b"(", b")", b"==", b"!=", b">=", b"<", b"'",
             b'"', b"`", b",", b"1",
             b"'1'", b"rating", b"'nan'", b"'inf'")  # fmt: skip
    texts = ("1", "a", None, " 2 ", "nan", "inf", "4.0", "1_0", "\x0b1", "-3e1")
    numbers = (1.0, 0.0, None, 2.0, 4.0, -30.0, 1.5, None, 10.0, 3.0)

    def check(self, data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        found = parse_condition(source)
        columns = {
            name: self.texts if zlib.crc32(name.encode()) % 2 else self.numbers for name in sorted(found.columns())
        }
        frame = pl.DataFrame(
            {name: pl.Series(values, dtype=pl.String if values is self.texts else pl.Float64)
             for name, values in columns.items()}
        )  # fmt: skip
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        try:
            expected = [grammar_oracle.condition(source, row) for row in rows]
        except grammar_oracle.RefusedError as error:
            to_expression(found, frame.schema)
            raise ChangedError(f"a text is compared with numbers: {error}") from error
        made = frame.select(y=to_expression(found, frame.schema))["y"].to_list()
        if made != expected:
            raise ChangedError(f"answers differ: {made} is not {expected} for {rows}")


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
