"""The page of a leaderboard: its content against worked numbers, its form, and names that look like markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from recbole_dtn.config.load import resolve
from recbole_dtn.leaderboard.page.chosen import common_settings, own_settings
from recbole_dtn.leaderboard.page.content import board_content
from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.render import markdown
from recbole_dtn.leaderboard.statistics import BoardRow, summarise
from recbole_dtn.leaderboard.stored import Failure, Stored
from recbole_dtn.record.record import RunRecord
from recbole_dtn.report.text import shown

Runs = Callable[..., list[RunRecord]]
Tests = Callable[[list[BoardRow]], list[BoardRow]]
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)> & "a" 'b' <!-- {{ 1 }} \u2028"""


def grouped(records: list[RunRecord], names: dict[str, str] | None = None) -> list[list[BoardRow]]:
    rows = summarise(records, names)
    return [list(group) for _, group in groupby(rows, key=lambda row: row.dataset)]


def content(records: list[RunRecord], names: dict[str, str] | None = None) -> dict[str, Any]:
    (found,) = board_content(grouped(records, names), records)
    return found


class Tags(HTMLParser):
    """Open tags, ids, and the text of each element by its tag."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return tags


# ---- content --------------------------------------------------------------------------------------------------------


def test_numbers_of_the_page_are_those_of_the_table(board_runs: Runs) -> None:
    records = board_runs("DTN", 0.8854501698, seeds=[1])  # with six digits .88545, which rounds down
    assert "| 0.8855 ± – " in markdown(summarise(records))
    assert ">0.8855 " in board_page(grouped(records), records, "b")


def test_means_intervals_and_the_error_of_the_test_rows(board_runs: Runs) -> None:
    row = content(board_runs("DTN", 0.8))["rows"][0]
    values = [0.8 + (seed * 3 % 7 - 3) * 1e-4 for seed in range(10)]
    found = row["metrics"]["like/auc"]
    mean, error = sum(values) / 10, stats.sem(values)
    low, high = stats.t.interval(0.95, 9, loc=mean, scale=error)
    assert found["mean"] == pytest.approx(mean, abs=1e-6)
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    assert found["sample"] == pytest.approx(1.959964 * 0.005, abs=1e-6)
    assert (found["n"], row["units"]) == (10, 10)
    assert row["metrics"]["love/calibration"] == {
        "mean": None, "sd": None, "n": 0, "low": None, "high": None, "sample": None, "error": None,
    }  # fmt: skip
    assert [run["values"]["like/auc"] for run in row["runs"]] == pytest.approx(values)
    assert {key: value for key, value in row["cost"].items() if value is not None} == {
        "parameters_embedding": 1000, "parameters_codebook": 0, "parameters_dense": 300, "parameters_total": 1300,
        "samples_per_second": 1000.0, "epochs": 3, "train_seconds": 2.5,
    }  # fmt: skip
    assert row["runs"][0]["curves"]["selected"] == pytest.approx([values[0] - 0.01, values[0], values[0] - 0.01])


def test_splits_that_share_training_rows_have_wider_intervals(board_runs: Runs) -> None:
    runs = [
        run
        for seed in range(10)
        for run in board_runs(
            "DTN", 0.8, [seed], split_seed=seed, data_fingerprint=f"{seed}", source_fingerprint="s",
            settings={"split": "random"},
        )
    ]  # fmt: skip
    found = content(runs)
    one = content(board_runs("DTN", 0.8))["rows"][0]["metrics"]["like/auc"]
    wide = found["rows"][0]["metrics"]["like/auc"]
    # s^2 (1/n + test / train) in place of s^2 / n: by the root of 1 + n * 100 / 800.
    assert (wide["high"] - wide["low"]) / (one["high"] - one["low"]) == pytest.approx((1 + 10 / 8) ** 0.5, abs=0.01)
    assert found["unit"] == "split"
    assert found["rows"][0]["runs"][3]["title"] == "split_seed 3, seed 3"


def test_one_run_has_no_interval_and_no_comparison(board_runs: Runs) -> None:
    found = content(board_runs("DTN", 0.8, [1]) + board_runs("PLE", 0.7, [1]))
    assert found["differences"] == []
    assert [row["best"] for row in found["rows"]] == [False, False]
    measured = found["rows"][0]["metrics"]["like/auc"]
    assert (measured["low"], measured["sd"], measured["n"]) == (None, None, 1)


def test_differences_are_claimed_from_ten_seeds_on(board_runs: Runs) -> None:
    for count, claims in ((9, False), (10, True)):
        found = content(board_runs("DTN", 0.8, range(count)) + board_runs("PLE", 0.79, range(count)))
        assert [row["best"] for row in found["rows"]] == [True, False]
        (table,) = found["differences"]
        assert table["title"].startswith("Differences to DTN")
        assert any("descriptive" in note for note in table["notes"]) is not claims
        line = table["lines"][0]
        assert (line["row"], line["metric"], line["n"]) == ("PLE", "like AUC", count)
        assert line["mean"] == pytest.approx(-0.01)


def test_gate_weights_are_means_over_the_runs(board_runs: Runs) -> None:
    runs = [
        run
        for seed in (0, 1)
        for run in board_runs(
            "DTN", 0.8, [seed], gate_weights={"like": {"like/gdcn": 0.5 + seed / 10, "shared/gdcn": 1}}
        )
    ]
    assert content(runs)["rows"][0]["gates"] == {"like": {"like/gdcn": pytest.approx(0.55), "shared/gdcn": 1.0}}


def test_settings_that_differ_come_first_with_their_defaults() -> None:
    # use_tsn is true by default; the rows share epochs, which differs from the default of all models.
    first = {"epochs": 77, "use_tsn": False, "use_shared": True, "data_path": "/secret", "seed": 5}
    second = {"epochs": 77, "use_tsn": True, "use_shared": False, "data_path": "/other", "seed": 6}
    common = common_settings([first, second])
    assert common == [("epochs", "77", "10")]
    assert own_settings("DTN", first, common) == [("use_tsn", "false", "true"), ("use_shared", "true", None)]
    assert own_settings("a plug-in that is not loaded", second, common) == [
        ("use_shared", "false", ""), ("use_tsn", "true", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--optimizer.lr=0.5", "--balancer={name: fixed, scale: base_rate}"]])
def test_what_a_run_at_its_defaults_would_have_is_no_difference(words: list[str]) -> None:
    settings = resolve(["--model=DTN", "--dataset=ml-100k", *words]).settings.dump()
    differing = {key for key, _, default in own_settings("DTN", settings, []) if default is not None}
    of_dataset = {"fields", "folder", "group_field", "preprocessor", "tasks", "time_field", "user_field"}
    assert differing - of_dataset == ({"optimizer.lr", "balancer"} if words else set())


def test_numbers_that_json_lacks_are_null(board_runs: Runs) -> None:
    test = {"like": {"auc": float("nan"), "logloss": float("inf")}}
    found = content(board_runs("DTN", 0.8, [1], test=test))
    assert found["rows"][0]["runs"][0]["values"] == {"like/auc": None, "like/logloss": None}
    json.dumps(found, allow_nan=False)


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_asks_for_nothing_and_is_the_same_again(board_runs: Runs) -> None:
    records = board_runs("DTN", 0.8) + board_runs("PLE", 0.79)
    text = board_page(grouped(records), records, "films")
    tags = parsed(text)
    assert not {"link", "img", "iframe"} & set(tags.seen)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", text)
    assert [value for name, value in tags.attributes if name == "src"] == []
    assert all((value or "").startswith("#") for name, value in tags.attributes if name == "href")
    ids = [value for name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert "default-src 'none'" in text
    assert board_page(grouped(records), records, "films") == text
    assert json.loads(tags.scripts[0]) == json.loads(json.dumps(board_content(grouped(records), records)))


def test_bold_is_for_what_is_claimed(board_runs: Runs, tested: Tests) -> None:
    nine, ten = (
        board_page([tested(rows) for rows in grouped(records)], records, "b")
        for records in (board_runs("DTN", 0.8, range(n)) + board_runs("PLE", 0.79, range(n)) for n in (9, 10))
    )
    assert ("<b>" in nine, "descriptive, no difference is claimed" in nine) == (False, True)
    assert ten.count("<b>-0.0100</b>") == 2
    records = board_runs("DTN", 0.8) + board_runs("PLE", 0.79)
    assert "<b>" not in board_page(grouped(records), records, "b"), "no test scores are stored"


def test_failed_cells_have_their_seeds_and_reason(board_runs: Runs) -> None:
    failures = (
        Failure("films", "PLE", "split_seed 2020", 3, "digest-of-PLE", "no memory"),
        Failure("films", "PLE", "split_seed 2020", 4, "digest-of-PLE", "no memory"),
        Failure("films", "<b>AITM", "split_seed 2020", 0, "digest-of-AITM", "loss is NaN"),
        Failure("films", "DTN", "split_seed 2020", 0, "digest-of-DTN", "was run again since"),
    )
    records = board_runs("DTN", 0.8) + board_runs("PLE", 0.79, range(3))
    text = board_page(grouped(records), records, "b", stored=Stored(failures=failures))
    assert re.findall(
        r'<tr><th scope="row">(.*?)</th><td class="left">(.*?)</td><td class="left reason">(.*?)<', text
    ) == [
        ("PLE", "3; 4", "no memory"),
        ("&lt;b&gt;AITM", "0", "loss is NaN"),
    ]
    rows = summarise(records)
    assert "| PLE | 3; 4 | no memory |" in markdown(rows, Stored(failures=failures))
    assert "cells without a result" not in markdown(rows)


def test_names_are_text_wherever_they_stand(board_runs: Runs) -> None:
    hostile = {
        "dataset": HOSTILE,
        "run_id": HOSTILE,
        "warnings": [HOSTILE],
        "tasks": [{"name": HOSTILE, "label": "l", "after": []}],
        "test": {HOSTILE: {"auc": 0.7}},
        "valid": {HOSTILE: {"auc": 0.7}},
        "history": [],
        "gate_weights": {HOSTILE: {HOSTILE: 1.0}},
        "settings": {HOSTILE: HOSTILE},
    }
    records = board_runs("DTN", 0.8, **hostile) + board_runs("PLE", 0.7, **hostile)
    text = board_page(grouped(records, {"digest-of-DTN": HOSTILE}), records, HOSTILE)
    tags = parsed(text)
    assert tags.seen.count("script") == 2
    assert "img" not in tags.seen
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    (board,) = json.loads(tags.scripts[0])
    assert board["rows"][0]["label"] == shown(HOSTILE)
    assert HOSTILE not in text


def test_the_scripts_never_read_names_as_markup() -> None:
    folder = Path(__file__).parents[2] / "recbole_dtn" / "leaderboard" / "page"
    scripts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.js")}
    assert set(scripts) == {"main.js", "parts.js", "plots.js", "row.js", "served.js", "table.js"}
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|import\("
    for name, text in scripts.items():
        assert not re.search(unsafe, text), name
        assert ("fetch(" in text) == (name == "served.js")


def test_a_board_without_history_parameters_or_metrics(board_runs: Runs) -> None:
    bare = {"history": [], "parameters": {}, "test": None, "valid": None, "valid_value": None, "wall_seconds": {},
            "train_samples_per_second": None, "best_epoch": None}  # fmt: skip
    records = board_runs("DTN", 0.8, [1], **bare)
    assert parsed(board_page(grouped(records), records, "bare")).seen.count("table") == 1
