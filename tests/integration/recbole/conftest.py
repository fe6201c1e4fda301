"""A small set of atomic files in given splits, with two labels, and what RecBole makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_dtn.bridge import recbole_config
from recbole_dtn.config.load import settings_class
from recbole_dtn.registry import MODELS

Row = dict[str, str]
SIZES = {"train": 300, "valid": 80, "test": 80}
TYPES = {
    "user": "token", "item": "token", "tags": "token_seq", "age": "float", "price": "float", "click": "float",
    "buy": "float",
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "fields": [
        {"name": "user"},
        {"name": "item", "min_count": 8},
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
SMALL: dict[str, Any] = {
    "interactions": ["gdcn", {"name": "memonet", "codes": 20}], "module_dim": 8, "hidden": [8], "bottom_hidden": [8],
    "expert_hidden": [8], "gate_hidden": [4], "tower_hidden": [4],
}  # fmt: skip


def small(model: str) -> dict[str, Any]:
    """Small sizes of a model's own, and a domain where it needs one; a new model needs no entry here."""
    own = {key: value for key, value in SMALL.items() if key in settings_class(model).model_fields}
    return {**own, "domain_field": "user"} if MODELS.attributes(model).get("needs_domain") else own


def draw_rows(count: int, seed: int) -> list[Row]:
    """Rows of raw text; a click depends on the item and the price, a buy needs a click."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        item, price = draw.integers(40), draw.normal(100.0, 20.0)
        click = int(draw.random() < 1 / (1 + np.exp(-(item % 3 - 1) * 2 + (price - 100) / 20)))
        tags = " ".join(f"g{tag}" for tag in draw.permutation(5)[: draw.integers(4)])
        found.append(
            {
                "user": f"u{draw.integers(12)}",
                "item": f"i{item}",
                "tags": tags,
                "age": str(draw.integers(18, 60)),
                "price": f"{price:.4f}",
                "click": str(click),
                "buy": str(int(click and draw.random() < 0.4)),
            }
        )
    return found


class Toy:
    """Atomic files under ``data_path``, their rows, and the way through RecBole's own functions."""

    def __init__(self, data_path: Path) -> None:
        self.data_path = data_path
        self.rows = {part: draw_rows(count, seed) for seed, (part, count) in enumerate(SIZES.items())}
        self.small = small
        self.settings = {**SETTINGS, "output_dir": str(data_path / "runs")}
        self.write()

    def write(self, name: str = "toy", types: Mapping[str, str] = TYPES) -> None:
        """Write the parts with these columns."""
        folder = self.data_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in self.rows.items():
            lines = ["\t".join(f"{column}:{kind}" for column, kind in types.items())]
            lines += ["\t".join(row[column] for column in types) for row in rows]
            (folder / f"{name}.{part}.inter").write_text("\n".join(lines) + "\n")

    def config(self, model: str = "MMoE", **values: Any) -> Any:
        """Our config."""
        return recbole_config(model, "toy", self.data_path, {**self.settings, **small(model), **values})

    def stock_config(self, model: type, **values: Any) -> Any:
        """RecBole's own class, with the keys that a user has to set."""
        given = {
            "data_path": str(self.data_path),
            "load_col": None,
            "benchmark_filename": ["train", "valid", "test"],
            "LABEL_FIELD": "click",
            "numerical_features": ["age", "price"],
            "USER_ID_FIELD": None,
            "ITEM_ID_FIELD": None,
            "gpu_id": "",
            "epochs": 1,
            **values,
        }
        return Config(model=model, dataset="toy", config_dict=given)

    def loaders(self, config: Any) -> tuple[Any, Any, Any]:
        """Train, valid and test, by stock means."""
        init_seed(config["seed"], config["reproducibility"])
        train, valid, test = data_preparation(config, create_dataset(config))
        return train, valid, test

    def built(self, name: str = "MMoE", **values: Any) -> tuple[Any, Any, tuple[Any, Any, Any]]:
        """Config, model and loaders; the weights are the same at every call."""
        config = self.config(name, **values)
        parts = self.loaders(config)
        torch.manual_seed(7)
        return config, MODELS.load(name)(config, parts[0].dataset), parts


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The set, and a working directory of its own: RecBole's Trainer writes log_tensorboard/ wherever it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prog"])  # a stock Config reads it
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # and overwrites this
    return Toy(tmp_path / "data")
