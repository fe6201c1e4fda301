"""LaTeX tables of a leaderboard: escaping, structure, and what is bold."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from recbole_dtn.leaderboard.latex import latex, tex
from recbole_dtn.leaderboard.statistics import BoardRow, summarise
from recbole_dtn.record.record import RunRecord

Runs = Callable[..., list[RunRecord]]
Tests = Callable[[list[BoardRow]], list[BoardRow]]
HOSTILE = '50% of $x_1$ & #2 {a}\\input{/etc/passwd}~^|<>"\n\\end{tabular}'


def text_of(records: list[RunRecord], names: dict[str, str] | None = None, tested: Tests = list) -> str:
    return latex([tested(summarise(records, names))])


def check_structure(text: str) -> None:
    """Groups and environments close in order, and every line of a table has the cells of its columns."""
    bare = re.sub(r"\\[\\{}$&#_%]", lambda found: "\\\\" if found[0] == "\\\\" else "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", bare):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", bare, re.DOTALL):
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) > 1
        for line in lines:
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert line.count("&") + 1 + spanned == len(columns), line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\", r"\textbackslash{}"),
        ("{}$&#_%", r"\{\}\$\&\#\_\%"),
        ("a\nb\tc", "a b c"),
        ("0.7 ± 0.1 –", r"0.7 $\pm$ 0.1 --"),
        ("DTN †", r"DTN \dag{}"),
    ],
)
def test_characters_with_a_meaning_are_escaped(text: str, expected: str) -> None:
    assert tex(text) == expected


def test_hostile_names_leave_the_structure_whole(board_runs: Runs) -> None:
    tasks = {"tasks": [{"name": HOSTILE, "label": "l", "after": []}], "test": {HOSTILE: {"auc": 0.7, "logloss": 0.5}}}
    records = board_runs("DTN", 0.8, dataset=HOSTILE, **tasks) + board_runs("PLE", 0.7, dataset=HOSTILE, **tasks)
    text = text_of(records, {"digest-of-DTN": HOSTILE})
    check_structure(text)
    assert r"\input{" not in text
    assert text.count(r"\end{tabular}") == 4


@pytest.mark.parametrize("name", ["[2em] x", "* x"])
def test_a_name_is_no_option_of_the_line_before(board_runs: Runs, name: str) -> None:
    records = board_runs("DTN", 0.8) + board_runs("PLE", 0.79)
    text = text_of(records, {"digest-of-DTN": name, "digest-of-PLE": name.replace("x", "y")})
    assert not re.search(r"^\s*[\[*]", text, re.MULTILINE)
    assert f"{{{name[0]}}}{name[1:]} & 0.8000 " in text


def test_details_are_tables_too(board_runs: Runs) -> None:
    test = {"like": {"auc": 0.8, "gauc": 0.71, "ne": 0.9, "calibration": 1.03}}
    text = text_of(board_runs("DTN", 0.8, test=test) + board_runs("PLE", 0.7, test=test))
    check_structure(text)
    assert r"\label{tab:others-films}" in text
    assert r"model & task & GAUC & NE \\" in text
    assert r"DTN & like & 0.7100 & 0.9000 \\" in text
    assert r"model & task & test AUC & $\pm$ seeds & $\pm$ sample & calibration & best epoch & of epochs \\" in text
    assert r"& 1.030 &" in text


def test_the_table_and_its_differences(board_runs: Runs, tested: Tests) -> None:
    text = text_of(board_runs("DTN", 0.8) + board_runs("PLE", 0.79), tested=tested)
    check_structure(text)
    assert r"PLE & 0.7900 $\pm$ 0.0002 [0.0050] & 0.6000 $\pm$ 0.0000 & 0.8200 $\pm$ 0.0002 [0.0060] & " in text
    assert "in brackets the standard error over the test rows" in text
    assert r"PLE & 3 & 2.5 \\" in text, "epochs and seconds, in a table of costs"
    assert "serial pass" not in text, "no speed was measured"
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}" in text
    assert r"PLE & like AUC & \textbf{$-$0.0100} & $-$0.0100 to $-$0.0100 & \textless{} 0.001 & 10 \\" in text


def test_nothing_is_bold_without_the_test_sample(board_runs: Runs) -> None:
    text = text_of(board_runs("DTN", 0.8) + board_runs("PLE", 0.79))
    assert r"\textbf" not in text
    assert r"PLE & like AUC & $-$0.0100 & -- & -- & 10 \\" in text


def test_bold_needs_ten_seeds_and_a_significant_improvement(board_runs: Runs, tested: Tests) -> None:
    # DTN is best on validation and all others are worse: its AUCs are bold, its log losses are not compared.
    worse = text_of(board_runs("DTN", 0.8) + board_runs("PLE", 0.79), tested=tested)
    assert re.findall(r"^(\w+) & \\textbf", worse, re.MULTILINE) == ["DTN"]
    assert worse.count(r"\textbf{0.") == 2
    few = text_of(board_runs("DTN", 0.8, range(9)) + board_runs("PLE", 0.79, range(9)), tested=tested)
    assert r"\textbf" not in few
    assert "Too few seeds for a claim: nothing is bold." in few
    # PLE is better on test than DTN, which validation chose: PLE's AUCs are bold, and DTN's are not.
    chosen = text_of(board_runs("DTN", 0.8, valid_value=0.9) + board_runs("PLE", 0.81, valid_value=0.8), tested=tested)
    assert re.findall(r"^(\w+) & \\textbf", chosen, re.MULTILINE) == ["PLE"]
    # Two rows that differ by nothing but chance: nothing is bold in the results.
    same = board_runs("DTN", 0.8) + [
        run.model_copy(update={"model": "PLE", "settings_digest": "p", "test": other.test})
        for run, other in zip(board_runs("DTN", 0.8), board_runs("DTN", 0.8, range(3, 13)), strict=True)
    ]
    assert r"\textbf{0." not in text_of(same, tested=tested)
