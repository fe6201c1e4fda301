"""Same bytes for the same arguments, faults where they are said to be, and a command that refuses what it must."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.cli import main
from recbole_dtn.cli.synthetic import help_text, run
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.synthetic.generate import LAYOUTS, generate, layout_class, layout_options


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


RAW = tuple(like for like in LAYOUTS if not layout_class(like).atomic)


@pytest.mark.parametrize("like", RAW)
def test_same_arguments_same_bytes(like: str, tmp_path: Path) -> None:
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        generate(like, 400, seed, tmp_path / name, faults=1)
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


LABELS = {"aliccp": 1, "kuairand": 5, "aliexpress": 48, "census-income": 41}
SEPARATOR = {"census-income": b", "}


def shows(like: str, kind: str, line: bytes, good: list[bytes]) -> bool:
    """Whether a line really has the fault that planted.json says, in this layout."""
    separator = SEPARATOR.get(like, b",")
    columns = line.split(separator)
    width = len(good[0].split(separator))
    if kind == "blank":
        return line == b""
    if kind == "utf8":
        try:
            line.decode()
        except UnicodeDecodeError:
            return True
        return False
    if kind == "fields":
        return len(columns) < width or like == "kuairand"  # quoted commas: counted by csv below
    if kind == "separator":
        return b";" in line if like != "aliccp" else b":" in line
    if kind == "label":
        return columns[LABELS[like]].rstrip(b".") == b"7"
    if kind == "orphan":
        return b"9" * 16 in columns
    if kind == "overflow":
        return b"99999999999999999999" in line
    if kind == "feature_num":
        return int(columns[-2]) != len(columns[-1].split(b"\x01"))
    return kind == "text" and any(b"x" in part for part in columns)


@pytest.mark.parametrize("like", RAW)
def test_faults_are_where_they_are_said_to_be(like: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"zipped": False} if like == "aliexpress" else {}
    generate(like, 900, 5, tmp_path / "good", **options)
    made = generate(like, 900, 5, tmp_path / "bad", faults=2, **options)
    good, bad = contents(tmp_path / "good"), contents(tmp_path / "bad")
    faults = made.record["faults"]
    assert set(made.record["fault_kinds"]) == {fault["kind"] for fault in faults}
    assert {fault["kind"] for fault in faults} >= {"fields", "separator", "overflow", "text", "utf8", "blank"}
    for name in good.keys() - {"planted.json"}:
        here = {fault["line"]: fault["kind"] for fault in faults if fault["file"] == name}
        lines, whole = bad[name].split(b"\n"), good[name].split(b"\n")
        assert here
        assert [line for number, line in enumerate(lines, 1) if number not in here] == whole
        for number, kind in here.items():
            assert shows(like, kind, lines[number - 1], whole), (name, number, kind, lines[number - 1][:80])
            if like == "kuairand" and kind == "fields":
                (cells,) = csv.reader([lines[number - 1].decode()])
                assert len(cells) < len(whole[0].split(b","))
        counted = {kind: list(here.values()).count(kind) for kind in here.values()}
        assert set(counted.values()) == {2}


def test_record_says_what_is_there(tmp_path: Path) -> None:
    made = generate("aliccp", 300, 5, tmp_path / "raw", signal=0.5)
    record = json.loads((tmp_path / "raw" / "planted.json").read_text())
    assert record == made.record
    assert (record["like"], record["rows"], record["seed"], record["options"]["signal"]) == ("aliccp", 300, 5, 0.5)
    for file in record["files"]:
        text = (tmp_path / "raw" / file["file"]).read_bytes()
        assert (file["rows"], file["bytes"]) == (text.count(b"\n"), len(text))
    assert made.best_auc("buy@click", "test") == record["tasks"][1]["reachable"]["buy@click"]["test"]["best_auc"]
    with pytest.raises(KeyError):
        made.best_auc("sale")


def test_no_signal_leaves_nothing_to_learn(tmp_path: Path) -> None:
    made = generate("census-income", 300, 5, tmp_path / "raw", signal=0.0)
    assert made.best_auc("income") == pytest.approx(0.5, abs=1e-9)
    strong = generate("census-income", 300, 5, tmp_path / "strong", signal=3.0)
    assert (strong.best_auc("income") or 0) > 0.9


def test_meter_counts_rows(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    generate("kuairand", 500, 5, tmp_path / "raw", meter=lambda *call: seen.append(call))
    writing = [call for call in seen if call[0].startswith("writing")]
    assert writing[-1] == ("writing log rows", 500, 500)
    assert [done for _, done, _ in writing] == sorted(done for _, done, _ in writing)


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_dtn.synthetic.aliexpress import AliExpress

    generate("aliexpress", 200, 5, tmp_path / "raw")
    before = contents(tmp_path)

    def broken(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AliExpress, "write", broken)
    with pytest.raises(DataError, match="No space left on device"):
        generate("aliexpress", 200, 6, tmp_path / "raw", overwrite=True)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


KILLED = """
import os, pathlib, signal, sys
from recbole_dtn.synthetic import generate
from recbole_dtn.synthetic.aliexpress import AliExpress

AliExpress.finish = lambda layout: os.kill(os.getpid(), signal.SIGKILL)
generate.generate("aliexpress", 200, 5, pathlib.Path(sys.argv[1]))
"""


def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_remove(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / "raw")]
    assert subprocess.run(words, cwd=Path(__file__).parents[2], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".writing-raw-")
    generate("kuairand", 100, 0, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o755
    assert not [path for path in (tmp_path / "other").rglob("*") if path.name.startswith(".")]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "deep" / "raw"
    words = [f"--output={output}", "--like=aliexpress", "--rows", "1_000", "--countries=ES", "--seed=3"]
    assert run(words) == 0
    assert [path.name for path in sorted(output.iterdir())] == ["aliexpress_ES_datasets.zip", "planted.json"]
    with zipfile.ZipFile(output / "aliexpress_ES_datasets.zip") as outer:
        assert len(outer.namelist()) == 4
    shown = capsys.readouterr().out
    assert f"preprocess aliexpress --raw={output} --name=deep --countries=ES\n" in shown
    assert "best reachable AUC" in shown
    assert main(["preprocess", "synthetic", *words]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert run([*words, "--overwrite", "--zipped=false"]) == 0
    assert not (output / "aliexpress_ES_datasets.zip").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows=100", "--output=x"], "--like is needed"),
        (["--like=alicp", "--rows=100", "--output=x"], "did you mean 'aliccp'"),
        (["--like=aliccp", "--rows=many", "--output=x"], "--rows: expected a whole number; found 'many'"),
        (["--like=aliccp", "--rows=3", "--output=x"], "--rows: expected a number from 10"),
        (["--like=aliccp", "--rows=100", "--output=x", "--country=NL"], "has no such option"),
        (["--like=aliexpress", "--rows=100", "--output=x", "--country=NL"], "did you mean 'countries'"),
        (["--like=aliexpress", "--rows=100", "--output=x", "--countries=NL,UK"], "'UK' is none"),
        (["--like=aliexpress", "--rows=100", "--output=x", "--zipped=no"], "expected true or false"),
        (["--like=kuairand", "--rows=100", "--output=x", "--version=2k"], "no such version"),
        (["--like=aliccp", "--rows=100", "--output=x", "--buy_rate=0.5"], "--buy_rate: expected"),
        (["--like=aliccp", "--rows=100", "--output=x", "--overlap=1.5"], "--overlap: expected a number from 0 to 1"),
        (["--like=aliccp", "--rows=100", "--output=x", "--informative=40"], "--informative: at most"),
        (["--like=aliccp", "--rows=100", "--output=x", "aliccp"], "expected options only"),
    ],
)
def test_wrong_words(words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        run(words)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_overwrite_replaces_a_synthetic_set_only(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"no planted\.json"):
        generate("aliccp", 100, 0, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "synthetic", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.strip() == help_text().strip()
    for like in LAYOUTS:
        assert like in text
        for option in layout_options(like):
            assert f"--{option}" in text, option
