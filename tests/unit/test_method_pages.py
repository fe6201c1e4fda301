"""What the index says of every method beyond its options: equations, sizes, ``list --details``, and pages of docs/."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_dtn.cli import main
from recbole_dtn.cli.details import details, size_words
from recbole_dtn.cli.docstrings import as_markdown, body_of, to_markdown, to_terminal
from recbole_dtn.cli.index import details_text, repository
from recbole_dtn.cli.pages import PART, PLACES, pages
from recbole_dtn.cli.sizes import measured
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import BALANCERS, INTERACTIONS, MODELS, REGISTRIES
from recbole_dtn.shipped import DETAILS, builtin_details, builtin_index, properties_folder

ROOT = Path(__file__).resolve().parents[2]
README_BOARD, SMALL_BOARD = "ml-100k", "single-task-kuairand"
STALE = "run `python run_recbole_dtn.py index`"


def test_equations_and_sizes_are_those_of_the_classes() -> None:
    assert (properties_folder() / DETAILS).read_text("utf-8") == details_text(builtin_index()), STALE


def test_the_pages_are_what_the_index_says() -> None:
    assert repository(properties_folder()) == ROOT
    made = pages(ROOT, builtin_index(), builtin_details())
    assert [name for name, text in made.items() if (ROOT / name).read_text("utf-8") != text] == [], STALE
    for kind, page in PLACES.items():
        for name in builtin_index()[kind]:
            assert f"\n### {name}\n" in made[page], f"{page} has no section {name}"
            assert f"[`{name}`]({page}#" in made["README.md"]


@pytest.mark.parametrize("kind", PLACES)
def test_every_method_states_its_equation(kind: str) -> None:
    # A variant of another method may refer to its class.
    equation = re.compile(r"``|::|:class:`")
    without = [name for name, found in builtin_details()[kind].items() if not equation.search(found["text"])]
    assert without == [], "the docstring has the equation, between double backquotes or after `::`"


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_worked_out_by_hand() -> None:
    # F = 8, D = 16: width 128; two layers of a cross with a bias and a gate without; then 128 to 64 outputs.
    assert measured(INTERACTIONS, "gdcn") == {
        "parameters": 2 * (2 * 128 * 128 + 128) + 128 * 64 + 64,
        "flops": 2 * (2 * 2 * 128 * 128 + 128 * 64),
    }
    # Four experts 128 -> 128, two gates of four, two towers 128 -> 64 -> 1; the mixtures (1, 4) (4, 128).
    assert measured(MODELS, "MMoE") == {
        "parameters": 4 * (128 * 128 + 128) + 2 * 128 * 4 + 2 * (128 * 64 + 64 + 64 + 1),
        "tables": 8 * 100 * 16,
        "flops": 2 * (4 * 128 * 128 + 2 * 128 * 4 + 2 * 4 * 128 + 2 * (128 * 64 + 64)),
    }
    assert measured(BALANCERS, "uncertainty") == {"parameters": 2}
    assert measured(MODELS, "Boosting") is None
    assert size_words({"parameters": 2}, "balancer") == "2 parameters (2 tasks)"


def test_measuring_leaves_random_numbers_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    measured(INTERACTIONS, "masknet")
    assert torch.equal(torch.get_rng_state(), before)


# ---- docstrings -----------------------------------------------------------------------------------------------------

DOCSTRING = """Summary of it.

    From :class:`~a.b.Paper`, with ``h = W x`` and h*w, w*h::

        a = b * c
            + ``d``

    A list:

    - one thing
      on two lines
    - another

    Args:
        x: not shown.
    """


def test_a_docstring_as_markdown_and_as_text() -> None:
    body = body_of(DOCSTRING)
    assert to_markdown(body) == (
        "From `Paper`, with `h = W x` and h\\*w, w\\*h:\n\n```text\na = b * c\n    + d\n```\n\n"
        "A list:\n\n- one thing\n  on two lines\n- another"
    )
    assert to_terminal(body) == [
        "", "  From `Paper`, with `h = W x` and h*w, w*h:", "", "    a = b * c", "        + d",
        "", "  A list:", "", "  - one thing", "    on two lines", "  - another",
    ]  # fmt: skip
    assert body_of("One line.") == body_of(None) == ""
    assert body_of("One line.\n\n>>> 1\n1") == ""
    assert body_of("One line.\n\nReturns:\n    x.") == ""
    assert as_markdown("<a, b> and ``<c>`` * 2") == "\\<a, b> and `<c>` * 2"


# ---- pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The pages, that of the leaderboards with one table alone: each is made from an archive."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    for name in (README_BOARD, SMALL_BOARD):
        shutil.copytree(ROOT / "leaderboards" / name, tmp_path / "leaderboards" / name)
    parts = PART.finditer((ROOT / "leaderboards" / "README.md").read_text())
    (tmp_path / "leaderboards" / "README.md").write_text(next(part[0] for part in parts if part[2] == SMALL_BOARD))
    return tmp_path


def test_only_the_marked_parts_are_written(copies: Path) -> None:
    page = copies / "docs" / "losses.md"
    page.write_text(
        "# Mine\n\n<!-- generated by `index`: loss names -->\nold\n<!-- end of the generated part -->\n\nEnd\n"
    )
    index: dict[str, Any] = {
        **builtin_index(),
        "loss": {"a|b": {"summary": "x", "paper": ""}, "c.d": {"summary": "y", "paper": ""}},
    }
    made = pages(copies, index, {**builtin_details(), "loss": {name: {"text": ""} for name in index["loss"]}})
    assert made["docs/losses.md"] == (
        "# Mine\n\n<!-- generated by `index`: loss names -->\n[`a|b`](#ab), [`c.d`](#cd)\n"
        "<!-- end of the generated part -->\n\nEnd\n"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "docs/losses.md: expected a part that begins with `<!-- generated by `index`: KIND STYLE -->`"),
        (
            "<!-- generated by `index`: los names -->\n<!-- end of the generated part -->",
            r"docs/losses.md: expected a kind \(model, .* and a style \(short, .* in <!-- generated by `index`: los",
        ),
        (
            "<!-- generated by `index`: board mine -->\n<!-- end of the generated part -->",
            r"docs/losses.md: no leaderboard mine: expected .*mine.records.jsonl.gz",
        ),
        (None, r"docs/losses.md is missing: the index writes its parts between"),
    ],
)
def test_a_page_without_its_part_is_an_error(text: str | None, told: str, copies: Path) -> None:
    page = copies / "docs" / "losses.md"
    page.unlink() if text is None else page.write_text(text)
    with pytest.raises(UsageError, match=told):
        pages(copies, builtin_index(), builtin_details())


def test_index_resolves_conflicts_in_what_it_writes(
    copies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a merge: conflict marks in the index, in a method's YAML, and in a generated part of a page."""
    shutil.copytree(ROOT / "properties", copies / "properties")
    marks = "<<<<<<< ours\n=======\n>>>>>>> theirs\n"
    broken = ["properties/index.json", "properties/details.json", "properties/interaction/gdcn.yaml"]
    for name in broken:
        (copies / name).write_text(marks + (copies / name).read_text())
    page = copies / "docs" / "interactions.md"
    page.write_text(page.read_text().replace("### gdcn\n", f"### gdcn\n{marks}"))
    gone = copies / "properties" / "loss" / "gone.yaml"
    gone.write_text("# A loss.\n# Generated by `index` from gone.py\n")
    for module in ("recbole_dtn.shipped", "recbole_dtn.cli.index"):
        monkeypatch.setattr(f"{module}.properties_folder", lambda: copies / "properties")
    builtin_index.cache_clear()  # from here on the broken file would be read
    try:
        assert main(["index", "--check"]) == 1
        names = ["interaction/gdcn.yaml", "index.json", "loss/gone.yaml"]
        assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"differs: properties/{name}" for name in names)
        assert main(["index"]) == 0
        written = capsys.readouterr().out
        assert main(["index", "--check"]) == 0
    finally:
        builtin_index.cache_clear()
    names = [line.partition(": ")[2] for line in written.splitlines() if line.startswith("written")]
    assert sorted(names) == sorted([*broken, "docs/interactions.md"])
    assert not gone.exists()
    for name in names:
        assert (copies / name).read_text() == (ROOT / name).read_text()


# ---- list --details -------------------------------------------------------------------------------------------------


def test_list_details(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "interactions", "--details"]) == 0
    out = capsys.readouterr().out
    part = out[out.index("\ngdcn\n") :].partition("\n\nmasknet\n")[0]
    assert "(Wang et al., CIKM 2023;" in part
    assert "    c_{l+1} = c_0 * (W_c c_l + b) * sigmoid(W_g c_l) + c_l\n" in part
    assert "74,048 parameters, 147,456 FLOPs per row (8 fields of 100 values each, embeddings of 16" in part
    assert "  layers: 2                   an integer >= 1: gated cross layers\n" in part
    for registry in REGISTRIES:
        assert all(details(registry, name).summary for name in registry.names())


def test_list_details_of_a_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    assert main(["new", "interaction", "Mine", f"--output={file}"]) == 0
    capsys.readouterr()
    assert main(["list", "interactions", "--details", f"--plugins={file}"]) == 0
    out = capsys.readouterr().out
    part = out[out.index("\nmine\n") :]
    assert "    y = W 1/2 ((sum_f e_f)^2 - sum_f e_f^2) + b\n" in part
    # 16 numbers to 64 outputs.
    assert f"{16 * 64 + 64:,} parameters, {2 * 16 * 64:,} FLOPs per row" in part
    assert "dropout: 0.0                a number >= 0 and < 1: share of the products set to zero" in part


def test_details_are_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "datasets", "--details"]) == 2
    assert "list datasets: --details is for methods" in capsys.readouterr().err


def test_starting_up_does_not_read_them(tmp_path: Path) -> None:
    code = (
        "import sys; from recbole_dtn.cli import main; from recbole_dtn.shipped import builtin_details as d; "
        "main(['--help']); main(['list', 'models']); main(['--modle=X']); "
        "print(json.dumps([d.cache_info().currsize, 'torch' in sys.modules]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(out.splitlines()[-1]) == [0, False]
