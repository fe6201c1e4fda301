"""Processes that run cells side by side, and go on when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from recbole_dtn.errors import Preempted

__all__ = ["Outcome", "Workers"]

STOPPING = 60.0
"""Seconds that tasks have to end when the pool is closed."""
Job = Callable[[Any], Any]


@dataclass(frozen=True)
class Outcome:
    """How a task ended: its result, or why there is none.

    ``interrupted``: by Ctrl-C or a signal, not by a fault. ``died``: its process ended under it, so that another may do
    it. ``elsewhere``: it was not run, as another leaderboard runs it.
    """

    task: Any
    result: Any = None
    failure: str | None = None
    interrupted: bool = False
    died: bool = False
    elsewhere: bool = False


class _Worker:
    """One process and the pipe to it; a process that has ended is replaced when the next task comes.

    Ctrl-C on a terminal comes to the process too. It waits until the imports are done, which take seconds.
    """

    def __init__(self, job: Job, explain: Callable[[BaseException], str]) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, job, explain), daemon=True)
        resource_tracker.ensure_running()  # its own start would let Ctrl-C through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        other.close()
        self.task: Any = None
        self.busy = False

    def start(self, task: Any, argument: Any) -> None:
        self.task, self.busy = task, True
        self.pipe.send(argument)

    def collect(self) -> Outcome:
        """The outcome of the task that has ended; a process that died is one, with the reason."""
        self.busy = False
        try:
            if not self.pipe.poll():  # a process that it forked still holds the pipe
                raise EOFError
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Outcome(self.task, failure=_how_it_ended(self.process.exitcode), died=True)
        if kind == "result":
            return Outcome(self.task, result=value)
        return Outcome(self.task, failure=value, interrupted=kind == "interrupted")

    def stop(self) -> None:
        """Tell the process to end; a task that it runs may save what it needs to go on."""
        self.pipe.close()
        if self.busy:
            self.process.terminate()

    def join(self, seconds: float) -> None:
        """Wait for the end of the process, and end it by force after so long."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Workers:
    """A number of processes that each run one task at a time; a context manager that ends them.

    Args:
        count: processes. job: a function that a process can import by name; it gets a task's argument. explain: makes a
            sentence of an exception of it.
    """

    def __init__(self, count: int, job: Job, explain: Callable[[BaseException], str]) -> None:
        self.count, self.job, self.explain = count, job, explain
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        end = time.monotonic() + STOPPING
        try:
            for worker in self._workers:
                worker.join(max(0.0, end - time.monotonic()))
        except BaseException:  # told to end once more
            for worker in self._workers:
                worker.join(0.0)
            raise

    @property
    def running(self) -> list[Any]:
        """The tasks that are being run."""
        return [worker.task for worker in self._workers if worker.busy]

    @property
    def free(self) -> bool:
        """Whether a task can start now."""
        return len(self.running) < self.count

    def start(self, task: Any, argument: Any) -> None:
        """Run ``job(argument)`` in a free process, under the name ``task``."""
        idle = next((worker for worker in self._workers if not worker.busy), None)
        if idle is not None and not idle.process.is_alive():
            self._workers.remove(idle)
            idle.stop()
            idle.join(STOPPING)
            idle = None
        if idle is None:
            idle = _Worker(self.job, self.explain)
            self._workers.append(idle)
        idle.start(task, argument)

    def finished(self, seconds: float) -> Iterator[Outcome]:
        """Outcomes of tasks that have ended, after waiting for the first at most so long."""
        busy = {worker.pipe: worker for worker in self._workers if worker.busy}
        if not busy:  # wait would sleep
            return
        ready = wait(list(busy), seconds)
        for pipe, worker in busy.items():
            if pipe in ready or not worker.process.is_alive():
                yield worker.collect()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        hint = " (the system ends the largest process so when memory runs out)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"


def _serve(pipe: Connection, job: Job, explain: Callable[[BaseException], str]) -> None:
    """Run what comes through the pipe until it is closed or the parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    here = os.getpid()
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            argument = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):  # OSError: the parent went with an answer unread
            return
        try:
            answer = "result", job(argument)
        except (KeyboardInterrupt, Preempted):
            answer = "interrupted", "interrupted"
        except BaseException as error:
            answer = "failure", explain(error)
        if os.getpid() != here:  # a process that the task forked: the answer is not its to give
            os._exit(1)
        try:
            pipe.send(answer)
        except OSError:  # the parent has stopped listening
            return


def _end_with_parent() -> None:
    """End this process when its parent ends, however that ends: a run without a board would hold no lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
