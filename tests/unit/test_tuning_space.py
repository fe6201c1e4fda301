"""What is tuned of a run: which settings, between which values, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import MODELS
from recbole_dtn.tuning.space import SHIPPED_SPACE, Dimension, extremes, read_space, space_of_run


def dimensions(space: Any, *words: str, model: str = "MMoE") -> list[Dimension]:
    given = [f"--model={model}", "--dataset=ml-100k", *words]
    return space_of_run(read_space(space), resolve(given), given)


@pytest.mark.parametrize("model", MODELS.names())
def test_the_shipped_space_fits_every_model(model: str) -> None:
    needed = ["--domain_field=gender"] if MODELS.attributes(model)["needs_domain"] else []
    found = dimensions(SHIPPED_SPACE, *needed, model=model)
    words = [f"--model={model}", "--dataset=ml-100k", *needed]
    resolved = resolve(words).settings
    for values in extremes(found):
        resolve([*words, *values])
    shared = ["optimizer.lr", "weight_decay", "embedding_l2", "codebook_l2", "dropout", "tasks.love.weight"]
    direct = MODELS.attributes(model)["fits_directly"]
    assert [one.key for one in found][: len(shared)] == (shared if not direct else [one.key for one in found][:6])
    if not direct:
        assert found[0].default == resolved.optimizer.lr
        assert (found[0].low, found[0].high, found[0].log) == (0.0005, 0.02, True)


def test_what_a_row_sets_is_not_tuned() -> None:
    space = {
        "all": {
            "optimizer.lr": {"low": 0.001, "high": 0.1},
            "tasks.*.weight": {"low": 0.5, "high": 2.0},
            "dropout": {"choices": [0.1]},
        },
        "MMoE": {"experts": {"choices": [2, 8]}},
    }
    keys = [one.key for one in dimensions(space)]
    assert keys == ["optimizer.lr", "tasks.love.weight", "dropout", "experts"]
    assert [one.key for one in dimensions(space, "--learning_rate=0.01")] == keys[1:]
    assert [one.key for one in dimensions(space, "--optimizer={lr: 0.01}")] == keys[1:]
    assert [one.key for one in dimensions(space, "--tasks.love.weight=3", "--experts=[gdcn]")] == [keys[0], keys[2]]
    assert [one.key for one in dimensions(space, "--tasks={love: {after: []}}")] == keys, "its weight is not set"
    assert [one.key for one in dimensions(space, "--tasks={love: {weight: 3}}")] == [keys[0], *keys[2:]]
    assert [one.key for one in dimensions(space, "--tasks={}", "--output_dir=@x")] == keys
    assert dimensions(space, model="Logistic") == []  # the section ``all`` is not of models that are fitted directly


def test_the_default_belongs_to_the_space() -> None:
    space = {"all": {"optimizer.lr": {"low": 0.01, "high": 0.1, "log": True}, "dropout": {"choices": [0.1, 0.2]}},
             "Boosting": {"max_leaf_nodes": {"low": 40, "high": 60}}}  # fmt: skip
    lr, dropout = dimensions(space)
    assert (lr.low, lr.default, lr.high) == (0.004, 0.004, 0.1)
    assert (dropout.choices, dropout.default) == (("0.1", "0.2", "0.0"), "0.0")
    (leaves,) = dimensions(space, model="Boosting")
    assert (leaves.low, leaves.high, leaves.whole) == (31, 60, True)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"MMOE": {}}, "MMOE: expected all or a model; did you mean 'MMoE'"),
        ({"all": {"dropout": {"low": 0.5, "high": 0.1}}}, "all.dropout: expected low < high, found 0.5 and 0.1"),
        ({"all": {"dropout": {"low": 0, "high": 0.1, "log": True}}}, "a log range begins above 0, found 0"),
        ({"all": {"dropout": {"hi": 1, "low": 0}}}, "all.dropout: hi"),
        ({"all": {"dropout": {"choices": []}}}, "all.dropout: choices"),
        ({"all": {"dropout": 0.1}}, "expected a range such as"),
        ({"all": [1]}, "all: expected a map of settings"),
        ({"all": {"dropuot": {"choices": [0.1]}}}, "MMoE has no setting 'dropuot'; did you mean 'dropout'"),
        ({"all": {"optimizer.rate": {"choices": [0.1]}}}, "MMoE has no setting 'optimizer.rate'"),
        ({"all": {"weight_decay": {"low": 1e-6, "high": 0.1, "log": True}}}, "weight_decay is 0, which a log range"),
        ({"all": {"balancer": {"low": 1, "high": 2}}}, "no number: name its values as choices"),
    ],
)  # fmt: skip
def test_what_is_refused(space: Any, said: str) -> None:
    with pytest.raises(UsageError) as error:
        dimensions(space)
    assert said in str(error.value)


def test_words_of_values_resolve_to_them() -> None:
    space = {"all": {"optimizer.lr": {"low": 1e-6, "high": 0.1}, "metrics": {"choices": [["auc", "ne"], None]}}}
    lr, metrics = dimensions(space)
    words = ["--model=MMoE", "--dataset=ml-100k"]
    assert resolve([*words, lr.word(1e-6)]).settings.optimizer.lr == 1e-6
    assert resolve([*words, metrics.word(flow_yaml(["auc", "ne"]))]).settings.metrics is not None
