"""Two leaderboards beside each other, and a row added to a leaderboard's file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from scipy import stats

from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.against import against, against_markdown
from recbole_dtn.leaderboard.board import appended
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.record.record import RunRecord, write_record

Runs = Callable[..., list[RunRecord]]
Shown = Callable[..., tuple[int, str, str]]


def with_auc(runs: list[RunRecord], values: list[float]) -> list[RunRecord]:
    return [
        run.model_copy(update={"test": {"like": {"auc": value}, "love": {"auc": 0.5}}})
        for run, value in zip(runs, values, strict=True)
    ]


def test_differences_are_paired_by_seed(board_runs: Runs) -> None:
    # Far apart between seeds, close within each: unpaired, nothing could be told.
    before = [0.60, 0.65, 0.70, 0.75, 0.80, 0.62, 0.67, 0.72, 0.77, 0.82]
    gains = [0.010, 0.012, 0.011, 0.009, 0.010, 0.013, 0.008, 0.010, 0.011, 0.012]
    after = [value + gain for value, gain in zip(before, gains, strict=True)]
    old, new = (with_auc(board_runs("DTN", 0.7), values) for values in (before, after))
    found = against(old, list(reversed(new)), {}, {})
    like, love = found.changes
    low, high = stats.t.interval(0.95, 9, loc=sum(gains) / 10, scale=stats.sem(gains))
    assert (like.paired.mean, like.paired.n) == (pytest.approx(0.0106), 10)
    assert (like.paired.low, like.paired.high) == (pytest.approx(low), pytest.approx(high))
    assert love.paired.mean == 0
    assert like.cells == ["DTN", "like AUC", "0.7100", "0.7206", "+0.0106", "+0.0095 to +0.0117", "10"]
    assert found.notes == ("Intervals are of the n pairs alone; the test rows are taken as they are.",)


def test_rows_of_few_pairs_beside_others_are_named(board_runs: Runs) -> None:
    runs = [*board_runs("DTN", 0.7, range(10)), *board_runs("Logistic", 0.7, range(1))]
    assert against(runs, runs, {}, {}).notes[-1] == (
        "Fewer than 10 pairs of Logistic: descriptive, no difference is claimed."
    )


def test_a_row_that_diverged_in_one_alone_and_its_code_are_compared(board_runs: Runs) -> None:
    old = board_runs("DTN", 0.7, range(2), versions={"code": "aaa"})
    new = [
        run.model_copy(update={"test": {"like": {"auc": 0.6, "logloss": 9.0}, "love": {"auc": 0.5}}})
        for run in board_runs("DTN", 0.7, range(2), versions={"code": "bbb"})
    ]
    assert all(row.worse for row in summarise(new))
    found = against(old, new, {}, {})
    assert [change.label for change in found.changes] == ["DTN", "DTN"]
    assert found.changes[0].after.mean == pytest.approx(0.6)
    assert found.notes[0] == "Versions of recbole_dtn: 0.1.0 (code aaa) in A, 0.1.0 (code bbb) in B."


def test_what_differs_besides_the_numbers_is_told(board_runs: Runs) -> None:
    old = board_runs("DTN", 0.7, range(3)) + board_runs("PLE", 0.7, range(3))
    new = [
        *board_runs("DTN", 0.7, range(1, 4), settings={"epochs": 5}, source_fingerprint="other", code_version="0.2.0"),
        *board_runs("MMoE", 0.7, range(3), code_version="0.2.0"),
    ]
    found = against(old, new, {}, {})
    assert [change.paired.n for change in found.changes] == [2, 2]
    assert found.notes == (
        "Only in A: PLE.",
        "Only in B: MMoE.",
        "DTN: the data differ, so the difference is not one of the model alone.",
        "DTN: epochs 2 -> 5.",
        "Versions of recbole_dtn: 0.1.0 in A, 0.2.0 in B.",
        "Differences are over the n seeds or splits that both have run; the means are over all of each.",
        "Intervals are of the n pairs alone; the test rows are taken as they are.",
        "Fewer than 10 pairs: descriptive, no difference is claimed.",
    )
    assert against_markdown(found).splitlines()[0] == "| model | test metric | A | B | B - A | 95 % interval | n |"


def test_settings_of_tasks_are_told_one_by_one(board_runs: Runs) -> None:
    old, new = (
        board_runs("DTN", 0.7, [1], settings={"tasks": [{"name": "like"}, {"name": "love", "weight": weight}]})
        for weight in (1.0, 2.0)
    )
    assert "DTN: tasks.love.weight 1.0 -> 2.0." in against(old, new, {}, {}).notes


def test_the_command_compares_two_folders(shown: Shown, tmp_path: Path, board_runs: Runs) -> None:
    for side, auc in (("a", 0.70), ("b", 0.71)):
        for run in board_runs("DTN", auc):
            write_record(run, tmp_path / side / "films" / "DTN" / run.run_id)
    code, out, err = shown("leaderboard", "diff", str(tmp_path / "a"), str(tmp_path / "b"), f"--output={tmp_path}/d.md")
    assert (code, err) == (0, "")
    assert "DTN       like AUC  0.7000  0.7100  +0.0100  +0.0100 to +0.0100  10" in out
    assert "| DTN | like AUC | 0.7000 | 0.7100 |" in (tmp_path / "d.md").read_text()
    for words, told in (
        (["a"], "found 1"),
        (["nothing", "b"], "no folder nothing"),
        (["a", "b", "c"], "unexpected word"),
    ):
        code, _, err = shown("leaderboard", "diff", *words)
        assert (code, told in err) == (2, True), err


def test_leaderboards_with_plugins_are_compared_once_their_files_are_trusted(shown: Shown, tmp_path: Path) -> None:
    board, plugin = tmp_path / "mine.yaml", tmp_path / "plugin.py"
    plugin.write_text("SIZE = 1\n")
    board.write_text(f"datasets: [ml-100k]\nmodels: [MMoE]\nplugins: [{plugin}]\n")
    words = ["leaderboard", "diff", str(board), str(board)]
    for more, told in (
        ([], "--trust"),
        (["--trust"], "no finished run"),
        ([f"--plugins={plugin}"], "no finished run"),
    ):
        code, _, err = shown(*words, *more)
        assert (code, told in err) == (2, True), err
    code, out, _ = shown("leaderboard", "add", str(board), "--model=PLE", "--trust")
    assert (code, f"`leaderboard run {board} --trust` runs them" in " ".join(out.split())) == (0, True), out


# ---- add ------------------------------------------------------------------------------------------------------------

BLOCK = "# mine\nmodels:   # rows\n  - A\n  - name: b\n    model: B # last\n\n  # end\nseeds: 3\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BLOCK, BLOCK.replace("# last\n", "# last\n  - NEW\n")),
        ("models:\n- A\n- {model: B}\nseeds: 3\n", "models:\n- A\n- {model: B}\n- NEW\nseeds: 3\n"),
        ("seeds: 3\nmodels:\n  - A", "seeds: 3\nmodels:\n  - A\n  - NEW\n"),
        ("models: [A, B]  # rows\n", "models: [A, B, NEW]  # rows\n"),
        ("models: []\n", "models: [NEW]\n"),
        ("models:\n  - A#1\n  - 'b # c'\n", "models:\n  - A#1\n  - 'b # c'\n  - NEW\n"),
        ("models: [A, ]\n", "models: [A, NEW, ]\n"),
        (
            "models: [\n  A,  # first\n  {model: B}  # last\n]\n",
            "models: [\n  A,  # first\n  {model: B}, NEW  # last\n]\n",
        ),
        ("models: [  # none\n]\n", "models: [NEW  # none\n]\n"),
        (BLOCK.replace("\n", "\r\n"), BLOCK.replace("# last\n", "# last\n  - NEW\n").replace("\n", "\r\n")),
        ("seeds: 3\r\nmodels:\r\n  - A", "seeds: 3\r\nmodels:\r\n  - A\r\n  - NEW\r\n"),
        ("o: &o {lr: 1}\nmodels:\n  - {m: A, o: *o}\n", "o: &o {lr: 1}\nmodels:\n  - {m: A, o: *o}\n  - NEW\n"),
    ],
)
def test_one_more_item_and_nothing_else_changes(text: str, expected: str) -> None:
    found = appended(text, "models", "NEW")
    assert found == expected
    before, after = yaml.safe_load(text), yaml.safe_load(found)
    assert after == {**before, "models": [*before["models"], "NEW"]}


def test_a_key_that_is_no_list_is_left_alone() -> None:
    with pytest.raises(UsageError, match="models: expected a list; add X by hand"):
        appended("models: A\n", "models", "X")


@pytest.mark.parametrize("text", ["a: &a B\nmodels: [A, *a]\n", "models:\n- &a A\n- *a\n", "p: &p [A]\nmodels: *p\n"])
def test_a_list_with_aliases_is_left_alone(text: str) -> None:
    with pytest.raises(UsageError, match=r"models: expected a list without aliases \(\*name\); add X by hand"):
        appended(text, "models", "X")


def test_the_command_keeps_line_ends_and_tells_what_is_no_yaml(shown: Shown, tmp_path: Path) -> None:
    board = tmp_path / "b.yaml"
    board.write_bytes("\ufeffdatasets: [ml-100k]\r\nmodels: [MMoE, ]  # é\r\n".encode())
    assert shown("leaderboard", "add", str(board), "--model=PLE")[::2] == (0, "")
    assert board.read_bytes() == "\ufeffdatasets: [ml-100k]\r\nmodels: [MMoE, PLE, ]  # é\r\n".encode()
    board.write_text("models: [MMoE\nseeds: 2\n")
    code, _, err = shown("leaderboard", "add", str(board), "--model=PLE")
    assert (code, "b.yaml, line 2" in err) == (2, True), err


def test_the_command_adds_a_row_that_is_checked_first(shown: Shown, tmp_path: Path) -> None:
    board = tmp_path / "b.yaml"
    board.write_text("datasets: [ml-100k]\nseeds: 2\nmodels:\n  - MMoE  # first\n")
    code, out, err = shown("leaderboard", "add", str(board), "--model=PLE", "--name=two levels", "--levels=2")
    assert (code, err) == (0, "")
    assert "added {name: two levels, model: PLE, levels: 2}, 2 cells" in out
    text = board.read_text()
    assert text.endswith("  - MMoE  # first\n  - {name: two levels, model: PLE, levels: 2}\n")
    refused = [
        (["--model=PLEE"], "unknown model 'PLEE'"),
        (["--model=PLE", "--levls=2"], "levls: unknown setting; did you mean 'levels'?"),
        (["--model=PLE", "--levels=2"], "have the same settings"),
        (["--model=MMoE"], "'MMoE' is named twice"),
        ([], "--model is needed"),
    ]
    for words, told in refused:
        code, _, err = shown("leaderboard", "add", str(board), *words)
        assert (code, told in err) == (2, True), err
        assert board.read_text() == text
