"""Focal, Huber, weighted logistic and pairwise losses, scales of targets: plain numpy, values and gradients."""

import math

import numpy as np
import pytest
import torch

from recbole_dtn.loss.focal import Focal
from recbole_dtn.loss.huber import Huber
from recbole_dtn.loss.pairwise import pairwise_loss
from recbole_dtn.loss.tasks import TaskLosses, task_losses
from recbole_dtn.loss.wlr import WeightedLogistic
from recbole_dtn.schema import DataSchema, TaskSpec


def draw(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels of 0 and 1, and times, about a third of them 0."""
    random = np.random.default_rng(seed)
    times = random.exponential(size=rows) * 3 * (random.random(rows) < 0.7)
    return random.normal(size=rows) * 3, random.integers(0, 2, rows).astype(float), times


def compare(loss, logits: np.ndarray, labels: np.ndarray, each: np.ndarray, slope: np.ndarray) -> None:
    x = torch.tensor(logits, requires_grad=True)
    found = loss(x, torch.tensor(labels))
    factors = np.cos(np.arange(len(logits)))
    (found * torch.tensor(factors)).sum().backward()
    np.testing.assert_allclose(found.detach().numpy(), each, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(x.grad.numpy(), factors * slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (0.0, None), (0.5, 0.25), (3.0, 0.9)])
def test_focal(gamma: float, alpha: float | None, rows: int) -> None:
    logits, labels, _ = draw(rows)
    each, slope = [], []
    for z, y in zip(logits, labels, strict=True):
        s = 1 / (1 + math.exp(-z))
        p, sign = (s, 1) if y == 1 else (1 - s, -1)
        a = 1.0 if alpha is None else alpha if y == 1 else 1 - alpha
        each.append(-a * (1 - p) ** gamma * math.log(p))
        # d/dz of p is sign p (1 - p).
        slope.append(a * sign * (1 - p) ** gamma * (gamma * p * math.log(p) - (1 - p)))
    compare(Focal(gamma=gamma, alpha=alpha), logits, labels, np.array(each), np.array(slope))


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("delta", [1.0, 0.2, 5.0])
def test_huber(delta: float, rows: int) -> None:
    logits, _, times = draw(rows)
    each, slope = [], []
    for v, y in zip(logits, times, strict=True):
        e = v - y
        near = abs(e) <= delta
        each.append(e**2 / 2 if near else delta * (abs(e) - delta / 2))
        slope.append(e if near else delta * math.copysign(1, e))
    compare(Huber(delta=delta), logits, times, np.array(each), np.array(slope))


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("negatives", ["all", "unwatched"])
def test_weighted_logistic(negatives: str, rows: int) -> None:
    logits, _, times = draw(rows, seed=3)
    each, slope = [], []
    for z, y in zip(logits, times, strict=True):
        s = 1 / (1 + math.exp(-z))
        n = 1.0 if negatives == "all" or y == 0 else 0.0
        each.append(-y * math.log(s) - n * math.log(1 - s))
        slope.append(-y * (1 - s) + n * s)
    compare(WeightedLogistic(negatives=negatives), logits, times, np.array(each), np.array(slope))


def test_the_odds_of_the_weighted_logistic_are_the_expected_time() -> None:
    times = torch.tensor([0.0, 0.0, 4.0, 2.0])
    for negatives, odds in (("all", 6 / 4), ("unwatched", 6 / 2)):
        z = torch.tensor(math.log(odds), requires_grad=True)
        WeightedLogistic(negatives=negatives)(z.expand(4), times).sum().backward()
        assert z.grad.item() == pytest.approx(0, abs=1e-6)


# ---- ranking --------------------------------------------------------------------------------------------------------


def pairs_one_by_one(logits, labels, weights, group) -> tuple[float, np.ndarray]:
    loss, total, slope = 0.0, 0.0, np.zeros(len(logits))
    for i in range(len(logits)):
        for j in range(len(logits)):
            if labels[i] > labels[j] and group[i] == group[j]:
                w, margin = weights[i] * weights[j], logits[i] - logits[j]
                loss, total = loss + w * math.log1p(math.exp(-margin)), total + w
                pull = w / (1 + math.exp(margin))
                slope[i], slope[j] = slope[i] - pull, slope[j] + pull
    return (loss / total, slope / total) if total else (0.0, slope)


@pytest.mark.parametrize("block", [1 << 22, 30])
@pytest.mark.parametrize(("weighted", "grouped"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("rows", "kind"), [(1, "binary"), (30, "binary"), (30, "regression")])
def test_pairwise(rows, kind, weighted, grouped, block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_dtn.loss.pairwise.BLOCK", block)
    logits, labels, times = draw(rows, seed=5)
    labels = labels if kind == "binary" else times
    random = np.random.default_rng(6)
    weights = random.integers(0, 3, rows) / 2 if weighted else np.ones(rows)
    group = random.integers(0, 6, rows) if grouped else np.zeros(rows, int)
    x = torch.tensor(logits, requires_grad=True)
    found = pairwise_loss(
        x,
        torch.tensor(labels),
        torch.tensor(weights) if weighted else None,
        torch.tensor(group) if grouped else None,
    )
    found.backward()
    expected, slope = pairs_one_by_one(logits, labels, weights, group)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=1e-11, atol=1e-14)


def test_a_task_adds_its_ranking_loss_over_observed_rows() -> None:
    logits, labels, times = draw(50, seed=7)
    both, truth = np.stack([logits, logits[::-1], logits], 1), np.stack([labels, labels, times], 1)
    random = np.random.default_rng(8)
    observed, weights, group = random.random((50, 3)) < 0.7, random.random(50) + 0.1, random.integers(0, 4, 50)
    tasks = [TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b"), TaskSpec("t", "regression", "t")]
    ranked = [tasks[0], TaskSpec("b", "binary", "b", pairwise=0.5), TaskSpec("t", "regression", "t", pairwise=2.0)]
    holes = torch.tensor(np.where(observed, truth, np.nan))
    rest = holes, torch.tensor(observed)
    x, y = (torch.tensor(both, requires_grad=True) for _ in range(2))
    plain = task_losses(x, *rest, tasks, torch.tensor(weights))
    found = task_losses(y, *rest, ranked, torch.tensor(weights), group=torch.tensor(group))
    plain.sum().backward()
    found.sum().backward()
    for column, factor in ((0, 0.0), (1, 0.5), (2, 2.0)):
        seen = observed[:, column]
        loss, slope = pairs_one_by_one(both[seen, column], truth[seen, column], weights[seen], group[seen])
        assert found[column].item() == pytest.approx(plain[column].item() + factor * loss, rel=1e-12)
        extra = (y.grad - x.grad)[:, column].numpy()
        np.testing.assert_allclose(extra[seen], factor * slope, atol=1e-13)
        assert (extra[~seen] == 0).all()


def test_a_batch_without_a_pair_adds_nothing() -> None:
    task = [TaskSpec("a", "binary", "a", pairwise=1.0)]
    for rows, label in ((3, 1.0), (0, 1.0)):
        x = torch.zeros(rows, 1, requires_grad=True)
        found = task_losses(x, torch.full((rows, 1), label), torch.ones(rows, 1).bool(), task)
        found.sum().backward()
        assert found.item() == pytest.approx(math.log(2) if rows else 0.0)
        assert x.grad.isfinite().all()


# ---- scales ---------------------------------------------------------------------------------------------------------

SCALED = (
    TaskSpec("click", "binary", "c", negative_rate=0.2, pos_weight=3.0),
    TaskSpec("stay", "regression", "s", mean=1500.0, std=400.0),
    TaskSpec("watch", "regression", "w", loss={"name": "wlr"}, mean=2000.0, std=9.0),
    TaskSpec("pay", "regression", "p", loss={"name": "huber", "delta": 0.5}, mean=-3.0, std=0.1),
    TaskSpec("raw", "regression", "r", standardise=False),
)


def test_losses_are_those_of_scaled_labels() -> None:
    random = np.random.default_rng(9)
    logits, labels = random.normal(size=(20, 5)), random.random((20, 5)) * [1, 3000, 5000, 3, 5]
    labels[:, 0] = labels[:, 0] > 0.5
    x = torch.tensor(logits, requires_grad=True)
    found = task_losses(x, torch.tensor(labels), torch.ones(20, 5).bool(), SCALED)
    found.sum().backward()
    z = logits.T
    s = 1 / (1 + np.exp(-z))
    stay, watch, pay = (labels[:, 1] - 1500) / 400, labels[:, 2] / 2000, (labels[:, 3] + 3) / 0.1
    far = z[3] - pay
    each = [
        -3 * labels[:, 0] * np.log(s[0]) - (1 - labels[:, 0]) * np.log(1 - s[0]),
        (z[1] - stay) ** 2,
        -watch * np.log(s[2]) - np.log(1 - s[2]),
        np.where(np.abs(far) <= 0.5, far**2 / 2, 0.5 * (np.abs(far) - 0.25)),
        (z[4] - labels[:, 4]) ** 2,
    ]
    np.testing.assert_allclose(found.detach().numpy(), np.mean(each, 1), rtol=1e-12)
    np.testing.assert_allclose(x.grad[:, 1].numpy(), 2 * (z[1] - stay) / 20, rtol=1e-12)
    np.testing.assert_allclose(x.grad[:, 2].numpy(), (-watch * (1 - s[2]) + s[2]) / 20, rtol=1e-12)


def test_predictions_are_in_the_units_of_the_labels() -> None:
    logits = torch.tensor([[0.3, 0.5, 1.0, -2.0, 7.0], [-4.0, 0.0, 500.0, 0.0, 0.0]])
    found = TaskLosses(SCALED).scales.predictions(logits)
    q = 1 / (1 + math.exp(-0.3))
    p = q / (q + (1 - q) / 0.2)
    expected = [math.log(p / (1 - p)), 1700.0, 2000 * math.e, -3.2, 7.0]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-6)
    assert found.dtype is torch.float32
    assert found[1].isfinite().all()
    assert torch.equal(TaskLosses(SCALED[4:]).scales.predictions(logits[:, 4:]), logits[:, 4:])
    assert TaskLosses(SCALED).state_dict() == {}  # the schema carries the numbers
    schema = DataSchema((), SCALED)
    assert [task.mean for task in DataSchema.from_dict(schema.to_dict()).tasks] == [None, 1500.0, 2000.0, -3.0, None]
