"""DTN with two labels under RecBole's Dataset and Trainer, on MovieLens-100K (docs/recbole.md explains it).

    python examples/recbole_stock.py

The data set is derived from the files inside RecBole's wheel, and its splits are written as RecBole's benchmark parts.
The lines of ``train`` are those of any RecBole script, but for ``recbole_config``, ``RecBoleTrainer`` and
``evaluate_tasks``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_dtn.bridge import RecBoleTrainer, evaluate_tasks, recbole_config
from recbole_dtn.config.load import resolve
from recbole_dtn.model.dtn import DTN
from recbole_dtn.preprocess.export import write_given_splits


def write_files(data_path: str, **settings: Any) -> None:
    """Our split of ml-100k, one label column per task, as the data set ``ml-100k-given``."""
    resolved = resolve({"dataset": "ml-100k", "data_path": data_path, **settings})
    write_given_splits(resolved.settings, Path(data_path) / "ml-100k-given", "ml-100k-given", overwrite=True)


def train(data_path: str, **overrides: Any) -> dict[str, dict[str, float]]:
    """Train with RecBole's Trainer; test metrics of the best epoch per task."""
    config = recbole_config("DTN", "ml-100k-given", data_path, overrides)
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, test_data = data_preparation(config, create_dataset(config))
    model = DTN(config, train_data.dataset).to(config["device"])
    trainer = RecBoleTrainer(config, model)
    trainer.fit(train_data, valid_data, show_progress=config["show_progress"])
    trainer.evaluate(test_data, load_best_model=True)
    return evaluate_tasks(trainer, test_data)


if __name__ == "__main__":
    write_files("dataset")
    for task, numbers in train("dataset", epochs=2).items():
        print(task, numbers)
