"""What messages about raw files tell the user to do next: whole commands, sizes and times in words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_dtn.config.preprocess import option_words
from recbole_dtn.config.settings import Settings

if TYPE_CHECKING:
    from recbole_dtn.preprocess.base import RawSet

__all__ = ["amount", "differing", "duration", "make_again", "missing_files"]

PROGRAM = "python run_recbole_dtn.py"
NAMES_SHOWN = 8
GENERATED = ("version", "countries")
"""Options that the generator of synthetic raw files has too."""
BUNDLED_ALIKE = {"ml-1m": "ml-100k"}
"""Sets without a synthetic one, and the set of the same kind that needs no download."""


def amount(size: float) -> str:
    """Bytes in words.

    >>> amount(1.5e9), amount(2.34e6), amount(800)
    ('1.50 GB', '2.3 MB', '1 kB')
    """
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(round(size / 1e3), 1)} kB"


def duration(seconds: float) -> str:
    """An estimated time in words.

    >>> duration(0.2), duration(75), duration(1800)
    ('under a minute', 'about 75 s', 'about 30 min')
    """
    if seconds < 60:
        return "under a minute"
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def missing_files(made: RawSet, names: Sequence[str]) -> str:
    """The message about raw files that are not there, with the commands that do without them."""
    lines = [f"{made.raw}: the raw files {', '.join(names)} are missing; {_held(made.raw)}."]
    lines.append(f"Where they come from: {made.source}")
    if made.files:
        lines.append(f"Put them into {made.raw} as they are (archives, .gz and .zst are read as well):")
        lines += [f"  {line}" for line in made.files]
    if made.synthetic_rows:
        lines.append("Or try it on a synthetic set of the same layout:")
        lines += [f"  {command}" for command in _synthetic(made)]
    elif made.set_name in BUNDLED_ALIKE:
        alike = BUNDLED_ALIKE[made.set_name]
        lines.append(f"Or train on {alike}, which needs no download: {PROGRAM} --dataset={alike}")
    return "\n".join(lines)


def _held(raw: Path) -> str:
    """What is there instead."""
    if raw.is_file():
        return "that is a file, expected a folder"
    if not raw.is_dir():
        return "there is no such folder"
    held = sorted(f"{path.name}/" if path.is_dir() else path.name for path in raw.iterdir())
    if not held:
        return "the folder is empty"
    more = f", ... ({len(held):,} in all)" if len(held) > NAMES_SHOWN else ""
    return f"found there: {', '.join(held[:NAMES_SHOWN])}{more}"


def _synthetic(made: RawSet) -> list[str]:
    """Make raw files, make the data set, train."""
    like = made.set_name
    words = option_words(like, made.options)
    shared = [word for word in words if word[2:].partition("=")[0] in GENERATED]
    kind = "-".join([like, *(word.partition("=")[2].lower().replace(",", "-") for word in shared)])
    protocol = "".join(f"-{word.partition('=')[2]}" for word in words if word.startswith("--protocol="))
    name = f"{kind}{protocol}-synthetic"
    raw = made.data_path / f"{kind}-synthetic" / "raw"
    place = _data_path(made.data_path)
    output = shlex.quote(str(raw))
    commands = [
        ["preprocess synthetic", f"--like={like}", f"--rows={made.synthetic_rows}", *shared, f"--output={output}"],
        [f"preprocess {like}", f"--raw={output}", *words, f"--name={name}", *place],
        [f"--dataset={name}", *place],
    ]
    if (raw / "planted.json").is_file():  # made already
        del commands[0]
    return [" ".join([PROGRAM, *command]) for command in commands]


def make_again(settings: Settings, made: RawSet, record: Mapping[str, Any] | None = None) -> str:
    """The command that makes a data set's files again, with the options that the settings say.

    Args:
        settings: of the run. made: its preprocessor. record: what made the files that are there: where their raw files
            were given, the command has to name their folder.
    """
    recorded = (record or {}).get("raw")
    elsewhere = isinstance(recorded, dict) and recorded.get("given")
    raw = [f"--raw={shlex.quote(settings.raw)}"] if settings.raw else ["--raw=FOLDER"] if elsewhere else []
    name = [] if made.name == made.name_of(made.options) else [f"--name={made.name}"]
    words = [*raw, *option_words(made.set_name, made.options), *name, *_data_path(made.data_path), "--overwrite"]
    return " ".join([PROGRAM, "preprocess", made.set_name, *words])


def differing(found: object, wanted: object) -> str:
    """Two values of an option, as YAML spells them."""
    return f"{json.dumps(found)}, not {json.dumps(wanted)}"


def _data_path(data_path: Path) -> list[str]:
    return [] if data_path == Path("dataset") else [f"--data_path={shlex.quote(str(data_path))}"]
