"""The documented script, in this process, on a part of MovieLens-100K; and the export that it starts from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.model.context_aware_recommender.deepfm import DeepFM
from recbole.trainer import Trainer

from recbole_dtn.bridge import RecBoleConfig, recbole_config
from recbole_dtn.config.load import resolve
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.model.mmoe import MMoE
from recbole_dtn.preprocess.prepare import prepare


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    file = next(
        parent / "examples" / "recbole_stock.py"
        for parent in Path(__file__).resolve().parents
        if (parent / "examples").is_dir()
    )
    monkeypatch.chdir(tmp_path)  # RecBole's Trainer writes log_tensorboard/ there
    spec = importlib.util.spec_from_file_location("recbole_stock", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_files("data", limit_rows=2000)
    return module


def test_the_documented_script_trains_and_tests(example: ModuleType) -> None:
    small = {"interactions": ["gdcn"], "module_dim": 8, "embedding_size": 4, "train_batch_size": 128}
    found = example.train("data", epochs=4, accelerator="cpu", progress=False, **small, **{"optimizer.lr": 0.01})
    assert set(found) == {"like", "love"}
    assert all(set(numbers) == {"auc", "logloss"} for numbers in found.values())
    assert found["like"]["auc"] > 0.55


def test_both_readers_encode_the_exported_splits_alike(example: ModuleType) -> None:
    ours = prepare(resolve({"dataset": "ml-100k", "data_path": "data", "limit_rows": 2000}).settings)
    config = recbole_config("MMoE", "ml-100k-given", "data", {"accelerator": "cpu"})
    assert (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]) == ("user_id", "item_id")
    train, _, test = data_preparation(config, create_dataset(config))
    model = MMoE(config, train.dataset)
    assert model.vocabularies == ours.vocabularies.to_dict()
    assert model.schema.fields == ours.schema.fields
    theirs: Any = model.translator.features(next(iter(test))[0])
    mine = next(iter(BatchLoader(ours.splits["test"], 200, shuffle=False, seed=0)))
    for name in ("ids", "dense", "labels", "observed"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    assert torch.equal(mine.multi[7].values, theirs.multi[7].values)


def test_stock_deepfm_trains_on_the_exported_splits(example: ModuleType) -> None:
    config = RecBoleConfig(
        model=DeepFM,
        dataset="ml-100k-given",
        config_dict={
            "data_path": "data",
            "load_col": None,
            "unload_col": {"inter": ["love"]},
            "benchmark_filename": ["train", "valid", "test"],
            "LABEL_FIELD": "like",
            "numerical_features": ["age"],
            "epochs": 3,
            "learning_rate": 0.01,
            "train_batch_size": 128,
            "use_gpu": False,
        },
    )
    train, valid, _ = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, DeepFM(config, train.dataset))
    trainer.fit(train, valid, verbose=False, saved=False)
    assert trainer.best_valid_score > 0.6
