"""One CSV, TSV or Parquet table of a user's own -> atomic files and the YAML of a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from recbole_dtn.config.typed import read_typed
from recbole_dtn.data.preprocess.base import Preprocessor, Work
from recbole_dtn.data.preprocess.numbers import check_numbers
from recbole_dtn.data.preprocess.plan import Plan
from recbole_dtn.data.preprocess.scan import reading_error, scan_table
from recbole_dtn.data.preprocess.spec import ReaderSpec, TableSpec
from recbole_dtn.data.write import write_atomic, write_dataset_yaml
from recbole_dtn.errors import DataError

__all__ = ["ReaderSpec", "Table", "TableSpec", "preprocess_table"]


class Table(Preprocessor):
    """One table of your own.

    Args:
        raw: unused. data_path, name: the data set is written into ``<data_path>/<name>/``.
        input: a ``.csv``, ``.tsv``, ``.txt`` (also ``.gz``) or ``.parquet`` file.
        spec: a YAML file, :class:`TableSpec`.
    """

    default_name = ""
    source = "your own table"

    def __init__(self, raw: Path | None, data_path: Path, *, name: str, input: Path, spec: Path) -> None:
        super().__init__(raw, data_path, name=name)
        self.input = input
        self.spec = spec

    def write(self, work: Work) -> dict[str, int]:
        folder, log = work.folder, work.log
        spec = read_typed(self.spec, TableSpec)
        plan = Plan(spec, self.spec)
        file = f"{self.name}.inter"
        try:
            table = scan_table(self.input, spec.reader)
            schema = table.collect_schema()
            kept = plan.rows(table, schema, self.input)
            check_numbers(plan, kept, schema, self.input, log)
            frames = kept.select(plan.columns(schema).values())
            rows = write_atomic(frames, folder / file, plan.types, gaps=plan.gaps)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(reading_error(self.input, error)) from None
        comment = f"Made by `preprocess table` from {self.input.name}."
        write_dataset_yaml(folder / f"{self.name}.yaml", plan.dataset(), comment)
        return {file: rows}


def preprocess_table(
    input: Path,
    spec: Path,
    name: str,
    data_path: Path,
    *,
    log: Callable[[str], None] = lambda text: None,
    overwrite: bool = False,
) -> Path:
    """Write ``<data_path>/<name>/<name>.inter`` and ``<name>.yaml``; ``--dataset=<name>`` then trains on it.

    Raises:
        UsageError: for a spec that is wrong or names columns that are not there, and for a data set that is there
            already, without ``overwrite``. DataError: for faulty rows.
    """
    return Table(None, data_path, name=name, input=input, spec=spec).run(log, overwrite=overwrite)
