"""Public sets made from raw files (synthetic ones of their layouts), under stock RecBole and with our models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.data import create_dataset
from recbole.trainer import Trainer

from recbole_dtn.bridge import recbole_config
from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.registry import MODELS

NAMES = {"aliexpress": "aliexpress-nl", "kuairand": "kuairand-1k"}
ROWS = {"aliexpress": 2_000, "kuairand": 3_000}


@pytest.fixture(params=sorted(NAMES))
def made(request: pytest.FixtureRequest, toy: Any, tmp_path: Path) -> tuple[str, Path]:
    """A set's name and its data path, made from a synthetic raw set."""
    like = request.param
    raw = tmp_path / "raw"
    own = ["--countries=NL"] if like == "aliexpress" else []
    drawn = ["preprocess", "synthetic", f"--like={like}", f"--rows={ROWS[like]}", f"--output={raw}", *own]
    assert main(drawn) == 0
    assert main(["preprocess", like, f"--raw={raw}", f"--data_path={tmp_path / 'data'}", *own]) == 0
    return NAMES[like], tmp_path / "data"


def test_stock_recbole_reads_the_files_as_we_do(made: tuple[str, Path], toy: Any) -> None:
    name, data_path = made
    settings = {"dataset": name, "embedding_size": 4, "accelerator": "cpu", "output_dir": str(data_path / "runs")}
    config = recbole_config("MMoE", name, data_path, {**settings, **toy.small("MMoE")})
    datasets = create_dataset(config).build()
    ours = prepare(resolve([f"--dataset={name}", f"--data_path={data_path}"]).settings)
    for dataset, part in zip(datasets, ("train", "valid", "test"), strict=True):
        assert len(dataset) == ours.summary.rows[part]
        for task, (positives, _) in ours.summary.positives[part].items():
            assert int(dataset.inter_feat[task].sum()) == positives
    joined = datasets[0].join(datasets[0].inter_feat[:50])
    for field in ours.schema.fields:
        assert field.name in joined.columns, "a column of a side table that stock RecBole does not join"


def test_our_model_trains_under_the_stock_trainer(made: tuple[str, Path], toy: Any) -> None:
    name, data_path = made
    own = {"dataset": name, "embedding_size": 4, "accelerator": "cpu", "epochs": 1, "progress": False}
    config = recbole_config(
        "MMoE", name, data_path, {**own, **toy.small("MMoE"), "output_dir": str(data_path / "runs")}
    )
    train, valid, _ = toy.loaders(config)
    torch.manual_seed(1)
    model = MODELS.load("MMoE")(config, train.dataset)
    trainer = Trainer(config, model)
    trainer.fit(train, valid, verbose=False, saved=False)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert trainer.train_loss_dict[0] > 0
