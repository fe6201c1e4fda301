"""Give mutated inputs to a target, and keep what it should not have done."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import resource
import signal
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from recbole_dtn.errors import RecBoleDTNError
from tests.fuzz.mutations import OP_BYTES, mutated

__all__ = ["ChangedError", "Finding", "Result", "Target", "check", "fuzz"]

MOST_OPS = 5
SECONDS = 20.0
"""An input that takes longer is a finding."""
MEMORY = 1 << 28
"""An input that raises the process's peak of memory by more bytes is a finding."""


class ChangedError(AssertionError):
    """A value was accepted, and is another one than the input says."""


class Hang(BaseException):
    """The time of an input is over."""


class Target(ABC):
    """Code that reads input, and what must hold for every input.

    Attributes:
        name: on the command line. seeds: valid inputs. words: of the format, which mutations insert.
    """

    name: str
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def check(self, data: bytes) -> None:
        """Read an input.

        Raises:
            RecBoleDTNError: when it is refused, which is fine. ChangedError: when it is read as what it does not say.
            Exception: any other is a finding.
        """


@dataclass(frozen=True)
class Finding:
    """An input that was not handled.

    Attributes:
        kind: ``crash``, ``change``, ``hang`` or ``memory``. place: exception and innermost line of the package.
    """

    kind: str
    place: str
    data: bytes
    text: str


@dataclass
class Result:
    """What became of the inputs of a target; ``peak``: bytes by which the process's peak of memory rose."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    peak: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, other: Result) -> None:
        """Count what another process did."""
        self.inputs, self.seconds = self.inputs + other.inputs, self.seconds + other.seconds
        self.accepted, self.refused = self.accepted + other.accepted, self.refused + other.refused
        self.peak = max(self.peak, other.peak)
        self.findings |= other.findings

    def count(self, kind: str) -> int:
        """Findings of one kind."""
        return sum(finding.kind == kind for finding in self.findings.values())


def check(target: Target, data: bytes, *, seconds: float = SECONDS) -> Finding | bool:
    """Give one input to a target: True where it was accepted, False where it was refused, or the finding."""
    before = _peak()
    try:
        with (
            _limited(seconds),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            target.check(data)
        accepted = True
    except RecBoleDTNError:
        accepted = False
    except ChangedError as error:
        return Finding("change", _place(error), data, _text(error))
    except MemoryError as error:
        return Finding("memory", _place(error), data, _text(error))
    except Hang as error:
        return Finding("hang", _place(error), data, f"more than {seconds:g} s\n{_text(error)}")
    except (Exception, SystemExit) as error:
        return Finding("crash", _place(error), data, _text(error))
    except BaseException as error:  # Rust code of polars that panics
        if type(error).__name__ != "PanicException":
            raise
        return Finding("crash", _place(error), data, _text(error))
    more = _peak() - before
    return Finding("memory", "peak", data, f"{more / 2**20:,.0f} MiB\n") if more > MEMORY else accepted


def fuzz(
    target: Target, *, seconds: float, inputs: int | None = None, seed: int = 0, output: Path | None = None
) -> Result:
    """Give mutated inputs to a target until its time or number of inputs is used up.

    Args:
        target: what reads them. seconds, inputs: when to stop. seed: of the plans.
        output: folder of the failing inputs; the one being tried is in its file ``trying-<target>`` meanwhile, so that
            an input that ends the process is kept too.
    """
    result, draw = Result(target.name), random.Random(seed)
    began, before = time.monotonic(), _peak()
    trying = None if output is None else output / f"trying-{target.name}"
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    while time.monotonic() - began < seconds and (inputs is None or result.inputs < inputs):
        data = mutated(_plan(draw), target.seeds, target.words)
        if trying is not None:
            trying.write_bytes(data)
        found = check(target, data)
        if isinstance(found, Finding) and found.kind == "hang":  # or the machine stood still
            found = check(target, data)
        result.inputs += 1
        if isinstance(found, bool):
            result.accepted, result.refused = result.accepted + found, result.refused + (not found)
        elif found.place not in result.findings:
            result.findings[found.place] = found = reduced(target, found)
            if output is not None:
                (output / file_name(target.name, found)).write_bytes(found.data)
    result.seconds, result.peak = time.monotonic() - began, max(0, _peak() - before)
    if trying is not None:
        trying.unlink(missing_ok=True)
    return result


def _plan(draw: random.Random) -> bytes:
    """A plan of mostly one mutation: much of the input stays valid, and what is behind the first checks is reached."""
    return draw.randbytes(2 + min(draw.randint(1, MOST_OPS) for _ in range(3)) * OP_BYTES)


def reduced(target: Target, finding: Finding, *, tries: int = 200, seconds: float = 30.0) -> Finding:
    """The finding with a shorter input, if one is soon found: pieces are left out, from halves down to bytes."""
    if finding.kind not in ("crash", "change"):  # the others cost their time or memory at each try
        return finding
    end, size = time.monotonic() + seconds, len(finding.data) // 2
    while size:
        at = 0
        while at < len(finding.data) and tries and time.monotonic() < end:
            tries -= 1
            found = check(target, finding.data[:at] + finding.data[at + size :])
            if isinstance(found, Finding) and found.place == finding.place:
                finding = found
            else:
                at += size
        size //= 2
    return finding


def file_name(target: str, finding: Finding) -> str:
    """Of a failing input: the target, the kind, and a digest of the place."""
    return f"{target}-{finding.kind}-{hashlib.blake2s(finding.place.encode(), digest_size=4).hexdigest()}"


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """The exception's type and the innermost line of the package, or of the target where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "recbole_dtn/" in frame.filename] or frames
    if isinstance(error, ChangedError):  # by what differs; the target's line is the same for all
        return f"ChangedError: {str(error).partition(':')[0]}"
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else type(error).__name__


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-6))


def _peak() -> int:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
