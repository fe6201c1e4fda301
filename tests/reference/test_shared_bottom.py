"""SharedBottom against its equation in numpy."""

import numpy as np
import pytest

from recbole_dtn.model.shared_bottom import SharedBottom
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    mlp,
    parameters_of,
    recorded_dropout,
    redraw,
    tower_of,
)


def reference(p, schema, features, masks=None):
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    shared = mlp(p, "bottom.layers", x, masks)
    logits = []
    for t in range(schema.num_tasks):
        logits.append(tower_of(p, f"towers.towers.{t}", shared, masks))
    return np.stack(logits, 1)


def build(schema, **settings):
    model = SharedBottom(make_settings("SharedBottom", embedding_size=3, **settings), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("tasks", [1, 2, 4])
@pytest.mark.parametrize(("bottom", "tower"), [([6, 5], [4]), ([5], []), ([], [4, 3]), ([], [])])
def test_equals_numpy(rows, tasks, bottom, tower):
    schema = tiny_schema(tasks=tasks, weighted=True)
    features = tiny_features(schema, rows)
    model = build(schema, bottom_hidden=bottom, tower_hidden=tower)
    check_reference(model, lambda m: m(features).logits, lambda p: reference(p, schema, features))


def test_dropout_masks_hidden_layers_of_bottom_and_towers():
    schema = tiny_schema()
    features = tiny_features(schema, 200)
    model = build(schema, bottom_hidden=[16, 12], tower_hidden=[10], dropout=0.3).double()
    with recorded_dropout() as masks:
        logits = model.train()(features).logits
    assert [mask.shape for mask in masks] == [(200, 16), (200, 12), (200, 10), (200, 10)]
    assert all(set(np.unique(mask.round(4))) == {0.0, round(1 / 0.7, 4)} for mask in masks)
    assert np.mean([(mask == 0).mean() for mask in masks]) == pytest.approx(0.3, abs=0.02)
    p = parameters_of(model)
    assert_close(logits, reference(p, schema, features, iter(masks)), 1e-10, "with dropout")
    assert_close(model.eval()(features).logits, reference(p, schema, features), 1e-10, "in evaluation")
    assert np.abs(logits.detach().numpy() - reference(p, schema, features)).max() > 0.1
