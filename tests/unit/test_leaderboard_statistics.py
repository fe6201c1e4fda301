"""Summaries of hand-made records, and the tables they give, character by character."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recbole_dtn.leaderboard.labels import row_labels
from recbole_dtn.leaderboard.latex import latex
from recbole_dtn.leaderboard.render import board_csv, markdown, notes, print_board, write_board
from recbole_dtn.leaderboard.statistics import BoardRow, Metric, summarise
from recbole_dtn.record.record import RunRecord, TaskRecord

LIKE_AUC = Metric("test", "like", "auc")


def record(model: str = "DTN", seed: int = 2020, auc: float | None = 0.78, **changes: Any) -> RunRecord:
    """A finished run of two tasks; `love` has an AUC .03 above `like`."""
    test = {
        "like": {"auc": auc, "logloss": 0.55, "ne": 0.8, "calibration": 1.01},
        "love": {"auc": None if auc is None else auc + 0.03, "logloss": 0.45, "ne": 0.9, "calibration": 0.99},
    }
    values: dict[str, Any] = {
        "run_id": f"r-{model}-{seed}",
        "status": "finished",
        "interrupted_at": None,
        "model": model,
        "dataset": "ml-100k",
        "seed": seed,
        "split_seed": 2020,
        "settings": {"tasks": [{"name": "like", "pos_weight": 1.0}, {"name": "love", "pos_weight": 1.0}]},
        "settings_digest": "0123456789abcdef",
        "data_fingerprint": "feedbeef" * 8,
        "code_version": "0.1.0",
        "tasks": [
            TaskRecord(name="like", label="rating", after=[]),
            TaskRecord(name="love", label="rating", after=["like"]),
        ],
        "valid": {"like": {"auc": 0.7}, "love": {"auc": 0.8}},
        "test": test,
        "best_epoch": 2,
        "epochs": 4,
        "parameters": {"embedding": 40_000, "codebook": 160_000, "dense": 1_234},
        "train_samples_per_second": 1000.0 + seed,
        "peak_rss_bytes": 1,
        "peak_anon_bytes": None,
        "wall_seconds": {"prepare": 1.0, "train": 2.0, "test": 0.5},
        "gate_weights": {},
        "versions": {},
    }
    return RunRecord.model_validate({**values, **changes})


def only(rows: list[BoardRow]) -> BoardRow:
    assert len(rows) == 1
    return rows[0]


def test_mean_sd_and_median_by_hand() -> None:
    # .77 .78 .80: mean 2.35/3; squared deviations sum to .0004666..., over n - 1 = 2
    row = only(summarise([record(seed=2020, auc=0.77), record(seed=2021, auc=0.78), record(seed=2022, auc=0.80)]))
    found = row.metrics[LIKE_AUC]
    assert found.mean == pytest.approx(2.35 / 3, abs=1e-12)
    assert found.sd == pytest.approx(math.sqrt(0.0014 / 3 / 2), abs=1e-12)
    assert found.n == 3
    assert row.metrics[Metric("valid", "love", "auc")].mean == pytest.approx(0.8)
    assert row.samples_per_second == 3021.0
    assert row.parameters == {"embedding": 40_000, "codebook": 160_000, "dense": 1_234, "total": 201_234}
    assert row.seeds == (2020, 2021, 2022)


def test_a_standard_error_is_carried_beside_its_metric_and_is_none_itself() -> None:
    errors = {"auc_se": 0.004, "logloss": 0.5}, {"auc_se": 0.006, "logloss": 0.5}, {"auc_se": None, "logloss": 0.5}
    runs = [record(seed=seed, test={"like": {"auc": 0.7, **more}}) for seed, more in enumerate(errors)]
    row = only(summarise(runs))
    assert row.errors == {LIKE_AUC: pytest.approx(0.005)}
    assert [metric.name for metric in row.metrics if metric.split == "test"] == ["auc", "logloss"]
    assert "auc_se" not in board_csv([row]) + markdown([row])


def test_speed_beside_other_cells_is_unknown() -> None:
    beside, alone = record(seed=1, beside_others=True), record(seed=2)
    row = only(summarise([beside]))
    assert (row.samples_per_second, row.train_seconds) == (None, None)
    row = only(summarise([beside, alone]))
    assert (row.samples_per_second, row.train_seconds) == (1002.0, 2.0)


def test_names_say_the_rows_that_a_task_is_about() -> None:
    tasks = [{"name": "like"}, {"name": "love", "observed_when": "like == 1"}]
    factors = {"test": {"love@like": {"auc": 0.6}}}
    row = only(summarise([record(settings={"tasks": tasks}, factors=factors)]))
    assert [row.title_of(task) for task in ("like", "love", "love@like")] == ["like@all", "love@like", "love@like"]
    assert row.factors == ("love@like",)
    assert only(summarise([record()])).title_of("like") == "like"
    tasks[1]["observed_when"] = "rating > 3"
    row = only(summarise([record(settings={"tasks": tasks}, factors=factors)]))
    assert "| like@all AUC | like@all log loss | love@rating > 3 AUC |" in markdown([row])
    assert "love@like AUC" in markdown([row])


def test_one_seed_has_no_spread() -> None:
    found = only(summarise([record(auc=0.77)])).metrics[LIKE_AUC]
    assert (found.mean, found.sd, found.n) == (0.77, None, 1)


def test_an_undefined_auc_stays_undefined_and_is_never_zero() -> None:
    rows = summarise([record(seed=1, auc=None), record(seed=2, auc=None)])
    found = only(rows).metrics[LIKE_AUC]
    assert (found.mean, found.sd, found.n) == (None, None, 0)
    assert "| DTN | 2 | – | 0.5500 ± 0.0000 | – |" in markdown(rows)


def test_a_value_missing_for_one_seed_is_left_out_and_counted() -> None:
    rows = summarise([record(seed=1, auc=0.7), record(seed=2, auc=None), record(seed=3, auc=0.8)])
    found = only(rows).metrics[LIKE_AUC]
    assert (found.mean, found.n) == (0.75, 2)
    assert "0.7500 ± 0.0707 (n=2)" in markdown(rows)


def test_unknown_speed_is_null_not_zero() -> None:
    row = only(summarise([record(seed=1, train_samples_per_second=None)]))
    assert row.samples_per_second is None
    row = only(summarise([record(seed=1, train_samples_per_second=None), record(seed=2)]))
    assert row.samples_per_second == 1002.0


def test_speed_is_that_of_runs_that_ran_as_most_of_the_board_did() -> None:
    compiled = {"compile": "default", "threads": 2}
    runs = [record(seed=1, settings=compiled, train_samples_per_second=5.0), record(seed=2)]
    assert [row.samples_per_second for row in summarise([*runs, record("MMoE", seed=1)])] == [1002.0, 1001.0]
    only_compiled, _ = summarise([runs[0], record("MMoE", seed=1), record("MMoE", seed=2)])
    assert only_compiled.samples_per_second is None


def test_the_later_of_two_records_of_one_seed_counts_once() -> None:
    found = only(summarise([record(seed=1, auc=0.1), record(seed=2, auc=0.7), record(seed=1, auc=0.9)]))
    assert found.metrics[LIKE_AUC].mean == pytest.approx(0.8)
    assert found.metrics[LIKE_AUC].n == 2


def test_settings_and_data_are_never_averaged_over() -> None:
    rows = summarise(
        [
            record("DTN", 1, 0.70, settings_digest="aaaaaaaa1"),
            record("MMoE", 1, 0.75),
            record("DTN", 1, 0.80, settings_digest="bbbbbbbb2"),
            record("MMoE", 2, 0.95, data_fingerprint="cafe0123" * 8),
        ]
    )
    assert [(row.model, row.metrics[LIKE_AUC].mean) for row in rows] == [
        ("DTN", 0.70),
        ("DTN", 0.80),
        ("MMoE", 0.75),
        ("MMoE", 0.95),
    ]
    lines = [line.split(" | ")[0] for line in markdown(rows).splitlines() if line.startswith("| ")][2:6]
    assert lines == ["| DTN (aaaaaa)", "| DTN (bbbbbb)", "| MMoE (data feedbe)", "| MMoE (data cafe01)"]
    assert "found the data fingerprints feedbeeffeed, cafe0123cafe." in markdown(rows)


def test_a_row_on_other_data_than_most_says_so_in_every_form() -> None:
    rows = summarise([record("DTN"), record("MMoE"), record("PLE", data_fingerprint="cafe0123" * 8)])
    assert row_labels(rows) == ["DTN", "MMoE", "PLE (data cafe01)"]
    assert row_labels(rows, marked=False) == ["DTN", "MMoE", "PLE"]
    assert "| PLE (data cafe01) |" in markdown(rows)
    assert "\nPLE (data cafe01) &" in latex([rows])


def test_rows_keep_the_order_in_which_datasets_and_models_came() -> None:
    rows = summarise(
        [record("PLE"), record("DTN", dataset="census"), record("DTN"), record("PLE", dataset="census"), record("AITM")]
    )
    assert [(row.dataset, row.model) for row in rows] == [
        ("ml-100k", "PLE"),
        ("ml-100k", "DTN"),
        ("ml-100k", "AITM"),
        ("census", "PLE"),
        ("census", "DTN"),
    ]


def test_a_pos_weight_is_said_beside_the_table() -> None:
    weighted = {"tasks": [{"name": "like", "pos_weight": 1.0}, {"name": "love", "pos_weight": 20.0}]}
    rows = summarise([record(), record("PLE", settings=weighted)])
    assert [row.pos_weights for row in rows] == [{}, {"love": 20.0}]
    said = [note for note in notes(rows) if "pos_weight" in note]
    assert len(said) == 1
    assert said[0].startswith("PLE: love is trained with pos_weight 20")


GOLDEN_MARKDOWN = """\
## ml-100k

| model | seeds | like AUC | like log loss | love AUC | love log loss | embedding | codebook | dense | parameters \
| samples/s |
| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
| DTN | 2 | 0.7750 ± 0.0071 | 0.5500 ± 0.0000 | 0.8050 ± 0.0071 | 0.4500 ± 0.0000 | 40,000 | 160,000 | 1,234 \
| 201,234 | 3,020 |
| MMoE | 1 | 0.7900 ± – | 0.5500 ± – | 0.8200 ± – | 0.4500 ± – | 40,000 | – | 99 | 40,099 | – |

test AUC with its spread over seeds and its standard error over the test rows:

| model | task | test AUC | ± seeds | ± sample | calibration | best epoch | of epochs |
| --- | --: | --: | --: | --: | --: | --: | --: |
| DTN | like | 0.7750 | 0.0071 | – | 1.010 | 2, 2 | 4, 4 |
|  | love | 0.8050 | 0.0071 | – | 0.990 |  |  |
| MMoE | like | 0.7900 | – | – | 1.010 | 2 | 4 |
|  | love | 0.8200 | – | – | 0.990 |  |  |

other test metrics:

| model | task | NE |
| --- | --: | --: |
| DTN | like | 0.8000 |
|  | love | 0.9000 |
| MMoE | like | 0.8000 |
|  | love | 0.9000 |

costs:

| model | epochs | training s |
| --- | --: | --: |
| DTN | 4 | 2 |
| MMoE | 4 | 2 |

- Test split, mean ± standard deviation over seeds, which differ between rows: DTN 2020, 2021; MMoE 2020.
- ± is the standard deviation over the seeds: the sampling error of the test split is not in it.
- With fewer than 10 seeds a leaderboard is descriptive; it claims no difference.
- Equal for all rows: data and split.
- Took: 3 runs 10.5 s, added up over the processes.
"""


def board() -> list[BoardRow]:
    small = {"parameters": {"embedding": 40_000, "dense": 99}, "train_samples_per_second": None}
    return summarise(
        [record(seed=2020, auc=0.77), record(seed=2021, auc=0.78), record("MMoE", auc=0.79, valid=None, **small)]
    )


def test_markdown_text() -> None:
    assert markdown(board()) == GOLDEN_MARKDOWN


def test_markdown_has_a_section_per_dataset_and_escapes_bars() -> None:
    text = markdown(summarise([record(), record(dataset="b|c")]))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## ml-100k", "## b\\|c"]


def test_csv_text() -> None:
    rows = summarise(
        [
            record(seed=1, auc=0.5, test={"like": {"auc": 0.5}}, valid=None),
            record(seed=2, auc=0.5, test={"like": {"auc": 0.75}}, valid=None),
            record("a,b", seed=1, test={"like": {"auc": None}}, valid=None, train_samples_per_second=None),
        ]
    )
    fingerprint = "feedbeef" * 8
    assert board_csv(rows) == (
        "dataset,name,model,task,metric,split,mean,sd,n,parameters_embedding,parameters_codebook,parameters_dense,"
        "parameters_total,samples_per_second,settings_digest,data_fingerprint,selected_on_test,runs,"
        "runs_above_constant,"
        "sample_error,flops,latency_p50_ms,latency_p99_ms,throughput,peak_memory_mib,epochs,train_seconds,trials\n"
        "ml-100k,DTN,DTN,like,auc,test,0.625,0.1767766952966369,2,40000,160000,1234,201234,1001.5,"
        f"0123456789abcdef,{fingerprint},False,2,0,,,,,,,4.0,2.0,\n"
        f'ml-100k,"a,b","a,b",like,auc,test,,,0,40000,160000,1234,201234,,0123456789abcdef,{fingerprint},False'
        ",1,0,,,,,,,4,2.0,\n"
    )


def test_csv_holds_every_metric_of_both_splits() -> None:
    lines = list(csv.DictReader(io.StringIO(board_csv(summarise([record()])))))
    assert len(lines) == 2 + 8
    assert {(line["split"], line["task"], line["metric"]) for line in lines} >= {
        ("valid", "love", "auc"),
        ("test", "love", "calibration"),
    }


def test_ten_seeds_lift_the_warning() -> None:
    few = notes(summarise([record(seed=seed) for seed in range(9)]))
    enough = notes(summarise([record(seed=seed) for seed in range(10)]))
    assert [note for note in few if note not in enough][-1].startswith("With fewer than 10 seeds")
    assert not any("descriptive" in note for note in enough)


def test_rows_selected_on_the_test_set_are_marked_wherever_they_show() -> None:
    rows = summarise([record("MMoE"), record(settings_digest="f" * 16, selected_on_test=True), record(seed=1)])
    assert [(row.model, row.selected_on_test) for row in rows] == [("MMoE", False), ("DTN", True), ("DTN", False)]
    shown = markdown(rows).splitlines()
    assert [line.split(" | ")[0] for line in shown[4:7]] == ["| MMoE", "| DTN (ffffff) †", "| DTN (012345)"]
    footnote = (
        "† Selected on the test set: these numbers are optimistic; they compare with published tables of the same "
        "protocol only."
    )
    assert f"- {footnote}" in shown
    assert footnote not in notes(summarise([record()]))
    console = Console(file=io.StringIO(), width=200)
    print_board(rows, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "DTN (ffffff) †" in text
    assert footnote in text
    lines = csv.DictReader(io.StringIO(board_csv(rows)))
    marks = {(line["settings_digest"][:1], line["selected_on_test"]) for line in lines}
    assert marks == {("f", "True"), ("0", "False")}


def test_a_record_of_before_the_flag_is_not_flagged() -> None:
    values = record().model_dump(mode="json")
    del values["selected_on_test"]
    assert RunRecord.model_validate(values).selected_on_test is False


def test_plain_columns_off_a_terminal_and_a_table_on_one() -> None:
    plain = Console(file=io.StringIO(), width=40)
    print_board(board(), plain)
    text = plain.file.getvalue()  # type: ignore[attr-defined]
    lines = text.splitlines()
    assert lines[0] == "ml-100k"
    assert lines[1].startswith("model  seeds         like AUC    like log loss")
    assert lines[1].endswith("embedding  codebook  dense  parameters  samples/s")
    assert lines[2].startswith("DTN        2  0.7750 ± 0.0071  0.5500 ± 0.0000")
    assert lines[3].endswith("40,000         –     99      40,099          –")
    assert len({len(line) for line in lines[1:4]}) == 1
    terminal = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    print_board(board(), terminal)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "0.7750 ± 0.0071" in shown
    assert "────" in shown


def test_files_are_written_under_the_boards_name(tmp_path: Path) -> None:
    path = write_board(board(), tmp_path / "new", "first")
    assert path == tmp_path / "new" / "first.md"
    assert path.read_text(encoding="utf-8") == markdown(board())
    assert path.with_suffix(".csv").read_text(encoding="utf-8") == board_csv(board())
    assert sorted(file.name for file in path.parent.iterdir()) == ["first.csv", "first.md"]
