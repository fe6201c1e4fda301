"""Settings that name methods with options, lists changed by name, and values that only look like others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from recbole_dtn.config.choice import KINDS, Choice, choose, keyword_options
from recbole_dtn.config.faults import declared, describe
from recbole_dtn.config.load import resolve, settings_digest
from recbole_dtn.config.schema import field_of, schema_of
from recbole_dtn.config.strict import Strict
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import BALANCERS, INTERACTIONS


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _gentle() -> None:
    """A balancer with an option, for this test only."""

    @BALANCERS.register("gentle")
    class Gentle:
        """Divides by a number."""

        def __init__(self, tasks: Any, *, by: Annotated[float, Field(gt=0, description="divisor")] = 2.0) -> None:
            self.tasks, self.by = tasks, by


@pytest.mark.usefixtures("_gentle")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--balancer=gentle"], {"name": "gentle", "by": 2.0}),
        (["--balancer={name: gentle, by: 3}"], {"name": "gentle", "by": 3.0}),
        (["--balancer=gentle", "--balancer.by=4"], {"name": "gentle", "by": 4.0}),
        (["--balancer.name=gentle", "--balancer.by=4"], {"name": "gentle", "by": 4.0}),
        (["--balancer.by=4", "--balancer=gentle"], {"name": "gentle", "by": 4.0}),
        (["--config_files=gentle.yaml"], {"name": "gentle", "by": 5.0}),
        (["--config_files=gentle.yaml", "--balancer.by=6"], {"name": "gentle", "by": 6.0}),
        (["--config_files=gentle.yaml", "--balancer=fixed"], {"name": "fixed", "scale": "none"}),
    ],
)
def test_a_method_and_its_options_by_their_parts(words: list[str], expected: dict[str, Any]) -> None:
    Path("gentle.yaml").write_text("balancer: {name: gentle, by: 5}\n")
    settings = resolve(words).settings
    assert settings.balancer.dump() == expected
    built: Any = None
    if settings.balancer.name == "gentle":
        built = BALANCERS.build(settings.balancer, ["a task"])
        assert (built.tasks, built.by) == (["a task"], expected["by"])


@pytest.mark.usefixtures("_gentle")
def test_a_wrong_option_of_a_method_names_the_method() -> None:
    with pytest.raises(UsageError) as error:
        resolve(["--balancer={name: gentle, bye: 1, by: 0}", "--shared_interaction=gdnc"])
    lines = str(error.value).splitlines()
    assert (
        lines[1]
        == "  shared_interaction: unknown interaction 'gdnc': did you mean 'gdcn'? (known: "
        + ", ".join(INTERACTIONS.names())
        + ") (command line)"
        or "did you mean 'gdcn'" in lines[1]
    )
    assert lines[2] == "  balancer.bye: gentle has no such option; did you mean 'by'? (known: by) (command line)"
    assert lines[3] == "  balancer.by: expected a number > 0; found '0' (command line)"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--shared_interaction={name: gdcn, layer: 3}", "shared_interaction.layer: gdcn has no such option"),
        ("--shared_interaction={name: gdcn, layers: 0}", "shared_interaction.layers: expected an integer >= 1"),
        ("--tasks.like.loss={name: bce, gamma: 1}", "tasks[0].loss.gamma: bce has no such option; "),
        ("--metrics=[{name: gauc, weights: users}]", "metrics[0].weights: expected one of impressions, equal"),
    ],
)  # fmt: skip
def test_a_wrong_option_where_nothing_may_be_chosen_too(word: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve([word])
    assert str(error.value).startswith(message)


def test_a_task_is_changed_by_its_name() -> None:
    settings = resolve(["--tasks.love.pos_weight=200", "--tasks.like.weight=3", "--fields.age.bins=5"]).settings
    assert {task.name: (task.weight, task.pos_weight) for task in settings.tasks} == {
        "like": (3.0, 1.0),
        "love": (1.0, 200.0),
    }
    assert next(field.bins for field in settings.fields if field.name == "age") == 5
    assert [task.condition for task in settings.tasks] == [task.condition for task in resolve([]).settings.tasks]


def test_a_file_changes_tasks_by_name_and_a_task_that_is_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("tasks:\n  like: {weight: 2}\n  lovee: {weight: 2}\n")
    with pytest.raises(UsageError) as error:
        resolve([f"--config_files={file}"])
    assert str(error.value) == (
        f"tasks.lovee: no entry of tasks has this name; did you mean 'love'? (known: like, love) ({file}:3)"
    )


def test_choices_are_told_apart_by_every_option() -> None:
    one, same, other = (
        settings_digest(resolve([f"--shared_interaction={text}", "--model=MMoE"]).settings)
        for text in ("gdcn", "{name: gdcn, layers: 2}", "{name: gdcn, layers: 3}")
    )
    assert one == same != other


def test_a_choice_is_made_from_a_name_a_map_or_a_choice() -> None:
    made = choose(INTERACTIONS, {"name": "gdcn", "layers": "3"})
    assert made == Choice("gdcn", {"layers": 3, "structure": "stacked", "hidden": [], "low_rank": "auto"})
    assert choose(INTERACTIONS, made) == made
    assert choose(INTERACTIONS, "gdcn").options["layers"] == 2


class Everything:
    """Options of every kind that the index must hold."""

    def __init__(
        self,
        *,
        count: Annotated[int, Field(ge=1, le=9)] = 2,
        share: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        word: str = "a",
        flag: bool = False,
        kind: Literal["a", "b"] = "a",
        width: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=1)]] = 4,
        maybe: float | None = None,
        pair: tuple[float, float] = (0.0, 1.0),
        chain: Literal["data"] | dict[str, list[str]] = "data",
        needed: int,
    ) -> None: ...


def test_types_of_options_come_back_from_the_index_as_they_were() -> None:
    own = keyword_options(Everything)
    fields: Any = {key: field_of(schema_of(info), KINDS) for key, info in own.model_fields.items()}
    again = create_model("Again", __base__=Strict, **fields)
    assert {key: describe(kind) for key, kind in declared(again).items()} == {
        key: describe(kind) for key, kind in declared(own).items()
    }
    given = {"needed": "7", "width": "64,32", "flag": "yes", "maybe": None, "pair": ["1", "2"], "count": "9"}
    assert again.model_validate(given).model_dump() == own.model_validate(given).model_dump()
    assert again.model_validate(given).model_dump()["width"] == [64, 32]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": True}, "epochs: expected an integer >= 1; found True"),
        ({"dropout": False}, "dropout: expected a number >= 0 and < 1; found False"),
        ({"cache_dir": True}, "cache_dir: expected text, or null; found True"),
        ({"quiet": 2}, "quiet: expected true or false; found 2"),
        ({"epochs": 2.5}, "epochs: expected an integer >= 1; found 2.5"),
        ({"dropout": float("nan")}, "dropout: expected a number >= 0 and < 1; found nan"),
    ],
)
def test_python_values_of_another_kind_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(values)
    assert str(error.value).startswith(message)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)
MERGES = "m0: &m0 {k: 1}\n" + "".join(
    f"m{level}: &m{level} {{<<: [{', '.join([f'*m{level - 1}'] * 9)}]}}\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 100,000 values, those that aliases repeat included"),
        (MERGES, "more than 100,000 values, those that aliases repeat included"),
        (
            "epochs: 1\nfields: " + "[" * 5000 + "]" * 5000,
            "a.yaml, line 2, column 49: not valid YAML: more than 40 levels",
        ),
        ("epochs: 1\nseed: \x07\n", "a.yaml, line 2: not valid YAML: the control character '\\x07' is not allowed"),
        ("epochs: {<<: 3}\n", "a.yaml, line 1: << expects a map, or a list of maps"),
    ],
    ids=["aliases", "merges", "nesting", "control", "merge"],
)
def test_a_hostile_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        resolve([], config_files=["a.yaml"])
    assert message in str(error.value)


def test_plugins_are_kept_by_their_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    settings = resolve(["--plugins=mine.py"]).settings
    assert settings.plugins == [str(tmp_path / "mine.py")]
    monkeypatch.chdir("/")
    assert resolve({"plugins": settings.plugins}).settings.plugins == settings.plugins


def test_a_recbole_file_is_translated(tmp_path: Path) -> None:
    file = tmp_path / "recbole.yaml"
    file.write_text(
        "USER_ID_FIELD: user_id\nITEM_ID_FIELD: item_id\nLABEL_FIELD: like\nthreshold: {rating: 4}\n"
        "load_col: {inter: [user_id, item_id, rating]}\neval_args: {split: {RS: [0.7, 0.2, 0.1]}, "
        "order: RO, group_by: none}\n"
        "epochs: 3\nlearning_rate: 0.01\nmetrics: [AUC, LogLoss]\nvalid_metric: AUC\n"
    )
    settings = resolve([f"--config_files={file}"]).settings
    assert [field.name for field in settings.fields] == ["user_id", "item_id"]
    assert [(task.name, task.label, task.condition) for task in settings.tasks] == [("like", "rating", "rating >= 4")]
    assert (settings.split_ratio, settings.user_field, settings.epochs) == ((0.7, 0.2, 0.1), "user_id", 3)
    assert [metric.name for metric in settings.metrics or []] == ["auc", "logloss"]
    file.write_text("epochs: 3\neval_args: {split: {LS: valid_and_test}}\n")
    with pytest.raises(UsageError, match=rf"eval_args: is RecBole's setting; .*\({file}:2\)"):
        resolve([f"--config_files={file}"])


def test_a_loss_of_a_task_by_its_parts() -> None:
    (like, _) = resolve(["--tasks.like.loss=bce", "--tasks.like.loss.name=bce"]).settings.tasks
    assert like.loss is not None
    assert like.loss.name == "bce"
