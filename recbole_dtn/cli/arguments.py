"""Parsing of a command's options and flags by argparse, with our messages; the help is made of the same options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from recbole_dtn.cli.help_text import PROGRAM, aligned, wrapped
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, nearest

__all__ = ["Command", "boolean", "folder_name", "own_options", "path_option", "real", "split_words", "whole"]


class Command(argparse.ArgumentParser):
    """One command: its options, and its help made of them.

    Args:
        name: how it is called, such as ``leaderboard run``.
        usage: what follows the name in the help's first lines; one line each.
        about: paragraphs of the help, before the options. after: those behind them.
        settings: whether a ``--key=value`` that is not an option of the command is kept as a setting; else it is an
            error.
        place: hint for a word that the command does not take.

    >>> command = Command("test", usage=["--run=FOLDER"])
    >>> command.option("run", "FOLDER", "a run's folder", required=True)
    >>> command.flag("json", "print JSON")
    >>> found = command.parse(["--run", "x", "--json"])
    >>> found.run, found.json, found.words
    ('x', True, [])
    """

    def __init__(
        self,
        name: str,
        *,
        usage: Collection[str] = ("",),
        about: str = "",
        after: str = "",
        settings: bool = False,
        place: str = "",
    ) -> None:
        super().__init__(prog=name, add_help=False, allow_abbrev=False, exit_on_error=False)
        self.lines, self.about, self.after = tuple(usage), about, after
        self.keeps_settings, self.place = settings, place
        self.kinds: dict[str, str] = {}  # option: "value" or "flag"
        self.needed: list[str] = []
        self.shown: list[tuple[str, str]] = []

    def option(
        self,
        name: str,
        metavar: str,
        text: str = "",
        *,
        default: Any = None,
        kind: Callable[[str], Any] = str,
        required: bool = False,
    ) -> None:
        """Add an option that takes a value.

        Args:
            name: without dashes. metavar: placeholder of the value in the help, if there is no default.
            text: its meaning; without one the help leaves it out. default: the value where it is not given.
            kind: makes the value of a text, and raises ``argparse.ArgumentTypeError`` for a wrong one.
            required: whether it must be given.
        """
        self.add_argument(f"--{name}", dest=name, default=default, type=kind)
        self.kinds[name] = "value"
        if required:
            self.needed.append(name)
        if text:
            self.shown.append((f"--{name}={metavar if default is None else default}", text))

    def flag(self, name: str, text: str) -> None:
        """Add an option without a value. ``--name=true`` and ``--name=false`` are accepted too."""
        self.add_argument(f"--{name}", dest=name, action="store_true")
        self.kinds[name] = "flag"
        if text:
            self.shown.append((f"--{name}", text))

    def parse(self, words: list[str], *, most_words: int = 0, complete: bool = True) -> argparse.Namespace:
        """The values of all options, with what else was given under ``words`` and ``settings``.

        Args:
            words: after the command's name. most_words: how many words without dashes it takes.
            complete: whether :meth:`need_all` is called too.

        Raises:
            UsageError: for an unknown option, with the nearest; a missing or wrong value; a word too many.
        """
        try:
            found, rest = self.parse_known_args(list(self._joined(words)))
        except argparse.ArgumentError as error:
            if error.message and "expected one argument" in error.message:
                raise UsageError(f"{error.argument_name} needs a value: {error.argument_name}=...") from None
            raise UsageError(f"{error.argument_name}: {error.message}") from None
        found.words = [word for word in rest if not word.startswith("--")]
        found.settings = [word for word in rest if word.startswith("--")]
        if found.settings and not self.keeps_settings:
            name = found.settings[0].partition("=")[0]
            raise UsageError(f"unknown option {name}; {nearest(name, [f'--{known}' for known in self.kinds])}")
        for name in (word.removeprefix("--").partition("=")[0] for word in found.settings):
            if f"{name}s" in self.kinds and name not in Settings.model_fields:
                raise UsageError(f"unknown option --{name}; did you mean '--{name}s'?")
        if len(found.words) > most_words:
            place = f"; {self.place}" if self.place else ""
            raise UsageError(f"{self.prog}: unexpected word {found.words[most_words]!r}{place}")
        if complete:
            self.need_all(found)
        return found

    def need_all(self, found: argparse.Namespace) -> None:
        """Check that every required option was given.

        Raises:
            UsageError: naming each that is missing.
        """
        missing = [f"--{name}" for name in self.needed if getattr(found, name) in (None, "")]
        if missing:
            raise UsageError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed; --help shows how")

    def _joined(self, words: list[str]) -> Iterator[str]:
        """The words with ``--flag=true`` spelled ``--flag``, hyphens of options ``_``, and ``--setting value`` as one.

        argparse cannot know that the word behind an option of another name is its value.
        """
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            name, equals, text = word.removeprefix("--").partition("=")
            if word.startswith("--") and name not in self.kinds and (same := name.replace("-", "_")) in self.kinds:
                word, name = f"--{same}{equals}{text}", same  # --print-jobs is --print_jobs
            kind = self.kinds.get(name) if word.startswith("--") else "word"
            if kind == "flag" and equals:
                if boolean(text, name):
                    yield f"--{name}"
            elif kind is None and not equals and waiting and not waiting[0].startswith("--"):
                yield f"{word}={waiting.pop(0)}"
            else:
                yield word

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError where argparse would exit."""
        raise UsageError(f"{self.prog}: {message}")

    def help_text(self) -> str:
        """How to call the command, what it does, and its options."""
        lines = [f"{PROGRAM} {self.prog} {line}".rstrip() for line in self.lines]
        lines += _paragraphs(self.about)
        if self.shown:
            lines.append("")
        column = min(max((len(head) for head, _ in self.shown), default=0) + 4, 26)
        for head, text in self.shown:
            lines += aligned(f"  {head}", text, column)
        return "\n".join([*lines, *_paragraphs(self.after)])


def _paragraphs(text: str) -> list[str]:
    """Paragraphs with a blank line before each; lines that begin with a space stay as they are."""
    lines: list[str] = []
    for paragraph in filter(None, text.strip("\n").split("\n\n")):
        rows = paragraph.split("\n")
        kept = any(row.startswith(" ") for row in rows)
        lines += ["", *(rows if kept else wrapped(" ".join(rows)))]
    return lines


# ---- values ---------------------------------------------------------------------------------------------------------


def own_options(settings: list[str], known: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Sort ``--key=value`` words by whether their key is among ``known``: values by key, and the other keys.

    Raises:
        UsageError: for a known option without its value.

    >>> own_options(["--rows=5", "--rwos=6"], ["rows"])
    ({'rows': '5'}, ['rwos'])
    """
    values: dict[str, str] = {}
    others: list[str] = []
    for word in settings:
        name, equals, text = word.removeprefix("--").partition("=")
        if name not in known:
            others.append(name)
        elif not equals:
            raise UsageError(f"--{name} needs a value: --{name}=...")
        else:
            values[name] = text
    return values, others


def boolean(text: str, name: str) -> bool:
    """``true`` or ``false``.

    Raises:
        UsageError: for anything else.
    """
    if text.lower() not in ("true", "false"):
        raise UsageError(f"--{name}: expected true or false; found {text!r}")
    return text.lower() == "true"


def whole(text: str) -> int:
    """A whole number, for ``kind`` of an option.

    >>> whole("1_000")
    1000
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number; found {text!r}") from None


def real(text: str) -> float:
    """A number, for ``kind`` of an option."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number; found {text!r}") from None


def folder_name(name: str) -> str:
    """The name of a data set's folder, checked.

    Raises:
        UsageError: for a path, or a name with spaces or signs that RecBole or a shell misreads.
    """
    if re.search(r"\s", name):
        without = "_".join(name.split())
        raise UsageError(f"--name: spaces are not allowed; found {name!r}" + (f"; try {without!r}" if without else ""))
    if not re.fullmatch(r"[^/\\:\s.][^/\\:\s]*", name):
        raise UsageError(f"--name: expected the name of a folder; found {name!r}; its place is --data_path")
    return name


def path_option(data_path: str | Path) -> str:
    """``--data_path=...`` for the hint at the next command, or nothing where it is the default."""
    return "" if Path(data_path) == Path("dataset") else f" --data_path={data_path}"


def split_words(text: str) -> list[str]:
    """The parts of ``A,B`` (or ``[A, B]``), without empty ones."""
    return [part.strip() for part in text.strip().strip("[]").split(",") if part.strip()]
