"""Planned comparisons: paired as those to the comparator are, corrected for each other alone, in every form."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from scipy import stats

from recbole_dtn.cli import main
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.archive import read_archive
from recbole_dtn.leaderboard.board import read_board
from recbole_dtn.leaderboard.compare import compare, contrasts
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.leaderboard.differences import difference_notes
from recbole_dtn.leaderboard.forms import write_forms
from recbole_dtn.leaderboard.planned import (
    Planned,
    PlannedLine,
    PlannedValue,
    in_bold,
    planned,
    planned_across,
    planned_table,
)
from recbole_dtn.leaderboard.planned_plots import planned_svg
from recbole_dtn.leaderboard.remake import of_archive
from recbole_dtn.leaderboard.render import print_board
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.tables import escaped
from recbole_dtn.shipped import properties_folder
from tests.unit.test_leaderboard_tested import Board

Runs = Callable[..., list[RunRecord]]


def test_differences_are_between_the_two_rows_and_corrected_for_each_other(board_runs: Runs) -> None:
    aucs = {"A": [0.80, 0.81, 0.83], "B": [0.79, 0.82, 0.80], "C": [0.70, 0.75, 0.72]}
    records = [
        run.model_copy(update={"settings": {**run.settings, "split": "random"}, "split_seed": split})
        for model, values in aucs.items()
        for split, auc in enumerate(values)
        for run in board_runs(model, auc, [1])
    ]
    design = Design(contrasts={"one": ["A", "B"], "two": ["C", "B"]})
    rows = summarise(records, design=design)
    found = contrasts(rows)
    assert found is not None
    assert [(each.title, each.row.model, each.other.model) for each in found.differences] == [
        ("one", "A", "B"), ("one", "A", "B"), ("two", "C", "B"), ("two", "C", "B"),
    ]  # fmt: skip
    first = next(each for each in found.differences if each.metric.task == "like")
    assert first.paired.mean == pytest.approx((0.01 - 0.01 + 0.03) / 3)
    raw = sorted(each.paired.p for each in found.differences if each.paired.p is not None)
    assert len(raw) == 4
    assert min(each.adjusted for each in found.differences if each.adjusted is not None) == pytest.approx(
        min(1.0, 4 * raw[0])
    )
    assert contrasts(summarise(records)) is None


@pytest.mark.parametrize("grouped", [True, False])
def test_over_seeds_they_have_the_uncertainty_of_the_test_sample(
    tmp_path: Path, board_runs: Runs, grouped: bool
) -> None:
    def tested(name: str, design: Design, best: str) -> tuple[Board, object]:
        board = Board(tmp_path / name, board_runs, grouped=grouped)
        board.design = design
        for model, noise in (("Good", 0.1), ("Middle", 1.0), ("Worse", 3.0)):
            board.add(model, noise, valid=0.9 if model == best else 0.7)
        return board, board.rows()[0]

    # The same numbers as where the second row is the comparator.
    _, rows = tested("planned", Design(contrasts={"mine": ["Worse", "Middle"], "best": ["Middle", "Good"]}), "Good")
    planned = contrasts(rows)  # type: ignore[arg-type]
    assert planned is not None
    mine = next(each for each in planned.differences if each.title == "mine")
    of_best = next(each for each in planned.differences if each.title == "best")
    _, others = tested("plain", Design(), "Middle")
    plain = compare(others)  # type: ignore[arg-type]
    assert plain is not None
    wanted = next(each for each in plain.differences if each.row.model == "Worse")
    assert (mine.paired, mine.wilcoxon, mine.tested) == (wanted.paired, wanted.wilcoxon, wanted.tested)
    to_comparator = compare(rows)  # type: ignore[arg-type]
    assert to_comparator is not None
    assert of_best.tested == next(e.tested for e in to_comparator.differences if e.row.model == "Middle")
    assert mine.tested is not None
    assert mine.adjusted == pytest.approx(2 * mine.tested.p)  # type: ignore[operator]
    assert planned.significant(mine)


def test_they_stand_in_the_order_of_the_file_and_missing_ones_are_told(board_runs: Runs) -> None:
    records = [run for model in ("A", "B", "C") for seed in range(3) if (model, seed) < ("C", 1)
               for run in board_runs(model, 0.7 + seed / 100, [seed])]  # fmt: skip
    design = Design(contrasts={"z": ["B", "A"], "short": ["A", "C"], "a": ["A", "B"]})
    found = contrasts(summarise(records, design=design))
    assert found is not None
    assert list(dict.fromkeys(each.title for each in found.differences)) == ["z", "a"]
    assert found.left_out == ("short",)
    assert "Left out, as fewer than two of their runs compare: short." in difference_notes(found)


def test_every_form_has_them_and_the_archive_makes_them_again(tmp_path: Path, board_runs: Runs) -> None:
    aucs = {"A": [0.80, 0.81, 0.83], "B": [0.79, 0.79, 0.78], "C": [0.70, 0.75, 0.72]}
    records = [run for model, values in aucs.items() for seed, auc in enumerate(values)
               for run in board_runs(model, auc, [seed])]  # fmt: skip
    names = {record.settings_digest: record.model for record in records}
    design = Design(proposed=["A"], contrasts={"what <it> is": ["A", "C"]})
    write_forms(records, names, tmp_path / "one", "b", design=design)
    text = (tmp_path / "one" / "b.md").read_text()
    assert "### Planned comparisons" in text
    assert f"| {escaped('what <it> is: A − C')} | like AUC |" in text
    assert "Named in the leaderboard's file, and corrected" in text
    assert "what &lt;it&gt; is: A − C" in (tmp_path / "one" / "b.html").read_text()
    assert "films: planned comparisons" in (tmp_path / "one" / "b.tex").read_text()
    drawn = "".join(ElementTree.parse(tmp_path / "one" / "b.svg").getroot().itertext())
    assert all(
        words in drawn for words in ("b: planned comparisons", "what <it> is", "A − C", "difference of like AUC")
    )
    lines = list(csv.DictReader((tmp_path / "one" / "b.differences.csv").open()))
    assert {(line["model"], line["best"], line["planned"]) for line in lines if line["planned"]} == {
        ("A", "C", "what <it> is")
    }
    values = [float(line["difference"]) for line in lines if line["planned"]]
    mine = [run.test["like"]["auc"] for run in records if run.model == "A" and run.test]
    theirs = [run.test["like"]["auc"] for run in records if run.model == "C" and run.test]
    assert values[0] == pytest.approx(sum(a - c for a, c in zip(mine, theirs, strict=True)) / 3)
    p = stats.ttest_rel(mine, theirs).pvalue
    assert float(next(line["p"] for line in lines if line["planned"])) == pytest.approx(p)
    said = io.StringIO()
    print_board(summarise(records, names, design), Console(file=said, width=200))
    assert "what <it> is: A − C" in said.getvalue()
    archive = tmp_path / "one" / "b.records.jsonl.gz"
    assert read_archive(archive).head.design == design
    found = of_archive(archive)
    write_forms(found.records, found.names, tmp_path / "two", "b", design=found.design)
    for path in (tmp_path / "two").iterdir():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    write_forms(records, names, tmp_path / "one", "b")
    assert not (tmp_path / "one" / "b.svg").exists()  # the drawing of the earlier comparisons


def test_a_mark_is_filled_where_a_difference_is_significant() -> None:
    values = {"films": PlannedValue(0.1, 0.05, 0.15, True), "books": PlannedValue(0.0, -0.1, 0.1, False)}
    lines = tuple(PlannedLine("A − B", metric, values) for metric in ("like AUC", "buy AUC"))
    drawn = planned_svg(Planned(("films", "books"), lines, (), False, True), "b")
    root = ElementTree.fromstring(drawn.encode())
    marks = [use.get("style", "") for use in root.iter("{http://www.w3.org/2000/svg}use")]
    blue, orange = "#1f77b4", "#ff7f0e"  # of the first data set and the second
    filled = [[f"fill: {colour}" in mark for mark in marks if f"stroke: {colour}" in mark] for colour in (blue, orange)]
    # Two metrics, each with a mark, and a filled one in the legend.
    assert filled[0] == [True] * 3
    assert sorted(filled[1]) == [False, False, True]


def test_names_that_are_no_rows_are_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"contrasts\.x: expected the names of two rows, found \[A, A\]"):
        Design(contrasts={"x": ["A", "A"]}).check(["A"])
    with pytest.raises(UsageError, match="'x' and 'y' compare the same rows"):
        Design(contrasts={"x": ["A", "B"], "y": ["B", "A"]}).check(["A", "B"])
    text = "datasets: [ml-100k]\nmodels: [MMoE, PLE]\n"
    board = tmp_path / "b.yaml"
    for contrast, told in (
        ("[MMoE, PLF]", "contrasts.x: no row 'PLF'; did you mean 'PLE'?"),
        ("[MMoE]", "contrasts.x: expected the names of two rows, found [MMoE]"),
    ):
        board.write_text(f"{text}contrasts: {{x: {contrast}}}\n")
        assert main(["leaderboard", "run", str(board), "--dry_run"]) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_with_some_of_the_rows_the_contrasts_of_the_others_are_left_out() -> None:
    design = Design(proposed=["A"], contrasts={"x": ["A", "B"], "y": ["A", "C"]})
    assert design.among(["A", "B"]).contrasts == {"x": ["A", "B"]}


@pytest.mark.parametrize(
    "file", sorted((properties_folder() / "leaderboard").glob("*.yaml")), ids=lambda path: path.stem
)
def test_those_of_shipped_files_name_rows(file: Path) -> None:
    board = read_board(file)
    rows = [entry.name for entry in board.entries]
    Design(proposed=board.proposed, contrasts=board.contrasts).check(rows)


def test_contrasts_of_the_file_that_is_extended_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("datasets: [d]\nmodels: [MMoE, PLE, DTN]\ncontrasts: {x: [DTN, PLE]}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    assert read_board(tmp_path / "b.yaml").contrasts == {"x": ["DTN", "PLE"]}
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nmodels: [MMoE, PLE]\ncontrasts: {y: [MMoE, PLE]}\n")
    assert read_board(tmp_path / "b.yaml").contrasts == {"y": ["MMoE", "PLE"]}


def test_several_data_sets_stand_side_by_side(tmp_path: Path, board_runs: Runs) -> None:
    records = [
        run.model_copy(update={"dataset": dataset})
        for dataset, more in (("one", 0.01), ("two", -0.02))
        for model, auc in (("A", 0.7 + more), ("C", 0.7))
        for run in board_runs(model, auc)
    ]
    records += [run.model_copy(update={"dataset": "three"}) for run in board_runs("C", 0.7)]
    names = {record.settings_digest: record.model for record in records}
    for exploratory, title in ((False, "Planned"), (True, "Exploratory")):
        design = Design(contrasts={"a & b": ["A", "C"]}, exploratory=exploratory)
        write_forms(records, names, tmp_path, "b", design=design)
        text, page, tex = ((tmp_path / f"b.{form}").read_text() for form in ("md", "html", "tex"))
        assert f"## {title} comparisons on all data sets" in text
        assert f"### {title} comparisons" in text
        assert f"| {title} comparison | test metric | one | two |".lower() in text.lower()
        assert f"| {escaped('a & b: A − C')} | like AUC | +0.0100 | -0.0200 |" in text
        assert ("Chosen after results were known" in text) is exploratory
        assert f"<h2>{title} comparisons</h2>" in page
        assert "<td>+0.0100</td><td>-0.0200</td>" in page
        assert page.count('aria-labelledby="planned-') == len({"like", "love"})
        assert rf"{title} comparisons on all data sets." in tex
        assert r"a \& b: A $-$ C & like AUC & +0.0100 & $-$0.0200 \\" in tex
        said = io.StringIO()
        print_board(summarise(records, names, design), Console(file=said, width=200))
        assert f"{title} comparisons on all data sets" in said.getvalue()
    assert planned_across(summarise(records[:20], names, design)) is None, "one data set"


def test_in_short_one_data_set_has_a_column_per_task(board_runs: Runs) -> None:
    records = [run for model, auc in (("A", 0.72), ("C", 0.7)) for run in board_runs(model, auc)]
    found = planned(summarise(records, design=Design(contrasts={"more": ["A", "C"]})))
    assert found is not None
    table = planned_table(found)
    assert table.columns == ["planned comparison", "like AUC", "love AUC"]
    assert [cells[:2] for cells in table.cells] == [["more: A − C", "+0.0200"]]
    bold = PlannedValue(0.01, 0.001, 0.019, significant=True)
    assert in_bold(bold) == "**+0.0100 (+0.0010 to +0.0190)**"


def test_a_data_set_with_few_runs_does_not_unsay_the_others(board_runs: Runs) -> None:
    records = [
        run.model_copy(update={"dataset": dataset})
        for dataset, seeds, rows in (("alone", 10, "C"), ("few", 5, "AC"), ("many", 10, "AC"))
        for model in rows
        for run in board_runs(model, 0.7, range(seeds))
    ]
    design = Design(contrasts={"z": ["A", "C"], "a": ["C", "A"]})
    found = planned(summarise(records, design=design))
    assert found is not None
    assert (found.datasets, found.descriptive, found.several) == (("few", "many"), ("few",), True)
    assert found.note.endswith("for the comparisons of one column. Too few runs to claim any on few.")
    assert [line.name for line in found.lines] == ["z: A − C", "z: A − C", "a: C − A", "a: C − A"]
    assert planned_table(found).columns == ["planned comparison", "test metric", "few", "many"]
    one = planned(summarise([run for run in records if run.dataset != "many"], design=design))
    assert one is not None
    assert planned_table(one).columns == ["planned comparison", "test metric", "few"], "it says of which data set"
    assert one.note.endswith("Too few runs to claim any.")
