"""Which numbers are said to be too skewed to be standardised, by ``data info`` and before training."""

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.training.fit import _warnings

ROWS = 3000


def prepared_with(tmp_path, values, side=False, **field):
    """A number ``x`` of ``ROWS`` training rows, in the interactions or in a side table of one user each."""
    (tmp_path / "toy").mkdir()
    cells = [f"u{i}\t{values[i]:g}" for i in range(ROWS)]
    rows = [f"u{i}\t{i % 2}" if side else f"{cells[i]}\t{i % 2}" for i in range(ROWS)]
    header = "u:token\ty:float" if side else "u:token\tx:float\ty:float"
    for part in ("train", "valid", "test"):
        (tmp_path / "toy" / f"toy.{part}.inter").write_text("\n".join([header, *rows]) + "\n")
    if side:
        (tmp_path / "toy" / "toy.user").write_text("\n".join(["u:token\tx:float", *cells]) + "\n")
    given = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path), "split": "given"}
    fields = [{"name": "x", "type": "float", "encoding": "standardise", **field}]
    settings = resolve({**given, "fields": fields, "tasks": [{"name": "y", "label": "y"}]}).settings
    return settings, prepare(settings)


def amounts():
    """90 % are 0, the others 1 to 300 but for 15 of 100,000, which count as 10 deviations: 1500 of 1516 squares."""
    values = np.zeros(ROWS)
    values[::10] = np.arange(1, ROWS // 10 + 1)
    values[:1500:100] = 100_000
    return values


@pytest.mark.parametrize("side", [False, True])
def test_a_skewed_number_is_named_with_what_was_seen(tmp_path, side):
    settings, prepared = prepared_with(tmp_path, amounts(), side=side)
    (sentence,) = _warnings(settings, prepared)
    assert sentence.startswith(
        "field 'x': 90% of its training values are 0, and 1% of the rows hold 99% of the variance, so that "
    )
    assert "write encoding: " in sentence
    assert sentence in inspect(prepared, quick=True).warnings


NORMAL = np.random.default_rng(0).normal(40, 10, ROWS)
RARE = (np.arange(ROWS) % 400 == 0) * 1.0
COUNTS = np.where(np.arange(ROWS) % 400 == 0, np.arange(ROWS) // 400 + 1, 0)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (NORMAL, {}),
        (np.exp(NORMAL / 20), {}),  # log-normal, sigma 1/2
        (RARE, {}),
        (COUNTS, {}),  # 0 to 8: few values, each told from the others
        (np.full(ROWS, 3.0), {}),
        (amounts(), {"encoding": "log1p"}),
        (amounts(), {"encoding": "bins"}),
    ],
)
def test_other_numbers_and_encodings_are_not(tmp_path, values, field):
    settings, prepared = prepared_with(tmp_path, values, **field)
    assert _warnings(settings, prepared) == []
    assert not any("standardis" in text for text in inspect(prepared, quick=True).warnings)
