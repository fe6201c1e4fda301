"""Standardised floats are clipped alike by the cache, for new rows and for RecBole's batches."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from recbole_dtn.bridge.translator import Translator
from recbole_dtn.config.load import resolve
from recbole_dtn.config.tasks import check_fields_and_tasks
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import UsageError
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.inspect.info.report import to_json
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.record.checkpoint import read_checkpoint, write_checkpoint
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema
from recbole_dtn.serving.load import LoadedRun

HEADER = "u:token\tx:float\ty:float"
PARTS = {
    "train": ["a\t1\t0", "b\t3\t1", "a\t5\t0", "b\t\t1"],  # mean 3, standard deviation sqrt(8 / 3)
    "valid": ["a\t1e30\t0", "b\t-1e30\t1", "a\t7\t0"],
    "test": ["a\t19\t0", "b\t20\t1"],  # 9.80 and 10.41 standard deviations above the mean
}
STD = np.sqrt(8 / 3)


class Batch(dict):
    """A foreign batch: columns by name."""

    columns = property(lambda self: list(self))

    def __len__(self) -> int:
        return len(self["x"])


def prepared_with(tmp_path, **field):
    folder = tmp_path / "toy"
    folder.mkdir(exist_ok=True)
    for part, rows in PARTS.items():
        (folder / f"toy.{part}.inter").write_text("\n".join([HEADER, *rows]) + "\n")
    fields = [{"name": "u"}, {"name": "x", "type": "float", **field}]
    values = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path), "split": "given", "fields": fields}
    settings = resolve({**values, "tasks": [{"name": "y", "label": "y"}]}).settings
    return settings, prepare(settings)


def dense(prepared, part):
    split = prepared.splits[part]
    return split.batch(np.arange(split.rows)).dense[:, 0].numpy()


RAW = {part: [float(row.split("\t")[1] or "nan") for row in rows] for part, rows in PARTS.items()}


LOGS = [np.log(2), np.log(4), np.log(6)]  # of 1 + 1, 1 + 3, 1 + 5


@pytest.mark.parametrize("clip", [10.0, None])
def test_logarithms_are_standardised_alike_in_the_cache_for_new_rows_and_foreign_batches(tmp_path, clip):
    settings, prepared = prepared_with(tmp_path, encoding="log1p", clip=clip)
    content = json.loads(json.dumps([prepared.vocabularies.to_dict(), prepared.schema.to_dict()]))
    known, schema = Vocabularies.from_dict(content[0]), DataSchema.from_dict(content[1])
    assert (known.fields["x"], schema) == (prepared.vocabularies.fields["x"], prepared.schema)
    translator = Translator(settings, schema, known, tokens={"u": ["[PAD]", "a", "b"]}, label_columns={"y": "y"})
    for part, raw in RAW.items():
        narrow = [float(np.float32(value)) for value in raw]
        logs = np.array([math.log(1 + abs(value)) * (1 if value > 0 else -1) for value in narrow])
        expected = (logs - np.mean(LOGS)) / np.std(LOGS)
        if clip is not None:
            expected = np.clip(expected, -clip, clip)
        np.testing.assert_allclose(dense(prepared, part), expected, rtol=1e-6)
        frame = pl.DataFrame({"u": ["a"] * len(raw), "x": raw})
        np.testing.assert_array_equal(known.encode(frame, schema).dense[:, 0].numpy(), dense(prepared, part))
        batch = Batch(u=torch.ones(len(raw), dtype=torch.int64), x=torch.tensor(raw))
        found = translator.features(batch).dense[:, 0].numpy()
        np.testing.assert_allclose(found, dense(prepared, part), rtol=1e-6)


def test_data_info_has_logarithms_in_the_units_of_the_file(tmp_path):
    _, prepared = prepared_with(tmp_path, encoding="log1p")
    found = to_json(inspect(prepared, quick=True))["fields"][1]["numbers"]
    train, test = found["train"], found["test"]
    assert [train["smallest"], train["quantiles"][2], train["largest"]] == [1, 3, 5]
    assert (train["mean"], train["std"]) == (pytest.approx(3), pytest.approx(STD))
    assert (test["mean"], test["largest"]) == (pytest.approx(19.5), 20)


def test_what_was_written_without_a_logarithm_is_read_as_such(tmp_path):
    _, prepared = prepared_with(tmp_path)
    vocabularies, schema = prepared.vocabularies.to_dict(), prepared.schema.to_dict()
    del vocabularies["fields"]["x"]["log1p"], schema["fields"][1]["log1p"]
    assert Vocabularies.from_dict(vocabularies).fields["x"] == prepared.vocabularies.fields["x"]
    assert DataSchema.from_dict(schema) == prepared.schema


def test_settings_that_an_earlier_version_wrote_for_every_field_are_read(tmp_path):
    settings, _ = prepared_with(tmp_path)
    content = settings.dump()
    content["fields"] = [{**field, "encoding": "standardise", "bins": 10} for field in content["fields"]]
    check_fields_and_tasks(type(settings).model_validate(content))


def test_a_checkpoint_scores_new_rows_as_it_scores_those_of_the_cache(tmp_path):
    torch.manual_seed(0)
    settings, prepared = prepared_with(tmp_path, encoding="log1p")
    write_checkpoint(
        tmp_path / "c.ckpt", MODELS.load("MMoE")(settings, prepared.schema), prepared.vocabularies, epoch=1
    )
    read = read_checkpoint(tmp_path / "c.ckpt")
    model = MODELS.load("MMoE")(settings, read.schema)
    model.load_state_dict(read.state_dict)
    run = LoadedRun(model, settings, read.vocabularies, None)
    cached = run.scores(prepared.splits["test"].batch(np.arange(2)))
    frame = pl.DataFrame({"u": ["a", "b"], "x": RAW["test"]})
    assert run.predict(frame)["y"].to_list() == cached[:, 0].tolist()


@pytest.mark.parametrize(("field", "bound"), [({}, 10.0), ({"clip": 1.5}, 1.5), ({"clip": None}, np.inf)])
def test_the_cache_new_rows_and_foreign_batches_agree(tmp_path, field, bound):
    settings, prepared = prepared_with(tmp_path, **field)
    known = Vocabularies.from_dict(json.loads(json.dumps(prepared.vocabularies.to_dict())))
    assert known.fields["x"] == prepared.vocabularies.fields["x"]
    tokens = {"u": ["[PAD]", "a", "b"]}
    translator = Translator(settings, prepared.schema, known, tokens=tokens, label_columns={"y": "y"})
    for part, raw in RAW.items():
        standardised = (np.array(raw, np.float32).astype(np.float64) - 3) / STD
        expected = np.clip(standardised, -bound, bound).astype(np.float32)
        np.testing.assert_array_equal(dense(prepared, part), expected)
        frame = pl.DataFrame({"u": ["a"] * len(raw), "x": raw})
        np.testing.assert_array_equal(known.encode(frame, prepared.schema).dense[:, 0].numpy(), expected)
        batch = Batch(u=torch.ones(len(raw), dtype=torch.int64), x=torch.tensor(raw))
        np.testing.assert_array_equal(translator.features(batch).dense[:, 0].numpy(), expected)


def test_values_within_the_bound_are_unchanged_to_the_last_bit(tmp_path):
    _, clipped = prepared_with(tmp_path)
    _, free = prepared_with(tmp_path, clip=None)
    np.testing.assert_array_equal(dense(clipped, "train"), dense(free, "train"))
    assert dense(clipped, "test")[0] == dense(free, "test")[0] < 10
    assert dense(clipped, "test")[1] == 10 < dense(free, "test")[1]


def test_scores_of_outliers_are_probabilities_within_0_and_1(tmp_path):
    torch.manual_seed(0)
    settings, prepared = prepared_with(tmp_path)
    run = LoadedRun(MODELS.load("MMoE")(settings, prepared.schema), settings, prepared.vocabularies, None)
    frame = pl.DataFrame({"u": ["a"] * 5, "x": [1e30, -1e30, 1e300, float("inf"), 3.0 + 10 * STD]})
    scores = run.scores(prepared.vocabularies.encode(frame, prepared.schema))[:, 0].numpy()
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[0] == scores[2] == scores[3] == pytest.approx(scores[4], rel=1e-6)


def test_a_value_beyond_float32_is_clipped_without_a_warning(tmp_path, recwarn):
    _, prepared = prepared_with(tmp_path)
    frame = pl.DataFrame({"u": ["a", "a"], "x": [1e300, -1e300]})
    assert prepared.vocabularies.encode(frame, prepared.schema).dense[:, 0].tolist() == [10.0, -10.0]
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_data_info_counts_what_is_clipped(tmp_path):
    _, prepared = prepared_with(tmp_path)
    found = to_json(inspect(prepared, quick=True))["fields"][1]["numbers"]
    assert {part: found[part]["clipped"] for part in PARTS} == {"train": 0, "valid": 2, "test": 1}
    assert found["valid"]["largest"] == pytest.approx(3 + 10 * STD)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"name": "u", "clip": 3}, "field 'u': encoding, bins and clip are for type float, not token"),
        ({"name": "x", "type": "float", "encoding": "bins", "clip": 3}, "field 'x': clip needs encoding: standardise"),
        ({"name": "x", "type": "float", "clip": 0}, "fields[0].clip"),
    ],
)
def test_a_clip_that_means_nothing_is_refused(tmp_path, field, message):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text(f"{HEADER}\na\t1\t0\n")
    values = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path), "fields": [field]}
    with pytest.raises(UsageError) as caught:
        prepare(resolve({**values, "tasks": [{"name": "y", "label": "y"}]}).settings)
    assert message in str(caught.value)
