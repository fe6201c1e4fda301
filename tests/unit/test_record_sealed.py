"""Checkpoints carry a checksum: one flipped bit anywhere in the file is noticed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_dtn.data.sums import file_sum
from recbole_dtn.errors import DataError
from recbole_dtn.record.checkpoint import FORMAT, read_weights, save_whole
from recbole_dtn.record.sealed import SEAL_BYTES, is_sealed, seal
from recbole_dtn.record.training import read_training

CONTENT = {
    "format": FORMAT, "record": {"a": 1}, "state_dict": {"weight": torch.arange(40.0)},
    "schema": {}, "vocabularies": {}, "settings": {}, "epoch": 1,
}  # fmt: skip
READ = {"checkpoint.ckpt": read_weights, "training.ckpt": read_training}
PLACES = np.linspace(0, 1, 97)


@pytest.mark.parametrize("name", READ)
def test_one_flipped_bit_anywhere_is_noticed(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    save_whole(file, CONTENT)
    data = file.read_bytes()
    assert READ[name](tmp_path)
    # Places all over the file, and every byte of its end, where the checksum is.
    places = {*(PLACES * (len(data) - 1)).astype(int).tolist(), *range(len(data) - SEAL_BYTES - 30, len(data))}
    for at in sorted(places):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        file.write_bytes(changed)
        with pytest.raises(DataError, match=f"{name} does not have its checksum.* Put back a copy of it"):
            READ[name](tmp_path)
    for length in (0, 1, len(data) // 2, len(data) - SEAL_BYTES, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(DataError, match=name):
            READ[name](tmp_path)
    file.write_bytes(data)
    assert READ[name](tmp_path)


def test_a_sealed_file_is_an_archive_that_torch_reads(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.ckpt"
    save_whole(file, CONTENT)
    assert is_sealed(file)
    for mapped in (False, True):
        found = torch.load(file, weights_only=True, mmap=mapped)
        assert torch.equal(found["state_dict"]["weight"], torch.arange(40.0))
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        comment = archive.comment
    unsealed = file.stat().st_size - len(comment)
    assert comment == b"recbole_dtn " + file_sum(file, unsealed).encode()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.ckpt"]


def test_a_checkpoint_of_an_earlier_version_has_none_and_is_read(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "checkpoint.ckpt")
    assert not is_sealed(tmp_path / "checkpoint.ckpt")
    assert torch.equal(read_weights(tmp_path)["weight"], torch.arange(40.0))


def test_a_changed_weight_of_an_earlier_version_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.ckpt"
    torch.save(CONTENT, file)
    data = file.read_bytes()
    weights = torch.arange(40.0).numpy().tobytes()
    assert data.count(weights) == 1
    for at in range(0, len(weights), 7):
        changed = bytearray(data)
        changed[data.index(weights) + at] ^= 1 << at % 8
        file.write_bytes(changed)
        with pytest.raises(DataError, match="does not have its checksum"):
            read_weights(tmp_path)


def test_only_an_archive_without_a_comment_can_be_sealed(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.ckpt"
    save_whole(file, CONTENT)
    with pytest.raises(ValueError, match="no zip archive without a comment"):
        seal(file)
    file.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="no zip archive without a comment"):
        seal(file)


def test_a_checkpoint_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "checkpoint.ckpt"
    save_whole(file, CONTENT)

    def refused(path: Path, size: int) -> str:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr("recbole_dtn.record.sealed.file_sum", refused)
    with pytest.raises(DataError, match=r"checkpoint\.ckpt: cannot be read \(Input/output error\)"):
        read_weights(tmp_path)


def test_a_full_disk_keeps_the_checkpoint_before_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoint.ckpt"
    save_whole(file, CONTENT)
    before = file.read_bytes()

    def full(path: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("recbole_dtn.record.plain_file.seal", full)
    with pytest.raises(DataError, match="No space left"):
        save_whole(file, {**CONTENT, "epoch": 2})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.ckpt"]
