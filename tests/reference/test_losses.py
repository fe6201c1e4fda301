"""Task losses against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from recbole_dtn.loss.tasks import task_losses
from recbole_dtn.schema import TaskSpec

TASKS = (
    TaskSpec("click", "binary", "c"),
    TaskSpec("buy", "binary", "b", pos_weight=20.0, weight=3.0),
    TaskSpec("dwell", "regression", "d"),
)


@pytest.fixture
def batch():
    draw = np.random.default_rng(1)
    logits = draw.normal(size=(40, 3)) * 2
    labels = np.stack([draw.integers(0, 2, 40), draw.integers(0, 2, 40), draw.normal(size=40) * 3], 1).astype(float)
    observed = draw.random((40, 3)) < 0.6
    weights = draw.random(40) + 0.2
    return logits, labels, observed, weights


def numpy_losses(logits, labels, observed, weights):
    losses, slopes = [], np.zeros_like(logits)
    for t, task in enumerate(TASKS):
        seen = observed[:, t]
        s, y, w = logits[seen, t], labels[seen, t], weights[seen]
        if task.kind == "regression":
            each, slope = (s - y) ** 2, 2 * (s - y)
        else:
            p = 1 / (1 + np.exp(-s))
            each = -task.pos_weight * y * np.log(p) - (1 - y) * np.log(1 - p)
            slope = -task.pos_weight * y * (1 - p) + (1 - y) * p
        losses.append((w * each).sum() / w.sum())
        slopes[seen, t] = w * slope / w.sum()
    return np.array(losses), slopes


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_numpy_with_gradients(batch, weighted):
    logits, labels, observed, weights = batch
    labels = np.where(observed, labels, np.nan)
    x = torch.tensor(logits, requires_grad=True)
    found = task_losses(
        x, torch.tensor(labels), torch.tensor(observed), TASKS, torch.tensor(weights) if weighted else None
    )
    expected, slopes = numpy_losses(logits, labels, observed, weights if weighted else np.ones(40))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-12)
    factors = np.array([1.0, -2.0, 0.5])
    (found * torch.tensor(factors)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), slopes * factors, rtol=0, atol=1e-12)


def test_equals_scikit_learn(batch):
    logits, labels, observed, weights = batch
    found = task_losses(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(observed), TASKS, torch.tensor(weights)
    )
    seen = observed[:, 0]
    expected = log_loss(labels[seen, 0], 1 / (1 + np.exp(-logits[seen, 0])), sample_weight=weights[seen])
    assert found[0].item() == pytest.approx(expected, abs=1e-12)


def test_float32_labels_and_logits(batch):
    logits, labels, observed, _ = batch
    found = task_losses(torch.tensor(logits).float(), torch.tensor(labels).float(), torch.tensor(observed), TASKS)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), numpy_losses(logits, labels, observed, np.ones(40))[0], rtol=1e-5)


@pytest.mark.parametrize("how", ["nothing observed", "weights of zero", "no rows"])
def test_a_loss_over_nothing_is_zero(how):
    rows = 0 if how == "no rows" else 5
    x = torch.randn(rows, 3, requires_grad=True)
    labels = torch.full((rows, 3), float("nan") if how == "nothing observed" else 1.0)
    observed = torch.full((rows, 3), how != "nothing observed")
    found = task_losses(x, labels, observed, TASKS, torch.zeros(rows) if how == "weights of zero" else None)
    assert found.tolist() == [0.0, 0.0, 0.0]
    found.sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0, 0.0]] * rows


def test_without_positive_weights(batch):
    logits, labels, observed, _ = batch
    tasks = (TASKS[0], TaskSpec("buy", "binary", "b"))
    found = task_losses(torch.tensor(logits[:, :2]), torch.tensor(labels[:, :2]), torch.tensor(observed[:, :2]), tasks)
    seen = observed[:, 1]
    expected = log_loss(labels[seen, 1], 1 / (1 + np.exp(-logits[seen, 1])))
    assert found[1].item() == pytest.approx(expected, abs=1e-12)


def test_one_unobserved_task_leaves_the_others_alone(batch):
    logits, labels, observed, _ = batch
    observed = observed.copy()
    observed[:, 1] = False
    labels = np.where(observed, labels, np.nan)
    x = torch.tensor(logits, requires_grad=True)
    found = task_losses(x, torch.tensor(labels), torch.tensor(observed), TASKS)
    found.sum().backward()
    assert found[1].item() == 0.0
    assert (x.grad[:, 1] == 0).all()
    assert x.grad.isfinite().all()
    assert found[0].item() > 0
    assert found[2].item() > 0


def test_huge_logits_stay_finite():
    x = torch.tensor([[1e4, -1e4, 1.0]], requires_grad=True)
    found = task_losses(x, torch.tensor([[0.0, 1.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool), TASKS)
    assert found.tolist() == [1e4, 2e5, 0.0]
    found.sum().backward()
    assert x.grad.tolist() == [[1.0, -20.0, 0.0]]
