"""A finished run, loaded again: to score new rows, and to repeat its test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from recbole_dtn.config.load import restore
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import RunRecord, read_record
from recbole_dtn.registry import MODELS, load_plugins
from recbole_dtn.training.allocator import keep_large_blocks

__all__ = ["LoadedRun", "load"]


class LoadedRun:
    """A model with the vocabularies it was trained with.

    Attributes:
        model: in evaluation mode, on the CPU. vocabularies: of the training split. record: the run's record.
    """

    def __init__(
        self, model: MultiTaskRecommender, settings: Settings, vocabularies: Vocabularies, record: RunRecord
    ) -> None:
        self.model = model.eval()
        self.settings = settings
        self.vocabularies = vocabularies
        self.record = record

    @torch.inference_mode()
    def predict(self, frame: pl.DataFrame, *, batch_size: int = 8192) -> pl.DataFrame:
        """Score raw field values.

        Args:
            frame: one column per field of the data set, values as in the atomic files (a multi-valued field as a
                list, or as text with spaces between); unknown tokens are fine, a null is an absent value.
            batch_size: rows scored at a time.

        Returns:
            One column per task, in the frame's row order: the probability of a binary task, the value of a regression.

        Raises:
            UsageError: when a column is missing.
        """
        if not isinstance(frame, pl.DataFrame):
            raise UsageError(
                f"predict: expected a polars.DataFrame, found {type(frame).__name__}: make one by pl.DataFrame(), "
                "or pl.from_pandas()"
            )
        schema = self.model.schema
        parts = []
        for start in range(0, max(frame.height, 1), batch_size):
            features = self.vocabularies.encode(frame.slice(start, batch_size), schema)
            if len(features):
                parts.append(self.scores(features))
        scores = torch.cat(parts) if parts else torch.empty(0, schema.num_tasks)
        return pl.DataFrame({name: scores[:, column].numpy() for column, name in enumerate(schema.task_names)})

    @torch.inference_mode()
    def scores(self, features: Features) -> Tensor:
        """Score a ready batch (``vocabularies.encode``, or a loader's), without a frame on either side.

        Returns:
            (B, T): the probability of a binary task, the value of a regression.
        """
        found: Tensor = self.model.probabilities(self.model(features).logits)
        return found

    @torch.inference_mode()
    def test(self, split: str = "test") -> dict[str, dict[str, float | None]]:
        """Metrics on a split of the run's own data, read again from its files."""
        prepared = prepare(self.settings)
        if prepared.fingerprint != self.record.data_fingerprint:
            raise DataError(
                f"the data under {self.settings.data_path} has changed since this run (fingerprint "
                f"{prepared.fingerprint}, recorded {self.record.data_fingerprint}): its test numbers cannot be repeated"
            )
        metrics = MultiTaskMetrics(prepared.schema.tasks)
        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.bfloat16}.get(self.settings.precision)
        loader = BatchLoader(prepared.splits[split], self.settings.eval_batch_size, shuffle=False, seed=0)
        for batch in loader:
            # On a CPU Lightning runs both mixed precisions in bfloat16.
            with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False):
                output = self.model(batch)
            metrics.update(output.logits, batch.labels, batch.observed, batch.sample_weight)
        return metrics.compute()


def load(folder: str | Path, **overrides: Any) -> LoadedRun:
    """Load a run by its folder; ``overrides`` (such as ``data_path=...``) replace settings of where things are.

    Raises:
        DataError: when the folder holds no record or no checkpoint.
    """
    folder = Path(folder)
    keep_large_blocks()
    record = read_record(folder)
    checkpoint = read_checkpoint(folder)
    load_plugins(record.settings["plugins"])
    settings = restore({**record.settings, **overrides})
    model: MultiTaskRecommender = MODELS.load(settings.model)(settings, checkpoint.schema)
    model.load_state_dict(checkpoint.state_dict)
    return LoadedRun(model, settings, checkpoint.vocabularies, record)
