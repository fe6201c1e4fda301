"""The base of a public data set: raw files that the user downloads, and protocols as shipped YAML files."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.preprocess import PreprocessOptions, option_words, preprocess_options
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import Preprocessor
from recbole_dtn.preprocess.raw_files import TEXT_PER_BYTE, RawFile, RawFolder
from recbole_dtn.preprocess.stamps import stamps

__all__ = ["PROGRAM", "RawSet", "amount", "data_path_words", "duration"]

PROGRAM = "python run_recbole_dtn.py"
NAMES_SHOWN = 8
GENERATED = ("version", "countries")
"""Options that the generator of synthetic raw files has too."""
BUNDLED_ALIKE = {"ml-1m": "ml-100k"}
"""Sets that have no synthetic version, each with a similar set that needs no download."""


class RawSet(Preprocessor):
    """A public data set whose raw files the user downloads; its protocols are shipped data sets' YAML files.

    Args:
        raw: folder of the raw files; None: ``<data_path>/<set>/raw``. data_path: gets ``<name>/``.
        name: of the data set; None: as the protocol's YAML is called, see :meth:`name_of`.
        options: of the protocol. base: the values of the shipped YAML whose protocol the options are.

    Attributes:
        set_name: as the registry has it. files: expected content of the raw folder, a line each, for messages.
        synthetic_rows: of the synthetic set that messages offer; 0: none is.
        bytes_per_second: raw bytes that two cores process in a second, for the time estimate.
    """

    set_name: ClassVar[str]
    files: ClassVar[Sequence[str]] = ()
    synthetic_rows: ClassVar[int] = 100_000
    bytes_per_second: ClassVar[float] = 20e6

    def __init__(
        self,
        raw: Path | None,
        data_path: Path,
        *,
        options: PreprocessOptions,
        base: Mapping[str, Any],
        name: str | None = None,
    ) -> None:
        self.options, self.base, self.data_path = options, dict(base), data_path
        super().__init__(raw or data_path / self.set_name / "raw", data_path, name=name or self.name_of(options))
        self._stamps: list[dict[str, Any]] = []
        self.raw_given = raw is not None
        self.made_by = f"preprocess {self.set_name}"

    @classmethod
    def name_of(cls, options: PreprocessOptions) -> str:
        """The data set's name where none is given: that of the protocol's shipped YAML."""
        return protocols(cls.set_name).get(options.protocol, cls.set_name)

    @abstractmethod
    def wanted(self) -> list[str]:
        """Names of the raw files that these options need."""

    def open_raw(self, scratch: Path | None = None) -> dict[str, RawFile]:
        """The raw files by name.

        Raises:
            DataError: naming what is missing, where it comes from and the command that makes a synthetic set.
        """
        found, missing = RawFolder(self.raw, scratch).find_all(self.wanted())
        if missing:
            raise DataError(self.missing(missing))
        self._stamps = stamps(found.values(), self.raw)
        return found

    def missing(self, names: Sequence[str]) -> str:
        """The message about missing raw files: where they come from, and commands that work without them."""
        lines = [f"{self.raw}: the raw files {', '.join(names)} are missing; {_found_in(self.raw)}."]
        lines.append(f"Where they come from: {self.source}")
        if self.files:
            lines.append(f"Put them into {self.raw} as they are (archives, .gz and .zst are read as well):")
            lines += [f"  {line}" for line in self.files]
        if self.synthetic_rows:
            lines.append("Or try it on a synthetic set of the same layout:")
            lines += [f"  {command}" for command in self._synthetic_commands()]
        elif self.set_name in BUNDLED_ALIKE:
            alike = BUNDLED_ALIKE[self.set_name]
            lines.append(f"Or train on {alike}, which needs no download: {PROGRAM} --dataset={alike}")
        return "\n".join(lines)

    def _synthetic_commands(self) -> list[str]:
        """Commands that generate synthetic raw files, preprocess them and train on them."""
        words = option_words(self.set_name, self.options)
        shared = [word for word in words if word[2:].partition("=")[0] in GENERATED]
        kind = "-".join([self.set_name, *(word.partition("=")[2].lower().replace(",", "-") for word in shared)])
        protocol = "".join(f"-{word.partition('=')[2]}" for word in words if word.startswith("--protocol="))
        name = f"{kind}{protocol}-synthetic"
        raw = self.data_path / f"{kind}-synthetic" / "raw"
        place, folder = data_path_words(self.data_path), shlex.quote(str(raw))
        rows = f"--rows={self.synthetic_rows}"
        commands = [
            ["preprocess synthetic", f"--like={self.set_name}", rows, *shared, f"--output={folder}"],
            [f"preprocess {self.set_name}", f"--raw={folder}", *words, f"--name={name}", *place],
            [f"--dataset={name}", *place],
        ]
        # Written last by the generator, so that the set is complete.
        if (raw / "planted.json").is_file():  # the raw files were generated before
            del commands[0]
        return [" ".join([PROGRAM, *command]) for command in commands]

    def announce(self) -> str:
        """What a run will do and how long that takes; does not unpack zips inside zips.

        Raises:
            DataError: when raw files are missing.
        """
        folder = RawFolder(self.raw, nested=False)
        found, missing = folder.find_all(self.wanted())
        # A missing file may lie in a zip inside a zip, which was not looked into: the run itself finds out.
        if missing and not folder.unseen:
            raise DataError(self.missing(missing))
        plain = sum(raw.size for raw in found.values() if not raw.packed)
        packed = sum(raw.size for raw in found.values() if raw.packed) + (folder.unseen if missing else 0)
        slower = any(raw.on_disk_compressed for raw in found.values()) or bool(packed)
        return self._announcement(plain, packed, slower=slower)

    def _announcement(self, plain: int, packed: int, *, slower: bool) -> str:
        """The announcement: bytes of plain text, bytes of compressed files, and whether anything must be unpacked."""
        time = duration((plain + TEXT_PER_BYTE * packed) / self.bytes_per_second)
        size = amount(plain + packed)
        if packed:
            size += ", compressed"
        if slower:
            time = time.replace("about", "at least")
        return (
            f"found the raw files in {self.raw} ({size}): making {self.folder} under protocol "
            f"{self.options.protocol!r}, once; {time} on two cores"
        )

    def record(self) -> dict[str, Any]:
        """Set, options, and the raw files that were opened; whether they lay in a folder that was given."""
        options = self.options.model_dump(mode="json")
        return {"set": self.set_name, "options": options, "raw": {"given": self.raw_given, "files": self._stamps}}

    def meaning(self) -> dict[str, Any] | None:
        """The base's values as the options change them; None where the shipped YAML of this name has the same."""
        values = self.adapted(dict(self.base))
        values["preprocessor"] = self.set_name
        values["preprocess"] = self.options.model_dump(mode="json", exclude_defaults=True)
        shipped = dataset_values(self.name, None)
        given = shipped.get("preprocess") or {}
        # Options are compared as parsed, so that a default written out equals one left out.
        if shipped and {**shipped, "preprocess": None} == {**values, "preprocess": None}:
            recorded = preprocess_options(self.set_name, given)
            if recorded == self.options:
                return None
        return values

    def adapted(self, values: dict[str, Any]) -> dict[str, Any]:
        """The data set's YAML as the options make it: tasks, domains."""
        return values


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


def data_path_words(data_path: Path) -> list[str]:
    """``--data_path`` as a command has to spell it; nothing for the default folder."""
    return [] if data_path == Path("dataset") else [f"--data_path={shlex.quote(str(data_path))}"]


def _found_in(raw: Path) -> str:
    """The content of a raw folder, for messages."""
    if raw.is_file():
        return "that is a file, expected a folder"
    if not raw.is_dir():
        return "there is no such folder"
    found = sorted(f"{path.name}/" if path.is_dir() else path.name for path in raw.iterdir())
    if not found:
        return "the folder is empty"
    more = f", ... ({len(found):,} in all)" if len(found) > NAMES_SHOWN else ""
    return f"found there: {', '.join(found[:NAMES_SHOWN])}{more}"
