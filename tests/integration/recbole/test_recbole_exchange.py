"""Checkpoints cross the border both ways, and both trainers make the same steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import pytorch_lightning as lightning
import torch
from recbole.trainer import Trainer
from torch import Tensor

from recbole_dtn.config.load import resolve
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.registry import MODELS
from recbole_dtn.serving.load import load
from recbole_dtn.training.exchange import load_into, save_checkpoint
from recbole_dtn.training.fit import fit
from recbole_dtn.training.module import TrainingModule


def raw_frame(rows: list[dict[str, str]]) -> pl.DataFrame:
    numbers = ("age", "price")
    return pl.DataFrame(rows).with_columns(pl.col(name).cast(pl.Float64) for name in numbers)


@torch.no_grad()
def recbole_scores(model: Any, loader: Any) -> Tensor:
    """(rows, T) by RecBole's own interface: one task at a time."""
    model.eval()
    columns = []
    for task in model.schema.task_names:
        model.evaluated_task = task
        columns.append(torch.cat([model.predict(batch[0]) for batch in loader]))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.attributes(name)["has_gradients"]])
def test_what_recbole_trained_scores_alike_on_our_side(toy: Any, tmp_path: Path, name: str) -> None:
    config, model, (train, _, test) = toy.built(name)
    Trainer(config, model).fit(train, verbose=False, saved=False)
    file = tmp_path / "checkpoint.ckpt"
    save_checkpoint(model, file)
    content = torch.load(file, weights_only=True)  # plain values: no pickled Config
    assert content["settings"]["model"] == name
    found = read_checkpoint(file)
    settings = resolve({**found.settings}).settings
    ours: MultiTaskRecommender = MODELS.load(name)(settings, found.schema)
    ours.load_state_dict(found.state_dict)
    features = found.vocabularies.encode(raw_frame(toy.rows["test"]), found.schema)
    with torch.no_grad():
        scores = ours.eval().probabilities(ours(features).logits)
    assert scores.std() > 0.01
    assert (scores - recbole_scores(model, test)).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["DTN", "MMoE", "PEPNet", "Logistic", "Boosting"])
def test_what_we_trained_scores_alike_on_recboles_side(toy: Any, name: str) -> None:
    settings = {**toy.settings, **toy.small(name), "data_path": str(toy.data_path), "split": "given"}
    run = fit(name, "toy", settings, quiet=True)
    ours = load(run.folder).predict(raw_frame(toy.rows["test"]))
    _, model, (_, _, test) = toy.built(name)
    before = recbole_scores(model, test)
    load_into(model, run.folder)
    scores = recbole_scores(model, test)
    assert (scores - torch.tensor(ours.to_numpy())).abs().max() <= 1e-6
    assert (scores - before).abs().max() > 0.01


def test_a_checkpoint_brings_its_own_vocabularies(toy: Any, tmp_path: Path) -> None:
    _, model, (_, _, test) = toy.built()
    save_checkpoint(model, tmp_path / "a.ckpt")
    expected = recbole_scores(model, test)
    # Another training split in which the users have other frequencies, so that the same ids mean other users.
    toy.rows["train"] = toy.rows["train"][::-1]
    swap = {f"u{i}": f"u{11 - i}" for i in range(12)}
    for row in toy.rows["train"]:
        row["user"] = swap[row["user"]]
    toy.write()
    _, other, (_, _, test) = toy.built()
    assert other.vocabularies != model.vocabularies
    with pytest.raises(UsageError, match="field 'user': the saved model learned another vocabulary"):
        other.load_other_parameter(model.other_parameter())
    load_into(other, tmp_path / "a.ckpt")
    assert (recbole_scores(other, test) - expected).abs().max() <= 1e-6


def test_compressed_fields_cross_the_border(toy: Any, tmp_path: Path) -> None:
    compressed = {"embedding_compression": {"method": "quotient_remainder", "above": 3, "collisions": 3}}
    settings = {**toy.settings, **toy.small("MMoE"), **compressed, "data_path": str(toy.data_path), "split": "given"}
    run = fit("MMoE", "toy", settings, quiet=True)
    ours = load(run.folder).predict(raw_frame(toy.rows["test"]))
    _, model, (_, _, test) = toy.built(**compressed)
    load_into(model, run.folder)
    assert (recbole_scores(model, test) - torch.tensor(ours.to_numpy())).abs().max() <= 1e-6
    # The table of a sum has the shape of a product's.
    _, other, _ = toy.built(embedding_compression={**compressed["embedding_compression"], "operation": "sum"})
    with pytest.raises(UsageError, match=r"\n  embedding_compression: .*'product'.* in the checkpoint, .*'sum'.* here"):
        load_into(other, run.folder)
    # So has that of a vocabulary of one token more, here the shortest of the compressed ones.
    for row in toy.rows["train"][:20]:
        row["tags"] = "new"
    toy.write()
    _, other, _ = toy.built(**compressed)
    assert other.state_dict()["embedding.table.weight"].shape == model.state_dict()["embedding.table.weight"].shape
    with pytest.raises(UsageError, match="rows of tags: 7 in the checkpoint, 8 here"):
        load_into(other, run.folder)


def test_recboles_own_way_of_loading_accepts_the_same_split(toy: Any) -> None:
    _, model, (_, _, test) = toy.built()
    _, other, _ = toy.built()
    with torch.no_grad():
        model.tables()[0].weight.normal_()
    other.load_state_dict(model.state_dict())
    other.load_other_parameter(model.other_parameter())
    assert torch.equal(recbole_scores(other, test), recbole_scores(model, test))


def test_a_checkpoint_of_another_model_names_what_differs(toy: Any, tmp_path: Path) -> None:
    _, model, _ = toy.built()
    save_checkpoint(model, tmp_path / "a.ckpt")
    _, wider, _ = toy.built(embedding_size=8)
    with pytest.raises(UsageError, match=r"does not fit this model:\n(.*\n)*  embedding\.table\.weight: .*, 4\] in"):
        load_into(wider, tmp_path / "a.ckpt")
    _, fewer, _ = toy.built(tasks=toy.settings["tasks"][:1])
    with pytest.raises(UsageError, match=r"tasks: \['click', 'buy'\] in the checkpoint, \['click'\] here"):
        load_into(fewer, tmp_path / "a.ckpt")
    ours = MODELS.load("MMoE")(model.settings, model.schema)
    for use in (save_checkpoint, load_into):
        with pytest.raises(UsageError, match="this model was built from Settings"):
            use(ours, tmp_path / "a.ckpt")


class Translated:
    """RecBole's batches, in RecBole's order, as Lightning's loader."""

    def __init__(self, loader: Any, model: Any) -> None:
        self.loader, self.model = loader, model

    def __iter__(self) -> Iterator[Features]:
        for batch in self.loader:
            yield self.model.translator.features(batch)

    def __len__(self) -> int:
        return len(self.loader)


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.attributes(name)["has_gradients"]])
def test_both_trainers_end_with_equal_parameters(toy: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # RecBole's Trainer has one learning rate for all parameters.
    monkeypatch.setattr(MODELS.load(name), "learning_rates", lambda model: {})
    values = {"embedding_optimizer.name": "adam", "embedding_l2": 0.01}
    config, theirs, (train, _, _) = toy.built(name, **values)
    start = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    Trainer(config, theirs).fit(train, verbose=False, saved=False)

    _, ours, (train, _, _) = toy.built(name, **values)
    assert all(torch.equal(start[key], tensor) for key, tensor in ours.state_dict().items())
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = TrainingModule(ours, ours.settings, steps_per_epoch=len(train))
    trainer.fit(module, train_dataloaders=Translated(train, ours))
    pairs = dict(theirs.named_parameters())
    assert max((pairs[key] - parameter).abs().max().item() for key, parameter in ours.named_parameters()) <= 1e-7
    assert max((start[key] - parameter).abs().max().item() for key, parameter in ours.named_parameters()) > 0.01
