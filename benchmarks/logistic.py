"""The floor of every comparison: a one-hot logistic regression per task, refitted on the same split.

    python -m benchmarks.logistic --dataset=ml-100k

The strength of its L2 penalty is chosen per task on validation; the test split is read once. A multi-valued field
becomes one indicator per value (divided by their number under mean pooling), a continuous one its standardised value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn.config.load import resolve
from recbole_dtn.preprocess.prepare import Split, prepare
from recbole_dtn.schema import DataSchema

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def design(split: Split, schema: DataSchema) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """One-hot matrix (rows, table rows), labels (rows, T), observed (rows, T)."""
    batch = split.batch(np.arange(split.rows))
    rows, columns, values = [], [], []
    for position, spec in enumerate(schema.fields):
        if spec.single_id:
            ids = batch.ids[:, position].numpy()
            rows.append(np.arange(len(ids)))
            columns.append(ids)
            values.append(np.ones(len(ids)))
        elif spec.kind == "token_seq":
            many = batch.multi[position]
            lengths = np.diff(many.offsets.numpy())
            owner = np.repeat(np.arange(len(lengths)), lengths)
            rows.append(owner)
            columns.append(many.values.numpy())
            values.append(1 / lengths[owner] if spec.pooling == "mean" else np.ones(len(owner)))
        else:
            number = batch.dense[:, schema.dense_fields.index(position)].numpy()
            absent = np.isnan(number)
            rows.append(np.arange(len(number)))
            columns.append(np.where(absent, spec.offset, spec.offset + 1))
            values.append(np.where(absent, 1.0, number))
    matrix = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(split.rows, schema.num_rows)
    )
    return matrix, batch.labels.numpy(), batch.observed.numpy()


def main(argv: Sequence[str]) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__.strip(), "\n\nOptions are the settings of a run: recbole-dtn train --help.")
        return 0
    settings = resolve(list(argv)).settings
    prepared = prepare(settings)
    schema = prepared.schema
    data = {name: design(split, schema) for name, split in prepared.splits.items()}
    for column, task in enumerate(schema.task_names):

        def part(name: str, column: int = column) -> tuple[sparse.csr_matrix, np.ndarray]:
            matrix, labels, observed = data[name]
            keep = observed[:, column]
            return matrix[keep], labels[keep, column]

        def fitted(strength: float, part=part) -> LogisticRegression:
            return LogisticRegression(C=strength, max_iter=300).fit(*part("train"))

        models = [fitted(strength) for strength in STRENGTHS]
        x, y = part("valid")
        scores = [roc_auc_score(y, model.predict_proba(x)[:, 1]) for model in models]
        best = int(np.argmax(scores))
        x, y = part("test")
        probability = models[best].predict_proba(x)[:, 1]
        print(
            json.dumps(
                {
                    "dataset": settings.dataset,
                    "split_seed": settings.split_seed,
                    "task": task,
                    "C": STRENGTHS[best],
                    "valid_auc": round(scores[best], 5),
                    "test_auc": round(roc_auc_score(y, probability), 5),
                    "test_logloss": round(log_loss(y, probability), 5),
                }
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
