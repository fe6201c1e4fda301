"""Gradient boosting by LightGBM, an extra."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.progress import Meter
from recbole_dtn.model.direct.columns import Matrix, TreeColumns
from recbole_dtn.model.direct.rows import TaskRows
from recbole_dtn.model.direct.stored import StoredTrees, require
from recbole_dtn.model.direct.tree_model import UNCHECKED, TreeModel
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec

__all__ = ["LightGBM"]


class LightGBMTrees(StoredTrees):
    """One task's trees, kept as LightGBM's text."""

    package = "lightgbm"

    def grow(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, columns: TreeColumns, settings: Any, meter: Meter
    ) -> tuple[bytes, int, int, int]:
        """See :meth:`StoredTrees.grow`."""
        lightgbm = require(self.package)
        known = {"categorical_feature": list(range(columns.categorical)), "free_raw_data": False}
        rows = lightgbm.Dataset(train.inputs, train.labels, weight=train.weights, **known)
        checked = len(valid.labels) > 0
        most = settings.max_trees if checked else min(UNCHECKED, settings.max_trees)
        grown = 0

        def tell(found: Any) -> None:
            nonlocal grown
            grown = found.iteration + 1
            meter(f"boosting of {task.name}", grown, most)

        stop = [lightgbm.early_stopping(settings.stopping_trees, verbose=False)] if checked else []
        trees = lightgbm.train(
            {
                "objective": "binary" if task.kind == "binary" else "regression",
                "learning_rate": settings.shrinkage,
                "num_leaves": settings.max_leaf_nodes,
                "lambda_l2": settings.l2,
                "num_threads": settings.threads or 0,
                "deterministic": True,
                "force_row_wise": True,
                "seed": 0,
                "verbosity": -1,
            },
            rows,
            num_boost_round=most,
            valid_sets=[rows.create_valid(valid.inputs, valid.labels, weight=valid.weights)] if checked else None,
            callbacks=[tell, *stop],
        )
        meter(f"boosting of {task.name}", most, most)
        kept = trees.best_iteration if checked else grown
        text = trees.model_to_string(num_iteration=kept)
        leaves = sum(int(found) for found in re.findall(r"^num_leaves=(\d+)$", text, re.MULTILINE))
        return text.encode(), leaves + 3 * (leaves - kept), grown, kept

    def read(self, content: bytes) -> Any:
        """See :meth:`StoredTrees.read`."""
        return require(self.package).Booster(model_str=content.decode())

    def raw(self, trees: Any, matrix: Matrix) -> npt.NDArray[np.float64]:
        """See :meth:`StoredTrees.raw`."""
        found: npt.NDArray[np.float64] = trees.predict(matrix, raw_score=True)
        return found


@MODELS.register("LightGBM", paper="Ke et al., NeurIPS 2017")
class LightGBM(TreeModel):
    """Gradient boosting of trees for each task, by LightGBM; needs ``pip install recbole_dtn[lightgbm]``.

    As :class:`~recbole_dtn.model.boosting.Boosting`, with every token a category of its own. Checkpoints hold
    LightGBM's text of the trees.
    """

    package = "lightgbm"
    task_trees = LightGBMTrees
