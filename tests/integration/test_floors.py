"""Logistic and Boosting through the product: record, checkpoint, test, predict, Ctrl-C and leaderboards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from recbole_dtn import fit, load
from recbole_dtn.cli.app import main
from recbole_dtn.model.logistic import Logistic
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record
from recbole_dtn.training.fit import Run

ROWS = 600
SETTINGS = {"epochs": 1, "optimizer.lr": 0.5, "embedding_size": 3, "balancer": "pcgrad", "max_trees": 30}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A click that follows the user and the price; a purchase, observed after a click, that follows the tags."""
    folder = tmp_path_factory.mktemp("floors")
    draw = np.random.default_rng(0)
    user, price = draw.integers(0, 8, ROWS), draw.normal(size=ROWS)
    tags = [draw.choice(5, size=draw.integers(0, 4), replace=False) for _ in range(ROWS)]
    click = draw.random(ROWS) < 1 / (1 + np.exp(-(user % 2 * 2 - 1 + price)))
    buy = click & (draw.random(ROWS) < np.where([3 in each for each in tags], 0.8, 0.2))
    lines = ["user:token\tprice:float\ttags:token_seq\tw:float\tclick:float\tbuy:float"]
    for row in range(ROWS):
        cells = (user[row], "" if row % 9 == 0 else f"{price[row]:.4f}", " ".join(f"g{tag}" for tag in tags[row]))
        lines.append("\t".join(map(str, (*cells, 1 + row % 2, int(click[row]), int(buy[row])))))
    (folder / "shop").mkdir()
    (folder / "shop" / "shop.inter").write_text("\n".join(lines) + "\n")
    (folder / "shop" / "shop.yaml").write_text(
        "fields: [{name: user}, {name: price, type: float}, {name: tags, type: token_seq}]\nweight_field: w\n"
        "tasks: [{name: click, label: click}, {name: buy, label: buy, observed_when: click == 1}]\n"
    )
    return folder


def run_of(model: str, data: Path) -> Run:
    own = {key: value for key, value in SETTINGS.items() if key != "max_trees" or model == "Boosting"}
    places = {"data_path": str(data), "output_dir": str(data / "runs"), "threads": 1}
    return fit(model, "shop", {**own, **places}, quiet=True)


@pytest.fixture(scope="module")
def runs(data: Path) -> dict[str, Run]:
    return {model: run_of(model, data) for model in ("Logistic", "Boosting")}


def truth(data: Path, run: Run) -> tuple[pl.DataFrame, np.ndarray]:
    """The rows of the test split, raw."""
    from recbole_dtn.config.load import restore
    from recbole_dtn.preprocess.prepare import prepare

    frame = pl.read_csv(data / "shop" / "shop.inter", separator="\t")
    frame = frame.rename({name: name.split(":")[0] for name in frame.columns})
    numbers = prepare(restore(run.record.settings)).splits["test"].row_numbers()
    return frame[numbers.tolist()].with_columns(pl.col("user").cast(pl.String)), numbers


@pytest.mark.parametrize("model", ["Logistic", "Boosting"])
def test_the_record_is_what_its_predictions_say(model: str, data: Path, runs: dict[str, Run]) -> None:
    run = runs[model]
    assert run.status == "finished"
    frame, numbers = truth(data, run)
    assert len(numbers) == ROWS // 10
    scores = load(run.folder).predict(frame)
    for task in ("click", "buy"):
        seen = np.ones(len(frame), bool) if task == "click" else frame["click"].to_numpy() == 1
        labels, weights = frame[task].to_numpy()[seen], frame["w"].to_numpy()[seen]
        found = run.test[task]
        assert found["auc"] == pytest.approx(
            roc_auc_score(labels, scores[task].to_numpy()[seen], sample_weight=weights)
        )
        assert found["logloss"] == pytest.approx(log_loss(labels, scores[task].to_numpy()[seen], sample_weight=weights))
        assert found["auc"] > 0.6, f"{task} has not been learned"
    record = run.record
    assert record.train_samples_per_second is None
    assert record.gate_weights == {}
    assert record.parameters["embedding" if model == "Logistic" else "dense"] > 10
    assert 1 <= record.best_epoch <= record.epochs
    assert (record.epochs == 1) == (model == "Logistic")
    assert read_checkpoint(run.folder).epoch == record.best_epoch
    assert {"record.json", "settings.yaml", "checkpoint.ckpt", "metrics.csv", "log.txt"} == {
        path.name for path in run.folder.iterdir()
    }
    state = torch.load(run.folder / "checkpoint.ckpt", weights_only=True)["state_dict"]
    assert all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize("model", ["Logistic", "Boosting"])
def test_the_command_test_repeats_it(model: str, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", f"--run={runs[model].folder}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["test"]
    for task, values in runs[model].test.items():
        assert found[task] == pytest.approx(values, abs=1e-9)


def test_a_leaderboard_runs_the_floors_once_each(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models=SharedBottom", "--datasets=shop", f"--data_path={data}", f"--output_dir={data / 'board'}"]
    more = ["--seeds=2", "--epochs=1", "--bottom_hidden=[8]", "--threads=1", f"--output={data / 'tables'}"]
    assert main(["leaderboard", "run", *words, *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line.split(" ...")[0] for line in lines if line.startswith("[")]
    assert titles == [
        *("[1/4] SharedBottom shop seed 2020", "[2/4] SharedBottom shop seed 2021"),
        *("[3/4] Logistic shop seed 2020", "[4/4] Boosting shop seed 2020"),
    ]
    table = (data / "tables" / "shop.md").read_text()
    assert "| Logistic | 1 |" in table
    assert "over seeds 2020, 2021." in table
    assert "Logistic, Boosting: deterministic, one run." in table


def test_ctrl_c_writes_a_record(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Logistic._fit_task

    def interrupt(self: Logistic, *arguments: object) -> object:
        if arguments[0].name == "buy":  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Logistic, "_fit_task", interrupt)
    run = run_of("Logistic", data)
    assert (run.status, run.test, run.record.best_epoch) == ("interrupted", None, None)
    assert run.record.interrupted_at == "logistic regression of click"
    assert read_record(run.folder) == run.record


def test_a_dry_run_says_that_there_are_no_epochs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model=Boosting", "--dataset=shop", f"--data_path={data}", "--dry_run"]) == 0
    assert "fitted at once on 480 training rows" in capsys.readouterr().out
