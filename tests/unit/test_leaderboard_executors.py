"""Cells as jobs of other machines: what a leaderboard does with them, and Ray and SLURM for real."""

from __future__ import annotations

import io
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout
from rich.console import Console

from recbole_dtn.cli import main
from recbole_dtn.cli.leaderboard import run as command
from recbole_dtn.errors import RecBoleDTNError, UsageError
from recbole_dtn.leaderboard.cell_run import Answer, Call, run_call
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.leaderboard.executors import DiedError, RayExecutor, RemoteExecutor, SlurmExecutor, make_executor
from recbole_dtn.leaderboard.jobs import missing_jobs
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.leaderboard.workers import Outcome
from recbole_dtn.record.record import read_record
from recbole_dtn.record.scores import read_scores
from tests.unit.jobs import answer
from tests.unit.test_leaderboard_run import Trainer

# ---- what a leaderboard does with jobs ------------------------------------------------------------------------------


class Scripted(RemoteExecutor):
    """Jobs that end at once, as told: for the n-th one of a model, what it does."""

    def __init__(self, trainer: Trainer, *script: str, count: int = 2) -> None:
        super().__init__(count)
        self.trainer, self.script = trainer, list(script)
        self.calls: list[Call] = []
        self.cancelled: list[Any] = []

    def submit(self, call: Call) -> Any:
        self.calls.append(call)
        return len(self.calls) - 1, call, self.script.pop(0) if self.script else "runs"

    def ended(self, jobs: Sequence[Any], seconds: float) -> Sequence[Any]:
        return jobs[:1]

    def answer(self, job: Any) -> Answer:
        _, call, does = job
        if does == "dies":
            raise DiedError("its machine was lost")
        if does == "runs":
            return "result", self.trainer(list(call.words[:-1]))
        if does == "other disk":
            record = self.trainer(list(call.words[:-1]))
            return "result", record.model_copy(update={"run_id": "elsewhere-1"})
        if does == "preempted":  # fit returns such a run instead of raising
            self.trainer.status = does
            record = self.trainer(list(call.words[:-1]))
            self.trainer.status = "finished"
            return "result", record
        return does, f"it {does}"

    def cancel(self, jobs: Sequence[Any]) -> None:
        self.cancelled += jobs


def board(folder: Path, *script: str) -> tuple[Scripted, str, Path]:
    trainer = Trainer(folder / "runs")
    executor = Scripted(trainer, *script)
    console = Console(file=io.StringIO(), width=200)
    try:
        run_board(
            ["DTN", "MMoE"], ["a"], [1], [], folder / "out", console,
            executor=executor, resolve=trainer.resolve, fingerprint=lambda _: None,
        )  # fmt: skip
    except RecBoleDTNError as error:
        console.print(f"raised: {error}")
    return executor, console.file.getvalue(), folder / "out"  # type: ignore[attr-defined]


def test_a_cell_whose_worker_dies_is_run_once_more(tmp_path: Path) -> None:
    executor, said, out = board(tmp_path, "dies")
    assert [call.words[1:2] for call in executor.calls] == [("--dataset=a",)] * 3
    assert [call.words[0] for call in executor.calls] == ["--model=DTN", "--model=MMoE", "--model=DTN"]
    assert executor.calls[0].words[-1] == "--threads=1"
    assert executor.calls[0].folder == str(Path.cwd())
    assert "[1/2] DTN a seed 1 ... its machine was lost; it is run once more\n" in said
    assert "[1/2] DTN a seed 1 ... like .7000" in said
    assert not (out / "a.failures.csv").exists()
    assert "| DTN |" in (out / "a.md").read_text()


@pytest.mark.parametrize("does", ["interrupted", "preempted"])
def test_a_job_that_is_told_to_end_does_not_end_the_leaderboard(does: str, tmp_path: Path) -> None:
    executor, said, _ = board(tmp_path, does)
    assert len(executor.calls) == 3
    assert "[1/2] DTN a seed 1 ... its job was told to end; it is run once more\n" in said
    assert "[1/2] DTN a seed 1 ... like .7000" in said


def test_a_cell_whose_worker_dies_twice_has_failed(tmp_path: Path) -> None:
    executor, said, out = board(tmp_path, "dies", "runs", "dies")
    assert len(executor.calls) == 3
    assert "[1/2] DTN a seed 1 ... failed: its machine was lost\n" in said
    assert "raised: 1 of 2 cells failed: DTN a seed 1" in said
    assert (out / "a.failures.csv").read_text().splitlines()[1].endswith("its machine was lost")


def test_a_fault_of_the_cell_itself_is_no_reason_to_run_it_again(tmp_path: Path) -> None:
    executor, said, _ = board(tmp_path, "failure")
    assert len(executor.calls) == 2
    assert "failed: it failure" in said


def test_a_cell_that_another_job_runs_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_dtn.leaderboard.session.LOOK_AGAIN", 0.01)
    executor, said, _ = board(tmp_path, "elsewhere")
    assert [call.words[0] for call in executor.calls] == ["--model=DTN", "--model=MMoE", "--model=DTN"]
    assert said.count("another leaderboard is running it") == 1
    assert "[1/2] DTN a seed 1 ... like .7000" in said


def test_a_record_on_a_disk_of_another_machine_is_a_failure(tmp_path: Path) -> None:
    _, said, _ = board(tmp_path, "other disk")
    assert f"its run elsewhere-1 is not below {tmp_path}/runs/a/DTN: output_dir must be on a disk that all" in said


def test_the_lock_is_the_jobs(tmp_path: Path) -> None:
    """While a job runs, the leaderboard does not hold the lock of its cell."""
    trainer = Trainer(tmp_path)
    (cell,) = plan_cells(["DTN"], ["a"], [1], [], resolve=trainer.resolve)
    free: list[bool] = []

    class Looks(Scripted):
        def answer(self, job: Any) -> Answer:
            with cell.lock():
                free.append(True)
            return super().answer(job)

    run_board(
        ["DTN"], ["a"], [1], [], tmp_path / "out", Console(file=io.StringIO()),
        executor=Looks(trainer), resolve=trainer.resolve, fingerprint=lambda _: None,
    )  # fmt: skip
    assert free == [True]


def test_jobs_that_run_are_cancelled_with_the_leaderboard(tmp_path: Path) -> None:
    executor, _, _ = board(tmp_path)
    with executor:
        executor.start("cell", ["--model=DTN"])
    assert [job[1].words for job in executor.cancelled] == [("--model=DTN",)]


# ---- one cell by itself ---------------------------------------------------------------------------------------------

PLANTED = """\
datasets: [{name: toy, plantings: 2, rows: 400, informative: 2}]
models: [Logistic]
floors: []
"""


def test_print_jobs_run_by_themselves_and_are_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(PLANTED)
    assert main(["leaderboard", "run", "toy.yaml", "--print-jobs"]) == 0
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert shown.err.splitlines() == ["planting dataset/toy-1", "planting dataset/toy-2"]
    change, job = first.split(" && ")
    assert shlex.split(change) == ["cd", str(tmp_path)]
    *program, leaderboard, cell = shlex.split(job)[:5]
    assert (program, leaderboard, cell) == (["python", "-m", "recbole_dtn"], "leaderboard", "cell")
    words = shlex.split(job)[3:]
    assert not list(tmp_path.rglob("record.json"))
    with pytest.raises(UsageError, match="no finished run below output_dir"):
        command(["run", "toy.yaml", "--collect"])
    assert main(words) == 0
    assert "Logistic toy-1 seed 2020: finished, runs/planted/Logistic/" in capsys.readouterr().out
    assert main(["leaderboard", "run", "toy.yaml", "--print_jobs"]) == 0
    assert capsys.readouterr().out.splitlines() == [second]
    assert main(["leaderboard", "run", "toy.yaml", "--collect"]) == 0
    said = capsys.readouterr().out
    assert "no record of 1 cells: Logistic toy-2 seed 2021" in said
    assert "| Logistic | 1 | 1 |" in Path("leaderboard/toy.md").read_text()
    assert "| Logistic | 2021 | not run |" in Path("leaderboard/toy.md").read_text()
    (record,) = tmp_path.rglob("record.json")
    assert read_record(record).beside_others, "its times and rates tell nothing"
    assert read_scores(record.parent, read_record(record).data_fingerprint) is not None
    kind, found = run_call(Call(str(tmp_path), tuple(words[2:])))
    assert (kind, found.run_id) == ("result", record.parent.name), "recorded, so not run again"
    assert Path("leaderboard/toy.failures.csv").is_file()
    assert main(shlex.split(second)[6:]) == 0
    assert main(["leaderboard", "run", "toy.yaml", "--collect"]) == 0
    assert "| Logistic | 2 | 2 |" in Path("leaderboard/toy.md").read_text()
    assert not Path("leaderboard/toy.failures.csv").exists(), "no cell is left"


def test_jobs_with_a_line_break_are_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell that reads the commands line by line would run what follows the break."""
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(PLANTED + 'settings: {cache_dir: "cache\\ntouch X #"}\n')
    assert main(["leaderboard", "run", "toy.yaml", "--print_jobs"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "--print_jobs: expected one line per command, found a line break in" in shown.err
    cells = plan_cells(["DTN"], ["ml-100k"], [1], [])
    with pytest.raises(UsageError, match="found a line break"):
        list(missing_jobs([replace(cells[0], overrides=("--output_dir=a\n",))]))


def test_a_call_answers_for_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind, text = run_call(Call(str(tmp_path), ("--model=Logistic", "--dataset=none-such")))
    assert kind == "failure"
    assert "unknown data set 'none-such'" in text
    kind, text = run_call(Call(str(tmp_path / "gone"), ("--model=Logistic",)))
    assert (kind, "gone" in text) == ("failure", True)

    class Held:
        def __enter__(self) -> None:
            raise Timeout("lock")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("recbole_dtn.leaderboard.cells.Cell.lock", lambda self: Held())
    assert run_call(Call(str(tmp_path), ("--model=Logistic", "--dataset=planted"))) == ("elsewhere", None)


# ---- the schedulers -------------------------------------------------------------------------------------------------


def work(executor: RemoteExecutor, words: dict[str, Sequence[str]]) -> dict[str, list[Outcome]]:
    """Every task is started once, and once more where its worker died."""
    found: dict[str, list[Outcome]] = {task: [] for task in words}
    waiting = list(words)
    end = time.monotonic() + 240
    with executor as pool:
        while waiting or pool.running:
            assert time.monotonic() < end, f"no outcome of {pool.running}"
            while waiting and pool.free:
                task = waiting.pop(0)
                pool.start(task, words[task])
            assert len(pool.running) <= executor.count
            for outcome in pool.finished(30):
                found[outcome.task].append(outcome)
                if outcome.died and len(found[outcome.task]) == 1:
                    waiting.append(outcome.task)
    return found


def check(executor: RemoteExecutor, folder: Path) -> str:
    """Three jobs on two workers, one of which dies once; the reason that is given for it."""
    words = {"a": ["--value=1"], "b": [f"--dies_once={folder / 'died'}", "--value=2"], "c": ["--fails=no memory"]}
    found = work(executor, words)
    assert [outcome.result for outcome in found["a"]] == [(str(folder), "1")]
    assert found["c"] == [Outcome("c", failure="no memory")]
    first, second = found["b"]
    assert (first.died, first.result, second.result) == (True, None, (str(folder), "2"))
    assert first.failure is not None
    return first.failure


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_submitit_with_two_workers_of_which_one_dies_once(here: Path) -> None:
    pytest.importorskip("submitit")
    executor = SlurmExecutor(2, {"cluster": "local", "timeout_min": 5}, job=answer)
    reason = check(executor, here)
    assert "ended without a result" in reason
    assert str(here / "jobs") in reason


@pytest.mark.slow
def test_ray_with_two_workers_of_which_one_dies_once(here: Path) -> None:
    pytest.importorskip("ray")
    assert "WorkerCrashedError" in check(RayExecutor(2, job=answer), here)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["ray", "slurm"])
def test_a_leaderboard_on_a_scheduler(executor: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray" if executor == "ray" else "submitit")
    Path("toy.yaml").write_text(PLANTED)
    options = ["--executor_options={cluster: local}"] if executor == "slurm" else []
    assert main(["leaderboard", "run", "toy.yaml", f"--executor={executor}", "--workers=2", *options]) == 0
    said = capsys.readouterr().out
    assert "[2/2] Logistic toy-2 seed 2021 ... first ." in said
    assert "| Logistic | 2 | 2 |" in Path("leaderboard/toy.md").read_text()


def test_what_is_missing_or_wrong_is_said(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    with pytest.raises(UsageError, match="--executor=slrm: no such executor; did you mean 'slurm'"):
        make_executor("slrm", 1, {}, here)
    with pytest.raises(UsageError, match="--executor_options: those of --executor=ray or slurm"):
        make_executor("local", 1, {"timeout_min": 1}, here)
    assert make_executor("local", 1, {}, here) is None
    for name, package, install in (("slurm", "submitit", r"'recbole_dtn\[slurm\]'"), ("ray", "ray", r"ray==2\.6\.3")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UsageError, match=f"needs the package {package}, .*pip install {install}"):
            make_executor(name, 1, {}, here)


def test_slurm_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UsageError, match=r"--executor=slurm: .*srun.*cluster: local"), SlurmExecutor(1):
        pass
    wrong = SlurmExecutor(1, {"cluster": "local", "timout_min": 3})
    with pytest.raises(UsageError, match=r"--executor_options: .*timout_min"), wrong:
        pass
