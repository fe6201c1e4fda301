"""Boards over several splits: worked numbers of the paired tests, rows, cells, and what is printed and written."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from recbole_dtn.config.splits import SplitKey
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.board import read_board
from recbole_dtn.leaderboard.cells import plan_cells, resolve_cell
from recbole_dtn.leaderboard.compare import compare
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.leaderboard.differences import differences_csv
from recbole_dtn.leaderboard.latex import latex
from recbole_dtn.leaderboard.render import markdown, notes, print_board, write_board
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.leaderboard.statistics import Metric, corrected_t, paired_t, summarise, wilcoxon_p
from recbole_dtn.record.record import RunRecord, TaskRecord, write_record
from recbole_dtn.version import __version__

LIKE = Metric("test", "like", "auc")
DIFFERENCES = [0.01, 0.03, 0.02, 0.04]
# mean .025; deviations -.015, .005, -.005, .015: their squares add up to .0005, over n - 1 = 3
VARIANCE = 0.0005 / 3
T_975_3 = 3.182446305284263
"""The .975 quantile of Student's t with 3 degrees of freedom."""


def p_of_3(t: float) -> float:
    """Two-sided p of Student's t with 3 degrees of freedom, from its distribution function in closed form."""
    x = abs(t) / math.sqrt(3)
    return 1 - 2 / math.pi * (x / (1 + x * x) + math.atan(x))


# ---- the tests by hand ----------------------------------------------------------------------------------------------


def test_the_corrected_t_test_by_hand() -> None:
    found = corrected_t(DIFFERENCES, train_rows=800, test_rows=100)
    error = math.sqrt(VARIANCE * (1 / 4 + 100 / 800))
    assert found.mean == pytest.approx(0.025)
    assert found.error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx((0.025 - T_975_3 * error, 0.025 + T_975_3 * error))
    assert found.p == pytest.approx(p_of_3(0.025 / error))
    assert found.n == 4


def test_the_paired_t_test_by_hand() -> None:
    found = paired_t(DIFFERENCES)
    error = math.sqrt(VARIANCE / 4)
    assert found.error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx((0.025 - T_975_3 * error, 0.025 + T_975_3 * error))
    assert found.p == pytest.approx(p_of_3(0.025 / error))
    # With one degree of freedom, p = 1 - 2/pi atan |t|; differences 1 and 3: mean 2, error sqrt(2 / 2) = 1.
    assert paired_t([1.0, 3.0]).p == pytest.approx(1 - 2 / math.pi * math.atan(2))


def test_too_few_or_equal_differences() -> None:
    one = paired_t([0.5])
    assert (one.mean, one.error, one.low, one.p, one.n) == (0.5, None, None, None, 1)
    assert paired_t([]).mean is None
    assert corrected_t([0.5, 0.7], train_rows=0, test_rows=10).p is None
    assert (paired_t([0.25, 0.25]).error, paired_t([0.25, 0.25]).p, paired_t([0.0, 0.0]).p) == (0.0, 0.0, 1.0)


# ---- rows over splits -----------------------------------------------------------------------------------------------


def record(model: str, split_seed: int, auc: float, *, seed: int = 2020, best: float = 0.7, **change: Any) -> RunRecord:
    """A run on one of several random splits of one data set, with 800 training and 100 test rows."""
    values: dict[str, Any] = {
        "run_id": "r", "status": "finished", "interrupted_at": None, "model": model, "dataset": "d", "seed": seed,
        "split_seed": split_seed, "settings": {"valid_metric": "mean_auc", "split": "random"},
        "settings_digest": model, "data_fingerprint": f"data{split_seed}", "source_fingerprint": "source",
        "code_version": __version__, "tasks": [{"name": "like", "label": "rating", "after": []}],
        "valid": {"like": {"auc": 0.1}}, "valid_value": best, "test": {"like": {"auc": auc}}, "best_epoch": 1,
        "epochs": 1, "parameters": {"dense": 1}, "train_samples_per_second": None, "peak_rss_bytes": 1,
        "peak_anon_bytes": None, "wall_seconds": {}, "gate_weights": {}, "versions": {},
        "rows": {"train": 800, "valid": 100, "test": 100},
    }  # fmt: skip
    return RunRecord.model_validate({**values, **change})


def four() -> list[RunRecord]:
    """Four splits: B is the best on validation, A better on test by DIFFERENCES."""
    base = [0.70, 0.72, 0.71, 0.73]
    runs = [
        record("A", split, auc + more, best=0.6)
        for split, (auc, more) in enumerate(zip(base, DIFFERENCES, strict=True))
    ]
    return [*runs, *(record("B", split, auc, best=0.8) for split, auc in enumerate(base))]


def test_runs_that_differ_in_the_split_alone_are_one_row() -> None:
    first, second = summarise(four())
    assert (first.model, first.splits, first.runs) == ("A", tuple(SplitKey(split) for split in range(4)), 4)
    assert first.metrics[LIKE].mean == pytest.approx(0.715 + 0.025)
    assert (first.units, first.data_fingerprint) == (4, "source")
    # .70 .72 .71 .73: deviations .015 .005 .005 .015
    assert second.metrics[LIKE].sd == pytest.approx(math.sqrt(0.0005 / 3))


def test_a_deterministic_model_is_compared_with_every_seed_of_the_others() -> None:
    runs = [record("A", 1, auc, seed=seed, best=0.6) for seed, auc in ((1, 0.60), (2, 0.64))]
    runs.append(record("Logistic", 1, 0.7, seed=1, best=0.9))
    found = compare(summarise(runs))
    assert found is not None
    (difference,) = found.differences
    assert (found.best.model, found.over, difference.paired.n) == ("Logistic", "seeds", 2)
    assert difference.paired.mean == pytest.approx(-0.08)
    # Deviations of .02 each: s^2 = .0008, over n = 2 runs.
    assert difference.paired.error == pytest.approx(0.02)


def test_two_deterministic_models_have_one_pair_whatever_the_seeds_of_the_others() -> None:
    runs = [record("A", 1, 0.6, seed=seed, best=0.6) for seed in (1, 2, 3)]
    runs += [record(name, 1, 0.7, seed=1, best=best) for name, best in (("Logistic", 0.9), ("Boosting", 0.8))]
    found = compare(summarise(runs))
    assert found is not None
    assert found.best.model == "Logistic"
    assert [(of.row.model, of.paired.n) for of in found.differences] == [("A", 3), ("Boosting", 1)]
    assert (found.differences[1].paired.p, found.differences[1].wilcoxon) == (None, None), "no seed changes either"
    ten = [record("A", 1, 0.6, seed=seed, best=0.6) for seed in range(10)] + runs[3:]
    assert [found.descriptive for found in map(compare, map(summarise, (runs, ten, runs[3:]))) if found] == [
        True, False, True
    ]  # fmt: skip


def test_a_row_with_too_few_runs_in_common_is_named() -> None:
    runs = [record(model, 1, 0.7, seed=seed, best=0.8) for model in ("A", "B") for seed in (1, 2)]
    found = compare(summarise([*runs, record("C", 1, 0.7, seed=1, best=0.6)]))
    assert found is not None
    assert found.left_out == ("C",)


def test_every_split_counts_once_whatever_its_seeds() -> None:
    runs = [record("A", 1, 0.6, seed=1), record("A", 1, 0.8, seed=2), record("A", 2, 0.9, seed=1)]
    (row,) = summarise(runs)
    assert (row.metrics[LIKE].mean, row.metrics[LIKE].n) == (pytest.approx((0.7 + 0.9) / 2), 2)
    assert (row.runs, row.seeds) == (3, (1, 2))


def test_folds_are_splits_and_other_data_is_not() -> None:
    folds = [record("A", 2020, 0.7, folds=3, fold=fold) for fold in range(3)]
    (row,) = summarise(folds)
    assert row.splits == tuple(SplitKey(2020, 3, fold) for fold in range(3))
    assert len(summarise([*folds, record("A", 2020, 0.7, source_fingerprint="other")])) == 2


def test_notes_name_the_splits_and_complain_of_no_other_data() -> None:
    found = notes(summarise(four()))
    assert found[0] == (
        "Test split, mean ± standard deviation over 4 splits: split_seed 0 to 3; one seed a split (2020)."
    )
    assert not any("fingerprint" in note for note in found)
    assert any("With fewer than 10 splits a leaderboard is descriptive" in note for note in found)
    uneven = notes(summarise(four()[:-1]))
    assert uneven[0].endswith(
        "over splits, which differ between rows: A split_seed 0 to 3; one seed a split (2020); "
        "B split_seed 0 to 2; one seed a split (2020)."
    )
    folds = notes(summarise([record("A", 2020, 0.7, seed=2020 + f, folds=3, fold=f) for f in range(3)]))
    assert "over 3 splits: folds 0 to 2 of 3, split_seed 2020; one seed a split (2020 to 2022)." in folds[0]


# ---- differences ----------------------------------------------------------------------------------------------------


def test_differences_are_to_the_best_on_validation_split_by_split() -> None:
    rows = summarise(four())
    found = compare(rows)
    assert found is not None
    assert (found.best.model, found.over, found.corrected, found.descriptive) == ("B", "splits", True, True)
    (difference,) = found.differences
    error = math.sqrt(VARIANCE * (1 / 4 + 100 / 800))
    assert (difference.row.model, difference.metric) == ("A", LIKE)
    assert difference.paired.mean == pytest.approx(0.025)
    assert difference.paired.error == pytest.approx(error)
    assert difference.adjusted == pytest.approx(p_of_3(0.025 / error))


def test_a_lower_selection_metric_is_better_where_it_is_a_loss() -> None:
    change = {"settings": {"valid_metric": "mean_logloss", "split": "random"}}
    runs = [
        record(model, split, 0.7, best=best, **change) for model, best in (("A", 0.6), ("B", 0.8)) for split in (1, 2)
    ]
    found = compare(summarise(runs))
    assert found is not None
    assert found.best.model == "A"


def test_holm_counts_all_rows_and_tasks() -> None:
    extra = [record("C", split, auc, best=0.5) for split, auc in enumerate([0.60, 0.64, 0.65, 0.61])]
    found = compare(summarise([*four(), *extra]))
    assert found is not None
    raw = [difference.paired.p for difference in found.differences]
    assert [difference.row.model for difference in found.differences] == ["A", "C"]
    assert None not in raw
    small, large = sorted(p for p in raw if p is not None)
    assert sorted(d.adjusted for d in found.differences if d.adjusted) == pytest.approx(
        [2 * small, max(large, 2 * small)]
    )


def test_seeds_of_one_split_take_the_ordinary_t_test() -> None:
    runs = [record("A", 1, 0.7 + more, seed=seed, best=0.6) for seed, more in enumerate(DIFFERENCES)]
    runs += [record("B", 1, 0.7, seed=seed, best=0.8) for seed in range(4)]
    found = compare(summarise(runs))
    assert found is not None
    assert (found.over, found.corrected) == ("seeds", False)
    assert found.differences[0].paired.error == pytest.approx(math.sqrt(VARIANCE / 4))
    assert compare(summarise(runs[:1] + runs[4:])) is None, "one seed in common"


def test_wilcoxon_and_relaimpr_stand_beside_the_t_test() -> None:
    runs = [record("A", 1, 0.7 + more, seed=seed, best=0.6) for seed, more in enumerate(DIFFERENCES)]
    runs += [record("B", 1, 0.7, seed=seed, best=0.8) for seed in range(4)]
    found = compare(summarise(runs))
    assert found is not None
    (difference,) = found.differences
    assert difference.wilcoxon == pytest.approx(stats.wilcoxon(DIFFERENCES).pvalue)
    mean = 0.7 + sum(DIFFERENCES) / 4
    assert difference.relative == pytest.approx((mean - 0.5) / (0.7 - 0.5) - 1)
    assert difference.paired.p == pytest.approx(stats.ttest_1samp(DIFFERENCES, 0).pvalue)
    assert (difference.tested, difference.adjusted) == (None, None), "no test scores"


def test_delta_m_is_the_mean_relative_change_of_all_tasks() -> None:
    def both(model: str, seed: int, like: float, love: float, best: float) -> RunRecord:
        run = record(model, 1, like, seed=seed, best=best)
        return run.model_copy(update={
            "test": {**(run.test or {}), "love": {"auc": love}},
            "tasks": [*run.tasks, TaskRecord(name="love", label="love", after=[])],
        })  # fmt: skip

    like, love = np.array([0.70, 0.74, 0.69]), np.array([0.81, 0.80, 0.84])
    runs = [both("A", seed, *pair, 0.6) for seed, pair in enumerate(zip(like, love, strict=True))]
    runs += [both("B", seed, 0.72, 0.80, 0.8) for seed in range(3)]
    found = compare(summarise(runs))
    assert found is not None
    (overall,) = found.all_tasks
    values = ((like - 0.72) / 0.72 + (love - 0.80) / 0.80) / 2
    assert overall.delta_m.mean == pytest.approx(values.mean())
    assert overall.delta_m.error == pytest.approx(values.std(ddof=1) / math.sqrt(3))
    low, high = stats.t.interval(0.95, 2, values.mean(), values.std(ddof=1) / math.sqrt(3))
    assert (overall.delta_m.low, overall.delta_m.high) == pytest.approx((low, high))
    of_like, of_love = (like.mean() - 0.5) / 0.22 - 1, (love.mean() - 0.5) / 0.3 - 1
    assert overall.relative == pytest.approx((of_like + of_love) / 2)
    text = markdown(summarise(runs))
    assert f"| A | {values.mean():+.2%} | {overall.relative:+.2%} |" in text
    assert f"A & {values.mean():+.2%} & {overall.relative:+.2%} &".replace("%", r"\%") in latex([summarise(runs)])
    lines = list(csv.DictReader(io.StringIO(differences_csv([summarise(runs)]))))
    assert [line["metric"] for line in lines] == ["auc", "auc", "delta_m"]
    assert float(lines[2]["difference"]) == pytest.approx(values.mean())
    assert (lines[2]["task"], lines[2]["p_holm"], lines[2]["n"], lines[2]["significant"]) == ("", "", "3", "")
    assert compare(summarise([run for run in runs if run.seed == 0])) is None
    one_task = compare(summarise(four()))
    assert one_task is not None
    assert one_task.all_tasks == ()


def test_delta_m_is_of_rows_that_have_every_task_and_keeps_its_sign_below_zero() -> None:
    def with_reach(model: str, reach: float, best: float, seed: int, tasks: int = 2) -> RunRecord:
        run = record(model, 1, 0.7, seed=seed, best=best)
        names = ["like", "love"][:tasks]
        return run.model_copy(update={
            "test": {name: {"auc": 0.5 + reach * 0.3} for name in names}, "best_auc": dict.fromkeys(names, 0.8),
            "tasks": [TaskRecord(name=name, label=name, after=[]) for name in names],
        })  # fmt: skip

    runs = [with_reach("A", 0.1, 0.6, seed) for seed in range(3)]
    runs += [with_reach("B", -0.1, 0.8, seed) for seed in range(3)]
    runs += [with_reach("C", 0.2, 0.7, seed, tasks=1) for seed in range(3)]
    found = compare(summarise(runs))
    assert found is not None
    assert [each.row.model for each in found.all_tasks] == ["A"]
    assert found.all_tasks[0].delta_m.mean == pytest.approx(2.0), "better than a negative value is positive"


def test_five_seeds_cannot_be_significant_by_wilcoxon_and_ten_can() -> None:
    assert wilcoxon_p([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx(2 / 2**5)
    assert wilcoxon_p([0.01 + 0.001 * i for i in range(10)]) == pytest.approx(2 / 2**10)
    assert (wilcoxon_p([0.0, 0.0, 0.0]), wilcoxon_p([0.1])) == (1.0, None)


def test_the_comparator_is_a_baseline_and_chosen_by_validation_alone() -> None:
    # C is best on validation and proposed; A is best on test; B is the best baseline on validation.
    given = (("A", 0.9, 0.6), ("B", 0.7, 0.8), ("C", 0.8, 0.9))
    runs = [record(model, 1, auc, seed=seed, best=best) for model, auc, best in given for seed in range(2)]
    for proposed, best, others in (((), "C", ["A", "B"]), (("C",), "B", ["A", "C"])):
        found = compare(summarise(runs, design=Design(proposed=list(proposed))))
        assert found is not None
        assert (found.best.model, [each.row.model for each in found.differences]) == (best, others)
    text = markdown(summarise(runs, design=Design(proposed=["C"])))
    assert "### Differences to B, the baseline that is best on validation (mean_auc)" in text
    assert "The comparator was chosen by validation alone: test metrics play no part in it." in text


def test_splits_with_one_test_set_take_the_ordinary_t_test() -> None:
    runs = [run.model_copy(update={"settings": {**run.settings, "split": "given"}}) for run in four()]
    found = compare(summarise(runs))
    assert found is not None
    assert (found.over, found.corrected) == ("splits", False)
    assert any("all splits have the same test rows" in note for note in notes(summarise(runs)))


def test_without_one_selection_metric_there_is_no_best() -> None:
    runs = four()
    runs[0:4] = [
        run.model_copy(update={"settings": {"valid_metric": "like_auc", "split": "random"}}) for run in runs[:4]
    ]
    assert compare(summarise(runs)) is None


def test_a_row_without_validation_is_compared_and_never_the_best() -> None:
    runs = [record("floor", split, 0.9, valid_value=None, valid=None) for split in range(4)]
    found = compare(summarise([*runs, *four()]))
    assert found is not None
    assert found.best.model == "B"
    assert [difference.row.model for difference in found.differences] == ["floor", "A"]


@pytest.mark.parametrize("splits", [9, 10])
def test_ten_splits_make_a_clear_difference_bold(splits: int) -> None:
    runs = [record("A", s, 0.8 + 0.001 * (s % 2), best=0.6) for s in range(splits)]
    runs += [record("B", s, 0.7, best=0.8) for s in range(splits)]
    text = markdown(summarise(runs))
    assert "### Differences to B, the best on validation (mean_auc)" in text
    assert ("| A | like AUC | **+0.1005** |" in text) == (splits == 10)
    assert ("Fewer than 10 splits: descriptive" in text) == (splits == 9)
    assert "s² (1/n + 100 / 800)" in text
    console = Console(file=io.StringIO(), width=200)
    print_board(summarise(runs), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Differences to B, the best on validation (mean_auc)" in shown
    assert "**" not in shown


def test_differences_are_a_csv_of_their_own(tmp_path: Path) -> None:
    rows = summarise(four())
    path = write_board(rows, tmp_path, "b")
    text = (tmp_path / "b.differences.csv").read_text(encoding="utf-8")
    assert text == differences_csv([rows])
    (line,) = csv.DictReader(io.StringIO(text))
    assert (line["model"], line["best"], line["n"], line["test"]) == ("A", "B", "4", "corrected_t")
    assert float(line["difference"]) == pytest.approx(0.025)
    write_board(rows[:1], tmp_path, "b")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.csv", path.name]


# ---- cells ----------------------------------------------------------------------------------------------------------


def plan(*words: str, seeds: list[int] | None = None, split_seeds: list[int] | None = None) -> list[Any]:
    cells = plan_cells(["MMoE", "PLE"], ["ml-100k"], seeds, words, split_seeds=split_seeds)
    return [(cell.key.model, cell.key.split, cell.key.seed) for cell in cells]


def test_each_split_has_a_seed_of_its_own_and_all_models_share_it() -> None:
    assert plan(split_seeds=[7, 9]) == [
        ("MMoE", SplitKey(7), 2020), ("PLE", SplitKey(7), 2020),
        ("MMoE", SplitKey(9), 2021), ("PLE", SplitKey(9), 2021),
    ]  # fmt: skip
    folds = plan("--folds=3")
    assert folds[::2] == [("MMoE", SplitKey(2020, 3, fold), 2020 + fold) for fold in range(3)]


@pytest.mark.parametrize("folds", [0, 1, 1001])
def test_a_number_of_folds_that_is_none_is_refused(tmp_path: Path, folds: int) -> None:
    board = tmp_path / "b.yaml"
    board.write_text(f"datasets: [ml-100k]\nmodels: [MMoE]\nfolds: {folds}\n")
    with pytest.raises(UsageError, match=f"folds: expected an integer >= 2 .*found '{folds}'"):
        read_board(board)


def test_named_seeds_run_on_every_split() -> None:
    found = plan(seeds=[1, 2], split_seeds=[7, 9])
    assert found[:4] == [(model, SplitKey(7), seed) for model in ("MMoE", "PLE") for seed in (1, 2)]
    assert len(found) == 8


def test_one_split_has_three_seeds() -> None:
    assert [seed for model, _, seed in plan() if model == "MMoE"] == [2020, 2021, 2022]
    one = plan("--folds=3", "--fold=1")
    assert one[:3] == [("MMoE", SplitKey(2020, 3, 1), seed) for seed in (2020, 2021, 2022)]


@pytest.mark.parametrize(
    ("words", "split_seeds", "message"),
    [
        (["--split_seed=1"], [7, 9], "split_seed: a leaderboard takes --split_seeds, found '--split_seed=1'"),
        ([], [7, 7], "split_seeds: '7' is named twice"),
        (["--split=time", "--time_field=hour"], [7, 9], "split: time draws no rows"),
    ],
)
def test_a_board_whose_splits_cannot_be_is_refused(words: list[str], split_seeds: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(*words, split_seeds=split_seeds)


def test_a_board_over_splits_runs_what_is_missing(tmp_path: Path) -> None:
    console, ran = Console(file=io.StringIO(), width=200), []

    def train(overrides: list[str]) -> RunRecord:
        settings, digest = resolve_cell(overrides)
        ran.append((settings.model, settings.split_seed, settings.seed))
        made = record(settings.model, settings.split_seed, 0.7, seed=settings.seed, dataset="ml-100k")
        made = made.model_copy(update={"settings_digest": digest})
        write_record(made, tmp_path / "runs" / "ml-100k" / settings.model / f"20260101-{len(ran):06}")
        return made

    def run(split_seeds: list[int]) -> Path:
        ran.clear()
        return run_board(
            ["MMoE", "PLE"], ["ml-100k"], None, [f"--output_dir={tmp_path / 'runs'}"], tmp_path / "out", console,
            split_seeds=split_seeds, run_cell=train, fingerprint=lambda _: None,
        )  # fmt: skip

    run([5, 6])
    assert ran == [("MMoE", 5, 2020), ("PLE", 5, 2020), ("MMoE", 6, 2021), ("PLE", 6, 2021)]
    assert "[3/4] MMoE ml-100k split_seed 6 seed 2021 ... like .7000" in console.file.getvalue()  # type: ignore[attr-defined]
    path = run([5, 6, 8])
    assert ran == [("MMoE", 8, 2022), ("PLE", 8, 2022)]
    assert "| MMoE | 3 | 3 | 0.7000 ± 0.0000 |" in path.read_text(encoding="utf-8")


def test_rows_on_other_data_are_left_out_of_the_comparison() -> None:
    runs = four()
    other = [record("C", split, 0.9, best=0.95, source_fingerprint="other rows") for split in range(4)]
    assert compare(summarise([*runs, *other])) == compare(summarise(runs))
    assert compare(summarise([*runs[:4], *other])) is None
