"""Metrics by domain, their names in settings, and what the record keeps of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn.config.load import resolve
from recbole_dtn.config.metric_names import MetricName, metric_name
from recbole_dtn.errors import UsageError
from recbole_dtn.metric.parts import metric_class
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.schema import TaskSpec
from recbole_dtn.serving.evaluate import evaluate

SIZES = (30, 90, 12, 1)
"""Rows of the domains; the last has one class."""


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    domain = np.repeat([5, 0, 7, 2], SIZES)
    logits = random.normal(size=len(domain))
    labels = (random.random(len(domain)) < 1 / (1 + np.exp(-logits * (domain + 1) / 4))).astype(float)
    order = random.permutation(len(domain))
    return logits[order], labels[order], domain[order]


def found(name: str, rows: tuple) -> tuple[float, dict]:
    metric = metric_class(name)()
    logits, labels, domain = map(torch.from_numpy, rows)
    for part in torch.arange(len(domain)).split(40):
        metric.update(logits[part], labels[part], domain=domain[part])
    return float(metric.compute()), metric.details()


def test_the_auc_by_domain(rows: tuple) -> None:
    logits, labels, domain = rows
    each = {d: roc_auc_score(labels[domain == d], logits[domain == d]) for d in (5, 0, 7)}
    sizes = [(domain == d).sum() for d in each]
    macro, details = found("auc/domain", rows)
    assert macro == pytest.approx(np.mean([*each.values()]), rel=1e-13)
    weighted = np.average([*each.values()], weights=sizes)
    assert found("auc/domain_weighted", rows)[0] == pytest.approx(weighted, rel=1e-13)
    assert found("auc/domain_worst", rows)[0] == pytest.approx(min(each.values()), rel=1e-13)
    for d, value in each.items():
        expected = {"rows": (domain == d).sum(), "positives": labels[domain == d].sum(), "value": value}
        assert details["domains"][str(d)] == pytest.approx(expected)
    assert details["domains"]["2"] == {"rows": 1.0, "positives": labels[domain == 2].sum(), "value": None}


def test_the_worst_normalised_entropy_is_the_highest(rows: tuple) -> None:
    logits, labels, domain = rows
    chances, each = 1 / (1 + np.exp(-logits)), []
    for d in (5, 0, 7):
        own, rate = domain == d, labels[domain == d].mean()
        each.append(log_loss(labels[own], chances[own]) / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))
    assert found("ne/domain_worst", rows)[0] == pytest.approx(max(each), rel=1e-12)


def test_a_regression_by_domain() -> None:
    rows = np.array([1.0, 5.0, 2.0]), np.array([2.0, 1.0, 2.0]), np.array([0, 1, 1])
    worst, details = found("mae/domain_worst", rows)
    assert worst == 2.0  # 1 in domain 0; (4 + 0) / 2 in domain 1
    assert details == {"domains": {"0": {"rows": 1.0, "value": 1.0}, "1": {"rows": 2.0, "value": 2.0}}}


def test_options_and_depths_reach_the_metric(rows: tuple) -> None:
    task = (TaskSpec("click", "binary", "click"),)
    chosen = {"ndcg@1": {}, "ndcg@3/domain": {}, "ece/domain_worst": {"bins": 2}, "gauc_equal": {}}
    metrics = MultiTaskMetrics(task, chosen, grouped=True, domains=True)
    logits, labels, domain = map(torch.from_numpy, rows)
    group = torch.arange(len(domain)) % 20
    metrics.update(logits[:, None], labels[:, None], torch.ones(len(domain), 1, dtype=torch.bool), group=group,
                   domain=domain)  # fmt: skip
    values = metrics.compute()["click"]
    assert list(values) == ["ndcg@1", "ndcg@3/domain", "ece/domain_worst", "gauc_equal", "gauc_equal_se"]
    assert values["ndcg@1"] is not None
    first = [labels[group == g][logits[group == g].argmax()] for g in range(20) if labels[group == g].any()]
    assert values["ndcg@1"] == pytest.approx(np.mean(first))
    assert set(metrics.details()["click"]["ece/domain_worst"]["domains"]) == {"5", "0", "7", "2"}


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names_are_taken_apart() -> None:
    assert metric_name("auc") == MetricName("auc")
    assert metric_name("hit@20") == MetricName("hit", 20)
    assert metric_name("ne/domain_weighted") == MetricName("ne", None, "weighted")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acu/domain", "unknown metric 'acu': did you mean 'auc'"),
        ("auc/user", "metric 'auc/user': expected auc/domain, auc/domain_weighted or auc/domain_worst"),
        ("auc@5", "'auc@5': auc has no depth k, as hit or ndcg have; leave @5 out"),
        ("ndcg@0", "a number of rows of at least 1 after the @; found '0'"),
        ("ndcg@x", "a number of rows of at least 1 after the @; found 'x'"),
        ("calibration/domain_worst", "calibration is best at neither end, so that no domain is worst"),
        ("auc/domain/domain", "expected <metric>, <metric>@<k> or <metric>/domain"),
    ],
)
def test_wrong_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metric_name(name)


BASE = {"model": "MMoE", "dataset": "ml-100k"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": ["auc", "auc/domain"]}, r"'auc/domain' needs domain_field"),
        ({"metrics": ["auc", "auc/domian"]}, r"metric 'auc/domian': expected auc/domain"),
        ({"metrics": ["auc", {"name": "ndcg@5", "k": 3}]}, r"'ndcg@5' says k: 5; leave k out, or write the name"),
        ({"metrics": ["auc", {"name": "ndcg@5", "depth": 3}]}, r"depth"),
        ({"valid_metric": "like_pr_auc"}, r"'like_pr_auc' is not computed: add pr_auc to metrics"),
        ({"valid_metric": "mean_ndcg@5"}, r"'mean_ndcg@5' is not computed: add ndcg@5 to metrics"),
        ({"valid_metric": "mean_auc/domain_worst", "metrics": ["auc"]}, r"needs domain_field: set it"),
    ],
)
def test_wrong_settings_are_refused(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve({**BASE, **given})


def test_settings_take_depths_and_domains() -> None:
    given = {"metrics": ["auc", "ndcg@5", "auc/domain_worst", {"name": "ece/domain", "bins": 4}]}
    settings = resolve({**BASE, **given, "domain_field": "gender", "valid_metric": "mean_auc/domain_worst"}).settings
    assert settings.metrics is not None
    assert [(choice.name, choice.options) for choice in settings.metrics] == [
        ("auc", {}),
        ("ndcg@5", {"k": 5}),
        ("auc/domain_worst", {}),
        ("ece/domain", {"bins": 4}),
    ]
    again = resolve({**BASE, **given, "metrics": settings.dump()["metrics"], "domain_field": "gender"}).settings
    assert again.metrics == settings.metrics


def test_predictions_of_any_tool_by_domain(rows: tuple) -> None:
    logits, labels, domain = rows
    chances = 1 / (1 + np.exp(-logits))
    report = evaluate({"a": chances, "b": chances[::-1]}, labels, domain=domain, metrics=["auc/domain"], draws=20)
    assert report.metrics["a"]["task"]["auc/domain"] == pytest.approx(found("auc/domain", rows)[0], rel=1e-12)
    assert [test.metric for test in report.comparisons] == ["auc/domain"]
    with pytest.raises(UsageError, match="'auc/domain' needs the domain of every row"):
        evaluate(chances, labels, metrics=["auc/domain"])
    with pytest.raises(UsageError, match="evaluate: unknown metric 'uac': did you mean 'auc'"):
        evaluate(chances, labels, metrics=["uac"])
