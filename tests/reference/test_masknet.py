"""MaskNet against its equations, in plain numpy, one row and one block at a time."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.masknet import MaskNet
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.testing.interactions import check_equation

FIELDS, WIDTH = 3, 4
SHAPE = FieldShape(num_fields=FIELDS, embedding_dim=WIDTH, id_fields=(0, 1, 2), field_sizes=(9, 8, 7))


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, FIELDS, WIDTH, dtype=torch.float64, generator=generator)
    return embeddings, torch.zeros(rows, FIELDS, dtype=torch.long)


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray, eps: float) -> np.ndarray:
    mean = sum(x) / len(x)
    variance = sum((x - mean) ** 2) / len(x)
    return gain * (x - mean) / np.sqrt(variance + eps) + shift


def masknet(
    structure: str,
    blocks: int,
    hidden: int,
    embedding_norm: bool,
    output_activation: str,
    *,
    bias: bool = False,
    eps: float = 1e-5,
    final_layer: bool = True,
) -> Callable[..., np.ndarray]:
    def block(w: Mapping[str, np.ndarray], number: int, v: np.ndarray, x: np.ndarray) -> np.ndarray:
        name = f"blocks.{number}."
        aggregated = np.maximum(0.0, w[name + "mask.0.weight"] @ v + w[name + "mask.0.bias"])
        mask = w[name + "mask.2.weight"] @ aggregated + w[name + "mask.2.bias"]
        projected = w[name + "project.weight"] @ (mask * x) + (w[name + "project.bias"] if bias else 0.0)
        return np.maximum(0.0, layer_norm(projected, w[name + "norm.weight"], w[name + "norm.bias"], eps))

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for row in e:
            v = np.concatenate(list(row))
            x = v
            if embedding_norm:
                gain, shift = w["embedding_norm.gain"], w["embedding_norm.shift"]
                x = np.concatenate([layer_norm(row[f], gain[f], shift[f], eps) for f in range(FIELDS)])
            if structure == "serial":
                for number in range(blocks):
                    x = block(w, number, v, x)
            else:
                x = np.concatenate([block(w, number, v, x) for number in range(blocks)])
            for depth in range(hidden):
                x = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ x + w[f"mlp.layers.{2 * depth}.bias"])
            if final_layer:
                x = w["head.weight"] @ x + w["head.bias"]
            rows.append(np.maximum(0.0, x) if output_activation == "relu" else x)
        return np.array(rows)

    return equation


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("output_activation", ["none", "relu"])
@pytest.mark.parametrize("embedding_norm", [True, False])
@pytest.mark.parametrize("hidden", [[], [6, 3]])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_masknet_is_its_equations(
    structure: Any, blocks: int, hidden: list[int], embedding_norm: bool, output_activation: Any, rows: int
) -> None:
    module = MaskNet(
        SHAPE, 5, structure=structure, blocks=blocks, block_dim=6, reduction=1.5, hidden=hidden,
        embedding_norm=embedding_norm, output_activation=output_activation,
    )  # fmt: skip
    equation = masknet(structure, blocks, len(hidden), embedding_norm, output_activation)
    check_equation(module, equation, *inputs(rows))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_a_bias_in_the_projection_and_the_epsilon_of_the_norms(
    structure: Any, bias: bool, eps: float, rows: int
) -> None:
    """The released DTN's blocks; .3 is an epsilon that shows, in the blocks' norms and in those of the embeddings."""
    module = MaskNet(SHAPE, 5, structure=structure, block_dim=6, projection_bias=bias, norm_eps=eps)
    assert {name.endswith("project.bias") for name, _ in module.blocks.named_parameters()} == {False, bias}
    check_equation(module, masknet(structure, 2, 0, True, "none", bias=bias, eps=eps), *inputs(rows))


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("hidden", [[], [7, 5]])
@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_widths_of_each_block_and_no_final_layer(structure: Any, hidden: list[int], rows: int) -> None:
    """Serial blocks 6-4-5: block k reads the width of block k-1, and the last one's output is the module's."""
    widths = [6, 4, 5] if structure == "serial" else [1, 4]
    module = MaskNet(SHAPE, 5, structure=structure, block_dim=widths, hidden=hidden, final_layer=False)
    assert [block.project.out_features for block in module.blocks] == widths
    wanted = [12, 6, 4] if structure == "serial" else [12, 12]
    assert [block.project.in_features for block in module.blocks] == wanted
    assert not any(name.startswith("head") for name, _ in module.named_parameters())
    equation = masknet(structure, len(widths), len(hidden), True, "none", final_layer=False)
    check_equation(module, equation, *inputs(rows))


@pytest.mark.parametrize(
    ("options", "width"), [({}, 128), ({"structure": "serial", "block_dim": [9, 7]}, 7), ({"hidden": [4, 3]}, 3)]
)
def test_without_a_final_layer_the_width_must_be_right(options: dict[str, Any], width: int) -> None:
    with pytest.raises(UsageError, match=rf"'final_layer: false'.* output_dim \(module_dim\) 5, found {width}"):
        MaskNet(SHAPE, 5, final_layer=False, **options)


def test_no_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="'block_dim' is an empty list"):
        MaskNet(SHAPE, 5, block_dim=[])


def sizes(**options: Any) -> list[tuple[int, ...]]:
    return [tuple(block.mask[0].weight.shape) for block in MaskNet(SHAPE, 5, **options).blocks]


def test_width_of_the_masks() -> None:
    """Rows of W_1 = reduction x width of the mask: F * D = 12 on the embeddings, block_dim = 6 on a block."""
    assert sizes(structure="serial", block_dim=6) == [(24, 12), (12, 12)]
    assert sizes(structure="parallel", block_dim=6) == [(24, 12), (24, 12)]
    assert sizes(structure="serial", block_dim=6, reduction=0.5) == [(6, 12), (3, 12)]
    assert sizes(blocks=1, reduction=0.001) == [(1, 12)]


def test_the_authors_aggregation_of_256_can_be_asked_for() -> None:
    """DTN's authors: 23 fields x 64 = 1472 inputs, aggregation 256, two blocks of 128, MLP 256-256 with ReLU."""
    shape = FieldShape(23, 64, tuple(range(23)), (10,) * 23)
    module = MaskNet(
        shape, 256, blocks=2, block_dim=128, reduction=256 / 1472, hidden=[256], embedding_norm=False,
        output_activation="relu",
    )  # fmt: skip
    assert [tuple(p.shape) for p in module.blocks[1].parameters()][:3] == [(256, 1472), (256,), (1472, 256)]
    assert tuple(module.head.weight.shape) == (256, 256)


def test_the_mask_reads_the_embeddings_before_normalisation() -> None:
    """Layer norm undoes a scale of the embeddings; the masks must still see it."""
    module = MaskNet(SHAPE, 5, block_dim=6).double()
    embeddings, ids = inputs(2)
    normalised = module.embedding_norm(embeddings)
    torch.testing.assert_close(module.embedding_norm(3 * embeddings), normalised, rtol=1e-3, atol=1e-3)
    fused = module(3 * embeddings, ids)
    set_fused(module, False)  # which calls the mask's parts one by one
    seen = []
    module.blocks[0].mask.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    torch.testing.assert_close(module(3 * embeddings, ids), fused)
    assert torch.equal(seen[0], 3 * embeddings.flatten(1))
