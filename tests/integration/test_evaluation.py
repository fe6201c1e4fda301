"""Evaluation of whole runs: chosen metrics, what selects, weights that are not finite, predictions in float64."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import pytorch_lightning as lightning
import torch
from sklearn.metrics import roc_auc_score

from recbole_dtn.config.load import resolve
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.errors import DataError
from recbole_dtn.metric.uncertainty import auc_with_error
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.record.checkpoint import FILE_NAME
from recbole_dtn.record.plain_file import save_plain
from recbole_dtn.serving.load import load
from recbole_dtn.training.fit import Run, fit_settings


def test_gauc_is_that_of_the_users_and_any_metric_selects(small_fit: Callable[..., Run]) -> None:
    run = small_fit(metrics=["gauc", {"name": "auc"}], valid_metric="like_gauc")
    assert list(run.record.test["like"]) == ["gauc", "gauc_se", "auc", "auc_se"]
    loaded = load(run.folder)
    assert loaded.evaluate().tasks == run.record.test
    split = prepare(loaded.settings).splits["test"]
    (batch,) = BatchLoader(split, split.rows, shuffle=False, seed=0)
    position = loaded.model.schema.task_names.index("like")
    with torch.inference_mode():
        scores = loaded.model(batch).logits[:, position].numpy()
    labels, groups, seen = batch.labels[:, position].numpy(), batch.group.numpy(), batch.observed[:, position].numpy()
    total = rows = 0.0
    for group in set(groups[seen].tolist()):
        own = seen & (groups == group)
        if 0 < labels[own].sum() < own.sum():
            total += own.sum() * roc_auc_score(labels[own], scores[own])
            rows += own.sum()
    assert rows > 100
    assert run.record.test["like"]["gauc"] == pytest.approx(total / rows, abs=1e-9)
    best = run.record.valid["like"]["gauc"]
    assert best is not None
    # Clustered by user, which differs from the error of independent rows.
    rows = [torch.tensor(values[seen]) for values in (scores, labels, groups)]
    assert run.record.test["like"]["auc_se"] == pytest.approx(
        auc_with_error(rows[0], rows[1], groups=rows[2])[1], rel=1e-9
    )
    assert abs(run.record.test["like"]["auc_se"] / auc_with_error(rows[0], rows[1])[1] - 1) > 0.01


def test_a_table_that_is_not_finite_is_told_by_test_and_predict(dtn_run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(dtn_run.folder, folder)
    content = torch.load(folder / FILE_NAME, weights_only=True)
    name = next(key for key in content["state_dict"] if key.endswith("weight") and "embedding" in key)
    content["state_dict"][name].fill_(math.nan)
    save_plain(content, folder / FILE_NAME)
    loaded = load(folder)
    with pytest.raises(DataError, match=r"the logit of task '\w+' is nan in row \d+ \(and [\d,]+ more in its batch\)"):
        loaded.test()
    fields = {spec.name: ["1"] * 300 for spec in loaded.model.schema.fields}
    with pytest.raises(DataError, match=r"the logit of task '\w+' is nan in row 0 "):
        loaded.predict(pl.DataFrame(fields))


class Spoil(lightning.Callback):
    """Sets the table to NaN in the last step of the first epoch: the loss of the epoch is finite."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx == trainer.num_training_batches - 1:
            with torch.no_grad():
                for table in pl_module.model.tables():
                    table.weight.fill_(math.nan)


def test_a_table_that_is_not_finite_ends_the_training_at_its_validation(dtn_run: Run, tmp_path: Path) -> None:
    given = {**dtn_run.record.settings, "model": "DTN", "output_dir": str(tmp_path), "quiet": True}
    with pytest.raises(DataError, match=r"the logit of task '\w+' is nan in row \d+"):
        fit_settings(resolve(given), callbacks=[Spoil()])


def test_predictions_are_float64_and_are_the_logits_own(dtn_run: Run) -> None:
    loaded = load(dtn_run.folder)
    frame = pl.DataFrame({spec.name: ["1", "2", None] for spec in loaded.model.schema.fields})
    scores = loaded.predict(frame)
    assert set(scores.dtypes) == {pl.Float64}
    assert loaded.predict(frame.head(0)).schema == scores.schema
    with torch.no_grad():  # logits of thousands: float32 would give 0 and 1
        for name, parameter in loaded.model.named_parameters():
            if "tower" in name:
                parameter.mul_(1e3)
    wild = loaded.predict(frame)
    assert all(0 < score < 1 for name in wild.columns for score in wild[name])


def test_the_record_is_json_without_nan(dtn_run: Run) -> None:
    text = (dtn_run.folder / "record.json").read_text()
    assert json.loads(text)["factors"] == {}
