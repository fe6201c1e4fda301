"""RankMixer against its equations, in plain numpy, one row, token and expert at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf

from recbole_dtn.config.choice import choose
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape, WithAuxiliary
from recbole_dtn.interaction.rankmixer import RankMixer, mix_tokens
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.testing.devices import check_one_device
from recbole_dtn.testing.interactions import check_equation
from recbole_dtn.testing.numeric import check_reference, redraw, relu, softmax

SHAPE = FieldShape(num_fields=3, embedding_dim=5, id_fields=(0, 2), field_sizes=(9, 2, 7))
Weights = Mapping[str, np.ndarray]


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, 3, 5, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), its derivative Phi(x) + x phi(x) for the imaginary part."""
    real = np.real(x)
    cdf = 0.5 * (1.0 + erf(real / math.sqrt(2.0)))
    density = np.exp(-(real**2) / 2) / math.sqrt(2 * math.pi)
    return real * cdf + 1j * np.imag(x) * (cdf + real * density) if np.iscomplexobj(x) else real * cdf


def layer_norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    mean = x.mean()
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def tokens_of(w: Weights, e: np.ndarray, count: int, groups: Sequence[Sequence[int]] | None) -> list[np.ndarray]:
    if groups is not None:
        return [
            np.concatenate([e[field] for field in group]) @ w[f"tokens.weights.{n}"] + w["tokens.bias"][n, 0]
            for n, group in enumerate(groups)
        ]
    chunk = math.ceil(e.size / count)
    x = np.concatenate([e.ravel(), np.zeros(count * chunk - e.size)])
    return [
        w["tokens.project.weight"] @ x[n * chunk : (n + 1) * chunk] + w["tokens.project.bias"] for n in range(count)
    ]


def network(w: Weights, name: str, n: int, s: np.ndarray, experts: int, training: bool) -> tuple[np.ndarray, Any]:
    """PFFN of token n, and the sum of its ReLU routes."""
    weight, bias = w[f"{name}.first.weight"][n], w[f"{name}.first.bias"][n, 0]
    hidden = weight.shape[1] // experts
    routes = weights = np.ones(1)
    if experts > 1:
        routes = weights = relu(s @ w[f"{name}.router.weight"][n] + w[f"{name}.router.bias"][n, 0])
        if training:
            other = softmax(s @ w[f"{name}.dense_router.weight"][n] + w[f"{name}.dense_router.bias"][n, 0])
            weights = (routes + other) / 2
    total = 0.0
    for e in range(experts):
        own = slice(e * hidden, (e + 1) * hidden)
        inner = gelu(s @ weight[:, own] + bias[own])
        total = total + weights[e] * (inner @ w[f"{name}.weight"][n, own] + w[f"{name}.bias"][n, e])
    return total, routes.sum()


def rankmixer(
    layers: int, count: int, groups: Sequence[Sequence[int]] | None, experts: int, *, training: bool = False
) -> Callable[..., tuple[np.ndarray, Any]]:
    """The outputs, and the mean over the rows of all routes."""

    def equation(w: Weights, e: np.ndarray) -> tuple[np.ndarray, Any]:
        rows, total = [], 0.0
        for row in e:
            x = tokens_of(w, row, count, groups)
            part = len(x[0]) // count
            for number in range(layers):
                name = f"blocks.{number}"
                mixed = [np.concatenate([x[m][n * part : (n + 1) * part] for m in range(count)]) for n in range(count)]
                s = [layer_norm(mixed[n] + x[n], w, f"{name}.mix_norm") for n in range(count)]
                found = [network(w, f"{name}.networks", n, s[n], experts, training) for n in range(count)]
                x = [layer_norm(found[n][0] + s[n], w, f"{name}.norm") for n in range(count)]
                total = total + sum(routes for _, routes in found)
            rows.append(w["head.weight"] @ (sum(x) / count) + w["head.bias"])
        return np.array(rows), total / len(e)

    return equation


@pytest.mark.parametrize(
    ("layers", "count", "groups", "experts", "rows"),
    [(2, 2, None, 1, 1), (1, 4, None, 1, 2), (1, 2, [[2, 0], [1]], 1, 2), (1, 2, None, 3, 2), (1, 2, None, 3, 1)],
)
def test_rankmixer_is_its_equation(layers: int, count: int, groups: Any, experts: int, rows: int) -> None:
    """15 inputs: two chunks of 8 need one zero, and four chunks of 4 another."""
    module = RankMixer(SHAPE, 5, layers=layers, tokens=count, width=4, hidden_factor=2, groups=groups, experts=experts)
    equation = rankmixer(layers, count, groups, experts)
    check_equation(module, lambda w, e, ids: equation(w, e)[0], *inputs(rows))


@pytest.mark.parametrize("rows", [1, 3])
def test_both_routers_and_the_loss_in_training(rows: int) -> None:
    module = RankMixer(SHAPE, 5, tokens=2, width=4, hidden_factor=2, experts=3, router_l1=0.7).train()
    redraw(module, seed=2)
    embeddings, ids = inputs(rows)
    equation = rankmixer(2, 2, None, 3, training=True)

    def found(m: Any) -> torch.Tensor:
        output, loss = m(embeddings.to(next(m.parameters()).dtype), ids)
        return torch.cat([output.flatten(), loss.view(1)])

    def expected(w: Weights) -> np.ndarray:
        output, routes = equation(w, embeddings.numpy())
        return np.append(output.ravel(), 0.7 * routes)

    check_reference(module, found, expected)


def test_mixing_by_hand_and_twice() -> None:
    """N = 2, H = 4: token 1 takes the first halves, token 2 the second halves."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]])
    assert mix_tokens(x).tolist() == [[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]]
    many = torch.randn(3, 4, 12)
    assert torch.equal(mix_tokens(mix_tokens(many)), many)


def test_the_router_starts_open_with_weights_that_add_up_to_one() -> None:
    module = RankMixer(SHAPE, 5, tokens=2, width=4, layers=1, experts=4)
    found = module(inputs(3)[0].float(), inputs(3)[1])
    assert isinstance(found, WithAuxiliary)
    # Two tokens with routes of 1/4 to four experts each.
    assert found.loss.item() == pytest.approx(2.0)
    routes = module.blocks[0].networks(torch.randn(2, 3, 4))[1]
    assert torch.equal(routes, torch.full((2, 3, 4), 0.25))


def test_one_expert_has_no_router_and_no_loss() -> None:
    module = RankMixer(SHAPE, 5)
    assert isinstance(module(inputs(2)[0].float(), inputs(2)[1]), torch.Tensor)
    assert not [name for name, _ in module.named_parameters() if "router" in name]


def test_token_maps_start_as_linear_layers_do() -> None:
    """U(-1/sqrt(in), 1/sqrt(in)) with the width that each map reads."""
    torch.manual_seed(0)
    module = RankMixer(SHAPE, 5, width=32, groups=[[0], [1, 2]])
    networks = module.blocks[0].networks
    for weight, width in (
        (module.tokens.weights[0], 5), (module.tokens.weights[1], 10), (networks.first.weight, 32),
        (networks.weight, 128),
    ):  # fmt: skip
        assert 0.9 / width**0.5 < weight.abs().max() <= 1 / width**0.5


def test_groups_are_a_setting() -> None:
    choice = choose(INTERACTIONS, {"name": "rankmixer", "groups": [[0, 2], [1]], "width": 6})
    assert choice.options["groups"] == [[0, 2], [1]]
    module = INTERACTIONS.build(choice, SHAPE, 5)
    assert module(inputs(2)[0].float(), inputs(2)[1]).shape == (2, 5)


def test_groups_move_between_devices_and_take_an_empty_batch() -> None:
    module = RankMixer(SHAPE, 5, width=4, groups=[[2, 0], [1]])
    assert module(torch.zeros(0, 3, 5), torch.zeros(0, 3, dtype=torch.long)).shape == (0, 5)
    expected = module(inputs(2)[0].float(), inputs(2)[1])
    other = RankMixer(SHAPE, 5, width=4, groups=[[2, 0], [1]])
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(inputs(2)[0].float(), inputs(2)[1]), expected)

    def run() -> None:
        module.to("meta")(torch.zeros(2, 3, 5, device="meta"), torch.zeros(2, 3, device="meta")).sum().backward()

    check_one_device("groups", run)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 30}, r"width: 30 is no multiple of the number of tokens \(8\).*choose 24 or 32"),
        ({"width": 3, "groups": [[0], [1], [2]], "tokens": 5}, None),
        ({"width": 2, "tokens": 3}, r"\(3\).*choose 3$"),
        ({"groups": [[0, 1], [1, 2]]}, r"every position from 0 to 2 once, .* found \[\[0, 1\], \[1, 2\]\]"),
        ({"groups": [[0, 1]]}, "every position from 0 to 2 once"),
        ({"groups": [[0, 1, 2], []]}, "groups of at least one field"),
        ({"groups": []}, "every position from 0 to 2 once"),
    ],
)
def test_what_cannot_be_built_is_said(options: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        assert len(RankMixer(SHAPE, 5, **options).tokens.weights) == 3
        return
    with pytest.raises(UsageError, match=sentence):
        RankMixer(SHAPE, 5, **options)
