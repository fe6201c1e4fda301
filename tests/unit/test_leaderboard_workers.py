"""Processes that run cells, locks between leaderboards, rows with settings of their own, and the file of a board."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import Timeout
from rich.console import Console

from recbole_dtn.cli.leaderboard import run as command
from recbole_dtn.errors import DataError, RecBoleDTNError, UsageError
from recbole_dtn.leaderboard.board import Entry, listed, read_board, setting_words
from recbole_dtn.leaderboard.cell_run import reason
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.leaderboard.failures import Notes
from recbole_dtn.leaderboard.progress import BoardProgress
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.leaderboard.session import Sessions
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.leaderboard.workers import Outcome, Workers, _serve
from recbole_dtn.record.record import RunRecord
from tests.unit.jobs import explain, job
from tests.unit.test_leaderboard_run import Trainer, resolver

# ---- processes ------------------------------------------------------------------------------------------------------


def work(arguments: list[dict[str, Any]], count: int) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    waiting = list(enumerate(arguments))
    with Workers(count, job, explain) as pool:
        while waiting or pool.running:
            while waiting and pool.free:
                pool.start(*waiting.pop(0))
            assert len(pool.running) <= count
            found |= {outcome.task: outcome for outcome in pool.finished(5)}
    return found


def test_a_dead_process_fails_its_task_alone_and_another_takes_its_place() -> None:
    found = work(
        [{"value": 1}, {"die": signal.SIGKILL}, {"leave": 3}, {"raise": "no"}, {"stop": True}, {"value": 2}], count=1
    )
    assert [found[task].result and found[task].result[1] for task in range(6)] == [1, None, None, None, None, 2]
    reason = found[1].failure
    assert reason is not None
    assert reason.startswith("its process was ended by SIGKILL (")
    assert found[2].failure == "its process ended with exit code 3"
    assert found[3] == Outcome(3, failure="explained: no")
    assert [found[task].died for task in range(6)] == [False, True, True, False, False, False]
    assert found[4].interrupted
    assert not found[3].interrupted
    assert found[0].result[0] != found[5].result[0], "the process of the first task is gone by the last"


def test_a_process_whose_child_lives_on_is_seen_to_have_died(tmp_path: Path) -> None:
    """The child has its parent's end of the pipe, which is therefore not closed."""
    child = tmp_path / "child"
    with Workers(1, job, explain) as pool:
        pool.start(0, {"forks": str(child)})
        end, found = time.monotonic() + 60, []
        while not found and time.monotonic() < end:
            found = list(pool.finished(0.1))
    os.kill(int(child.read_text()), signal.SIGKILL)
    assert found == [Outcome(0, failure="its process ended with exit code 4", died=True)]


def test_leaving_python_is_a_fault_of_the_task_and_unnamed_signals_have_numbers() -> None:
    found = work([{"exit": 3}, {"die": signal.SIGRTMIN + 6}, {"value": 1}], count=1)
    assert found[0] == Outcome(0, failure="explained: 3")
    assert found[1].failure == f"its process was ended by signal {signal.SIGRTMIN + 6}"
    assert found[2].result[1] == 1


def test_a_forked_child_does_not_answer_for_its_parent() -> None:
    found = work([{"child_leaves": True, "value": 1}, {"value": 2}], count=1)
    assert [found[task].result and found[task].result[1] for task in range(2)] == [1, 2]


class _NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_an_error_that_cannot_be_shown_has_its_type_as_reason() -> None:
    assert reason(_NoTextError()) == "_NoTextError"


def test_a_task_that_runs_when_the_pool_is_closed_may_save_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "task"
    with Workers(1, job, explain) as pool:
        pool.start(0, {"saves": str(file)})
        _until(lambda: file.is_file() and file.read_text() == "running", seconds=60)
    assert file.read_text() == "saved"
    assert pool.running == [0]


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """The parent is killed while its process sleeps in a task; the process must not outlive it."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from recbole_dtn.leaderboard.workers import Workers\n"
        "def job(folder):\n"
        "    open(folder + '/child', 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    pool = Workers(1, job, str)\n"
        "    pool.start(0, sys.argv[1])\n"
        "    list(pool.finished(60))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    child = tmp_path / "child"
    _until(lambda: child.is_file() and child.read_text() != "")
    parent.kill()
    parent.wait()
    _until(lambda: not _runs(int(child.read_text())))


def test_a_process_ends_quietly_when_the_parent_went_with_an_answer_unread() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send("unread")
    ours.close()
    _serve(theirs, job, explain)


def test_ctrl_c_while_a_process_imports_ends_it_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with Workers(1, job, explain) as pool:
            pool.start(0, {"value": 1})
            (worker,) = pool._workers
            os.kill(worker.process.pid or 0, signal.SIGINT)
            worker.process.join(60)
            assert worker.process.exitcode == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Traceback" not in capfd.readouterr().err


def _until(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def _runs(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.is_file() and "zombie" not in status.read_text()


def test_a_cell_that_the_system_kills_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recbole_dtn.leaderboard.session.OWN_PROCESS", True)
    Path("killed.py").write_text(
        "import os, signal\n"
        "from recbole_dtn.model.shared_bottom import SharedBottom\n"
        "from recbole_dtn.registry import MODELS\n"
        "@MODELS.register('Killed')\n"
        "class Killed(SharedBottom):\n"
        "    def __init__(self, *given):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    Path("b.yaml").write_text(
        "datasets: [{name: small, plantings: 1, rows: 600, informative: 2}]\n"
        "models: [Killed, Logistic]\nplugins: [killed.py]\nfloors: []\n"
    )
    with pytest.raises(RecBoleDTNError, match="1 of 2 cells failed: Killed small-1"):
        command(["run", "b.yaml", "--trust"])
    assert "its process was ended by SIGKILL (the system ends" in Path("leaderboard/b.failures.csv").read_text()
    assert "| Logistic |" in Path("leaderboard/b.md").read_text()
    said = capsys.readouterr().out
    assert "Killed small-1 seed 2020 ... its process was ended by SIGKILL" in said
    assert "it is run once more" in said


# ---- locks ----------------------------------------------------------------------------------------------------------


def test_a_cell_that_another_board_runs_is_waited_for_and_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_dtn.leaderboard.session.LOOK_AGAIN", 0.01)
    trainer = Trainer(tmp_path)
    first, second = plan_cells(["DTN", "MMoE"], ["ml-100k"], [1], [], resolve=trainer.resolve)
    other = first.lock()
    other.acquire()
    with pytest.raises(Timeout):
        first.lock().acquire()

    def run_cell(overrides: list[str]) -> RunRecord:
        if "--model=MMoE" in overrides:  # meanwhile the other board fills the first cell
            record = trainer(list(first.overrides))
            other.release()
            assert record.model == "DTN"
        return trainer(overrides)

    console = Console(file=io.StringIO(), width=60)
    path = run_board(
        ["DTN", "MMoE"], ["ml-100k"], [1], [], tmp_path / "out", console,
        run_cell=run_cell, resolve=trainer.resolve, fingerprint=lambda _: None,
    )  # fmt: skip
    assert trainer.order == [("ml-100k", "DTN", 1), ("ml-100k", "MMoE", 1)], "each once"
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[1/2] DTN ml-100k seed 1 ... another leaderboard is running it\n" in said
    assert "[1/2] DTN ml-100k seed 1 ... like .7000 (recorded in " in said
    assert path.read_text().index("| DTN |") < path.read_text().index("| MMoE |"), "in the order of the rows"
    second.lock().acquire()  # it was given back


def test_a_cell_that_fails_beside_is_not_run_again_but_by_a_later_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_dtn.leaderboard.session.LOOK_AGAIN", 0.01)
    trainer = Trainer(tmp_path)
    cells = plan_cells(["DTN", "MMoE"], ["ml-100k"], [1], [], resolve=trainer.resolve)
    other = cells[0].lock()
    other.acquire()
    ran = []

    def run_cell(overrides: list[str]) -> RunRecord:
        ran.append("DTN" if "--model=DTN" in overrides else "MMoE")
        if ran == ["MMoE"]:  # meanwhile the first cell fails in the other board
            time.sleep(0.02)  # the clock of the disk goes in steps
            Notes([]).write(cells[0], "no memory")
            other.release()
        elif ran[-1] == "DTN":
            raise DataError("again")
        return trainer(overrides)

    def board() -> str:
        console = Console(file=io.StringIO(), width=200)
        with pytest.raises(RecBoleDTNError, match="1 of 2 cells failed"):
            run_board(
                ["DTN", "MMoE"], ["ml-100k"], [1], [], tmp_path / "out", console,
                run_cell=run_cell, resolve=trainer.resolve, fingerprint=lambda _: None,
            )  # fmt: skip
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    assert "DTN ml-100k seed 1 ... failed in another leaderboard: no memory" in board()
    assert ran == ["MMoE"]
    assert "no memory" in (tmp_path / "out" / "ml-100k.failures.csv").read_text()
    assert "DTN ml-100k seed 1 ... failed: again" in board()
    assert ran == ["MMoE", "DTN"]


@pytest.mark.parametrize("fault", [SystemExit(3), ValueError("a\rb\ud800" + "c" * 200_000)])
def test_whatever_ends_a_cell_is_a_line_of_the_file_of_failures(tmp_path: Path, fault: BaseException) -> None:
    trainer = Trainer(tmp_path)
    trainer.faults = {("DTN", 1): fault}

    def board() -> None:
        run_board(
            ["DTN", "MMoE"], ["ml-100k"], [1], [], tmp_path / "out", Console(file=io.StringIO()), board="b",
            run_cell=trainer, resolve=trainer.resolve, fingerprint=lambda _: None,
        )  # fmt: skip

    for _ in range(2):  # the second reads what the first wrote
        with pytest.raises(RecBoleDTNError, match="1 of 2 cells failed"):
            board()
        (failure,) = Stored.read("b", tmp_path / "out").failures
        assert failure.reason.startswith(f"{type(fault).__name__}: ")
        assert len(failure.reason) <= 2000
        assert "| MMoE |" in (tmp_path / "out" / "b.md").read_text()


def test_a_process_that_alone_is_told_to_end_does_not_end_the_leaderboard(tmp_path: Path) -> None:
    """Its cell is run once more, and has failed after that."""
    trainer = Trainer(tmp_path)
    console = Console(file=io.StringIO(), width=200)
    cells = plan_cells(["DTN", "MMoE"], ["ml-100k"], [1], [], resolve=trainer.resolve)
    with Sessions(cells, console, None, lambda _: None, workers=2) as sessions:
        session = sessions(cells)
        interrupted = trainer(list(cells[0].overrides)).model_copy(update={"status": "preempted"})
        for outcome in (Outcome(0, interrupted), Outcome(0, interrupted=True)):
            session.locks[0].acquire()
            session._end(outcome)
    assert session.failures == [(cells[0], "its process was told to end")]
    assert "its process was told to end; it is run once more" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_failure_is_in_the_file_before_the_leaderboard_ends(tmp_path: Path) -> None:
    trainer, seen = Trainer(tmp_path), []

    def run_cell(overrides: list[str]) -> RunRecord:
        if "--model=DTN" in overrides:
            raise DataError("no memory")
        seen.append((tmp_path / "out" / "b.failures.csv").read_text())
        return trainer(overrides)

    with pytest.raises(RecBoleDTNError, match="1 of 2 cells failed"):
        run_board(
            ["DTN", "MMoE"], ["ml-100k"], [1], [], tmp_path / "out", Console(file=io.StringIO()), board="b",
            run_cell=run_cell, resolve=trainer.resolve, fingerprint=lambda _: None,
        )  # fmt: skip
    assert "no memory" in seen[0]


# ---- rows of their own ----------------------------------------------------------------------------------------------


def test_rows_have_names_and_settings_which_the_command_line_overrides(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    entries = [Entry("short", "DTN", ("--epochs=1",)), Entry("long", "DTN", ("--epochs=7",)), "MMoE"]
    cells = plan_cells(entries, ["a"], [3], ["--train_batch_size=8"], settings=["--epochs=2"], resolve=trainer.resolve)
    assert [(cell.title, cell.settings.epochs, cell.settings.train_batch_size) for cell in cells] == [
        ("short a seed 3", 1, 8), ("long a seed 3", 7, 8), ("MMoE a seed 3", 2, 8),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="'short' and 'long' have the same settings"):
        plan_cells(entries, ["a"], [3], ["--epochs=4"], resolve=trainer.resolve)
    with pytest.raises(UsageError, match="a leaderboard takes --seeds, found '--seed=3'"):
        plan_cells([Entry("x", "DTN", ("--seed=3",))], ["a"], [3], [], resolve=trainer.resolve)
    console = Console(file=io.StringIO(), width=60)
    path = run_board(
        entries, ["a"], [3], [], tmp_path / "out", console,
        board="mine", run_cell=trainer, resolve=trainer.resolve, fingerprint=lambda _: None,
    )  # fmt: skip
    rows = [line.split(" | ")[0] for line in path.read_text().splitlines() if line.endswith("| 100 |")]
    assert rows == ["| short", "| long", "| MMoE"]
    assert "\na,short,DTN,like,auc,test,0.700" in (tmp_path / "out" / "mine.csv").read_text()


def test_failures_are_written_with_their_reasons_and_removed(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    trainer.faults = {("DTN", 1): ValueError("shapes, differ")}

    def board() -> None:
        run_board(
            ["DTN"], ["a"], [1, 2], [], tmp_path / "out", Console(file=io.StringIO()),
            run_cell=trainer, resolve=trainer.resolve, fingerprint=lambda _: None,
        )  # fmt: skip

    with pytest.raises(RecBoleDTNError, match="1 of 2 cells failed"):
        board()
    path = tmp_path / "out" / "a.failures.csv"
    lines = path.read_text().splitlines()
    assert lines[0].startswith("dataset,name,model,split,seed,settings_digest,reason")
    assert lines[1].startswith("a,DTN,DTN,split_seed 2020,1,")
    assert lines[1].endswith(',"ValueError: shapes, differ"')
    trainer.faults = {}
    board()
    assert not path.exists()


def test_a_file_has_rows_and_settings_as_the_command_line_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(
        "datasets: [a, b]\nseeds: [3, 5]\nsplit_seeds: 4\nfloors: []\nsettings: {epochs: 2, label: 007}\n"
        "models: [MMoE, {name: own, model: DTN, interactions: [{name: gdcn, layers: 1}], dropout: 1e-1}]\n"
    )
    board = read_board(path)
    assert board.entries == [
        Entry("MMoE", "MMoE"),
        Entry("own", "DTN", ("--interactions=[{name: gdcn, layers: 1}]", "--dropout=0.1")),
    ]
    assert setting_words(board.settings) == ("--epochs=2", "--label='007'")
    assert (listed(board.seeds), listed(board.split_seeds), listed(None)) == ("[3, 5]", "4", None)
    assert board.floors == []


@pytest.mark.parametrize("value", [{"name": "x"}, {"model": ["DTN"]}, ["DTN"], {"model": "DTN", "name": " "}])
def test_a_row_without_a_model_is_refused(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(f"datasets: [a]\nmodels: [{value!r}]\n")
    with pytest.raises(UsageError, match="models: expected a model's name, or a map"):
        read_board(path)


def test_faults_of_a_file_name_key_and_line(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text("modles: [DTN]\ndatasets: [a]\nfolds: many\n")
    with pytest.raises(UsageError) as caught:
        read_board(path)
    text = str(caught.value)
    assert "modles" in text
    assert "models" in text
    assert "folds: expected an integer" in text
    assert "board.yaml:3" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--datasets=ml-100k"], "--models is needed"),
        (["run", "--models=DTN", "--datasets=ml-100k", "--workers=0"], "--workers: expected 1 or more"),
        (["run", "nothere.yaml"], "nothere.yaml"),
        (["ad"], "unknown word 'ad'"),
        (["ad", "b.yaml"], "unknown word 'ad'; did you mean 'add'"),
        (["serve"], "leaderboard: expected BOARD.yaml"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command(words)


def test_a_wrong_setting_is_said_to_be_of_what_has_it(tmp_path: Path) -> None:
    for row, settings, overrides, told in (
        (
            ("--interactoins=[gdcn]",),
            (),
            (),
            "interactoins: unknown setting; did you mean 'interactions'? (row 'mine')",
        ),
        ((), ("--epoch=1",), (), "epoch: unknown setting; did you mean 'epochs'? (settings of the leaderboard)"),
        ((), (), ("--epoch=1",), "epoch: unknown setting; did you mean 'epochs'? (command line)"),
    ):
        with pytest.raises(UsageError) as error:
            plan_cells(["MMoE", Entry("mine", "DTN", row)], ["ml-100k"], [1], overrides, settings=settings)
        assert str(error.value) == told
    with pytest.raises(UsageError, match=r"unknown data set 'ml100k'; did you mean 'ml-100k'.* \(datasets\)"):
        plan_cells(["DTN"], ["ml100k"], [1], [])


def test_what_rows_do_not_share_is_told_before_they_run(tmp_path: Path) -> None:
    trainer, seen = Trainer(tmp_path), []
    console = Console(file=io.StringIO(), width=200)

    def run_cell(overrides: list[str]) -> RunRecord:
        seen.append(console.file.getvalue())  # type: ignore[attr-defined]
        return trainer(overrides)

    wide = Entry("wide", "MMoE", ("--embedding_size=64", "--limit_rows=1000"))
    run_board(
        ["DTN", "MMoE", wide], ["ml-100k"], [1], [], tmp_path / "out", console,
        run_cell=run_cell, resolve=trainer.resolve, fingerprint=lambda _: None,
    )  # fmt: skip
    usual = trainer.ran[0].embedding_size
    told = f"Not equal on ml-100k: wide has embedding_size 64, not {usual}; wide has limit_rows 1000, not null."
    assert seen[0].startswith(told)


def test_a_name_that_no_file_can_have_is_refused_before_anything_runs(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    with pytest.raises(UsageError, match="expected a name of at most 200 bytes, found 'nnn"):
        run_board(
            ["DTN"], ["ml-100k"], [1], [], tmp_path / "out", Console(file=io.StringIO()), board="n" * 245,
            run_cell=trainer, resolve=trainer.resolve, fingerprint=lambda _: None,
        )  # fmt: skip
    assert trainer.ran == []


@pytest.mark.parametrize("name", ["\ud800", "a\nb", "\x1b[31m"])
def test_a_name_that_cannot_be_printed_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models: expected names of one line without control characters, found "):
        plan_cells([Entry(name, "DTN")], ["ml-100k"], [1], [], resolve=Trainer(tmp_path).resolve)


def test_a_name_of_blanks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="models: expected at least one, separated by commas, found 'DTN, '"):
        plan_cells(["DTN", Entry(" ", "MMoE")], ["ml-100k"], [1], [], resolve=Trainer(tmp_path).resolve)


def test_files_that_a_leaderboard_names_may_be_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "boards"
    folder.mkdir()
    (folder / "b.yaml").write_text(
        "models: [DTN]\ndatasets: [ml-100k]\nplugins: [mine.py, other.py]\ntune: {trials: 2, space: mine.yaml}\n"
    )
    for name in ("mine.py", "mine.yaml"):
        (folder / name).touch()
    monkeypatch.chdir(tmp_path)
    found = read_board(Path("boards/b.yaml"))
    assert found.plugins == ["boards/mine.py", "other.py"]
    assert found.tune is not None
    assert found.tune.space == "boards/mine.yaml"
    (tmp_path / "mine.py").touch()
    assert read_board(Path("boards/b.yaml")).plugins == ["mine.py", "other.py"], "of the working directory first"


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_the_state_on_a_terminal(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path)
    cells = plan_cells(["DTN", "MMoE"], ["a"], [1, 2], [], resolve=resolver(tmp_path))
    progress = BoardProgress(Console(file=io.StringIO()))
    progress.expect([cell.settings.epochs for cell in cells])
    assert progress.left is None
    progress.start(cells[0])
    progress.start(cells[1])
    record = trainer(list(cells[0].overrides)).model_copy(
        update={"valid_value": 0.71, "settings": {"valid_metric": "mean_auc"}}
    )
    progress.end(cells[0], record)
    progress.end(cells[1], None)
    progress.start(cells[2])
    assert progress.left is not None
    console = Console(file=io.StringIO(), width=90)
    console.print(progress.renderable())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 done, 1 running, 1 failed of 4" in text
    assert "running  MMoE a seed 1" in text
    assert "best     a: 0.7100  DTN a seed 1, mean_auc of validation" in text


def test_the_time_left_counts_epochs_so_that_runs_take_longer_than_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("recbole_dtn.leaderboard.progress.time", SimpleNamespace(perf_counter=lambda: now[0]))
    trials = plan_cells(["DTN"], ["a"], [1, 2, 3], ["--epochs=3"], resolve=resolver(tmp_path))
    progress = BoardProgress(Console(file=io.StringIO()))
    progress.expect([3, 3, 3, 10, 10])
    progress.start(trials[0])
    progress.start(trials[1])
    now[0] = 6.0
    progress.end(trials[0], None)
    assert progress.left == 2.0 * (3 + 3 + 10 + 10)  # 6 s for 3 epochs; one process is running
    progress.start(trials[2])
    now[0] = 18.0
    progress.end(trials[1], None)  # 18 s
    assert progress.left == (6 + 18) / 6 * (3 + 10 + 10)
    progress.end(trials[2], None)
    assert progress.left is None


def test_a_second_pass_erases_nothing_that_was_printed_before_it() -> None:
    terminal = Console(file=io.StringIO(), width=90, force_terminal=True)
    progress = BoardProgress(terminal)
    progress.best = dict.fromkeys("abc", (0.7, "row"))
    with progress:
        pass
    terminal.print("kept")
    with progress:
        pass
    text = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1A" in text, "lines of the state are erased"
    assert "\x1b[1A" not in text.split("kept")[1].split("0 done")[0]
