"""The records of a leaderboard in one file: the same tables from it alone, cells that are not run again, and faults."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from recbole_dtn.cli.app import main
from recbole_dtn.errors import DataError
from recbole_dtn.leaderboard.archive import Archive, archive_file, read_archive
from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.cells import plan_cells
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.record.record import RunRecord, write_record

Runs = Callable[..., list[RunRecord]]
ROWS = [Entry("two levels", "PLE", ("--levels=2",)), Entry("MMoE", "MMoE")]


def run(folder: Path, run_cell: Callable[[list[str]], RunRecord], said: io.StringIO | None = None) -> Path:
    """Run the leaderboard of two rows and two seeds; tables in ``tables``, runs in ``runs``."""
    console = Console(file=said or io.StringIO(), width=200)
    return run_board(
        ROWS, ["ml-100k"], [2020, 2021], [f"--output_dir={folder / 'runs'}"], folder / "tables", console, board="b",
        run_cell=run_cell, fingerprint=lambda _: None, design=Design(proposed=["two levels"]),
    )  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path, board_runs: Runs) -> Callable[[list[str]], RunRecord]:
    """Stands for training: a record as a run leaves it, without the run."""
    cells = {cell.overrides: cell for cell in plan_cells(ROWS, ["ml-100k"], [2020, 2021],
             [f"--output_dir={tmp_path / 'runs'}"])}  # fmt: skip

    def run_cell(overrides: list[str]) -> RunRecord:
        cell = cells[tuple(overrides)]
        (record,) = board_runs(
            cell.key.model, 0.75, [cell.key.seed], dataset="ml-100k", settings=cell.settings.dump(),
            settings_digest=cell.key.settings_digest, code_version=cell.key.code_version,
            run_id=f"20260101-{cell.key.settings_digest[:6]}-s{cell.key.seed}",
        )  # fmt: skip
        write_record(record, cell.folder / record.run_id)
        return record

    return run_cell


def refuse(overrides: list[str]) -> RunRecord:
    raise AssertionError("this cell is recorded")


def test_tables_are_made_again_from_the_archive_alone(
    tmp_path: Path, trained: Callable[[list[str]], RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, trained)
    shutil.rmtree(tmp_path / "runs")
    tables = tmp_path / "tables"
    wanted = {path.name: path.read_bytes() for path in tables.iterdir()}
    assert {"b.md", "b.csv", "b.tex", "b.html", "b.records.jsonl.gz"} <= set(wanted)
    for path in tables.iterdir():
        if path.name not in ("b.records.jsonl.gz", "b.statistics.json"):
            path.unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "render", str(tables / "b.records.jsonl.gz")]) == 0
    assert {path.name: path.read_bytes() for path in tables.iterdir()} == wanted
    assert "two levels" in wanted["b.md"].decode()


def test_a_leaderboard_goes_on_from_its_archive(tmp_path: Path, trained: Callable[[list[str]], RunRecord]) -> None:
    run(tmp_path, trained)
    shutil.rmtree(tmp_path / "runs")
    said = io.StringIO()
    run(tmp_path, refuse, said)
    assert said.getvalue().count("b.records.jsonl.gz)") == 4  # (recorded in ...)


def test_a_run_whose_folder_is_there_counts_once(tmp_path: Path, trained: Callable[[list[str]], RunRecord]) -> None:
    run(tmp_path, trained)
    places = sorted((tmp_path / "runs" / "ml-100k").iterdir())
    for archive_first in (True, False):
        recorded = Recorded()
        if archive_first:
            recorded.read_archive(archive_file(tmp_path / "tables", "b"))
        for place in places:
            recorded.read(place)
        recorded.read_archive(archive_file(tmp_path / "tables", "b"))
        assert [len(runs) for runs in recorded.runs.values()] == [1] * 4
        assert all(folder.is_dir() for folder in recorded.folders.values())


def test_the_file_is_what_was_written(tmp_path: Path, trained: Callable[[list[str]], RunRecord]) -> None:
    run(tmp_path, trained)
    found = read_archive(archive_file(tmp_path / "tables", "b"))
    assert isinstance(found, Archive)
    assert (found.name, found.head.design.proposed) == ("b", ["two levels"])
    assert [found.head.rows[record.settings_digest] for record in found.records] == ["two levels"] * 2 + ["MMoE"] * 2


def test_records_that_are_left_out_this_time_stay_in_the_file(
    tmp_path: Path, trained: Callable[[list[str]], RunRecord]
) -> None:
    run(tmp_path, trained)
    path, whole = archive_file(tmp_path / "tables", "b"), read_archive(archive_file(tmp_path / "tables", "b"))
    shutil.rmtree(tmp_path / "runs")
    run_board(
        ROWS[1:], ["ml-100k"], [2021], [f"--output_dir={tmp_path / 'runs'}"], tmp_path / "tables",
        Console(file=io.StringIO()), board="b", run_cell=refuse, fingerprint=lambda _: None,
    )  # fmt: skip
    found = read_archive(path)
    assert [record.run_id for record in found.records] == [whole.records[3].run_id]
    assert [record.run_id for record in found.others] == [record.run_id for record in whole.records[:3]]
    before = path.read_bytes()
    assert main(["leaderboard", "render", str(path)]) == 0
    assert path.read_bytes() == before
    assert "two levels" not in (tmp_path / "tables" / "b.md").read_text()
    run(tmp_path, refuse)
    assert read_archive(path) == whole


def test_ctrl_c_leaves_what_was_recorded(tmp_path: Path, trained: Callable[[list[str]], RunRecord]) -> None:
    run(tmp_path, trained)
    path = archive_file(tmp_path / "tables", "b")
    whole = read_archive(path)
    shutil.rmtree(tmp_path / "runs")
    calls = []

    def stopped(_: object) -> str:  # at the first look at the data
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_board(
            ROWS, ["ml-100k"], [2020, 2021], [f"--output_dir={tmp_path / 'runs'}"], tmp_path / "tables",
            Console(file=io.StringIO()), board="b", run_cell=refuse, fingerprint=stopped,
        )  # fmt: skip
    assert calls
    found = read_archive(path)
    assert {record.run_id for record in (*found.records, *found.others)} == {record.run_id for record in whole.records}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[: len(data) // 2], "not a whole gzip file"),
        (lambda data: b"plain text", "not a whole gzip file"),
        (lambda data: gzip.compress(b""), "line 1: not the records of a leaderboard"),
        (lambda data: _lines(data, 0, lambda head: {**head, "format": 99}), "expected format 1, found 99"),
        (lambda data: _lines(data, 0, lambda head: {**head, "format": 2, "new": 1}), "take a newer recbole_dtn"),
        (lambda data: _lines(data, 0, lambda head: {**head, "rows": {}}), "line 1: no row of the settings"),
        (
            lambda data: _lines(data, 0, lambda head: {**head, "design": {"contrasts": {"x": ["MMoE"]}}}),
            "line 1: contrasts.x: expected the names of two rows",
        ),
        (
            lambda data: _lines(data, 0, lambda head: {**head, "design": {"contrasts": {"x": ["a", "b", "c"]}}}),
            "line 1: contrasts.x: expected the names of two rows",
        ),
        (lambda data: _lines(data, 2, lambda record: {**record, "seed": 5}), "line 3 was changed after it was written"),
        (lambda data: _lines(data, 1, lambda record: {"seed": 5}), "line 2: not a run record of version"),
        (lambda data: gzip.compress(gzip.decompress(data).replace(b'"seed"', b"seed", 1)), "line 2: not JSON"),
    ],
)
def test_faults_name_the_line_and_stop_nothing_else(
    tmp_path: Path,
    trained: Callable[[list[str]], RunRecord],
    change: Callable[[bytes], bytes],
    told: str,
) -> None:
    run(tmp_path, trained)
    path = archive_file(tmp_path / "tables", "b")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=told):
        read_archive(path)
    said = io.StringIO()
    damaged = path.read_bytes()
    run(tmp_path, refuse, said)  # the runs are there
    assert told in " ".join(said.getvalue().split())
    assert len(read_archive(path).records) == 4
    assert path.with_name(f"{path.name}.earlier").read_bytes() == damaged, "put aside, not lost"


def _lines(data: bytes, number: int, change: Callable[[dict[str, object]], dict[str, object]]) -> bytes:
    lines = gzip.decompress(data).decode().splitlines()
    lines[number] = json.dumps(change(json.loads(lines[number])))
    return gzip.compress("\n".join(lines).encode())


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, trained: Callable[[list[str]], RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, trained)
    monkeypatch.setattr("recbole_dtn.leaderboard.archive.MOST_BYTES", 1000)
    with pytest.raises(DataError, match="expected at most 1,000 bytes of records"):
        read_archive(archive_file(tmp_path / "tables", "b"))


def test_an_archive_elsewhere_keeps_its_statistics(
    tmp_path: Path, trained: Callable[[list[str]], RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, trained)
    (tmp_path / "tables" / "b.failures.csv").write_text(
        "dataset,name,model,split,seed,settings_digest,reason\nml-100k,x,MMoE,random,7,d,no memory\n"
    )
    monkeypatch.chdir(tmp_path)
    archive = str(archive_file(tmp_path / "tables", "b"))
    assert main(["leaderboard", "render", archive, "--output=other", "--name=title"]) == 0
    assert "no memory" in (tmp_path / "other" / "title.md").read_text()


def test_records_without_their_statistics_say_so(
    tmp_path: Path, trained: Callable[[list[str]], RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, trained)
    shutil.rmtree(tmp_path / "runs")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(archive_file(tmp_path / "tables", "b"), alone)
    assert main(["leaderboard", "render", str(archive_file(alone, "b")), f"--output={alone}"]) == 0
    told = r"differences of \d pairs of rows are not tested, the first: .*: no test scores are stored"
    assert re.search(told, capsys.readouterr().out)


def test_options_that_name_cells_are_refused_beside_an_archive(
    tmp_path: Path, trained: Callable[[list[str]], RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, trained)
    archive = str(archive_file(tmp_path / "tables", "b"))
    for options, told in [
        (["--seeds=2"], "--seeds needs the file of a leaderboard (.yaml)"),
        (["--models=DTN"], "leave out --models"),
        (["--epochs=2"], "--epochs=2 needs the file of a leaderboard (.yaml)"),
    ]:
        assert main(["leaderboard", "render", archive, *options]) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    assert main(["leaderboard", "run", archive]) == 2
    assert "or the file of a leaderboard (.yaml)" in " ".join(capsys.readouterr().err.split())
