"""Which numbers are said to be too skewed to be standardised, by ``data info`` and before training."""

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data.floats import FloatStatistics
from recbole_dtn.data.skew import Spread, spread
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.training.warn import data_warnings

ROWS = 3000


def prepared_with(tmp_path, values, side=False, **field):
    """A number ``x`` of ``ROWS`` training rows, in the interactions or in a side table of one user each."""
    (tmp_path / "toy").mkdir()
    cells = [f"u{i}\t{values[i]:g}" for i in range(ROWS)]
    rows = [f"u{i}\t{i // 7 % 2}" if side else f"{cells[i]}\t{i // 7 % 2}" for i in range(ROWS)]
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
    (sentence,) = data_warnings(settings, prepared)
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
    assert data_warnings(settings, prepared) == []
    assert not any("standardis" in text for text in inspect(prepared, quick=True).warnings)


def test_the_share_of_the_furthest_rows_by_hand():
    # 200 rows, 2 of them the furthest 1 %; the squares are 100, 64, 36, 36 and 4.
    values = np.array([-10.0, 8.0, -6.0, 6.0, 2.0] + [0.0] * 195)
    assert spread([(values, None)]) == Spread(pytest.approx((100 + 64) / (100 + 64 + 36 + 36 + 4)), 6)
    blocks = [(values[:2], None), (np.array([0.0, -6.0, 6.0, 2.0, 99.0]), np.array([195, 1, 1, 1, 0]))]
    blocks[0] = (values[:2], np.array([1, 1]))
    assert spread(blocks) == spread([(values, None)])
    # 5 counts three times: the furthest two rows are -7 and one of these.
    found = spread([(np.array([5.0, -7.0, 0.0]), np.array([3, 1, 196]))])
    assert found == Spread(pytest.approx((49 + 25) / (49 + 3 * 25)), 3)
    assert spread([(np.zeros(50), None)]) == Spread(0.0, 1)
    assert spread([]) == Spread(0.0, 0)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_the_share_is_that_of_sorted_rows(width):
    values = np.exp(np.random.default_rng(0).normal(0, width, 5000))
    values = np.clip((values - values.mean()) / values.std(), -10, 10)
    squares = np.sort(np.square(values))
    found = spread((block, None) for block in np.array_split(values, 7))
    assert found == Spread(pytest.approx(squares[-50:].sum() / squares.sum(), abs=1e-3), 11)


@pytest.mark.parametrize(("values", "binned"), [(amounts(), True), (NORMAL, False), (COUNTS, False), (RARE, False)])
def test_by_default_a_skewed_number_is_in_bins_and_others_are_standardised(tmp_path, values, binned):
    settings, prepared = prepared_with(tmp_path, values, side=True, encoding="auto", bins=5)
    assert type(settings.fields[0]).model_fields["encoding"].default == "auto"
    values = np.array([float(f"{value:g}") for value in values])  # as they are written
    (spec,) = prepared.schema.fields
    expected = FloatStatistics.from_values(values, 5 if binned else None)
    assert (len(spec.bins), spec.continuous) == ((4, False) if binned else (0, True))
    assert spec.bins == expected.edges
    assert (spec.mean, spec.std) == pytest.approx((expected.mean, expected.std))
    # RecBole's training rows give the same.
    assert Vocabularies.from_counts(settings.fields, {}, {"x": values}).fields["x"].edges == spec.bins
    assert data_warnings(settings, prepared) == []
