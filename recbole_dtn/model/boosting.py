"""Gradient boosting by scikit-learn's histogram trees."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.progress import Meter
from recbole_dtn.model.direct.columns import Matrix, TreeColumns
from recbole_dtn.model.direct.rows import TaskRows
from recbole_dtn.model.direct.tree_model import UNCHECKED, TaskTrees, TreeModel
from recbole_dtn.model.direct.trees import Trees
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec

__all__ = ["Boosting"]

TREES_AT_A_TIME = 25
"""Trees between two reports of progress. Each part bins the rows again, in about the time of a tree."""


class HistogramTrees(TaskTrees):
    """One task's trees, grown by scikit-learn and kept as tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.trees = Trees()

    @property
    def numbers(self) -> int:
        return self.trees.numbers

    def set_constant(self, value: float) -> None:
        self.trees.set_constant(value)

    def scores(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        return self.trees.scores(matrix)

    def fit(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, columns: TreeColumns, settings: Any, meter: Meter
    ) -> tuple[int, int]:
        """See :meth:`TaskTrees.fit`."""
        grown = grow(task.kind, train, valid, columns.categorical, settings, lambda done, total: meter(
            f"boosting of {task.name}", done, total
        ))  # fmt: skip
        made = int(grown.n_iter_)
        # Score 0 is that of no tree. Of equal scores the first counts.
        best = int(np.argmax(grown.validation_score_)) if len(valid.labels) else made
        self.take(grown, best, train, columns)
        return made, best

    def take(self, grown: Any, count: int, train: TaskRows, columns: TreeColumns) -> None:
        """Become the first ``count`` trees of a fitted model of scikit-learn."""
        baseline = float(np.ravel(grown._baseline_prediction)[0])
        if not count:
            self.trees.set_constant(baseline)
            return
        codes = [_present(train.inputs[:, column]) for column in range(columns.categorical)]
        self.trees.take([round_[0] for round_ in grown._predictors[:count]], baseline, codes)


def _present(column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The codes in a column, in order."""
    found = np.unique(column)
    return found[~np.isnan(found)]


def grow(kind: str, train: TaskRows, valid: TaskRows, categorical: int, settings: Any, tell: Any) -> Any:
    """A fitted model of scikit-learn, with the trees that it grew before it stopped; ``tell(done, total)`` is told."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    stops = len(valid.labels) > 0
    model = (HistGradientBoostingClassifier if kind == "binary" else HistGradientBoostingRegressor)(
        learning_rate=settings.shrinkage,
        max_leaf_nodes=settings.max_leaf_nodes,
        l2_regularization=settings.l2,
        categorical_features=[column < categorical for column in range(train.inputs.shape[1])],
        early_stopping=stops,
        n_iter_no_change=settings.stopping_trees,
        scoring="loss",
        warm_start=True,
        # Of the rows that the bins of numbers are computed from, where there are more than 200,000.
        random_state=0,
    )
    checked = {"X_val": valid.inputs, "y_val": valid.labels, "sample_weight_val": valid.weights} if stops else {}
    with threadpool_limits(settings.threads) if settings.threads is not None else nullcontext():
        wanted = settings.max_trees if stops else min(UNCHECKED, settings.max_trees)
        for most in [*range(TREES_AT_A_TIME, wanted, TREES_AT_A_TIME), wanted]:
            model.set_params(max_iter=most)
            model.fit(train.inputs, train.labels, sample_weight=train.weights, **checked)
            tell(model.n_iter_, settings.max_trees)
            if model.n_iter_ < most:
                break
    tell(settings.max_trees, settings.max_trees)
    return model


@MODELS.register("Boosting", paper="Friedman, 2001; Ke et al., NeurIPS 2017")
class Boosting(TreeModel):
    """Gradient boosting of trees for each task, by scikit-learn's histogram trees.

    ``logit_t = c_t + shrinkage sum_k tree_tk(x)`` (its ``HistGradientBoostingClassifier``; the ``Regressor`` for a
    regression task). Token fields are categories, of which a column has 255 at most: of a field with more tokens the
    252 most frequent have a category each, and all others share one. Floats are numbers as they are encoded. A
    multi-valued field is a column for each of its ``list_tokens`` most frequent tokens, and the count of its values.

    The trees are fitted on the rows where the task is observed, with sample weights and ``pos_weight``. The number of
    trees is the one with the lowest loss on our validation rows; growing stops ``stopping_trees`` trees after the best.
    Checkpoints hold the trees as tensors, and scikit-learn is not needed to score. An epoch in the record is a tree.
    """

    task_trees = HistogramTrees
    most_categories = 255
