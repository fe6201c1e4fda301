"""Where the cells of a leaderboard run: processes of this machine, a Ray cluster, or jobs of SLURM."""

from __future__ import annotations

import importlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from recbole_dtn.errors import RecBoleDTNError, UsageError, nearest
from recbole_dtn.leaderboard.cell_run import Answer, Call, run_call
from recbole_dtn.leaderboard.workers import STOPPING, Outcome

__all__ = ["EXECUTORS", "Executor", "RayExecutor", "RemoteExecutor", "SlurmExecutor", "make_executor"]

EXECUTORS = ("local", "ray", "slurm")
POLL = 0.2
"""Seconds between two looks at jobs of SLURM."""
SHARED_DISK = 15.0
"""Seconds that a result of a job that has ended may take to appear on a shared disk."""


class Executor(Protocol):
    """Runs up to ``count`` tasks at a time; a context manager that ends those that run."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def running(self) -> list[Any]:
        """The tasks that are being run, or wait for a machine."""

    @property
    def free(self) -> bool:
        """Whether a task can start now."""

    def start(self, task: Any, argument: Any) -> None:
        """Run a task."""

    def finished(self, seconds: float) -> Iterator[Outcome]:
        """Outcomes of tasks that have ended, after waiting for the first at most so long."""


class DiedError(RecBoleDTNError):
    """A job ended without an answer: its process was killed, or its machine was lost."""


class RemoteExecutor(ABC):
    """Cells as jobs of another machine. A job locks its cell, and writes the record below the shared ``output_dir``.

    Args:
        count: jobs that are given to the scheduler at a time. options: of the scheduler, for every job.
        job: what a job does; a function that another process can import by name.
    """

    def __init__(
        self, count: int, options: Mapping[str, Any] | None = None, *, job: Callable[[Call], Answer] = run_call
    ) -> None:
        self.count, self.options, self.job = count, dict(options or {}), job
        self.jobs: dict[Any, Any] = {}

    def __enter__(self) -> RemoteExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        if self.jobs:
            self.cancel(list(self.jobs.values()))

    @property
    def running(self) -> list[Any]:
        return list(self.jobs)

    @property
    def free(self) -> bool:
        return len(self.jobs) < self.count

    def start(self, task: Any, argument: Sequence[str]) -> None:
        self.jobs[task] = self.submit(Call(str(Path.cwd()), tuple(argument)))

    def finished(self, seconds: float) -> Iterator[Outcome]:
        ended = self.ended(list(self.jobs.values()), seconds) if self.jobs else []
        for task in [task for task, job in self.jobs.items() if job in ended]:
            yield self._outcome(task, self.jobs.pop(task))

    def _outcome(self, task: Any, job: Any) -> Outcome:
        try:
            kind, value = self.answer(job)
        except DiedError as error:
            return Outcome(task, failure=str(error), died=True)
        if kind == "result":
            return Outcome(task, result=value)
        return Outcome(task, failure=value, interrupted=kind == "interrupted", elsewhere=kind == "elsewhere")

    @abstractmethod
    def submit(self, call: Call) -> Any:
        """Give a job to the scheduler."""

    @abstractmethod
    def ended(self, jobs: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Those that have ended, after waiting for the first at most so long."""

    @abstractmethod
    def answer(self, job: Any) -> Answer:
        """What a job that has ended returned.

        Raises:
            DiedError: where it did not return.
        """

    @abstractmethod
    def cancel(self, jobs: Sequence[Any]) -> None:
        """End jobs; one that runs may save what it needs to go on."""


class RayExecutor(RemoteExecutor):
    """Tasks of the Ray cluster that ``RAY_ADDRESS`` names; without it, of one on this machine.

    Args:
        options: of ``ray.remote``, such as ``{num_gpus: 1, memory: 4000000000}``; a task takes one core by default.

    Raises:
        UsageError: without the package ray, for a wrong option, or where the cluster cannot be reached.
    """

    def __enter__(self) -> RayExecutor:
        self.ray = needed("ray", "ray")
        self.started = not self.ray.is_initialized()
        # A task is never run again by Ray itself: the leaderboard does, and says so.
        options = {"num_cpus": 1, **self.options, "max_retries": 0}
        try:
            self.remote = self.ray.remote(**options)(self.job)
            if self.started:
                local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self.count, "include_dashboard": False}
                self.ray.init(log_to_driver=False, **local)
        except (ValueError, TypeError) as error:
            raise UsageError(f"--executor_options: {error}") from None
        except ConnectionError as error:
            raise UsageError(f"--executor=ray: RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self.started:
            self.ray.shutdown()

    def submit(self, call: Call) -> Any:
        return self.remote.remote(call)

    def ended(self, jobs: Sequence[Any], seconds: float) -> Sequence[Any]:
        self.ray.wait(list(jobs), num_returns=1, timeout=seconds)
        found: Sequence[Any] = self.ray.wait(list(jobs), num_returns=len(jobs), timeout=0)[0]
        return found

    def answer(self, job: Any) -> Answer:
        try:
            found: Answer = self.ray.get(job)
            return found
        except self.ray.exceptions.TaskCancelledError:
            return "interrupted", "cancelled"
        except self.ray.exceptions.RayError as error:
            raise DiedError(f"its Ray worker ended ({type(error).__name__})") from None

    def cancel(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            self.ray.cancel(job)
        self.ray.wait(list(jobs), num_returns=len(jobs), timeout=STOPPING)


class SlurmExecutor(RemoteExecutor):
    """Jobs of SLURM, by submitit; their logs are in ``jobs`` below ``folder``.

    Args:
        options: of submitit's AutoExecutor, such as ``{slurm_partition: cpu, timeout_min: 60, mem_gb: 4}``; with
            ``{cluster: local}`` jobs are processes of this machine, to try it.

    Raises:
        UsageError: without the package submitit, without SLURM, or for a wrong option.
    """

    folder = Path(".")

    def __enter__(self) -> SlurmExecutor:
        submitit = needed("submitit", "slurm")
        self.over: dict[Any, float] = {}
        options = {"cpus_per_task": 1, "timeout_min": 24 * 60, **self.options}
        cluster = options.pop("cluster", "slurm")
        self.patience = 0.0 if cluster == "local" else SHARED_DISK
        try:
            self.executor = submitit.AutoExecutor(folder=self.folder / "jobs", cluster=cluster)
            self.executor.update_parameters(**options)
        except RuntimeError as error:  # no srun
            raise UsageError(
                f"--executor=slurm: {error}; run it where `sbatch` is, or try it with "
                "--executor_options='{cluster: local}'"
            ) from None
        except (ValueError, TypeError, NameError) as error:
            raise UsageError(f"--executor_options: {error}") from None
        return self

    def submit(self, call: Call) -> Any:
        return self.executor.submit(self.job, call)

    def ended(self, jobs: Sequence[Any], seconds: float) -> Sequence[Any]:
        end = time.monotonic() + seconds
        while True:
            found = [job for job in jobs if self._has_ended(job)]
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(POLL, left))

    def _has_ended(self, job: Any) -> bool:
        # job.result() of submitit waits for a file that a killed job never writes, and all other jobs with it.
        if job.paths.result_pickle.exists():
            return True
        if not job.done():
            return False
        return time.monotonic() - self.over.setdefault(job, time.monotonic()) >= self.patience

    def answer(self, job: Any) -> Answer:
        if not job.paths.result_pickle.exists():
            raise DiedError(f"its job {job.job_id} ended without a result ({job.state}); its log is {job.paths.stderr}")
        try:
            found: Answer = job.result()
            return found
        except Exception as error:  # before the cell began, such as a package that is not there
            return "failure", f"job {job.job_id}: {type(error).__name__}: {error}"

    def cancel(self, jobs: Sequence[Any]) -> None:
        for job in jobs:
            job.cancel(check=False)
        self._wait(jobs)

    def _wait(self, jobs: Sequence[Any]) -> None:
        end = time.monotonic() + STOPPING
        while time.monotonic() < end and not all(job.done() for job in jobs):
            time.sleep(POLL)


def make_executor(name: str, count: int, options: Mapping[str, Any], folder: Path) -> RemoteExecutor | None:
    """The executor of a name; None for ``local``.

    Args:
        name: one of :data:`EXECUTORS`. count: jobs at a time. options: of the scheduler. folder: of logs.

    Raises:
        UsageError: for another name, a package that is missing, or options where there are none.
    """
    if name not in EXECUTORS:
        raise UsageError(f"--executor={name}: no such executor; {nearest(name, EXECUTORS)}")
    if name == "local":
        if options:
            raise UsageError("--executor_options: those of --executor=ray or slurm; local processes have none")
        return None
    needed("ray" if name == "ray" else "submitit", name)
    if name == "ray":
        return RayExecutor(count, options)
    made = SlurmExecutor(count, options)
    made.folder = folder
    return made


def needed(package: str, executor: str) -> Any:
    """A package that an executor needs, imported.

    Raises:
        UsageError: with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        install = "ray==2.6.3" if executor == "ray" else "'recbole_dtn[slurm]'"
        raise UsageError(
            f"--executor={executor}: it needs the package {package}, which cannot be imported ({error}): pip install "
            f"{install}"
        ) from None
