"""Runs with ``profile`` and with a table in bfloat16."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import pytest
import pytorch_lightning as lightning
import torch

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve, settings_digest
from recbole_dtn.record.checkpoint import read_checkpoint, read_weights
from recbole_dtn.training import profile
from recbole_dtn.training.fit import Run, fit_settings
from recbole_dtn.training.profile import STAGES

Fit = Callable[..., Run]


@pytest.mark.parametrize("model", ["MMoE", "PLE", "DTN"])
def test_a_profiled_run_writes_traces_and_a_table_of_stages(
    small_fit: Fit, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "STEPS", 4)  # of 10, 3 of them warm up
    monkeypatch.setattr(profile, "BATCHES", 2)  # of 3
    run = small_fit(model, profile=True, train_batch_size=256, eval_batch_size=100)
    rows = list(csv.DictReader((run.folder / "stages.tsv").open(), delimiter="\t"))
    stages = {
        part: {row["stage"]: float(row["cpu_ms"]) for row in rows if row["part"] == part} for part in ("train", "valid")
    }
    own = {"interact", "gate"} if model == "DTN" else {"experts"}  # fused, experts and their gates are one stage
    assert set(stages["train"]) == {
        "load",
        "embed",
        *own,
        "tower",
        "loss",
        "backward",
        "optimiser",
        "other",
        "whole",
    }
    assert set(stages["valid"]) == {"load", "embed", *own, "tower", "metrics", "other", "whole"}
    for times in stages.values():
        whole = times.pop("whole")
        assert sum(times.values()) == pytest.approx(whole, abs=0.01)
        assert all(time > 0 for name, time in times.items() if name in STAGES)
    for part in ("train", "valid"):
        trace = json.loads((run.folder / f"trace.{part}.json").read_text())
        steps = sum(event["name"] == "stage: embed" for event in trace["traceEvents"])
        assert steps == {"train": 4, "valid": 2}[part]
    assert "backward" in (run.folder / "log.txt").read_text()
    plain = small_fit(model, train_batch_size=256, eval_batch_size=100)
    assert plain.test == run.test, "profiling changes no number"
    assert plain.record.settings_digest == run.record.settings_digest
    assert not (plain.folder / "stages.tsv").exists()


def test_an_epoch_shorter_than_the_profile_is_profiled_to_its_end(small_fit: Fit) -> None:
    run = small_fit("MMoE", profile=True, train_batch_size=400, epochs=1)  # 6 steps, 3 of them warm up
    parts = {row["part"] for row in csv.DictReader((run.folder / "stages.tsv").open(), delimiter="\t")}
    assert parts == {"train", "valid"}


def test_a_bfloat16_table_trains_like_a_float32_one(small_fit: Fit) -> None:
    narrow, wide = (
        small_fit("MMoE", embedding_dtype=kind, valid_metric="mean_logloss") for kind in ("bfloat16", "float32")
    )
    assert read_weights(narrow.folder)["embedding.table.weight"].dtype is torch.bfloat16
    assert narrow.test is not None
    assert wide.test is not None
    for task, values in wide.test.items():
        assert values["logloss"] == pytest.approx(narrow.test[task]["logloss"], abs=0.03)
    again = small_fit("MMoE", embedding_dtype="bfloat16", valid_metric="mean_logloss")
    assert again.test == narrow.test, "the rounding repeats with the seed"


def test_dense_adam_refuses_a_bfloat16_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model=MMoE", "--dataset=ml-100k", "--embedding_dtype=bfloat16", "--embedding_optimizer.name=adam"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "embedding_dtype" in message
    assert "lazy_adam" in message


def test_the_weights_alone_are_those_of_the_checkpoint(dtn_run: Run) -> None:
    whole, alone = read_checkpoint(dtn_run.folder).state_dict, read_weights(dtn_run.folder)
    assert whole.keys() == alone.keys()
    assert all(torch.equal(whole[name], alone[name]) for name in whole)


def test_callbacks_of_the_caller_are_called(small_fit: Fit) -> None:
    settings = small_fit("MMoE").record.settings
    seen: list[int] = []

    class Counter(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *_: object, **__: object) -> None:
            seen.append(trainer.global_step)

    keys = ("model", "dataset", "data_path", "output_dir", "limit_rows", "train_batch_size", "embedding_size")
    resolved = resolve({**{key: settings[key] for key in keys}, "epochs": 1, "quiet": True, "accelerator": "cpu"})
    run = fit_settings(resolved, callbacks=[Counter()])
    assert seen == [1, 2, 3, 4, 5], "2,400 training rows in batches of 512"
    assert settings_digest(resolved.settings) == run.record.settings_digest
