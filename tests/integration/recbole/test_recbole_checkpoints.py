"""``saved=True``, ``load_best_model=True`` and ``load_data_and_model``, with checkpoints of plain values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.model.context_aware_recommender.deepfm import DeepFM
from recbole.trainer import Trainer

from recbole_dtn.bridge import RecBoleConfig, RecBoleTrainer, load_data_and_model
from recbole_dtn.errors import DataError
from recbole_dtn.model.mmoe import MMoE


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_the_stock_trainer_cannot_read_its_own_checkpoint(toy: Any) -> None:
    config, model, (train, valid, test) = toy.built()
    trainer = Trainer(config, model)
    trainer.fit(train, valid, verbose=False)
    with pytest.raises(Exception, match="Weights only load failed"):
        trainer.evaluate(test)
    with pytest.raises(DataError, match="is not a checkpoint of plain values; expected one that recbole_dtn"):
        load_data_and_model(trainer.saved_model_file)


def test_evaluate_loads_the_best_epoch(toy: Any) -> None:
    config, model, (train, valid, test) = toy.built(epochs=4)
    trainer = RecBoleTrainer(config, model)
    best: list[dict[str, torch.Tensor]] = []
    scores: list[float] = []

    def keep(epoch: int, score: float) -> None:
        if not scores or score >= max(scores):
            best[:] = [weights(model)]
        scores.append(score)

    trainer.fit(train, valid, verbose=False, callback_fn=keep)
    with torch.no_grad():
        model.tables()[0].weight.zero_()
    zeroed = trainer.evaluate(test, load_best_model=False)
    found = trainer.evaluate(test)
    assert same(weights(model), best[0])
    assert found != zeroed
    assert trainer.evaluate(valid)["auc"] == trainer.best_valid_score == max(scores)


def test_data_and_model_come_back(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, model, (train, valid, test) = toy.built(expert_hidden=[6])
    trainer = RecBoleTrainer(config, model)
    trainer.fit(train, valid, verbose=False)
    expected = trainer.evaluate(test)
    monkeypatch.setattr(sys, "argv", ["prog", "--epochs=99", "--dataset=gone"])
    again, loaded, dataset, train_again, _, test_again = load_data_and_model(trainer.saved_model_file)
    assert type(loaded) is MMoE
    assert same(weights(loaded), weights(model))
    assert loaded.settings == model.settings
    assert loaded.settings.expert_hidden == [6]
    assert {key: again[key] for key in ("epochs", "data_path", "LABEL_FIELD")} == {
        key: config[key] for key in ("epochs", "data_path", "LABEL_FIELD")
    }
    assert len(dataset.inter_feat) == 460
    assert len(train_again.dataset.inter_feat) == 300
    assert RecBoleTrainer(again, loaded).evaluate(test_again, load_best_model=False) == expected


def test_a_stock_model_under_a_stock_config_comes_back(toy: Any) -> None:
    values = {"unload_col": {"inter": ["buy"]}, "checkpoint_dir": str(toy.data_path / "saved"), "embedding_size": 4}
    config = toy.stock_config(DeepFM, gpu_id="3", **values)
    train, valid, test = toy.loaders(config)
    model = DeepFM(config, train.dataset)
    trainer = RecBoleTrainer(config, model)
    trainer.fit(train, valid, verbose=False)
    expected = trainer.evaluate(test)
    assert torch.load(trainer.saved_model_file, weights_only=True)["config"]["given"]["embedding_size"] == 4
    again, loaded, _, _, _, test_again = load_data_and_model(trainer.saved_model_file)
    assert isinstance(again, RecBoleConfig)
    assert type(loaded) is DeepFM
    assert again["mlp_hidden_size"] == config["mlp_hidden_size"] == [128, 128, 128]
    assert RecBoleTrainer(again, loaded).evaluate(test_again, load_best_model=False) == expected


def test_our_model_under_a_stock_config_comes_back(toy: Any) -> None:
    config = toy.stock_config(MMoE, experts=3, unload_col={"inter": ["buy"]}, checkpoint_dir=str(toy.data_path / "x"))
    train, valid, _ = toy.loaders(config)
    model = MMoE(config, train.dataset)
    trainer = RecBoleTrainer(config, model)
    trainer.fit(train, valid, verbose=False)
    _, loaded, *_ = load_data_and_model(trainer.saved_model_file)
    assert loaded.settings == model.settings
    assert loaded.settings.experts == 3
    assert same(weights(loaded), weights(model))


def test_training_goes_on_from_a_checkpoint(toy: Any) -> None:
    config, whole, (train, _, _) = toy.built(epochs=2, eval_step=1)
    RecBoleTrainer(config, whole).fit(train, verbose=False)
    config, first, (train, _, _) = toy.built(epochs=1)
    trainer = RecBoleTrainer(config, first)
    trainer.fit(train, verbose=False)
    config, second, (train, _, _) = toy.built(epochs=2)
    list(train)  # the order of the first epoch has been drawn
    resumed = RecBoleTrainer(config, second)
    resumed.resume_checkpoint(trainer.saved_model_file)
    assert resumed.start_epoch == 1
    assert same(weights(second), weights(first))
    resumed.fit(train, verbose=False)
    assert max((weights(second)[key] - value).abs().max() for key, value in weights(whole).items()) <= 1e-6


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no checkpoint at \S*gone\.pth: train with RecBoleTrainer"):
        load_data_and_model(tmp_path / "gone.pth")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="is a checkpoint of another program or version"):
        load_data_and_model(tmp_path / "other.pth")
