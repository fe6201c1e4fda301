"""Logistic regression on one-hot fields, the least that a model of interactions has to exceed."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, Positive, Settings
from recbole_dtn.data.features import Features
from recbole_dtn.data.progress import Meter
from recbole_dtn.layers.compression import Compression
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender, Say
from recbole_dtn.model.direct.onehot import one_hot, stack
from recbole_dtn.model.direct.rows import DirectFit, Floats, Rows, TaskRows, mean_loss, read_rows
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema, TaskSpec

__all__ = ["Logistic", "LogisticSettings"]


class LogisticSettings(Settings):
    """Settings of :class:`Logistic`."""

    inverse_l2: Annotated[
        list[Positive],
        Field(min_length=1, description="values of C, from strong to weak L2, that validation chooses from"),
    ] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    iterations: Annotated[Count, Field(description="most iterations of the solver at each value of C")] = 100
    tolerance: Annotated[Positive, Field(description="largest gradient of the mean loss at which it stops")] = 1e-6


@MODELS.register("Logistic", paper="Cox, 1958")
class Logistic(MultiTaskRecommender):
    """L2-regularised logistic regression of each task on one-hot fields; ridge regression of a regression task.

    ``logit_t = b_t + sum_f w_t[x_f]``. A multi-valued field is the pooled one-hot vector of its values, a continuous
    one its standardised value and an indicator of absence. For each task and each C of ``inverse_l2``::

        min  C sum_b w_b l(logit_b, y_b) + 1/2 |w_t|^2      (the intercept b_t is not penalised)

    over the rows where the task is observed. l is the log loss (the squared error of a regression), w the sample weight
    (scaled to a mean of 1) times ``pos_weight`` of a positive row. The C with the lowest loss on validation is kept;
    larger values are not tried after two in a row have been worse. scikit-learn solves each (Newton's method with
    conjugate gradients; these alone for a regression), starting from the solution for the C before.
    """

    settings_class: ClassVar = LogisticSettings
    fits_directly = True
    deterministic = True

    def build(self, settings: LogisticSettings, schema: DataSchema) -> None:
        """A table of one weight per task, and T intercepts."""
        self.embedding = EmbeddingTable(schema, schema.num_tasks, std=settings.embedding_std)
        self.bias = nn.Parameter(torch.zeros(schema.num_tasks))

    @property
    def compression(self) -> Compression | None:
        """None: every token has its own weight."""
        return None

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T)."""
        logits: Tensor = self.embedding(features).sum(1) + self.bias
        return ModelOutput(logits=logits)

    def fit_directly(self, train: Rows, valid: Rows, *, say: Say, meter: Meter) -> DirectFit:
        """Find the weights of every task and choose its C on validation."""
        encode = partial(one_hot, schema=self.schema)
        known = read_rows(train, encode, stack, meter=meter, stage="one-hot rows")
        held = read_rows(valid, encode, stack, meter=meter, stage="one-hot rows of validation")
        for column, task in enumerate(self.schema.tasks):
            weights, bias = self._fit_task(task, known.task(column, task), held.task(column, task), say, meter)
            with torch.no_grad():
                self.embedding.table.weight[:, column] = torch.from_numpy(weights).to(self.bias)
                self.bias[column] = bias
        return DirectFit()

    def _fit_task(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, say: Say, meter: Meter
    ) -> tuple[Floats, float]:
        """The weights (rows of the table,) and the intercept of one task."""
        none = np.zeros(self.schema.num_rows), train.constant(task.kind)
        if not train.learnable:
            say(f"{task.name}: all {len(train.labels):,} observed training labels are equal; its score is constant")
            return none
        choices = sorted(self.settings.inverse_l2)
        if not len(valid.labels):
            choices = choices[len(choices) // 2 :][:1]
            say(f"{task.name}: no label is observed in validation; C is {choices[0]:g}, the middle of inverse_l2")
        solver, best, kept, losses = _new_solver(task.kind, self.settings), choices[0], none, dict[float, float]()
        for done, c in enumerate(choices):
            meter(f"logistic regression of {task.name}", done, len(choices))
            weights, bias = _solve(solver, c, train)
            losses[c] = mean_loss(task.kind, valid.inputs @ weights + bias, valid) if len(valid.labels) else 0.0
            if losses[c] <= min(losses.values()):
                best, kept = c, (weights.copy(), bias)
            if len(losses) > choices.index(best) + 2:
                break
        meter(f"logistic regression of {task.name}", len(choices), len(choices))
        if len(valid.labels):
            name = "log loss" if task.kind == "binary" else "squared error"
            edge = "" if choices[0] < best < choices[-1] or len(choices) == 1 else ", at an end of inverse_l2"
            say(f"{task.name}: C = {best:g}{edge} (validation {name} {losses[best]:.4f}, {len(losses)} values tried)")
        return kept


def _new_solver(kind: str, settings: LogisticSettings) -> Any:
    # Here, since scikit-learn takes a second to import and only a fit needs it.
    from sklearn.linear_model import LogisticRegression, Ridge

    if kind == "binary":
        # On ml-100k in half the time of L-BFGS at this tolerance. A looser one must not be used with warm starts: the
        # solution for the C before may already meet it, and would be returned as it is.
        options = {"solver": "newton-cg", "warm_start": True}
        return LogisticRegression(max_iter=settings.iterations, tol=settings.tolerance, **options)
    return Ridge(max_iter=settings.iterations, tol=settings.tolerance, solver="sparse_cg")


def _solve(solver: Any, c: float, rows: TaskRows) -> tuple[Floats, float]:
    """Weights and intercept for one C; a solver with ``warm_start`` begins at its last solution."""
    solver.set_params(**({"C": c} if hasattr(solver, "C") else {"alpha": 1 / (2 * c)}))
    with warnings.catch_warnings():
        # A weak penalty may need more iterations than are allowed; validation judges what was found.
        warnings.filterwarnings("ignore", module="sklearn")
        solver.fit(rows.inputs, rows.labels, sample_weight=rows.weights)
    return np.ravel(solver.coef_), float(np.ravel(solver.intercept_)[0])
