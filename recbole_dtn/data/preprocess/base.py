"""The base of every preprocessor: raw files in, atomic files out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from recbole_dtn.data.staging import staged

__all__ = ["Preprocessor"]


class Preprocessor(ABC):
    """Makes the atomic files of one data set; deterministic, and safe to run again.

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

    @abstractmethod
    def write(self, folder: Path, log: Callable[[str], None]) -> dict[str, int]:
        """Write the files into ``folder``, from where they are moved together; returns ``{file name: rows}``.

        Raises:
            DataError: for raw files that are missing or faulty.
        """

    def run(self, log: Callable[[str], None] = lambda text: None, *, overwrite: bool = False) -> Path:
        """Write the files and say what was written; returns their folder.

        Args:
            log: told what was written. overwrite: replace a data set of that name, with all of its files.

        Raises:
            UsageError: when there is one and ``overwrite`` is not given; files that would be written again as they
                are (of a set whose raw files are installed) do not count.
        """
        same = self.bundled and not self.raw_given
        with staged(self.folder, self.name, overwrite=overwrite, same=same) as work:
            written = self.write(work, log)
        for file, rows in written.items():
            log(f"wrote {self.folder / file} ({rows:,} rows)")
        return self.folder
