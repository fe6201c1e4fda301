"""SingleTask: T networks that share nothing, against numpy."""

import numpy as np
import pytest
import torch

from recbole_dtn.model.single_task import SingleTask
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    parameters_of,
    recorded_dropout,
    redraw,
    tower_of,
)


def reference(p, schema, features, masks=None):
    logits = []
    for t in range(schema.num_tasks):
        x = embed(p[f"embeddings.{t}.table.weight"], schema, features).reshape(len(features), -1)
        logits.append(tower_of(p, f"networks.towers.{t}", x, masks))
    return np.stack(logits, 1)


def build(schema, **settings):
    model = SingleTask(make_settings("SingleTask", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize("hidden", [[6, 5], []])
def test_equals_numpy(rows, tasks, hidden):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(schema, hidden=hidden)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features))


def test_nothing_is_shared():
    schema = tiny_schema(tasks=3)
    model = build(schema, hidden=[5])
    assert len(model.tables()) == 3
    logits = model(tiny_features(schema, 20)).logits
    parts = [[*model.embeddings[t].parameters(), *model.networks.towers[t].parameters()] for t in range(3)]
    assert sum(len(part) for part in parts) == len(list(model.parameters()))
    for t in range(3):
        model.zero_grad()
        logits[:, t].sum().backward(retain_graph=True)
        for owner, part in enumerate(parts):
            moved = [p.grad is not None and bool(p.grad.any()) for p in part]
            assert all(moved) if owner == t else not any(moved)


def test_dropout_masks_every_hidden_layer():
    schema = tiny_schema()
    features = tiny_features(schema, 30)
    model = build(schema, hidden=[8, 6], dropout=0.5).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(30, 8), (30, 6)] * 2
    assert_close(logits, reference(parameters_of(model), schema, features, iter(masks)), 1e-10, "with dropout")
    assert not torch.equal(logits, model(features).logits)
