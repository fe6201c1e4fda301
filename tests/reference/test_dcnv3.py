"""DCNv3 against its equations, in plain numpy, one row and one head at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.dcnv3 import DCNv3
from recbole_dtn.testing.interactions import check_equation
from recbole_dtn.testing.numeric import check_reference, relu

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))
Weights = Mapping[str, np.ndarray]


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.3 * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) * gain + shift


def in_order(e: np.ndarray, heads: int) -> list[np.ndarray]:
    """Per head: the first halves of all fields' parts, then the second halves."""
    part = e.shape[1] // heads
    found = []
    for head in range(heads):
        cut = [field[head * part : (head + 1) * part] for field in e]
        found.append(np.concatenate([*(x[: part // 2] for x in cut), *(x[part // 2 :] for x in cut)]))
    return found


def dcnv3(
    depths: Mapping[str, int], heads: int, *, norm: bool = True, statistics: Mapping[str, Any] | None = None
) -> Callable[..., np.ndarray]:
    """``statistics``: {} for those of the batch, or running ones by name; None without batch norm."""

    def batch_norm(w: Weights, name: str, h: np.ndarray) -> np.ndarray:
        if statistics is None:
            return h
        result = h.copy()
        for head in range(heads):
            own = h[:, head]
            mean, variance = own.mean(), ((own - own.mean()) ** 2).mean()
            if statistics:
                mean, variance = (statistics[f"{name}.running_{what}"][head] for what in ("mean", "var"))
            result[:, head] = (own - mean) / np.sqrt(variance + 1e-5) * w[f"{name}.weight"][head]
            result[:, head] += w[f"{name}.bias"][head]
        return result

    def network(w: Weights, name: str, x0: np.ndarray) -> np.ndarray:
        x = x0
        for depth in range(depths[name]):
            prefix = f"{name}.{depth}"
            h = batch_norm(w, f"{prefix}.batch_norm", x @ w[f"{prefix}.linear.weight"].T)
            following = np.zeros_like(x)
            for row in range(len(x)):
                for head in range(heads):
                    own = h[row, head]
                    masked = own
                    if norm:
                        masked = layer_norm(own, w[f"{prefix}.layer_norm.weight"], w[f"{prefix}.layer_norm.bias"])
                    m = np.concatenate([own, own * relu(masked)]) + w[f"{prefix}.bias"]
                    factor = x[row, head] if name == "exponential" else x0[row, head]
                    following[row, head] = factor * m + x[row, head]
            x = following
        return x.reshape(len(x), heads, -1)

    def equation(w: Weights, e: np.ndarray, ids: Any = None) -> np.ndarray:
        x0 = np.array([in_order(row, heads) for row in e]).astype(np.result_type(*w.values()))
        found = [network(w, name, x0) for name in ("exponential", "linear") if depths[name]]
        rows = []
        for row in range(len(e)):
            read = np.concatenate([np.concatenate([x[row, head] for x in found]) for head in range(heads)])
            rows.append(w["head.weight"] @ read + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize(
    ("exponential", "linear", "heads", "norm", "rows"),
    [(2, 3, 1, True, 1), (2, 0, 2, True, 3), (0, 2, 2, True, 1), (1, 1, 2, False, 3)],
)
def test_dcnv3_is_its_equation(exponential: int, linear: int, heads: int, norm: bool, rows: int) -> None:
    module = DCNv3(
        SHAPE, 5, exponential_layers=exponential, linear_layers=linear, heads=heads, layer_norm=norm,
    )  # fmt: skip
    check_equation(module, dcnv3({"exponential": exponential, "linear": linear}, heads, norm=norm), *inputs(rows))


@pytest.mark.parametrize("heads", [1, 2])
def test_batch_norm_with_running_statistics_and_with_the_batch_s(heads: int) -> None:
    torch.manual_seed(1)
    depths = {"exponential": 2, "linear": 1}
    module = DCNv3(
        SHAPE, 5, exponential_layers=2, linear_layers=1, heads=heads, batch_norm=True, exponential_dropout=0.0,
        linear_dropout=0.0,
    )  # fmt: skip
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0)
    statistics = {name: value.double().numpy() for name, value in module.named_buffers()}
    check_equation(module, dcnv3(depths, heads, statistics=statistics), *inputs(3))
    embeddings, ids = inputs(4)
    equation = dcnv3(depths, heads, statistics={})
    check_reference(
        module.train(),
        lambda m: m(embeddings.to(next(m.parameters()).dtype), ids),
        lambda w: equation(w, embeddings.numpy()),
    )


def test_one_layer_by_hand() -> None:
    """x = (2, 3), W = (1, 1): h = 5, masked 25; with b = (1, 0): x * (6, 25) + x = (14, 78)."""
    shape = FieldShape(1, 2, (0,), (3,))
    for layers in ({"exponential_layers": 1, "linear_layers": 0}, {"exponential_layers": 0, "linear_layers": 1}):
        module = DCNv3(shape, 2, layer_norm=False, **layers).eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name.endswith("0.linear.weight"):
                    parameter.fill_(1.0)
                elif name == "head.weight":
                    parameter.copy_(torch.eye(2))
                else:
                    parameter.copy_(torch.tensor([1.0, 0.0]) if name.endswith("0.bias") else torch.zeros(2))
        assert module(torch.tensor([[[2.0, 3.0]]]), torch.tensor([[0]])).tolist() == [[14.0, 78.0]]


@pytest.mark.parametrize(("network", "order"), [("exponential_layers", 8), ("linear_layers", 4)])
def test_three_layers_have_order_eight_and_four(network: str, order: int) -> None:
    """On large inputs, with LN in the mask, the output grows with the power 2^L or L + 1 of their size."""
    torch.manual_seed(0)
    module = DCNv3(SHAPE, 5, **{"exponential_layers": 0, "linear_layers": 0, network: 3}).double().eval()
    embeddings, ids = inputs(4)
    one, two = (module(scale * embeddings, ids).abs().mean().log2().item() for scale in (2.0**40, 2.0**41))
    assert two - one == pytest.approx(order, abs=1e-6)


def test_the_bias_starts_uniform_between_0_and_1() -> None:
    torch.manual_seed(0)
    module = DCNv3(FieldShape(50, 20, (), (3,) * 50), 5, exponential_layers=1, linear_layers=1)
    for bias in (module.exponential[0].bias, module.linear[0].bias):
        assert bias.shape == (1000,)
        assert 0.0 <= bias.min() < 0.02
        assert 0.98 < bias.max() <= 1.0
        assert bias.mean().item() == pytest.approx(0.5, abs=0.03)


def test_mixed_precision_leaves_ecn_in_float32() -> None:
    torch.manual_seed(0)
    module = DCNv3(SHAPE, 5, exponential_layers=7).eval()
    embeddings, ids = 3 * inputs(4)[0].float(), inputs(4)[1]
    seen: list[torch.Tensor] = []
    handle = module.exponential[-1].register_forward_hook(lambda m, args, output: seen.append(output))
    exact = module(embeddings, ids)
    with torch.autocast("cpu", torch.float16):
        output = module(embeddings, ids)
    handle.remove()
    assert seen[0].abs().max() > 65504  # float16 ends there
    assert torch.equal(seen[0], seen[1])
    assert torch.allclose(output, exact, rtol=1e-3)  # the head too is in float32; LCN is not


def test_dropout_is_off_in_evaluation_only() -> None:
    for options in ({"exponential_layers": 0}, {"linear_layers": 0}):
        module = DCNv3(SHAPE, 5, **options)
        batch = inputs(3)[0].float(), inputs(3)[1]
        assert torch.equal(module.eval()(*batch), module(*batch))
        assert not torch.equal(module.train()(*batch), module(*batch))


@pytest.mark.parametrize(
    ("width", "options", "sentence"),
    [
        (12, {"heads": 4}, r"embedding_dim 12 is no multiple of 2 x 4; these fit: 1, 2, 3, 6$"),
        (5, {}, r"embedding_dim 5 is no multiple of 2 x 1; choose an even embedding_dim"),
        (4, {"exponential_layers": 0, "linear_layers": 0}, "are both 0: expected at least one layer"),
    ],
)
def test_what_cannot_be_built_is_said(width: int, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        DCNv3(FieldShape(2, width, (0, 1), (3, 3)), 5, **options)
