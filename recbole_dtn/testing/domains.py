"""What a model with parts per domain must do beside the contract of every model."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import redraw

__all__ = ["check_domain_model"]

ROWS = 48
STEPS = 300


def check_domain_model(model: str | type[MultiTaskRecommender], **settings: Any) -> None:
    """Check a model that reads ``Features.domain``, beside :func:`recbole_dtn.testing.check_model`.

    Two domains of equal rows and opposite labels are both learned; every parameter gets a gradient within ten steps,
    and every domain trains parameters of its own; units that start equal do not stay equal; in evaluation a row's
    logits do not depend on the rows beside it, a batch of one included, and no state changes; all that was learned is
    in the saved state; rows of a domain without training rows have finite logits that depend on the row; a batch
    without domains is refused.

    Args:
        model: a registered name, or the class. settings: its own settings, to check them too.

    Raises:
        AssertionError: with what was expected and found.

    >>> check_domain_model("PEPNet", tower_hidden=[8])
    """
    cls: type[MultiTaskRecommender] = MODELS.load(model) if isinstance(model, str) else model
    chosen = {"embedding_size": 4, "embedding_std": 0.5, **settings}
    schema = tiny_schema(domains=3)
    features = _opposite(tiny_features(schema, ROWS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        built, other = (cls(make_settings(model, **chosen), schema) for _ in range(2))
        _check_one_row_trains(built, features)
        every = tiny_features(schema, ROWS, seed=1)
        _check_gradients(built, every)
        _check_own_parameters(built, every)
        _train(built, features)
    mixed = tiny_features(schema, ROWS, seed=2)
    _check_rows(built, mixed)
    _check_learned(built, features)
    _check_symmetry(built)
    _check_state(built, other, mixed)
    _check_unseen(cls, make_settings(model, **chosen), features)
    told = ""
    try:
        built(replace(mixed, domain=None))
    except UsageError as error:
        told = str(error)
    assert "domain_field" in told, f"a batch without domains: expected an error that names domain_field, found {told!r}"


def _opposite(features: Features) -> Features:
    """Half of the rows, once in domain 0 and once with opposite labels in domain 1."""
    half = list(range(len(features) // 2))
    twice = take_rows(features, half + half)
    second = torch.arange(len(twice)) >= len(half)
    labels = torch.where(second.unsqueeze(1), 1.0 - twice.labels, twice.labels)
    return replace(twice, domain=second.long(), labels=labels)


def _step(model: MultiTaskRecommender, features: Features) -> Tensor:
    model.train().zero_grad()
    output = model(features)
    losses: Tensor = model.task_losses(features, output)
    torch.stack([*losses, *output.auxiliary.values()]).sum().backward()  # type: ignore[no-untyped-call]
    return losses.detach()


def _check_one_row_trains(model: MultiTaskRecommender, features: Features) -> None:
    if getattr(model, "min_batch_rows", 1) > 1:
        return
    # The first batch of all, so that there is no moving average yet.
    assert _step(model, take_rows(features, [0])).isfinite().all(), "the loss of a batch of one is not finite"
    for name, parameter in model.named_parameters():
        finite = parameter.grad is None or parameter.grad.isfinite().all()
        assert finite, f"the gradient of {name} is not finite in a batch of one"


def _check_gradients(model: MultiTaskRecommender, features: Features) -> None:
    waiting = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        _step(model, features)
        waiting -= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
        optimizer.step()
    assert not waiting, f"no gradient within 10 steps: {', '.join(sorted(waiting))}"


def _check_own_parameters(model: MultiTaskRecommender, features: Features) -> None:
    """Every domain's rows must reach numbers that no other domain's rows reach: its embedding, its weights."""
    _step(model, features)  # all domains have rows
    own: list[Tensor] | None = None
    # Of a single draw, a ReLU that is off in all rows but one domain's would pass for that domain's own.
    for seed in range(4):
        drawn = copy.deepcopy(model).eval()
        redraw(drawn, seed=seed)
        reached = torch.stack([_reached(drawn, features, number) for number in range(3)])
        alone = reached & (reached.sum(0) == 1)
        own = list(alone) if own is None else [before & now for before, now in zip(own, alone, strict=True)]
    for number, numbers in enumerate(own or []):
        assert numbers.any(), f"domain {number} has no parameter of its own that its rows train"


def _reached(model: MultiTaskRecommender, features: Features, number: int) -> Tensor:
    """Which numbers of all dense parameters get a gradient of the same rows in domain ``number``."""
    tables = {id(table.weight) for table in model.tables()}
    model.zero_grad()
    model(replace(features, domain=torch.full_like(features.ids[:, 0], number))).logits.sum().backward()
    parameters = [p for p in model.parameters() if id(p) not in tables]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() != 0 for p in parameters])


def _train(model: MultiTaskRecommender, features: Features) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(STEPS):
        losses = _step(model, features)
        optimizer.step()
        if losses.max() < 0.1:
            return


def _check_learned(model: MultiTaskRecommender, features: Features) -> None:
    domain = features.domain
    assert domain is not None
    for number in range(2):
        rows = take_rows(features, (domain == number).nonzero().flatten().tolist())
        with torch.no_grad():
            losses = model.eval().task_losses(rows, model(rows))
        # log 2 is the loss of a model that cannot tell the domains apart.
        assert losses.max() < 0.3, f"opposite labels: domain {number} has the loss {losses.max():.3g} after training"


def _check_symmetry(model: MultiTaskRecommender) -> None:
    for name, parameter in model.named_parameters():
        for axis in range(parameter.dim() if parameter.dim() > 1 else 0):
            slices = parameter.detach().transpose(0, axis).flatten(1)
            same = len(slices) > 1 and bool((slices == slices[:1]).all())
            assert not same, f"{name}: all {len(slices)} slices along axis {axis} are equal after training"


def _check_rows(model: MultiTaskRecommender, features: Features) -> None:
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    domain = features.domain
    assert domain is not None
    with torch.no_grad():
        whole = model(features).logits
        batches = [[7], [30, 2, 19, 5], (domain == 1).nonzero().flatten().tolist(), list(range(ROWS))[::-1]]
        for rows in batches:
            part = model(take_rows(features, rows)).logits
            error = (part - whole[rows]).abs().max() / whole.abs().max().clamp_min(1.0)
            assert error < 1e-5, f"a row's logits depend on the other rows of its batch: off by {error:.3g}"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"evaluation changes {name}"


def _check_state(model: MultiTaskRecommender, other: MultiTaskRecommender, features: Features) -> None:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        wanted, found = model.eval()(features).logits, other.eval()(features).logits
    assert torch.equal(wanted, found), "a saved and loaded state gives other logits: something learned is not saved"


def _check_unseen(cls: type[MultiTaskRecommender], settings: Any, features: Features) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        model = cls(settings, tiny_schema(domains=3))
        _step(model, features)
    unseen = replace(features, domain=torch.full_like(features.ids[:, 0], 2))
    with torch.no_grad():
        logits = model.eval()(unseen).logits
    assert logits.isfinite().all(), "a domain without training rows has logits that are not finite"
    assert (logits.std(0) > 1e-4).all(), "a domain without training rows has the same logit in every row"
