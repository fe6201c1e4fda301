"""Gradient boosting by CatBoost, an extra."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recbole_dtn.data.progress import Meter
from recbole_dtn.model.direct.columns import Matrix, TreeColumns
from recbole_dtn.model.direct.rows import TaskRows
from recbole_dtn.model.direct.stored import StoredTrees, require
from recbole_dtn.model.direct.tree_model import UNCHECKED, TreeModel
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec

__all__ = ["CatBoost"]


class _Progress:
    """CatBoost's callback after each tree."""

    def __init__(self, meter: Meter, stage: str, most: int) -> None:
        self.meter, self.stage, self.most = meter, stage, most

    def after_iteration(self, info: Any) -> bool:
        """Go on."""
        self.meter(self.stage, int(info.iteration), self.most)
        return True


class CatBoostTrees(StoredTrees):
    """One task's trees, kept as CatBoost's own binary format."""

    package = "catboost"

    def grow(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, columns: TreeColumns, settings: Any, meter: Meter
    ) -> tuple[bytes, int, int, int]:
        """See :meth:`StoredTrees.grow`."""
        catboost = require(self.package)
        checked = len(valid.labels) > 0
        most = settings.max_trees if checked else min(UNCHECKED, settings.max_trees)
        stop = {"od_type": "Iter", "od_wait": settings.stopping_trees, "use_best_model": True} if checked else {}
        trees = catboost.CatBoost(
            {
                "loss_function": "Logloss" if task.kind == "binary" else "RMSE",
                "iterations": most,
                "learning_rate": settings.shrinkage,
                "depth": max(1, round(math.log2(settings.max_leaf_nodes))),
                "l2_leaf_reg": settings.l2,
                "thread_count": settings.threads or -1,
                "random_seed": 0,
                "allow_writing_files": False,
                "logging_level": "Silent",
                **stop,
            }
        )

        def pool(rows: TaskRows) -> Any:
            frame = _frame(rows.inputs, columns.categorical)
            return catboost.Pool(frame, rows.labels, weight=rows.weights, cat_features=list(range(columns.categorical)))

        stage = f"boosting of {task.name}"
        trees.fit(pool(train), eval_set=pool(valid) if checked else None, callbacks=[_Progress(meter, stage, most)])
        meter(stage, most, most)
        kept = int(trees.tree_count_)
        grown = len(next(iter(trees.get_evals_result()["learn"].values())))
        leaves = [int(count) for count in trees.get_tree_leaf_counts()]
        numbers = sum(count + round(math.log2(count)) for count in leaves)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trees.cbm"
            trees.save_model(str(file))
            return file.read_bytes(), numbers, grown, kept

    def read(self, content: bytes) -> Any:
        """See :meth:`StoredTrees.read`."""
        return require(self.package).CatBoost().load_model(blob=content)

    def raw(self, trees: Any, matrix: Matrix) -> npt.NDArray[np.float64]:
        """See :meth:`StoredTrees.raw`."""
        found = trees.predict(_frame(matrix, len(trees.get_cat_feature_indices())), prediction_type="RawFormulaVal")
        return np.asarray(found, np.float64)


def _frame(matrix: Matrix, categorical: int) -> pd.DataFrame:
    """Categories as integers, -1 where absent: CatBoost takes no floats for them."""
    columns = {
        place: np.nan_to_num(matrix[:, place], nan=-1.0).astype(np.int64) if place < categorical else matrix[:, place]
        for place in range(matrix.shape[1])
    }
    return pd.DataFrame(columns)


@MODELS.register("CatBoost", paper="Prokhorenkova et al., NeurIPS 2018")
class CatBoost(TreeModel):
    """Gradient boosting of trees for each task, by CatBoost; needs ``pip install recbole_dtn[catboost]``.

    As :class:`~recbole_dtn.model.boosting.Boosting`, with every token a category of its own, which CatBoost replaces
    by the mean label of earlier rows. Its trees are symmetric, of depth ``log2(max_leaf_nodes)``, rounded. Checkpoints
    hold its own binary format.
    """

    package = "catboost"
    task_trees = CatBoostTrees
