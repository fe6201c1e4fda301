"""The setting ``batch_parts``: the same losses, penalties and gradients, and less memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import PLAIN, make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.parts import forward_in_parts

TRAINED = [name for name in MODELS.names() if MODELS.attributes(name)["has_gradients"]]
NORMALISES = {"HoME", "STAR"}
"""Models whose rows depend on the others of the batch."""


def build(name: str, **settings: Any) -> MultiTaskRecommender:
    torch.manual_seed(1)
    cls: type[MultiTaskRecommender] = MODELS.load(name)
    schema = tiny_schema(domains=3 if cls.needs_domain else 0)
    chosen = make_settings(name, **{**PLAIN, "embedding_size": 4, "embedding_std": 0.5, **settings})
    return cls(chosen, schema).train()


def gradients(model: MultiTaskRecommender, features: Features, parts: int) -> dict[str, Tensor]:
    """Of the sum of all losses and penalties; with the logits, gates and each term."""
    model.zero_grad()
    torch.manual_seed(3)

    def forward(part: Features) -> Any:
        return model(part), model.penalties()

    output, penalties = forward_in_parts(forward, features, parts) if parts > 1 else forward(features)
    losses = model.task_losses(features, output)
    terms = {**penalties, **output.auxiliary}
    torch.stack([losses.sum(), *terms.values()]).sum().backward()
    found = {"logits": output.logits, "losses": losses, **terms}
    found |= {f"gate {key}": gate for key, gate in output.gates.items()}
    found |= {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {key: value.detach().to_dense().clone() for key, value in found.items()}


@pytest.mark.parametrize("name", sorted(set(TRAINED) - NORMALISES))
def test_parts_are_the_whole(name: str) -> None:
    model = build(name, embedding_l2=0.1, codebook_l2=0.1).double()
    # Gates that are drawn in training would be others in parts.
    model.eval() if name in {"MSSM", "SNR"} else model.train()
    features = tiny_features(model.schema, 10, masked=True)
    whole = gradients(model, features, 1)
    for parts in (2, 4, 99):
        found = gradients(model, features, parts)
        assert found.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(
                found[key], value, atol=1e-10, rtol=1e-8, msg=lambda text, key=key: f"{key}: {text}"
            )


@pytest.mark.parametrize("name", sorted(NORMALISES))
def test_a_model_that_normalises_over_the_batch_is_refused(name: str) -> None:
    model = build(name)
    settings = model.settings.model_copy(update={"batch_parts": 2})
    with pytest.raises(UsageError, match=rf"batch_parts: expected 1 for {name}, found 2: \S*norm\S* normalises over"):
        TrainingModule(model, settings)


def test_the_backward_pass_drops_the_units_of_the_forward_pass() -> None:
    model = build("MMoE", dropout=0.5).double()
    features = tiny_features(model.schema, 12)
    found = gradients(model, features, 3)
    # The same draws, and all that the backward pass needs kept.
    model.zero_grad()
    torch.manual_seed(3)
    logits = torch.cat([model(part).logits for part in features.split(3)])
    assert torch.equal(found["logits"], logits)
    model.losses(logits, features.labels, features.observed).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(found[name], parameter.grad.to_dense()), name


def test_split_makes_runs_of_rows() -> None:
    features = tiny_features(tiny_schema(domains=2), 7)
    pieces = features.split(3)
    assert [len(piece) for piece in pieces] == [3, 2, 2]
    start = 0
    for piece in pieces:
        wanted = take_rows(features, range(start, start + len(piece)))
        start += len(piece)
        for name in ("ids", "dense", "labels", "observed", "domain"):
            torch.testing.assert_close(getattr(piece, name), getattr(wanted, name), equal_nan=True)
        for place, many in wanted.multi.items():
            for name in ("values", "offsets", "weights"):
                torch.testing.assert_close(getattr(piece.multi[place], name), getattr(many, name))
    assert [len(piece) for piece in features.split(20)] == [1] * 7


def test_less_is_kept_for_the_backward_pass() -> None:
    """Bytes that autograd holds after the forward pass: those of one row's outputs and inputs, not of its layers."""
    model = build("MMoE", embedding_size=16)
    features = tiny_features(model.schema, 256)

    def held(parts: int) -> int:
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        def forward(part: Features) -> Any:
            return model(part), model.penalties()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = forward_in_parts(forward, features, parts)[0] if parts > 1 else forward(features)[0]
        assert output.logits.requires_grad
        return sum(kept.values())

    assert held(4) < held(1) / 4
