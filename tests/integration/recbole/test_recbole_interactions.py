"""RecBole's own DCNV2, AutoInt, xDeepFM and FwFM, with the same weights as our layers, on batches of its loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.model.context_aware_recommender import dcnv2 as recbole_dcnv2
from recbole.model.context_aware_recommender.autoint import AutoInt as RecBoleAutoInt
from recbole.model.context_aware_recommender.fwfm import FwFM as RecBoleFwFM
from recbole.model.context_aware_recommender.xdeepfm import xDeepFM as RecBoleXDeepFM
from torch import Tensor, nn

from recbole_dtn.interaction.autoint import AutoInt
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.cin import CIN
from recbole_dtn.interaction.dcnv2 import DCNv2
from recbole_dtn.interaction.fwfm import FwFM

WIDTH = 4
TOKENS = {"user": "token", "item": "token", "age": "token", "click": "float"}
"""Columns of a set whose fields all have one id per row."""


@pytest.fixture
def built(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """RecBole's model in eval mode and float64, and a batch of its validation loader."""
    # RecBole 1.2.1 names a type that NumPy 1.24 to 1.26 do not have.
    monkeypatch.setattr(np, "long", np.int64, raising=False)

    def build(model: type, **values: Any) -> tuple[Any, Any]:
        config = toy.stock_config(model, embedding_size=WIDTH, **values)
        train, valid, _ = data_preparation(config, create_dataset(config))
        torch.manual_seed(7)
        stock = model(config, train.dataset).double().eval()
        for parameter in stock.parameters():
            nn.init.normal_(parameter, std=0.5)
        batch = next(iter(valid))[0]
        for column in {"age", "price"} & set(config["numerical_features"]):  # else their products hide all others
            value, index = batch[column].double().unbind(-1)  # RecBole's pair of the number and its row
            batch.interaction[column] = torch.stack([(value - value.mean()) / value.std(), index], dim=-1)
        return stock, batch

    return build


def shape_of(stock: Any) -> FieldShape:
    return FieldShape(stock.num_feature_field, WIDTH, (), (2,) * stock.num_feature_field)


def set_weights(module: nn.Module, **values: Tensor) -> None:
    """Copy every parameter, in float64; the names have ``__`` for the dots."""
    module.double()
    module.load_state_dict({name.replace("__", "."): value.detach() for name, value in values.items()})


def compare(ours: FeatureInteraction, theirs: Callable[[Tensor], Tensor], embeddings: Tensor) -> None:
    """Outputs, and gradients of the embeddings."""
    ids = torch.full(embeddings.shape[:2], -1)
    results = []
    for forward in (lambda given: ours(given, ids), theirs):
        given = embeddings.detach().clone().requires_grad_()
        output = forward(given)
        output.square().sum().backward()
        results.append((output.detach().reshape(len(embeddings), -1), given.grad))
    (found, gradient), (expected, expected_gradient) = results
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-9)


def mlp_weights(stock: Any) -> dict[str, Tensor]:
    """The weights of RecBole's MLP under our names; its batch norm is made the identity."""
    found, place = {}, 0
    for layer in stock.mlp_layers.mlp_layers:
        if isinstance(layer, nn.Linear):
            found |= {f"mlp__layers__{place}__weight": layer.weight, f"mlp__layers__{place}__bias": layer.bias}
            place += 2
        elif isinstance(layer, nn.BatchNorm1d):
            layer.reset_parameters()
            layer.running_var.fill_(1 - layer.eps)
    return found


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
def test_dcnv2_with_full_matrices_is_all_of_recboles_model(built: Any, structure: Any) -> None:
    stock, batch = built(
        recbole_dcnv2.DCNV2, structure=structure, mixed=False, mlp_hidden_size=[6, 5], cross_layer_num=2
    )
    ours = DCNv2(shape_of(stock), 1, layers=2, structure=structure, hidden=[6, 5])
    crosses = {f"crosses__{k}__weight": stock.cross_layer_w[k] for k in range(2)}
    biases = {f"crosses__{k}__bias": stock.bias[k].squeeze(1) for k in range(2)}
    head = {"head__weight": stock.predict_layer.weight, "head__bias": stock.predict_layer.bias}
    set_weights(ours, **crosses, **biases, **mlp_weights(stock), **head)
    embeddings = stock.concat_embed_input_fields(batch)
    logits = ours(embeddings, torch.full(embeddings.shape[:2], -1)).squeeze(1)
    assert logits.std() > 0.1
    torch.testing.assert_close(torch.sigmoid(logits), stock.predict(batch), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 3])
def test_dcnv2_with_experts(built: Any, layers: int) -> None:
    """RecBole's gates have a bias, which is set to its initial zero, and are shared by all layers."""
    rank, experts = 2, 3
    sizes = {"mlp_hidden_size": [5], "cross_layer_num": layers, "low_rank": rank, "expert_num": experts}
    stock, batch = built(recbole_dcnv2.DCNV2, structure="parallel", mixed=True, **sizes)
    for gate in stock.gating:
        nn.init.zeros_(gate.bias)
    shape = shape_of(stock)
    ours = DCNv2(
        shape, shape.flat_dim, layers=layers, structure="cross", low_rank=rank, experts=experts, shared_gates=True
    )
    weights = {"gates__0__linear__weight": torch.cat([gate.weight for gate in stock.gating])}
    for k in range(layers):
        weights |= {
            f"crosses__{k}__down__weight": torch.cat([down.T for down in stock.cross_layer_v[k]]),
            f"crosses__{k}__core": stock.cross_layer_c[k],
            f"crosses__{k}__up__weight": torch.cat(list(stock.cross_layer_u[k]), dim=1),
            f"crosses__{k}__up__bias": stock.bias[k].squeeze(1),
        }
    set_weights(ours, **weights, head__weight=torch.eye(shape.flat_dim), head__bias=torch.zeros(shape.flat_dim))
    compare(ours, lambda given: stock.cross_network_mix(given.flatten(1)), stock.concat_embed_input_fields(batch))


@pytest.mark.parametrize("residual", [True, False])
def test_autoint_of_one_layer(built: Any, residual: bool) -> None:
    """RecBole maps the embeddings first and the heads' outputs last, has biases, and applies the residual and the ReLU
    once after all layers. With identities for these maps, no biases and one layer it is the scaled AutoInt."""
    stock, batch = built(
        RecBoleAutoInt, attention_size=WIDTH, n_layers=1, num_heads=2, mlp_hidden_size=[5], has_residual=residual
    )
    attention = stock.self_attns[0]
    with torch.no_grad():
        for identity in (stock.att_embedding, attention.out_proj):
            identity.weight.copy_(torch.eye(WIDTH))
            identity.bias.zero_()
        attention.in_proj_bias.zero_()
        for part in (stock.deep_predict_layer.weight, stock.deep_predict_layer.bias):
            part.zero_()  # the deep part beside the attention
        if residual:
            stock.v_res_embedding.bias.zero_()
    projections = [attention.in_proj_weight] + ([stock.v_res_embedding.weight] if residual else [])
    ours = AutoInt(shape_of(stock), 1, layers=1, heads=2, head_dim=WIDTH // 2, scale=True, residual=residual)
    set_weights(
        ours,
        layers__0__projections__weight=torch.cat(projections),
        head__weight=stock.attn_fc.weight,
        head__bias=stock.attn_fc.bias,
    )
    compare(ours, stock.autoint_layer, stock.concat_embed_input_fields(batch))


@pytest.mark.parametrize("half_split", [True, False])
def test_cin_is_that_of_xdeepfm(built: Any, half_split: bool) -> None:
    """RecBole's layers have a bias, which is set to zero, and a ReLU."""
    sizes = [6, 4, 2]
    stock, batch = built(RecBoleXDeepFM, cin_layer_size=sizes, direct=not half_split, mlp_hidden_size=[5])
    for layer in stock.conv1d_list:
        nn.init.zeros_(layer.bias)
    ours = CIN(shape_of(stock), 1, layers=sizes, activation="relu", half_split=half_split)
    layers = {f"layers__{k}__weight": layer.weight.squeeze(2) for k, layer in enumerate(stock.conv1d_list)}
    set_weights(ours, **layers, head__weight=stock.cin_linear.weight, head__bias=stock.cin_linear.bias)

    def theirs(embeddings: Tensor) -> Tensor:
        logit: Tensor = stock.cin_linear(stock.compressed_interaction_network(embeddings))
        return logit

    compare(ours, theirs, stock.concat_embed_input_fields(batch))


def pair_weights(stock: Any) -> Tensor:
    """RecBole keeps the weights of all (i, j) in a plain tensor that its optimiser never sees; it reads i < j."""
    stock.weight = stock.weight.detach().double()
    left, right = torch.triu_indices(stock.num_features, stock.num_features, offset=1)
    return stock.weight[left, right, 0]


def test_the_pairs_of_fwfm(built: Any) -> None:
    stock, batch = built(RecBoleFwFM)
    ours = FwFM(shape_of(stock), 1, linear="none")
    pairs = pair_weights(stock)
    assert stock.num_features == 5
    set_weights(ours, pair_weights=pairs, head__weight=torch.ones(1, len(pairs)), head__bias=torch.zeros(1))
    compare(ours, stock.fwfm_layer, stock.concat_embed_input_fields(batch))


def test_fwfm_with_weights_of_features_is_all_of_recboles_model(toy: Any, built: Any) -> None:
    """With a weight per feature as the linear terms, and a head of ones whose bias is RecBole's."""
    toy.write(types=TOKENS)
    stock, batch = built(RecBoleFwFM, numerical_features=[])
    sizes, first_order = stock.token_field_dims, stock.first_order_linear
    ours = FwFM(FieldShape(3, WIDTH, (0, 1, 2), tuple(sizes)), 1, linear="weights")
    set_weights(
        ours,
        pair_weights=pair_weights(stock),
        linear__features__weight=first_order.token_embedding_table.embedding.weight,
        head__weight=torch.ones(1, 3 + 3),
        head__bias=first_order.bias,
    )
    ids = torch.stack([batch[name] for name in stock.token_field_names], dim=1)
    ids = ids + torch.tensor([0, sizes[0], sizes[0] + sizes[1]])
    logits = ours(stock.concat_embed_input_fields(batch), ids).squeeze(1)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, stock(batch), rtol=1e-10, atol=1e-10)
