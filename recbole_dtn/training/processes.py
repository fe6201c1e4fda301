"""The processes of one run: when one of them ends, the others end too, and one of them says why."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytorch_lightning as lightning
import torch
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from recbole_dtn.errors import Preempted, RecBoleDTNError
from recbole_dtn.report.text import shown
from recbole_dtn.training.signals import Signals

__all__ = ["keep_together", "watched"]

POLL = 0.5
"""Seconds between two looks at the other processes."""
GRACE = 10.0
"""Seconds that a process has to notice by itself that another one is gone; under NCCL it may never do."""
BATCH = 20.0
"""Seconds from a signal to the end of the batch; a process that waits for one that is gone never gets there."""
SETTLE = 10.0
"""Seconds to wait, after a connection was lost, for the end of the process at its other side."""
INTERRUPTED = 130
ASKED = {signal.SIGTERM: Preempted.exit_code, signal.SIGINT: INTERRUPTED}
"""Exit code of a process that one of these signals ends."""
ADVICE = "the run can go on from its last training checkpoint with --resume, if one was written"
FIRST_PROCESS = "RECBOLE_DTN_FIRST_PROCESS"
"""Set for the processes that the first one starts: its id, which they can ask for too late, when it is gone."""


class _Launcher(_SubprocessScriptLauncher):
    """Lightning's, without its observer, which ends all processes by SIGKILL and without a word."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[FIRST_PROCESS] = str(os.getpid())
            main = threading.current_thread() is threading.main_thread()
            if main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a script's background job
                # Set again: polars has put a handler of its own in its place, which started processes do not inherit.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def keep_together(trainer: lightning.Trainer) -> None:
    """Leave it to :func:`watched` to look after the processes that a trainer starts."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = _Launcher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


@contextmanager
def watched(trainer: lightning.Trainer, signals: Signals) -> Iterator[None]:
    """End this process when another process of the run ends by a fault or a signal, and the others when this one does.

    SIGTERM is sent on: from the first process to those it has started, from these to it.

    Raises:
        RecBoleDTNError: in place of what a library says of a connection that is gone; Preempted, KeyboardInterrupt:
            where a signal is why it is gone.
    """
    if trainer.world_size == 1:
        yield
        return
    with _woken() as signalled:
        watch = _Watch(trainer, signals, signalled)
        try:
            yield
        except Exception as error:
            cause = watch.cause(SETTLE) if _lost_connection(error) else None
            watch.end_others()
            if cause is None:
                raise
            if signals.asked or cause.code in ASKED.values():
                preempted = (signals.asked or signal.SIGTERM) == signal.SIGTERM and cause.code != INTERRUPTED
                raise (Preempted if preempted else KeyboardInterrupt) from error
            raise _OtherProcessError(cause) from error
        finally:
            watch.stopped.set()
            watch.thread.join()


class _Cause:
    """Why a process of the run is gone, as a sentence, and the exit code of the others."""

    def __init__(self, text: str, code: int) -> None:
        self.text, self.code = text, code


class _OtherProcessError(RecBoleDTNError):
    def __init__(self, cause: _Cause) -> None:
        super().__init__(f"{cause.text}; {ADVICE}")
        self.exit_code = cause.code


@contextmanager
def _woken() -> Iterator[int]:
    """A file descriptor from which the numbers of signals are read as they come, also while Python waits for C code.

    Only the main thread gets signals: for another one nothing comes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    main = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False) if main else -1
    try:
        yield reader
    finally:
        if main:
            signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


class _Watch:
    """A thread that looks at the other processes: the first looks at those it has started, these look at it.

    Args:
        trainer, signals: of the run. signalled: file descriptor of :func:`_woken`.
    """

    def __init__(self, trainer: lightning.Trainer, signals: Signals, signalled: int) -> None:
        # Those that Lightning starts have a launcher too, which has started nothing.
        self.launcher, self.rank = trainer.strategy.launcher, trainer.local_rank
        self.parent = int(os.environ.get(FIRST_PROCESS) or os.getppid()) if self.rank > 0 else None
        self.signals, self.signalled = signals, signalled
        self.asked, self.since = 0, 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def children(self) -> list[subprocess.Popen[Any]]:
        return list(getattr(self.launcher, "procs", []))

    def cause(self, seconds: float = 0.0) -> _Cause | None:
        """Which process has ended before the run did, after waiting so long for one; None: none has."""
        end = time.monotonic() + seconds
        while True:
            for number, child in enumerate(self.children, 1):
                if child.poll() not in (None, 0):
                    return _cause_of(f"process {number} of the run (pid {child.pid})", child.returncode)
            if self.parent not in (None, os.getppid()):
                return _Cause(f"the first process of the run (pid {self.parent}) has ended", 1)
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)

    def end_others(self) -> None:
        """End the processes that this one has started."""
        for child in self.children:
            if child.poll() is None:
                child.kill()

    def _run(self) -> None:
        while not self.stopped.is_set():
            if select.select([self.signalled], [], [], POLL)[0]:
                self._hear(os.read(self.signalled, 64))
            if self.asked and self.signals.met:
                continue  # it ends by itself, however long its last checkpoint takes
            gone = self.cause()
            # The first process says it, where it can.
            late = self.asked and time.monotonic() - self.since > BATCH + 2 * (self.rank > 0)
            if (gone or late) and not self.stopped.wait(0.0 if late else GRACE):
                self._leave(gone)

    def _hear(self, numbers: bytes) -> None:
        for number in numbers:
            # After Ctrl-C, SIGTERM still is one.
            if number in ASKED and self.asked != signal.SIGTERM and self.asked != number:
                self.asked, self.since = number, time.monotonic()
                if number == signal.SIGTERM:
                    self._tell(number)

    def _tell(self, number: int) -> None:
        if self.rank == 0:
            for child in self.children:
                child.send_signal(number)
        elif os.getppid() > 1:
            # What started this process may belong to somebody else, as under SLURM, which signals all of them itself.
            with suppress(OSError):
                os.kill(os.getppid(), number)

    def _leave(self, gone: _Cause | None) -> None:
        if self.asked:
            name, code = signal.Signals(self.asked).name, ASKED[signal.Signals(self.asked)]
            why = f"{gone.text}" if gone else f"the batch did not end within {BATCH:.0f} s"
            message = f"ended by {name} ({why}); {ADVICE}"
        else:
            assert gone is not None
            message, code = f"error: {gone.text}; {ADVICE}", gone.code
        # Of those that the first process has started, the first one speaks for all.
        # Whoever read the standard error may be gone too.
        with suppress(OSError, ValueError):
            if self.rank < 2:
                print(shown(message), file=sys.stderr, flush=True)
        self.end_others()
        os._exit(code)


def _lost_connection(error: BaseException) -> bool:
    """Whether a collective call failed."""
    known = isinstance(error, torch.distributed.DistError)
    return known or (isinstance(error, RuntimeError) and any(name in str(error).lower() for name in ("gloo", "nccl")))


def _cause_of(process: str, code: int) -> _Cause:
    """Why a process is gone, from its exit code.

    >>> _cause_of("process 1", 2).text, _cause_of("process 1", -9).code
    ('process 1 ended with exit code 2, and says why itself', 1)
    """
    if code in ASKED.values():
        return _Cause(f"{process} was ended by a signal (exit code {code})", code)
    if code >= 0:
        return _Cause(f"{process} ended with exit code {code}, and says why itself", code)
    hint = " (the system ends the largest process so when memory runs out)" if code == -signal.SIGKILL else ""
    text = f"{process} was ended by {signal.Signals(-code).name}{hint}"
    return _Cause(text, ASKED.get(signal.Signals(-code), 1))
