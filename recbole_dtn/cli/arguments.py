"""The words of a command that has options of its own."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from recbole_dtn.errors import UsageError, nearest

__all__ = ["Parsed", "folder_name", "parse", "path_option", "split_words"]


@dataclass
class Parsed:
    """What stood on the command line: words, options with a value, flags, and settings for other hands."""

    words: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    settings: list[str] = field(default_factory=list)

    def need(self, *names: str) -> list[str]:
        """Values of options that must be there.

        Raises:
            UsageError: naming every one that is missing.
        """
        missing = [f"--{name}" for name in names if not self.values.get(name)]
        if missing:
            raise UsageError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed; --help shows how")
        return [self.values[name] for name in names]


def parse(
    words: list[str], *, values: Collection[str] = (), flags: Collection[str] = (), settings: bool = False
) -> Parsed:
    """Sort the words of a command.

    Args:
        words: after the command's name. values: options that take a value. flags: options that take none.
        settings: whether any other ``--key=value`` is kept, as a setting; else it is an error.

    Raises:
        UsageError: for an unknown option, with the nearest, and for one without its value.

    >>> parse(["mine", "--raw", "x", "--json"], values=["raw"], flags=["json"])
    Parsed(words=['mine'], values={'raw': 'x'}, flags={'json'}, settings=[])
    """
    parsed = Parsed()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--"):
            parsed.words.append(word)
            continue
        name, equals, text = word[2:].partition("=")
        follows = not equals and bool(waiting) and not waiting[0].startswith("--")
        if name in flags and not equals:
            parsed.flags.add(name)
        elif name in flags and text.lower() in ("true", "false"):
            parsed.flags |= {name} if text.lower() == "true" else set()
        elif name in values:
            if not equals and not follows:
                raise UsageError(f"--{name} needs a value: --{name}=...")
            parsed.values[name] = text if equals else waiting.pop(0)
        elif settings:
            parsed.settings.append(word)
            if follows:
                parsed.settings.append(waiting.pop(0))
        else:
            known = [f"--{known}" for known in (*values, *flags)]
            raise UsageError(f"unknown option --{name}; {nearest(f'--{name}', known)}")
    return parsed


def folder_name(name: str) -> str:
    """The name of a data set's folder, checked.

    Raises:
        UsageError: for a path, or a name that stock RecBole or a shell would stumble over.
    """
    if re.search(r"\s", name):
        without = "_".join(name.split())
        raise UsageError(f"--name: spaces are not allowed; found {name!r}" + (f"; try {without!r}" if without else ""))
    if not re.fullmatch(r"[^/\\:\s.][^/\\:\s]*", name):
        raise UsageError(f"--name: expected the name of a folder; found {name!r}; its place is --data_path")
    return name


def path_option(data_path: str | Path) -> str:
    """What the next command needs to find the data."""
    return "" if Path(data_path) == Path("dataset") else f" --data_path={data_path}"


def split_words(text: str) -> list[str]:
    """The parts of ``A,B`` (or ``[A, B]``), without empty ones."""
    return [part.strip() for part in text.strip().strip("[]").split(",") if part.strip()]
