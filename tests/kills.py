"""Kills commands at random times, runs them again, and compares what they leave with an uninterrupted run.

    python -m tests.kills --kills=200 --jobs=train,leaderboard,preprocess,predict

Each command runs in a process of its own, which is ended by SIGKILL or SIGTERM with all that it has started, at a
time drawn between its start and the time that the whole run took. After every kill, what has to hold at any moment is
checked: a checkpoint or an output that exists is whole. The same command then goes on, and is killed again, until it
ends. What it leaves is then compared with what the uninterrupted run left: parameters and metrics of a run bit for
bit, files byte for byte. Prints a table of the kills and exits 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from recbole_dtn.cli import main as command_line
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
SMALL = [
    "--dataset=ml-100k", "--limit_rows=3000", "--train_batch_size=100", "--embedding_size=4", "--epochs=3",
    "--accelerator=cpu", "--threads=1", "--dropout=0.1", "--checkpoint.every_steps=5",
]  # fmt: skip
DTN = ["--model=DTN", "--module_dim=8", "--interactions=[gdcn, {name: memonet, codes: 50, attention_dim: 4}]"]


class Job(ABC):
    """A command, what has to hold at any moment while it runs, and what it leaves.

    Args:
        home: a folder of its own, with what the command reads.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.whole: Any = None  # what an uninterrupted run left

    def prepare(self) -> None:  # noqa: B027, since most commands read nothing that has to be made
        """Make what the command reads; once."""

    @abstractmethod
    def words(self, place: Path) -> list[str]:
        """The command line that writes into ``place``."""

    @abstractmethod
    def check(self, place: Path) -> None:
        """Raise for something that a kill must not leave."""

    def has_ended(self, place: Path) -> bool:
        """Whether the work of a killed command was done, so that it refuses to go on."""
        return False

    @abstractmethod
    def result(self, place: Path) -> Any:
        """What is compared, of a command that has ended."""


class Train(Job):
    """A run of DTN; the data set's cache is made by each, so that kills come there too."""

    def words(self, place: Path) -> list[str]:
        return [
            "train",
            *DTN,
            *SMALL,
            f"--output_dir={place / 'runs'}",
            f"--data_path={place / 'data'}",
            "--resume=auto",
        ]

    def check(self, place: Path) -> None:
        for path in place.rglob(CHECKPOINT):
            read_checkpoint(path)
        for path in place.rglob("record.json"):
            read_record(path.parent)

    def result(self, place: Path) -> Any:
        (folder,) = [path.parent for path in place.rglob("record.json")]
        record, weights = read_record(folder), torch.load(folder / CHECKPOINT, weights_only=True)["state_dict"]
        return {
            "status": record.status, "test": record.test, "valid": record.valid, "history": record.history,
            "weights": {name: tensor.tolist() for name, tensor in weights.items()},
        }  # fmt: skip


class Leaderboard(Train):
    """Two models and two seeds, two of them at a time."""

    def words(self, place: Path) -> list[str]:
        models = ["--models=MMoE,SharedBottom", "--datasets=ml-100k", "--seeds=2", "--floors=none", "--workers=2"]
        rest = [f"--output={place / 'tables'}", f"--output_dir={place / 'runs'}", f"--data_path={place / 'data'}"]
        return ["leaderboard", "run", *models, *SMALL[1:], *rest]

    def result(self, place: Path) -> Any:
        found = [read_record(path.parent) for path in place.rglob("record.json")]
        cells = sorted((record.model, record.seed, record.status, json.dumps(record.test)) for record in found)
        return {"cells": cells, "tables": sorted(path.name for path in (place / "tables").iterdir())}


class Preprocess(Job):
    """Atomic files from raw ones."""

    def prepare(self) -> None:
        words = ["preprocess", "synthetic", "--like=census-income", "--rows=60000", f"--output={self.home / 'raw'}"]
        run_whole(words, self.home / "prepare.log")

    def words(self, place: Path) -> list[str]:
        # A killed run leaves no data set, so that none has to be replaced.
        return [
            "preprocess",
            "census-income",
            f"--raw={self.home / 'raw'}",
            f"--data_path={place / 'data'}",
            "--name=c",
        ]

    def has_ended(self, place: Path) -> bool:
        return (place / "data" / "c").exists()

    def check(self, place: Path) -> None:
        if self.has_ended(place):
            assert self.result(place) == self.whole, "a data set that is not whole has its final name"

    def result(self, place: Path) -> Any:
        folder = place / "data" / "c"
        # The report has the time that it took.
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".inter", ".yaml")}


class Predict(Job):
    """Scores of 100,000 rows; the output has a file of an earlier day, which is replaced at the end or not at all."""

    def prepare(self) -> None:
        words = ["--model=MMoE", *SMALL, f"--data_path={self.home / 'data'}", f"--output_dir={self.home / 'runs'}"]
        run_whole(["train", *words], self.home / "prepare.log")
        (self.run,) = [path.parent for path in self.home.rglob("record.json")]
        (self.rows,) = (self.home / "data").glob("*/*.inter")

    def words(self, place: Path) -> list[str]:
        if not (place / "scores.csv").exists():
            (place / "scores.csv").write_text("of yesterday\n")
        rest = [f"--input={self.rows}", f"--output={place / 'scores.csv'}", "--overwrite", "--threads=1"]
        return ["predict", f"--run={self.run}", *rest]

    def check(self, place: Path) -> None:
        text = (place / "scores.csv").read_text(encoding="utf-8")
        assert text in ("of yesterday\n", self.whole), "the output is neither the old one nor the new one"

    def result(self, place: Path) -> Any:
        return (place / "scores.csv").read_text(encoding="utf-8")


JOBS: dict[str, type[Job]] = {
    "train": Train, "leaderboard": Leaderboard, "preprocess": Preprocess, "predict": Predict,
}  # fmt: skip


def run_whole(words: list[str], log: Path) -> None:
    """Run a command to its end, in a process of its own: threads that it starts would not survive a later fork."""
    code = wait(start(words, log), 600.0)
    assert code == 0, f"the command ended with {code}: {' '.join(words)}; see {log}"


def start(words: list[str], log: Path) -> int:
    """A copy of this process that runs a command, as the leader of a group; its number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 99
    try:
        code = command_line(words)
        sys.stdout.flush()
    finally:
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code of a process (less than 0: of a signal), or None if it runs longer than ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def end_group(child: int, how: signal.Signals) -> int | None:
    """Kill a process with its group: SIGTERM to the leader alone, as a scheduler does; its exit code."""
    if how is signal.SIGTERM:
        os.kill(child, how)
        code = wait(child, 30.0)
        if code is not None:
            return code
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    wait(child, 30.0)
    return -9 if how is signal.SIGKILL else None


def handles(child: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of a signal: a copy of this process gets one when its command begins."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{child}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> number - 1 & 1)
    return False


def rounds(job: Job, kills: int, draw: random.Random, log: Path) -> Iterator[tuple[str, int]]:
    """Kill and go on until ``kills`` have been made; yields what happened, and whether it was a kill."""
    whole = job.home / "whole"
    whole.mkdir()
    begun = time.monotonic()
    run_whole(job.words(whole), log)
    took = time.monotonic() - begun
    job.whole = job.result(whole)
    done, number = 0, 0
    while done < kills:
        number += 1
        place = job.home / f"round-{number}"
        place.mkdir()
        while True:
            child = start(job.words(place), log)
            code = wait(child, draw.uniform(0.02, 1.1 * took)) if done < kills else wait(child, 60 + 20 * took)
            if code is None and done >= kills:
                os.killpg(child, signal.SIGKILL)
                raise AssertionError(f"the command hangs: {' '.join(job.words(place))}")
            if code is None:
                how, heard = draw.choice(SIGNALS), handles(child, signal.SIGTERM)
                code = end_group(child, how)
                done += 1
                if how is signal.SIGTERM and heard and code not in (0, 75):
                    yield f"after SIGTERM the exit code is {code}, not 75", 0
                yield how.name, 1
            elif code != 0:
                raise AssertionError(f"the command ended with {code}: {' '.join(job.words(place))}; see {log}")
            job.check(place)
            if code == 0 or job.has_ended(place):
                break
        if job.result(place) != job.whole:
            raise AssertionError(f"the result differs from that of the uninterrupted run: compare {place} with {whole}")
        yield "same result", 0
        shutil.rmtree(place)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills", description="Kill commands at random times and compare their results."
    )
    parser.add_argument("--kills", type=int, default=200, help="in all, shared by the jobs (default: %(default)s)")
    parser.add_argument("--jobs", default=",".join(JOBS), help="which commands (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the times and signals (default: %(default)s)")
    parser.add_argument("--home", type=Path, default=None, help="folder that is kept; default: a temporary one")
    given = parser.parse_args(argv)
    names = given.jobs.split(",")
    unknown = sorted(set(names) - set(JOBS))
    if unknown:
        parser.error(f"--jobs: unknown {', '.join(unknown)}; expected some of {', '.join(JOBS)}")
    home = given.home or Path(tempfile.mkdtemp(prefix="kills-"))
    torch.set_num_threads(1)
    console, lost = Console(), 0
    table = Table("job", "kills", "SIGKILL", "SIGTERM", "same result", "lost")
    with Progress(console=console) as progress:
        for place, name in enumerate(names):
            number = given.kills // len(names) + (place < given.kills % len(names))
            bar = progress.add_task(name, total=number)
            job = JOBS[name](home / name)
            job.home.mkdir(parents=True)
            told: Counter[str] = Counter()
            try:
                job.prepare()
                draw = random.Random(f"{given.seed} {name}")
                for what, step in rounds(job, number, draw, home / f"{name}.log"):
                    told[what] += 1
                    progress.advance(bar, step)
            except AssertionError as error:
                told["lost"] += 1
                console.print(f"{name}: {error}", markup=False)
            others = set(told) - {"SIGKILL", "SIGTERM", "same result", "lost"}
            for other in sorted(others):
                console.print(f"{name}: {told[other]} times {other}", markup=False)
            lost += told["lost"] + sum(told[other] for other in others)
            kinds = ("SIGKILL", "SIGTERM", "same result", "lost")
            table.add_row(name, str(told["SIGKILL"] + told["SIGTERM"]), *(str(told[kind]) for kind in kinds))
    console.print(table)
    if given.home is None and not lost:
        shutil.rmtree(home)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
