"""The processes of one run: when one of them ends, the others end too, and one of them says why."""

from __future__ import annotations

import os
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

__all__ = ["keep_together", "tell_processes", "watched"]

POLL = 0.5
"""Seconds between two looks at the other processes."""
GRACE = 10.0
"""Seconds that a process has to notice by itself that another one is gone; under NCCL it may never do."""
SETTLE = 10.0
"""Seconds to wait, after a connection was lost, for the end of the process at its other side."""
NO_FAULT = (None, 0, Preempted.exit_code, 130)
ADVICE = "the run can go on from its last training checkpoint with --resume, if one was written"


class _Launcher(_SubprocessScriptLauncher):
    """Lightning's, without its observer, which ends all processes by SIGKILL and without a word."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def keep_together(trainer: lightning.Trainer) -> None:
    """Leave it to :func:`watched` to look after the processes that a trainer starts."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = _Launcher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


def tell_processes(trainer: lightning.Trainer, number: int) -> None:
    """Send a signal on: from the first process to those it has started, from these to it."""
    launcher = trainer.strategy.launcher
    if trainer.local_rank == 0 and launcher is not None:
        launcher.kill(signal.Signals(number))
    elif trainer.local_rank > 0 and os.getppid() > 1:
        # What started this process may belong to somebody else, as under SLURM, which signals all of them itself.
        with suppress(OSError):
            os.kill(os.getppid(), number)


@contextmanager
def watched(trainer: lightning.Trainer) -> Iterator[None]:
    """End this process when another process of the run ends by a fault, and the others when this one does.

    Raises:
        RecBoleDTNError: in place of what a library says of a connection that is gone.
    """
    if trainer.world_size == 1:
        yield
        return
    watch = _Watch(trainer)
    try:
        yield
    except Exception as error:
        cause = watch.cause(SETTLE) if _lost_connection(error) else None
        watch.end_others()
        if cause is None:
            raise
        raise RecBoleDTNError(f"{cause}; {ADVICE}") from error
    finally:
        watch.stopped.set()


class _Watch:
    """A thread that looks at the other processes: the first looks at those it has started, these look at it."""

    def __init__(self, trainer: lightning.Trainer) -> None:
        # Those that Lightning starts have a launcher too, which has started nothing.
        self.launcher = trainer.strategy.launcher
        self.parent = os.getppid() if trainer.local_rank > 0 else None
        self.stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def children(self) -> list[subprocess.Popen[Any]]:
        return list(getattr(self.launcher, "procs", []))

    def cause(self, seconds: float = 0.0) -> str | None:
        """Which process has ended by a fault, after waiting so long for one; None: none has."""
        end = time.monotonic() + seconds
        while True:
            for number, child in enumerate(self.children, 1):
                if child.poll() not in NO_FAULT:
                    return f"process {number} of the run (pid {child.pid}) {_how(child.returncode)}"
            if self.parent not in (None, os.getppid()):
                return f"the first process of the run (pid {self.parent}) has ended"
            if time.monotonic() >= end:
                return None
            time.sleep(0.1)

    def end_others(self) -> None:
        """End the processes that this one has started."""
        for child in self.children:
            if child.poll() is None:
                child.kill()

    def _run(self) -> None:
        while not self.stopped.wait(POLL):
            found = self.cause()
            if found is None:
                continue
            if not self.stopped.wait(GRACE):
                print(shown(f"error: {found}; {ADVICE}"), file=sys.stderr, flush=True)
                self.end_others()
                os._exit(1)
            return


def _lost_connection(error: BaseException) -> bool:
    """Whether a collective call failed."""
    known = isinstance(error, torch.distributed.DistError)
    return known or (isinstance(error, RuntimeError) and any(name in str(error).lower() for name in ("gloo", "nccl")))


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}, and says why itself"
    hint = " (the system ends the largest process so when memory runs out)" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{hint}"
