"""examples/serving: an exported model scores raw values from a script and over HTTP as its run does."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recbole_dtn.cli import main
from recbole_dtn.serving.load import load
from recbole_dtn.training.fit import fit
from tests.integration.test_predict import make_rows, write_set

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} of the extra `onnx` is not installed")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "serving"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``model``: an export; ``rows.jsonl``: raw rows; ``wanted.parquet``: their scores by the run."""
    home = tmp_path_factory.mktemp("served")
    write_set(home / "dataset" / "toy", make_rows(0, 300))
    given = {
        "data_path": str(home / "dataset"), "output_dir": str(home / "runs"), "epochs": 1, "train_batch_size": 128,
        "embedding_size": 4, "accelerator": "cpu", "optimizer.lr": 0.05, "experts": 2, "expert_hidden": [8],
        "tower_hidden": [4],
    }  # fmt: skip
    folder = fit("MMoE", "toy", given, quiet=True).folder
    assert main(["export", f"--run={folder}", "--format=onnx", f"--output={home / 'model'}"]) == 0
    rows = make_rows(5, 70).drop("click", "rating", "stay", "mass")
    unknown = {"user": "nobody", "city": "nowhere", "tags": ["none"], "seen": [], "seen_weight": []}
    rows = pl.concat([rows, pl.DataFrame([{**rows.row(0, named=True), **unknown}], schema=rows.schema)])
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.to_dicts()))
    load(folder).predict(rows).write_parquet(home / "wanted.parquet")
    return home


@pytest.fixture
def rows(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    spec = importlib.util.spec_from_file_location(f"serving_example_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_close(found: list[dict[str, float]], home: Path) -> None:
    wanted = pl.read_parquet(home / "wanted.parquet")
    assert [list(row) for row in found] == [wanted.columns] * len(wanted)
    for row, known in zip(found, wanted.to_dicts(), strict=True):
        assert row == pytest.approx(known, abs=1e-5)


def test_the_script_scores_a_file_of_rows(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = example("scorer", monkeypatch)
    monkeypatch.setattr(scorer, "BATCH_ROWS", 30)  # three batches
    scorer.main([str(home / "model"), str(home / "rows.jsonl")])
    assert_close([json.loads(line) for line in capsys.readouterr().out.splitlines()], home)
    monkeypatch.setattr(scorer, "WARM_UP", 1)
    monkeypatch.setattr(scorer, "CALLS", 5)
    scorer.main([str(home / "model"), str(home / "rows.jsonl"), "--latency"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["batch of  1", "batch of 64"]


def test_rows_are_scored_over_http(home: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("fastapi", "httpx"):
        pytest.importorskip(package, reason=f"{package} of the extra `serving` is not installed")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("MODEL", str(home / "model"))
    client = TestClient(example("app", monkeypatch).create_app())
    answer = client.post("/score", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    assert_close(answer.json()["scores"], home)
    assert client.post("/score", json={"rows": []}).json() == {"scores": []}

    def refused(row: dict[str, Any]) -> tuple[list[Any], str]:
        found = client.post("/score", json={"rows": [rows[0], row]})
        assert found.status_code == 422, found.text
        (fault,) = found.json()["detail"]
        return fault["loc"], fault["msg"]

    good = rows[0]
    place = ["body", "rows", 1]
    assert refused({**good, "plain": "5"}) == ([*place, "plain"], "Input should be a valid number")
    place_of_user, message = refused({**good, "user": 1.5})
    assert place_of_user == [*place, "user"]
    assert message.endswith("expected a text or an integer, found 1.5")
    assert refused({**good, "tags": "a b"}) == ([*place, "tags"], "Input should be a valid list")
    assert refused({name: good[name] for name in good if name != "age"}) == ([*place, "age"], "Field required")
    assert refused({**good, "agee": 3}) == ([*place, "agee"], "Extra inputs are not permitted")
    assert "seen has 1 values, seen_weight 2" in refused({**good, "seen": ["a"], "seen_weight": [1.0, 2.0]})[1]
    # The description of a row is that of the export: an integer is a token, and a number.
    assert client.post("/score", json={"rows": [{**good, "user": 7, "age": 30}]}).status_code == 200
    described = client.get("/openapi.json").json()["components"]["schemas"]["Row"]
    assert set(described["properties"]) == set(good)
    assert set(described["required"]) == set(good)


def test_an_unknown_domain_is_refused(home: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = example("scorer", monkeypatch).Scorer(home / "model")
    scorer.domain = {"name": "city", "tokens": [str(row["city"]) for row in rows[:2]]}
    assert len(scorer(rows[:2])) == 2
    with pytest.raises(ValueError, match="row 1: city is 'nowhere', expected one of "):
        scorer([rows[0], {**rows[1], "city": "nowhere"}])
