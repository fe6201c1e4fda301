"""Statistics of a board from stored test scores: significance, worked numbers of Holm, stale files, missing scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.data.features import Features
from recbole_dtn.errors import DataError
from recbole_dtn.leaderboard.compare import compare
from recbole_dtn.leaderboard.design import Design
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, Tested, summarise
from recbole_dtn.leaderboard.stored import Stored, compute_statistics
from recbole_dtn.metric.uncertainty import auc_with_error
from recbole_dtn.record.record import RunRecord
from recbole_dtn.record.scores import ScoreKeeper

Runs = Callable[..., list[RunRecord]]
ROWS, USERS = 400, 60


class Board:
    """Runs whose test scores are written as cells write them; ``noise`` makes a model worse."""

    def __init__(self, folder: Path, board_runs: Runs, *, grouped: bool) -> None:
        self.folder, self.board_runs, self.grouped = folder, board_runs, grouped
        random = np.random.default_rng(1)
        self.truth = random.normal(size=ROWS)
        self.labels = (self.truth + random.normal(size=ROWS) > 0).astype(np.float32)
        self.group = random.integers(USERS, size=ROWS)
        self.records: list[RunRecord] = []
        self.folders: dict[str, Path] = {}
        self.scores: dict[str, Any] = {}
        self.design = Design()

    def add(self, model: str, noise: float, seeds: int = 10, valid: float = 0.7, splits: int = 1) -> None:
        """Runs of one row; all seeds see the test rows nearly alike. ``splits``: among which the seeds are spread."""
        for seed in range(seeds):
            draw = np.random.default_rng([seed, int(noise * 100)])
            own = np.random.default_rng(int(noise * 100)).normal(size=ROWS) * noise
            scores = (self.truth + own + draw.normal(size=ROWS) * 0.02).astype(np.float32)
            auc = auc_with_error(torch.tensor(scores), torch.tensor(self.labels))[0]
            test = {"like": {"auc": auc}}
            tasks = [{"name": "like", "label": "like", "after": []}]
            (run,) = self.board_runs(model, auc, [seed], test=test, tasks=tasks, valid_value=valid)
            run = run.model_copy(
                update={"settings": {**run.settings, "tasks": [{"name": "like"}]}, "split_seed": 2020 + seed % splits}
            )
            self.scores[run.run_id] = scores
            folder = self.folder / "films" / model / run.run_id
            folder.mkdir(parents=True)
            keeper = ScoreKeeper(ROWS, 1)
            rows = torch.randperm(ROWS)  # the order of batches does not count
            keeper.add(
                Features(
                    ids=torch.zeros(ROWS, 1, dtype=torch.int64), dense=torch.empty(ROWS, 0),
                    labels=torch.tensor(self.labels)[rows, None], observed=torch.ones(ROWS, 1, dtype=torch.bool),
                    group=torch.tensor(self.group)[rows] if self.grouped else None, row=rows,
                ),
                torch.tensor(scores)[rows, None],
            )  # fmt: skip
            keeper.write(folder, run.data_fingerprint)
            self.records.append(run)
            self.folders[run.run_id] = folder

    def rows(self, stored: Stored | None = None) -> tuple[list[BoardRow], Stored]:
        """The rows with their statistics, which are computed where they are not known."""
        rows = summarise(self.records, design=self.design)
        path = self.folder / "b.statistics.json"
        stored = compute_statistics(
            rows, self.records, stored or Stored(), lambda run: self.folders.get(run.run_id), path
        )
        return stored.rows(rows, self.records), stored


@pytest.mark.parametrize(("seeds", "splits", "rows"), [(3, 3, ["A", "B"]), (2, 1, ["A"])])
def test_ece_needs_no_comparison(tmp_path: Path, board_runs: Runs, seeds: int, splits: int, rows: list[str]) -> None:
    """Rows on several splits, and one row alone."""
    board = Board(tmp_path, board_runs, grouped=False)
    for place, model in enumerate(rows):
        board.add(model, 0.1 + place, seeds=seeds, splits=splits)
    (tmp_path / "b.statistics.json").unlink(missing_ok=True)
    found, stored = board.rows()
    metric = Metric("test", "like", "ece")
    for row in found:
        runs = [run for run in board.records if run.model == row.model]
        assert [row.values[metric][key] for key in row.values[metric]] == pytest.approx(
            [_ece(board.scores[run.run_id], board.labels) for run in runs], rel=1e-5
        )
        assert row.metrics[metric].n == seeds
        assert not row.tested
        assert row.untested == ""
    assert Stored.read("b", tmp_path).statistics == stored.statistics
    board.folders = {}
    assert Stored.read("b", tmp_path).rows(summarise(board.records), board.records)[0].metrics[metric].n == seeds


def _ece(scores: Any, labels: Any) -> float:
    """15 bins with as many rows in each; every row counts 15 times, so that the bins are whole."""
    order = np.argsort(scores, kind="stable").repeat(15)
    chances = (1 / (1 + np.exp(-scores[order].astype(np.float64)))).reshape(15, -1)
    return float(np.abs(chances.mean(1) - labels[order].reshape(15, -1).mean(1)).mean())


@pytest.mark.parametrize("grouped", [True, False])
def test_what_is_significant(tmp_path: Path, board_runs: Runs, grouped: bool) -> None:
    board = Board(tmp_path, board_runs, grouped=grouped)
    board.add("Good", 0.1, valid=0.9)
    board.add("Same", 0.11)
    board.add("Worse", 3.0)
    rows, _ = board.rows()
    found = compare(rows)
    assert found is not None
    assert found.best.model == "Good"
    same, worse = found.differences
    assert (found.significant(same), found.significant(worse)) == (False, True)
    assert worse.tested is not None
    assert same.tested is not None
    # Holm over two: the smaller p doubles, 2 / 2001 of 2,000 draws; the larger stays.
    assert worse.tested.p == pytest.approx(2 / 2001)
    assert worse.adjusted == pytest.approx(4 / 2001)
    assert same.adjusted == pytest.approx(same.tested.p)
    assert worse.tested.high is not None
    assert worse.tested.high < 0, "the interval excludes 0"
    assert worse.tested.sample_method == ("bootstrap" if grouped else "DeLong")
    assert worse.tested.error == pytest.approx(worse.tested.sample_error, rel=0.1), "seeds differ by little"
    about = rows[1].tested_on
    assert (about["drawn"], about["units"]) == (("users", USERS) if grouped else ("rows", ROWS))


@pytest.mark.parametrize("grouped", [True, False])
def test_two_deterministic_rows_have_the_uncertainty_of_the_test_sample(
    tmp_path: Path, board_runs: Runs, grouped: bool
) -> None:
    board = Board(tmp_path, board_runs, grouped=grouped)
    board.add("Logistic", 0.1, seeds=1, valid=0.9)
    board.add("Boosting", 3.0, seeds=1)
    board.add("Same", 0.11)
    found = compare(board.rows()[0])
    assert found is not None
    boosting, same = found.differences
    assert (boosting.row.model, boosting.paired.n, same.paired.n) == ("Boosting", 1, 10)
    assert boosting.tested is not None
    assert same.tested is not None
    assert boosting.tested.error == pytest.approx(boosting.tested.sample_error, rel=0.1)
    assert boosting.adjusted == pytest.approx(2 * boosting.tested.p)  # type: ignore[operator]
    assert same.adjusted == pytest.approx(same.tested.p)
    assert boosting.adjusted < 0.05  # type: ignore[operator]
    assert not found.significant(boosting), "nothing is claimed below ten seeds"


def test_nine_seeds_are_not_significant_whatever_the_interval(tmp_path: Path, board_runs: Runs) -> None:
    board = Board(tmp_path, board_runs, grouped=True)
    board.add("Good", 0.1, seeds=9, valid=0.9)
    board.add("Worse", 3.0, seeds=9)
    found = compare(board.rows()[0])
    assert found is not None
    (worse,) = found.differences
    assert worse.adjusted == pytest.approx(2 / 2001)
    assert not found.significant(worse)


def test_statistics_are_kept_under_the_runs_that_they_are_of(tmp_path: Path, board_runs: Runs) -> None:
    board = Board(tmp_path, board_runs, grouped=True)
    board.add("Good", 0.1, valid=0.9)
    board.add("Worse", 3.0)
    rows, stored = board.rows()
    file = tmp_path / "b.statistics.json"
    text = file.read_bytes()
    assert Stored.read("b", tmp_path).statistics == stored.statistics
    # Known: nothing is read. Unknown and computed again: the same bytes.
    folders, board.folders = board.folders, {}
    assert board.rows(stored)[0] == rows
    assert file.read_bytes() == text
    board.folders = folders
    file.unlink()
    assert board.rows()[0] == rows
    assert file.read_bytes() == text
    # Another run of a cell makes those of its row stale; without its scores that is said.
    board.add("Same", 0.11)
    folders = board.folders
    both, stored = board.rows(stored)
    (new,) = board.board_runs("Worse", 0.7, [10], test={"like": {"auc": 0.7}})
    board.records.append(new)
    board.folders = {}
    rows, stored = board.rows(stored)
    assert {row.model: row.untested for row in rows} == {
        "Good": "", "Worse": "Worse: no test scores are stored (older records, or a large test split)", "Same": "",
    }  # fmt: skip
    assert [row.tested for row in rows if row.model == "Same"] == [both[2].tested], "those of other rows are kept"
    board.records.pop()
    assert board.rows(stored)[0] == both, "and those of the runs before, which came back"
    file.unlink()
    rows, _ = board.rows()
    assert rows[1].untested.endswith("no test scores are stored (older records, or a large test split)")
    assert not rows[1].tested


def test_statistics_do_not_depend_on_how_many_rows_there_were_before(
    tmp_path: Path, board_runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows take more draws, also of the differences that are stored already."""
    monkeypatch.setattr("recbole_dtn.leaderboard.tested.DRAWS_EACH", 1500)
    board = Board(tmp_path, board_runs, grouped=True)
    board.add("Good", 0.1, valid=0.9)
    board.add("Worse", 3.0)
    before, stored = board.rows()
    board.add("Same", 0.11)
    after, grown = board.rows(stored)
    anew, _ = board.rows()
    assert [row.tested_on.get("draws") for row in after] == [None, 3000, 3000]
    assert before[1].tested_on["draws"] == 2000
    assert after == anew
    folders, board.folders = board.folders, {}
    kept, _ = board.rows(stored)
    assert kept[1].tested == before[1].tested, "without scores what is stored stays"
    board.records = [run for run in board.records if run.model != "Same"]
    board.folders = folders
    assert board.rows(grown)[0] == before, "and fewer rows take fewer"


def test_what_an_earlier_version_kept_stays_where_there_are_no_scores(tmp_path: Path, board_runs: Runs) -> None:
    board = Board(tmp_path, board_runs, grouped=True)
    board.add("Good", 0.1, valid=0.9)
    board.add("Worse", 3.0)
    rows, stored = board.rows()
    lines = stored.statistics["films"]["rows"]
    earlier = [{key: value for key, value in line.items() if key != "chain"} for line in lines]
    stored = Stored(statistics={"films": {**stored.statistics["films"], "rows": earlier}})
    folders, board.folders = board.folders, {}
    again, kept = board.rows(stored)
    assert kept.statistics["films"]["rows"] == earlier
    assert [row.metrics for row in again] == [row.metrics for row in rows], "the calibration error too"
    board.folders = folders
    _, anew = board.rows(kept)
    assert anew.statistics["films"]["rows"] == lines


def test_statistics_of_data_sets_that_are_left_out_stay(tmp_path: Path, board_runs: Runs) -> None:
    board = Board(tmp_path, board_runs, grouped=True)
    board.add("Good", 0.1, valid=0.9)
    board.add("Worse", 3.0)
    _, stored = board.rows(Stored(statistics={"another": {"pairs": []}}))
    assert set(Stored.read("b", tmp_path).statistics) == set(stored.statistics) == {"another", "films"}


def test_scores_that_are_not_those_of_the_record_do_not_count(tmp_path: Path, board_runs: Runs) -> None:
    board = Board(tmp_path, board_runs, grouped=True)
    board.add("Good", 0.1, valid=0.9)
    board.add("Worse", 3.0)
    board.records[-1] = board.records[-1].model_copy(update={"test": {"like": {"auc": 0.5}}})
    rows, _ = board.rows()
    assert rows[1].untested == "Worse: the stored test scores do not give the recorded metric"
    assert not any(metric.name == "ece" for metric in rows[1].metrics), "nothing is computed from wrong scores"
    assert any(metric.name == "ece" for metric in rows[0].metrics)


def test_holm_over_rows_and_tasks_by_hand(board_runs: Runs) -> None:
    # p of .01, .02, .03, .04: times 4, 3, 2, 1 and never below the one before.
    rows = summarise([*board_runs("A", 0.9), *board_runs("B", 0.8), *board_runs("C", 0.7)])
    for row, values in zip(rows[1:], ((0.03, 0.01), (0.04, 0.02)), strict=True):
        tests = {
            Metric("test", task, "auc"): Tested("DeLong", *[0.1] * 6, p)
            for task, p in zip(("like", "love"), values, strict=True)
        }
        object.__setattr__(row, "tested", tests)
    found = compare(rows)
    assert found is not None
    assert [each.adjusted for each in found.differences] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [found.significant(each) for each in found.differences] == [False, True, False, False]


SPEED = '{"format": 1, "machine": "x", "rows": [%s]}'
PAIRS = '{"format": 1, "datasets": {"a": {"rows": [], "pairs": [%s]}}}'
FAILURES = "dataset,name,model,split,seed,settings_digest,reason\n"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("statistics.json", "{", "line 1: not JSON"),
        ("statistics.json", "", "line 1: not JSON"),
        ("statistics.json", "[" * 100_000, "nested too deeply"),
        ("statistics.json", "null", "Input should be a valid map"),
        ("statistics.json", '{"format": 9, "datasets": {}}', "format: Input should be 1"),
        ("statistics.json", '{"format": 1}', "datasets: Field required"),
        ("statistics.json", '{"format": 1, "datasets": {"a": 3}}', "datasets.a: Input should be a valid map"),
        ("statistics.json", PAIRS % "3", "datasets.a.pairs.0: Input should be"),
        ("statistics.json", PAIRS % '{"settings_digest": "d", "against": "B", "draws": "2"}', "pairs.0.draws: Input"),
        ("speed.json", "[]", "Input should be a valid map"),
        ("speed.json", '{"format": 1}', "machine: Field required"),
        ("speed.json", '{"format": 1, "rows": 3, "machine": "x"}', "rows: Input should be a valid list"),
        ("speed.json", SPEED % "{}", "rows.0.dataset: Field required"),
        (
            "speed.json",
            SPEED % '{"dataset": "a", "settings_digest": "d", "code_version": "1", "busy_cores": "1"}',
            "rows.0.busy_cores: Input should be a valid number",
        ),
        ("failures.csv", FAILURES + f"a,x,MMoE,random,7,d,{'n' * 140_000}\n", "larger than field limit"),
        ("failures.csv", FAILURES.replace(",split", "") + "a,x,MMoE,7,d,no memory\n", "line 2.split: Field required"),
        (
            "failures.csv",
            FAILURES + "a,x,MMoE,random,seven,d,no memory\n",
            "line 2.seed: Input should be",
        ),
        ("failures.csv", FAILURES + "a,x,MMoE,random,7\n", "line 2.settings_digest: Input should be"),
        ("failures.csv", FAILURES + 'a,x,MMoE,random,7,d,"no mem', "unexpected end of data"),
    ],
)
def test_a_file_that_was_changed_or_damaged_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / f"b.{name}"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        Stored.read("b", tmp_path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert told in said
    assert "remove the file" in said
