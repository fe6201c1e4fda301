"""FinalNet against its equations, in plain numpy, one row at a time; batch norm over the rows of a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.finalnet import FinalNet
from recbole_dtn.testing.interactions import check_equation
from recbole_dtn.testing.numeric import check_reference, redraw, relu

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 2), field_sizes=(9, 2, 7))
Weights = Mapping[str, np.ndarray]


def inputs(rows: int, scale: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = scale * torch.randn(rows, 3, 4, dtype=torch.float64, generator=generator)
    return embeddings, torch.tensor([[3, -1, 12]]).repeat(rows, 1)


def layer(w: Weights, name: str, x: np.ndarray, combine: str) -> np.ndarray:
    h = w[f"{name}.linear.weight"] @ x + w[f"{name}.linear.bias"]
    half = len(h) // 2
    h2, h1 = h[:half], h[half:]
    return np.concatenate([h2, h1 * h2]) if combine == "concat" else h2 + h1 * h2


def finalnet(
    layers: tuple[int, ...],
    combine: str,
    *,
    gated: bool = True,
    relu_after: bool = False,
    statistics: Mapping[str, Any] | None = None,
    batch: bool = False,
) -> Callable[..., np.ndarray]:
    """``statistics``: running means and variances by name, None without batch norm; ``batch``: the batch's instead."""

    def normalised(w: Weights, name: str, z: np.ndarray) -> np.ndarray:
        if statistics is None:
            return z
        if batch:
            mean, variance = z.mean(0), ((z - z.mean(0)) ** 2).mean(0)
        else:
            mean, variance = (statistics[f"{name}.after.0.running_{what}"].numpy() for what in ("mean", "var"))
        return (z - mean) / np.sqrt(variance + 1e-5) * w[f"{name}.after.0.weight"] + w[f"{name}.after.0.bias"]

    def block(w: Weights, name: str, x: np.ndarray, depth: int) -> np.ndarray:
        for number in range(depth):
            x = normalised(w, f"{name}.{number}", np.array([layer(w, f"{name}.{number}", row, combine) for row in x]))
            x = relu(x) if relu_after else x
        return x

    def equation(w: Weights, e: np.ndarray, ids: Any = None) -> np.ndarray:
        read = []
        for row in e:
            fields = list(row)
            if gated:
                for i in range(len(row)):
                    g = w["gate.project.bias"][i] + sum(
                        w["gate.project.weight"][i, j] * row[j] for j in range(len(row))
                    )
                    fields.append(row[i] * g)
            read.append(np.concatenate(fields))
        mixed = [block(w, "first", np.array(read), layers[0])]
        if len(layers) == 2:
            mixed.append(block(w, "second", e.reshape(len(e), -1), layers[1]))
        return np.concatenate(mixed, axis=1) @ w["head.weight"].T + w["head.bias"]

    return equation


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("combine", ["concat", "sum"])
@pytest.mark.parametrize(("blocks", "gated", "relu_after"), [(1, False, True), (1, True, False), (2, True, False)])
def test_finalnet_is_its_equation(combine: Any, blocks: int, gated: bool, relu_after: bool, rows: int) -> None:
    module = FinalNet(
        SHAPE, 5, blocks=blocks, hidden=[6, 4], hidden2=[8], combine=combine, batch_norm=False, field_gate=gated,
        activation="relu" if relu_after else "none",
    )  # fmt: skip
    equation = finalnet((2, 1)[:blocks], combine, gated=gated, relu_after=relu_after)
    check_equation(module, equation, *inputs(rows))


@pytest.mark.parametrize("rows", [1, 5])
def test_with_running_statistics(rows: int) -> None:
    module = FinalNet(SHAPE, 5, hidden=[6, 4], activation="relu")
    generator = torch.Generator().manual_seed(3)
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0, generator=generator)
            assert name.endswith(("running_mean", "running_var"))
    statistics = {name: value.double() for name, value in module.state_dict().items()}
    check_equation(module, finalnet((2, 2), "concat", relu_after=True, statistics=statistics), *inputs(rows))


@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_with_the_statistics_of_the_batch_in_training(combine: Any) -> None:
    module = FinalNet(SHAPE, 5, hidden=[6, 4], combine=combine).train()
    redraw(module, seed=1)
    embeddings, ids = inputs(8, scale=1.0)
    equation = finalnet((2, 2), combine, statistics={}, batch=True)
    check_reference(
        module, lambda m: m(embeddings.to(next(m.parameters()).dtype), ids), lambda w: equation(w, embeddings.numpy())
    )


def test_one_row_in_training_is_normalised_by_the_running_statistics_and_leaves_them() -> None:
    module = FinalNet(SHAPE, 5, hidden=[6]).double().train()
    module(*inputs(6))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    single = module(*inputs(1))
    assert torch.equal(single, module.eval()(*inputs(1)))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    single.sum().backward()
    assert module.first[0].linear.weight.grad.abs().max() > 0


def test_the_gate_starts_as_a_copy_of_the_fields() -> None:
    gate = FinalNet(SHAPE, 5).gate
    assert gate is not None
    e = inputs(2)[0].float()
    assert torch.equal(gate(e), torch.cat([e, e], dim=1))


def test_a_layer_by_hand() -> None:
    """x = 2, W = (3, 5), b = (1, 0): h2 = 7, h1 = 10; concat (7, 70), sum 7 + 70 = 77."""
    shape = FieldShape(1, 1, (0,), (3,))
    found = {}
    for combine, width in (("concat", 2), ("sum", 1)):
        module = FinalNet(shape, 1, blocks=1, hidden=[width], combine=combine, batch_norm=False, field_gate=False)  # type: ignore[arg-type]
        with torch.no_grad():
            module.first[0].linear.weight.copy_(torch.tensor([[3.0], [5.0]]))
            module.first[0].linear.bias.copy_(torch.tensor([1.0, 0.0]))
            found[combine] = module.first(torch.tensor([[2.0]])).tolist()
    assert found == {"concat": [[7.0, 70.0]], "sum": [[77.0]]}


def test_dropout_is_off_in_evaluation_only() -> None:
    module = FinalNet(SHAPE, 5, batch_norm=False, dropout=0.5).double()
    assert torch.equal(module.eval()(*inputs(3)), module(*inputs(3)))
    assert not torch.equal(module.train()(*inputs(3)), module(*inputs(3)))


def test_an_odd_width_has_no_halves() -> None:
    with pytest.raises(UsageError, match=r"hidden2: 7 is odd, .* choose 8, or combine: sum"):
        FinalNet(SHAPE, 5, hidden2=[8, 7])
    with pytest.raises(UsageError, match="hidden: 5 is odd"):
        FinalNet(SHAPE, 5, hidden=[5])
    FinalNet(SHAPE, 5, hidden=[5], combine="sum")
    FinalNet(SHAPE, 5, blocks=1, hidden2=[7])
