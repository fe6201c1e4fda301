"""What a model that is fitted directly must do; :func:`recbole_dtn.testing.check_model` calls it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.data.features import Features
from recbole_dtn.data.progress import silent
from recbole_dtn.errors import UsageError
from recbole_dtn.loss.tasks import task_losses
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.direct.rows import DirectFit
from recbole_dtn.testing.data import take_rows, tiny_features

__all__ = ["FeatureRows", "check_direct_fit", "fit_tiny"]

ROWS, VALID_ROWS = 240, 80


class FeatureRows:
    """A batch as the rows of a split: what ``fit_directly`` reads.

    >>> from recbole_dtn.testing.data import tiny_schema
    >>> rows = FeatureRows(tiny_features(tiny_schema(), 5))
    >>> rows.rows, rows.batch([3, 1]).row.tolist()
    (5, [3, 1])
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self.rows = len(features)

    def batch(self, indices: Any) -> Features:
        """The rows at ``indices``."""
        places = [int(place) for place in indices]
        return self.features if places == list(range(self.rows)) else take_rows(self.features, places)


def fit_tiny(model: MultiTaskRecommender, train: Features, valid: Features) -> DirectFit:
    """Fit a model on a batch, and leave it in evaluation mode; nothing is printed."""
    with torch.random.fork_rng(devices=[]):
        found = model.fit_directly(FeatureRows(train), FeatureRows(valid), say=lambda line: None, meter=silent)
    model.eval()
    return found


def check_direct_fit(build: Callable[[], MultiTaskRecommender], *, seed: int = 0) -> None:
    """Fit a model on rows whose labels follow their inputs, and check what it has become.

    Its loss is below that of a constant; its logits depend neither on other rows, nor on labels; a saved state loads
    into a new model with the same logits; labels that are not observed, and rows of weight 0, change nothing; with
    ``deterministic``, another fit after another seed gives the same logits; without labels, or with one class, it has
    a finite constant score.

    Args:
        build: makes a new model. seed: of the rows.

    Raises:
        AssertionError: with what was expected and found.
    """
    model = build()
    train, valid = _rows(model, ROWS, seed), _rows(model, VALID_ROWS, seed + 1)
    found = fit_tiny(model, train, valid)
    assert 0 <= found.best_round <= found.rounds, f"round {found.best_round} of {found.rounds}"
    with torch.no_grad():
        wanted = model(train).logits
        _check_learned(model, train, wanted)
        _check_apart(model, train, wanted)
        _check_state(build, model, train, wanted)
        _check_ignored(build, train, valid, wanted)
        if model.deterministic:
            torch.manual_seed(seed + 77)
            again = build()
            fit_tiny(again, train, valid)
            assert torch.equal(again(train).logits, wanted), "deterministic is true, and another fit gives other logits"
        _check_degenerate(build, train, valid)
    if not model.has_gradients:
        _check_refusal(model, train)


def _rows(model: MultiTaskRecommender, rows: int, seed: int) -> Features:
    """Rows whose labels depend on the first field with one id, some of them unobserved, with sample weights."""
    features = tiny_features(model.schema, rows, seed=seed, masked=True, sample_weight=True)
    first = model.schema.id_fields[0]
    odd = (features.ids[:, first] % 2 == 0).float()
    draw = torch.Generator().manual_seed(seed)
    noise = torch.rand(rows, model.schema.num_tasks, generator=draw)
    binary = torch.tensor([task.kind == "binary" for task in model.schema.tasks])
    labels = torch.where(binary, (noise < 0.2 + 0.6 * odd.unsqueeze(1)).float(), 3.0 * odd.unsqueeze(1) + noise)
    return replace(features, labels=torch.where(features.observed, labels, float("nan")))


def _losses(model: MultiTaskRecommender, features: Features, logits: Tensor) -> Tensor:
    tasks = [replace(task, loss=None) for task in model.schema.tasks]
    return task_losses(logits.double(), features.labels, features.observed, tasks, features.sample_weight)


def _check_learned(model: MultiTaskRecommender, train: Features, logits: Tensor) -> None:
    names = model.schema.task_names
    assert logits.shape == (len(train), len(names)), f"logits have shape {tuple(logits.shape)}"
    assert logits.isfinite().all(), "logits are not finite after the fit"
    rows = train.observed * (1.0 if train.sample_weight is None else train.sample_weight.unsqueeze(1))
    mean = (train.labels.nan_to_num() * rows).sum(0) / rows.sum(0)
    binary = torch.tensor([task.kind == "binary" for task in model.schema.tasks])
    constant = torch.where(binary, torch.logit(mean.clamp(1e-6, 1 - 1e-6)), mean).expand_as(logits)
    ours, others = _losses(model, train, logits), _losses(model, train, constant)
    for name, found, known in zip(names, ours.tolist(), others.tolist(), strict=True):
        assert found < known, f"the training loss of {name} is {found:.4f}, that of a constant {known:.4f}"


def _check_apart(model: MultiTaskRecommender, train: Features, wanted: Tensor) -> None:
    rows = [5, 2, 11]
    part = model(take_rows(train, rows)).logits
    assert torch.allclose(part, wanted[rows], atol=1e-5), "a row's logits depend on the other rows of its batch"
    blind = replace(train, labels=torch.empty(0, 0), observed=torch.empty(0, 0, dtype=torch.bool), row=None, group=None)
    assert torch.equal(model(blind).logits, wanted), "logits depend on labels, row numbers or groups"


def _check_state(
    build: Callable[[], MultiTaskRecommender], model: MultiTaskRecommender, train: Features, wanted: Tensor
) -> None:
    faulty = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
    assert not faulty, f"the state holds {faulty[0]}, which is no tensor: checkpoints are read with weights_only"
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build().eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(train).logits, wanted), "a saved and loaded state gives other logits"


def _check_ignored(build: Callable[[], MultiTaskRecommender], train: Features, valid: Features, wanted: Tensor) -> None:
    # Other values than the NaN that the batch has there.
    other = build()
    fit_tiny(other, _unobserved_as(train, 1.0), _unobserved_as(valid, 0.0))
    assert torch.equal(other(train).logits, wanted), "a label that is not observed changes the fit"
    # Rows of weight 0 with the opposite labels: their weights change the mean of the others' by nothing.
    heavy = take_rows(train, [*range(len(train)), *range(20)])
    assert train.sample_weight is not None
    weights = torch.cat([train.sample_weight, torch.zeros(20)])
    other = build()
    fit_tiny(other, replace(heavy, labels=1 - heavy.labels, sample_weight=weights), valid)
    flipped = build()
    fit_tiny(flipped, replace(train, labels=1 - train.labels), valid)
    assert torch.allclose(other(train).logits, flipped(train).logits, atol=1e-5), "a row of weight 0 changes the fit"


def _unobserved_as(features: Features, value: float) -> Features:
    return replace(features, labels=torch.where(features.observed, features.labels, value))


def _check_degenerate(build: Callable[[], MultiTaskRecommender], train: Features, valid: Features) -> None:
    nothing = replace(train, observed=torch.zeros_like(train.observed))
    alone = replace(train, labels=torch.where(train.observed, 0.0, float("nan")))
    unseen = replace(valid, observed=torch.zeros_like(valid.observed))
    for told, rows, checked in (
        ("without a label", nothing, valid),
        ("with one class", alone, valid),
        ("without a label in validation", train, unseen),
    ):
        model = build()
        fit_tiny(model, rows, checked)
        assert model(train).logits.isfinite().all(), f"logits are not finite after a fit {told}"


def _check_refusal(model: MultiTaskRecommender, train: Features) -> None:
    told = ""
    try:
        model.calculate_loss(train)
    except UsageError as error:
        told = str(error)
    assert type(model).__name__ in told, "has_gradients is false, and calculate_loss raises no UsageError that says so"
