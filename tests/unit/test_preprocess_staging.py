"""Files that take their places together, or not at all."""

import fcntl
import os
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from recbole_dtn.config.datasets import INCOMPLETE, has_atomic_files
from recbole_dtn.data import building as building_module
from recbole_dtn.data import staging
from recbole_dtn.data.building import building, locked_folder
from recbole_dtn.data.staging import dataset_files, dataset_lock, staged
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.report.files import replacing


def write(data_path, names, text="new", **options):
    options = {"overwrite": False, **options}
    with staged(data_path / "mine", "mine", **options) as (work, scratch):
        (scratch / "spill").write_text("x")
        for name in names:
            (work / name).write_text(text)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


FILES = ["mine.train.inter", "mine.user", "mine.yaml"]


def test_files_take_their_places_together(tmp_path):
    write(tmp_path, FILES)
    assert content(tmp_path / "mine") == dict.fromkeys(FILES, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(UsageError, match="holds a data set already"):
        write(tmp_path, FILES)


def test_overwriting_removes_what_the_old_set_had_more(tmp_path):
    write(tmp_path, [*FILES, "mine.item", "mine.test.inter", "rejected.tsv", "preprocess.json"])
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "mine" / "raw").mkdir()
    write(tmp_path, ["mine.inter"], overwrite=True)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["mine.inter", "notes.txt", "raw"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_changes_nothing(tmp_path, existing):
    if existing:
        write(tmp_path, FILES, "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), staged(tmp_path / "mine", "mine", overwrite=True) as (work, _):
            raise error((work / "mine.user").write_text("half"))
    assert [path.name for path in tmp_path.iterdir()] == (["mine"] if existing else [])
    if existing:
        assert content(tmp_path / "mine") == dict.fromkeys(FILES, "old")


def test_folders_made_for_a_failed_run_are_removed(tmp_path):
    with pytest.raises(ValueError, match="x"), staged(tmp_path / "a" / "b" / "mine", "mine", overwrite=False):
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_messages_name_the_folder_and_not_the_work_folder(tmp_path):
    with pytest.raises(DataError) as caught, staged(tmp_path / "mine", "mine", overwrite=False) as (work, _):
        raise DataError(f"{work / 'mine.inter'}, line 2: wrong")
    assert str(caught.value) == f"{tmp_path / 'mine' / 'mine.inter'}, line 2: wrong"


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("existing", [False, True])
def test_killed_while_the_files_are_moved(tmp_path, monkeypatch, step, existing):
    if existing:
        write(tmp_path, FILES, "old")
    moves = []
    move = os.replace

    def killed(source, target):
        moves.append(target)
        if len(moves) == step:
            raise SystemExit("killed")
        move(source, target)

    monkeypatch.setattr(staging.os, "replace", killed)
    with pytest.raises(SystemExit):
        write(tmp_path, FILES, overwrite=existing)
    monkeypatch.undo()
    folder = tmp_path / "mine"
    assert (folder / INCOMPLETE).exists()
    assert dataset_files(folder) == []
    assert not has_atomic_files(folder)
    write(tmp_path, FILES)  # starts over, without --overwrite: what is there is no data set
    assert content(folder) == dict.fromkeys(FILES, "new")
    assert has_atomic_files(folder)


def test_a_stale_file_of_an_interrupted_run_does_not_stay(tmp_path):
    write(tmp_path, ["mine.train.inter", "mine.item"], "old")
    (tmp_path / "mine" / INCOMPLETE).touch()
    write(tmp_path, ["mine.train.inter"])
    assert content(tmp_path / "mine") == {"mine.train.inter": "new"}


def aged(folder, seconds):
    os.utime(folder, (time.time() - seconds,) * 2)


def test_abandoned_work_folders_go_whatever_their_names_and_live_ones_stay(tmp_path):
    dead = [tmp_path / name for name in (".writing-mine-gone", ".writing-other-gone", ".starting-gone")]
    for folder in dead:
        (folder / "files").mkdir(parents=True)
        (folder / ".lock").touch()
    lockless = tmp_path / ".starting-early"  # killed before it had its lock
    lockless.mkdir()
    foreign = [tmp_path / "writing-mine", tmp_path / ".writings"]
    for folder in foreign:
        folder.mkdir()
    dead_file = tmp_path / ".writing-x"
    dead_file.touch()
    live = [tmp_path / ".writing-mine-live", tmp_path / ".writing-other-live", tmp_path / ".starting-live"]
    with ExitStack() as stack:
        file = stack.enter_context(replacing(tmp_path / "target"))  # another process is about to rename it
        for folder in live:
            folder.mkdir()
            lock = stack.enter_context((folder / ".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            aged(folder, 10_000)
        with locked_folder(tmp_path, ".writing-mine-") as held:
            assert not [folder for folder in (*dead, lockless, dead_file) if folder.exists()]
            assert all(path.exists() for path in (*live, *foreign, file))
            with (held / ".lock").open() as other, pytest.raises(OSError, match=r"unavailable|would block"):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not held.exists()
    write(tmp_path, FILES)
    assert not [folder for folder in live if folder.exists()]  # their processes have let go of them
    assert all(path.exists() for path in (*foreign, tmp_path / "target"))


def test_where_a_folder_cannot_be_locked_only_old_remains_go(tmp_path, monkeypatch):
    """Without that lock a process may be between making its folder and locking it."""

    @contextmanager
    def unknown(root):
        yield False

    monkeypatch.setattr(building_module, "guarded", unknown)
    young, old = tmp_path / ".writing-a-young", tmp_path / ".writing-a-old"
    for folder in (young, old):
        folder.mkdir()
        (folder / ".lock").touch()
    aged(old, 61)
    with locked_folder(tmp_path, ".writing-mine-"):
        assert young.exists()
        assert not old.exists()


def test_two_at_work_in_one_folder(tmp_path):
    with (
        locked_folder(tmp_path, ".writing-a-") as one,
        building(tmp_path) as two,
        locked_folder(tmp_path, "x") as three,
    ):
        assert len({one, two, three}) == 3
        assert all(folder.is_dir() for folder in (one, two, three))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_lists_of_an_earlier_failed_run_do_not_stay(tmp_path, overwrite):
    (tmp_path / "mine").mkdir()
    for name in ("rejected.tsv", "rejected.failed.tsv"):
        (tmp_path / "mine" / name).write_text("old")
    write(tmp_path, FILES, overwrite=overwrite)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == FILES


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"cannot be written \(.*file is a file\); choose another folder"):
        write(tmp_path / "file", FILES)


def test_a_set_written_again_as_it_was(tmp_path):
    write(tmp_path, FILES)
    (tmp_path / "mine" / "mine.item").write_text("another")
    write(tmp_path, FILES, same=True)
    assert content(tmp_path / "mine") == {**dict.fromkeys(FILES, "new"), "mine.item": "another"}
    with pytest.raises(UsageError, match=r"mine\.train\.inter, mine\.user, mine\.yaml"):
        write(tmp_path, FILES, "changed", same=True)
    assert content(tmp_path / "mine")["mine.user"] == "new"


def test_of_two_that_make_one_set_at_the_same_time_one_refuses(tmp_path):
    """Two threads have two locks of the file, as two processes have."""
    inside, done = threading.Event(), threading.Event()

    def slow():
        with staged(tmp_path / "mine", "mine", overwrite=False) as (work, _):
            (work / "mine.inter").write_text("first")
            inside.set()
            done.wait(10)

    other = threading.Thread(target=slow)
    other.start()
    inside.wait(10)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="mine: another process is making or encoding this data set; wait"):
            write(tmp_path, ["mine.inter"], overwrite=overwrite)
    with staged(tmp_path / "other", "other", overwrite=False) as (work, _):
        (work / "other.inter").write_text("x")
    done.set()
    other.join()
    assert content(tmp_path / "mine") == {"mine.inter": "first"}
    with pytest.raises(UsageError, match="holds a data set already"):
        write(tmp_path, ["mine.inter"])
    write(tmp_path, ["mine.inter"], overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "other"]


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    (tmp_path / ".mine.lock").touch()
    write(tmp_path, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_set_that_appeared_meanwhile_is_not_replaced_even_where_it_is_the_same(tmp_path):
    def make():
        with staged(tmp_path / "mine", "mine", overwrite=False) as (work, _):
            for folder in (work, tmp_path / "mine"):
                folder.mkdir(exist_ok=True)
                (folder / "mine.inter").write_text("x")

    with pytest.raises(UsageError, match="holds a data set already"):
        make()
    assert content(tmp_path / "mine") == {"mine.inter": "x"}


def test_who_has_the_lock_may_make_the_set_and_keeps_it(tmp_path):
    """As a training does that finds no atomic files."""
    with dataset_lock(tmp_path / "mine"):
        write(tmp_path, FILES)
        with (tmp_path / ".mine.lock").open("w") as other, pytest.raises(OSError, match=r"unavailable|would block"):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_is_a_file_is_found_before_the_work(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match=r"mine: cannot be written \(.*mine is a file\)"):
        write(tmp_path, FILES)
