"""Rows of splits that are drawn: folds, equal shares of positives, carved validation, a column that names the parts."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.splits import SplitKey, plan_splits
from recbole_dtn.data.cache import split_free_fingerprint
from recbole_dtn.data.split import carve, draw_order, fold_split, random_split
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.prepare import PreparedData, open_sources, prepare

PARTS = ("train", "valid", "test")
HEADER = "u:token\tpart:token\tclick:float\tbuy:float\tstay:float"
TASKS = [
    {"name": "click", "label": "click"},
    {"name": "buy", "label": "buy", "observed_when": "click == 1"},
    {"name": "stay", "label": "stay", "kind": "regression"},
]


def row(number: int, part: str = "train") -> str:
    """Row ``number``: clicked in 2 of 5 rows, bought in 1 of 10 (a quarter of the clicked ones)."""
    return f"u{number % 7}\t{part}\t{int(number % 5 < 2)}\t{int(number % 10 == 0)}\t{number % 3}"


def settings(folder: Path, files: dict[str, list[str]], **change: Any) -> Settings:
    """Settings of a data set `toy` whose files have these rows: ``{"": rows}``, or rows of ``train`` and so on."""
    (folder / "toy").mkdir(exist_ok=True)
    for part, rows in files.items():
        name = f"toy.{part}.inter" if part else "toy.inter"
        (folder / "toy" / name).write_text("\n".join([HEADER, *rows]) + "\n")
    given = {"model": "MMoE", "dataset": "toy", "data_path": str(folder), "fields": [{"name": "u"}], "tasks": TASKS}
    return resolve({**given, **change}).settings


def rows_of(prepared: PreparedData) -> dict[str, list[int]]:
    """Per part the rows of the file, in ascending order."""
    return {name: found.batch(np.arange(found.rows)).row.tolist() for name, found in prepared.splits.items()}  # type: ignore[union-attr]


HUNDRED = {"": [row(number) for number in range(103)]}


# ---- the functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "folds"), [(10, 2), (103, 10), (7, 7)])
def test_every_row_is_tested_in_exactly_one_fold(rows: int, folds: int) -> None:
    parts = [fold_split(rows, (0.8, 0.1, 0.1), 5, folds, fold) for fold in range(folds)]
    assert (np.stack([found == 2 for found in parts]).sum(0) == 1).all()
    sizes = [int((found == 2).sum()) for found in parts]
    assert max(sizes) - min(sizes) <= 1
    for found, test in zip(parts, sizes, strict=True):
        # .1 / (.8 + .1) of what is not tested, rounded down
        assert int((found == 1).sum()) == (rows - test) // 9


@pytest.mark.parametrize(("positives", "unobserved"), [(1, 0), (37, 0), (11, 40), (96, 3)])
def test_each_part_has_its_share_of_positives_to_less_than_one_row(positives: int, unobserved: int) -> None:
    rows = 200
    classes = np.zeros(rows, np.uint8)
    classes[:positives], classes[positives : positives + unobserved] = 1, 2
    classes = np.random.default_rng(0).permutation(classes)
    drawn = [
        random_split(rows, (0.7, 0.2, 0.1), 3, classes),
        carve(np.zeros(rows, np.uint8), (0.7, 0.2, 0.1), 3, classes),
    ]
    drawn += [fold_split(rows, (0.5, 0.5, 0.1), 3, 7, fold, classes) for fold in range(7)]
    rate = positives / (rows - unobserved)
    for parts in drawn:
        for part in np.unique(parts):
            inside = classes[parts == part]
            observed = int((inside != 2).sum())
            assert abs(int((inside == 1).sum()) - rate * observed) < 1
            assert abs(observed - (rows - unobserved) * len(inside) / rows) < 1


def test_equal_shares_are_drawn_at_random_within_the_classes() -> None:
    classes = np.array([1, 0] * 50, np.uint8)
    one, other = (draw_order(100, seed, classes) for seed in (1, 2))
    assert sorted(one.tolist()) == list(range(100))
    assert one.tolist() != other.tolist()
    assert draw_order(100, 1, classes).tolist() == one.tolist()
    # Each positive row is in test (a tenth) in about a tenth of the seeds.
    tested = Counter(
        int(r) for seed in range(200) for r in np.flatnonzero(random_split(100, (8, 1, 1), seed, classes) == 2)
    )
    assert len(tested) == 100
    assert all(5 <= count <= 40 for count in tested.values())  # 20 expected, sd 4.2


def test_carving_moves_training_rows_alone() -> None:
    parts = np.array([0, 2, 0, 0, 2, 0, 0, 0, 0, 0], np.uint8)
    found = carve(parts, (3, 1, 100), 0)
    assert (found[parts == 2] == 2).all()
    assert Counter(found[parts == 0].tolist()) == {0: 6, 1: 2}  # a quarter of 8
    assert any(carve(parts, (3, 1, 100), seed).tolist() != found.tolist() for seed in range(1, 5))


# ---- files and settings ---------------------------------------------------------------------------------------------


def test_folds_of_a_data_set_test_every_row_once(tmp_path: Path) -> None:
    tested = []
    prints = set()
    for fold in range(4):
        given = settings(tmp_path, HUNDRED, folds=4, fold=fold, stratify="click")
        prepared = prepare(given)
        found = rows_of(prepared)
        assert sorted(number for part in found.values() for number in part) == list(range(103))
        tested += found["test"]
        prints.add(prepared.fingerprint)
        for part, counts in prepared.summary.positives.items():
            positives, observed = counts["click"]
            assert abs(positives - observed * 42 / 103) < 1, part  # rows 0, 1, 5, 6, ..., 100, 101
        assert prepared.summary.how == (
            f"test is fold {fold} of 0 to 3 (split_seed 2020), validation is drawn from the other folds in equal "
            "shares of click"
        )
    assert sorted(tested) == list(range(103))
    assert len(prints) == 4
    assert prepare(given).cached


def test_the_rarest_task_has_the_fewest_positives_over_all_rows(tmp_path: Path) -> None:
    # buy: 11 of 103 rows, a quarter of the clicked ones; click: 42
    prepared = prepare(settings(tmp_path, HUNDRED, stratify="rarest", split_ratio=[0.5, 0.25, 0.25]))
    assert prepared.summary.how == "rows drawn by split_seed 2020 in equal shares of buy, the rarest of 2 tasks"
    for counts in prepared.summary.positives.values():
        positives, observed = counts["buy"]
        assert abs(positives - observed * 11 / 42) < 1


def test_parts_train_and_test_alone_carve_validation_from_train(tmp_path: Path) -> None:
    files = {"train": [row(number) for number in range(60)], "test": [row(number) for number in range(60, 80)]}
    given = settings(tmp_path, files, split="given", split_ratio=[2, 1, 5], stratify="click")
    first = prepare(given)
    found = rows_of(first)
    assert found["test"] == list(range(60, 80))
    assert len(found["valid"]) == 20  # a third of 60
    assert sorted(found["train"] + found["valid"]) == list(range(60))
    assert first.summary.positives["valid"]["click"] == (8, 20)  # 24 of 60
    assert first.summary.how == (
        "parts train and test given; validation is 20 of the 60 training rows, drawn by split_seed 2020 in equal "
        "shares of click"
    )
    again = prepare(settings(tmp_path, files, split="given", split_ratio=[2, 1, 5], stratify="click"))
    assert (again.cached, again.summary.how) == (True, first.summary.how)
    other = rows_of(prepare(settings(tmp_path, files, split="given", split_ratio=[2, 1, 5], split_seed=1)))
    assert (other["test"], other["valid"] != found["valid"]) == (found["test"], True)
    (tmp_path / "toy" / "toy.valid.inter").write_text("\n".join([HEADER, *(row(n) for n in range(80, 90))]) + "\n")
    three = prepare(settings(tmp_path, files, split="given"))
    assert (three.summary.rows, three.summary.how) == ({"train": 60, "valid": 10, "test": 20}, "")


def test_a_column_names_the_part_of_each_row(tmp_path: Path) -> None:
    names = [PARTS[number % 3] for number in range(30)]
    files = {"": [row(number, part) for number, part in enumerate(names)]}
    prepared = prepare(settings(tmp_path, files, split="column", split_field="part"))
    assert rows_of(prepared) == {part: [n for n in range(30) if names[n] == part] for part in PARTS}
    assert prepared.summary.how == "parts as in column part"


def test_a_column_without_valid_carves_it_from_train(tmp_path: Path) -> None:
    names = ["test" if number % 3 == 0 else "train" for number in range(30)]
    files = {"": [row(number, part) for number, part in enumerate(names)]}
    found = rows_of(prepare(settings(tmp_path, files, split="column", split_field="part", split_ratio=[3, 1, 1])))
    assert found["test"] == list(range(0, 30, 3))
    assert len(found["valid"]) == 5  # a quarter of 20
    assert sorted(found["train"] + found["valid"]) == [number for number in range(30) if number % 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "trian",
            "toy.inter, line 4: split_field 'part': expected train, valid or test, found 'trian'; did you mean 'train'",
        ),
        ("", "toy.inter, line 4: split_field 'part': expected train, valid or test, found an empty cell"),
    ],
)
def test_a_value_that_names_no_part_is_refused_with_its_line(tmp_path: Path, value: str, message: str) -> None:
    files = {"": [row(number, value if number == 2 else PARTS[number % 3]) for number in range(30)]}
    given = settings(tmp_path, files, split="column", split_field="part")
    with pytest.raises(DataError) as error:
        prepare(given)
    assert message in str(error.value)
    faults = list(validate(tmp_path / "toy", given))
    assert [(fault.line, fault.fatal) for fault in faults if "split_field" in fault.reason] == [(4, True)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "column"}, "split: column needs split_field"),
        ({"split": "column", "split_field": "click"}, "split_field: 'click' is read by task 'click'"),
        (
            {"split_field": "part", "fields": [{"name": "u"}, {"name": "part"}]},
            "'part' cannot be an input: it is the split",
        ),
        (
            {"split_field": "part", "tasks": [{"name": "c", "label": "click", "condition": "part == 'test'"}]},
            "split_field: 'part' is read by task 'c'",
        ),
        (
            {"split_field": "part", "tasks": [{"name": "c", "label": "click", "observed_when": "part == 'test'"}]},
            "split_field: 'part' is read by task 'c'",
        ),
        ({"split_field": "part", "group_field": "part"}, "split_field: 'part' is the group_field too"),
        ({"fold": 0}, "fold: 0 needs folds"),
        ({"folds": 5, "fold": 5}, "fold: expected 0 to 4 with folds: 5; found 5"),
        ({"folds": 1}, "folds: expected an integer >= 2"),
        ({"folds": 5, "split": "given"}, "folds: 5 needs split: random, found split: given"),
        ({"stratify": "rarest", "split": "time", "time_field": "u"}, "stratify: rarest needs rows that are drawn"),
        ({"stratify": "rarest", "tasks": TASKS[2:], "valid_metric": "stay_rmse"}, "needs a binary task"),
        (
            {"stratify": "stay"},
            "stratify: task 'stay' is a regression, which has no positives; choose one of click, buy",
        ),
        ({"stratify": "clik"}, "stratify: no task is named 'clik'; did you mean 'click'?"),
    ],
)
def test_a_split_that_lacks_something_or_cannot_use_it_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        settings(tmp_path, HUNDRED, **change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "column", "split_field": "part"}, "no row has 'test' in column 'part' (split_field)"),
        ({"folds": 200, "fold": 0}, "103 rows cannot be cut into 200 folds; use fewer folds"),
    ],
)
def test_an_empty_part_comes_with_its_reason(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        prepare(settings(tmp_path, HUNDRED, **change))
    assert message in str(error.value)


def test_a_part_that_is_missing_in_a_side_file_is_named_so(tmp_path: Path) -> None:
    given = settings(tmp_path, {"": [f"u{n % 7}\t0\t0\t1" for n in range(30)]}, split="column", split_field="part")
    file = tmp_path / "toy" / "toy.inter"
    file.write_text(file.read_text().replace("part:token\t", ""))
    users = [f"u{number}\t{PARTS[number % 3]}" for number in range(6)]
    (tmp_path / "toy" / "toy.user").write_text("\n".join(["u:token\tpart:token", *users]) + "\n")
    with pytest.raises(DataError, match=r"line 8: split_field 'part': expected .*, found no value in toy\.user"):
        prepare(given)


def test_a_part_whose_rows_all_have_the_weight_0_is_refused(tmp_path: Path) -> None:
    rows = [f"u{n % 7}\t{PARTS[n % 3]}\t{n // 3 % 2}\t0\t{int(n % 3 != 2)}" for n in range(30)]
    given = {"split": "column", "split_field": "part", "weight_field": "stay", "tasks": TASKS[:1]}
    with pytest.raises(DataError, match=r"weight_field 'stay' is 0 in all 10 rows of the test split"):
        prepare(settings(tmp_path, {"": rows}, **given))


def test_equal_shares_are_refused_where_no_row_is_drawn(tmp_path: Path) -> None:
    given = {part: [row(number) for number in range(20)] for part in PARTS}
    with pytest.raises(
        UsageError, match="stratify: click needs rows that are drawn at random, and all three parts are"
    ):
        prepare(settings(tmp_path, given, split="given", stratify="click"))
    files = {"": [row(number, PARTS[number % 3]) for number in range(30)]}
    with pytest.raises(UsageError, match="column 'part' names all three parts: leave stratify out"):
        prepare(settings(tmp_path, files, split="column", split_field="part", stratify="click"))


def test_one_run_needs_the_fold(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folds: 5 needs fold, the one that is tested, 0 to 4"):
        prepare(settings(tmp_path, HUNDRED, folds=5))


def test_what_all_splits_share_has_one_fingerprint(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"fold": 0}, {"fold": 1}, {"split_seed": 7, "fold": 1}]
    given = [settings(tmp_path, HUNDRED, folds=5, **change) for change in changes]
    assert len({split_free_fingerprint(each, open_sources(each)) for each in given}) == 1
    with_domains = settings(tmp_path, HUNDRED, folds=5, fold=0, domain_field="user_id")
    assert split_free_fingerprint(with_domains, open_sources(with_domains)) == split_free_fingerprint(
        given[0], open_sources(given[0])
    )
    other = settings(tmp_path, HUNDRED, folds=4, fold=0)
    assert split_free_fingerprint(other, open_sources(other)) != split_free_fingerprint(
        given[0], open_sources(given[0])
    )


# ---- which splits a command runs ------------------------------------------------------------------------------------


def test_splits_are_all_folds_of_all_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    plain, folded = settings(tmp_path, HUNDRED), settings(tmp_path, HUNDRED, folds=2)
    assert plan_splits(plain, None, folder) == [SplitKey(2020)]
    assert plan_splits(plain, [3, 4], folder) == [SplitKey(3), SplitKey(4)]
    assert plan_splits(folded, [3, 4], folder) == [SplitKey(s, 2, f) for s in (3, 4) for f in (0, 1)]
    one = settings(tmp_path, HUNDRED, folds=2, fold=1)
    assert plan_splits(one, None, folder) == [SplitKey(2020, 2, 1)]


def test_several_splits_are_refused_where_all_would_be_equal(tmp_path: Path) -> None:
    files = {part: [row(number) for number in range(20)] for part in ("train", "test")}
    given = settings(tmp_path, files, split="given")
    assert len(plan_splits(given, [1, 2], tmp_path / "toy")) == 2
    (tmp_path / "toy" / "toy.valid.inter").touch()
    with pytest.raises(UsageError, match=r"split_seeds: split: given draws no rows .* has all three parts"):
        plan_splits(given, [1, 2], tmp_path / "toy")
    timed = settings(tmp_path, HUNDRED, split="time", time_field="u")
    with pytest.raises(UsageError, match="split: time draws no rows"):
        plan_splits(timed, [1, 2], tmp_path / "toy")
