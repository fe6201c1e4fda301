"""Task losses against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from recbole_dtn.errors import UsageError
from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.loss.bce import BCE
from recbole_dtn.loss.tasks import TaskLosses, task_losses
from recbole_dtn.registry import LOSSES
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


# ---- losses that a task names ---------------------------------------------------------------------------------------


@LOSSES.register("test-focal", paper="Lin et al., ICCV 2017")
class Focal(TaskLoss):
    """``-y (1 - s)^g log s - (1 - y) s^g log(1 - s)``."""

    def __init__(self, *, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, labels):
        signed = (2 * labels - 1) * logits
        return -(torch.sigmoid(-signed) ** self.gamma) * torch.nn.functional.logsigmoid(signed)


@LOSSES.register("test-gamma")
class GammaDeviance(TaskLoss):
    """``2 (y / exp(v) - 1 - log(y / exp(v)))``: infinite at a label of 0."""

    task_kind = "regression"

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, logits, labels):
        ratio = labels / torch.exp(logits + self.shift)
        return 2 * (ratio - 1 - torch.log(ratio))


MIXED = (
    TaskSpec("click", "binary", "c", loss={"name": "test-focal", "gamma": 1.5}),
    TaskSpec("stay", "regression", "s", loss={"name": "test-gamma"}),
    TaskSpec("buy", "binary", "b", pos_weight=7.0),
    TaskSpec("like", "binary", "l", loss={"name": "test-focal", "gamma": 1.5}, pos_weight=3.0),
    TaskSpec("share", "binary", "h", loss={"name": "test-focal"}),
    TaskSpec("stars", "regression", "r"),
)


@pytest.mark.parametrize("rows", [1, 50])
def test_each_task_has_the_loss_that_it_names(rows):
    draw = np.random.default_rng(6)
    logits = draw.normal(size=(rows, 6))
    labels = draw.integers(0, 2, (rows, 6)).astype(float)
    labels[:, 1], labels[:, 5] = draw.random(rows) + 0.1, draw.normal(size=rows)
    observed = draw.random((rows, 6)) < (2 if rows == 1 else 0.6)
    weights = draw.random(rows) + 0.2
    x = torch.tensor(logits, requires_grad=True)
    found = task_losses(
        x, torch.tensor(np.where(observed, labels, np.nan)), torch.tensor(observed), MIXED, torch.tensor(weights)
    )
    found.sum().backward()
    chance = 1 / (1 + np.exp(-logits))
    true = np.where(labels == 1, chance, 1 - chance)  # the probability given to what happened
    for t, task in enumerate(MIXED):
        s, y, p, sign = logits[:, t], labels[:, t], true[:, t], 2 * labels[:, t] - 1
        if task.name == "stay":
            each, slope = 2 * (y / np.exp(s) - 1 - np.log(y) + s), 2 * (1 - y / np.exp(s))
        elif task.name == "stars":
            each, slope = (s - y) ** 2, 2 * (s - y)
        else:
            g = {"click": 1.5, "like": 1.5, "share": 2.0, "buy": 0.0}[task.name]
            factor = np.where(y == 1, task.pos_weight, 1.0)
            each = -factor * (1 - p) ** g * np.log(p)
            slope = factor * sign * (1 - p) ** g * (g * p * np.log(p) - (1 - p))
        seen, w = observed[:, t], weights[observed[:, t]]
        assert found[t].item() == pytest.approx((w * each[seen]).sum() / w.sum(), abs=1e-12)
        expected = np.where(seen, weights * slope / w.sum(), 0.0)
        np.testing.assert_allclose(x.grad[:, t].numpy(), expected, rtol=0, atol=1e-12)


def test_an_infinite_loss_of_a_label_that_is_not_there_leaves_the_gradient_alone():
    x = torch.tensor([[0.5], [1.0]], requires_grad=True)
    found = task_losses(x, torch.tensor([[2.0], [0.0]]), torch.tensor([[True], [False]]), MIXED[1:2])
    found.sum().backward()
    assert found.item() == pytest.approx(2 * (2 / np.exp(0.5) - 1 - np.log(2) + 0.5))
    assert x.grad[0].isfinite().all()
    assert x.grad[1].item() == 0.0


def test_parameters_of_a_loss_get_gradients():
    losses = TaskLosses(MIXED)
    assert [name for name, _ in losses.named_parameters()] == ["losses.1.shift"]
    losses(torch.zeros(3, 6), torch.full((3, 6), 0.5), torch.ones(3, 6).bool()).sum().backward()
    assert losses.losses[1].shift.grad.item() == pytest.approx(2 * (1 - 0.5))


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_naming_the_built_in_loss_changes_nothing(batch, kind):
    logits, labels, observed, weights = (torch.tensor(each) for each in batch)
    task = TaskSpec("t", kind, "t", pos_weight=3.0)
    named = TaskSpec("t", kind, "t", pos_weight=3.0, loss={"name": "bce" if kind == "binary" else "mse"})
    given = (logits[:, :1], labels[:, :1], observed[:, :1])
    assert torch.equal(task_losses(*given, (task,), weights), task_losses(*given, (named,), weights))


def test_float64_stays_float64_and_half_precision_is_widened(batch):
    logits, labels, observed, weights = (torch.tensor(each) for each in batch)
    expected = task_losses(logits, labels, observed, TASKS, weights)
    assert expected.dtype == torch.float64
    # Labels and weights come in float32 from the loader.
    for tasks in (TASKS, TASKS[:1] * 3, MIXED[::2]):
        assert task_losses(logits, labels.float(), observed, tasks, weights.float()).dtype == torch.float64
    rounded = task_losses(logits.bfloat16(), labels, observed, TASKS, weights)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, task_losses(logits.bfloat16().float(), labels, observed, TASKS, weights))


def test_a_model_computes_in_float64_to_the_end():
    from recbole_dtn.registry import MODELS
    from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema

    schema = tiny_schema()
    model = MODELS.load("MMoE")(make_settings("MMoE"), schema).double()
    features = tiny_features(schema, 5)
    output = model(features.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor))
    assert output.logits.dtype == torch.float64
    losses = model.task_losses(features, output)
    assert losses.dtype == torch.float64
    for t in range(2):
        s, y = output.logits[:, t].detach().numpy(), features.labels[:, t].numpy()
        assert losses[t].item() == pytest.approx(np.mean(np.log1p(np.exp(-(2 * y - 1) * s))), abs=1e-14)


def test_wrong_losses_are_refused():
    with pytest.raises(UsageError, match="task 'd': loss 'bce' is for binary tasks; this one is regression"):
        TaskLosses([TaskSpec("d", "regression", "d", loss={"name": "bce"})])
    with pytest.raises(UsageError, match="unknown loss 'focl'"):
        TaskLosses([TaskSpec("d", "binary", "d", loss={"name": "focl"})])
    LOSSES.register("test-function")(lambda logits, labels: logits)
    with pytest.raises(UsageError, match=r"loss .test-function.: expected a subclass of .*TaskLoss"):
        TaskLosses([TaskSpec("d", "binary", "d", loss={"name": "test-function"})])


def test_a_task_with_a_loss_is_plain_data():
    from recbole_dtn.schema import DataSchema

    schema = DataSchema((), MIXED)
    assert DataSchema.from_dict(schema.to_dict()) == schema
    assert len({*MIXED, *MIXED}) == 6
    assert type(TaskLosses(schema.tasks[2:3]).losses[0]) is BCE
