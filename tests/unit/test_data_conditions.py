"""Conditions: what they parse to, where they fail, and what they mean over rows with missing values."""

import ast

import polars as pl
import pytest

from recbole_dtn.config.conditions import (
    NESTING,
    AllOf,
    AnyOf,
    Comparison,
    Membership,
    Negation,
    _condition,
    parse_condition,
)
from recbole_dtn.config.load import resolve
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.data.condition import to_expression
from recbole_dtn.errors import UsageError


def evaluate(source, **columns):
    frame = pl.DataFrame(columns)
    return frame.select(y=to_expression(parse_condition(source), frame.schema))["y"].to_list()


def test_and_binds_tighter_than_or_and_not_tighter_still():
    parsed = parse_condition("a == 1 or not b > 2 and c in ['x', \"y z\"]")
    assert parsed == AnyOf(
        (
            Comparison("a", "==", 1.0),
            AllOf((Negation(Comparison("b", ">", 2.0)), Membership("c", ("x", "y z")))),
        )
    )
    assert parsed.columns() == {"a", "b", "c"}


def test_parentheses_names_and_numbers():
    assert parse_condition("((`odd name` <= -1.5e3))") == Comparison("odd name", "<=", -1500.0)
    assert parse_condition("109_14 == .5") == Comparison("109_14", "==", 0.5)
    assert parse_condition("a not in [1, 2]") == Negation(Membership("a", (1.0, 2.0)))


@pytest.mark.parametrize(
    ("source", "position", "expected"),
    [
        ("", 1, "a column, found the end"),
        ("rating", 7, "one of == != >= <= > <"),
        ("rating = 5", 8, "equality is written =="),
        ("rating >= ", 11, "a number or a quoted text, found the end"),
        ("rating >= 4 rating", 13, "'and', 'or' or the end"),
        ("(a == 1", 8, "')'"),
        ("a in 1", 6, "'['"),
        ("a in [1, 'x']", 7, "numbers only or of texts only"),
        ("a > 'x'", 5, "texts have no order"),
        ("__import__('os')", 11, "one of =="),
        ("a == 'x", 6, "a column, a number"),
        ("and == 1", 1, "a column"),
    ],
)
def test_a_fault_names_its_position(source, position, expected):
    with pytest.raises(UsageError) as caught:
        parse_condition(source)
    assert f"position {position}:" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("source", "position", "expected"),
    [
        ("1 < a < 2", 1, "a column, found '1'"),
        ("10914 == 1", 1, "a column, found '10914'"),
        ("a < 2 < 3", 7, "'and', 'or' or the end, found '<'"),
        ("a == b", 6, "a number or a quoted text, found 'b'"),
        ("len(a) == 1", 4, "found '('"),
        ("a[0] == 1", 2, "found '['"),
        ("`a`.b == 1", 4, "found '.'"),
        ("a + 1 == 2", 3, "found '+'"),
        ("a == 1 + 1", 8, "found '+'"),
        ("a == - 1", 6, "found '-'"),
        ("a == --1", 6, "found '-'"),
        ("a == f'x'", 6, "found 'f'"),
        ("a == rb'x'", 6, "found 'rb'"),
        ("a == 'x' 'y'", 10, "found \"'y'\""),
        ("a == '''x'''", 8, "found \"'x'\""),
        ("a == 1_000", 6, "found '1_000'"),
        ("a == 0x10", 6, "found '0x10'"),
        ("a == 1j", 6, "found '1j'"),
        ("a == True", 6, "found 'True'"),
        ("lambda: a == 1", 7, "found ':'"),
        ("a == 1 if b else 2", 8, "found 'if'"),
        ("(a := 1)", 4, "found ':'"),
        ("a is 1", 3, "found 'is'"),
        ("a not `in` [1]", 7, "'in', found '`in`'"),
        ("a in (1, 2)", 6, "'['"),
        ("a in []", 7, "a number or a quoted text, found ']'"),
        ("a in [1, ]", 10, "a number or a quoted text, found ']'"),
        ("a in [1 2]", 9, "',' or ']', found '2'"),
        ("(a) == 1", 3, "found ')'"),
        ("a == (1)", 6, "found '('"),
        ("a == 1, b == 1", 7, "found ','"),
        ("(a == 1,)", 8, "')', found ','"),
        ("a == 1)", 7, "'and', 'or' or the end, found ')'"),
        ("a == 1 # b", 8, "found '#'"),
        ("a == 1; b", 7, "found ';'"),
        ("a == 1\0", 7, "found '\\x00'"),
        ("größe == 'ß' und", 14, "found 'und'"),
        ("`` == 1", 1, "found '`'"),
    ],
)
def test_other_python_is_refused_with_its_position(source, position, expected):
    with pytest.raises(UsageError) as caught:
        parse_condition(source)
    assert f"position {position}: expected " in str(caught.value)
    assert str(caught.value).endswith(expected) or f"{expected}, found" in str(caught.value)


COLUMNS = ["109_14", "1_000", "0x10", "1j", "1e", "1.5.3", "a-b.c", "ﬁ", "٣a", "lambda", "_7", "and-x", "In"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_the_word_that_was_written(column):
    first, second = Comparison("é", "!=", 1.0), Membership(column, ("1",))
    assert parse_condition(f"é != 1 or not {column} in ['1']") == AnyOf((first, Negation(second)))
    assert parse_condition(f"`é`!=1 or not`{column}`in['1']") == AnyOf((first, Negation(second)))


def test_texts_white_space_and_numbers_are_read_as_written():
    assert parse_condition(r"a == '\n'") == Comparison("a", "==", r"\n")
    assert parse_condition("a == '\\'") == Comparison("a", "==", "\\")
    assert parse_condition("`a\nb\0\"` == '\n#{x}\0'") == Comparison('a\nb\0"', "==", "\n#{x}\0")
    assert parse_condition("\n a\n==\u00a01\r\n") == Comparison("a", "==", 1.0)
    assert parse_condition("a == 007") == Comparison("a", "==", 7.0)
    assert parse_condition("a < 1" + "0" * 5000) == Comparison("a", "<", float("inf"))


def test_nesting_is_bounded_and_length_is_not():
    deep = "(" * NESTING + "a == 1" + ")" * NESTING
    assert parse_condition(deep) == Comparison("a", "==", 1.0)
    assert parse_condition(" or ".join([f"not {deep[1:-1]}"] * 50)) == AnyOf(
        (Negation(Comparison("a", "==", 1.0)),) * 50
    )
    for start in ("(", "not ", "not("):
        with pytest.raises(UsageError, match=f"expected at most {NESTING} nested parentheses and 'not', found"):
            parse_condition(start * 5000 + "a == 1")
    values = tuple(float(value) for value in range(2000))
    column = "9" * 20_000 + "x"
    assert parse_condition(f"{column} in [{', '.join(map(str, values))}]") == Membership(column, values)


@pytest.mark.parametrize(
    "source",
    [
        *("f(x)", "x.y == x", "x < x < x", "x == x + x", "-x", "x in (x, x)", "x in [x, f(x)]", "x is x", "lambda: x"),
        *("f'{x}'", "x if x else x", "[x for x in x]", "(x := x)", "x == 1", "(x,)", "x[0]", "x", "x in [*x]"),
    ],
)
def test_no_other_kind_of_node_passes(source):
    with pytest.raises(UsageError, match="is not allowed in a condition"):
        _condition(ast.parse(source, mode="eval").body, {"x": "a"})


def test_a_missing_value_decides_nothing_unless_the_rest_does():
    assert evaluate("a >= 4", a=[3.0, 4.0, None, float("nan")]) == [False, True, None, None]
    assert evaluate("a >= 4 or b == 1", a=[None, None], b=[1.0, 0.0]) == [True, None]
    assert evaluate("a >= 4 and b == 1", a=[None, None], b=[1.0, 0.0]) == [None, False]
    assert evaluate("not a >= 4", a=[3.0, None]) == [True, None]


def test_numbers_compare_with_texts_by_value_and_texts_literally():
    assert evaluate("a == 1", a=["1", "1.0", " 1", "x", None]) == [True, True, True, None, None]
    assert evaluate("a == '1'", a=["1", "1.0"]) == [True, False]
    assert evaluate("a == '5'", a=[5.0, 4.0]) == [True, False]
    assert evaluate("a in [1, 3]", a=[1.0, 2.0, 3.0]) == [True, False, True]
    with pytest.raises(UsageError, match="'a' holds numbers"):
        evaluate("a == 'x'", a=[5.0])


FIELDS = [{"name": "u"}, {"name": "i"}]
TASKS = [{"name": "click", "label": "rating", "condition": "rating >= 4"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": [*FIELDS, {"name": "u"}]}, "'u' is listed twice"),
        ({"tasks": [*TASKS, *TASKS]}, "'click' is listed twice"),
        ({"fields": [*FIELDS, {"name": "a:b"}]}, "'a:b' is not a name"),
        ({"fields": [*FIELDS, {"name": "rating", "type": "float"}]}, "field 'rating' cannot be an input"),
        ({"weight_field": "u"}, "field 'u' cannot be an input: it is the weight_field"),
        ({"tasks": [{**TASKS[0], "observed_when": "i == 1"}]}, "field 'i' cannot be an input"),
        ({"tasks": [{**TASKS[0], "condition": "rating => 4"}]}, "task 'click': condition 'rating => 4', position 8"),
        ({"tasks": [{**TASKS[0], "after": ["buy"]}]}, "'after' names 'buy'"),
        ({"tasks": [{**TASKS[0], "after": ["click"]}]}, "a cycle"),
        ({"tasks": [{**TASKS[0], "kind": "regression"}]}, "a regression has no condition"),
        ({"fields": [{"name": "u", "encoding": "bins"}]}, "encoding, bins and clip are for type float"),
        ({"fields": [{"name": "u", "weights": "w"}]}, "pooling and weights are for type token_seq"),
        ({"fields": [{"name": "u", "type": "float", "min_count": 2}]}, "min_count is for tokens"),
        ({"split": "time"}, "needs time_field"),
        ({"split": "user_time", "time_field": "t"}, "needs user_field"),
    ],
)
def test_wrong_fields_and_tasks_are_refused_before_data_is_read(tmp_path, change, message):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/toy.inter").write_text("not an atomic file, and never read\n")
    values = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path), "fields": FIELDS, "tasks": TASKS}
    with pytest.raises(UsageError) as caught:
        resolve({**values, **change})
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["fields", "tasks"])
def test_no_fields_or_tasks(key):
    settings = resolve({"model": "MMoE", "dataset": "ml-100k"}).settings
    check_fields_and_tasks(settings)
    with pytest.raises(UsageError, match=f"{key} is empty"):
        check_fields_and_tasks(settings.model_copy(update={key: []}))


@pytest.mark.parametrize("values", [1, 2, 3_000])
def test_a_list_of_any_length(values):
    """A value that is missing leaves the answer open, and each spelling of a number is that number."""
    numbers, texts = ", ".join(map(str, range(values))), ", ".join(f"'t{i}'" for i in range(values))
    last = values - 1
    rows = [float(last), -0.0, -1.0, None, float("nan")]
    assert evaluate(f"a in [{numbers}]", a=rows) == [True, True, False, None, None]
    assert evaluate(f"a not in [{numbers}]", a=rows) == [False, False, True, None, None]
    assert evaluate(f"a in [{numbers}]", a=[f" {last}.0 ", "x", None, "nan"]) == [True, None, None, None]
    assert evaluate(f"a in [{texts}]", a=[f"t{last}", "T0", None]) == [True, False, None]


@pytest.mark.parametrize("text", ["nan", "inf", "1_0", "1e400", "", "a"])
def test_a_text_that_is_no_finite_number_cannot_equal_one(text):
    for source in (f"a == '{text}'", f"a in ['1', '{text}']"):
        with pytest.raises(UsageError, match=f"column 'a' holds numbers; it cannot equal the text '{text}'"):
            evaluate(source, a=[1.0])
    assert evaluate("a == ' 1e0 '", a=[1.0]) == [True]
