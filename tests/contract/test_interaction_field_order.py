"""Field order: which interactions do not depend on it, and which do so only through the order of their parameters."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.testing.equations import split_output

FIELDS, WIDTH, OUTPUT = 5, 4, 7
SIZES = (4, 9, 2, 6, 3)
ORDER = [3, 0, 4, 1, 2]
"""Field k of the new order is field ORDER[k] of the old one."""

Weights = Mapping[str, Tensor]


def built(name: str, options: Mapping[str, Any]) -> FeatureInteraction:
    torch.manual_seed(2)
    shape = FieldShape(FIELDS, WIDTH, tuple(range(FIELDS)), SIZES)
    module: FeatureInteraction = INTERACTIONS.load(name)(shape, OUTPUT, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


def outputs(module: FeatureInteraction, order: list[int]) -> Tensor:
    """On the same rows with their fields in ``order``."""
    torch.manual_seed(4)
    embeddings = torch.randn(6, FIELDS, WIDTH, dtype=torch.float64)
    ids = torch.zeros(6, FIELDS, dtype=torch.long)
    with torch.no_grad():
        return split_output(module(embeddings[:, order], ids))[0]


def by_field(weight: Tensor, axis: int = -1) -> Tensor:
    """Equal blocks along ``axis``, one per field, in the new order."""
    return torch.cat([weight.chunk(FIELDS, axis)[field] for field in ORDER], axis)


def every_axis(weights: Weights) -> dict[str, Tensor]:
    """Every axis whose size is a multiple of F, by field; no other size of the cases below is one."""
    found = {}
    for name, weight in weights.items():
        for axis in range(weight.dim()):
            if weight.shape[axis] % FIELDS == 0:
                weight = by_field(weight, axis)
        found[name] = weight
    return found


def by_pair(weights: Tensor, turn: Callable[[Tensor], Tensor] = lambda weight: weight) -> Tensor:
    """The weights (P, ...) of the new pairs; ``turn`` swaps the sides of a pair that was the other way round."""
    pairs = list(combinations(range(FIELDS), 2))
    found = []
    for i, j in pairs:
        old = (ORDER[i], ORDER[j])
        weight = weights[pairs.index((min(old), max(old)))]
        found.append(weight if old[0] < old[1] else turn(weight))
    return torch.stack(found)


def fwfm(weights: Weights) -> dict[str, Tensor]:
    head = weights["head.weight"]  # F columns of the linear terms, then P of the pairs
    return {
        **weights,
        "pair_weights": by_pair(weights["pair_weights"]),
        "linear.field_vectors": by_field(weights["linear.field_vectors"], 0),
        "head.weight": torch.cat([by_field(head[:, :FIELDS]), by_pair(head[:, FIELDS:].T).T], dim=1),
    }


def fmfm(weights: Weights) -> dict[str, Tensor]:
    """``<e_i M, e_j> = <e_j M^T, e_i>``; a diagonal is its own transpose."""
    of_pairs = by_pair(weights["pair_weights"], lambda weight: weight.T if weight.dim() == 2 else weight)
    return {**weights, "pair_weights": of_pairs, "head.weight": by_pair(weights["head.weight"].T).T}


def cin(weights: Weights) -> dict[str, Tensor]:
    """W^k_hij: j is a field in every layer, i in the first."""
    found = dict(weights)
    for name, weight in weights.items():
        if name.startswith("layers."):
            turned = by_field(weight.unflatten(1, (-1, FIELDS)))
            found[name] = (by_field(turned, 1) if name == "layers.0.weight" else turned).flatten(1)
    return found


Move = Callable[[Weights], dict[str, Tensor]]
UP_TO_PARAMETERS: list[tuple[str, dict[str, Any], Move]] = [
    ("autoint", {"layers": 2, "heads": 2, "head_dim": 2}, every_axis),
    ("cin", {"layers": [4, 2, 3], "half_split": True}, cin),
    ("dcn", {}, every_axis),
    ("dcnv2", {"structure": "cross"}, every_axis),
    ("dcnv2", {"structure": "stacked", "hidden": [6], "low_rank": 2}, every_axis),
    ("fmfm", {}, fmfm),
    ("fmfm", {"weight": "vector"}, fmfm),
    ("fwfm", {}, fwfm),
    ("gdcn", {}, every_axis),
    ("gdcn", {"low_rank": 2}, every_axis),
    ("masknet", {"block_dim": 8}, every_axis),
    ("mlp", {"hidden": [6]}, every_axis),
]
"""Methods whose equation treats the fields alike: with their parameters in the new order, the output is the same.

FiBiNET is not among them: in ``(e_i W) * e_j`` the earlier field has the matrix.
"""


@pytest.mark.parametrize("name", INTERACTIONS.names())
def test_only_what_says_so_ignores_the_order(name: str) -> None:
    module = built(name, {})
    same = torch.allclose(outputs(module, ORDER), outputs(module, list(range(FIELDS))), rtol=1e-9, atol=1e-9)
    assert same == module.ignores_field_order


@pytest.mark.parametrize(("name", "options", "move"), UP_TO_PARAMETERS)
def test_the_order_is_only_that_of_the_parameters(name: str, options: dict[str, Any], move: Move) -> None:
    module, moved = built(name, options), built(name, options)
    moved.load_state_dict(move(module.state_dict()))
    expected = outputs(module, list(range(FIELDS)))
    torch.testing.assert_close(outputs(moved, ORDER), expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(outputs(module, ORDER), expected)
