"""The atomic files that this package writes, under RecBole's own reader and its own DeepFM."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from recbole.data import create_dataset
from recbole.model.context_aware_recommender.deepfm import DeepFM
from recbole.trainer import Trainer
from recbole.utils import early_stopping

from recbole_dtn.bridge import RecBoleConfig
from recbole_dtn.data.write import write_atomic
from recbole_dtn.preprocess.movielens.preprocessor import MovieLens100K


def test_stock_deepfm_trains_on_the_movielens_files_that_we_write(toy: Any, tmp_path: Path) -> None:
    folder = MovieLens100K(None, tmp_path / "made").run()
    inter = folder / "ml-100k-mt.inter"
    inter.write_text("".join(inter.read_text().splitlines(keepends=True)[:2001]))
    config = RecBoleConfig(
        model=DeepFM,
        dataset="ml-100k-mt",
        config_dict={
            "data_path": str(tmp_path / "made"),
            "load_col": None,
            "threshold": {"rating": 4},
            "numerical_features": ["age"],
            "epochs": 3,
            "learning_rate": 0.01,
            "train_batch_size": 256,
            "use_gpu": False,
        },
    )
    train, valid, _ = toy.loaders(config)
    assert len(train.dataset) + len(valid.dataset) == 1800
    assert train.dataset.num("gender") == 3  # two and the padding
    trainer = Trainer(config, DeepFM(config, train.dataset))
    trainer.fit(train, valid, verbose=False, saved=False)
    assert trainer.train_loss_dict[2] < trainer.train_loss_dict[0]
    assert trainer.best_valid_score > 0.6


HOSTILE = [
    "NA",
    "null",
    "nan",
    '"quoted',
    'in"side',
    "[PAD]",
    "None",
    "%4EA",
    "tab\tinside",
    "line\nbreak",
    "007",
    "7",
    " 7",
]


def test_stock_reads_hostile_tokens_as_different_tokens(toy: Any) -> None:
    frame = pl.DataFrame({"user": HOSTILE, "click": [float(i % 2) for i in range(len(HOSTILE))]})
    for part in ("train", "valid", "test"):
        write_atomic(frame, toy.data_path / "toy" / f"toy.{part}.inter", {"user": "token", "click": "float"})
    dataset = create_dataset(toy.stock_config(DeepFM, numerical_features=[]))
    assert len(dataset.inter_feat) == 3 * len(HOSTILE)
    assert dataset.num("user") == len(HOSTILE) + 1
    assert sorted(dataset.inter_feat["user"].tolist()) == sorted(list(range(1, len(HOSTILE) + 1)) * 3)


# ---- what the stock reader does without a word: the reasons for the refusals (docs/recbole.md) ---------------------


def stock_column(toy: Any, types: dict[str, str], column: str) -> list[Any]:
    toy.write(types=types)
    dataset = create_dataset(toy.stock_config(DeepFM, numerical_features=[]))
    return list(dataset.inter_feat[column])


def test_stock_reads_na_as_padding(toy: Any) -> None:
    toy.rows["train"][0]["user"] = "NA"
    assert stock_column(toy, {"user": "token", "click": "float"}, "user")[0] == 0


def test_stock_replaces_a_missing_float_by_the_mean_over_all_splits(toy: Any) -> None:
    toy.rows["train"][0]["price"] = ""
    known = [float(row["price"]) for rows in toy.rows.values() for row in rows if row["price"]]
    found = stock_column(toy, {"user": "token", "price": "float", "click": "float"}, "price")[0]
    assert found == pytest.approx(sum(known) / len(known))


def test_stock_makes_an_input_of_a_second_label_typed_token(toy: Any) -> None:
    toy.write(types={"user": "token", "click": "float", "buy": "token"})
    config = toy.stock_config(DeepFM, numerical_features=[])
    train, _, _ = toy.loaders(config)
    assert "buy" in DeepFM(config, train.dataset).token_field_names


def test_stock_drops_floats_that_are_not_among_numerical_features(toy: Any) -> None:
    config = toy.stock_config(DeepFM, numerical_features=[])
    train, _, _ = toy.loaders(config)
    assert DeepFM(config, train.dataset).float_field_names == []


def test_stock_replaces_a_missing_label_by_the_mean(toy: Any) -> None:
    toy.rows["train"][0]["click"] = ""
    found = stock_column(toy, {"user": "token", "click": "float"}, "click")[0]
    assert 0.0 < found < 1.0


def test_stock_lets_a_leading_quote_swallow_the_cells_up_to_the_next(toy: Any) -> None:
    toy.rows["train"][0]["user"] = '"a'
    toy.rows["train"][9]["user"] = 'b"'
    assert len(stock_column(toy, {"item": "token", "user": "token", "click": "float"}, "click")) < 460


def test_stock_numbers_tokens_of_all_splits(toy: Any) -> None:
    toy.rows["test"][0]["user"] = "only-in-test"
    toy.write()
    dataset = create_dataset(toy.stock_config(DeepFM))
    assert "only-in-test" in dataset.field2id_token["user"]


def test_stock_cannot_load_its_own_checkpoint(toy: Any) -> None:
    config, model, (train, valid, test) = toy.built()
    trainer = Trainer(config, model)
    trainer.fit(train, valid, verbose=False)  # saved=True
    assert Path(trainer.saved_model_file).is_file()
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        trainer.evaluate(test)
    assert Path("log_tensorboard").is_dir()  # whatever checkpoint_dir says


def test_stock_stops_one_validation_after_stopping_step() -> None:
    best, waited, stops = 0.5, 0, []
    for score in (0.4, 0.4, 0.4):
        best, waited, stop, _ = early_stopping(score, best, waited, max_step=2)
        stops.append(stop)
    assert stops == [False, False, True]


def test_a_pickled_data_set_in_the_checkpoint_folder_is_not_loaded(toy: Any) -> None:
    config = toy.config()
    folder = Path(config["checkpoint_dir"])
    folder.mkdir(parents=True)
    for name in ("toy-Dataset.pth", "toy-for-MMoE-dataloader.pth"):
        (folder / name).write_bytes(b"not a pickle")
    train, _, _ = toy.loaders(config)
    assert len(train.dataset) == 300
