"""The leaderboards of this repository are what their records give."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest

from recbole_dtn.cli import main
from recbole_dtn.leaderboard.archive import SUFFIX, read_archive

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = sorted(ROOT.glob(f"leaderboards/*/*{SUFFIX}"))
ENDED = [archive for archive in ARCHIVES if list(archive.parent.glob("*.md"))]
"""Those with tables; others go on."""
MADE = ("md", "csv", "differences.csv", "across.csv", "tex", "html", "svg")
"""What is made of the records; statistics, speed and plan are read."""


def text_of(path: Path) -> str:
    """A file's text, without what is drawn, whose digits depend on matplotlib's version."""
    return re.sub(r"<svg\b.*?</svg>", "", path.read_text("utf-8"), flags=re.DOTALL)


def test_there_are_leaderboards() -> None:
    assert ENDED
    for archive in ARCHIVES:
        assert archive.name == f"{archive.parent.name}{SUFFIX}"


@pytest.mark.parametrize("archive", ENDED, ids=lambda path: path.parent.name)
def test_tables_and_page_are_those_of_the_records(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / archive.parent.name
    shutil.copytree(archive.parent, folder)
    made = [path for path in folder.iterdir() if path.name.split(".", 1)[1] in MADE]
    assert len(made) >= 4
    for path in made:
        path.unlink()
    monkeypatch.chdir(tmp_path)  # where no data are
    assert main(["leaderboard", "render", str(folder / archive.name)]) == 0
    again = f"run `python run_recbole_dtn.py leaderboard render {archive.relative_to(ROOT)}`"
    for path in made:
        assert text_of(path) == text_of(archive.parent / path.name), again
    assert gzip.decompress((folder / archive.name).read_bytes()) == gzip.decompress(archive.read_bytes()), again


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.parent.name)
def test_no_folder_of_the_machine_is_in_them(archive: Path) -> None:
    for record in read_archive(archive).records:
        paths = [str(record.settings[key]) for key in ("data_path", "output_dir", "cache_dir", "init_from", "raw")]
        assert not [path for path in paths if path.startswith(("/", "~", "\\"))]
