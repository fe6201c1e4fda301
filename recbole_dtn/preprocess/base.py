"""The base of every preprocessor: raw files in, atomic files out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.preprocess import PreprocessOptions, preprocess_options
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.staging import dataset_files, staged
from recbole_dtn.data.write import replace_file, write_dataset_yaml
from recbole_dtn.errors import DataError, TooManyRejectedError
from recbole_dtn.preprocess.advice import amount, duration, missing_files
from recbole_dtn.preprocess.raw_files import TEXT_PER_BYTE, RawFile, RawFolder
from recbole_dtn.preprocess.rejects import FAILED, REJECTED, Rejects
from recbole_dtn.preprocess.stamps import stamps

__all__ = ["RECORD", "Preprocessor", "RawSet", "Work", "read_record"]

RECORD = "preprocess.json"
"""What made a folder's atomic files: the set, its options, and the rows in and out."""


@dataclass(frozen=True)
class Work:
    """What one preprocessing works with.

    Attributes:
        folder: gets the files; they are moved together when all went well. scratch: for what is only passing through.
        log: told what the user should know, a line at a time. meter: told how far the work is.
        rejects: of faulty rows.
    """

    folder: Path
    scratch: Path
    log: Callable[[str], None]
    meter: Meter
    rejects: Rejects


class Preprocessor(ABC):
    """Makes the atomic files of one data set; deterministic, and safe to run again.

    A run that ends early, however that comes, leaves the data set's folder as it was; what it had written elsewhere is
    removed by the next run.

    Args:
        raw: folder of the raw files; None: ``<data_path>/<set>/raw``, or none needed.
        data_path: folder that gets ``<name>/``.
        name: of the data set; None: :attr:`default_name`.

    Attributes:
        default_name: of the folder written. bundled: whether the raw files are installed already.
        source: where the raw files come from, in words.
    """

    default_name: ClassVar[str]
    bundled: ClassVar[bool] = False
    source: ClassVar[str] = "see the data set's publisher"

    def __init__(self, raw: Path | None, data_path: Path, *, name: str | None = None) -> None:
        self.name = name or self.default_name
        self.folder = data_path / self.name
        self.raw = raw or self.folder / "raw"
        self.raw_given = raw is not None
        self.made_by = "preprocess"

    @abstractmethod
    def write(self, work: Work) -> dict[str, int]:
        """Write the files into ``work.folder``; returns ``{file name: rows}``.

        Raises:
            DataError: for raw files that are missing or faulty. TooManyRejectedError: for too many faulty rows.
        """

    def meaning(self) -> dict[str, Any] | None:
        """The data set's YAML, to be written beside the files; None where a shipped one says it, or ``write`` does."""
        return None

    def record(self) -> dict[str, Any]:
        """What the files depend on, for :data:`RECORD`."""
        return {}

    def run(
        self,
        log: Callable[[str], None] = lambda text: None,
        *,
        meter: Meter = silent,
        overwrite: bool = False,
        max_rejected: float = 0.0,
        strict: bool = False,
        with_meaning: bool = True,
    ) -> Path:
        """Write the files and say what was written; returns their folder.

        Args:
            log: told what was written. meter: told how far it is.
            overwrite: replace a data set of that name, with all of its files.
            max_rejected: largest share of faulty rows of a raw table. strict: stop at the first faulty row.
            with_meaning: write the data set's YAML as well, where it says what no other says.

        Raises:
            UsageError: when there is one and ``overwrite`` is not given; files that would be written again as they
                are (of a set whose raw files are installed) do not count.
            TooManyRejectedError: for too many faulty rows; ``rejected.tsv`` in the data set's folder lists them, or
                ``rejected.failed.tsv`` where a data set stays there.
        """
        same = self.bundled and not self.raw_given
        rejected = None
        try:
            with staged(self.folder, self.name, overwrite=overwrite, same=same) as (work, scratch):
                rejects = Rejects(work / REJECTED, max_share=max_rejected, strict=strict)
                try:
                    written = self.write(Work(work, scratch, log, meter, rejects))
                    rejects.finish(log)
                except TooManyRejectedError:
                    rejected = (work / REJECTED).read_bytes()
                    raise
                finally:
                    rejects.close()
                self._finish(work, rejects, with_meaning=with_meaning)
        except TooManyRejectedError as error:
            if rejected is None:
                raise
            listed = self.folder / (FAILED if dataset_files(self.folder) else REJECTED)
            with replace_file(listed) as target:
                target.write(rejected)
            raise TooManyRejectedError(str(error).replace(REJECTED, str(listed))) from None
        for file, rows in written.items():
            log(f"wrote {self.folder / file} ({rows:,} rows)")
        if rejects.count:
            log(f"wrote {self.folder / REJECTED} ({rejects.count:,} rejected rows)")
        return self.folder

    def _finish(self, work: Path, rejects: Rejects, *, with_meaning: bool) -> None:
        if not rejects.count:
            (work / REJECTED).unlink()
        meaning = self.meaning() if with_meaning else None
        if meaning is not None:
            write_dataset_yaml(work / f"{self.name}.yaml", meaning, f"Made by `{self.made_by}`.")
        if rejects.tables:
            content = {**self.record(), "tables": {name: tally.as_dict() for name, tally in rejects.tables.items()}}
            (work / RECORD).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """What made the atomic files of a folder; None where that was not recorded."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


class RawSet(Preprocessor):
    """A public data set whose raw files the user downloads; its protocols are shipped data sets' YAML files.

    Args:
        raw: folder of the raw files; None: ``<data_path>/<set>/raw``. data_path: gets ``<name>/``.
        name: of the data set; None: as the protocol's YAML is called, see :meth:`name_of`.
        options: of the protocol. base: the values of the data set's YAML that the options belong to.

    Attributes:
        set_name: as the registry has it. files: what should lie in the raw folder, a line each, for messages.
        synthetic_rows: of the synthetic set that messages offer; 0: none is.
        bytes_per_second: raw bytes that two cores get through, for the estimate of the time.
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
        """The message about raw files that are not there."""
        return missing_files(self, names)

    def announce(self) -> str:
        """What a run will do and how long that takes; zips inside zips are not unpacked to know it.

        Raises:
            DataError: when raw files are missing.
        """
        folder = RawFolder(self.raw, nested=False)
        found, missing = folder.find_all(self.wanted())
        if missing and not folder.unseen:
            raise DataError(self.missing(missing))
        plain = sum(raw.size for raw in found.values() if not raw.packed)
        packed = sum(raw.size for raw in found.values() if raw.packed) + (folder.unseen if missing else 0)
        slower = any(raw.on_disk_compressed for raw in found.values()) or bool(packed)
        return self._announcement(plain, packed, slower=slower)

    def _announcement(self, plain: int, packed: int, *, slower: bool) -> str:
        """Given bytes of text, bytes of files whose text is packed, and whether anything must be unpacked."""
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
        """The base's values with what the options change, where the shipped YAML of this name does not say the same."""
        values = self.adapted(dict(self.base))
        values["preprocessor"] = self.set_name
        values["preprocess"] = self.options.model_dump(mode="json", exclude_defaults=True)
        shipped = dataset_values(self.name, None)
        given = shipped.get("preprocess") or {}
        if shipped and {**shipped, "preprocess": None} == {**values, "preprocess": None}:
            recorded = preprocess_options(self.set_name, given)
            if recorded == self.options:
                return None
        return values

    def adapted(self, values: dict[str, Any]) -> dict[str, Any]:
        """The data set's YAML as the options make it: tasks, domains."""
        return values
