"""Census-Income (KDD): ``census-income.data`` and ``census-income.test`` of the UCI archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.config.preprocess import PreprocessOptions
from recbole_dtn.data.escape import escape_series
from recbole_dtn.data.hashing import uniform
from recbole_dtn.preprocess.base import Work
from recbole_dtn.preprocess.census.options import CensusIncomeOptions
from recbole_dtn.preprocess.lines import LINE, line_blocks, read_table
from recbole_dtn.preprocess.part_files import PartFiles, keep_sound
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.preprocess.rejects import Tally
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["COLUMNS", "LABELS", "NUMERIC", "CensusIncome", "census_fields", "is_valid"]

COLUMNS = (
    "age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour", "hs_college", "marital_stat",
    "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex", "union_member", "unemp_reason",
    "full_or_part_emp", "capital_gains", "capital_losses", "stock_dividends", "tax_filer_stat", "region_prev_res",
    "state_prev_res", "det_hh_fam_stat", "det_hh_summ", "instance_weight", "mig_chg_msa", "mig_chg_reg",
    "mig_move_reg", "mig_same", "mig_prev_sunbelt", "num_emp", "fam_under_18", "country_father", "country_mother",
    "country_self", "citizenship", "own_or_self", "vet_question", "vet_benefits", "weeks_worked", "year", "income_50k",
)  # fmt: skip
"""The 42 columns; the files have no header."""
NUMERIC = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends", "num_emp", "weeks_worked"
)  # fmt: skip
WEIGHT = "instance_weight"
LABELS = {
    "income": ("income_50k", "income_above_50k"),
    "marital": ("marital_stat", "never_married"),
    "education": ("education", "college"),
}
"""Of each task the column that it is made of, and the 0/1 column."""
INCOMES = ("- 50000.", "50000+.")
NEVER = "Never married"
MARITAL = (
    NEVER, "Married-civilian spouse present", "Married-spouse absent", "Separated", "Divorced", "Widowed",
    "Married-A F spouse present",
)  # fmt: skip
SCHOOL = (
    "Children", "Less than 1st grade", "1st 2nd 3rd or 4th grade", "5th or 6th grade", "7th and 8th grade", "9th grade",
    "10th grade", "11th grade", "12th grade no diploma", "High school graduate",
)  # fmt: skip
SOME_COLLEGE = (
    "Some college but no degree", "Associates degree-occup /vocational", "Associates degree-academic program",
)  # fmt: skip
BACHELOR = (
    "Bachelors degree(BA AB BS)", "Masters degree(MA MS MEng MEd MSW MBA)", "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
)  # fmt: skip
TYPES = {
    **{name: "float" if name in (*NUMERIC, WEIGHT) else "token" for name in COLUMNS},
    **{label: "float" for _, label in LABELS.values()},
}
LARGEST = 1_000_000
"""No column has more: amounts end at 99,999, the weight below 20,000."""
TRAIN, TEST = "census-income.data", "census-income.test"


@PREPROCESSORS.register("census-income", paper="UCI archive", options=CensusIncomeOptions)
class CensusIncome(RawSet):
    """Census-Income (KDD): income, marital status, education.

    ``.inter`` has a row per person: at most 40 inputs, and 0/1 columns of income, marital status and education.

    The official test file is cut into validation and test by a hash of ``split_seed`` and the row's line
    (:func:`is_valid`): in halves up to chance, and streaming. The files hold all columns whatever the tasks are; the
    data set's YAML leaves out of the inputs what a task is made of.
    """

    set_name = "census-income"
    source = (
        "UCI archive, Census-Income (KDD), census-income.tar.gz: an extract of the US Census Bureau's Current "
        "Population Surveys of 1994 and 1995"
    )
    files = (
        f"{TRAIN} (199,523 rows; also .gz, .zst)",
        f"{TEST} (99,762 rows; also .gz, .zst); or census-income.tar.gz with both",
    )
    bytes_per_second = 50e6
    options: CensusIncomeOptions

    @classmethod
    def name_of(cls, options: PreprocessOptions) -> str:
        tasks = cast(CensusIncomeOptions, options).tasks
        if sorted(tasks) == ["income", "marital"]:
            return cls.set_name
        if sorted(tasks) == ["education", "marital"]:
            return f"{cls.set_name}-education"
        return "-".join((cls.set_name, *sorted(tasks)))

    def wanted(self) -> list[str]:
        return [TRAIN, TEST]

    def adapted(self, values: dict[str, Any]) -> dict[str, Any]:
        options = self.options
        values["tasks"] = [{"name": name, "label": LABELS[name][1]} for name in options.tasks]
        values["fields"] = census_fields(values["fields"], options.tasks)
        if options.weights:
            values["weight_field"] = WEIGHT
        return values

    def write(self, work: Work) -> dict[str, int]:
        raw = self.open_raw(work.scratch)
        with PartFiles(work.folder, self.name, TYPES) as parts:
            for frame in self._frames(raw[TRAIN], work, work.rejects.table("training file")):
                parts["train"].add(frame)
            for frame in self._frames(raw[TEST], work, work.rejects.table("test file")):
                valid = pl.Series(is_valid(frame[LINE].to_numpy(), self.options.split_seed))
                parts["valid"].add(frame.filter(valid))
                parts["test"].add(frame.filter(~valid))
            return parts.written()

    def _frames(self, raw: RawFile, work: Work, tally: Tally) -> Iterator[pl.DataFrame]:
        """The sound rows of one file, as they are written."""
        college = (*SOME_COLLEGE, *BACHELOR) if self.options.college == "some" else BACHELOR
        made = {
            "income_above_50k": pl.col("income_50k") == INCOMES[1],
            "never_married": pl.col("marital_stat") == NEVER,
            "college": pl.col("education").is_in(college),
        }
        tokens_of = [name for name in COLUMNS if TYPES[name] == "token"]
        with closing(line_blocks(raw, meter=work.meter, max_line=tally.max_line)) as blocks:
            for lines in blocks:
                # Values are separated by a comma and a space.
                frame = read_table(lines, COLUMNS, tally, raw.name, strip=True)
                frame = keep_sound(frame, _checks(), tally, raw.name)
                tally.written += frame.height
                labels = [made[name].cast(pl.Int8).cast(pl.String).alias(name) for name in made]
                tokens = [escape_series(frame[name]) for name in tokens_of]
                yield frame.with_columns(labels).with_columns(tokens)


def is_valid(lines: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.bool_]:
    """Which rows of the official test file are for validation, by their lines (from 1).

    >>> is_valid(np.arange(1, 9), 2020).tolist()
    [True, False, True, True, False, True, False, True]
    """
    return uniform(f"census-income|{seed}", lines) < 0.5


def census_fields(fields: list[dict[str, Any]], tasks: list[Any]) -> list[dict[str, Any]]:
    """The inputs for these tasks, in the order of the raw columns.

    >>> [field["name"] for field in census_fields([{"name": "age"}, {"name": "education"}], ["education", "income"])]
    ['age', 'marital_stat']
    """
    # What a task is made of would give its label away.
    taken = {LABELS[task][0] for task in tasks}
    known = {field["name"]: field for field in fields}
    known |= {column: known.get(column, {"name": column}) for column, _ in LABELS.values()}
    return [known[name] for name in COLUMNS if name in known and name not in taken]


def _checks() -> dict[str, pl.Expr]:
    """``{reason: condition}``: the condition holds for every sound row, the reason is reported for others."""
    checks = {
        f"{name}: expected a number from 0 to {LARGEST:,}": pl.col(name)
        .cast(pl.Float64, strict=False)
        .is_between(0, LARGEST)
        for name in (*NUMERIC, WEIGHT)
    }
    checks["income_50k: expected '- 50000.' or '50000+.'"] = pl.col("income_50k").is_in(INCOMES)
    checks["marital_stat: not one of its 7 values"] = pl.col("marital_stat").is_in(MARITAL)
    checks["education: not one of its 17 values"] = pl.col("education").is_in((*SCHOOL, *SOME_COLLEGE, *BACHELOR))
    return checks
