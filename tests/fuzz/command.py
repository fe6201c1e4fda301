"""Fuzz for a time, each target in processes of its own, or read one input again."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table
from tests.fuzz.runner import SECONDS, Finding, Result, Target, check, file_name, fuzz

__all__ = ["main", "targets"]

STARTING = 120.0
"""Seconds for a process to start and to make its inputs."""
COLUMNS = ("target", "inputs", "accepted", "refused", "crashes", "changes", "hangs", "memory", "inputs/s", "peak rise")


def targets() -> dict[str, type[Target]]:
    """Every target by name."""
    from tests.fuzz.targets_cache import Encode
    from tests.fuzz.targets_data import Archives, Inter, PredictCsv
    from tests.fuzz.targets_runs import CheckpointFile, Record
    from tests.fuzz.targets_text import Board, CommandLine, Condition, Formula, Yaml

    kinds: list[type[Target]] = [
        Inter, Encode, PredictCsv, Archives, Yaml, Board, CommandLine, Condition, Formula, Record, CheckpointFile,
    ]  # fmt: skip
    return {kind.name: kind for kind in kinds}


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz, or replay; 1 where something was found."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", default=",".join(known), help="names with commas between; default: all of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--inputs", type=int, help="for each target, where they are tried before its time is over")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--output", type=Path, default=Path("fuzz-findings"), help="folder of the failing inputs")
    parser.add_argument("--replay", type=Path, help="a failing input, given to the one --target again")
    parser.add_argument("--memory_gb", type=float, default=4.0, help="address space that inputs may add; 0: no limit")
    given = parser.parse_args(argv)
    names = given.target.split(",")
    for name in names:
        if name not in known:
            parser.error(f"--target: unknown target {name!r}; known: {', '.join(known)}")
    output, console = given.output.resolve(), make_console()
    output.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if given.replay is not None:
            return _replay(known[names[0]](Path(folder)), given.replay)
        results = []
        for name in names:
            result = _apart(name, given, Path(folder) / name, output)
            results.append(result)
            for finding in result.findings.values():
                say(console, _told(name, finding, output))
    show_table(console, COLUMNS, [_row(result) for result in results], numbers=True)
    say(console, f"{sum(result.inputs for result in results):,} inputs")
    return int(any(result.findings for result in results))


def _apart(name: str, given: argparse.Namespace, folder: Path, output: Path) -> Result:
    """Fuzz a target in processes of its own: one that an input ends is followed by another, until the time is over."""
    whole, end, seed = Result(name), time.monotonic() + given.seconds, given.seed
    context = multiprocessing.get_context("spawn")
    while (left := end - time.monotonic()) > 0 and (given.inputs is None or whole.inputs < given.inputs):
        folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = context.Pipe(duplex=False)
        more = None if given.inputs is None else given.inputs - whole.inputs
        process = context.Process(target=_work, args=(theirs, name, folder, left, more, seed, output, given.memory_gb))
        process.start()
        theirs.close()
        # What is not Python cannot be interrupted: a process that does not answer is ended.
        answered = ours.poll(left + STARTING + 3 * SECONDS)
        with contextlib.suppress(EOFError):
            if answered:
                whole.add(ours.recv())
                process.join()
                break
        process.kill()
        process.join()
        trying = output / f"trying-{name}"
        data = trying.read_bytes() if trying.exists() else b""
        kind = "crash" if answered else "hang"
        found = Finding(kind, f"the process ended ({len(whole.findings)})", data, f"exit code {process.exitcode}\n")
        (output / file_name(name, found)).write_bytes(data)
        whole.findings[found.place] = found
        shutil.rmtree(folder)
        seed += 1
    return whole


def _work(
    answer: Any, name: str, folder: Path, seconds: float, inputs: int | None, seed: int, output: Path, memory: float
) -> None:
    faulthandler.enable()
    target = targets()[name](folder)
    if memory:
        _limit_memory(int(memory * 2**30))
    answer.send(fuzz(target, seconds=seconds, inputs=inputs, seed=seed, output=output))


def _replay(target: Target, path: Path) -> int:
    # A hang in code that is not Python's ends with the places of all threads.
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=sys.__stderr__)
    found = check(target, path.read_bytes())
    faulthandler.cancel_dump_traceback_later()
    if isinstance(found, bool):
        say(make_console(), f"{path}: {'accepted' if found else 'refused'}")
        return 0
    say(make_console(), f"{path}: {found.kind}: {found.place}\n{found.text}")
    return 1


def _told(name: str, finding: Finding, output: Path) -> str:
    again = f"python -m tests.fuzz --target={name} --replay={output / file_name(name, finding)}"
    return f"{name}: {finding.kind}: {finding.place} ({len(finding.data):,} bytes)\n{finding.text}  {again}\n"


def _row(result: Result) -> tuple[str, ...]:
    kinds = [result.count(kind) for kind in ("crash", "change", "hang", "memory")]
    numbers = [result.inputs, result.accepted, result.refused, *kinds]
    rate = result.inputs / max(result.seconds, 1e-9)
    return result.target, *(f"{number:,}" for number in numbers), f"{rate:,.0f}", f"{result.peak / 2**20:,.0f} MiB"


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + more, most))
