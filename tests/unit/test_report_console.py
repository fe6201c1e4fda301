"""A console whose reader has gone."""

from __future__ import annotations

import io
import sys

import pytest

from recbole_dtn.report.console import make_console, say


class _Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_lasting_work_goes_on_when_both_streams_have_lost_their_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Closed())
    monkeypatch.setattr(sys, "stderr", _Closed())
    console = make_console(lasting=True)
    say(console, "first")
    say(console, "second")
    assert console.quiet
    with pytest.raises(BrokenPipeError):
        say(make_console(), "first")


def test_the_standard_error_says_once_that_nothing_more_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", _Closed())
    console = make_console(lasting=True)
    say(console, "first")
    say(console, "second")
    assert capsys.readouterr().err.count("nothing more is printed") == 1
