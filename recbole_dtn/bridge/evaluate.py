"""Evaluation of every task by RecBole's Trainer."""

from __future__ import annotations

from typing import Any

from recbole.trainer import Trainer

__all__ = ["evaluate_tasks"]


def evaluate_tasks(trainer: Trainer, data: Any) -> dict[str, dict[str, float]]:
    """Evaluate each task in turn with RecBole's Trainer (which has one label) and the metrics of its config.

    Args:
        trainer: RecBole's Trainer of one of our models. data: its validation or test loader.

    Returns:
        ``{task: {metric: value}}``, rounded to RecBole's ``metric_decimal_place``.
    """
    model, config = trainer.model, trainer.config
    before = model.evaluated_task, config["LABEL_FIELD"]
    found = {}
    try:
        for task, column in model.translator.label_columns.items():
            # predict scores this task, and RecBole's evaluator compares the scores with this column.
            model.evaluated_task, config["LABEL_FIELD"] = task, column
            found[task] = dict(trainer.evaluate(data, load_best_model=False))
    finally:
        model.evaluated_task, config["LABEL_FIELD"] = before
    return found
