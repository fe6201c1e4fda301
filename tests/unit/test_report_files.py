"""Files that are written whole, temporary files that are collected, places that cannot be written."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from recbole_dtn.errors import UsageError
from recbole_dtn.report.files import check_place, collect, replacing, write_text


def test_a_link_stays_one_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "new")
    reader.join()
    assert read == ["new"]
    assert (tmp_path / "pipe").is_fifo()


def test_temporary_files_that_no_process_holds_are_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".writing-target-gone"
    dead.touch()
    other = tmp_path / ".writer"
    other.touch()
    with replacing(tmp_path / "a") as held:
        assert not dead.exists()
        dead.touch()
        write_text(tmp_path / "b", "new")
        assert held.exists()
        assert not dead.exists()
        held.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writer", "a", "b"]
    with pytest.raises(KeyError), replacing(tmp_path / "a") as held:
        raise KeyError(held.write_text("half"))
    assert (tmp_path / "a").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writer", "a", "b"]


def test_without_the_folders_lock_files_of_the_last_minute_stay(tmp_path: Path) -> None:
    young, old = tmp_path / "run" / ".writing-young", tmp_path / "run" / ".writing-old"
    young.parent.mkdir()
    young.touch()
    old.touch()
    os.utime(old, (time.time() - 61,) * 2)
    collect([tmp_path / "none", old, *tmp_path.iterdir()])
    assert young.exists()
    assert not old.exists()


def test_places_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    check_place(tmp_path / "new" / "runs", "output_dir=x")
    check_place(tmp_path / "new" / "scores.csv", "--output=x", file=True)
    check_place(file, "--output=x", file=True)
    check_place(Path(os.devnull), "--output=/dev/null", file=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for place in (file, file / "runs", file / "a" / "b"):
        with pytest.raises(UsageError, match=rf"output_dir=x: cannot be written \({file} is a file\)"):
            check_place(place, "output_dir=x")
    with pytest.raises(UsageError, match=rf"{file} is a file\); choose another file"):
        check_place(file / "scores.csv", "--output=x", file=True)
    with pytest.raises(UsageError, match=rf"--output=x: cannot be written \({tmp_path} is a folder\)"):
        check_place(tmp_path, "--output=x", file=True)

    def refused(**options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("recbole_dtn.report.files.tempfile.TemporaryFile", refused)
    with pytest.raises(
        UsageError, match=rf"\({tmp_path}: Read-only file system\); choose a place that can be written to"
    ):
        check_place(tmp_path / "new" / "runs", "output_dir=x")
