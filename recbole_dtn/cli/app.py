"""Runs a command, and turns errors into messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import recbole_dtn
from recbole_dtn.errors import Preempted, RecBoleDTNError, UsageError, nearest

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
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # so that a reader that has gone is noticed here
        return code
    except RecBoleDTNError as error:
        return _fail(f"error: {error}", error.exit_code, debug)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, debug)
    except Preempted as error:
        return _fail(f"ended by SIGTERM: {str(error) or 'nothing was begun'}", Preempted.exit_code, debug)
    except BrokenPipeError:  # the reader of our output has gone (`... | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # a path that a user gave
            return _fail(f"error: {error.filename}: {error.strerror}", UsageError.exit_code, debug)
        from recbole_dtn.report.faults import describe_fault

        hint = "" if debug else "; --debug shows the traceback"
        return _fail(f"error: {describe_fault(error)}{hint}", 1, debug)


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


def _help_words(command: str, words: list[str]) -> list[str]:
    """The words that say which help is asked for; ``data --help=info`` is ``data info --help``."""
    asked = [word for word in words if word not in ("--help", "-h")]
    return asked if command == "train" else [word.removeprefix("--help=") for word in asked]


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=sys.stderr)
    print(message, file=sys.stderr)
    return code
