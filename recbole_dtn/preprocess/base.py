"""The base of every preprocessor: raw files in, atomic files out."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from recbole_dtn.data.long_lines import MAX_LINE
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.staging import dataset_files, staged
from recbole_dtn.data.write import replace_file, write_dataset_yaml
from recbole_dtn.errors import DataError, TooManyRejectedError
from recbole_dtn.preprocess.rejects import FAILED, REJECTED, Rejects
from recbole_dtn.report.files import read_json

__all__ = ["RECORD", "Preprocessor", "Work", "read_record"]

RECORD = "preprocess.json"
"""File that records how a folder's atomic files were made: the set, its options, and the rows in and out."""


@dataclass(frozen=True)
class Work:
    """Folders and callbacks of one preprocessing run.

    Attributes:
        folder: write the files here; they are moved into place together at the end. scratch: for temporary files.
        log: gets messages for the user, a line at a time. meter: gets the progress.
        rejects: of faulty rows.
    """

    folder: Path
    scratch: Path
    log: Callable[[str], None]
    meter: Meter
    rejects: Rejects


class Preprocessor(ABC):
    """Makes the atomic files of one data set; deterministic, and safe to run again.

    A run that fails or is killed leaves the data set's folder unchanged; the next run removes its temporary files.

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
        """The data set's YAML, written beside the files; None where it is shipped, or ``write`` writes it."""
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
        max_line: int = MAX_LINE,
        with_meaning: bool = True,
    ) -> Path:
        """Write the files and log what was written; returns their folder.

        Args:
            log: called with a line on what was written. meter: gets the progress.
            overwrite: replace a data set of that name, with all of its files.
            max_rejected: largest share of faulty rows of a raw table. strict: stop at the first faulty row.
            max_line: bytes of the longest line of a raw text table; a longer one ends the run.
            with_meaning: also write the data set's YAML, where :meth:`meaning` gives one.

        Raises:
            UsageError: when a data set is there and ``overwrite`` is not given, unless its raw files are installed and
                the same files would be written.
            TooManyRejectedError: for too many faulty rows; ``rejected.tsv`` in the data set's folder lists them, or
                ``rejected.failed.tsv`` where a data set stays there.
        """
        # Files made from installed raw files are the same each time: writing them again is no overwriting.
        same = self.bundled and not self.raw_given
        rejected = None
        try:
            with staged(self.folder, self.name, overwrite=overwrite, same=same) as (work, scratch):
                rejects = Rejects(work / REJECTED, max_share=max_rejected, strict=strict, max_line=max_line)
                try:
                    written = self.write(Work(work, scratch, log, meter, rejects))
                    rejects.finish(log)
                except TooManyRejectedError:
                    # Kept in memory, as the staging folder is removed with the error.
                    rejected = (work / REJECTED).read_bytes()
                    raise
                finally:
                    rejects.close()
                self._finish(work, rejects, with_meaning=with_meaning)
        except TooManyRejectedError as error:
            if rejected is None:
                raise
            raise TooManyRejectedError(str(error).replace(REJECTED, str(self._listed(rejected)))) from None
        for file, rows in written.items():
            log(f"wrote {self.folder / file} ({rows:,} rows)")
        if rejects.count:
            log(f"wrote {self.folder / REJECTED} ({rejects.count:,} rejected rows)")
        return self.folder

    def _listed(self, rejected: bytes) -> Path:
        """Write the rejected rows of a failed run; returns their file."""
        # Beside an intact data set the list of the failed run has a name of its own.
        listed = self.folder / (FAILED if dataset_files(self.folder) else REJECTED)
        with replace_file(listed) as target:
            target.write(rejected)
        return listed

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
    """The record of how a folder's atomic files were made; None where there is none."""
    try:
        content = read_json(folder / RECORD)
    except DataError:
        return None
    return content if isinstance(content, dict) else None
