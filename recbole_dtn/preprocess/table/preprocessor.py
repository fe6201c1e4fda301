"""CSV, TSV or Parquet tables of a user's own -> atomic files and the YAML of a data set, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from recbole_dtn.config.properties import read_typed
from recbole_dtn.data.ahead import ahead
from recbole_dtn.data.long_lines import MAX_LINE
from recbole_dtn.data.progress import Meter, silent
from recbole_dtn.data.write import ReadyRows, write_atomic, write_dataset_yaml
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import Preprocessor, Work
from recbole_dtn.preprocess.table.numbers import Numbers
from recbole_dtn.preprocess.table.plain_rows import PlainRows
from recbole_dtn.preprocess.table.plan import Plan
from recbole_dtn.preprocess.table.scan import input_files, open_tables
from recbole_dtn.preprocess.table.spec import ReaderSpec, TableSpec
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["ReaderSpec", "Table", "TableSpec", "preprocess_table"]

MAX_REJECTED = 0.001


@PREPROCESSORS.register("table")
class Table(Preprocessor):
    """Tables of your own: CSV, TSV or Parquet, one file or several.

    Args:
        raw: unused. data_path, name: the data set is written into ``<data_path>/<name>/``.
        input: one file, a pattern of files (``logs/*.parquet``), or several with commas between: ``.csv``, ``.tsv``,
            ``.txt`` (each also ``.gz`` or ``.zst``) or ``.parquet``; of several, all have the same columns.
        spec: a YAML file, :class:`TableSpec`.
    """

    default_name = ""
    source = "your own table"

    def __init__(
        self,
        raw: Path | None,
        data_path: Path,
        *,
        name: str,
        input: Annotated[str, Field(description="a file, a pattern of files, or several with commas between")],
        spec: Annotated[str, Field(description="a YAML file that names fields and tasks")],
    ) -> None:
        super().__init__(raw, data_path, name=name)
        self.input = str(input)
        self.spec = Path(spec)
        self.made_by = "preprocess table"

    def write(self, work: Work) -> dict[str, int]:
        spec = read_typed(self.spec, TableSpec)
        plan = Plan(spec, self.spec)
        files = input_files(self.input)
        tables = open_tables(files, spec.reader)
        wanted = plan.wanted(tables.schema, files[0].name)
        tally = work.rejects.table("table")
        tally.unit = tables.unit
        numbers = Numbers(plan, tables.schema, tally)

        plain = PlainRows.of(plan, tables.schema)

        def frames() -> Iterator[pl.DataFrame | ReadyRows]:
            for block in tables.blocks(wanted, tally, work.meter, plain):
                if isinstance(block, ReadyRows):
                    tally.written += block.height
                    yield block
                else:
                    yield numbers.made(block)

        file = f"{self.name}.inter"
        try:
            rows = write_atomic(ahead(frames(), 1), work.folder / file, plan.types, gaps=plan.gaps)
        except pl.exceptions.PolarsError as error:  # a Parquet column of a type that is no number, list or text
            raise DataError(f"{self.input}: cannot be written as a data set: {str(error).splitlines()[0]}") from None
        if not tally.rows_in:
            raise DataError(f"{self.input}: holds no rows")
        numbers.warn(work.log)
        names = files[0].name if len(files) == 1 else f"{len(files)} files, {files[0].name} to {files[-1].name}"
        write_dataset_yaml(
            work.folder / f"{self.name}.yaml", plan.dataset(), f"Made by `preprocess table` from {names}."
        )
        return {file: rows}

    def record(self) -> dict[str, Any]:
        return {"set": "table", "options": {"input": self.input, "spec": str(self.spec)}}


def preprocess_table(
    input: Path | str,
    spec: Path,
    name: str,
    data_path: Path,
    *,
    log: Callable[[str], None] = lambda text: None,
    meter: Meter = silent,
    overwrite: bool = False,
    max_rejected: float = MAX_REJECTED,
    strict: bool = False,
    max_line: int = MAX_LINE,
) -> Path:
    """Write ``<data_path>/<name>/<name>.inter`` and ``<name>.yaml``; ``--dataset=<name>`` then trains on it.

    Faulty rows are left out and listed in ``rejected.tsv``.

    Raises:
        UsageError: for a spec that is wrong or names columns that are not there, and for a data set that is there
            already, without ``overwrite``. DataError: for a file that is no table. TooManyRejectedError: for a share
            of faulty rows above ``max_rejected``, or with ``strict`` the first of them.
    """
    table = Table(None, data_path, name=name, input=str(input), spec=str(spec))
    return table.run(log, meter=meter, overwrite=overwrite, max_rejected=max_rejected, strict=strict, max_line=max_line)
