"""Parts of the references of models with chains of tasks, in numpy."""

from recbole_dtn.testing.numeric import embed, sigmoid, tower_of


def logits(p, schema, features, prefix, count, masks=None):
    """The logits (B,) of the first ``count`` of the towers under ``prefix``."""
    x = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    return [tower_of(p, f"{prefix}.towers.{t}", x, masks) for t in range(count)]


def probability(schema, own, t):
    """Of task t: sigmoid of its own logit times the probability of the task before."""
    before = schema.tasks[t].after
    return sigmoid(own[t]) * (probability(schema, own, schema.task_names.index(before[0])) if before else 1)
