"""Inputs that tell one class alone, planted in one data set; single inputs; names of outcomes."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.inspect.info import inputs
from recbole_dtn.inspect.info.inputs import FILE_NAME, InputFindings, input_findings, input_sentences, outcome_names
from recbole_dtn.inspect.info.inspect import inspect
from recbole_dtn.inspect.info.report import SingleFieldAuc
from recbole_dtn.inspect.info.telling import Telling, beta_shares
from recbole_dtn.preprocess.prepare import PreparedData, prepare

ROWS = 4000
FLOATS = ("amount", "price", "delay", "refused", "bracket", "balance")
LISTS = ("tags", "basket")


def rows_of(seed: int) -> list[dict[str, str]]:
    """Rows of `buy` (a fifth of the rows) and `even` (half), with inputs that tell them and inputs that do not."""
    rng = random.Random(seed)
    found = []
    for number in range(ROWS):
        buy, even = rng.random() < 0.2, rng.random() < 0.5
        found.append(
            {
                "amount": f"{rng.uniform(1, 9):.3f}" if buy and rng.random() < 0.3 else "0",
                "delay": f"{rng.uniform(1, 9):.3f}" if buy and rng.random() < 0.3 else "",
                "refused": f"{rng.randint(1, 3)}" if not even and rng.random() < 0.3 else "0",
                "status": rng.choice(["paid", "open"]) if buy else rng.choice(["open", "new", "old"]),
                "gone": "" if buy and rng.random() < 0.3 else rng.choice("abc"),
                "basket": "|".join([rng.choice("abcde"), *(["receipt"] if buy and rng.random() < 0.3 else [])]),
                # From here on inputs that tell nothing, or no more than other segments do.
                "tags": "|".join(rng.sample("abcdefgh", rng.randrange(4))),
                "price": f"{rng.uniform(1, 9):.3f}" if rng.random() < 0.3 else "0",
                "bracket": "7688" if buy and rng.random() < 0.2 else f"{rng.uniform(1, 9):.3f}",
                "balance": f"{rng.uniform(-1, 1):.4f}",
                "child": "yes" if not buy and rng.random() < 0.3 else "no",
                "minor": "yes" if even and rng.random() < 0.3 else "no",
                "liked": "1" if even and rng.random() < 0.3 else "0",
                "group": rng.choice(["x", "y"]) if even else rng.choice(["y", "z"]),
                "user": f"u{number % 300}",
                # Five of 45 values are of buyers alone, but most values differ that much in their rates.
                "shop": f"s{rng.randrange(10) if buy else rng.randrange(5, 45)}",
                "buy": str(int(buy)),
                "even": str(int(even)),
            }
        )
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("data") / "planted"
    folder.mkdir()
    rows = rows_of(3)
    labels = ("buy", "even")
    types = {
        name: "float" if name in (*FLOATS, *labels) else "token_seq" if name in LISTS else "token" for name in rows[0]
    }
    fields = ", ".join(f"{{name: {name}, type: {kind}}}" for name, kind in types.items() if name not in labels)
    (folder / "planted.yaml").write_text(
        f"fields: [{fields}]\ntasks: [{{name: buy, label: buy}}, {{name: even, label: even}}]\n"
    )
    lines = ["\t".join(f"{name}:{kind}" for name, kind in types.items()), *("\t".join(row.values()) for row in rows)]
    (folder / "planted.inter").write_text("\n".join(lines).replace("|", " ") + "\n")
    return prepare(resolve(["--dataset=planted", f"--data_path={folder.parent}"]).settings)


@pytest.fixture(scope="module")
def found(planted: PreparedData) -> InputFindings:
    return input_findings(planted)


def test_what_is_planted_is_found_and_nothing_else(found: InputFindings) -> None:
    told = {(one.field, one.task): (one.kind, one.value, one.label) for one in found.telling}
    assert told == {
        ("amount", "buy"): ("set", "0", 1),
        ("delay", "buy"): ("set", "missing", 1),
        ("refused", "even"): ("set", "0", 0),
        ("liked", "even"): ("set", "0", 1),
        ("status", "buy"): ("value", "paid", 1),
        ("gone", "buy"): ("value", "missing", 1),
        ("basket", "buy"): ("value", "receipt", 1),
    }
    # An AUC does not find them: .3 of the positives are told, so that it is .5 + .3 / 2.
    aucs = {(one.field, one.task): one.auc for one in found.aucs}
    assert aucs["amount", "buy"] == pytest.approx(0.65, abs=0.03)


def test_rows_and_shares_are_those_of_the_training_rows(planted: PreparedData, found: InputFindings) -> None:
    split = planted.splits["train"]
    part = slice(split.start, split.start + split.rows)
    column = np.asarray(split.store.columns["delay"].values[part])
    labels = np.asarray(split.store.labels[part])[:, 0]
    (one,) = [one for one in found.telling if one.field == "delay"]
    assert (one.rows, one.observed) == ((~np.isnan(column)).sum(), split.rows)
    assert one.share == pytest.approx(labels.mean())


def test_sentences_say_how_many_rows_and_what_to_do() -> None:
    one = Telling("amount", "buy", "set", "0", 1, 1200, 0, 80_000, 0.061)
    assert list(input_sentences(["amount"], [], [one])) == [
        "field 'amount' is other than '0' in 1,200 of 80,000 training rows, and buy is 1 in all of them (in 6.1% of "
        "all rows): is it recorded after the outcome? take 'amount' out of the fields if it is known only afterwards"
    ]
    (text,) = input_sentences([], [], [Telling("status", "buy", "value", "paid", 1, 30, 2, 80_000, 0.061)])
    assert text.startswith("field 'status' has the value 'paid' in 30 of 80,000 training rows, and buy is 1 in all of ")
    assert "(2 other values do the same): does it tell the outcome?" in text


def test_a_field_whose_auc_is_named_is_not_named_twice(planted: PreparedData, found: InputFindings) -> None:
    amount = [one for one in found.aucs if (one.field, one.task) == ("amount", "buy")]
    telling = [one for one in found.telling if one.field == "amount"]
    assert len(list(input_sentences([], amount, telling))) == 1
    (text,) = input_sentences([], amount, telling, above=0.6)
    assert text.startswith("field 'amount' alone gives AUC 0.6")


def test_findings_are_kept_beside_the_cache(
    planted: PreparedData, found: InputFindings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = planted.cache_folder / FILE_NAME
    assert path.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "telling_inputs", lambda *_: pytest.fail("computed again"))
        assert input_findings(planted) == found
    path.write_text('{"format": 1, "rows": 3')
    assert input_findings(planted) == found, "a damaged file is made again"


def test_data_info_warns_of_them(planted: PreparedData) -> None:
    warnings = inspect(planted, dataset="planted").warnings
    for name in ("amount", "delay", "refused", "status", "gone", "basket"):
        assert sum(text.startswith(f"field '{name}' ") and "in all of them" in text for text in warnings) == 1, name
    assert not any("in all of them" in text for text in inspect(planted, quick=True).warnings)


def test_the_spread_of_shares_by_the_analysis_of_variance() -> None:
    """Four values of ten rows with 8, 2, 6 and 4 of the class: MSB .6667, MSW 8 / 36 = .2222, rho = .1667."""
    members, rows = np.array([8.0, 2.0, 6.0, 4.0]), np.full(4, 10.0)
    between = (9 + 9 + 1 + 1) * 0.1 / 3  # 10 * (.3^2 + .3^2 + .1^2 + .1^2) / 3
    within = 10 * (0.16 + 0.16 + 0.24 + 0.24) / 36
    rho = (between - within) / (between + 9 * within)
    a, b = beta_shares(members, rows)
    assert (a, b) == pytest.approx((0.5 * (1 - rho) / rho, 0.5 * (1 - rho) / rho))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        *((name, True) for name in ("play_time_ms", "watch_ratio", "dwell", "comment_stay_time", "stay_time")),
        *((name, True) for name in ("purchase_amount", "conversion_delay", "order_value", "is_click", "time_to_buy")),
        *((name, False) for name in ("duration_ms", "hour", "price", "user_id", "weeks_worked", "time", "display")),
        *((name, False) for name in ("release_year", "own_or_self", "full_or_part_emp", "clicks_7d", "delayed")),
    ],
)
def test_names_of_outcomes(name: str, named: bool) -> None:
    assert [text.split(" has")[0] for text in outcome_names([name])] == [f"field {name!r}"] * named
    assert len(list(input_sentences([name], [SingleFieldAuc(name, "y", 0.995)], []))) == 1, "named once, for its AUC"


def test_fewer_than_twenty_rows_are_never_told(tmp_path: Path) -> None:
    """19 rows of one class are not told, 20 are: here either would be beyond chance."""
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "few.yaml").write_text("fields: [{name: a}, {name: b}]\ntasks: [{name: y, label: y}]\nsplit: given\n")
    for split in ("train", "valid", "test"):
        rows = [("r" if i < 19 else "o", "r" if i < 20 else "o", int(i < 40)) for i in range(200)]
        lines = "".join(f"{a}\t{b}\t{y}\n" for a, b, y in rows)
        (folder / f"few.{split}.inter").write_text(f"a:token\tb:token\ty:float\n{lines}")
    (one,) = input_findings(prepare(resolve(["--dataset=few", f"--data_path={tmp_path}"]).settings)).telling
    assert (one.field, one.rows, one.share) == ("b", 20, 0.2)
    assert 20 * math.log(0.2) < math.log(1e-6 / 16)  # two fields of two values, each with its complement and class
