"""What a process of a run does when another one has ended."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recbole_dtn.errors import Preempted, RecBoleDTNError
from recbole_dtn.training import processes
from recbole_dtn.training.processes import watched
from recbole_dtn.training.signals import Signals


def trainer_of(rank: int, *codes: int | None) -> Any:
    """A trainer that has started processes with these exit codes; None: one that runs."""
    sent: list[int] = []
    children = [
        SimpleNamespace(pid=7, returncode=code, poll=lambda code=code: code, send_signal=sent.append, kill=lambda: None)
        for code in codes
    ]
    launcher = SimpleNamespace(procs=children, sent=sent)
    return SimpleNamespace(world_size=2, local_rank=rank, strategy=SimpleNamespace(launcher=launcher))


@pytest.mark.parametrize(
    ("code", "kind", "said", "own"),
    [
        (2, RecBoleDTNError, "process 1 of the run (pid 7) ended with exit code 2, and says why itself; the run", 2),
        (-signal.SIGKILL, RecBoleDTNError, "was ended by SIGKILL (the system ends the largest", 1),
        (Preempted.exit_code, Preempted, "", 75),
        (-signal.SIGTERM, Preempted, "", 75),
        (130, KeyboardInterrupt, "", None),
    ],
)
def test_a_lost_connection_is_told_as_the_end_of_the_other_process(
    code: int, kind: type[BaseException], said: str, own: int | None
) -> None:
    with pytest.raises(kind) as caught, watched(trainer_of(0, code), Signals()):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert said in str(caught.value)
    assert getattr(caught.value, "exit_code", None) == own


def test_another_fault_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), watched(trainer_of(0, 2), Signals()):
        raise RuntimeError("shapes differ")


def test_a_first_process_that_ended_before_it_was_looked_at_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(processes, "POLL", 0.01)
    monkeypatch.setattr(processes, "GRACE", 0.05)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setenv(processes.FIRST_PROCESS, "1")
    with watched(trainer_of(1), Signals()):
        wait_for(ended)
    assert ended[0] == 1
    assert "error: the first process of the run (pid 1) has ended; the run can go on" in capsys.readouterr().err


def test_a_process_ends_too_where_nobody_reads_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(processes, "POLL", 0.01)
    monkeypatch.setattr(processes, "GRACE", 0.05)
    monkeypatch.setattr(os, "_exit", ended.append)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as closed, watched(trainer_of(0, 1), Signals()):
        monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BufferedWriter(closed), write_through=True))
        wait_for(ended)
        monkeypatch.undo()
    assert ended[0] == 1


def test_sigterm_is_sent_on_and_ends_a_process_whose_batch_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(processes, "POLL", 0.01)
    monkeypatch.setattr(processes, "BATCH", 0.1)
    monkeypatch.setattr(os, "_exit", ended.append)
    trainer = trainer_of(0, None)
    with Signals() as signals, signals.deferred(), watched(trainer, signals):
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(ended)
    assert (ended[0], trainer.strategy.launcher.sent[0]) == (75, signal.SIGTERM)
    assert "ended by SIGTERM (the batch did not end within 0 s); the run can go on" in capsys.readouterr().err
    # One that has come to the end of its batch takes its time.
    ended.clear()
    with Signals() as signals, signals.deferred(), watched(trainer, signals):
        os.kill(os.getpid(), signal.SIGTERM)
        signals.met = True
        time.sleep(0.3)
    assert ended == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what the system knows of signals")
def test_processes_that_are_started_ignore_ctrl_c_where_the_first_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []

    def start(self: processes._Launcher) -> None:
        status = Path("/proc/self/status").read_text()
        ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
        found.append(bool(ignored & 1 << signal.SIGINT - 1))

    monkeypatch.setattr(processes._Launcher, "_call_children_scripts", start)
    # launch sets it for the processes that it starts
    monkeypatch.setenv(processes.FIRST_PROCESS, "1")
    cluster = SimpleNamespace(creates_processes_externally=False, validate_settings=lambda **_: None)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # As polars does it: Python does not know of the handler, and started processes have the default action.
        ctypes.CDLL(None).signal(signal.SIGINT, None)
        assert processes._Launcher(cluster, 1, 1).launch(lambda: "done") == "done"
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == [True]


def wait_for(ended: list[int]) -> None:
    for _ in range(500):
        if ended:
            return
        time.sleep(0.01)
