"""All metrics of all tasks: masks, weights, null values, selection."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn.config.metrics import higher_is_better, known_valid_metrics
from recbole_dtn.data.features import Features
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.metric.base import Rows, TaskMetric
from recbole_dtn.metric.select import is_better, select, task_weights
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.model.base import Factor, ModelOutput
from recbole_dtn.registry import METRICS, MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.training.module import TrainingModule

TASKS = (
    TaskSpec("click", "binary", "c"),
    TaskSpec("buy", "binary", "b", pos_weight=3.0),
    TaskSpec("stay", "regression", "s"),
)


@pytest.fixture(autouse=True)
def _these_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists below are of these metrics, whatever others are registered."""
    METRICS.names()
    names = ("auc", "gauc", "logloss", "ne", "calibration", "rmse", "mae")
    kept = {name: entry for name, entry in METRICS._entries.items() if name in names or name.startswith("test-")}
    monkeypatch.setattr(METRICS, "_entries", kept)


def batch(rows: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, 3, generator=draw)
    labels = (torch.rand(rows, 3, generator=draw) < 0.3).float()
    observed = torch.rand(rows, 3, generator=draw) < 0.8
    return logits, torch.where(observed, labels, torch.nan), observed, torch.rand(rows, generator=draw)


def filled(weighted: bool) -> MultiTaskMetrics:
    logits, labels, observed, weights = batch()
    metrics = MultiTaskMetrics(TASKS)
    for part in torch.arange(300).split(77):
        metrics.update(logits[part], labels[part], observed[part], weights[part] if weighted else None)
    return metrics


@pytest.mark.parametrize("weighted", [False, True])
def test_each_task_counts_its_observed_rows_only(weighted: bool) -> None:
    logits, labels, observed, weights = batch()
    found = filled(weighted).compute()
    assert [(task, list(values)) for task, values in found.items()] == [
        ("click", ["auc", "auc_se", "logloss", "ne", "calibration"]),
        ("buy", ["auc", "auc_se", "logloss", "ne", "calibration"]),
        ("stay", ["rmse", "mae"]),
    ]
    for position, task in enumerate(("click", "buy")):
        rows = observed[:, position]
        truth, scores = labels[rows, position].numpy(), logits[rows, position].double().numpy()
        mass = weights[rows].double().numpy() if weighted else None
        assert found[task]["auc"] == pytest.approx(roc_auc_score(truth, scores, sample_weight=mass), abs=1e-9)
        chances = 1 / (1 + np.exp(-scores))
        assert found[task]["logloss"] == pytest.approx(log_loss(truth, chances, sample_weight=mass), abs=1e-9)
    rows = observed[:, 2]
    mass = weights[rows].double() if weighted else torch.ones(int(rows.sum()), dtype=torch.float64)
    squares = (logits[rows, 2].double() - labels[rows, 2].double()).square()
    assert found["stay"]["rmse"] == pytest.approx(float(((mass * squares).sum() / mass.sum()).sqrt()), abs=1e-12)


def test_pos_weight_makes_calibration_and_ne_null() -> None:
    found = filled(False).compute()
    assert found["buy"]["ne"] is None
    assert found["buy"]["calibration"] is None
    assert found["click"]["ne"] is not None
    assert found["click"]["calibration"] is not None


def test_reset_forgets() -> None:
    metrics = filled(False)
    metrics.reset()
    metrics.update(torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), torch.ones(2, 3).bool())
    assert metrics.compute() == {
        "click": {
            "auc": 0.5,
            "auc_se": None,  # of one positive and one negative
            "logloss": pytest.approx(np.log(2)),
            "ne": pytest.approx(1.0),
            "calibration": 1.0,
        },
        "buy": {"auc": None, "auc_se": None, "logloss": pytest.approx(np.log(2)), "ne": None, "calibration": None},
        "stay": {"rmse": pytest.approx(np.sqrt(2)), "mae": 1.0},
    }


def test_metrics_add_nothing_to_checkpoints() -> None:
    schema, settings = tiny_schema(), make_settings("MMoE", group_field=None)
    module = TrainingModule(MODELS.load("MMoE")(settings, schema), settings)
    batch = tiny_features(schema, 9)
    module.metrics.add_batch(batch, module(batch))
    assert {name.partition(".")[0] for name in module.state_dict()} == {"model"}


def test_select_reads_means_and_tasks() -> None:
    found = {"a_b": {"auc": 0.6, "logloss": 0.5}, "c": {"auc": None, "logloss": 0.7}, "d": {"rmse": 2.0, "mae": 1.0}}
    assert select(found, "mean_auc", dict.fromkeys(found, 1.0)) == 0.6
    assert select(found, "mean_logloss", dict.fromkeys(found, 1.0)) == pytest.approx(0.6)
    assert select(found, "a_b_auc", dict.fromkeys(found, 1.0)) == 0.6
    assert select(found, "c_auc", dict.fromkeys(found, 1.0)) is None
    assert select(found, "d_rmse", dict.fromkeys(found, 1.0)) == 2.0
    assert select({"c": {"auc": None}}, "mean_auc", {"c": 1.0}) is None
    with pytest.raises(KeyError):
        select(found, "e_auc", dict.fromkeys(found, 1.0))


def test_weighted_means_follow_the_tasks_that_many_rows_are_about() -> None:
    weights = task_weights(
        {"click": (1_000, 10_000), "buy": (10, 10_000), "stay": (0, 400), "none": (0, 10_000)},
        {"click": "binary", "buy": "binary", "stay": "regression", "none": "binary"},
    )
    # Inverse standard errors under the null hypothesis, sqrt(12 P N / (P + N + 1)), up to the factor sqrt(12).
    assert weights == pytest.approx({"click": 30.0, "buy": 9.99**0.5, "stay": 10.0, "none": 0.0})
    found: dict[str, dict[str, float | None]] = {"click": {"auc": 0.7}, "buy": {"auc": 0.9}, "none": {"auc": None}}
    assert select(found, "weighted_auc", weights) == pytest.approx((30 * 0.7 + 9.99**0.5 * 0.9) / (30 + 9.99**0.5))
    # A constant weight of each task: noise of the rare one hardly moves the number.
    found["buy"]["auc"] = 0.5
    assert select(found, "weighted_auc", weights) == pytest.approx((30 * 0.7 + 9.99**0.5 * 0.5) / (30 + 9.99**0.5))
    assert select({"none": {"auc": 0.5}}, "weighted_auc", weights) is None
    assert not higher_is_better("weighted_logloss", ["click"])


def test_task_and_metric_names_with_underscores_are_told_apart() -> None:
    found = {"a": {"b_auc": 0.1, "auc": 0.2}, "a_b": {"ne": 0.3}}
    assert select(found, "a_b_auc", dict.fromkeys(found, 1.0)) == 0.1
    assert select(found, "a_b_ne", dict.fromkeys(found, 1.0)) == 0.3
    assert select(found, "mean_b_auc", dict.fromkeys(found, 1.0)) == 0.1
    for wrong in ("mean_b", "a_b", "mean", "auc", "mean_ae"):
        with pytest.raises(KeyError):
            select(found, wrong, dict.fromkeys(found, 1.0))


def test_every_known_name_can_be_selected() -> None:
    found = filled(False).compute()
    names = known_valid_metrics(TASKS)
    assert names == (
        "mean_auc", "mean_logloss", "mean_mae", "mean_ne", "mean_rmse",
        "weighted_auc", "weighted_logloss", "weighted_mae", "weighted_ne", "weighted_rmse",
        "click_auc", "click_logloss", "click_ne", "buy_auc", "buy_logloss", "stay_mae", "stay_rmse",
    )  # fmt: skip
    assert all(isinstance(select(found, name, dict.fromkeys(found, 1.0)), float) for name in names)
    assert known_valid_metrics(TASKS[2:]) == (
        "mean_mae", "mean_rmse", "weighted_mae", "weighted_rmse", "stay_mae", "stay_rmse",
    )  # fmt: skip
    assert known_valid_metrics(TASKS[1:2]) == (
        "mean_auc", "mean_logloss", "weighted_auc", "weighted_logloss", "buy_auc", "buy_logloss",
    )  # fmt: skip
    assert known_valid_metrics(TASKS[:1], ["gauc", "ne"]) == ("mean_ne", "weighted_ne", "click_ne")
    assert known_valid_metrics(TASKS[:1], ["gauc"], grouped=True) == (
        "mean_gauc", "weighted_gauc", "click_gauc",
    )  # fmt: skip


def test_direction() -> None:
    names = [task.name for task in TASKS]
    for name in ("mean_auc", "click_auc", "buy_gauc"):
        assert higher_is_better(name, names)
    for name in ("mean_logloss", "click_ne", "stay_rmse", "stay_mae"):
        assert not higher_is_better(name, names)
    assert is_better(True, 0.8, 0.7)
    assert not is_better(True, 0.7, 0.7)
    assert is_better(False, 0.7, 0.8)
    assert not is_better(False, 0.8, 0.8)
    assert is_better(True, 0.1, None)
    assert not is_better(True, None, 0.1)
    assert not is_better(True, None, None)


# ---- which metrics --------------------------------------------------------------------------------------------------


@METRICS.register("test-share-of-domain")
class ShareOfDomain(TaskMetric):
    """Share of the rows that are of domain 1."""

    higher_is_better = True
    needs_domain = True

    def __init__(self, *, domain: int = 1) -> None:
        super().__init__()
        self.domain = domain
        self.add_sum("own")
        self.add_sum("rows")

    def add(self, rows: Rows) -> None:
        assert rows.domain is not None
        self.own += (rows.mass * (rows.domain == self.domain)).sum()
        self.rows += rows.mass.sum()

    def compute(self) -> torch.Tensor:
        return self.own / self.rows


def test_metrics_that_need_a_group_or_a_domain_are_computed_where_there_is_one() -> None:
    assert MultiTaskMetrics(TASKS[:1]).names == [["auc", "logloss", "ne", "calibration"]]
    assert MultiTaskMetrics(TASKS[:1], grouped=True).names == [["auc", "gauc", "logloss", "ne", "calibration"]]
    assert MultiTaskMetrics(TASKS[:1], domains=True).names[0][-1] == "test-share-of-domain"


def test_chosen_metrics_keep_their_order_and_have_their_options() -> None:
    metrics = MultiTaskMetrics(TASKS, {"mae": {}, "test-share-of-domain": {"domain": 0}, "auc": {}}, domains=True)
    assert metrics.names == [["test-share-of-domain", "auc"], ["test-share-of-domain", "auc"], ["mae"]]
    logits, labels, observed, _ = batch()
    domain = torch.arange(300) % 3
    metrics.update(logits, labels, observed, domain=domain)
    rows = observed[:, 0]
    found = metrics.compute()
    assert found["click"]["test-share-of-domain"] == pytest.approx(
        float((domain[rows] == 0).double().mean()), abs=1e-12
    )
    assert found["click"]["auc"] == pytest.approx(roc_auc_score(labels[rows, 0], logits[rows, 0]), abs=1e-9)


def test_a_metric_without_the_group_that_it_needs_says_so() -> None:
    with pytest.raises(UsageError, match="GAUC needs the group of every row: set group_field"):
        MultiTaskMetrics(TASKS[:1], {"gauc": {}}).update(torch.zeros(2, 1), torch.ones(2, 1), torch.ones(2, 1).bool())


def test_a_name_that_marks_a_standard_error_is_refused() -> None:
    with pytest.raises(UsageError, match="'auc_se': expected a name that does not end in _se"):
        MultiTaskMetrics(TASKS[:1], {"auc_se": {}})
    assert not any(name.endswith("_se") for name in known_valid_metrics(TASKS, grouped=True))


# ---- factors --------------------------------------------------------------------------------------------------------


def with_factor(rows: int = 400, weighted: bool = True) -> tuple[Features, ModelOutput]:
    """A batch in which buy follows click, with a factor cvr."""
    draw = torch.Generator().manual_seed(8)
    click = (torch.rand(rows, generator=draw) < 0.5).float()
    buy = click * (torch.rand(rows, generator=draw) < 0.4)
    labels = torch.stack([click, buy, torch.zeros(rows)], 1)
    observed = torch.rand(rows, 3, generator=draw) < 0.8
    features = Features(
        ids=torch.zeros(rows, 1, dtype=torch.int64),
        dense=torch.empty(rows, 0),
        labels=torch.where(observed, labels, torch.nan),
        observed=observed,
        sample_weight=torch.rand(rows, generator=draw) if weighted else None,
        group=torch.randint(9, (rows,), generator=draw),
    )
    logits = torch.randn(rows, 4, generator=draw)
    return features, ModelOutput(logits[:, :3], factors={"cvr": Factor(logits[:, 3], "buy", "click")})


def test_a_factor_is_evaluated_over_the_rows_that_it_is_about() -> None:
    features, output = with_factor()
    metrics = MultiTaskMetrics((TASKS[0], TaskSpec("buy", "binary", "b"), TASKS[2]), grouped=True)
    for part in torch.arange(400).split(150):
        rows = take_rows(features, part.tolist())
        factor = Factor(output.factors["cvr"].logit[part], "buy", "click")
        metrics.add_batch(rows, ModelOutput(output.logits[part], factors={"cvr": factor}))
    found = metrics.compute_factors()
    assert list(found) == ["buy@click", "buy@click (joint)"]
    assert list(found["buy@click"]) == ["auc", "auc_se", "gauc", "gauc_se", "logloss", "ne", "calibration"]
    # Clicked and seen to be clicked, and whether bought is seen too.
    rows = (features.observed[:, 0] & features.observed[:, 1] & (features.labels[:, 0] == 1)).numpy()
    truth, scores = features.labels[rows, 1].numpy(), output.factors["cvr"].logit[rows].double().numpy()
    mass = features.sample_weight[rows].double().numpy()
    assert 50 < rows.sum() < 150
    assert found["buy@click"]["auc"] == pytest.approx(roc_auc_score(truth, scores, sample_weight=mass), abs=1e-9)
    chances = 1 / (1 + np.exp(-scores))
    assert found["buy@click"]["logloss"] == pytest.approx(log_loss(truth, chances, sample_weight=mass), abs=1e-9)
    expected = np.average(chances, weights=mass) / np.average(truth, weights=mass)
    assert found["buy@click"]["calibration"] == pytest.approx(expected, abs=1e-9)
    # The task's own prediction, over all rows, on the same rows: it ranks, and is no conditional probability.
    joint = output.logits[rows, 1].double().numpy()
    assert found["buy@click (joint)"]["auc"] == pytest.approx(roc_auc_score(truth, joint, sample_weight=mass), abs=1e-9)
    assert (found["buy@click (joint)"]["ne"], found["buy@click (joint)"]["calibration"]) == (None, None)
    assert list(metrics.compute()) == ["click", "buy", "stay"]
    metrics.reset()
    assert set(metrics.compute_factors()["buy@click"].values()) == {None}


def test_a_factor_of_a_task_with_pos_weight_is_not_calibrated() -> None:
    features, output = with_factor(weighted=False)
    metrics = MultiTaskMetrics(TASKS)  # buy has a pos_weight
    metrics.add_batch(features, output)
    found = metrics.compute_factors()["buy@click"]
    assert (found["ne"], found["calibration"]) == (None, None)
    assert found["auc"] is not None


def test_a_second_factor_of_the_same_label_goes_by_its_own_name() -> None:
    features, output = with_factor()
    factors = {**output.factors, "imputed": Factor(output.logits[:, 1], "buy", "click")}
    metrics = MultiTaskMetrics(TASKS)
    metrics.add_batch(features, ModelOutput(output.logits, factors=factors))
    assert list(metrics.compute_factors()) == ["buy@click", "buy@click (joint)", "imputed@click"]


def test_a_task_that_is_observed_after_the_condition_alone_has_one_reading() -> None:
    features, output = with_factor()
    metrics = MultiTaskMetrics((TASKS[0], replace(TASKS[1], observed_when="click == 1"), TASKS[2]))
    metrics.add_batch(features, output)
    assert list(metrics.compute_factors()) == ["buy@click"]


def test_a_factor_that_is_not_finite_is_refused() -> None:
    features, output = with_factor()
    logit = output.factors["cvr"].logit.clone()
    logit[7] = torch.inf
    with pytest.raises(DataError, match=r"the logit of task 'buy@click' is inf in row 7"):
        MultiTaskMetrics(TASKS).add_batch(
            features, ModelOutput(output.logits, factors={"cvr": Factor(logit, "buy", "click")})
        )


def test_a_model_without_factors_has_none() -> None:
    assert filled(True).compute_factors() == {}
