"""STAR against its equations in numpy, row by row, and the moving moments of its normalisation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.reach import find_reach
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.domains import PartitionedNorm
from recbole_dtn.model.star import STAR
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    mlp,
    parameters_of,
    recorded_dropout,
    redraw,
    relu,
)

DOMAINS = 3


def moments(x, domain, shrinkage):
    """Of each domain's rows in a batch, drawn towards those of all rows; None with fewer than two rows."""
    found = []
    for d in range(DOMAINS):
        own = x[domain == d]
        n, k = len(own), shrinkage
        if n < 2:
            found.append(None)
            continue
        mean = (own.sum(0) + k * x.mean(0)) / (n + k)
        square = ((own**2).sum(0) + k * (x**2).mean(0)) / (n + k)
        found.append((mean, square - mean**2))
    return found


def star_unit(p, name, x, d):
    offset = p[f"{name}.offsets"][d] if f"{name}.offsets" in p else p[f"{name}.left"][d] @ p[f"{name}.right"][d]
    return (p[f"{name}.weight"] * (1 + offset)) @ x + p[f"{name}.bias"] + p[f"{name}.bias_offsets"][d]


def reference(p, schema, features, layers, tower_layers, shrinkage=64.0, fixed=None):
    """``fixed``: mean and variance per domain in place of the batch's, for evaluation."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    domain = features.domain.numpy()
    found = fixed or moments(x, domain, shrinkage)
    logits = []
    for row, d in enumerate(domain):
        z = x[row]
        if "norm.gamma" in p:
            mean, variance = found[d] if found[d] is not None else (np.zeros_like(z), np.ones_like(z))
            z = p["norm.gamma"] * (1 + p["norm.gamma_offsets"][d]) * (z - mean) / np.sqrt(variance + 1e-5)
            z = z + p["norm.beta"] + p["norm.beta_offsets"][d]
        for layer in range(layers):
            z = relu(star_unit(p, f"body.layers.{layer}", z, d))
        for t in range(schema.num_tasks):
            h = z
            for layer in range(tower_layers):
                h = relu(star_unit(p, f"towers.{t}.hidden.layers.{layer}", h, d))
            logit = star_unit(p, f"towers.{t}.logit", h, d)[0]
            if "domains.weight" in p:
                a = mlp(p, "auxiliary.layers", np.concatenate([p["domains.weight"][d], x[row]])[None])
                logit = logit + (a @ p[f"auxiliary_units.{t}.weight"][0])[0]
            logits.append(logit)
    return np.array(logits).reshape(len(x), schema.num_tasks)


def build(schema, **settings):
    model = STAR(make_settings("STAR", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize(("rows", "tasks"), [(1, 3), (15, 1), (12, 2)])
@pytest.mark.parametrize(
    ("star", "tower", "options"),
    [
        ([5], [4], {}),
        ([6, 4], [], {"norm_shrinkage": 0.0, "aux_hidden": []}),
        ([], [4], {"low_rank": 2, "domain_embedding_size": 2}),
        ([5], [4], {"norm": "none", "aux_hidden": None}),
    ],
)
def test_equals_numpy(rows, tasks, star, tower, options):
    schema = tiny_schema(tasks=tasks, domains=DOMAINS)
    features = tiny_features(schema, rows, seed=3)
    model = build(schema, star_hidden=star, tower_hidden=tower, **options)
    shrinkage = options.get("norm_shrinkage", 64.0)
    # A batch of one has no moments: mean 0 and variance 1, with which the moving averages start.
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: reference(p, schema, features, len(star), len(tower), shrinkage),
        entries=2,
    )


@pytest.mark.parametrize("shrinkage", [0.0, 64.0])
def test_moving_moments_follow_the_batches_of_their_domain(shrinkage):
    """Domain 2 has one row in the first batch and none in the second: it is normalised by the moments of all rows."""
    draw = np.random.default_rng(0)
    norm = PartitionedNorm(4, DOMAINS, momentum=0.2, shrinkage=shrinkage).double()
    known = torch.ones(DOMAINS)
    batches = [
        (draw.normal(3.0, 2.0, (10, 4)), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])),
        (draw.normal(-1.0, 0.5, (8, 4)), np.array([1, 0, 0, 0, 0, 0, 0, 0])),
    ]
    shared, moving = (None, None), [None] * DOMAINS
    for x, domain in batches:
        output = norm(torch.tensor(x), torch.tensor(domain), known)
        batch = moments(x, domain, shrinkage)
        shared = (
            (x.mean(0), x.var(0))
            if shared[0] is None
            else tuple(0.8 * old + 0.2 * new for old, new in zip(shared, (x.mean(0), x.var(0)), strict=True))
        )
        for d in range(DOMAINS):
            if batch[d] is not None:
                weight = 1 - 0.8 ** (DOMAINS * (domain == d).mean())
                start = moving[d] or shared
                moving[d] = tuple((1 - weight) * old + weight * new for old, new in zip(start, batch[d], strict=True))
        used = [batch[d] or moving[d] or shared for d in range(DOMAINS)]
        expected = [(x[i] - used[d][0]) / np.sqrt(used[d][1] + 1e-5) for i, d in enumerate(domain)]
        assert_close(output, np.array(expected), 1e-10, "in training")
    assert norm.moved.tolist() == [True, True, False]
    fixed = [moving[0], moving[1], shared]
    x, domain = draw.normal(size=(5, 4)), np.array([2, 1, 0, 1, 2])
    expected = [(x[i] - fixed[d][0]) / np.sqrt(fixed[d][1] + 1e-5) for i, d in enumerate(domain)]
    assert_close(norm.eval()(torch.tensor(x), torch.tensor(domain), known), np.array(expected), 1e-10, "in evaluation")


def test_too_few_rows_leave_the_moving_moments_alone():
    norm = PartitionedNorm(2, 2, min_rows=4)
    norm(torch.randn(8, 2), torch.tensor([0] * 4 + [1] * 4), torch.ones(2))
    before = norm.mean.clone()
    norm(torch.randn(7, 2), torch.tensor([0] * 4 + [1] * 3), torch.ones(2))
    assert not torch.equal(norm.mean[0], before[0])
    assert torch.equal(norm.mean[1], before[1])


def test_a_domain_s_moments_are_those_of_its_own_rows():
    """With norm_shrinkage 0 other domains' rows change nothing; an absent domain leaves no NaN."""
    norm = PartitionedNorm(3, DOMAINS, shrinkage=0.0)
    domain = torch.tensor([0] * 6 + [1] * 6)
    x = torch.randn(12, 3, requires_grad=True)
    first = norm(x, domain, torch.ones(DOMAINS))[:6]
    moved = torch.cat([x[:6], 9 * x[6:] + 4])
    torch.testing.assert_close(norm(moved, domain, torch.ones(DOMAINS))[:6], first)
    first.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(value.isfinite().all() for value in (*norm.parameters(), *norm.buffers()))


def test_evaluation_uses_the_moving_moments():
    schema = tiny_schema(domains=DOMAINS)
    features = tiny_features(schema, 15)
    model = build(schema, star_hidden=[5], tower_hidden=[4]).double()
    model(features)
    model.eval()
    fixed = [(m, v) for m, v in zip(model.norm.mean.numpy(), model.norm.variance.numpy(), strict=True)]
    expected = reference(parameters_of(model), schema, features, 1, 1, fixed=fixed)
    assert_close(model(features).logits, expected, 1e-10, "in evaluation")


def test_all_domains_start_as_the_shared_network():
    schema = tiny_schema(domains=DOMAINS)
    torch.manual_seed(0)
    model = STAR(make_settings("STAR", aux_hidden=None, norm="none"), schema)
    layer = model.body.layers[0]
    bound = (6 / sum(layer.weight.shape)) ** 0.5
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    for weight, bias in layer.of_domains(torch.ones(DOMAINS)):
        assert torch.equal(weight, layer.weight)
        assert not bias.any()
    row = take_rows(tiny_features(schema, 9), [4, 4, 4])
    logits = model(replace(row, domain=torch.arange(3))).logits
    torch.testing.assert_close(logits[1:], logits[:1].expand(2, -1))
    norm = PartitionedNorm(4, 2)
    assert (norm.gamma == 1).all()
    assert not any(part.any() for part in (norm.beta, norm.gamma_offsets, norm.beta_offsets))


def test_low_rank_parts_start_close_to_the_shared_network():
    torch.manual_seed(0)
    model = STAR(make_settings("STAR", low_rank=4), tiny_schema(domains=DOMAINS))
    layer = model.body.layers[0]
    offsets = torch.stack([weight / layer.weight - 1 for weight, _ in layer.of_domains(torch.ones(DOMAINS))])
    assert offsets.std().item() == pytest.approx(0.01, rel=0.2)


def test_a_row_goes_through_the_parts_of_its_own_domain_alone():
    schema = tiny_schema(domains=DOMAINS)
    features = tiny_features(schema, 20)
    model = build(schema, star_hidden=[5], tower_hidden=[4])
    model(features)
    model.eval()
    whole = model(features).logits.detach()
    others = features.domain != 1
    with torch.no_grad():
        for layer in (model.body.layers[0], model.towers[0].hidden.layers[0], model.towers[1].logit):
            layer.offsets[1] = torch.nan
            layer.bias_offsets[1] = torch.nan
    found = model(features).logits
    assert torch.equal(found[others], whole[others])
    assert found[~others].isnan().all()


def test_the_auxiliary_network_reads_the_domain():
    schema = tiny_schema(domains=DOMAINS)
    row = replace(take_rows(tiny_features(schema, 40), [7, 7, 7]), domain=torch.arange(3))
    model = build(schema, norm="none")
    with torch.no_grad():  # nothing but the auxiliary network is left
        for tower in model.towers:
            for parameter in tower.logit.parameters():
                parameter.zero_()
    logits = model(row).logits
    assert (logits[0] - logits[1]).abs().min() > 1e-3
    assert (logits[1] - logits[2]).abs().min() > 1e-3


def test_star_towers_lower_the_logit_as_well_as_raise_it():
    """In published code a ReLU follows the last unit too."""
    schema = tiny_schema(domains=DOMAINS)
    logits = build(schema, aux_hidden=None)(tiny_features(schema, 40)).logits
    assert (logits < -0.1).any(0).all()
    assert (logits > 0.1).any(0).all()


def test_what_each_task_reaches():
    schema = tiny_schema(domains=DOMAINS)
    model = build(schema)
    reach = find_reach(model, tiny_features(schema, 30))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for t, own in enumerate(reach.specific):
        found = {names[id(parameter)] for parameter in own}
        assert found == {name for name in names.values() if name.startswith((f"towers.{t}.", f"auxiliary_units.{t}."))}


def test_a_domain_without_training_rows_has_the_shared_parts():
    schema = tiny_schema(domains=DOMAINS)
    features = tiny_features(schema, 30)
    two = replace(features, domain=features.domain % 2)
    model = build(schema, star_hidden=[5], tower_hidden=[4]).double()
    model(two)
    model.eval()
    p = dict(parameters_of(model))
    for name, value in p.items():
        if "offsets" in name:
            p[name] = np.concatenate([value[:2], np.zeros_like(value[:1])])
    p["domains.weight"] = np.concatenate([p["domains.weight"][:2], p["domains.weight"][:2].mean(0, keepdims=True)])
    norm = model.norm
    fixed = [
        (norm.mean[0].numpy(), norm.variance[0].numpy()),
        (norm.mean[1].numpy(), norm.variance[1].numpy()),
        (norm.shared_mean.numpy(), norm.shared_variance.numpy()),
    ]
    expected = reference(p, schema, features, 1, 1, fixed=fixed)
    assert_close(model(features).logits, expected, 1e-10, "with an unseen domain")


def test_dropout_masks_star_layers_domain_by_domain():
    schema = tiny_schema(tasks=1, domains=2)
    features = replace(tiny_features(schema, 30), domain=torch.tensor([0] * 20 + [1] * 10))
    model = build(schema, star_hidden=[8], tower_hidden=[], aux_hidden=None, norm="none", dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(20, 8), (10, 8)]
    p = parameters_of(model)
    x = embed(p["embedding.table.weight"], schema, features).reshape(30, -1)
    mask = np.concatenate(masks)
    expected = [
        star_unit(p, "towers.0.logit", relu(star_unit(p, "body.layers.0", row, d)) * kept, d)
        for row, d, kept in zip(x, features.domain.tolist(), mask, strict=True)
    ]
    assert_close(logits, np.array(expected), 1e-10, "with dropout")


def test_what_is_missing_is_refused():
    with pytest.raises(UsageError, match="domain_field: STAR reads the domain of every row"):
        build(tiny_schema())
    with pytest.raises(UsageError, match="domain_field: STAR reads the domain of every row, and this batch has none"):
        build(tiny_schema(domains=2))(tiny_features(tiny_schema(), 3))
