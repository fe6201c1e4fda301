"""The live bar of an epoch: on a terminal only, and not drawn at every step."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from recbole_dtn.report.console import make_console
from recbole_dtn.training import report
from recbole_dtn.training.report import Report


def drawn(*, terminal: bool = True, steps: int = 4) -> str:
    out = io.StringIO()
    shown = Report(Console(file=out, force_terminal=terminal, width=100))
    shown.start_bar("epoch 1/2", 5)
    for step in range(steps):
        shown.move_bar(1000.0 * (step + 1))
    shown.stop_bar()
    shown.move_bar(None)
    return out.getvalue()


def test_a_bar_shows_steps_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REDRAWN", 0.0)
    found = drawn()
    for step in range(1, 5):
        assert f"{step}/5" in found
        assert f"{step},000 samples/s" in found
    assert drawn(terminal=False) == ""


def test_a_bar_is_not_drawn_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REDRAWN", 1e9)
    assert "4,000 samples/s" not in drawn()
    assert "epoch 1/2" in drawn(steps=1)


def test_a_table_is_not_folded_where_the_output_is_a_pipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """From Python, with the output piped, rich would fold tables to the 80 columns of a terminal that is not there."""
    shown = Report(make_console())
    shown.log_to(tmp_path / "log.txt")
    columns = ["task", *(f"a long heading {i}" for i in range(8))]
    shown.table("wide", columns, [["click", *["0.1234"] * 8]])
    shown.show("x" * 200 + " [gdcn] :train:")
    printed = capsys.readouterr().out
    assert [len(line) for line in printed.splitlines()] == [0, 4, 149, 149, 215]
    assert "\x1b" not in printed
    assert (tmp_path / "log.txt").read_text() == printed
