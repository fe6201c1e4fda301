"""Checksums of the cache: one flipped bit in any of its files is noticed, and the entry is made again."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data import cache, cached, sums
from recbole_dtn.data.cache import open_entry
from recbole_dtn.data.sums import BLOCK, file_sum, identity, read_signed, write_signed
from recbole_dtn.preprocess.prepare import prepare

HEAD = "u:token\ti:token\ts:token_seq\tw:float_seq\tx:float\tq:float\tg:token\ty:float"
ROWS = [f"u{i % 4}\ti{i % 7}\ta b\t1 2\t{i % 5}\t{i % 9}\tg{i % 3}\t{i % 2}" for i in range(40)]
VALUES = {
    "fields": [
        {"name": "u"},
        {"name": "i"},
        {"name": "s", "type": "token_seq", "weights": "w"},
        {"name": "q", "type": "float"},
        {"name": "age"},
    ],
    "tasks": [{"name": "y", "label": "y"}, {"name": "z", "label": "y", "observed_when": "x > 1"}],
    "group_field": "g",
    "domain_field": "g",
    "weight_field": "x",
}
# Every kind of file that an entry can have.
FILES = [
    "checked.json", "domain.npy", "f0.npy", "f1.npy", "f2.npy", "f2.offsets.npy", "f2.weights.npy", "f3.npy", "f4.npy",
    "group.npy", "labels.npy", "manifest.json", "observed.npy", "pointer.user.npy", "row.npy", "vocabularies.json",
    "weight.npy",
]  # fmt: skip


def make_settings(path: Path, **change):
    folder = path / "data" / "toy"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        (folder / "toy.inter").write_text("\n".join([HEAD, *ROWS]) + "\n")
        (folder / "toy.user").write_text("u:token\tage:token\n" + "".join(f"u{i}\t{20 + i}\n" for i in range(4)))
    return resolve({"model": "MMoE", "dataset": "toy", "data_path": str(path / "data"), **VALUES, **change}).settings


@pytest.fixture
def settings(tmp_path):
    return lambda **change: make_settings(tmp_path, **change)


def flip(path: Path, place: float = 0.5, bit: int = 0) -> None:
    """Flip one bit of a file; its inode stays."""
    data = bytearray(path.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    with path.open("r+b") as file:
        file.write(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "checked.json"}


def test_the_files_flipped_below_are_all_that_there_are(settings):
    folder = prepare(settings()).cache_folder
    assert {path.name for path in folder.iterdir()} == {*FILES} - {"checked.json"}
    assert prepare(settings()).cached
    assert sorted(path.name for path in folder.iterdir()) == FILES


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """One cache entry for all flips: each of them makes it again."""
    values = make_settings(tmp_path_factory.mktemp("toy"))
    return values, prepare(values).cache_folder


@pytest.mark.parametrize("name", [name for name in FILES if name != "checked.json"])
def test_one_flipped_bit_is_noticed_and_the_entry_is_made_again(entry, name):
    values, folder = entry
    before = contents(folder)
    for place, bit in ((0.0, 7), (0.5, 0), (1.0, 3)):
        flip(folder / name, place, bit)
        assert open_entry(folder) is None
        if place < 1:
            (folder / name).write_bytes(before[name])
            assert open_entry(folder) is not None
    said: list[str] = []
    again = prepare(values, log=said.append)
    assert not again.cached
    assert again.cache_folder == folder
    assert contents(folder) == before
    if name != "manifest.json":  # which lists the others, and whose own checksum says that there is no entry
        assert any(f"{name} does not have its checksum" in text and "made again" in text for text in said)
    assert any("again: its cache is incomplete, faulty" in text for text in said)
    assert prepare(values).cached


def test_a_file_written_with_its_old_time_of_change_is_noticed(settings):
    first = prepare(settings())
    assert prepare(settings()).cached  # found right
    path = first.cache_folder / "labels.npy"
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert not prepare(settings()).cached


def counted(monkeypatch) -> list[Path]:
    """The files that are read from now on for their checksums, a name per block."""
    read: list[Path] = []
    real = sums._block
    monkeypatch.setattr(sums, "_block", lambda path, *place: (read.append(path.name), real(path, *place))[1])
    return read


def test_files_are_read_once_and_again_when_they_are_others(settings, monkeypatch, tmp_path):
    folder = prepare(settings()).cache_folder
    read = counted(monkeypatch)
    arrays = sorted({*FILES} - {"checked.json", "manifest.json"})
    assert prepare(settings()).cached
    assert sorted(read) == arrays  # the first time that the entry is opened
    read.clear()
    assert prepare(settings()).cached
    assert read == []
    flip(folder / "checked.json")
    assert prepare(settings()).cached
    assert sorted(read) == arrays
    read.clear()
    os.utime(folder / "f0.npy", ns=(1, 1))
    copy = tmp_path / "copy"
    copy.write_bytes((folder / "f1.npy").read_bytes())
    os.replace(copy, folder / "f1.npy")  # the same content in another inode
    assert prepare(settings()).cached
    assert sorted(read) == ["f0.npy", "f1.npy"]
    read.clear()
    assert prepare(settings()).cached
    assert read == []


def test_a_cache_that_cannot_be_written_is_checked_each_time(settings, monkeypatch):
    folder = prepare(settings()).cache_folder

    def refuse(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cached, "write_signed", refuse)
    read = counted(monkeypatch)
    for _ in range(2):
        assert prepare(settings()).cached
        assert len(read) == len(FILES) - 2
        read.clear()
    assert not (folder / "checked.json").exists()


def faked(monkeypatch):
    """A disk whose content changes by itself: identities do not show it."""
    real = sums.identity
    for module in (cache, cached):
        monkeypatch.setattr(module, "identity", lambda path: [real(path)[0], 0, 0, 0])


def test_check_full_reads_the_cache_again(settings, monkeypatch):
    faked(monkeypatch)
    first = prepare(settings())
    before = contents(first.cache_folder)
    assert prepare(settings()).cached
    flip(first.cache_folder / "f0.npy", 1.0)
    assert prepare(settings()).cached
    assert prepare(settings()).fingerprint == first.fingerprint
    said: list[str] = []
    assert not prepare(settings(check="full"), log=said.append).cached
    assert any("f0.npy does not have its checksum" in text for text in said)
    assert contents(first.cache_folder) == before
    assert prepare(settings(check="full")).cached


@pytest.mark.parametrize("name", ["toy.inter", "toy.user"])
def test_check_full_reads_the_atomic_files_again(settings, monkeypatch, name):
    faked(monkeypatch)
    first = prepare(settings())
    path = first.folder / name
    path.write_text(path.read_text().replace("u3\t", "u5\t"))
    assert prepare(settings()).fingerprint == first.fingerprint  # not seen: size and times are as they were
    said: list[str] = []
    if name == "toy.user":  # u3 has no row any more
        prepare(settings(check="full"), log=said.append)
    else:
        assert "u5" in prepare(settings(check="full"), log=said.append).vocabularies.tokens("u")
    assert any(f"{name} has another content than when it was read before" in text for text in said)
    assert prepare(settings()).fingerprint != first.fingerprint


def test_an_atomic_file_with_its_old_time_of_change_is_read_again(settings):
    first = prepare(settings())
    path = first.folder / "toy.inter"
    before = path.stat()
    path.write_text(path.read_text().replace("u3\t", "u5\t"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert prepare(settings()).fingerprint != first.fingerprint


def test_a_flipped_bit_in_the_digests_takes_them_again(settings):
    first = prepare(settings())
    memo = first.cache_folder.parent / "digests.json"
    before = memo.read_bytes()
    for place in (0.2, 0.5, 0.8, 1.0):
        flip(memo, place)
        again = prepare(settings())
        assert again.cached
        assert again.fingerprint == first.fingerprint
        assert memo.read_bytes() == before


def test_a_checksum_is_blake2b_over_those_of_blocks(tmp_path):
    data = np.random.default_rng(0).bytes(2 * BLOCK + 17)
    (tmp_path / "file").write_bytes(data)

    def digest(part: bytes) -> bytes:
        return hashlib.blake2b(part, digest_size=20).digest()

    parts = [digest(data[:BLOCK]), digest(data[BLOCK : 2 * BLOCK]), digest(data[2 * BLOCK :])]
    assert file_sum(tmp_path / "file") == digest(b"".join(parts)).hex()
    assert file_sum(tmp_path / "file", BLOCK) == digest(parts[0]).hex()
    (tmp_path / "empty").touch()
    assert file_sum(tmp_path / "empty") == digest(b"").hex()


def test_every_flipped_bit_of_signed_json_is_noticed(tmp_path):
    path = tmp_path / "signed.json"
    write_signed(path, {"a": [1, 2.5, None], "sum of": ', "sum": "'})
    assert read_signed(path) == {"a": [1, 2.5, None], "sum of": ', "sum": "'}
    assert json.loads(path.read_text())["a"] == [1, 2.5, None]
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        assert read_signed(path) is None, at
    for length in (0, 1, 40, len(data) - 1):
        path.write_bytes(data[:length])
        assert read_signed(path) is None
    path.write_text("[]")
    assert read_signed(path) is None


def test_an_identity_changes_with_what_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("a")
    seen = [identity(path)]
    os.utime(path, ns=(1, 1))
    seen.append(identity(path))
    (tmp_path / "other").write_text("a")
    os.utime(tmp_path / "other", ns=(1, 1))
    os.replace(tmp_path / "other", path)
    seen.append(identity(path))
    assert len({tuple(each) for each in seen}) == 3
    assert {each[0] for each in seen} == {1}
