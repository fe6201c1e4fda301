"""What the models made of trees share: the columns they read, and one fit after the other for each task."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, NonNegative, Settings
from recbole_dtn.data.features import Features
from recbole_dtn.data.progress import Meter
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.compression import Compression
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender, Say
from recbole_dtn.model.direct.columns import Matrix, TreeColumns
from recbole_dtn.model.direct.rows import DirectFit, Rows, TaskRows, read_rows
from recbole_dtn.schema import DataSchema, TaskSpec

__all__ = ["UNCHECKED", "TaskTrees", "TreeModel", "TreeSettings"]

UNCHECKED = 100
"""Trees of a task without a label in validation, where ``max_trees`` allows as many."""


class TreeSettings(Settings):
    """Settings of the models made of trees."""

    # Not learning_rate, which is RecBole's name of optimizer.lr.
    shrinkage: Annotated[float, Field(gt=0, le=1, description="learning rate: the factor of every tree")] = 0.1
    max_leaf_nodes: Annotated[int, Field(ge=2, description="most leaves of a tree")] = 31
    max_trees: Annotated[Count, Field(description="most trees of a task; validation decides how many are kept")] = 500
    stopping_trees: Annotated[
        Count, Field(description="a task stops after this many trees without a better validation")
    ] = 20
    l2: Annotated[NonNegative, Field(description="L2 of the leaves' values")] = 0.0
    list_tokens: Annotated[
        int, Field(ge=0, description="most frequent tokens of a multi-valued field that become a column each")
    ] = 32


class TaskTrees(nn.Module):
    """The trees of one task, in a state of tensors."""

    def fit(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, columns: TreeColumns, settings: Any, meter: Meter
    ) -> tuple[int, int]:
        """Grow trees on ``train``, as many as have the lowest loss on ``valid``; how many were grown, and kept.

        ``train`` has differing labels. Without rows in ``valid``, ``UNCHECKED`` trees are grown and kept.
        """
        raise NotImplementedError

    def set_constant(self, value: float) -> None:
        """Score every row ``value``."""
        raise NotImplementedError

    def scores(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """(B, P) -> (B,): log-odds of a binary task, the value of a regression."""
        raise NotImplementedError

    @property
    def numbers(self) -> int:
        """How many numbers the trees consist of."""
        raise NotImplementedError


class TreeModel(MultiTaskRecommender):
    """Trees for each task; a model names their class and how many categories a column may have."""

    settings_class: ClassVar[Any] = TreeSettings
    fits_directly = True
    has_gradients = False
    deterministic = True
    task_trees: ClassVar[type[TaskTrees]]
    most_categories: ClassVar[int | None] = None

    def build(self, settings: Any, schema: DataSchema) -> None:
        """Trees for each of the T tasks, none yet."""
        self.trees = nn.ModuleList(self.task_trees() for _ in schema.tasks)

    @property
    def columns(self) -> TreeColumns:
        """The columns of the schema as it is now: RecBole's side may take over that of a checkpoint."""
        return TreeColumns(self.schema, most=self.most_categories, list_tokens=self.settings.list_tokens)

    @property
    def compression(self) -> Compression | None:
        """None: there is no table."""
        return None

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), float64."""
        device = features.ids.device
        matrix = self.columns(features.to("cpu"))
        scores = [torch.from_numpy(trees.scores(matrix)) for trees in self.trees]  # type: ignore[operator]
        return ModelOutput(logits=torch.stack(scores, dim=1).to(device))

    def fit_directly(self, train: Rows, valid: Rows, *, say: Say, meter: Meter) -> DirectFit:
        """Grow the trees of every task and choose their number on validation."""
        columns = self.columns
        left_over = columns.left_over()
        if left_over:
            say(
                f"fields with more tokens than the {self.most_categories} categories of a column, whose rarer tokens "
                f"share one: {', '.join(left_over)}"
            )
        known = read_rows(train, columns, TreeColumns.stack, meter=meter, stage="columns")
        held = read_rows(valid, columns, TreeColumns.stack, meter=meter, stage="columns of validation")
        grown, kept = [1], [1]
        for column, (task, trees) in enumerate(zip(self.schema.tasks, self.trees, strict=True)):
            assert isinstance(trees, TaskTrees)
            rows, checked = known.task(column, task), held.task(column, task)
            if not rows.learnable:
                trees.set_constant(rows.constant(task.kind))
                say(f"{task.name}: all {len(rows.labels):,} observed training labels are equal; its score is constant")
                continue
            made, best = trees.fit(task, rows, checked, columns, self.settings, meter)
            grown.append(made)
            kept.append(best)
            chosen = "no label is observed in validation" if not len(checked.labels) else "chosen on validation"
            say(f"{task.name}: {best:,} of {made:,} trees ({chosen})")
        return DirectFit(max(grown), max(kept))

    def count_parameters(self) -> dict[str, int]:
        """The numbers of the trees, as dense ones."""
        numbers = sum(trees.numbers for trees in self.trees)  # type: ignore[misc]
        return {"embedding": 0, "codebook": 0, "dense": int(numbers)}

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Refused: trees have no gradient.

        Raises:
            UsageError: always.
        """
        name = type(self).__name__
        raise UsageError(
            f"{name} is not trained by gradients, and RecBole's Trainer knows no other way: train it by "
            f"recbole_dtn.fit(model={name!r}), or --model={name}"
        )
