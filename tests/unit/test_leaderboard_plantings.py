"""Boards over planted data: a planting is a unit, what was planted is checked, reach is worked out by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from recbole_dtn.cli import main
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.across import across
from recbole_dtn.leaderboard.board import read_board, setting_words
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.leaderboard.compare import compare
from recbole_dtn.leaderboard.datasets import data_entries, write_planted
from recbole_dtn.leaderboard.render import markdown, print_board
from recbole_dtn.leaderboard.statistics import Metric, summarise
from recbole_dtn.record.record import RunRecord, read_record

BOARD = """\
datasets:
  - {name: small, plantings: 2, rows: 600, overlap: 1, informative: 2, chain: true}
models: [Logistic]
floors: []
"""
Runs = Callable[..., list[RunRecord]]


def run_of(runs: Runs, model: str, planting: int, auc: float, *, seed: int = 1, source: str = "") -> RunRecord:
    """A run on the folder toy-<planting>, of which the best AUC of the first task is .9."""
    settings = {"block": "toy", "folder": f"toy-{planting}", "split": "given", "valid_metric": "mean_auc"}
    (record,) = runs(
        model, auc, [seed], dataset="planted", settings=settings, best_auc={"like": 0.9},
        source_fingerprint=source or f"data {planting}", test={"like": {"auc": auc}, "love": {"auc": auc}},
        valid_value=auc,
    )  # fmt: skip
    return record


AUC = {"A": [0.80, 0.82, 0.78, 0.84], "B": [0.78, 0.81, 0.77, 0.80]}


def both(runs: Runs) -> list[RunRecord]:
    return [run_of(runs, model, k, auc) for model, values in AUC.items() for k, auc in enumerate(values, 1)]


def test_a_planting_is_a_unit_and_reach_is_the_share_of_the_best(board_runs: Runs) -> None:
    a, b = summarise(both(board_runs))
    assert (a.dataset, a.unit, a.units, a.runs) == ("toy", "draws", 4, 4)
    reach = Metric("test", "like", "reach")
    # (.80 - .5) / .4 = .75, then .8, .7, .85: mean .775.
    assert [round(value or 0, 12) for value in a.values[reach].values()] == [0.75, 0.8, 0.7, 0.85]
    assert a.metrics[reach].mean == pytest.approx(0.775)
    assert Metric("test", "love", "reach") not in a.values
    found = compare([a, b])
    assert found is not None
    assert (found.best.model, found.over, found.corrected) == ("A", "draws", False)
    first, second = found.differences
    assert (first.metric, second.metric) == (reach, Metric("test", "love", "auc"))
    expected = ttest_rel([(auc - 0.5) / 0.4 for auc in AUC["B"]], [(auc - 0.5) / 0.4 for auc in AUC["A"]])
    assert first.paired.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (first.paired.low, first.paired.high) == pytest.approx((interval.low, interval.high))
    assert (first.paired.mean, first.paired.n) == (pytest.approx(-0.05), 4)


def test_one_planting_shows_no_difference(board_runs: Runs) -> None:
    runs = [run_of(board_runs, model, 1, 0.8, seed=seed) for model in "AB" for seed in (1, 2, 3)]
    rows = summarise(runs)
    assert [row.unit for row in rows] == ["draws", "draws"]
    assert compare(rows) is None


def test_seeds_of_one_planting_count_once(board_runs: Runs) -> None:
    more = [*both(board_runs), *(run_of(board_runs, "A", 4, 0.90, seed=seed) for seed in (2, 3))]
    a, _ = summarise(more)
    assert (a.units, a.runs) == (4, 6)
    # .84, .90 and .90 of the fourth planting: .88.
    assert a.metrics[Metric("test", "like", "auc")].mean == pytest.approx((0.80 + 0.82 + 0.78 + 0.88) / 4)


def test_the_table_speaks_of_draws(board_runs: Runs) -> None:
    rows = summarise(both(board_runs))
    text = markdown(rows)
    assert text.startswith("## toy\n\n| model | draws | runs | like reach |")
    assert "over 4 draws: toy-1 to toy-4; one seed (1)." in text
    assert "Every draw has data of its own" in text
    assert "Paired by draw of the data" in text
    assert "seed of" not in text
    console = Console(file=io.StringIO(), width=200)
    print_board(rows, console)


def test_a_planting_that_was_made_again_with_other_data_is_no_unit_of_the_same_row(board_runs: Runs) -> None:
    records = both(board_runs)
    records[4] = run_of(board_runs, "B", 1, 0.78, source="other data")
    _, *others = summarise(records)
    assert sorted(row.runs for row in others) == [1, 3]
    assert "different data" in markdown(summarise(records))


def test_cells_of_plantings() -> None:
    data = {"name": "toy", "plantings": [3, 7], "rows": 100, "fields": 4, "informative": 2, "chain": True}
    cells = plan_cells(["MMoE", "PLE"], [data], None, [])  # type: ignore[list-item]
    assert [(cell.title, cell.folder.name) for cell in cells] == [
        ("MMoE toy-3 seed 2020", "MMoE"), ("PLE toy-3 seed 2020", "PLE"),
        ("MMoE toy-7 seed 2021", "MMoE"), ("PLE toy-7 seed 2021", "PLE"),
    ]  # fmt: skip
    first, _, third, _ = cells
    assert (first.settings.folder, first.settings.block, third.settings.folder) == ("toy-3", "toy", "toy-7")
    assert [field.name for field in first.settings.fields] == ["f0", "f1", "f2", "f3"]
    assert first.settings.tasks[1].after == ["first"]
    assert first.key.settings_digest == third.key.settings_digest
    assert first.key != third.key
    two = plan_cells(["MMoE"], [data], [1, 2], [])  # type: ignore[list-item]
    assert [cell.key.seed for cell in two] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "x", "plantings": 2}, r"datasets: expected a name, or a map such as"),
        ({"name": "x", "plantings": 0, "rows": 100}, r"x: plantings: expected a number from 1 to 1000"),
        ({"name": "x", "plantings": [1, 1], "rows": 100}, r"list of different seeds; found \[1, 1\]"),
        ({"name": "x", "plantings": 1, "rows": 100, "overlp": 1}, r"x: overlp: .*did you mean 'overlap'"),
        ({"name": "x", "plantings": 1, "rows": 100, "overlap": "a"}, r"x: overlap: expected a value like 0\.3"),
        ({"name": "x", "plantings": 1, "rows": 100, "chain": 1}, r"x: chain: expected a value like False"),
        ({"name": "x", "plantings": 1, "rows": 100, "overlap": 2}, r"x: overlap: expected a number from -1 to 1"),
        ({"name": "x", "plantings": 1, "rows": 100, "differ_in": "rows"}, r"x: differ_in=rows: expected tables or"),
    ],
)
def test_wrong_plantings_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        data_entries(value)


@pytest.mark.parametrize("name", ["../../evil", "/evil", ".", "..", "a/b", "a\\b", "a\nb", "\x1bm", "a b", "0" * 201])
def test_a_name_that_cannot_be_that_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    value = {"name": name, "plantings": 1, "rows": 100}
    with pytest.raises(UsageError, match=r"datasets: name: expected the name of a folder under data_path, .*; found"):
        data_entries(value)
    board = tmp_path / "b.yaml"
    board.write_text(BOARD.replace("name: small", f"name: {json.dumps(name)}"))
    with pytest.raises(UsageError, match=r"b\.yaml: datasets: name: expected the name of a folder"):
        read_board(board)


def test_kinds_of_plantings_are_one_block_and_are_compared_by_reach(board_runs: Runs) -> None:
    # Their first task may be the same, so that they are no independent data sets.
    runs = [run.model_copy(update={"settings": {**run.settings, "block": kind, "folder": f"{kind}-{k}"},
                                   "source_fingerprint": f"{kind} {run.source_fingerprint}"})
            for kind in ("toy", "other") for k, run in enumerate(both(board_runs))]  # fmt: skip
    assert across(summarise(runs)) is None
    assert "## All data sets" not in markdown(summarise(runs))
    runs += [run for model, auc in (("A", 0.7), ("B", 0.8)) for run in board_runs(model, auc, dataset="films")]
    found = across(summarise(runs))
    assert found is not None
    assert found.blocks == {"planted": ("toy", "other"), "films": ("films",)}
    assert {each.name: each.wins for each in found.standings} == {"A": 0.5, "B": 0.5}


@pytest.mark.parametrize(
    ("name", "kind", "width"), [("planted", "other-pairs", 8), ("planted-starved", "same", 4),
                                ("planted-chain", "other-pairs-chain", 8), ("planted-degrees", "half-pairs", 8),
                                ("planted-large", "large", 8), ("planted-confirm", "other-pairs-new", 8)]
)  # fmt: skip
def test_shipped_boards(name: str, kind: str, width: int) -> None:
    board = read_board(Path(f"leaderboard/{name}.yaml"))
    kinds = {entry.block: entry for entry in board.data}
    plantings = 20 if name == "planted-confirm" else 10
    assert [entry.block for entry in board.data] == [block for block in kinds for _ in range(plantings)]
    cells = plan_cells(board.entries, [kinds[kind]], None, [], settings=setting_words(board.settings))
    assert [cell.name for cell in cells] == [entry.name for entry in board.entries]
    assert {cell.settings.embedding_size for cell in cells} == {width}
    assert {tuple(cell.settings.tasks[1].after) for cell in cells} == {("first",) if "chain" in kind else ()}
    assert board.match == "dense+codebook"
    assert set(board.proposed) == {entry.name for entry in board.entries if entry.model == "DTN"}
    modular = [cell for cell in cells if "MLP" not in cell.name and cell.name != "AITM"]
    assert {cell.settings.embedding_std for cell in modular} == {0.1, 0.01} if name == "planted" else {0.01}


def test_what_was_planted_is_checked(tmp_path: Path) -> None:
    value = {"name": "toy", "plantings": 2, "rows": 100, "fields": 4, "informative": 2}
    said: list[str] = []
    write_planted(data_entries(value), tmp_path, said.append)
    assert said == [f"planting {tmp_path / 'toy-1'}", f"planting {tmp_path / 'toy-2'}"]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.inter")}
    assert len(files) == 6
    write_planted(data_entries({**value, "overlap": 1 / 3}), tmp_path, said.append)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.inter")} == files
    with pytest.raises(UsageError, match=r"toy-1 was planted with overlap 0\.333\d*, and not 1; remove it"):
        write_planted(data_entries({**value, "overlap": 1}), tmp_path, said.append)


def test_a_board_plants_runs_and_is_made_again_without_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(BOARD)
    assert main(["leaderboard", "run", "small.yaml"]) == 0
    said = capsys.readouterr().out
    assert "Logistic small-2 seed 2021" in said
    text = Path("leaderboard/small.md").read_text()
    assert "## small\n" in text
    assert "| first reach |" in text
    (run,) = Path("runs/planted/Logistic").glob("*s2020/record.json")
    record = read_record(run.parent)
    assert set(record.best_auc) == {"first", "second"}
    assert 0.5 < record.best_auc["first"] < 1
    assert record.tasks[1].after == ["first"]
    for folder in ("small-1", "small-2"):
        Path("dataset", folder).rename(Path("dataset", f"gone-{folder}"))
    assert main(["leaderboard", "render", "small.yaml", "--output=again"]) == 0
    for file in ("small.md", "small.csv", "small.tex", "small.html"):
        assert Path("again", file).read_bytes() == Path("leaderboard", file).read_bytes()
    assert not math.isnan(float(Path("again/small.csv").read_text().splitlines()[1].split(",")[6]))
