"""RecBole's own machinery with our models: stock Dataset, stock Trainer, several labels, checkpoints both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import InputType, ModelType, init_seed
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn.bridge import evaluate_tasks, recbole_config
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.model.mmoe import MMoE
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

SETTINGS: dict[str, Any] = {
    "fields": [
        {"name": "user"},
        {"name": "item", "min_count": 3},
        {"name": "tags", "type": "token_seq"},
        {"name": "age", "type": "float", "encoding": "bins", "bins": 4},
        {"name": "price", "type": "float"},
    ],
    "tasks": [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "after": ["click"], "weight": 2.0}],
    "embedding_size": 4,
    "train_batch_size": 64,
    "epochs": 2,
    "optimizer.lr": 0.01,
    "accelerator": "cpu",
    "progress": False,
}
SMALL = {
    "DTN": {"module_dim": 8, "tower_hidden": [4], "interactions": ["gdcn", {"name": "memonet", "codes": 20}]},
    "MMoE": {"experts": 2, "expert_hidden": [8], "tower_hidden": [4]},
    "PLE": {"expert_hidden": [8], "tower_hidden": [4]},
    "SharedBottom": {"bottom_hidden": [8], "tower_hidden": [4]},
    "SingleTask": {"hidden": [8]},
}
SIZES = {"train": 300, "valid": 80, "test": 80}


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of raw text; a click depends on the item and the price, a buy needs a click."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        user, item = draw.integers(12), draw.integers(30)
        price = draw.normal(100.0, 20.0)
        click = int(draw.random() < 1 / (1 + np.exp(-(item % 3 - 1) * 2 + (price - 100) / 20)))
        tags = " ".join(f"g{tag}" for tag in draw.permutation(5)[: draw.integers(4)])
        age = str(draw.integers(18, 60)) if draw.random() < 0.9 or True else ""
        found.append({
            "user": f"u{user}", "item": f"i{item}", "tags": tags, "age": age, "price": f"{price:.4f}",
            "click": str(click), "buy": str(int(click and draw.random() < 0.4)),
        })  # fmt: skip
    return found


TYPES = {
    "user": "token", "item": "token", "tags": "token_seq", "age": "float", "price": "float", "click": "float",
    "buy": "float",
}  # fmt: skip


def write(folder: Path, name: str = "toy", types: dict[str, str] = TYPES, **changed: list[dict[str, str]]) -> Path:
    """Three parts of atomic files; returns the data path."""
    (folder / name).mkdir(parents=True)
    for number, (part, count) in enumerate(SIZES.items()):
        lines = ["\t".join(f"{column}:{kind}" for column, kind in types.items())]
        lines += ["\t".join(row[column] for column in types) for row in changed.get(part, rows(count, number))]
        (folder / name / f"{name}.{part}.inter").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RecBole's Trainer writes log_tensorboard/ into the working directory, whatever it is told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SETTINGS, "output_dir", str(tmp_path / "runs"))
    yield


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def loaders(config: Any) -> tuple[Any, Any, Any]:
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    return train, valid, test


def built(toy: Path, name: str = "MMoE", **values: Any) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """Config, model and loaders, by stock means."""
    config = recbole_config(name, "toy", toy, {**SETTINGS, **SMALL[name], **values})
    parts = loaders(config)
    torch.manual_seed(7)
    return config, MODELS.load(name)(config, parts[0].dataset), parts


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_trains_and_evaluates_under_the_stock_trainer(toy: Path, name: str) -> None:
    config, model, (train, valid, test) = built(toy, name)
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


def test_each_task_is_evaluated_on_its_own_label(toy: Path) -> None:
    config, model, (train, _, test) = built(toy, metric_decimal_place=9)
    trainer = Trainer(config, model)
    trainer.fit(train, verbose=False, saved=False)
    model.eval()
    expected = {}
    truth = rows(SIZES["test"], 2)
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


def test_the_loss_is_one_term_per_task_times_its_weight(toy: Path) -> None:
    _, model, (train, _, _) = built(toy)
    batch = next(iter(train))
    losses = model.calculate_loss(batch)
    probabilities = torch.sigmoid(model(model.translator.features(batch)).logits.detach()).double().numpy()
    expected = [
        weight * log_loss(batch[task].numpy(), probabilities[:, column], labels=[0, 1])
        for column, (task, weight) in enumerate({"click": 1.0, "buy": 2.0}.items())
    ]
    assert isinstance(losses, tuple)
    assert [loss.item() for loss in losses] == pytest.approx(expected, abs=1e-6)


def test_penalties_join_the_loss_that_the_trainer_sums(toy: Path) -> None:
    _, model, (train, _, _) = built(toy, embedding_l2=0.5)
    batch = next(iter(train))
    losses = model.calculate_loss(batch)
    features = model.translator.features(batch)
    table = model.tables()[0].weight.detach()
    looked_up = [table[features.ids[:, i]].square().sum() for i in model.schema.id_fields]
    looked_up += [table[many.values].square().sum() for many in features.multi.values()]
    looked_up += [len(batch) * table[model.schema.fields[i].offset + 1].square().sum() for i in model.schema.dense_fields]
    assert len(losses) == 3
    assert losses[2].item() == pytest.approx(0.25 * sum(looked_up).item() / len(batch), rel=1e-5)


def test_a_model_also_builds_from_settings_and_schema(toy: Path) -> None:
    _, model, _ = built(toy)
    assert isinstance(model.settings, Settings)
    assert isinstance(model.schema, DataSchema)
    torch.manual_seed(7)
    twin = MMoE(model.settings, model.schema)
    for (name, one), (other_name, other) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other_name
        assert torch.equal(one, other)


# ---- a stock Config, whose user gave the keys ----------------------------------------------------------------------


def stock(toy: Path, **values: Any) -> Any:
    given = {
        "data_path": str(toy), "load_col": None, "benchmark_filename": ["train", "valid", "test"],
        "LABEL_FIELD": "click", "numerical_features": ["age", "price"], "USER_ID_FIELD": None, "ITEM_ID_FIELD": None,
        "gpu_id": "", "epochs": 1, **values,
    }  # fmt: skip
    return Config(model=MMoE, dataset="toy", config_dict=given)


def test_a_stock_config_is_enough(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["prog"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = stock(toy, experts=3, unload_col={"inter": ["buy"]})
    train, valid, _ = loaders(config)
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


def test_a_misspelt_key_of_a_stock_config_is_an_error(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["prog"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = stock(toy, expert_hiden=[8])
    train, _, _ = loaders(config)
    with pytest.raises(UsageError, match="unknown key 'expert_hiden'.*'expert_hidden'"):
        MMoE(config, train.dataset)
