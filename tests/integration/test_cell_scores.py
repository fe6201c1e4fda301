"""Cells of a leaderboard on a small table with users: stored test scores, statistics, costs, and the serial pass."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recbole_dtn.cli import main
from recbole_dtn.data.features import Features
from recbole_dtn.leaderboard import speed
from recbole_dtn.leaderboard.stored import Stored
from recbole_dtn.record.record import read_record
from recbole_dtn.record.scores import MOST_BYTES, ScoreKeeper, read_rows, read_scores
from recbole_dtn.training.fit import AsCell, Run, fit_argv

ROWS = 500


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A click that follows the user and the item; a purchase, observed after a click."""
    folder = tmp_path_factory.mktemp("shop")
    draw = np.random.default_rng(0)
    user, item = draw.integers(0, 25, ROWS), draw.integers(0, 9, ROWS)
    click = draw.random(ROWS) < 1 / (1 + np.exp(-(user % 2 * 2 - 1 + item % 3 - 1)))
    buy = click & (draw.random(ROWS) < np.where(item % 3 == 2, 0.7, 0.3))
    lines = ["user:token\titem:token\tw:float\tclick:float\tbuy:float"]
    lines += [f"u{user[row]}\ti{item[row]}\t{1 + row % 2}\t{int(click[row])}\t{int(buy[row])}" for row in range(ROWS)]
    (folder / "shop").mkdir()
    (folder / "shop" / "shop.inter").write_text("\n".join(lines) + "\n")
    (folder / "shop" / "shop.yaml").write_text(
        "fields: [{name: user}, {name: item}]\ngroup_field: user\n"
        "tasks: [{name: click, label: click}, {name: buy, label: buy, observed_when: click == 1}]\n"
    )
    return folder


def words(shop: Path, *more: str) -> list[str]:
    places = [f"--data_path={shop}", f"--output_dir={shop / 'runs'}"]
    sizes = ["--epochs=1", "--train_batch_size=100", "--embedding_size=4", "--threads=1", "--accelerator=cpu"]
    return ["--dataset=shop", *places, *sizes, *more]


@pytest.fixture(scope="module")
def cell(shop: Path) -> Callable[..., Run]:
    return lambda *more: fit_argv(words(shop, *more), cell=AsCell())


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:40] + b"\0" * 60 + whole[100:]])
def test_damaged_scores_count_as_missing_and_rows_are_written_again(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    keeper, folder = ScoreKeeper(50, 1), tmp_path / "data" / "DTN" / "run"
    folder.mkdir(parents=True)
    batch = Features(
        ids=torch.zeros(50, 1, dtype=torch.int64), dense=torch.empty(50, 0), labels=torch.rand(50, 1),
        observed=torch.ones(50, 1, dtype=torch.bool), row=torch.arange(50),
    )  # fmt: skip
    keeper.add(batch, torch.rand(50, 1))
    keeper.write(folder, "f")
    (rows,) = (tmp_path / "data" / ".test").iterdir()
    for file in (rows, folder / "test_scores.npz"):
        file.write_bytes(damage(file.read_bytes()))
    assert (read_rows(folder, "f"), read_scores(folder, "f")) == (None, None)
    keeper.write(folder, "f")
    found = read_rows(folder, "f")
    assert found is not None
    assert found.labels.tolist() == batch.labels.tolist()
    assert read_scores(folder, "f") is not None


def test_the_scores_of_a_cell_give_its_metrics(cell: Callable[..., Run]) -> None:
    for model in ("--model=SharedBottom", "--model=Logistic"):
        run = cell(model)
        fingerprint = run.record.data_fingerprint
        scores, rows = read_scores(run.folder, fingerprint), read_rows(run.folder, fingerprint)
        assert scores is not None
        assert rows is not None
        assert (scores.dtype, scores.shape, rows.labels.shape) == (np.float32, (50, 2), (50, 2))
        assert rows.group is not None
        assert rows.weight is None
        assert len(np.unique(rows.group)) > 10
        for place, task in enumerate(("click", "buy")):
            seen = ~np.isnan(rows.labels[:, place])
            assert seen.sum() == run.record.positives["test"][task][1]
            assert run.test is not None
            assert run.test[task]["auc"] == pytest.approx(roc_auc_score(rows.labels[seen, place], scores[seen, place]))
    assert len(list(run.folder.parent.parent.glob(".test/*.npz"))) == 1, "the labels stand once"
    assert read_scores(run.folder, "of other data") is None


def test_a_run_by_itself_keeps_no_scores_and_one_beside_others_says_so(shop: Path) -> None:
    alone = fit_argv(words(shop, "--model=Logistic"))
    assert not list(alone.folder.glob("*.npz"))
    assert not alone.record.beside_others
    beside = fit_argv(words(shop, "--model=Logistic"), cell=AsCell(beside_others=True))
    assert beside.record.beside_others


def test_weights_are_kept(cell: Callable[..., Run]) -> None:
    run = cell("--model=Logistic", "--weight_field=w")
    rows = read_rows(run.folder, run.record.data_fingerprint)
    assert rows is not None
    assert rows.weight is not None
    assert set(rows.weight.tolist()) == {1.0, 2.0}


def test_scores_of_a_large_test_split_are_not_kept(tmp_path: Path) -> None:
    keeper = ScoreKeeper(MOST_BYTES // 8 + 1, 2)
    assert not keeper.fits
    keeper.write(tmp_path, "f")
    assert not list(tmp_path.iterdir())
    assert ScoreKeeper(MOST_BYTES // 8, 2).fits


def test_a_damaged_file_counts_as_none(cell: Callable[..., Run]) -> None:
    run = cell("--model=Logistic", "--seed=7")
    path = run.folder / "test_scores.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert read_scores(run.folder, run.record.data_fingerprint) is None


# ---- boards ---------------------------------------------------------------------------------------------------------


def board(shop: Path, output: Path, *more: str) -> tuple[int, Path]:
    """Run a small leaderboard; its exit code and Markdown."""
    given = [word for word in words(shop) if not word.startswith("--dataset=")]
    options = ["--models=SharedBottom,MMoE", "--datasets=shop", "--floors=Logistic", "--seeds=2", f"--output={output}"]
    return main(["leaderboard", "run", *options, *given, *more]), output / "shop.md"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def ran(shop: Path) -> Path:
    """The folder of the tables of a leaderboard that has run."""
    code, path = board(shop, shop / "tables")
    assert code == 0
    return path.parent


def test_a_board_computes_its_statistics_at_its_end(ran: Path, shop: Path) -> None:
    found = json.loads((ran / "shop.statistics.json").read_text())["datasets"]["shop"]
    assert (found["test_rows"], found["drawn"]) == (50, "users")
    assert {line["draws"] for line in found["pairs"]} == {2000}
    lines = {line["name"]: line["differences"] for line in found["pairs"]}
    best = found["comparator"]["name"]
    assert set(lines) == {"SharedBottom", "MMoE", "Logistic"} - {best}
    assert [each["task"] for each in lines[min(lines)]] == ["click", "buy"]
    first = lines[min(lines)][0]
    assert first["sample"]["method"] == "bootstrap"
    # The difference of the means over seeds that the records have.
    runs = [read_record(path) for path in shop.glob("runs/shop/*/*/record.json")]
    of_board = [run for run in runs if run.seed in (2020, 2021) and run.settings["weight_field"] is None]
    mean = {
        model: np.mean([run.test["click"]["auc"] for run in of_board if run.model == model and run.test])
        for model in (min(lines), best)
    }
    assert first["both"]["difference"] == pytest.approx(mean[min(lines)] - mean[best], abs=1e-6)
    text = (ran / "shop.md").read_text()
    assert "draws of seeds x users at once" in text
    assert "| model | seeds | click@all AUC | click@all log loss | buy@click AUC |" in text
    assert "[0.0" in text, "a standard error beside an AUC"


def test_render_takes_the_statistics_from_its_file_and_computes_missing_ones(
    ran: Path, shop: Path, tmp_path: Path
) -> None:
    options = ["--models=SharedBottom,MMoE", "--datasets=shop", "--floors=Logistic", "--seeds=2"]
    given = [word for word in words(shop) if not word.startswith("--dataset=")]
    command = ["leaderboard", "render", *options, *given]
    assert main([*command, f"--output={tmp_path / 'again'}"]) == 0
    assert files_of(tmp_path / "again") == files_of(ran), "computed from the scores, the same bytes"
    # Records without scores, with the file of the statistics beside them.
    archive = tmp_path / "archive"
    shutil.copytree(shop / "runs", archive, ignore=shutil.ignore_patterns("*.npz"))
    shutil.copy(ran / "shop.statistics.json", archive)
    assert main([*command, f"--records={archive}", f"--output={tmp_path / 'moved'}"]) == 0
    assert files_of(tmp_path / "moved") == files_of(ran)
    (archive / "shop.statistics.json").unlink()
    assert main([*command, f"--records={archive}", f"--output={tmp_path / 'none'}"]) == 0
    text = (tmp_path / "none" / "shop.md").read_text()
    assert "not called significant: " in text
    assert "no test scores are stored" in text


# ---- speed ----------------------------------------------------------------------------------------------------------


def test_the_serial_pass_measures_every_row_once(
    ran: Path, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process; `leaderboard speed` starts one for each row.
    asked = []

    def here(overrides: list[str], folder: Path | None, seconds: float) -> dict[str, Any]:
        asked.append(next(word for word in overrides if word.startswith("--model=")))
        assert folder is not None
        return speed.measured(overrides, folder, 0.01)

    monkeypatch.setattr(speed, "_apart", here)
    monkeypatch.setattr(speed, "LOOKED_AT", 0.01)
    busy = 0.0
    monkeypatch.setattr(speed.psutil, "cpu_percent", lambda seconds: 100 * busy / (os.cpu_count() or 1))
    options = ["--models=SharedBottom,MMoE", "--datasets=shop", "--floors=Logistic", "--seeds=2", f"--output={ran}"]
    command = ["leaderboard", "speed", *options, *[word for word in words(shop) if not word.startswith("--dataset=")]]
    before = (ran / "shop.md").read_text()
    assert "p50 ms" not in before
    assert main(command) == 0
    assert asked == ["--model=SharedBottom", "--model=MMoE", "--model=Logistic"]
    stored = json.loads((ran / "shop.speed.json").read_text())
    shared, mmoe, logistic = stored["rows"]
    assert "1 thread of torch" in stored["machine"]
    for line in (shared, mmoe):
        assert line["train_samples_per_second"] > 0
        assert line["flops"] > 2 * 8 * 8
        assert 0 < line["latency_p50_ms"] <= line["latency_p99_ms"]
        assert line["throughput"] > 1e3 / line["latency_p50_ms"], "many rows at once are faster than one by one"
        assert line["peak_memory_mib"] > 50
    assert mmoe["flops"] > shared["flops"]
    assert (logistic["train_samples_per_second"], logistic["flops"]) == (None, None)
    text = (ran / "shop.md").read_text()
    assert "| model | FLOPs/row | p50 ms | p99 ms | rows/s at 8,192 | peak MiB | epochs | training s |" in text
    assert f"speed and memory measured one row at a time on {stored['machine']}" in text
    for cores, told in ((0.4, False), (1.6, True)):
        lines = [{**line, "busy_cores": cores} for line in stored["rows"]]
        place = Stored(speed={**stored, "rows": lines}).measured_on or ""
        assert ("while other processes used up to 1.6 cores" in place) == told
    asked.clear()
    assert main(command) == 0
    assert asked == [], "measured before"
    assert "measured before" in capsys.readouterr().out
    # What was measured while the machine was busy is measured again.
    stored["rows"][1]["busy_cores"] = 1.6
    (ran / "shop.speed.json").write_text(json.dumps(stored))
    assert main(command) == 0
    assert asked == ["--model=MMoE"]
    again = json.loads((ran / "shop.speed.json").read_text())["rows"]
    assert sorted((line["name"], line["busy_cores"]) for line in again) == [
        ("Logistic", 0.0), ("MMoE", 0.0), ("SharedBottom", 0.0)
    ]  # fmt: skip


def test_flops_are_those_of_the_matrix_products(shop: Path) -> None:
    # Two fields of width 4 into one hidden layer of 3, and a tower of 2 and an output for each of two tasks.
    given = words(shop, "--model=SharedBottom", "--bottom_hidden=[3]", "--tower_hidden=[2]")
    found = speed.measured(given, None, 0.01)
    assert found["flops"] == 2 * (8 * 3 + 2 * (3 * 2 + 2))
