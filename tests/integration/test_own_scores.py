"""The rows of a split go out, another tool's predictions come back, and a run's own come back as its test."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_dtn.cli.app import main
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.serving.load import LoadedRun, load
from recbole_dtn.serving.score_files import evaluate_files
from recbole_dtn.training.fit import Run


@pytest.fixture(scope="module")
def loaded(dtn_run: Run) -> LoadedRun:
    return load(dtn_run.folder)


def export(run: LoadedRun, folder: Path, *words: str) -> int:
    data = [f"--data_path={run.settings.data_path}", "--limit_rows=3000"]
    return main(["data", "split", "--dataset=ml-100k", *data, f"--export={folder}", *words])


@pytest.fixture(scope="module")
def rows(loaded: LoadedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "rows"
    assert export(loaded, folder) == 0
    return folder


def test_the_exported_rows_are_those_of_the_split(loaded: LoadedRun, rows: Path, tmp_path: Path, capsys) -> None:
    prepared = prepare(loaded.settings)
    assert export(loaded, tmp_path, "--format=csv") == 0
    for part, split in prepared.splits.items():
        frame = pl.read_parquet(rows / f"{part}.parquet")
        batch = split.batch(np.arange(split.rows))
        assert frame["row"].to_list() == batch.row.tolist()
        assert frame.select("like", "love").to_numpy().tolist() == batch.labels.tolist()
        # Raw values: encoded again they are the ids of the split.
        again = loaded.vocabularies.encode(frame, prepared.schema)
        assert again.ids.tolist() == batch.ids.tolist()
        genres = next(iter(batch.multi))
        assert again.multi[genres].values.tolist() == batch.multi[genres].values.tolist()
        text = pl.read_csv(tmp_path / f"{part}.csv", infer_schema_length=None)
        assert loaded.vocabularies.encode(text, prepared.schema).ids.tolist() == batch.ids.tolist()
    assert json.loads((rows / "export.json").read_text())["rows"] == {"train": 2400, "valid": 300, "test": 300}
    assert export(loaded, rows) == 2
    assert "exists: choose another folder, or give --overwrite" in capsys.readouterr().err
    assert main(["data", "split", "--dataset=ml-100k"]) == 2
    assert "expected --name=NEW (a data set) or --export=FOLDER" in capsys.readouterr().err


def test_a_run_comes_back_as_its_own_test(loaded: LoadedRun, dtn_run: Run, rows: Path, tmp_path: Path, capsys) -> None:
    frame = pl.read_parquet(rows / "test.parquet")
    own = loaded.predict(frame).with_columns(frame["row"]).sample(fraction=1.0, shuffle=True, seed=1)
    own.write_csv(tmp_path / "own.csv")
    for words in ([f"--labels={rows / 'test.parquet'}"], [f"--run={dtn_run.folder}"]):
        assert main(["evaluate", f"--predictions={tmp_path / 'own.csv'}", *words, "--draws=20", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        for task, values in dtn_run.record.test.items():
            for metric, value in values.items():
                assert found["metrics"]["own"][task][metric] == pytest.approx(value, abs=1e-9), (task, metric)
    (one, *_) = found["comparisons"]
    assert (one["second"], one["difference"]) == (dtn_run.folder.name, pytest.approx(0.0, abs=1e-9))


def test_the_example_trains_on_the_rows_and_is_held_against_the_run(
    dtn_run: Run, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).resolve().parents[2] / "examples" / "evaluate_own.py"
    spec = importlib.util.spec_from_file_location("evaluate_own", file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.write_predictions(rows, tmp_path / "logistic.parquet")
    found = evaluate_files([tmp_path / "logistic.parquet"], runs=[dtn_run.folder], draws=50)
    assert found.metrics["logistic"]["like"]["auc"] > 0.6
    tests = [test for test in found.comparisons if test.metric == "auc"]
    assert [test.method for test in tests] == ["DeLong by group"] * 2
    values = found.metrics["logistic"]["like"]["auc"], found.metrics[dtn_run.folder.name]["like"]["auc"]
    assert tests[0].difference == pytest.approx(values[0] - values[1])
    assert tests[0].low < tests[0].difference < tests[0].high
