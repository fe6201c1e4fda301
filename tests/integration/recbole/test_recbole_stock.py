"""RecBole's own machinery with our models: stock Dataset, stock Trainer, several labels, a stock Config."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import InputType, ModelType
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn.bridge import evaluate_tasks
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.model.mmoe import MMoE
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.attributes(name)["has_gradients"]])
def test_every_model_trains_and_evaluates_under_the_stock_trainer(toy: Any, name: str) -> None:
    # Not at the base rates, from where two epochs on few rows improve little.
    config, model, (train, valid, test) = toy.built(name, head_bias="random")
    assert isinstance(model, AbstractRecommender)
    assert (model.type, model.input_type) == (ModelType.CONTEXT, InputType.POINTWISE)
    trainer = Trainer(config, model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    score, result = trainer.fit(train, valid, verbose=False, saved=False)
    assert set(result) == {"auc", "logloss"}
    assert score == result["auc"]
    losses = list(trainer.train_loss_dict.values())
    assert losses[1] < losses[0]
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert set(evaluate_tasks(trainer, test)) == {"click", "buy"}
    assert "recbole.quick_start" not in sys.modules  # it would import ray


def test_each_task_is_evaluated_on_its_own_label(toy: Any) -> None:
    config, model, (train, _, test) = toy.built(metric_decimal_place=9)
    trainer = Trainer(config, model)
    trainer.fit(train, verbose=False, saved=False)
    model.eval()
    expected = {}
    truth = toy.rows["test"]
    with torch.no_grad():
        logits = torch.cat([model(model.translator.features(batch[0])).logits for batch in test])
    for column, task in enumerate(("click", "buy")):
        labels = [int(row[task]) for row in truth]
        scores = 1 / (1 + np.exp(-logits[:, column].double().numpy()))
        expected[task] = {"auc": roc_auc_score(labels, scores), "logloss": log_loss(labels, scores)}
    found = evaluate_tasks(trainer, test)
    for task in expected:
        assert found[task] == pytest.approx(expected[task], abs=1e-6)
    assert (model.evaluated_task, config["LABEL_FIELD"]) == ("click", "click")


def test_the_loss_is_one_term_per_task_times_its_weight(toy: Any) -> None:
    _, model, (train, _, _) = toy.built(embedding_l2=0.0)
    batch = next(iter(train))
    losses = model.calculate_loss(batch)
    probabilities = torch.sigmoid(model(model.translator.features(batch)).logits.detach()).double().numpy()
    expected = [
        weight * log_loss(batch[task].numpy(), probabilities[:, column], labels=[0, 1])
        for column, (task, weight) in enumerate({"click": 1.0, "buy": 2.0}.items())
    ]
    assert isinstance(losses, tuple)
    assert [loss.item() for loss in losses] == pytest.approx(expected, abs=1e-6)


def test_penalties_join_the_loss_that_the_trainer_sums(toy: Any) -> None:
    _, model, (train, _, _) = toy.built(embedding_l2=0.5)
    batch = next(iter(train))
    losses = model.calculate_loss(batch)
    features = model.translator.features(batch)
    table = model.tables()[0].weight.detach()
    looked_up = [table[features.ids[:, i]].square().sum() for i in model.schema.id_fields]
    looked_up += [table[many.values].square().sum() for many in features.multi.values()]
    looked_up += [
        len(batch) * table[model.schema.fields[i].offset + 1].square().sum() for i in model.schema.dense_fields
    ]
    assert len(losses) == 3
    assert losses[2].item() == pytest.approx(0.25 * sum(looked_up).item() / len(batch), rel=1e-5)


def test_a_model_also_builds_from_settings_and_schema(toy: Any) -> None:
    _, model, _ = toy.built()
    assert isinstance(model.settings, Settings)
    assert isinstance(model.schema, DataSchema)
    torch.manual_seed(7)
    twin = MMoE(model.settings, model.schema)
    for (name, one), (other_name, other) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)


# ---- a stock Config, whose user gave the keys ----------------------------------------------------------------------


def test_a_stock_config_is_enough(toy: Any) -> None:
    config = toy.stock_config(MMoE, experts=3, unload_col={"inter": ["buy"]}, metrics=["AUC"], valid_metric="AUC")
    train, valid, _ = toy.loaders(config)
    model = MMoE(config, train.dataset)
    assert model.settings.experts == 3
    assert model.settings.expert_hidden == [128]  # the shipped default, never None
    assert model.settings.embedding_size == 16
    assert [(spec.name, spec.kind) for spec in model.schema.fields] == [
        ("user", "token"), ("item", "token"), ("tags", "token_seq"), ("age", "float"), ("price", "float")
    ]  # fmt: skip
    assert [(task.name, task.label) for task in model.schema.tasks] == [("click", "click")]
    score, _ = Trainer(config, model).fit(train, valid, verbose=False, saved=False)
    assert 0.0 <= score <= 1.0


def test_a_misspelt_key_of_a_stock_config_is_an_error(toy: Any) -> None:
    config = toy.stock_config(MMoE, expert_hiden=[8])
    train, _, _ = toy.loaders(config)
    with pytest.raises(UsageError, match=r"unknown key 'expert_hiden'.*'expert_hidden'"):
        MMoE(config, train.dataset)
