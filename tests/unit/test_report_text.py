"""Control and direction characters in ids, names and headings are seen as escapes wherever text goes out."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recbole_dtn.cli import main
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.leaderboard.latex import tex
from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.render import markdown
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.report.console import say
from recbole_dtn.report.plots import named_rows, new_figure, style, svg
from recbole_dtn.report.tables import csv_text, escaped, markdown_table, marked, plain_lines, show_table
from recbole_dtn.report.text import cell, shown
from recbole_dtn.training.report import Report

HOSTILE = "a\x1b[31m\u202e\x00\x85\u2028\udcffz"
ESCAPED = r"a\x1b[31m\u202e\x00\x85\u2028\udcffz"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\udc80-\udcff]")
SGR = re.compile(r"\x1b\[[0-9;]*m")


def test_what_is_seen_of_each_kind_of_character() -> None:
    assert shown(HOSTILE) == ESCAPED
    seen = "tab\t, line\n, é, 日本, 😀, \u00a0, a\u0301"
    assert shown(seen) == seen
    assert shown("\r\x0b\x0c\x7f\u200e\u2066\u2069\ufeff\U000e0001") == (
        r"\r\x0b\x0c\x7f\u200e\u2066\u2069\ufeff\U000e0001"
    )


def test_a_cell_is_one_line_of_at_most_200_characters() -> None:
    assert cell("a\nb\tc") == r"a\nb\tc"
    assert cell("x" * 200) == "x" * 200
    assert cell("x" * 201) == "x" * 199 + "…"
    assert len(cell("\x1b" * 150)) == 200, "counted as it is seen"


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_and_tables_of_a_console(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, no_color=True)
    say(console, f"{HOSTILE} [red]")
    show_table(console, (HOSTILE, "[bold]"), [(HOSTILE, "[red]x[/red]"), ("y" * 250, "b\nc")])
    text = SGR.sub("", file.getvalue())
    assert not RAW.search(text)
    assert text.startswith(f"{ESCAPED} [red]\n{ESCAPED} ")
    assert "[bold]" in text
    assert "[red]x[/red]" in text
    assert text.count("y") == 199
    assert r"b\nc" in text


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_of_a_wide_table_folds(width: int) -> None:
    columns = ["model", *(f"metric {place}" for place in range(7))]
    rows = [[f"SingleTask with modules {row}", *(f"0.7849 ± 0.00{place} [0.0064]" for place in range(7))]
            for row in range(2)]  # fmt: skip
    console = Console(file=io.StringIO(), force_terminal=True, width=width, no_color=True)
    show_table(console, columns, rows, numbers=True)
    lines = SGR.sub("", console.file.getvalue()).splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    heads = [line for line in lines if line.startswith("model ")]
    assert [name for line in heads for name in re.findall(r"metric \d", line)] == columns[1:], "each once, in order"
    for place in range(7):
        assert sum(rows[0][place + 1] in line for line in lines) == 2
    whole = Console(file=io.StringIO(), force_terminal=True, width=300, no_color=True)
    show_table(whole, columns, rows, numbers=True)
    assert SGR.sub("", whole.file.getvalue()).count("model ") == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_a_stage_as_it_is_named(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_dtn.data.progress.SECONDS_BETWEEN_LINES", 0.0)
    file = io.StringIO()
    with progress_meter(Console(file=file, force_terminal=terminal, width=120, no_color=True)) as meter:
        meter(f"checking {HOSTILE} [red]", 1, 2)
    assert f"checking {ESCAPED} [red]" in file.getvalue()
    assert not re.search("[\x00\x85\u202e\udcff]", file.getvalue())


def test_the_log_of_a_run(tmp_path: Path) -> None:
    report = Report(Console(file=io.StringIO()))
    report.log_to(tmp_path / "log.txt")
    report.show(HOSTILE)
    report.table(HOSTILE, (HOSTILE, "x"), [(HOSTILE, "1")])
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert not RAW.search(text)
    assert text.count(ESCAPED) == 4


def test_plain_columns_are_as_wide_as_what_is_seen() -> None:
    assert plain_lines(["id", "n"], [["\x1b", "1"], ["abcde", "2"]]) == ["id     n", "\\x1b   1", "abcde  2"]


def test_markdown_and_latex() -> None:
    (_, _, line) = markdown_table(["a"], [[f"{HOSTILE}|\n"]])
    assert line == f"| {ESCAPED}\\|\\n |"
    assert tex("a\x00\u202e") == r"a\textbackslash{}x00\textbackslash{}u202e"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("![x](http://a.b/c.png)", r"![x\](http://a.b/c.png)"),
        ("[x](y) [a][b] [c]: d", r"[x\](y) [a\][b] [c\]: d"),
        ("*a* **b** `c` ~d~", r"\*a\* \*\*b\*\* \`c\` \~d\~"),
        ("_a_ __b__ (_c)", r"\_a_ \_\_b_\_ (\_c)"),
        ("&lt;b&gt; &#60; &#x3c; a & b; c", r"\&lt;b\&gt; \&#60; \&#x3c; a & b; c"),
        (r"a\<b> a\| a\\[x](y)", r"a\\\<b> a\\\| a\\\\[x\](y)"),
        ("long_view, user_id_2 [0.0064] p < .05 [gdcn, masknet] C:\\x", None),
    ],
)
def test_markdown_shows_names_as_they_are(text: str, expected: str | None) -> None:
    assert escaped(text) == (text if expected is None else expected)
    assert markdown_table(["a"], [[text]])[-1] == f"| {escaped(text)} |"


def test_only_what_is_marked_is_markdown() -> None:
    line = markdown_table(["a", "b", "c"], [["**-1**", marked("-0.01 (-0.02 to -0.01)", "**"), marked("a*", "*")]])[-1]
    assert line == r"| \*\*-1\*\* | **-0.01 (-0.02 to -0.01)** | *a\** |"


def test_a_csv_file_keeps_its_lines_and_runs_nothing() -> None:
    texts = ["a\rb", "a\nb", "a\r\nb,c", "=1+1", "@x", "+cmd|' /C calc'!A0", "-x", "\t=1", "\r=1", "\n=1", 'a "b"']
    text = csv_text(["name", "n"], [[text, place] for place, text in enumerate(texts)])
    assert "\r" not in text
    found = [line["name"] for line in csv.DictReader(io.StringIO(text))]
    assert found == [
        r"a\rb", "a\nb", "a\\r\nb,c", "'=1+1", "'@x", "'+cmd|' /C calc'!A0", "'-x", "'\t=1", r"\r=1", "'\n=1", 'a "b"',
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["-.01", "+.0012", "-1.5e-05", "-1", "-", "a=b", "2020-01", -0.01, 1e-300, True])
def test_a_number_of_a_csv_file_stays_as_it_is(value: object) -> None:
    assert csv_text(["a"], [[value]]) == f"a\n{value}\n"


def test_the_page_and_the_table_of_a_leaderboard(board_runs: Callable[..., list[Any]]) -> None:
    name = HOSTILE.replace("\udcff", "")
    records = board_runs("MMoE", 0.7, seeds=range(2), dataset=name)
    rows = summarise(records)
    page, table = board_page([rows], records, name), markdown(rows)
    seen = ESCAPED.replace(r"\udcff", "")
    assert not RAW.search(page)
    assert not RAW.search(table)
    assert f"<title>{seen}" in page
    assert f"## {seen}" in table
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert seen in json.dumps(json.loads(data[1])).replace("\\\\", "\\")


def test_labels_of_plots() -> None:
    with style():
        figure, axes = new_figure(1.0)
        named_rows(axes, [f"a{HOSTILE[:7]}\u202e", "\u200b_b"])
        text = svg("x", f"t{HOSTILE[:7]}", "words\x00", figure).svg
    assert not RAW.search(text)
    assert r"aa\x1b[31m\u202e\u202e" in text
    assert r"ta\x1b[31m\u202e" in text
    assert r"words\x00" in text


def test_what_the_encoding_of_the_output_lacks_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "é"
    folder.mkdir()
    (folder / "é.inter").write_text("ü:token\n1\n", encoding="utf-8")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "validate", "é"]) == 0
    out.seek(0)
    assert out.read() == "\\xe9: no fault; fields and labels are checked with --dataset=NAME\n"


@pytest.mark.parametrize(
    "words",
    [
        ["\x1b[31mtrain"],
        ["--model=\u202eDTN"],
        ["--\x1b[2J=1"],
        ["test", "--run=\x1b]0;title\x07"],
        ["data", "validate", "--dataset=\x9b31m"],
        ["preprocess", "table", "--input=\x1b[31m", "--spec=\u202e", "--name=x"],
        ["leaderboard", "render", "\x1b[31m"],
        ["data", "validate", "\udcff\x1b"],
        ["--config_files=\x1b[31m\udcff.yaml"],
        ["predict", "--run=\x1b", "--input=\udcff"],
        ["--dataset=[red]\x1b", "--model=MMoE"],
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_words_of_the_command_line(
    words: list[str], debug: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, *(["--debug"] if debug else [])]) == 2
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith(("error: ", "  "))
    assert "this is a bug" not in err
    assert not RAW.search(out + err)
