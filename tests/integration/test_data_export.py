"""What `data split` writes means the same as what it was written from, weights included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_dtn.cli.app import main
from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.preprocess import plain
from recbole_dtn.preprocess.export import write_given_splits
from recbole_dtn.preprocess.plain import export_splits
from recbole_dtn.preprocess.prepare import prepare

YAML = """
fields: [{name: u}, {name: d}]
tasks: [{name: t, label: y}]
weight_field: w
domain_field: d
"""


def settings_of(data_path: Path, name: str) -> Settings:
    return resolve({"model": "MMoE", "dataset": name, "data_path": str(data_path)}).settings


def weighted(data_path: Path, kind: str) -> Settings:
    folder = data_path / "mine"
    folder.mkdir()
    rows = [f"u{i % 7}\td{i % 2}\t{i % 3 % 2}\t{i / 4}" for i in range(60)]
    (folder / "mine.inter").write_text("\n".join([f"u:token\td:token\ty:float\tw:{kind}", *rows]) + "\n")
    (folder / "mine.yaml").write_text(YAML)
    return settings_of(data_path, "mine")


def test_weights_and_domain_go_along(tmp_path: Path) -> None:
    before = weighted(tmp_path, "float")
    write_given_splits(before, tmp_path / "given", "given")
    after = settings_of(tmp_path, "given")
    assert (after.weight_field, after.domain_field) == ("w", "d")
    one, two = prepare(before).splits, prepare(after).splits
    seen = []
    for part in ("train", "valid", "test"):
        batches = [splits[part].batch(np.arange(splits[part].rows)) for splits in (one, two)]
        weights = [batch.sample_weight for batch in batches]
        assert weights[0] is not None
        assert weights[1] is not None
        assert weights[0].tolist() == weights[1].tolist()
        assert batches[0].labels.tolist() == batches[1].labels.tolist()
        seen += weights[1].tolist()
    assert sorted(seen) == [i / 4 for i in range(60)]


def test_splits_that_were_given_can_be_written_again(tmp_path: Path) -> None:
    write_given_splits(weighted(tmp_path, "float"), tmp_path / "given", "given")
    write_given_splits(settings_of(tmp_path, "given"), tmp_path / "again", "again")
    for part in ("train", "valid", "test"):
        once, twice = (tmp_path / name / f"{name}.{part}.inter" for name in ("given", "again"))
        assert once.read_bytes() == twice.read_bytes()


def test_a_weight_that_stock_recbole_would_take_for_an_input_is_refused(tmp_path: Path) -> None:
    before = weighted(tmp_path, "token")
    with pytest.raises(UsageError, match="weight_field 'w': expected a float column"):
        write_given_splits(before, tmp_path / "given", "given")


def test_tables_that_cannot_be_written_leave_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = weighted(tmp_path, "float")
    rows = tmp_path / "rows"
    export_splits(settings, rows)
    before = {file.name: file.read_bytes() for file in rows.iterdir()}

    def full(frame: pl.DataFrame, file: Path, form: str) -> None:
        if file.stem == "test":
            raise OSError(28, "No space left on device")
        file.write_text("half")

    with monkeypatch.context() as patch:
        patch.setattr(plain, "_write", full)
        with pytest.raises(DataError, match=r"rows: cannot be written \(No space left on device\)"):
            export_splits(settings, rows, overwrite=True)
        assert {file.name: file.read_bytes() for file in rows.iterdir()} == before
        with pytest.raises(DataError, match="choose another folder for --export"):
            export_splits(settings, tmp_path / "new")
        assert not (tmp_path / "new").exists()
    # Another form replaces the tables of the first: no folder holds two exports.
    export_splits(settings, rows, form="csv", overwrite=True)
    assert sorted(file.name for file in rows.iterdir()) == ["export.json", "test.csv", "train.csv", "valid.csv"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file; expected a folder"):
        export_splits(settings, tmp_path / "file")
    assert main(["data", "split", "--dataset=ml-100k", "--export="]) == 2
    assert "--export: expected a folder" in capsys.readouterr().err
    assert main(["data", "split", "--dataset=ml-100k", "--export=new", "--split_seeds=2"]) == 2
    assert "split_seeds: is no setting: training takes it on its command line" in capsys.readouterr().err
