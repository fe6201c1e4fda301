"""Load a finished run, to score new rows or to repeat its test."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from recbole_dtn.metric.finite import check_logits
from recbole_dtn.metric.tasks import Details, new_metrics, with_domain_names
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.plugins import load_recorded
from recbole_dtn.preprocess.prepare import PreparedData, prepare
from recbole_dtn.record.checkpoint import FILE_NAME, load_weights, read_checkpoint
from recbole_dtn.record.record import RunRecord
from recbole_dtn.record.training import record_of
from recbole_dtn.registry import MODELS
from recbole_dtn.report.text import shown
from recbole_dtn.schema import TaskSpec
from recbole_dtn.training.allocator import keep_large_blocks

__all__ = ["Evaluation", "LoadedRun", "load", "probabilities"]

SMALLEST, LARGEST = torch.finfo(torch.float64).tiny, math.nextafter(1.0, 0.0)


@dataclass(frozen=True)
class Evaluation:
    """Metrics on one split; None where undefined.

    Attributes:
        tasks: ``{task: {metric: value}}``. factors: the same of the model's factors (``buy@click``), empty without any.
        details: ``{task or factor: {metric: plain values}}``, what some metrics tell beside their value.
    """

    tasks: dict[str, dict[str, float | None]]
    factors: dict[str, dict[str, float | None]]
    details: Details = dataclasses.field(default_factory=dict)


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
            frame: one column per field of the data set, with raw values, not escaped as in the atomic files (a
                multi-valued field as a list column, or as text separated by spaces). Unknown tokens are allowed; null
                is an absent value.
            batch_size: rows scored at a time.

        Returns:
            One float64 column per task, in the frame's row order, as :func:`probabilities` gives it.

        Raises:
            UsageError: when a column is missing. DataError: for a score that is not finite.
        """
        if not isinstance(frame, pl.DataFrame):
            raise UsageError(
                f"predict: expected a polars.DataFrame, found {type(frame).__name__}: make one by pl.DataFrame(), "
                "or pl.from_pandas()"
            )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"predict: batch_size: expected an integer >= 1; found {batch_size!r}")
        schema = self.model.schema
        parts = []
        # At least one turn, so that an empty frame's columns are checked too.
        for start in range(0, max(frame.height, 1), batch_size):
            features = self.vocabularies.encode(frame.slice(start, batch_size), schema)
            if len(features):
                rows = torch.arange(start, start + len(features))
                parts.append(self.scores(dataclasses.replace(features, row=rows)))
        scores = torch.cat(parts) if parts else torch.empty(0, schema.num_tasks, dtype=torch.float64)
        return pl.DataFrame({name: scores[:, column].numpy() for column, name in enumerate(schema.task_names)})

    @torch.inference_mode()
    def scores(self, features: Features) -> Tensor:
        """Score a ready batch (``vocabularies.encode``, or a loader's), without data frames.

        Returns:
            (B, T) float64, as :func:`probabilities` gives it.

        Raises:
            DataError: for a score that is not finite; it names the task and the row (``features.row``, or the place in
                the batch).
        """
        # Checked in the model's own type: a clipped probability would hide an infinite logit.
        logits = self.output(features).logits
        check_logits(logits, self.model.schema.task_names, features.row)
        return probabilities(logits, self.model.schema.tasks)

    @torch.inference_mode()
    def output(self, features: Features) -> ModelOutput:
        """What the model makes of a ready batch, in the precision of the run's own evaluation."""
        # On a CPU Lightning runs both mixed precisions in bfloat16.
        mixed = self.settings.precision in ("bf16-mixed", "16-mixed")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed, cache_enabled=False):
            found = self.model(features)
        served: ModelOutput = self.model.served(found)
        return served

    def test(self, split: str = "test") -> dict[str, dict[str, float | None]]:
        """Metrics of the tasks on a split of the run's own data, read again from its files."""
        return self.evaluate(split).tasks

    @torch.inference_mode()
    def evaluate(self, split: str = "test") -> Evaluation:
        """Metrics of the tasks and of the model's factors on a split of the run's own data, read again from its files.

        Raises:
            DataError: when the data has changed since the run, or a logit is not finite.
        """
        metrics = new_metrics(self.settings, self.model.schema.tasks)
        if split != "valid":
            metrics.use_fits(self.record.details.get("valid", {}))
        for batch, output in self.outputs(split):
            metrics.add_batch(batch, output)
        found = metrics.compute(), metrics.compute_factors()
        return Evaluation(*found, with_domain_names(metrics.details(), self.vocabularies.domains))

    def _prepared(self) -> PreparedData:
        """The run's own data, read again.

        Raises:
            DataError: when it has changed since the run.
        """
        prepared = prepare(self.settings, log=_tell_warning)
        if prepared.fingerprint != self.record.data_fingerprint:
            raise DataError(
                f"the data under {self.settings.data_path} has changed since this run (fingerprint "
                f"{prepared.fingerprint}, recorded {self.record.data_fingerprint}): its test numbers cannot be repeated"
            )
        return prepared

    def batches(self, split: str = "test") -> Iterator[Features]:
        """The batches of a split of the run's own data, in the order of the file.

        Raises:
            DataError: when the data has changed since the run.
        """
        return iter(BatchLoader(self._prepared().splits[split], self.settings.eval_batch_size, shuffle=False, seed=0))

    @torch.inference_mode()
    def outputs(self, split: str = "test") -> Iterator[tuple[Features, ModelOutput]]:
        """The batches of a split of the run's own data with what the model makes of each, in the order of the file.

        Raises:
            DataError: when the data has changed since the run.
        """
        for batch in self.batches(split):
            yield batch, self.output(batch)


def probabilities(logits: Tensor, tasks: Sequence[TaskSpec]) -> Tensor:
    """(B, T) float64: the probability of a binary task, the value itself of a regression.

    In float32 the sigmoid of 17 and more is 1. Here a probability is never 0 or 1: where float64 saturates too (from
    37 up and -708 down) it is the nearest number inside.

    >>> tasks = (TaskSpec("click", "binary", "c"), TaskSpec("stay", "regression", "s"))
    >>> probabilities(torch.tensor([[20.0, 3.5], [800.0, -1.0]]), tasks).tolist()
    [[0.9999999979388463, 3.5], [0.9999999999999999, -1.0]]
    """
    values = logits.double()
    # The largest number below 1 and the smallest normal one above 0.
    chances = torch.sigmoid(values).clamp(SMALLEST, LARGEST)
    return torch.where(torch.tensor([task.kind == "binary" for task in tasks], device=values.device), chances, values)


def load(folder: str | Path, *, plugins: Sequence[str] = (), trust: bool = False, **overrides: Any) -> LoadedRun:
    """Load a run by its folder; ``overrides`` (such as ``data_path=...``) replace settings for paths.

    Args:
        folder: of the run. plugins: the plug-in files that the run used, where they are now; a file that this process
            has run already need not be named. trust: run every plug-in file that the folder names.

    Raises:
        DataError: when the folder holds no record or no checkpoint.
        UsageError: for a plug-in file that is not named or is missing, and a package that is not installed.

    Warns:
        PluginChangedWarning: for a plug-in that has changed since the run.
    """
    folder = Path(folder)
    keep_large_blocks()
    record = record_of(folder)
    checkpoint = read_checkpoint(folder)
    # Before the settings are restored: a plug-in registers the model that they name.
    files = load_recorded(record.plugin_states(), folder, named=plugins, trust=trust)
    settings = restore({**record.settings, "plugins": files, **overrides})
    model: MultiTaskRecommender = MODELS.load(settings.model)(settings, checkpoint.schema)
    load_weights(model, checkpoint.state_dict, str(folder / FILE_NAME))
    return LoadedRun(model, settings, checkpoint.vocabularies, record)


def _tell_warning(line: str) -> None:
    """Print what is wrong with the data, such as a faulty cache that is made again, and not what is done with them."""
    if line.startswith("warning: "):
        print(shown(line), file=sys.stderr)
