"""Tables and warnings beside a board's results, from records made by hand."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from recbole_dtn.leaderboard.details import detail_tables, warnings_of
from recbole_dtn.leaderboard.labels import row_labels as labels
from recbole_dtn.leaderboard.render import markdown, print_board
from recbole_dtn.leaderboard.statistics import BoardRow, summarise
from recbole_dtn.record.record import RunRecord, TaskRecord

POSITIVES = {
    "train": {"click": (5000, 80_000), "buy": (800, 80_000)},
    "valid": {"click": (620, 10_000), "buy": (90, 10_000)},
    "test": {"click": (630, 10_000), "buy": (60, 5_000)},
}
RARE = "task 'buy' has 60 positives in test (5,000 rows)"


def record(model: str, seed: int, best: int, *warnings: str, **changes: Any) -> RunRecord:
    auc = 0.70 + seed / 100
    values: dict[str, Any] = {
        "run_id": "r",
        "status": "finished",
        "interrupted_at": None,
        "model": model,
        "dataset": "funnel",
        "seed": seed,
        "split_seed": 1,
        "settings": {"tasks": []},
        "settings_digest": "0",
        "data_fingerprint": "feedbeef",
        "code_version": "0",
        "tasks": [TaskRecord(name="click", label="c", after=[]), TaskRecord(name="buy", label="b", after=["click"])],
        "valid": None,
        "test": {
            "click": {"auc": auc, "auc_se": 0.004, "calibration": 1.0 + seed / 10},
            "buy": {"auc": 0.65, "auc_se": 0.01 * seed, "calibration": None},
        },
        "best_epoch": best,
        "epochs": best + 3,
        "parameters": {},
        "train_samples_per_second": None,
        "peak_rss_bytes": 1,
        "peak_anon_bytes": None,
        "wall_seconds": {},
        "gate_weights": {},
        "versions": {},
        "positives": POSITIVES,
        "warnings": list(warnings),
    }
    return RunRecord.model_validate({**values, **changes})


def board() -> list[BoardRow]:
    first = "the best of {} epochs is the first: try 'a1'"
    return summarise(
        [
            record("DTN", 1, 5, RARE),
            record("DTN", 2, 1, RARE, first.format(4)),
            record("DTN", 3, 4, RARE),
            record("PLE", 1, 1, RARE, first.format(7), "task 'click' diverged"),
        ]
    )


def test_positives_and_both_uncertainties() -> None:
    rows = board()
    positives, uncertainty = detail_tables(rows, labels(rows))
    assert positives.columns == ["task", "train", "valid", "test"]
    assert positives.cells == [
        ["click", "5,000 of 80,000 (6.25%)", "620 of 10,000 (6.20%)", "630 of 10,000 (6.30%)"],
        ["buy", "800 of 80,000 (1.00%)", "90 of 10,000 (0.90%)", "60 of 5,000 (1.20%)"],
    ]
    # .71 .72 .73: sd .01; standard errors .01 .02 .03: mean .02; calibration 1.1 1.2 1.3: mean 1.2
    assert uncertainty.columns[2:6] == ["test AUC", "± seeds", "± sample", "calibration"]
    assert uncertainty.cells == [
        ["DTN", "click", "0.7200", "0.0100", "0.0040", "1.200", "5, 1, 4", "8, 4, 7"],
        ["", "buy", "0.6500", "0.0000", "0.0200", "–", "", ""],
        ["PLE", "click", "0.7100", "–", "0.0040", "1.100", "1", "4"],
        ["", "buy", "0.6500", "–", "0.0100", "–", "", ""],
    ]


def test_every_warning_stands_once_with_the_runs_that_have_it() -> None:
    rows = board()
    assert warnings_of(rows, labels(rows)) == [
        f"{RARE} [all 4 runs]",
        "the best of 4 epochs is the first: try 'a1' [DTN: 1 of 3 seeds; PLE: 1 of 1 seeds; numbers of the first]",
        "task 'click' diverged [PLE: 1 of 1 seeds]",
    ]


def test_over_splits_counts_are_of_splits_and_positives_a_range() -> None:
    few = {**POSITIVES, "test": {"click": (640, 10_000), "buy": (52, 4_990)}}
    diverged = "task 'click' diverged"
    rows = summarise([
        record("DTN", 1, 5, RARE, split_seed=1),
        record("DTN", 1, 5, RARE, diverged, split_seed=2, positives=few),
        record("DTN", 1, 5, split_seed=3),
        *(record("PLE", seed, 5, diverged, split_seed=split) for split in (1, 3) for seed in (1, 2)),
    ])  # fmt: skip
    assert [row.source_fingerprint for row in rows] == ["feedbeef", "feedbeef"]
    assert warnings_of(rows, labels(rows)) == [
        f"{RARE} [DTN: 2 of 3 splits]",
        f"{diverged} [DTN: 1 of 3 splits; PLE: 4 of 4 runs]",
    ]
    positives, uncertainty = detail_tables(rows, labels(rows))
    assert positives.title == "positives per task, fewest to most over the splits"
    assert positives.cells == [
        ["click", "5,000 of 80,000 (6.25%)", "620 of 10,000 (6.20%)", "630 to 640 of 10,000"],
        ["buy", "800 of 80,000 (1.00%)", "90 of 10,000 (0.90%)", "52 to 60 of 4,990 to 5,000"],
    ]
    assert uncertainty.columns[3] == "± splits"
    assert uncertainty.title.startswith("test AUC with its spread over splits")


def test_names_with_digits_are_different_warnings() -> None:
    rows = summarise([record("DTN", 1, 2, "field 'f1' tells 10 rows", "field 'f2' tells 10 rows")])
    assert warnings_of(rows, labels(rows)) == ["field 'f1' tells 10 rows [DTN]", "field 'f2' tells 10 rows [DTN]"]


def test_other_data_has_positives_of_its_own() -> None:
    other = {split: {"click": (1, 10), "buy": (2, 10)} for split in POSITIVES}
    rows = summarise([record("DTN", 1, 5), record("PLE", 1, 5, data_fingerprint="cafe012345", positives=other)])
    positives, _ = detail_tables(rows, labels(rows))
    assert [row[0] for row in positives.cells] == [
        "click (data feedbe)",
        "buy (data feedbe)",
        "click (data cafe01)",
        "buy (data cafe01)",
    ]


def test_both_forms_of_a_board_have_them_within_100_columns() -> None:
    rows = board()
    text = markdown(rows)
    assert "| click | 5,000 of 80,000 (6.25%) | 620 of 10,000 (6.20%) | 630 of 10,000 (6.30%) |" in text
    assert "| DTN | click | 0.7200 | 0.0100 | 0.0040 | 1.200 | 5, 1, 4 | 8, 4, 7 |" in text
    assert f"- Warning: {RARE} [all 4 runs]" in text
    console = Console(file=io.StringIO(), width=40)
    print_board(rows, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert f"warning: {RARE} [all 4 runs]" in lines
    start = lines.index("positives per task")
    shown = lines[start : lines.index("", lines.index("", start) + 1)]
    assert len(shown) > 8
    assert max(map(len, shown)) <= 100
