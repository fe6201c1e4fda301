"""Whole runs: what is written, what repeats, what a crash or Ctrl-C leaves."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import pytorch_lightning as lightning
import torch
import yaml
from rich.console import Console

from recbole_dtn import fit, load
from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve, settings_digest
from recbole_dtn.errors import RecBoleDTNError, UsageError
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record
from recbole_dtn.training.callbacks import BestKeeper
from recbole_dtn.training.fit import Run
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.report import Report
from tests.integration.plugin_text import PLUGIN

Fit = Callable[..., Run]

RECORD_KEYS = [
    "schema_version",
    "run_id",
    "status",
    "interrupted_at",
    "model",
    "dataset",
    "seed",
    "split_seed",
    "settings",
    "settings_digest",
    "data_fingerprint",
    "selected_on_test",
    "code_version",
    "tasks",
    "valid",
    "test",
    "factors",
    "details",
    "best_epoch",
    "epochs",
    "history",
    "parameters",
    "train_samples_per_second",
    "peak_rss_bytes",
    "peak_anon_bytes",
    "wall_seconds",
    "gate_weights",
    "versions",
    "folds",
    "fold",
    "rows",
    "source_fingerprint",
    "valid_value",
    "positives",
    "chain_breaks",
    "warnings",
    "choices",
    "processes",
    "beside_others",
    "plugins",
    "best_auc",
    "sum",
]


def test_the_run_folder_holds_what_the_record_promises(dtn_run: Run, folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"record.json", "settings.yaml", "checkpoint.ckpt", "metrics.csv", "log.txt"} <= names
    assert folder.parts[-3:-1] == ("ml-100k", "DTN")
    content = json.loads((folder / "record.json").read_text())
    assert list(content) == RECORD_KEYS
    assert content["run_id"] == folder.name
    assert content["tasks"] == [
        {"name": "like", "label": "rating", "after": []},
        {"name": "love", "label": "rating", "after": ["like"]},
    ]
    for part in ("valid", "test"):
        assert set(content[part]) == {"like", "love"}
        for values in content[part].values():
            assert set(values) == {"auc", "auc_se", "gauc", "gauc_se", "logloss", "ne", "calibration"}
            assert 0 <= values["auc"] <= 1
            assert values["logloss"] > 0
    assert set(content["wall_seconds"]) == {"prepare", "train", "test"}
    assert content["parameters"]["codebook"] == 3 * 50 * 4
    owners = [f"{owner}/{module}" for owner in ("like", "love", "shared") for module in ("gdcn", "memonet")]
    for task, weights in content["gate_weights"].items():
        assert set(weights) == set(owners)
        own = sum(value for name, value in weights.items() if name.startswith(f"{task}/"))
        assert own == pytest.approx(1.0, abs=1e-5), "the softmax over a task's own modules"
        assert sum(weights.values()) == pytest.approx(2.0, abs=1e-5), "two softmaxes per task"


def test_metrics_csv_has_one_line_per_validation_and_its_best_is_the_record(dtn_run: Run, folder: Path) -> None:
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    rows = [row for row in rows if row.get("valid/like_auc")]
    assert len(rows) == dtn_run.record.epochs
    selected = [each.selected for each in dtn_run.record.history if each.selected is not None]
    assert dtn_run.record.best_epoch == selected.index(max(selected)) + 1
    assert dtn_run.record.valid is not None
    best = rows[dtn_run.record.best_epoch - 1]
    assert dtn_run.record.valid["love"]["auc"] == pytest.approx(float(best["valid/love_auc"]), abs=1e-6)


def test_settings_yaml_alone_repeats_the_run_to_the_last_digit(dtn_run: Run, folder: Path) -> None:
    resolved = resolve({}, config_files=[str(folder / "settings.yaml")])
    assert settings_digest(resolved.settings) == dtn_run.record.settings_digest
    assert yaml.safe_load((folder / "settings.yaml").read_text())["seed"] == 2020
    assert main([f"--config_files={folder / 'settings.yaml'}", "--quiet"]) == 0
    latest = max(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    assert latest != folder
    assert read_record(latest).test == dtn_run.record.test


def test_another_seed_gives_other_numbers_on_the_same_split(dtn_run: Run, small_fit: Fit) -> None:
    other = small_fit("DTN", seed=2021)
    assert other.record.data_fingerprint == dtn_run.record.data_fingerprint
    assert other.record.settings_digest == dtn_run.record.settings_digest, "the digest leaves the seed out"
    assert other.test != dtn_run.test


def test_the_recorded_test_numbers_come_again(dtn_run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = load(folder).test()
    assert dtn_run.test is not None
    for task, values in dtn_run.test.items():
        for name, value in values.items():
            assert again[task][name] == pytest.approx(value, abs=1e-6)
    assert main(["test", f"--run={folder}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["test"]["like"]["auc"] == pytest.approx(dtn_run.test["like"]["auc"], abs=1e-6)


def test_a_checkpoint_is_plain_values(folder: Path) -> None:
    content = torch.load(folder / "checkpoint.ckpt", weights_only=True)
    keys = {
        "format", "state_dict", "balancer", "tables", "schema", "vocabularies", "settings", "epoch", "plugins",
        "record", "sealed",
    }  # fmt: skip
    assert set(content) == keys
    checkpoint = read_checkpoint(folder)
    assert checkpoint.schema.task_names == ("like", "love")
    sizes = {spec.name: spec.size - 2 for spec in checkpoint.schema.fields if spec.kind != "float"}
    assert {name: len(checkpoint.vocabularies.tokens(name)) for name in sizes} == sizes


def test_predict_scores_raw_values_unknown_tokens_and_nulls(folder: Path) -> None:
    run = load(folder)
    frame = pl.DataFrame(
        {
            "user_id": ["196", "never seen", None],
            "age": [49.0, 20.0, None],
            "gender": ["M", "F", None],
            "occupation": ["writer", "no such work", None],
            "zip_prefix": ["551", "0", None],
            "item_id": ["242", "1", None],
            "release_year": ["1997", "1995", None],
            "genres": ["Comedy", "Action Drama", None],
            "hour": ["15", "3", None],
            "weekday": ["3", "1", None],
        }
    )
    scores = run.predict(frame)
    assert scores.columns == ["like", "love"]
    assert scores.height == 3
    values = scores.to_numpy()
    assert ((values > 0) & (values < 1)).all()
    assert run.predict(frame.slice(1, 1)).to_numpy() == pytest.approx(values[1:2], abs=1e-6), "rows do not interact"
    assert run.predict(frame.clear()).shape == (0, 2)
    with pytest.raises(UsageError, match="genres"):
        run.predict(frame.drop("genres"))


def test_ctrl_c_keeps_the_best_checkpoint_and_writes_the_record(
    small_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BestKeeper.on_train_epoch_end

    def interrupt(self: BestKeeper, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(BestKeeper, "on_train_epoch_end", interrupt)
    run = small_fit("SharedBottom", epochs=5)
    assert run.status == "interrupted"
    assert run.record.interrupted_at is not None
    assert run.record.interrupted_at.startswith("epoch 2")
    assert run.test is None
    assert run.record.valid is not None
    assert read_checkpoint(run.folder).epoch == run.record.best_epoch
    assert read_record(run.folder) == run.record


def test_ctrl_c_during_the_test_still_writes_the_record(small_fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: TrainingModule, batch: object, batch_idx: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingModule, "test_step", interrupt)
    run = small_fit("SharedBottom", epochs=1)
    assert (run.status, run.test) == ("interrupted", None)
    assert read_checkpoint(run.folder).epoch == 1


def test_a_logger_without_its_package_is_refused_before_any_data_is_read(tmp_path: Path) -> None:
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed here")
    with pytest.raises(UsageError, match=r"recbole-dtn\[wandb\]"):
        fit("MMoE", "ml-100k", {"loggers": ["wandb"], "data_path": str(tmp_path)}, quiet=True)
    assert not list(tmp_path.iterdir())


def test_early_stopping_counts_validations_without_a_better_metric(small_fit: Fit) -> None:
    run = small_fit("SharedBottom", epochs=40, stopping_step=1, optimizer__lr=0.05)
    assert run.record.best_epoch is not None
    assert run.record.epochs == run.record.best_epoch + 2 < 40, "RecBole stops at more than stopping_step"


def test_eval_step_validates_every_so_many_epochs(small_fit: Fit) -> None:
    run = small_fit("SharedBottom", epochs=5, eval_step=2)
    assert run.record.best_epoch in (2, 4)
    history = run.record.history
    assert [each.epoch for each in history] == [1, 2, 3, 4, 5]
    assert [each.step for each in history] == [each.epoch * history[0].step for each in history]
    assert [each.valid is None for each in history] == [True, False, True, False, True]
    best = next(each for each in history if each.epoch == run.record.best_epoch)
    assert best.valid == run.record.valid
    assert best.selected == max(each.selected for each in history if each.selected is not None)
    assert all(each.loss > 0 for each in history)


def test_a_loss_that_explodes_is_an_error_that_names_the_learning_rate(small_fit: Fit) -> None:
    with pytest.raises(RecBoleDTNError, match=r"optimizer\.lr"):
        small_fit("SharedBottom", optimizer__lr=1e30, optimizer__name="sgd")


def test_init_from_starts_where_the_run_ended_and_matches_rows_by_token(dtn_run: Run, small_fit: Fit) -> None:
    from recbole_dtn.preprocess.prepare import prepare
    from recbole_dtn.record.checkpoint import initialise_from
    from recbole_dtn.training.build import build_model

    settings = resolve({**dtn_run.record.settings, "limit_rows": 6000, "seed": 7}).settings
    prepared = prepare(settings)
    model = build_model(settings, prepared)
    taken = initialise_from(model, prepared.vocabularies, dtn_run.folder)
    old = read_checkpoint(dtn_run.folder)
    assert 0 < taken < prepared.schema.num_rows
    field = next(spec for spec in prepared.schema.fields if spec.name == "item_id")
    before = next(spec for spec in old.schema.fields if spec.name == "item_id")
    table = model.state_dict()["embedding.table.weight"]
    known = old.vocabularies.tokens("item_id")
    for token in ("50", "100"):
        here = field.offset + 2 + prepared.vocabularies.tokens("item_id").index(token)
        there = before.offset + 2 + known.index(token)
        assert torch.equal(table[here], old.state_dict["embedding.table.weight"][there])
    with pytest.raises(UsageError, match=r"embedding_size: 4 there, 8 here$"):
        small_fit("DTN", embedding_size=8, init_from=str(dtn_run.folder))
    with pytest.raises(UsageError, match=r"model: DTN there, MMoE here$"):
        small_fit("MMoE", init_from=str(dtn_run.folder))


@pytest.mark.parametrize("model", ["PLE", "SharedBottom", "SingleTask", "MMoE"])
def test_every_model_learns(model: str, small_fit: Fit) -> None:
    run = small_fit(model, epochs=12, stopping_step=12, optimizer__lr=0.01)
    assert run.status == "finished"
    assert run.test is not None
    assert run.test["like"]["auc"] is not None
    assert run.test["like"]["auc"] > 0.55


def test_a_last_batch_of_one_row_is_left_out_where_a_model_cannot_train_on_it(small_fit: Fit) -> None:
    """2,400 rows in batches of 2,399 leave one."""
    assert small_fit("HoME", epochs=1, train_batch_size=2399).status == "finished"
    with pytest.raises(UsageError, match="train_batch_size: HoME needs 2 rows or more of a batch; found 1"):
        small_fit("HoME", train_batch_size=1)


def test_what_a_model_finds_is_in_the_log(small_fit: Fit) -> None:
    run = small_fit("SNR", epochs=1)
    assert "level 1: 8 of 8 connections kept (like 4, love 4)" in (run.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("precision", "model", "settings"),
    [
        ("bf16-mixed", "MMoE", {}),
        ("16-mixed", "MMoE", {}),
        ("bf16-mixed", "DTN", {"interactions": ["gdcn", "masknet", {"name": "memonet", "codes": 40}]}),
    ],
)
def test_mixed_precision_comes_near_full_precision(
    precision: str, model: str, settings: dict[str, Any], small_fit: Fit
) -> None:
    full, mixed = small_fit(model, **settings), small_fit(model, precision=precision, **settings)
    assert full.test is not None
    assert mixed.test is not None
    assert mixed.test["like"]["logloss"] == pytest.approx(full.test["like"]["logloss"], abs=0.02)
    again = load(mixed.folder).test()
    assert again["like"]["auc"] == pytest.approx(mixed.test["like"]["auc"], abs=1e-6)


def test_a_run_selected_on_the_test_set_says_so(small_fit: Fit, dtn_run: Run) -> None:
    run = small_fit("SharedBottom", epochs=1, selected_on_test=True)
    assert json.loads((run.folder / "record.json").read_text())["selected_on_test"] is True
    log = " ".join((run.folder / "log.txt").read_text().split())
    assert "warning: selected_on_test: the validation rows are, or contain, rows of the test set" in log
    assert "test (selected on the test set), best epoch 1 of 1" in log
    assert read_record(dtn_run.folder).selected_on_test is False
    assert "selected on" not in (dtn_run.folder / "log.txt").read_text()


def test_a_shuffle_in_blocks_is_said_and_is_another_experiment(small_fit: Fit) -> None:
    whole, blocks = small_fit("SharedBottom", epochs=1), small_fit("SharedBottom", epochs=1, shuffle_rows=1024)
    said = "shuffled in blocks, 1,024 of 2,400 rows at a time (shuffle_rows)"
    assert said in (blocks.folder / "log.txt").read_text()
    assert "shuffled in blocks" not in (whole.folder / "log.txt").read_text()
    assert whole.record.settings_digest != blocks.record.settings_digest
    assert whole.test != blocks.test


def test_text_in_brackets_is_printed_as_it_is() -> None:
    out = io.StringIO()
    report = Report(Console(file=out, width=80))
    report.show("try --interactions='[gdcn, masknet]'")
    report.table("t", ["task"], [["like (rating in [4, 5])"]])
    assert "'[gdcn, masknet]'" in out.getvalue()
    assert "in [4, 5]" in out.getvalue()


def test_text_between_colons_is_no_emoji(tmp_path: Path) -> None:
    out = io.StringIO()
    report = Report(Console(file=out, width=80))
    report.log_to(tmp_path / "log.txt")
    report.show("NL:train:81")
    report.table("t:train:", ["a:train:1"], [["b:train:2"]])
    for text in (out.getvalue(), (tmp_path / "log.txt").read_text()):
        assert [word for word in text.split() if ":" in word] == ["NL:train:81", "t:train:", "a:train:1", "b:train:2"]


def test_devices_that_are_not_here_are_refused_before_any_data_is_read(tmp_path: Path) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="accelerator=gpu"):
        fit("MMoE", "ml-100k", {"accelerator": "gpu", "data_path": str(tmp_path)}, quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_module_of_the_wrong_width_is_named(small_fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_dtn.interaction.gdcn import GDCN

    monkeypatch.setattr(GDCN, "forward", lambda self, embeddings, ids, shared=None: embeddings[:, 0])
    with pytest.raises(UsageError, match=r"interaction GDCN: expected an output of shape \(512, 8\).*found \(512, 4\)"):
        small_fit("DTN")


def test_predict_wants_a_polars_frame(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a polars.DataFrame, found dict"):
        load(folder).predict({"user_id": ["1"]})  # type: ignore[arg-type]


def test_a_run_with_a_plugin_is_tested_from_any_folder(
    small_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="one", fault=""))
    monkeypatch.chdir(tmp_path)
    run = small_fit("DTN", interactions=["first_field_one"], plugins=["mine.py"], epochs=1)
    assert yaml.safe_load((run.folder / "settings.yaml").read_text())["plugins"] == [str(tmp_path / "mine.py")]
    monkeypatch.chdir("/")
    file, digest = str(tmp_path / "mine.py"), hashlib.sha256((tmp_path / "mine.py").read_bytes()).hexdigest()
    kept = {"path": file, "sha256": digest, "package": None, "module": None}
    assert json.loads((run.folder / "record.json").read_text())["plugins"] == [kept]
    assert read_checkpoint(run.folder).plugins == [kept]
    assert main(["test", f"--run={run.folder}", "--json"]) == 0, "this process has run the file already"
    assert json.loads(capsys.readouterr().out)["test"]["like"]["auc"] == pytest.approx(
        run.test["like"]["auc"], abs=1e-6
    )


def test_a_plugin_that_fails_in_training_is_named(
    small_fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtn_run: Run
) -> None:
    (tmp_path / "faulty.py").write_text(PLUGIN.format(name="two", fault="ids + None; "))
    words = [f"--plugins={tmp_path}/faulty.py", "--interactions=[first_field_two]", "--model=DTN", "--dataset=ml-100k"]
    where = dtn_run.record.settings
    words += [f"--data_path={where['data_path']}", f"--output_dir={tmp_path}/runs", "--limit_rows=3000", "--quiet"]
    assert main([*words, "--accelerator=cpu"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: plug-in {tmp_path}/faulty.py:12 raised TypeError: unsupported operand")


def test_a_faulty_cache_is_told_by_the_test_of_a_run(
    small_fit: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_fit(cache_dir=str(tmp_path / "cache"))
    (labels,) = (tmp_path / "cache").rglob("labels.npy")
    data = bytearray(labels.read_bytes())
    data[-1] ^= 1
    labels.write_bytes(data)
    assert main(["test", f"--run={run.folder}"]) == 0
    assert f"warning: {labels} does not have its checksum" in capsys.readouterr().err
    assert load(run.folder).evaluate("test").tasks["like"]["auc"] == pytest.approx(run.test["like"]["auc"], abs=1e-6)
