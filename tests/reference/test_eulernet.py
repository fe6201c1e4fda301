"""EulerNet against its equations, in plain numpy, one row and vector at a time; against complex powers, and RecBole."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recbole.model.context_aware_recommender.eulernet import EulerInteractionLayer

from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.eulernet import EulerNet
from recbole_dtn.testing.interactions import check_equation

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))
Weights = Mapping[str, np.ndarray]


def inputs(rows: int, scale: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = scale * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) * gain + shift


def eulernet(layers: int, read_out: str, norm: bool, limit: float) -> Callable[..., np.ndarray]:
    def layer(w: Weights, name: str, r: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        orders = w[f"{name}.orders"]
        count, width = orders.shape[1], r.shape[1]
        weight, bias = w[f"{name}.linear.weight"], w[f"{name}.linear.bias"]
        new_r, new_p = (np.maximum(0.0, weight @ x.ravel() + bias).reshape(count, width) for x in (r, p))
        for k in range(count):
            exponent = sum(orders[j, k] * 0.5 * np.log(r[j] ** 2 + p[j] ** 2 + 1e-8) for j in range(len(r)))
            modulus = np.exp(np.clip(exponent, -limit, limit) + w[f"{name}.log_shift"][:, k])
            angle = sum(orders[j, k] * np.arctan2(p[j], r[j]) for j in range(len(r))) + w[f"{name}.phase_shift"][:, k]
            new_r[k] += modulus * np.cos(angle)
            new_p[k] += modulus * np.sin(angle)
        if norm:
            for k in range(count):
                new_r[k] = layer_norm(new_r[k], w[f"{name}.norms.0.weight"], w[f"{name}.norms.0.bias"])
                new_p[k] = layer_norm(new_p[k], w[f"{name}.norms.1.weight"], w[f"{name}.norms.1.bias"])
        return new_r, new_p

    def equation(w: Weights, e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            r, p = w["scale"] * np.cos(row), w["scale"] * np.sin(row)
            for number in range(layers):
                r, p = layer(w, f"layers.{number}", r, p)
            read = np.concatenate([r.ravel(), p.ravel()]) if read_out == "concat" else (r + p).ravel()
            rows.append(w["head.weight"] @ read + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize(
    ("vectors", "norm", "read_out", "limit", "rows"),
    [([2], False, "concat", 20.0, 3), ([3, 2], True, "concat", 20.0, 2), ([2, 3], False, "sum", 0.3, 1)],
)
def test_eulernet_is_its_equation(vectors: list[int], norm: bool, read_out: Any, limit: float, rows: int) -> None:
    module = EulerNet(SHAPE, 5, vectors=vectors, layer_norm=norm, read_out=read_out, limit=limit)
    check_equation(module, eulernet(len(vectors), read_out, norm, limit), *inputs(rows))


def test_a_layer_is_a_product_of_complex_powers() -> None:
    """Without the linear map: o_k = prod_j (mu_j e^{i e_j})^{A_jk}, here A = (2, 1) and mu = (3, .5)."""
    shape = FieldShape(2, 1, (0, 1), (3, 3))
    module = EulerNet(shape, 2, vectors=[1]).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.zero_()
            if name == "scale":
                parameter.copy_(torch.tensor([[3.0], [0.5]]))
            if name == "layers.0.orders":
                parameter.copy_(torch.tensor([[2.0], [1.0]]))
            if name == "head.weight":
                parameter.copy_(torch.eye(2))
    found = module(torch.tensor([[[0.3], [-0.4]]], dtype=torch.float64), torch.tensor([[0, 3]]))[0]
    expected = (3.0 * np.exp(0.3j)) ** 2 * (0.5 * np.exp(-0.4j))
    assert found.tolist() == pytest.approx([expected.real, expected.imag], rel=1e-7)


@pytest.mark.parametrize("norm", [False, True])
def test_recbole_computes_the_same_layers(norm: bool) -> None:
    torch.manual_seed(4)
    module = EulerNet(SHAPE, 5, vectors=[2, 4], layer_norm=norm).double()
    config = SimpleNamespace(embedding_size=4, apply_norm=norm, drop_ex=0.0, drop_im=0.0)
    embeddings = inputs(6)[0]
    ours = torch.stack([embeddings.cos(), embeddings.sin()], dim=1)
    theirs = embeddings.cos(), embeddings.sin()
    for layer, counts in zip(module.layers, ((3, 2), (2, 4)), strict=True):
        other = EulerInteractionLayer(config, *(4 * count for count in counts)).double()
        values = {
            "inter_orders": layer.orders, "bias_lam": layer.log_shift[None], "bias_theta": layer.phase_shift[None],
            "im.weight": layer.linear.weight, "im.bias": layer.linear.bias,
        }  # fmt: skip
        other.load_state_dict({**other.state_dict(), **values})
        ours, theirs = layer(ours), other(theirs)
        assert torch.allclose(ours, torch.stack(theirs, dim=1), rtol=1e-10, atol=1e-12)


def test_the_gradient_at_zero_is_finite() -> None:
    """mu_f = 0 makes r = p = 0, where the gradient of atan2 is NaN."""
    module = EulerNet(SHAPE, 5)
    with torch.no_grad():
        module.scale[1] = 0.0
    embeddings = inputs(4)[0].float().requires_grad_()
    module(embeddings, inputs(4)[1]).square().sum().backward()
    for parameter in (*module.parameters(), embeddings):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert module.scale.grad is not None
    assert module.scale.grad.abs().min() > 0


def test_the_limit_keeps_the_exponential_finite() -> None:
    module = EulerNet(SHAPE, 5)
    with torch.no_grad():
        module.scale.fill_(1e10)
        module.layers[0].orders.fill_(5.0)  # 15 logarithms of 1e10 are 345; e^345 is no float32
    assert module(inputs(2)[0].float(), inputs(2)[1]).isfinite().all()
    module.layers[0].limit = None  # type: ignore[assignment]
    assert not module(inputs(2)[0].float(), inputs(2)[1]).isfinite().all()


def test_initial_values() -> None:
    torch.manual_seed(0)
    module = EulerNet(SHAPE, 5, vectors=[3, 40])
    square, wide = module.layers
    assert torch.equal(module.scale, torch.ones(3, 1))
    assert torch.equal(square.orders, torch.eye(3))
    assert wide.orders.shape == (3, 40)
    assert torch.allclose(wide.orders.sum(0), torch.ones(40))  # over the fields
    assert (wide.orders.max(0).values > 0.99).float().mean() > 0.8
    for shift in (wide.log_shift, wide.phase_shift):
        assert shift.shape == (4, 40)
        assert shift.std().item() == pytest.approx(0.01, rel=0.2)


def test_mixed_precision_computes_in_float32() -> None:
    module = EulerNet(SHAPE, 5, vectors=[3, 3])
    batch = inputs(4)[0].float(), inputs(4)[1]
    with torch.autocast("cpu", torch.bfloat16):
        output = module(*batch)
    assert torch.equal(output, module(*batch))


def test_dropout_is_off_in_evaluation_only() -> None:
    for options in ({"dropout_explicit": 0.5}, {"dropout_implicit": 0.5}):
        module = EulerNet(SHAPE, 5, **options)
        batch = inputs(3)[0].float(), inputs(3)[1]
        assert torch.equal(module.eval()(*batch), module(*batch))
        assert not torch.equal(module.train()(*batch), module(*batch))
