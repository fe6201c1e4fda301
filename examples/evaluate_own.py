"""A model of another tool on the rows of our split, held against a run (docs/evaluate-your-own.md explains it).

    python run_recbole_dtn.py --model=MMoE --dataset=ml-100k
    python run_recbole_dtn.py data split --dataset=ml-100k --export=rows
    python examples/evaluate_own.py rows runs/ml-100k/MMoE/...

A logistic regression of scikit-learn per task, on one-hot inputs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

from recbole_dtn.serving.score_files import evaluate_files


def inputs(frame: pl.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Every value as a token; DictVectorizer makes one column of each, and several of a list."""
    lists = [name for name in names if frame.schema[name] == pl.List]
    tokens = frame.select(
        pl.col(name) if name in lists else pl.col(name).cast(pl.String).fill_null("") for name in names
    )
    return tokens.with_columns(pl.col(name).fill_null([]) for name in lists).to_dicts()


def write_predictions(folder: Path, file: Path) -> None:
    """Train on ``train``, and write the probabilities of the rows of ``test`` with their number ``row``."""
    about = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    train, test = (pl.read_parquet(folder / f"{part}.parquet") for part in ("train", "test"))
    encoder = DictVectorizer()
    known, new = encoder.fit_transform(inputs(train, about["inputs"])), encoder.transform(inputs(test, about["inputs"]))
    columns = {"row": test["row"]}
    for task in about["tasks"]:
        seen = train[task].is_not_null().to_numpy()
        model = LogisticRegression(C=0.1, max_iter=200).fit(known[seen], train[task].drop_nulls().to_numpy())
        columns[task] = pl.Series(model.predict_proba(new)[:, 1])
    pl.DataFrame(columns).write_parquet(file)


if __name__ == "__main__":
    write_predictions(Path(sys.argv[1]), Path("logistic.parquet"))
    found = evaluate_files(["logistic.parquet"], runs=[sys.argv[2]])
    for test in found.comparisons:
        print(f"{test.task} {test.metric}: {test.difference:+.4f} ± {test.standard_error:.4f}, p {test.p:.3f}")
