"""Warnings of whole runs: planted faults are told on the terminal, in the record and on a board, clean sets are not."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from recbole_dtn import fit
from recbole_dtn.config.load import resolve
from recbole_dtn.leaderboard.render import markdown
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.record.record import read_record
from recbole_dtn.training.fit import Run, fit_settings

SMALL: dict[str, object] = {"embedding_size": 4, "train_batch_size": 256, "accelerator": "cpu"}
ROWS = 2000


@pytest.fixture(scope="module")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """A small funnel with outcomes among its inputs, and what its run printed."""
    home = tmp_path_factory.mktemp("funnel")
    folder = home / "dataset" / "funnel"
    folder.mkdir(parents=True)
    (folder / "funnel.yaml").write_text(
        "fields: [{name: user}, {name: answer}, {name: seconds, type: float}, {name: basket_value, type: float}]\n"
        "tasks: [{name: click, label: click}, {name: buy, label: buy, after: [click]}]\n"
    )
    rng = random.Random(4)
    with (folder / "funnel.inter").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(
            ["user:token", "answer:token", "seconds:float", "basket_value:float", "click:float", "buy:float"]
        )
        for _ in range(ROWS):
            click = int(rng.random() < 0.4)
            buy = int(click and rng.random() < 0.3)
            seconds = f"{rng.uniform(1, 60):.1f}" if click and rng.random() < 0.5 else "0"
            answer = f"{'yes' if click else 'no'}{rng.randrange(3)}"
            writer.writerow(
                [f"u{rng.randrange(50)}", answer, seconds, f"{rng.uniform(1, 9):.2f}", f"{click}.0", f"{buy}.0"]
            )
    given = {
        **SMALL,
        "model": "SharedBottom",
        "dataset": "funnel",
        "data_path": str(folder.parent),
        "output_dir": str(home / "runs"),
    }
    given |= {"epochs": 3, "optimizer.lr": 0.03, "progress": False}
    out = io.StringIO()
    run = fit_settings(resolve(given), console=Console(file=out, width=200))
    return run, out.getvalue()


def test_every_warning_is_printed_and_recorded(funnel: tuple[Run, str]) -> None:
    run, printed = funnel
    warnings = run.record.warnings
    for text in warnings:
        assert printed.count(f"warning: {text}\n") == 1
    starts = [text.split(":")[0] for text in warnings]
    positives = {split: found["buy"] for split, found in run.record.positives.items()}
    assert positives["test"][1] == ROWS // 10
    assert positives["test"][0] < 100
    for split, name in (("test", "test"), ("valid", "validation")):
        ones, rows = positives[split]
        assert any(text.startswith(f"task 'buy' has {ones} positives in {name} ({rows} rows)") for text in warnings)
    assert "field 'answer' alone gives AUC 1.00 for task 'click'" in starts
    assert any(
        text.startswith("field 'seconds' is other than '0' in ") and "click is 1 in all" in text for text in warnings
    )
    assert "field 'basket_value' has the name of an outcome" in starts
    assert any(text.startswith("task 'click' has a test AUC of ") for text in warnings)


def test_the_data_is_warned_of_before_the_first_epoch_and_results_after_the_last(funnel: tuple[Run, str]) -> None:
    _, printed = funnel
    assert (
        printed.index("field 'answer' alone")
        < printed.index("epoch 1/3")
        < printed.index("task 'click' has a test AUC")
    )


def test_the_record_keeps_them_and_a_board_shows_them(funnel: tuple[Run, str]) -> None:
    run, _ = funnel
    record = read_record(run.folder)
    assert record == run.record
    text = markdown(summarise([record]))
    for sentence in record.warnings:
        shown = sentence.replace("`", "\\`")  # a backtick in a warning is text, not code of Markdown
        assert f"- Warning: {shown} [SharedBottom]" in text
    ones, rows = record.positives["train"]["buy"]
    assert f"| buy | {ones} of {rows:,} (" in text


def test_a_run_that_diverges_says_so(small_fit: Callable[..., Run]) -> None:
    run = small_fit("SharedBottom", optimizer__lr=2.0, epochs=2)
    assert run.test is not None
    worse = [task for task, values in run.test.items() if (values["ne"] or 0) > 1.1]
    assert worse, "a learning rate of 2 is too large for this"
    for task in worse:
        assert any(text.startswith(f"task '{task}' has a log loss of ") for text in run.record.warnings)


def test_chains_are_counted_over_the_test_rows(dtn_run: Run) -> None:
    ((later, counts),) = dtn_run.record.chain_breaks.items()
    assert later == "love"
    broken, rows = counts["like"]
    assert rows == dtn_run.record.positives["test"]["like"][1] == 300
    assert 0 <= broken <= rows
    said = f"P(love) > P(like) in {broken} of 300 test rows"
    assert (said in (dtn_run.folder / "log.txt").read_text()) == (broken > 0)


def test_what_top_fields_leaves_out_is_said(small_fit: Callable[..., Run]) -> None:
    run = small_fit("DTN", epochs=1, interactions=["gdcn", {"name": "memonet", "codes": 50, "top_fields": 7}])
    log = (run.folder / "log.txt").read_text()
    assert log.count("memonet: top_fields=7 leaves gender, weekday out of its pairs (21 of 36 pairs; ") == 1
    assert log.index("top_fields=7 leaves") < log.index("epoch 1/1")


def trained(dataset: str, folder: Path, **overrides: object) -> Run:
    paths = {"data_path": str(folder / "dataset"), "output_dir": str(folder / "runs")}
    return fit("SharedBottom", dataset, {**SMALL, **paths, "epochs": 2, **overrides}, quiet=True)


def test_clean_ml_100k_says_nothing(tmp_path: Path) -> None:
    assert trained("ml-100k", tmp_path, limit_rows=12_000).record.warnings == []


def test_clean_census_says_nothing(tmp_path: Path, shared_data: Path) -> None:
    """Income and marriage of 20,000 persons: inputs that describe a person, some of which tell that he is a child."""
    source = shared_data / "census_income_kdd" / "census-income.test.gz"
    if not source.is_file():
        pytest.skip(f"not here: {source}")
    with gzip.open(source, "rt") as file:
        lines = [line for _, line in zip(range(20_000), file, strict=False)]
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "census-income.data").write_text("".join(lines[:14_000]))
    (raw / "census-income.test").write_text("".join(lines[14_000:]))
    run = trained("census-income", tmp_path, raw=str(raw), max_rejected=1.0)
    assert run.record.warnings == []
    assert run.test is not None
    assert (run.test["marital"]["auc"] or 0) > 0.98
