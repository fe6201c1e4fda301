"""A leaderboard made again from its records: the same bytes, the same rows, and which records count."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.cells import Cell, plan_cells
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.leaderboard.forms import FORMS, write_forms
from recbole_dtn.leaderboard.remake import Remade, names_of, of_cells, of_folder
from recbole_dtn.leaderboard.render import notes
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.leaderboard.stored import Stored, compute_statistics
from recbole_dtn.plugins import plugin_states
from recbole_dtn.record.record import RunRecord, write_record
from recbole_dtn.registry import load_plugins

Runs = Callable[..., list[RunRecord]]
Shown = Callable[..., tuple[int, str, str]]
ROWS = [Entry("MMoE", "MMoE"), Entry("two levels", "PLE", ("--levels=2",)), Entry("PLE", "PLE")]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def cells_of(runs: Path, rows: list[Entry] = ROWS) -> list[Cell]:
    return plan_cells(rows, ["ml-100k"], [2020, 2021], [f"--output_dir={runs}"])


def write_cell(cell: Cell, board_runs: Runs, run_id: str = "20260101-000000", **changes: Any) -> RunRecord:
    """The record that a cell leaves, without training it."""
    values = {
        "dataset": "ml-100k", "settings": cell.settings.dump(), "settings_digest": cell.key.settings_digest,
        "code_version": cell.key.code_version, "run_id": f"{run_id}-{cell.key.settings_digest[:6]}-s{cell.key.seed}",
        **changes,
    }  # fmt: skip
    (record,) = board_runs(cell.key.model, 0.75 + len(cell.name) / 1000, [cell.key.seed], **values)
    write_record(record, Path(cell.settings.output_dir) / "ml-100k" / cell.key.model / record.run_id)
    return record


@pytest.fixture
def runs(tmp_path: Path, board_runs: Runs) -> Path:
    """A folder with the runs of all cells."""
    for cell in cells_of(tmp_path / "runs"):
        write_cell(cell, board_runs)
    return tmp_path / "runs"


def test_render_gives_the_bytes_that_run_gave(runs: Path, tmp_path: Path) -> None:
    ran, rendered, moved = tmp_path / "ran", tmp_path / "rendered", tmp_path / "moved"
    run_board(
        ROWS, ["ml-100k"], [2020, 2021], [f"--output_dir={runs}"], ran, Console(file=io.StringIO()), board="b",
        fingerprint=lambda _: None,
    )  # fmt: skip
    assert set(files_of(ran)) == {
        "b.md", "b.csv", "b.differences.csv", "b.statistics.json", "b.tex", "b.html", "b.records.jsonl.gz",
    }  # fmt: skip
    for output, folder in ((rendered, None), (moved, tmp_path / "archive" / "deep")):
        if folder is not None:
            shutil.move(runs, folder)
        found = of_cells(cells_of(runs), folder, "b")
        stored = compute_statistics(
            summarise(found.records, found.names),
            found.records,
            Stored(),
            found.folder_of,
            output / "b.statistics.json",
        )
        write_forms(found.records, found.names, output, found.name, stored=stored)
        assert files_of(output) == files_of(ran)


def test_a_form_alone_is_the_same_file(runs: Path, tmp_path: Path) -> None:
    found = of_folder(runs)
    design = Design(contrasts={"levels": ["PLE", "MMoE"]})
    write_forms(found.records, found.names, tmp_path / "all", "b", design=design)
    whole = files_of(tmp_path / "all")
    for form in FORMS:
        (path,) = write_forms(found.records, found.names, tmp_path / form, "b", [form], design=design)
        assert path.read_bytes() == whole[path.name]


def test_names_are_those_of_the_board_or_tell_rows_apart(runs: Path) -> None:
    found = of_cells(cells_of(runs), None, "b")
    assert [found.names[run.settings_digest] for run in found.records] == [
        name for name in ("MMoE", "two levels", "PLE") for _ in range(2)
    ]
    below = of_folder(runs)
    assert (below.name, list(dict.fromkeys(below.names[run.settings_digest] for run in below.records))) == (
        "runs", ["MMoE", "PLE", "PLE (levels=2)"],
    )  # fmt: skip


def test_rows_of_one_model_are_named_after_what_differs(board_runs: Runs) -> None:
    settings = {
        "d0": {"interactions": [{"name": "gdcn", "layers": 2}], "module_dim": 64, "epochs": 7},
        "d1": {"interactions": [{"name": "gdcn", "layers": 3}], "module_dim": 64, "epochs": 7},
        "d2": {"interactions": [{"name": "masknet", "blocks": 1}], "module_dim": 32, "epochs": 7},
    }
    records = [run for digest, values in settings.items() for run in board_runs(
        "DTN", 0.7, [1], settings=values, settings_digest=digest)]  # fmt: skip
    assert names_of(records) == {
        "d0": "DTN (interactions=[{name: gdcn, layers: 2}])",
        "d1": "DTN (interactions=[{name: gdcn, layers: 3}])",
        "d2": "DTN (interactions=[masknet], module_dim=32)",
    }
    weights = [
        run.model_copy(update={"settings": {"tasks": [{"name": "like"}, {"name": "love", "weight": weight}]}})
        for run, weight in zip(records, (1.0, 2.0), strict=False)
    ]
    assert names_of(weights)["d1"] == "DTN (tasks.love.weight=2.0)"
    # The same in all rows, or in the only one: no part of a name.
    assert names_of(records[:1]) == {"d0": "DTN"}


def test_the_newest_record_of_a_cell_counts_whatever_its_version(runs: Path, board_runs: Runs) -> None:
    (cell, *_) = cells_of(runs)
    newer = write_cell(cell, board_runs, "20270101-000000", code_version="99.0")
    write_cell(cell, board_runs, "20280101-000000", status="interrupted")
    write_cell(cell, board_runs, "20290101-000000", processes=2)
    assert of_cells(cells_of(runs), None, "b").records[0] == newer


def test_a_record_from_before_a_setting_was_added_fills_its_cell(tmp_path: Path, board_runs: Runs) -> None:
    runs = tmp_path / "runs"
    for cell in cells_of(runs):
        old = cell.settings.dump()
        del old["shared_interaction_dim"]
        write_cell(cell, board_runs, settings=old, settings_digest=f"old-{cell.key.settings_digest}")
    found = of_cells(cells_of(runs), None, "b")
    assert (found.missing, len(found.records)) == ([], 6)
    assert [found.names[run.settings_digest] for run in found.records[2:]] == ["two levels"] * 2 + ["PLE"] * 2
    other = of_cells(cells_of(runs, [Entry("PLE", "PLE", ("--levels=3",))]), None, "b")
    assert (len(other.records), len(other.missing)) == (0, 2), "settings that differ are another cell"


def test_cells_without_a_record_are_told_and_bad_records_left_out(runs: Path, board_runs: Runs) -> None:
    first = next(iter(sorted(runs.glob("ml-100k/MMoE/*/record.json"))))
    first.write_text("{")
    hidden = runs / ".trash" / "x" / "y"
    write_record(of_folder(runs).records[0], hidden)
    found: Remade = of_cells(cells_of(runs), None, "b")
    assert [cell.title for cell in found.missing] == ["MMoE ml-100k seed 2020"]
    assert (len(found.records), len(found.unreadable)) == (5, 1)
    assert len(of_folder(runs).records) == 5


def test_a_plugin_that_changed_since_the_runs_is_told(tmp_path: Path, board_runs: Runs) -> None:
    file = tmp_path / "mine.py"
    file.write_text("A = 1")
    load_plugins([str(file)])
    cells = cells_of(tmp_path / "runs", [Entry("mine", "MMoE", (f"--plugins=[{file}]",))])
    for cell in cells:
        write_cell(cell, board_runs, plugins=[asdict(state) for state in plugin_states(cell.settings)])
    assert of_cells(cells, None, "b").changed == {}
    file.write_text("A = 2")
    load_plugins([str(file)])
    assert of_cells(cells, None, "b").changed == {str(file): 2}


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command(shown: Shown, runs: Path, tmp_path: Path) -> None:
    board = tmp_path / "mine.yaml"
    board.write_text(
        "datasets: [ml-100k]\nseeds: [2020, 2021, 2022]\nfloors: []\n"
        "models: [MMoE, {name: two levels, model: PLE, levels: 2}, PLE]\n"
    )
    words = ["leaderboard", "render", str(board), f"--records={runs}", f"--output={tmp_path / 'out'}"]
    code, out, err = shown(*words, "--format=html,md")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == (
        "no record of 3 cells: MMoE ml-100k seed 2022; two levels ml-100k seed 2022; PLE ml-100k seed 2022"
    )
    assert "6 runs: " in out
    assert set(files_of(tmp_path / "out")) == {"mine.md", "mine.html", "mine.statistics.json", "mine.failures.csv"}
    assert "| PLE | 2022 | not run |" in (tmp_path / "out" / "mine.md").read_text()
    assert "| two levels | 2 |" in (tmp_path / "out" / "mine.md").read_text()
    assert shown("leaderboard", "render", f"--records={runs}", f"--output={tmp_path / 'out'}", "--name=all")[0] == 0
    assert {"all.md", "all.csv", "all.tex", "all.html"} <= set(files_of(tmp_path / "out"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected BOARD.yaml, --records=FOLDER, both, or BOARD.records.jsonl.gz"),
        (["--records=nothing"], "--records: no folder nothing"),
        (["--records=.", "--format=htm"], "unknown form 'htm'; did you mean 'html'?"),
        (["--records=.", "--format="], "expected some of md, csv, latex, html"),
        (["--records=.", "--seeds=3"], "--seeds needs the file of a leaderboard (.yaml), or --models"),
        (["--records=.", "--epochs=3"], "--epochs=3 needs the file of a leaderboard (.yaml), or --models"),
        (["--records=."], "no finished run below ."),
        (["--models=MMoE"], "--datasets is needed"),
        (["--models=MMoE", "--datasets=ml-100k", "--output_dir=nothing"], "no finished run below output_dir"),
    ],
)
def test_what_the_command_refuses(shown: Shown, words: list[str], told: str) -> None:
    code, _, err = shown("leaderboard", "render", *words)
    assert code == 2
    assert told in err


def test_a_part_of_the_data_is_told(board_runs: Runs) -> None:
    part = [
        run
        for rows in (4000, None)
        for run in board_runs("PLE" if rows else "MMoE", 0.8, settings={"limit_rows": rows})
    ]
    both = [run for model in ("PLE", "MMoE") for run in board_runs(model, 0.8, settings={"limit_rows": 4000})]
    assert any("limit_rows 4000" in note and note.startswith("Equal for all rows") for note in notes(summarise(both)))
    assert any(note.startswith("Not equal: ") and "limit_rows" in note for note in notes(summarise(part)))
    assert not [note for note in notes(summarise(board_runs("PLE", 0.8))) if "limit_rows" in note]
