"""Small data sets of unequal rarity for experiments on protocol and defaults; made on first use, in a folder of choice.

``census``, ``kuairand``, ``kuairand-rare`` and ``bandit`` read files that must be there (:data:`SOURCES`, the folder
given by ``--shared``); ``funnel-*`` and ``rare-*`` are drawn from a known model, so that the best AUC is known.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

from recbole_dtn.config.properties import properties_folder, read_yaml
from recbole_dtn.preprocess.census.preprocessor import COLUMNS

__all__ = ["SETS", "Planted", "make"]

SOURCES = {
    "census": "census_income_kdd/census-income.test.gz",
    "kuairand": "kuairand_27k_subset/processed_standard_kcore_15.csv.gz",
    "kuairand-rare": "kuairand_27k_subset/processed_standard_kcore_15.csv.gz",
    "bandit": "open_bandit_men",
}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Planted:
    """A drawn funnel: the second task happens only where the first does.

    Args:
        rows: of the set. rates: of the first task, and of the second given the first. signal: standard deviation of
            the log-odds of either task. interactions: share of that variance in products of two fields. seed: of the
            draw.
    """

    rows: int
    rates: tuple[float, float]
    signal: tuple[float, float]
    interactions: float
    seed: int


PLANTED = {
    "funnel-a": Planted(64_000, (0.147, 0.06), (0.55, 0.7), 0.25, 1),
    "funnel-b": Planted(64_000, (0.25, 0.03), (0.8, 0.8), 0.25, 2),
    "rare-a": Planted(100_000, (0.01, 0.2), (1.0, 0.7), 0.25, 3),
    "rare-b": Planted(100_000, (0.05, 0.02), (1.0, 1.0), 0.25, 4),
}
SIZES = (2, 3, 5, 8, 12, 20, 50, 4, 2, 200)
SETS = ("ml-100k", *SOURCES, *PLANTED)


def make(name: str, data_path: Path, shared: Path | None) -> None:
    """Write the atomic files of a set, unless they are there."""
    if name == "ml-100k" or (data_path / name / f"{name}.yaml").is_file():
        return
    if name in PLANTED:
        frame, spec = _planted(PLANTED[name])
    elif shared is None or not (shared / SOURCES[name]).exists():
        raise SystemExit(f"{name}: its file {SOURCES[name]} is not under --shared={shared}")
    else:
        frame, spec = READERS[name](shared / SOURCES[name])
    _write(name, frame, spec, data_path)


def _write(name: str, frame: pl.DataFrame, spec: Mapping[str, Any], data_path: Path) -> None:
    from recbole_dtn.cli.app import main

    data_path.mkdir(parents=True, exist_ok=True)
    table, file = data_path / f"{name}.csv", data_path / f"{name}.spec.yaml"
    frame.write_csv(table)
    file.write_text(yaml.safe_dump(dict(spec), sort_keys=False), encoding="utf-8")
    status = main(
        ["preprocess", "table", f"--input={table}", f"--spec={file}", f"--name={name}", f"--data_path={data_path}"]
    )
    table.unlink()
    if status:
        raise SystemExit(status)


def _census(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The official test part, all fields but the survey weight; floats as the shipped data set encodes them."""
    shipped = read_yaml(properties_folder() / "dataset" / "census-income.yaml")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [[cell.strip() for cell in line.rstrip("\n").split(",")] for line in lines]
    frame = pl.DataFrame(rows, schema=list(COLUMNS), orient="row")
    frame = frame.with_columns(
        income=(pl.col("income_50k") == "50000+.").cast(pl.Int8),
        marital=(pl.col("marital_stat") == "Never married").cast(pl.Int8),
    )
    fields = shipped["fields"]
    tasks = [{"name": "income", "label": "income"}, {"name": "marital", "label": "marital"}]
    kept = [entry["name"] for entry in fields]
    return frame.select(*kept, "income", "marital"), {"fields": fields, "tasks": tasks, "split": "random"}


def _kuairand(path: Path, tasks: Sequence[tuple[str, str, str | None]]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """User, video, hour and length of the video; play time and the other feedback are outcomes."""
    frame = pl.read_csv(path, separator="\t", infer_schema_length=100_000)
    fields: list[dict[str, Any]] = [
        {"name": "user_id"},
        {"name": "video_id"},
        {"name": "hour"},
        {"name": "duration_ms", "type": "float", "encoding": "bins", "bins": 20},
    ]
    frame = frame.with_columns(
        hour=pl.col("hourmin") // 100,
        long_click=((pl.col("long_view") == 1) & (pl.col("is_click") == 1)).cast(pl.Int8),
    )
    labels = [{"name": name, "label": label, **({"after": [after]} if after else {})} for name, label, after in tasks]
    kept = [*(entry["name"] for entry in fields), *(label for _, label, _ in tasks)]
    spec = {"fields": fields, "tasks": labels, "split": "random", "group_field": "user_id"}
    return frame.select(kept), spec


def _bandit(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Both policies; the true display probability is no input."""
    parts = [
        pl.read_csv(path / policy / "men.csv.gz").with_columns(policy=pl.lit(policy)) for policy in ("random", "bts")
    ]
    frame = pl.concat(parts)
    names = ["item_id", "position", "policy", *(f"user_feature_{number}" for number in range(4))]
    frame = frame.with_columns(hour=pl.col("timestamp").str.slice(11, 2)).select(*names, "hour", "click")
    fields = [{"name": name} for name in (*names, "hour")]
    return frame, {"fields": fields, "tasks": [{"name": "click", "label": "click"}], "split": "random"}


READERS: dict[str, Callable[[Path], tuple[pl.DataFrame, dict[str, Any]]]] = {
    "census": _census,
    "kuairand": lambda path: _kuairand(
        path, [("click", "is_click", None), ("long_view", "long_click", "click")]
    ),
    "kuairand-rare": lambda path: _kuairand(
        path,
        [("click", "is_click", None), *((name, f"is_{name}", None) for name in ("comment", "forward", "follow"))],
    ),
    "bandit": _bandit,
}  # fmt: skip


def _drawn(about: Planted) -> tuple[list[npt.NDArray[np.int64]], list[Floats], list[npt.NDArray[np.bool_]]]:
    """Token fields of Zipf-like values, chances of the two tasks (the second given the first), and drawn labels."""
    draw = np.random.default_rng(about.seed)
    columns = []
    for size in SIZES:
        share = 1 / np.arange(1, size + 1) ** 0.7
        columns.append(draw.choice(size, about.rows, p=share / share.sum()))
    pairs = zip(about.rates, about.signal, strict=True)
    chances = [_chance(columns, rate, signal, about.interactions, draw) for rate, signal in pairs]
    first = draw.random(about.rows) < chances[0]
    return columns, chances, [first, first & (draw.random(about.rows) < chances[1])]


def _planted(about: Planted) -> tuple[pl.DataFrame, dict[str, Any]]:
    columns, _, labels = _drawn(about)
    data: dict[str, Any] = {f"f{position}": column for position, column in enumerate(columns)}
    data |= {name: label.astype(np.int8) for name, label in zip(("visit", "buy"), labels, strict=True)}
    tasks = [{"name": "visit", "label": "visit"}, {"name": "buy", "label": "buy", "after": ["visit"]}]
    spec = {"fields": [{"name": f"f{position}"} for position in range(len(SIZES))], "tasks": tasks, "split": "random"}
    return pl.DataFrame(data), spec


def best_auc(name: str) -> dict[str, float]:
    """AUC of the true probabilities over all rows of a planted set."""
    from sklearn.metrics import roc_auc_score

    _, chances, labels = _drawn(PLANTED[name])
    scores = chances[0], chances[0] * chances[1]
    visit, buy = (float(roc_auc_score(*pair)) for pair in zip(labels, scores, strict=True))
    return {"visit": visit, "buy": buy}


def _chance(
    columns: Sequence[npt.NDArray[np.int64]], rate: float, signal: float, share: float, draw: np.random.Generator
) -> Floats:
    """P(y = 1 | x) with mean ``rate`` and log-odds of standard deviation ``signal``, ``share`` of it by products."""
    main, products = np.zeros(len(columns[0])), np.zeros(len(columns[0]))
    for size, column in zip(SIZES, columns, strict=True):
        main += draw.normal(size=size)[column]
    for left, right in zip(range(0, 8, 2), range(1, 8, 2), strict=True):
        products += draw.normal(size=(SIZES[left], SIZES[right]))[columns[left], columns[right]]
    score = signal * (np.sqrt(1 - share) * main / main.std() + np.sqrt(share) * products / products.std())
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-(middle + score)))).mean() < rate else (low, middle)
    return np.asarray(1 / (1 + np.exp(-(low + score))), dtype=np.float64)
