"""The scripts of a leaderboard's page: their numbers in node, and the page itself in a headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.leaderboard.page.page import board_page
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.remake import of_folder
from recbole_dtn.leaderboard.serve import BoardServer
from recbole_dtn.leaderboard.statistics import summarise
from recbole_dtn.record.record import RunRecord, write_record

Runs = Callable[..., list[RunRecord]]
FOLDER = Path(__file__).parents[2] / "recbole_dtn" / "leaderboard" / "page"
NODE = shutil.which("node")
ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(ROOT.glob("leaderboards/*/*.html"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(NODE is None, reason="node is not installed: the scripts' numbers are not tested")
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("ticks(0, 1, 5).map((x) => +x.toFixed(9))", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ("ticks(0.771, 0.802, 4).map((x) => +x.toFixed(9))", [0.78, 0.79, 0.8]),
        ("ticks(3, 3, 4)", [3]),
        ("logTicks(90, 2500)", [100, 200, 500, 1000, 2000]),
        ("logTicks(90, 2500000)", [100, 1000, 10000, 100000, 1000000]),
        ("[places(1), places(0.2), places(0.005)]", [0, 1, 3]),
        ("[brief(158754), brief(2500000), brief(90)]", ["159k", "2.5M", "90"]),
        ("[decimal(0.78514), decimal(null), grouped(1234.6), clipped('abcdef', 4)]", ["0.7851", "–", "1,235", "abc…"]),
        ("scale(1, 100, 0, 10, true)(10)", 5),
        ("extent([1, null, 3], 0.5)", [0, 4]),
        ("['b', '', '10', '9'].sort((a, b) => compared(a, b, false))", ["9", "10", "b", ""]),
        ("['1', '', '3', '2'].sort((a, b) => compared(a, b, true))", ["3", "2", "1", ""]),
        ("['0.5', '-1e-3', '0.25'].sort((a, b) => compared(a, b, false))", ["-1e-3", "0.25", "0.5"]),
        # B costs more than A and is no better; D is as cheap as C and worse.
        ("paretoFront(P([[1, 5], [2, 5], [3, 8], [3, 7], [9, 7]]), true, false).map((p) => p.n)", [0, 2]),
        # Less is better, and more samples per second too: the fastest first.
        ("paretoFront(P([[100, 5], [50, 4], [20, 6]]), false, true).map((p) => p.n)", [0, 1]),
        ("gateOwners({ 'a/m': 1, 'b/m/2': 2, e: 4 }, 'a')", {"own": {"m": 1}, "b": {"m/2": 2}, "": {"e": 4}}),
        ("gateOwners({ 'shared/e0': 1 }, 'a')", {"shared": {"e0": 1}}),
        ("meanCurve(RUNS, 'k')", [[1, 2], [2, 4]]),
        ("['tsn', 'DTN use_tsn=FALSE', 'epochs', 'ple'].map((text) => matches(ROW, text))", [True, True, False, False]),
    ],
)  # fmt: skip
def test_numbers_of_the_scripts(expression: str, expected: Any) -> None:
    parts = [(FOLDER / name).read_text(encoding="utf-8") for name in ("parts.js", "plots.js", "table.js")]
    given = """
    const P = (pairs) => pairs.map(([x, y], n) => ({ x, y, n }));
    const RUNS = [{ at: [1, 2], curves: { k: [1, 2] } }, { at: [1, 2, 3], curves: { k: [3, 6, 9] } }];
    const ROW = { label: "no net", model: "DTN", settings: [["use_tsn", "false", "true"], ["epochs", "3", null]] };
    """
    script = "\n".join(["'use strict';", *parts, given, f"console.log(JSON.stringify({expression}))"])
    assert NODE is not None
    ran = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, check=True, encoding="utf-8")
    assert json.loads(ran.stdout) == expected


# ---- the page in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test of the page")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: no browser test of the page")
    with sync.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture
def page_file(tmp_path: Path, board_runs: Runs) -> Path:
    weights = {"like": {"like/gdcn": 0.75, "shared/gdcn": 0.25}, "love": {"love/gdcn": 0.5, "shared/gdcn": 0.5}}
    records = [
        *board_runs("DTN", 0.80, gate_weights=weights, settings={"use_tsn": False}),
        *board_runs("MMoE", 0.79),
        *board_runs("PLE", 0.81, valid_value=0.7, warnings=[HOSTILE]),
        *board_runs("A model of a plug-in", 0.78),
    ]
    rows = summarise(records, {"digest-of-PLE": HOSTILE})
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.dataset)]
    path = tmp_path / "board.html"
    path.write_text(board_page(groups, records, "films"), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """``opened(width=, scheme=, file=)``: the page in a window; no error and no request but the file's own."""
    faults: list[str] = []
    contexts = []

    def start(width: int = 1200, scheme: str = "light", file: Path | None = None) -> Any:
        file = request.getfixturevalue("page_file") if file is None else file
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: request.url == file.as_uri() or faults.append(request.url))
        page.goto(file.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert faults == []


def shown_rows(page: Any) -> list[str]:
    return [str(text) for text in page.locator(".results tbody tr:visible .open").all_inner_texts()]


def test_sort_filter_columns_and_a_row(opened: Callable[..., Any]) -> None:
    page = opened()
    assert shown_rows(page) == ["DTN", "MMoE", HOSTILE, "A model of a plug-in"]
    assert page.title() == "films: leaderboard"
    heading = page.locator("th[data-of=like][data-metric=auc]")
    heading.locator("button").click()  # more is better: the best first
    assert shown_rows(page) == [HOSTILE, "DTN", "MMoE", "A model of a plug-in"]
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").click()
    assert shown_rows(page) == ["A model of a plug-in", "MMoE", "DTN", HOSTILE]
    page.locator(".results thead button", has_text="parameters").click()  # fewer first
    assert shown_rows(page)[-1] == "A model of a plug-in"
    assert heading.get_attribute("aria-sort") is None

    page.locator("input[type=search]").fill("use_tsn=false")
    assert (shown_rows(page), page.locator("output.count").inner_text()) == (["DTN"], "1 of 4 rows")
    assert page.locator("[data-plot=dots] [data-row]").count() == 1
    page.locator("input[type=search]").fill("-use_tsn=false -mmoe")
    assert sorted(shown_rows(page)) == sorted([HOSTILE, "A model of a plug-in"])
    page.locator("input[type=search]").fill("")
    assert page.locator("[data-plot=dots] [data-row]").count() == 4

    calibration = page.locator("th[data-of=like][data-metric=calibration]")
    assert not calibration.is_visible()
    page.locator(".columns input[value=calibration]").check()
    assert calibration.is_visible()
    assert page.locator("th[data-task=like]").evaluate("head => head.colSpan") == 3
    costs = page.locator("th[data-task='']")
    assert costs.evaluate("head => head.colSpan") == 3
    page.locator(".columns input[value=epochs]").check()
    page.locator(".columns input[value=samples_per_second]").uncheck()
    page.locator(".columns input[value=train_seconds]").check()
    assert costs.evaluate("head => head.colSpan") == 4
    page.locator("th[data-metric=train_seconds] button").click()
    assert page.locator("th[data-metric=train_seconds]").get_attribute("aria-sort") == "ascending"

    page.locator(".results .open", has_text="DTN").click()
    dialog = page.locator("dialog")
    assert dialog.locator("h2").inner_text() == "DTN"
    assert dialog.locator("table").first.inner_text().split() == [
        "setting",
        "value",
        "default",
        "use_tsn",
        "false",
        "true",
    ]
    assert dialog.get_by_text("20260101-000003-DTN").count() == 1
    assert dialog.locator(".gates td").all_inner_texts() == ["0.750", "0.250", "0.500", "0.500"]
    assert dialog.locator("svg .curve").count() == 11, "ten runs and their mean"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_plots_and_their_choices(opened: Callable[..., Any]) -> None:
    page = opened()
    dots, scatter, curves = (page.locator(f"[data-plot={name}]") for name in ("dots", "scatter", "curves"))
    assert dots.locator("circle.run").count() == 40
    assert dots.locator(".interval").count() == 4
    assert dots.locator("line.best").count() == 1
    assert scatter.locator("circle").count() == 4
    scatter.locator("select").nth(1).select_option(label="samples/s")
    assert "against samples/s" in (scatter.locator("svg").get_attribute("aria-label") or "")
    assert curves.locator("[aria-pressed=true]").count() == 3
    curves.locator(".chips button", has_text="A model of a plug-in").click()
    assert curves.locator("path.curve").count() == 44
    curves.locator("select").select_option(label="training loss")
    assert (curves.locator(".drawing svg").get_attribute("aria-label") or "").startswith("loss by epoch")
    scatter.locator("circle").first.click()
    assert page.locator("dialog h2").inner_text() == "DTN"


def test_names_stay_text_in_everything_that_is_drawn(opened: Callable[..., Any]) -> None:
    page = opened()
    page.locator(".results tbody tr").nth(2).locator(".open").click()
    assert page.locator("dialog h2").inner_text() == HOSTILE
    assert page.locator("dialog li").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.title() == "films: leaderboard"


@pytest.mark.parametrize("file", PAGES, ids=lambda path: path.stem)
def test_pages_of_the_repository(opened: Callable[..., Any], file: Path) -> None:
    page = opened(1400, "light", file)
    assert page.evaluate("document.documentElement.scrollWidth") == 1400, "only tables scroll sideways"
    rows = shown_rows(page)
    names = [row.removesuffix(" ‡") for row in rows]
    name = "DTN" if "DTN" in names else "SingleTask"
    assert name in names
    page.locator(".results thead button", has_text="AUC").first.click()
    assert sorted(shown_rows(page)) == sorted(rows)
    assert shown_rows(page) != rows
    assert page.locator("#planned figure svg").count() == 2
    planned = page.locator(".differences", has_text=re.compile("(Planned|Exploratory) comparisons")).first
    lines = planned.locator("tbody").first.locator("tr")
    first = lines.first.inner_text()
    planned.locator("thead button", has_text="difference").click()
    values = [float(text) for text in lines.locator("td:nth-child(3)").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert first in lines.all_inner_texts()
    trials = page.locator(".tuning details", has_text=re.compile(f"{name}( ‡)?: every trial")).first
    trials.locator("summary").click()
    assert trials.locator("tr.chosen").is_visible()
    page.locator(".results .open", has_text=name).first.click()
    assert page.locator("dialog svg .curve").count() >= 10
    for width, scheme in ((1400, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        box = page.locator("dialog").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_a_served_page_tells_when_more_runs_have_ended(browser: Any, tmp_path: Path, board_runs: Runs) -> None:
    known = Recorded()

    def end(model: str) -> None:
        for run in board_runs(model, 0.7, range(2)):
            write_record(run, tmp_path / "films" / model / run.run_id)

    end("DTN")
    with BoardServer(lambda: of_folder(tmp_path, known), "films") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        page = browser.new_page()
        try:
            page.clock.install()
            page.goto(server.address)
            button = page.locator("button.newer")
            with page.expect_response("**/version"):
                page.clock.run_for(3100)
            assert not button.is_visible()
            end("PLE")
            with page.expect_response("**/version"):
                page.clock.run_for(3100)
            button.wait_for()
            button.click()
            page.locator(".open", has_text="PLE").wait_for()
            assert shown_rows(page) == ["DTN", "PLE"]
        finally:
            page.close()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_its_window_in_light_and_dark(opened: Callable[..., Any], width: int) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page = opened(width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".results").is_visible()
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator(".results .open").first.click()
        box = page.locator("dialog").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 24, 30)"]
