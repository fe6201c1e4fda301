"""Sides of a comparison, timed as whole processes, alternately, with what else the machine did meanwhile.

A side is a command that does one piece of work and prints, as its last line, a JSON object with ``seconds`` (the work
without imports) and whatever else it measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.sides.train_common import ACCELERATORS, Place

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "536870912"}
"""The same for every side: glibc keeps large blocks instead of giving them back at every step."""
AS_IT_COMES = dict.fromkeys(ALLOCATOR)
"""For a side's environment: these variables are not set, so that its allocator is as its own code leaves it."""


@dataclass(frozen=True)
class Side:
    """One side: a name and the command that does its work (``prepare`` runs before each round, untimed).

    A variable of ``environment`` that is None is taken out.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None


@dataclass(frozen=True)
class Sample:
    """One run of one side.

    Attributes:
        seconds: the work without imports. wall, cpu: of the whole process tree, in seconds.
        peak_mib: largest resident memory of the process tree, sampled. others: cores that other processes used.
    """

    seconds: float
    wall: float
    cpu: float
    peak_mib: float
    others: float
    found: Mapping[str, Any]


def measure(side: Side, *, timeout: float = 3600) -> Sample:
    """Run a side once.

    Raises:
        RuntimeError: when it fails, with the end of what it printed.
    """
    if side.prepare is not None:
        side.prepare()
    wanted = {**os.environ, **ALLOCATOR, **side.environment}
    environment = {name: value for name, value in wanted.items() if value is not None}
    before = _busy()
    start = time.perf_counter()
    process = subprocess.Popen(
        list(side.command), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watch = _Watch(process.pid)
    out, err = process.communicate(timeout=timeout)
    wall = time.perf_counter() - start
    watch.stop()
    if process.returncode != 0:
        raise RuntimeError(f"{side.name} failed ({process.returncode}): {(out + err)[-2000:]}")
    found = json.loads(out.strip().splitlines()[-1])
    others = max(0.0, (_busy() - before - watch.cpu) / wall)
    return Sample(float(found.pop("seconds")), wall, watch.cpu, watch.peak / 2**20, others, found)


def compare(sides: Sequence[Side], rounds: int, *, say: Callable[[str], None] = print) -> dict[str, list[Sample]]:
    """Every side ``rounds`` times, alternately, in an order that turns from round to round."""
    samples: dict[str, list[Sample]] = {side.name: [] for side in sides}
    for number in range(rounds):
        turn = number % len(sides)
        for side in [*sides[turn:], *sides[:turn]]:
            sample = measure(side)
            samples[side.name].append(sample)
            say(
                f"round {number + 1}/{rounds}  {side.name:<28} {sample.seconds:9.4f} s  cpu {sample.cpu:7.1f} s  "
                f"peak {sample.peak_mib:7.0f} MiB  others {sample.others:.2f} cores"
            )
    return samples


def ratio(samples: Mapping[str, Sequence[Sample]], ours: str, other: str) -> tuple[float, float, float]:
    """How many times faster ``ours`` is: median over the rounds of the ratio within a round, least and largest."""
    ratios = [b.seconds / a.seconds for a, b in zip(samples[ours], samples[other], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def median(samples: Sequence[Sample], of: Callable[[Sample], float]) -> float:
    """The median over the rounds."""
    return statistics.median(of(sample) for sample in samples)


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """The option ``--accelerator``, the same for every benchmark that has it."""
    parser.add_argument(
        "--accelerator", type=_accelerator, choices=ACCELERATORS, default="cpu",
        help="gpu: every side on the first CUDA device, timed until it is done (default: cpu)",
    )  # fmt: skip


def _accelerator(text: str) -> str:
    if text in ACCELERATORS:
        Place(text)  # ends with what to do where there is no GPU
    return text


def on_gpu(accelerator: str) -> str:
    """What the names of files say more where a GPU was used."""
    return "-gpu" if accelerator == "gpu" else ""


def gpu_cells(samples: Mapping[str, Sequence[Sample]], name: str) -> list[str]:
    """The cell of a GPU's memory in a table, no cell where no side used one."""
    if not any("gpu_mib" in run.found for runs in samples.values() for run in runs):
        return []
    peaks = [float(run.found["gpu_mib"]) for run in samples[name] if "gpu_mib" in run.found]
    return [f"{statistics.median(peaks):,.0f}" if peaks else ""]


def gpu_columns(samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Its column."""
    return ["peak GPU MiB"] if gpu_cells(samples, next(iter(samples))) else []


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "date": time.strftime("%Y-%m-%d"),
    }


def save(path: Path, name: str, settings: Mapping[str, Any], samples: Mapping[str, Sequence[Sample]]) -> None:
    """Write everything measured as JSON."""
    content = {
        "benchmark": name,
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *_without_paths(sys.argv[1:])]),
        "machine": machine(),
        "settings": dict(settings),
        "samples": {side: [asdict(sample) for sample in runs] for side, runs in samples.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _without_paths(words: Sequence[str]) -> list[str]:
    """The words of a command but for those that say where things lie on this machine."""
    return [word for word in words if not word.startswith(("--folder", "--output", "--peers"))]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for docs/benchmarks.md."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _busy() -> float:
    """Seconds of processor time that the machine has spent at work."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _processor() -> str:
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


class _Watch:
    """Samples the memory and processor time of a process and all that it starts."""

    def __init__(self, pid: int) -> None:
        self.peak = 0.0
        self._times: dict[int, float] = {}
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._done.is_set():
            resident = 0
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    try:
                        with process.oneshot():
                            resident += process.memory_info().rss
                            times = process.cpu_times()
                            self._times[process.pid] = times.user + times.system
                    except psutil.Error:
                        continue
            except psutil.Error:
                return
            self.peak = max(self.peak, resident)
            self._done.wait(0.05)

    def stop(self) -> None:
        """Stop sampling."""
        self._done.set()
        self._thread.join()

    @property
    def cpu(self) -> float:
        """Processor time of the tree, in seconds (what a process did after its last sample is missing)."""
        return sum(self._times.values())
