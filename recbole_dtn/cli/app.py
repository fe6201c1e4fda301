"""Runs a command, and turns errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import recbole_dtn
from recbole_dtn.errors import Preempted, RecBoleDTNError, UsageError, errno_of, nearest, why

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train and test one model (the command when none is named)",
    "preprocess": "raw files to atomic files: a known set, or one table of your own",
    "data": "info, validate, split: look at a data set; cache list, cache clear",
    "list": "models, interactions, balancers, losses, metrics, preprocessors, datasets",
    "test": "test a finished run again from its checkpoint",
    "predict": "scores of the rows of files, by a finished run",
    "export": "a finished run as ONNX, or as a program of torch.export",
    "evaluate": "metrics and paired tests of predictions that any tool made",
    "leaderboard": "run models x data sets x splits x seeds and write their table",
    "tune": "search the settings of one model",
    "new": "a model, interaction, balancer, ... of your own: a file that works, and its test",
    "index": "write the index of built-in methods (for contributors)",
}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 failure, 2 usage or input, 3 too many rejected rows, 75 ended by SIGTERM, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    code = 0
    if isinstance(sys.stdout, io.TextIOWrapper):  # an id that the terminal's encoding lacks is shown escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _terminable():
            code = _dispatch(words)
            sys.stdout.flush()  # so that a reader that has gone is noticed here
        return code
    except RecBoleDTNError as error:
        return _fail(f"error: {error}", error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except Preempted as error:
        return _fail(f"ended by SIGTERM: {str(error) or 'no output was written'}", Preempted.exit_code, debug)
    except OSError as error:
        return _system_fault(error, code, debug)
    except Exception as error:
        return _bug(error, debug)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command like Ctrl-C, which removes what is half written; runs have a handler of their own."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # one is enough: what is removed now is removed whole
        raise Preempted("what was not finished is not written")

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _dispatch(words: list[str]) -> int:
    command = "train"
    if words and words[0] in ("--version", "-V"):
        print(f"recbole_dtn {recbole_dtn.__version__}")
        return 0
    if words and not words[0].startswith("-") and "=" not in words[0]:
        command = words.pop(0)
    if command not in COMMANDS:
        raise UsageError(f"unknown command {command!r}; {nearest(command, COMMANDS)}; settings are --key=value")
    # One file per command: a command's imports are paid by who runs it.
    module = importlib.import_module(f"recbole_dtn.cli.{command}")
    if any(word.partition("=")[0] in ("--help", "-h") for word in words):
        print(module.help_text(_help_words(command, words)))
        return 0
    code: int = module.run(words)
    return code


def _system_fault(error: OSError, code: int, debug: bool) -> int:
    """Tell an error of the system: of the standard output, of a path that a user gave, or of a limit.

    Args:
        error: the error. code: of the command, where it had ended before. debug: show the traceback.
    """
    number = errno_of(error)
    if number == errno.EPIPE:  # the reader of our output has gone (`... | head`)
        _forget_output()
        return code
    if _forget_output():
        return _fail(f"error: standard output: cannot be written {why(error)}", code or 1, debug)
    if number in (errno.EMFILE, errno.ENFILE):  # whichever file it was
        return _fail(f"error: a file cannot be opened {why(error)}", 1, debug)
    if error.filename is not None:
        return _fail(f"error: {error.filename}: cannot be read or written {why(error)}", UsageError.exit_code, debug)
    if number is None:
        return _bug(error, debug)
    where = "" if debug else "; --debug shows where"
    return _fail(f"error: standard output (or a file): cannot be written {why(error)}{where}", 1, debug)


def _forget_output() -> bool:
    """Whether what is left to be printed cannot be; it would fail once more when the interpreter ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _bug(error: Exception, debug: bool) -> int:
    """Tell an error that no check foresaw."""
    from recbole_dtn.report.faults import describe_fault

    hint = "" if debug else "; --debug shows the traceback"
    return _fail(f"error: {describe_fault(error)}{hint}", 1, debug)


def _help_words(command: str, words: list[str]) -> list[str]:
    """The words that say which help is asked for; ``data --help=info`` is ``data info --help``."""
    asked = [word for word in words if word not in ("--help", "-h")]
    return asked if command == "train" else [word.removeprefix("--help=") for word in asked]


def _fail(message: str, code: int, debug: bool) -> int:
    from recbole_dtn.report.text import shown

    if debug:
        print(shown(traceback.format_exc()), end="", file=sys.stderr)
    _forget_output()
    print(shown(message), file=sys.stderr)
    return code
