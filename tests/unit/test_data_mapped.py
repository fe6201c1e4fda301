"""A cache file that becomes shorter while it is mapped: a message, wherever the read is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data.mapped import MappedFiles, load_array, map_of
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.prepare import PreparedData, prepare

ROWS = 200


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedData:
    folder = tmp_path / "toy"
    folder.mkdir()
    lines = [f"u{i % 4}\ta b\t{i}\t{i % 2}" for i in range(ROWS)]
    (folder / "toy.inter").write_text("\n".join(["u:token\ts:token_seq\tx:float\ty:float", *lines]) + "\n")
    fields = [{"name": "u"}, {"name": "s", "type": "token_seq"}, {"name": "x", "type": "float"}]
    values = {"fields": fields, "tasks": [{"name": "y", "label": "y"}]}
    places = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path)}
    return prepare(resolve({**values, **places}).settings)


def cut(file: Path) -> None:
    """Its last page stays, so that no read can end the process."""
    os.truncate(file, file.stat().st_size - 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["f0.npy", "f1.npy", "f1.offsets.npy", "f2.npy", "labels.npy", "row.npy"])
def test_a_file_that_was_cut_is_named_before_it_is_read(prepared: PreparedData, name: str, packed: bool) -> None:
    split = prepared.splits["train"]
    if packed:
        split.pack()
    file = prepared.cache_folder / name
    size = file.stat().st_size
    batches = split.batches(np.arange(64), 16)
    assert len(next(batches).labels) == 16
    cut(file)
    if packed and name == "f0.npy":  # its ids are in memory
        assert len(list(batches)) == 3
        return
    message = rf"{name}: cut to {size - 1:,} of its {size:,} bytes while it was read.* makes the cache again"
    with pytest.raises(DataError, match=message):
        list(batches)
    with pytest.raises(DataError, match=message):
        split.batch(np.arange(4))
    again = prepare(resolve({"model": "MMoE", "dataset": "toy", "data_path": str(prepared.folder.parent),
                             "fields": [{"name": "u"}], "tasks": [{"name": "y", "label": "y"}]}).settings)  # fmt: skip
    assert again.splits["train"].batch(np.arange(4)).ids.shape == (4, 1)


def test_a_file_that_is_replaced_is_read_as_it_was(prepared: PreparedData) -> None:
    split = prepared.splits["train"]
    before = split.batch(np.arange(9)).labels
    new = prepared.cache_folder / "new"
    new.write_bytes(b"")
    os.replace(new, prepared.cache_folder / "labels.npy")
    assert split.batch(np.arange(9)).labels.equal(before)


def test_arrays_in_memory_have_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.empty(0))
    assert map_of(load_array(tmp_path / "empty.npy")) is None
    MappedFiles([np.arange(3), load_array(tmp_path / "empty.npy")]).check()
    with pytest.raises(DataError, match=r"gone\.npy: changed while it was opened"):
        load_array(tmp_path / "gone.npy")
    (tmp_path / "short.npy").write_bytes((tmp_path / "empty.npy").read_bytes()[:-9] + b"\0" * 30)
    with pytest.raises(DataError, match=r"short\.npy: changed while it was opened"):
        load_array(tmp_path / "short.npy")


READING = """
import os, sys, threading
from pathlib import Path
import numpy as np
from recbole_dtn.data.mapped import load_array

path = Path(sys.argv[1])
np.save(path, np.zeros(1 << 20))
array = load_array(path)
os.truncate(path, 1 << 20)

def read():
    print(array.take(np.arange(1 << 20)).sum(), flush=True)

# In a thread, as batches are cut, or in the main one.
reader = threading.Thread(target=read)
reader.start() if sys.argv[2] == "thread" else read()
reader.join()
print("read", flush=True)
"""


@pytest.mark.parametrize("where", ["thread", "main"])
def test_a_file_that_is_cut_while_it_is_read_ends_the_process_with_a_message(tmp_path: Path, where: str) -> None:
    file = tmp_path / "labels.npy"
    ended = subprocess.run(
        [sys.executable, "-c", READING, str(file), where], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"\nerror: {file}: cut to 1,048,576 of its 8,388,736 bytes while it was read")
