"""ESMM against products of probabilities in numpy."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.layers.probability import logit_of_product
from recbole_dtn.model.esmm import ESMM
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    parameters_of,
    recorded_dropout,
    redraw,
    sigmoid,
)
from tests.reference.chains import logits, probability


def reference(p, schema, features, masks=None):
    own = logits(p, schema, features, "towers", schema.num_tasks, masks)
    products = [probability(schema, own, t) for t in range(schema.num_tasks)]
    return np.stack([np.log(each) - np.log(1 - each) for each in products], 1)


def chain(**after):
    return [TaskSpec(name, "binary", name, after=before) for name, before in after.items()]


CHAINS = {
    "click, cart": tiny_schema(tasks=2),
    "four": tiny_schema(tasks=4),
    "last first": tiny_schema(tasks=chain(buy=("cart",), cart=("click",), click=())),
    "a fork and one alone": tiny_schema(tasks=chain(click=(), cart=("click",), like=("click",), watch=())),
}


def build(schema, **settings):
    model = ESMM(make_settings("ESMM", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("hidden", [[], [5], [6, 4]])
def test_equals_numpy(rows, name, hidden):
    schema = CHAINS[name]
    features = tiny_features(schema, rows)
    model = build(schema, tower_hidden=hidden)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features))


def test_factors_are_the_conditional_probabilities():
    schema = tiny_schema(tasks=3)
    features = tiny_features(schema, 7)
    model = build(schema, tower_hidden=[4]).double()
    output = model(features)
    own = logits(parameters_of(model), schema, features, "towers", schema.num_tasks)
    assert {(name, each.label, each.observed_by) for name, each in output.factors.items()} == {
        ("cart|click", "cart", "click"),
        ("buy|cart", "buy", "cart"),
    }
    assert_close(output.factors["cart|click"].logit, own[1], 1e-12, "P(cart | click)")
    assert_close(output.factors["buy|cart"].logit, own[2], 1e-12, "P(buy | cart)")
    given = sigmoid(own[0]) * sigmoid(own[1]) * sigmoid(own[2])
    assert_close(output.logits[:, 2].sigmoid(), given, 1e-12, "P(buy)")


def test_the_loss_is_that_of_the_products():
    """BCE of click and of click-and-cart over all rows, from probabilities (float64, moderate logits)."""
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 50)
    model = build(schema, tower_hidden=[4]).double()
    own = logits(parameters_of(model), schema, features, "towers", schema.num_tasks)
    products = np.stack([sigmoid(own[0]), sigmoid(own[0]) * sigmoid(own[1])], 1)
    labels = features.labels.double().numpy()
    expected = -(labels * np.log(products) + (1 - labels) * np.log(1 - products)).mean(0)
    assert_close(model.task_losses(features, model(features)), expected, 1e-10, "losses")


def exact_logit(a, c):
    """Log-odds of the product in decimal arithmetic of 400 digits."""
    with localcontext() as context:
        context.prec = 400
        p = 1 / ((1 + Decimal(-a).exp()) * (1 + Decimal(-c).exp()))
        return float(p.ln() - (1 - p).ln())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_products_of_extreme_probabilities(dtype, tolerance):
    values = [-250.0, -90.0, -17.5, -1.0, 0.0, 0.5, 20.0, 90.0, 250.0]
    for a in values:
        for c in values:
            found = logit_of_product(torch.tensor(a, dtype=dtype), torch.tensor(c, dtype=dtype)).item()
            assert found == pytest.approx(exact_logit(a, c), rel=tolerance, abs=tolerance)


def test_losses_and_gradients_of_extreme_products_are_finite():
    values = torch.tensor([-1e30, -5000.0, -90.0, 0.0, 90.0, 5000.0, 1e30])
    a, c = (part.flatten().requires_grad_() for part in torch.meshgrid(values, values, indexing="ij"))
    logit = logit_of_product(a, c)
    for label in (0.0, 1.0):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.full_like(logit, label))
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, (a, c), retain_graph=True):
            assert gradient.isfinite().all()


def test_dropout_masks_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, tower_hidden=[8, 6], dropout=0.4).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(30, 8), (30, 6)] * 2
    assert_close(logits, reference(parameters_of(model), schema, features, iter(masks)), 1e-10, "with dropout")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (chain(a=(), b=()), "ESMM needs tasks in a chain"),
        (chain(a=(), b=("a",), c=("a", "b")), "'c' comes after a, b; in ESMM a task comes after one other at most"),
        (
            [TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b", after=("a",), observed_when="a == 1")],
            "'b' is observed when a == 1, 'a' when always; ESMM trains both over the same rows",
        ),
        (
            [TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b", after=("a",))],
            "'b' is a regression task, and ESMM takes binary tasks only",
        ),
    ],
)
def test_tasks_that_esmm_cannot_chain_are_refused(tasks, message):
    with pytest.raises(UsageError, match=message):
        build(tiny_schema(tasks=tasks))
