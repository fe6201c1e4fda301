"""The cache: reused when nothing changed, built again when something did or when it is incomplete."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data import building, cache
from recbole_dtn.data.cached import cache_clear, cache_list
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.prepare import prepare

ROWS = [f"u{i % 4}\ti{i % 7}\ta b\t{i % 5}\t{i % 2}" for i in range(40)]
FIELDS = [{"name": "u"}, {"name": "i"}, {"name": "s", "type": "token_seq"}]


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy.inter").write_text("\n".join(["u:token\ti:token\ts:token_seq\tx:float\ty:float", *ROWS]) + "\n")

    def make(**change):
        values = {"fields": FIELDS, "tasks": [{"name": "y", "label": "y"}, {"name": "z", "label": "y"}]}
        places = {"model": "MMoE", "dataset": "toy", "data_path": str(tmp_path / "data")}
        return resolve({**values, **places, **change}).settings

    return make


def same(first, second):
    a, b = (prepared.splits["train"].batch(np.arange(5)) for prepared in (first, second))
    return a.ids.tolist() == b.ids.tolist() and a.multi[2].values.tolist() == b.multi[2].values.tolist()


def test_the_second_run_reads_the_cache_without_reading_the_files(settings, monkeypatch):
    first = prepare(settings())
    assert not first.cached
    assert first.cache_folder.parent == first.folder / ".cache"

    def never(*arguments, **options):
        raise AssertionError("read again")

    monkeypatch.setattr(cache._Reading, "__call__", never)
    monkeypatch.setattr(cache, "encode", never)
    second = prepare(settings())
    assert second.cached
    assert second.fingerprint == first.fingerprint
    assert second.schema == first.schema
    assert second.summary == first.summary
    assert second.vocabularies.to_dict() == first.vocabularies.to_dict()
    assert same(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"split_seed": 1},
        {"split_ratio": [0.6, 0.2, 0.2]},
        {"min_count": 2},
        {"limit_rows": 39},
        {"fields": FIELDS[:2]},
        {"fields": [*FIELDS, {"name": "x", "type": "float"}]},
        {"group_field": "u"},
        {"tasks": [{"name": "y", "label": "y"}]},
        {"tasks": [{"name": "y", "label": "y"}, {"name": "z", "label": "y", "observed_when": "x > 1"}]},
        {"split": "time", "time_field": "x"},
    ],
)
def test_a_changed_data_setting_encodes_again(settings, change):
    first = prepare(settings())
    second = prepare(settings(**change))
    assert not second.cached
    assert second.fingerprint != first.fingerprint
    assert prepare(settings()).cached


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": "sum"},
        {"seed": 3},
        {"model": "PLE"},
        {"time_field": "x"},
        {"tasks": [{"name": "y", "label": "y", "weight": 2}, {"name": "z", "label": "y", "after": ["y"]}]},
        {"fields": [*FIELDS[:2], {**FIELDS[2], "pooling": "sum"}]},
    ],
)
def test_a_setting_of_the_model_does_not(settings, change):
    prepare(settings())
    second = prepare(settings(**change))
    assert second.cached


def test_the_schema_follows_settings_that_the_cache_does_not_hold(settings):
    prepare(settings())
    second = prepare(
        settings(pooling="sum", tasks=[{"name": "y", "label": "y"}, {"name": "z", "label": "y", "after": ["y"]}])
    )
    assert second.cached
    assert second.schema.fields[2].pooling == "sum"
    assert second.schema.tasks[1].after == ("y",)


def test_changed_contents_encode_again_and_a_touched_file_does_not(settings):
    first = prepare(settings())
    path = first.folder / "toy.inter"
    os.utime(path, ns=(1, 1))
    assert prepare(settings()).cached
    text = path.read_text()
    path.write_text(text.replace("u3\t", "u5\t"))  # the same size
    changed = prepare(settings())
    assert not changed.cached
    assert "u5" in changed.vocabularies.tokens("u")
    path.write_text(text)
    assert prepare(settings()).fingerprint == first.fingerprint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_way_of_tearing_the_cache_is_noticed(settings):
    first = prepare(settings())
    folder = first.cache_folder
    assert "manifest.json" in names(folder)
    contents = names(folder)
    for name in contents:
        (folder / name).unlink()
        again = prepare(settings())
        assert not again.cached, name
        assert names(folder) == contents
    for name in contents:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1])
        said = []
        again = prepare(settings(), log=said.append)
        assert not again.cached, name
        assert any("again: its cache is incomplete" in text for text in said)
        assert (folder / name).read_bytes() == data
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": -1}))
    assert not prepare(settings()).cached
    assert same(first, prepare(settings()))


def test_a_failed_build_leaves_nothing(settings, monkeypatch):
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "encode", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings())
    root = cache.cache_root(settings())
    assert names(root) == []


def test_another_process_that_was_faster_wins(settings, monkeypatch):
    real = cache.encode

    def slower(given, *rest):
        monkeypatch.setattr(cache, "encode", real)
        other = prepare(given)
        assert not other.cached
        return real(given, *rest)

    monkeypatch.setattr(cache, "encode", slower)
    prepared = prepare(settings())
    assert prepare(settings()).cached
    assert set(names(prepared.cache_folder.parent)) == {"digests.json", prepared.fingerprint}


def test_cache_dir_list_and_clear(settings, tmp_path):
    inside = prepare(settings())
    outside = prepare(settings(cache_dir=str(tmp_path / "elsewhere")))
    assert outside.cache_folder == tmp_path / "elsewhere" / "toy" / inside.fingerprint
    (entry,) = cache_list(tmp_path / "data")
    size = sum(path.stat().st_size for path in inside.cache_folder.iterdir())
    assert (entry.dataset, entry.fingerprint, entry.rows, entry.bytes) == ("toy", inside.fingerprint, 40, size)
    (inside.cache_folder / "manifest.json").unlink()
    assert [entry.complete for entry in cache_list(tmp_path / "data")] == [False]
    assert cache_clear(tmp_path / "data", dataset="other") == []
    assert [entry.path for entry in cache_clear(tmp_path / "data")] == [inside.cache_folder]
    assert cache_list(tmp_path / "data") == []
    assert len(cache_list(tmp_path / "data", tmp_path / "elsewhere")) == 1
    assert not prepare(settings()).cached


def test_a_folder_that_cannot_be_written_is_named(settings, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match=r"cannot be written .*set cache_dir to a folder that is writable"):
        prepare(settings(cache_dir=str(blocked)))


def test_a_file_is_read_once_and_its_digest_is_that_of_its_bytes(settings, monkeypatch):
    read = {}
    real = cache._Reading.__call__

    def count(self, path, data):
        read[path.name] = read.get(path.name, 0) + len(data)
        real(self, path, data)

    monkeypatch.setattr(cache._Reading, "__call__", count)
    prepared = prepare(settings())
    path = prepared.folder / "toy.inter"
    assert read == {"toy.inter": path.stat().st_size}
    memo = json.loads((prepared.cache_folder.parent / "digests.json").read_text())
    assert memo[".inter"][1] == hashlib.sha256(path.read_bytes()).hexdigest()
    # Where something is cached the digest comes first: the file may be that one, touched.
    os.utime(path, ns=(1, 1))
    assert prepare(settings()).cached
    assert read == {"toy.inter": 2 * path.stat().st_size}
    # With limit_rows a part of the file is encoded, and all of it counts.
    limited = prepare(settings(limit_rows=20, cache_dir=str(path.parent / "other")))
    assert limited.fingerprint == prepare(settings(limit_rows=20)).fingerprint


def test_a_file_that_changes_while_it_is_read_is_refused(settings, monkeypatch):
    real = cache.encode

    def late(given, sources, *rest):
        encoded = real(given, sources, *rest)
        with sources.inter.paths[0].open("a") as file:
            file.write("u9\ti9\ta\t0\t1\n")
        return encoded

    monkeypatch.setattr(cache, "encode", late)
    with pytest.raises(DataError, match=r"toy\.inter: changed while it was read; run again"):
        prepare(settings())
    assert names(cache.cache_root(settings())) == []
    monkeypatch.setattr(cache, "encode", real)
    assert sum(prepare(settings()).summary.rows.values()) == 41


KILLED = """
import os, signal, sys
from recbole_dtn.config.load import resolve
from recbole_dtn.data import cache
from recbole_dtn.preprocess.prepare import prepare
import json

cache._publish = lambda target, folder: os.kill(os.getpid(), signal.SIGKILL)
prepare(resolve(json.loads(sys.argv[1])).settings)
"""


def test_a_killed_build_leaves_nothing_behind(settings, tmp_path):
    values = {
        "model": "MMoE",
        "dataset": "toy",
        "data_path": str(tmp_path / "data"),
        "fields": FIELDS,
        "tasks": [{"name": "y", "label": "y"}, {"name": "z", "label": "y"}],
    }
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(values)], cwd=Path(__file__).parents[2], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    root = cache.cache_root(settings())
    (left,) = (path for path in root.iterdir() if path.is_dir())
    # Everything was written but the last rename; even so it does not count.
    assert left.name.startswith(".building-")
    assert (left / "entry" / "manifest.json").is_file()
    assert [entry.complete for entry in cache_list(tmp_path / "data")] == [False]
    (root / ".building-early").mkdir()  # killed before it had its lock
    (root / ".writing-x").write_text("{")
    prepared = prepare(settings())
    assert not prepared.cached
    assert set(names(root)) == {"digests.json", prepared.fingerprint}
    assert prepare(settings()).cached


def test_a_build_that_goes_on_is_left_alone(settings, tmp_path):
    root = cache.cache_root(settings())
    with building.building(root) as other:
        (other / "entry").mkdir()
        prepared = prepare(settings())
        assert (other / "entry").is_dir()
        assert [entry.path for entry in cache_list(tmp_path / "data")] == [prepared.cache_folder]
        assert [entry.path for entry in cache_clear(tmp_path / "data")] == [prepared.cache_folder]
        assert (other / "entry").is_dir()
    assert not other.exists()


def test_a_manifest_of_another_shape_is_no_entry(settings):
    folder = prepare(settings()).cache_folder
    manifest = json.loads((folder / "manifest.json").read_text())
    for content in (
        [],
        {**manifest, "files": 3},
        {**manifest, "encoded": {"rows": {}}},
        {key: value for key, value in manifest.items() if key != "files"},
    ):
        (folder / "manifest.json").write_text(json.dumps(content))
        assert cache.open_entry(folder) is None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "vocabularies.json").write_bytes(b"x" * manifest["files"]["vocabularies.json"])
    assert cache.open_entry(folder) is None
