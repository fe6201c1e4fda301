"""Widths that match a size: hand-counted networks, every model of the registry, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recbole_dtn.config.load import resolve, settings_class
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.strict import Widths
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.match import can_match, match_widths, size_of
from recbole_dtn.model.sizes import meta_model, model_flops, model_parameters
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema

NETWORKS = [name for name in MODELS.names() if can_match(name)]


def ml_100k(*, domains: int = 0) -> DataSchema:
    """The ten fields and two tasks of ml-100k, at their sizes."""
    sizes = {"user_id": 945, "age": 12, "gender": 4, "occupation": 23, "zip_prefix": 450, "item_id": 1600,
             "release_year": 73, "genres": 20, "hour": 26, "weekday": 9}  # fmt: skip
    fields, offset = [], 0
    for name, size in sizes.items():
        fields.append(FieldSpec(name, "token_seq" if name == "genres" else "token", size, offset, "mean"))
        offset += size
    tasks = (
        TaskSpec("like", "binary", "rating", "rating >= 4"),
        TaskSpec("love", "binary", "rating", "rating == 5", ("like",)),
    )
    return DataSchema(tuple(fields), tasks, domains)


def of(model: str, **changes: Any) -> Settings:
    return make_settings(model, **changes)


def dense_of_shared_bottom(flat: int, bottom: int, tower: int) -> int:
    """One bottom layer, and for each of two tasks a hidden layer and a logit; weights and biases."""
    return flat * bottom + bottom + 2 * (bottom * tower + tower + tower + 1)


def test_sizes_are_those_counted_by_hand() -> None:
    schema = ml_100k()
    settings = of("SharedBottom", embedding_size=4, bottom_hidden=[8], tower_hidden=[6])
    found = model_parameters(settings, schema)
    rows = sum(spec.size for spec in schema.fields)
    assert found["dense"] == dense_of_shared_bottom(40, 8, 6)
    assert found["embedding"] == 4 * rows
    assert found["total"] == found["dense"] + 4 * rows
    modules = of("MMoE", embedding_size=4, experts=[{"name": "memonet", "codes": 50}], expert_sets=2)
    assert size_of(modules, schema, "dense+codebook") == size_of(modules, schema, "dense") + 2 * 50 * 4
    # A multiplication and an addition for each weight of a matrix.
    assert model_flops(settings, schema) == 2 * (40 * 8 + 2 * (8 * 6 + 6))


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_on_meta_are_those_of_the_real_model(name: str) -> None:
    schema = tiny_schema(weighted=True, domains=3 if MODELS.attributes(name)["needs_domain"] else 0)
    model = meta_model(of(name), schema)
    real = MODELS.load(name)(of(name), schema)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.count_parameters() == real.count_parameters()
    assert model_flops(of(name), schema) > 0


def test_flops_are_those_of_a_real_forward() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    schema, settings = tiny_schema(), of("DTN", fused=False)
    model = MODELS.load("DTN")(settings, schema).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tiny_features(schema, 64))
    assert model_flops(settings, schema) == round(counter.get_total_flops() / 64)


def test_bisection_finds_the_widths_worked_out_by_hand() -> None:
    schema = ml_100k()
    settings = of("SharedBottom", embedding_size=4, bottom_hidden=[100], tower_hidden=[50])
    target = dense_of_shared_bottom(40, 230, 115)
    found = match_widths(settings, schema, by="dense", target=target, tolerance=0.001)
    assert found.widths == {"bottom_hidden": [230], "tower_hidden": [115]}
    assert found.size == found.target == target
    assert found.words == ("--bottom_hidden=[230]", "--tower_hidden=[115]")
    smaller = dense_of_shared_bottom(40, 20, 10)
    assert match_widths(settings, schema, by="dense", target=smaller, tolerance=0.001).widths == {
        "bottom_hidden": [20],
        "tower_hidden": [10],
    }


def test_a_row_within_the_tolerance_keeps_its_widths() -> None:
    schema = ml_100k()
    settings = of("SharedBottom")
    own = size_of(settings, schema, "dense")
    found = match_widths(settings, schema, by="dense", target=round(own * 1.04), tolerance=0.05)
    assert (found.factor, dict(found.widths), found.size) == (1.0, {}, own)


def test_options_without_an_effect_stay() -> None:
    schema = ml_100k()
    settings = of("MMoE", experts=["masknet"], embedding_size=4)
    own = size_of(settings, schema, "dense")
    found = match_widths(settings, schema, by="dense", target=own * 2, tolerance=0.05)
    assert set(found.widths) == {"module_dim", "tower_hidden"}  # no MLP expert, no hidden layer of a gate


def test_the_width_of_a_shared_interaction_is_scaled_too() -> None:
    schema = ml_100k()
    settings = of("PLE", shared_interaction="masknet", embedding_size=4)
    own = size_of(settings, schema, "dense")
    found = match_widths(settings, schema, by="dense", target=own * 2, tolerance=0.05)
    assert "shared_interaction_dim" in found.widths


@pytest.mark.parametrize("name", NETWORKS)
def test_every_model_comes_within_5_percent_of_dtn(name: str) -> None:
    schema = ml_100k(domains=3 if MODELS.attributes(name)["needs_domain"] else 0)
    target = size_of(of("DTN"), schema, "dense")
    found = match_widths(of(name), schema, by="dense", target=target, tolerance=0.05)
    again = size_of(of(name, **found.widths), schema, "dense")
    assert again == found.size
    assert abs(again / target - 1) <= 0.05


@pytest.mark.parametrize("by", ["total", "flops", "dense+codebook"])
def test_other_sizes_are_matched_too(by: Any) -> None:
    schema = ml_100k()
    target = size_of(of("DTN"), schema, by)
    found = match_widths(of("MMoE"), schema, by=by, target=target, tolerance=0.05)
    assert abs(size_of(of("MMoE", **found.widths), schema, by) / target - 1) <= 0.05


def test_what_cannot_be_matched_is_refused_with_the_closest() -> None:
    schema = ml_100k()
    settings = of("SharedBottom", embedding_size=4, bottom_hidden=[4], tower_hidden=[4])
    least = dense_of_shared_bottom(40, 1, 1)
    assert least == 49
    with pytest.raises(UsageError) as error:
        match_widths(settings, schema, by="dense", target=30, tolerance=0.05, row="small")
    assert f"'small' comes no closer to 30 dense parameters than {least} (+63.3%)" in str(error.value)
    assert "match_tolerance (now 0.05)" in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_width_of_a_model_is_among_its_width_options(name: str) -> None:
    options = MODELS.attributes(name)["width_options"]
    own = {key: info for key, info in settings_class(name).model_fields.items() if key not in Settings.model_fields}
    widths = {
        key
        for key, info in own.items()
        if "width" in (info.description or "") and info.annotation in (Widths, Widths | None)
    }
    assert widths <= set(options) <= set(own)
    assert list(options) == list(MODELS.load(name).width_options)
    schema = tiny_schema(domains=3 if MODELS.attributes(name)["needs_domain"] else 0)
    assert (
        match_widths(of(name), schema, by="dense", target=2 * size_of(of(name), schema, "dense"), tolerance=0.05).factor
        > 1
    )


def test_direct_models_have_no_widths() -> None:
    assert [name for name in MODELS.names() if not can_match(name)] == ["Boosting", "CatBoost", "LightGBM", "Logistic"]
    assert resolve(["--model=Logistic"]).settings.model == "Logistic"
