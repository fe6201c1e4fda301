"""Models of chained tasks refuse, before training, tasks that they cannot chain."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError
from recbole_dtn.model.chains import TaskChain
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_schema

PRODUCTS = ["ESMM", "ESCM2", "DCMT", "AITM"]


def chain(**after: tuple[str, ...]) -> list[TaskSpec]:
    return [TaskSpec(name, "binary", name, after=before) for name, before in after.items()]


@pytest.mark.parametrize("model", PRODUCTS)
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (chain(a=(), b=()), "tasks: {model} needs tasks in a chain"),
        (chain(a=()), "tasks: {model} needs 2 tasks or more; found 1"),
        (chain(a=(), b=("a",), c=("a", "b")), "'c' comes after a, b; in {model} a task comes after one other at most"),
        (
            [TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b", after=("a",), observed_when="a == 1")],
            "'b' is observed when a == 1, 'a' when always; {model} trains both over the same rows",
        ),
        (
            [TaskSpec("a", "binary", "a"), TaskSpec("b", "regression", "b", after=("a",))],
            "'b' is a regression task, and {model} takes binary tasks only",
        ),
    ],
)
def test_tasks_that_cannot_be_chained_are_refused(model: str, tasks: list[TaskSpec], message: str) -> None:
    with pytest.raises(UsageError, match=message.format(model=model)):
        MODELS.load(model)(make_settings(model), tiny_schema(tasks=tasks))


def test_steps_are_in_the_order_of_the_chain() -> None:
    found = TaskChain.of(tiny_schema(tasks=chain(c=("b",), b=("a",), a=(), d=())), "ESMM")
    assert (found.before, found.order, found.steps) == ((1, 2, None, None), (2, 1, 0, 3), ((1, 2), (0, 1)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=ESCM2", "--form=aipw"], "form: expected one of ips, dr; found 'aipw'"),
        (["--model=ESCM2", "--max_weight=0.5"], "max_weight: expected a number >= 1; found '0.5'"),
        (["--model=DCMT", "--self_normalized=true"], "did you mean 'self_normalised'"),
        (["--model=AITM", "--constraint_weight=-1"], "constraint_weight: expected a number >= 0; found '-1'"),
    ],
)
def test_a_wrong_option_is_named(words: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(words)


LIKE = "{name: like, label: rating, condition: rating >= 4}"


@pytest.mark.parametrize("model", [*PRODUCTS, "ResFlow"])
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (f"[{LIKE}]", "tasks: {model} needs 2 tasks or more; found 1"),
        (f"[{LIKE}, {{name: love, label: rating, condition: rating == 5}}]", "tasks: {model} needs tasks in a chain"),
        (
            f"[{LIKE}, {{name: a, label: rating, condition: rating >= 3}}, "
            "{name: love, label: rating, condition: rating == 5, after: [a, like]}]",
            "'love' comes after a, like; in {model} a task comes after one other at most",
        ),
    ],
)
def test_settings_without_a_chain_are_refused_before_data_are_read(model: str, tasks: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.format(model=model)) as refused:
        resolve([f"--model={model}", "--dataset=ml-100k", f"--tasks={tasks}"])
    assert str(refused.value).count("tasks:") == 1
    assert "(command line)" in str(refused.value)


@pytest.mark.parametrize("model", PRODUCTS)
def test_labels_observed_in_other_rows_are_refused_before_data_are_read(model: str) -> None:
    later = "{name: love, label: rating, condition: rating == 5, after: [like], observed_when: rating >= 4}"
    words = [f"--model={model}", "--dataset=ml-100k", f"--tasks=[{LIKE}, {later}]"]
    with pytest.raises(UsageError, match=f"'love' is observed when rating >= 4, 'like' when always; {model} trains"):
        resolve(words)
    resolve(["--model=ResFlow", *words[1:]])
