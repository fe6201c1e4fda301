"""``data info`` on real KuaiRand rows against pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.inspect.info.report import DataInfo
from recbole_dtn.preprocess.prepare import prepare

ROWS = Path(__file__).resolve().parents[2].parent / "shared/data/kuairand_27k_subset/processed_standard_kcore_15.csv.gz"
FIELDS = ["user_id", "date", "hourmin"]
TASKS = ["is_click", "long_view", "is_follow"]

pytestmark = pytest.mark.skipif(not ROWS.is_file(), reason="the KuaiRand sample is not at hand")


@pytest.fixture(scope="module")
def parts() -> dict[str, pd.DataFrame]:
    """The rows in the splits, 80 / 10 / 10 by time, dates and hours that training does not know all alike."""
    frame = pd.read_csv(ROWS, sep="\t").sort_values("time_ms", kind="stable")
    tenth = len(frame) // 10
    ends = [0, len(frame) - 2 * tenth, len(frame) - tenth, len(frame)]
    found = {
        name: frame[start:stop]
        for name, start, stop in zip(("train", "valid", "test"), ends[:-1], ends[1:], strict=True)
    }
    known = {name: set(found["train"][name]) for name in FIELDS}
    return {
        split: part.assign(**{name: part[name].where(part[name].isin(known[name]), -1) for name in FIELDS})
        for split, part in found.items()
    }


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> DataInfo:
    folder = tmp_path_factory.mktemp("data") / "kuai"
    folder.mkdir()
    frame = pd.read_csv(ROWS, sep="\t")[[*FIELDS, "time_ms", *TASKS]]
    header = [*(f"{name}:token" for name in FIELDS), "time_ms:float", *(f"{name}:float" for name in TASKS)]
    frame.to_csv(folder / "kuai.inter", sep="\t", index=False, header=header)
    tasks = ", ".join(f"{{name: {name}, label: {name}}}" for name in TASKS)
    (folder / "kuai.yaml").write_text(
        f"fields: [{', '.join(f'{{name: {name}}}' for name in FIELDS)}]\ntasks: [{tasks}]\n"
        "split: time\ntime_field: time_ms\n"
    )
    return inspect(prepare(resolve(["--dataset=kuai", f"--data_path={folder.parent}"]).settings))


def test_rows_tasks_and_their_correlations(info: DataInfo, parts: dict[str, pd.DataFrame]) -> None:
    assert info.rows == {split: len(part) for split, part in parts.items()}
    for task in info.tasks:
        assert {split: found.positives for split, found in task.splits.items()} == {
            split: part[task.name].sum() for split, part in parts.items()
        }
    for pair in info.pairs:
        part = parts[pair.split]
        assert pair.phi == pytest.approx(part[TASKS].corr().loc[pair.task, pair.other])
        assert pair.given == pytest.approx(part.loc[part[pair.other] == 1, pair.task].mean())


def test_fields(info: DataInfo, parts: dict[str, pd.DataFrame]) -> None:
    for field in info.fields:
        shares = parts["train"][field.name].value_counts(normalize=True)
        assert field.vocabulary == len(shares)
        assert field.tokens is not None
        assert [share for _, share in field.tokens.top] == pytest.approx(shares[:5].tolist())
        assert field.tokens.effective == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        for split, part in parts.items():
            assert field.splits[split].coverage == pytest.approx((part[field.name] != -1).mean())


def test_duplicates_and_leaks(info: DataInfo, parts: dict[str, pd.DataFrame]) -> None:
    assert info.duplicates is not None
    train_inputs = pd.MultiIndex.from_frame(parts["train"][FIELDS])
    train_rows = pd.MultiIndex.from_frame(parts["train"][FIELDS + TASKS])
    for split, part in parts.items():
        found = info.duplicates[split]
        assert found.distinct == len(part.drop_duplicates(FIELDS))
        assert found.repeated == part.duplicated(FIELDS, keep=False).sum()
        distinct = part.drop_duplicates(FIELDS + TASKS).groupby(FIELDS).size()
        several = distinct[distinct > 1].index
        assert found.conflicting == pd.MultiIndex.from_frame(part[FIELDS]).isin(several).sum()
        assert found.conflicting > 0
        if split != "train":
            assert found.leaked == pd.MultiIndex.from_frame(part[FIELDS]).isin(train_inputs).sum()
            assert found.leaked_same == pd.MultiIndex.from_frame(part[FIELDS + TASKS]).isin(train_rows).sum()
    assert sum(found.leaked or 0 for found in info.duplicates.values()) > 0
