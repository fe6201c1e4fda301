"""Raw Ali-CCP files to a trained model by one command, to our encoder, and to stock RecBole's reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.context_aware_recommender.deepfm import DeepFM

from recbole_dtn.bridge import RecBoleConfig, recbole_config
from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.prepare import PreparedData, prepare
from recbole_dtn.registry import MODELS

ROWS, FAULTS = 1500, 1
PARTS = ("train", "valid", "test")
REASONS = {
    "fields": "columns, found",
    "separator": "a feature is not field 0x02 id 0x03 value",
    "label": "click is neither 0 nor 1",
    "orphan": "no good row of the common features has this common_feature_index",
    "overflow": "an id is not an unsigned 64-bit integer",
    "text": "an id is not an unsigned 64-bit integer",
    "utf8": "not UTF-8",
    "blank": "blank line",
    "feature_num": "feature_num is not the number of features",
}
Table = list[dict[str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw files of a synthetic set, faulty rows among them, where ``--dataset=aliccp`` looks."""
    home = tmp_path_factory.mktemp("aliccp")
    raw = home / "dataset" / "aliccp" / "raw"
    words = ["preprocess", "synthetic", "--like=aliccp", f"--rows={ROWS}", f"--faults={FAULTS}", f"--output={raw}"]
    assert main([*words, "--quiet"]) == 0
    return home


def at(home: Path, *words: str) -> list[str]:
    return [*words, f"--data_path={home / 'dataset'}"]


@pytest.fixture(scope="module")
def made(home: Path) -> Path:
    """The atomic files of protocol ``full``, made from the same raw files."""
    raw = home / "dataset" / "aliccp" / "raw"
    assert main(at(home, "preprocess", "aliccp", "--protocol=full", f"--raw={raw}", "--max_rejected=0.5")) == 0
    return home / "dataset" / "aliccp-full"


def rows_of(path: Path) -> Table:
    header, *lines = path.read_text().removesuffix("\n").split("\n")
    names = [column.split(":")[0] for column in header.split("\t")]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def joined(folder: Path, part: str) -> Table:
    """The rows of a part with their users' cells, by plain dictionaries."""
    users = {row["user_key"]: row for row in rows_of(folder / f"{folder.name}.user")}
    return [{**row, **users[row["user_key"]]} for row in rows_of(folder / f"{folder.name}.{part}.inter")]


def test_one_command_makes_the_files_and_trains(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--epochs=1", "--embedding_size=4", "--module_dim=8", "--tower_hidden=[4]", "--train_batch_size=512"]
    modules = "--interactions=[gdcn, {name: memonet, codes: 20, attention_dim: 4}]"
    words = ["--model=DTN", "--dataset=aliccp", "--accelerator=cpu", "--max_rejected=0.5", modules, *small]
    assert main(at(home, *words, f"--output_dir={home / 'runs'}")) == 0
    said = capsys.readouterr()
    text = " ".join((said.out + said.err).split())
    assert "making" in text
    assert "purchase" in text
    (record,) = (home / "runs").rglob("record.json")
    assert [task["name"] for task in json.loads(record.read_text())["tasks"]] == ["click", "purchase"]
    assert json.loads((home / "dataset" / "aliccp" / "preprocess.json").read_text())["set"] == "aliccp"


def test_planted_faults_are_rejected_and_nothing_else(home: Path, made: Path) -> None:
    planted = json.loads((home / "dataset" / "aliccp" / "raw" / "planted.json").read_text())["faults"]
    lines = [line.split("\t")[:3] for line in (made / "rejected.tsv").read_text().splitlines()[1:]]
    found = {(file, int(line)): reason for file, line, reason in lines}
    assert set(found) == {(Path(fault["file"]).name, fault["line"]) for fault in planted}
    for fault in planted:
        assert REASONS[fault["kind"]] in found[Path(fault["file"]).name, fault["line"]]
    tables = json.loads((made / "preprocess.json").read_text())["tables"]
    assert sum(table["written"] for name, table in tables.items() if name.startswith("skeleton")) == ROWS
    assert sum(len(rows_of(made / f"aliccp-full.{part}.inter")) for part in PARTS) == ROWS
    assert validate(made) == []


@pytest.fixture(scope="module")
def prepared(home: Path, made: Path) -> PreparedData:
    given = {"model": "MMoE", "dataset": made.name, "data_path": str(home / "dataset"), "max_rejected": 0.5}
    return prepare(resolve(given).settings)


def test_our_encoder_has_the_ids_and_weights_of_the_files(made: Path, prepared: PreparedData) -> None:
    train = joined(made, "train")
    for part in PARTS:
        rows, split = joined(made, part), prepared.splits[part]
        batch = split.batch(np.arange(split.rows))
        assert len(rows) == split.rows
        for position, spec in enumerate(prepared.schema.fields):
            names = ["", None, *prepared.vocabularies.tokens(spec.name)]
            known = {token for row in train for token in row[spec.name].split()}
            if spec.kind == "token":
                found: Any = [names[number - spec.offset] for number in batch.ids[:, position].tolist()]
                assert found == [row[spec.name] if row[spec.name] in {*known, ""} else None for row in rows]
                continue
            many = batch.multi[position]
            found = [names[number - spec.offset] for number in many.values.tolist()]
            wanted = [token for row in rows for token in row[spec.name].split()]
            assert found == [token if token in known else None for token in wanted]
            assert many.offsets.diff().tolist() == [len(row[spec.name].split()) for row in rows]
            values = [float(value) for row in rows for value in row[f"{spec.name}_value"].split()]
            assert many.weights is not None
            np.testing.assert_allclose(many.weights.numpy(), values, rtol=1e-6)


def test_a_purchase_needs_its_click(made: Path, prepared: PreparedData) -> None:
    unclicked = 0
    for part in PARTS:
        rows, split = rows_of(made / f"{made.name}.{part}.inter"), prepared.splits[part]
        labels = split.batch(np.arange(split.rows)).labels.tolist()
        pairs = [(int(row["click"]), int(row["buy"])) for row in rows]
        assert labels == [[click, click * buy] for click, buy in pairs]
        assert [int(row["purchase"]) for row in rows] == [click * buy for click, buy in pairs]
        unclicked += pairs.count((0, 1))
    assert unclicked > 0  # or the condition would go untested


def test_stock_recbole_reads_the_same_ids(
    home: Path, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prog"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    given: dict[str, Any] = {
        "data_path": str(home / "dataset"),
        "load_col": None,
        "benchmark_filename": list(PARTS),
        "LABEL_FIELD": "click",
        "numerical_features": [],
        "USER_ID_FIELD": "user_key",
        "gpu_id": "",
        "use_gpu": False,
    }
    # Stock RecBole evaluates a text of digits as a number, and needs it quoted twice.
    for kind, item in ((RecBoleConfig, "205"), (Config, "'205'")):
        given["ITEM_ID_FIELD"] = item
        dataset = create_dataset(kind(model=DeepFM, dataset=made.name, config_dict=given))
        wanted = [row for part in PARTS for row in rows_of(made / f"{made.name}.{part}.inter")]
        assert len(dataset.inter_feat) == ROWS
        for name in ("user_key", "206", "301"):
            found = dataset.id2token(name, dataset.inter_feat[name].to_numpy())
            assert [token for token in found if token != "[PAD]"] == [row[name] for row in wanted if row[name]]
        assert dataset.inter_feat["click"].tolist() == [float(row["click"]) for row in wanted]
        lists = [dataset.id2token("210", np.asarray(ids, int)).tolist() for ids in dataset.inter_feat["210"]]
        assert lists == [row["210"].split() for row in wanted]
        assert [list(values) for values in dataset.inter_feat["853_value"]] == [
            [float(value) for value in row["853_value"].split()] for row in wanted
        ]
        users = {row["user_key"]: row for row in rows_of(made / f"{made.name}.user")}
        users["[PAD]"] = {"101": "", "109_14": ""}
        keys = dataset.id2token("user_key", dataset.user_feat["user_key"].to_numpy())
        assert len(set(keys)) == len(users)
        for name in ("101", "109_14"):
            for key, ids in zip(keys, dataset.user_feat[name], strict=True):
                found = [token for token in dataset.id2token(name, np.atleast_1d(ids).astype(int)) if token != "[PAD]"]
                assert found == users[key][name].split()


def test_our_models_train_under_recbole(
    home: Path, made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"experts": 2, "expert_hidden": [4], "tower_hidden": [4], "accelerator": "cpu", "max_rejected": 0.5}
    config = recbole_config("MMoE", made.name, home / "dataset", small)
    assert (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]) == ("user_key", "205")
    train, _, _ = data_preparation(config, create_dataset(config))
    batch = next(iter(train))
    losses = MODELS.load("MMoE")(config, train.dataset).calculate_loss(batch)
    assert all(np.isfinite(loss.item()) for loss in losses)
    assert batch["purchase"].tolist() == (batch["click"] * batch["buy"]).tolist()


def test_without_raw_files_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--dataset=aliccp"], ["preprocess", "aliccp", "--protocol=aitm"]):
        assert main(words) == 2
        text = " ".join(capsys.readouterr().err.split())
        assert "sample_skeleton_train.csv" in text
        assert "tianchi.aliyun.com/dataset/408" in text
        assert "preprocess synthetic --like=aliccp" in text
    assert list(tmp_path.iterdir()) == []
