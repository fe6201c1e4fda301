"""The settings ``metrics``, ``valid_metric`` and a task's ``loss``: what is refused, and with which words."""

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError

BASE = {"model": "MMoE", "dataset": "ml-100k"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": ["auc", "auc"]}, r"metrics: 'auc' is listed twice; keep one"),
        ({"metrics": ["auc", "rmse"]}, r"metrics: 'rmse' is for regression tasks, and there are none; leave it out"),
        ({"metrics": ["auc", "gauc"], "group_field": None}, r"metrics: 'gauc' needs group_field, the column of groups"),
        ({"metrics": ["logloss"]}, r"'weighted_auc' is not computed: add auc to metrics, or choose one of "
                                   r"mean_logloss, weighted_logloss, like_logloss, love_logloss \("),
        ({"metrics": ["calibration"]}, r"'weighted_auc' is not computed: add auc to metrics, or compute one"),
        ({"valid_metric": "like_gauc", "group_field": None}, r"'like_gauc' needs group_field: set it, or choose"),
        ({"valid_metric": "like_calibration"}, r"valid_metric: calibration is best at neither end"),
        ({"valid_metric": "like_gacu"}, r"unknown metric 'like_gacu'; did you mean 'like_gauc'"),
        ({"metrics": ["gacu"]}, r"unknown metric 'gacu': did you mean 'gauc'"),
        ({"metrics": [{"name": "gauc", "weights": "rows"}]}, r"metrics.*weights.*impressions.*equal.*'rows'"),
        ({"tasks": [{"name": "like", "label": "rating", "condition": "rating >= 4", "loss": "mse"}]},
         r"task 'like': loss 'mse' is for regression tasks; this one is binary"),
    ],
)  # fmt: skip
def test_wrong_choices_are_refused(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve({**BASE, **given})


def test_right_choices_are_typed() -> None:
    given = {"metrics": ["auc", {"name": "gauc", "weights": "equal"}], "valid_metric": "love_gauc"}
    settings = resolve({**BASE, **given}).settings
    assert settings.metrics is not None
    assert [(choice.name, choice.options) for choice in settings.metrics] == [
        ("auc", {}),
        ("gauc", {"weights": "equal"}),
    ]
    assert resolve(BASE).settings.metrics is None
    assert resolve({**BASE, "valid_metric": "mean_gauc"}).settings.valid_metric == "mean_gauc"
