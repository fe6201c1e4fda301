"""Exported models: raw values in, the run's scores out."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recbole_dtn.cli import main
from recbole_dtn.serving.export import _frame, _with_odd_rows, describe, export_run, sample_rows
from recbole_dtn.serving.load import load
from recbole_dtn.serving.standalone import Encoder
from recbole_dtn.training.fit import fit
from tests.integration.test_predict import make_rows, write_set

HAS_ONNX = all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))
SMALL = {"experts": 2, "expert_hidden": [8], "tower_hidden": [4]}
OWN = {
    "MMoE": SMALL,
    "PLE": {"tower_hidden": [4]},
    "DTN": {"module_dim": 8, "interactions": ["gdcn", {"name": "memonet", "codes": 50, "attention_dim": 4}]},
}
# Of these, the program alone is looked at; those with a domain read that of the column city, whose cells are all there.
PROGRAMS = {
    **OWN,
    "HoME": {"meta_hidden": [8], "expert_hidden": [4], "feature_rank": 2, "self_rank": 2},
    "HMoE": {**SMALL, "weight_hidden": [4], "owners": "pairs", "domain_field": "city"},
    "PEPNet": {"tower_hidden": [4], "domain_field": "city"},
    "STAR": {"star_hidden": [8], "tower_hidden": [4], "aux_hidden": [4], "domain_field": "city"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("export")
    write_set(home / "dataset" / "toy", make_rows(0, 300))
    write_set(home / "dataset" / "domains", of_domains(make_rows(0, 300)))
    found = {}
    for model, own in PROGRAMS.items():
        given = {
            "data_path": str(home / "dataset"), "output_dir": str(home / "runs"), "epochs": 1, "train_batch_size": 128,
            "embedding_size": 4, "accelerator": "cpu", "optimizer.lr": 0.05, **own,
        }  # fmt: skip
        dataset = "domains" if "domain_field" in own else "toy"
        if model == "STAR":  # a domain that is no field
            given["fields"] = [{"name": "user"}, {"name": "age", "type": "float"}]
        found[model] = fit(model, dataset, given, quiet=True).folder
    return found


def of_domains(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with two values in the column city, one of which atomic files have to escape."""
    return frame.with_columns(
        city=pl.when(pl.col("city").is_in(["a b", "plain"])).then(pl.lit("a b")).otherwise(pl.lit("50%25"))
    )


@pytest.mark.parametrize("model", list(PROGRAMS))
def test_a_program_and_its_encoder_score_raw_values(model: str, runs: dict[str, Path], tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["export", f"--run={runs[model]}", "--format=torch-export", f"--output={out}"]) == 0
    assert "wrote encode.py, encoder.json, model.pt2" in capsys.readouterr().out
    # The encoder beside the model, which imports numpy alone, and rows that were not compared at the export.
    spec = importlib.util.spec_from_file_location("own_encoder", out / "encode.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encoder = module.Encoder(out / "encoder.json")
    program = torch.export.load(out / "model.pt2").module()
    run = load(runs[model])
    frame = make_rows(5, 90).drop("click", "rating", "stay", "mass")
    frame = of_domains(frame) if "domain_field" in PROGRAMS[model] else frame
    for rows in (frame, frame[:5], frame[3:4]):
        raw = {name: rows[name].to_list() for name in rows.columns}
        found = program(*(torch.from_numpy(array) for array in encoder(raw)))
        wanted = run.predict(rows)
        assert encoder.tasks == wanted.columns
        for column, task in zip(found, wanted.columns, strict=True):
            assert np.abs(column.numpy()[: len(rows)] - wanted[task].to_numpy()).max() < 1e-5, task


@pytest.mark.skipif(not HAS_ONNX, reason="the extra onnx is not installed")
@pytest.mark.parametrize("model", list(OWN))
def test_an_onnx_graph_scores_raw_values(
    model: str, runs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    out = tmp_path / "out"
    assert main(["export", f"--run={runs[model]}", "--format=onnx", f"--output={out}"]) == 0
    assert capfd.readouterr().err == "", "no notes of the libraries"
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    kinds = {each.name: each.type for each in session.get_inputs()}
    assert kinds["user"] == "tensor(string)"
    assert kinds["plain"] == "tensor(float)"
    assert kinds["tags.offsets"] == "tensor(int64)"
    frame = make_rows(5, 90)
    wanted = load(runs[model]).predict(frame)
    for start, stop in ((0, 90), (3, 4)):
        rows = frame[start:stop]
        given = {name: rows[name].fill_null("").to_numpy().astype(object) for name in ("user", "city")}
        given |= {
            name: rows[name].fill_null(float("nan")).to_numpy().astype(np.float32)
            for name in ("plain", "amount", "age", "skewed")
        }
        for name in ("tags", "seen"):
            given[name] = np.array(rows[name].explode(empty_as_null=False).to_list(), object)
            given[f"{name}.offsets"] = np.append(0, rows[name].list.len().cum_sum().to_numpy()).astype(np.int64)
        given["seen_weight"] = rows["seen_weight"].explode(empty_as_null=False).to_numpy().astype(np.float32)
        found = dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True))
        for task in wanted.columns:
            assert np.abs(found[f"{task}.score"] - wanted[task][start:stop].to_numpy()).max() < 1e-5, task


@pytest.mark.skipif(not HAS_ONNX, reason="the extra onnx is not installed")
def test_an_onnx_graph_reads_domains_and_ends_at_an_unknown_one(runs: dict[str, Path], tmp_path: Path) -> None:
    import onnxruntime

    assert main(["export", f"--run={runs['STAR']}", "--format=onnx", f"--output={tmp_path / 'out'}"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert {each.name for each in session.get_inputs()} == {"user", "age", "city"}
    frame = of_domains(make_rows(5, 9)).with_columns(pl.col("user").fill_null(""), pl.col("age").fill_null(30.0))
    given = {name: frame[name].to_numpy().astype(object) for name in ("user", "city")}
    given["age"] = frame["age"].to_numpy().astype(np.float32)
    found = session.run(["click.score"], given)[0]
    assert np.abs(found - load(runs["STAR"]).predict(frame)["click"].to_numpy()).max() < 1e-5
    for unknown in ("no such", ""):
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(["click.score"], given | {"city": np.array([unknown] * 9, object)})


def test_the_encoder_names_an_unknown_domain(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text(json.dumps(describe(load(runs["STAR"]))))
    encoder = Encoder(tmp_path / "encoder.json")
    rows = {"user": ["u1"] * 3, "age": [1.0] * 3, "city": ["a b", "50%25", "a b"]}
    assert encoder(rows)[-1].tolist() == [1, 0, 1]  # in the order of their bytes
    for value in ("x", None):
        with pytest.raises(ValueError, match=f"city: {value!r} is none of the domains 50%25, a b"):
            encoder({**rows, "city": ["a b", value, "a b"]})


def test_what_cannot_be_exported_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def refused(*words: str) -> str:
        assert main(["export", f"--run={runs['MMoE']}", f"--output={out}", *words]) == 2
        assert not (out / "model.pt2").exists()
        return capsys.readouterr().err

    assert "did you mean 'onnx'" in refused("--format=onx")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    err = refused("--format=onnx")
    assert "onnxruntime: pip install 'recbole-dtn[onnx]', or take --format=torch-export" in err
    assert "no-such.csv: no such file" in refused("--format=torch-export", "--rows=no-such.csv")
    out.mkdir()
    assert "exists: choose another folder, or give --overwrite" in refused("--format=torch-export")
    out.rmdir()
    # A score that differs is found, and nothing is written.
    run = load(runs["MMoE"])
    rows = sample_rows(run)
    right = run.predict
    monkeypatch.setattr(run, "predict", lambda frame: right(frame) + 2e-5)
    with pytest.raises(Exception, match=r"the exported score of task 'click' is .* nothing was written"):
        export_run(run, "torch-export", out, rows)
    assert list(tmp_path.iterdir()) == []


def test_the_rows_compared_are_raw_values_with_odd_ones(runs: dict[str, Path]) -> None:
    run = load(runs["MMoE"])
    rows = sample_rows(run)
    frame = make_rows(0, 300)[:256]
    assert rows["city"] == frame["city"].to_list()
    assert rows["seen"] == frame["seen"].to_list()
    odd = _with_odd_rows(run, rows)
    assert {len(values) for values in odd.values()} == {258}
    features = run.vocabularies.encode(_frame(run, odd), run.model.schema)
    user = run.model.schema.fields[0]
    assert features.ids[-2:, 0].tolist() == [user.offset + 1, user.offset]


def test_the_encoder_needs_numpy_alone() -> None:
    from recbole_dtn.serving import standalone

    text = Path(standalone.__file__).read_text(encoding="utf-8")
    imported = {
        line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported <= {"__future__", "numpy", *sys.stdlib_module_names}
