"""Damaged files, full disks, limits and unreadable folders: what, where and what to do; nothing is lost, no bug."""

from __future__ import annotations

import csv
import ctypes
import json
import math
import os
import pickle
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import DataError, RecBoleDTNError
from recbole_dtn.record.checkpoint import save_whole
from recbole_dtn.serving.export import _take_place
from recbole_dtn.training.fit import fit_settings

SETTINGS = """\
fields: [{name: user}, {name: x, type: float}]
tasks: [{name: click, label: click}]
embedding_size: 2
epochs: 1
train_batch_size: 64
accelerator: cpu
expert_hidden: [4]
tower_hidden: [4]
experts: 2
"""
TRAIN = ("train", "--model=MMoE", "--dataset=mine", "--config_files=mine.yaml")
PREDICT = ("predict", "--run=RUN", "--input=dataset/mine/mine.inter")
EXPORT = ("export", "--run=RUN", "--format=torch-export")
TEMPORARY = (".writing", ".building", ".checkpoint", ".training", ".record", ".export")
Tell = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, its cache and one run."""
    home = tmp_path_factory.mktemp("made")
    (home / "dataset" / "mine").mkdir(parents=True)
    rows = "".join(f"u{i % 7}\t{i % 5 / 4}\t{int(i * 7 % 10 < 3)}\n" for i in range(300))
    (home / "dataset" / "mine" / "mine.inter").write_text(f"user:token\tx:float\tclick:float\n{rows}")
    (home / "mine.yaml").write_text(SETTINGS)
    before = Path.cwd()
    os.chdir(home)
    try:
        assert main([*TRAIN, "--quiet=true"]) == 0
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    copy = tmp_path / "home"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def tell(home: Path, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Run a command: its exit code and its error. No command calls the fault a bug or leaves a temporary file."""

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([word.replace("RUN", str(run_folder(home).relative_to(home))) for word in words])
        said = capsys.readouterr()
        assert "this is a bug" not in said.err + said.out
        assert "Traceback" not in said.err
        assert [path for path in home.rglob(".*") if path.name.startswith(TEMPORARY)] == []
        return code, said.err

    return run


def run_folder(home: Path) -> Path:
    return next((home / "runs" / "mine" / "MMoE").iterdir())


@contextmanager
def limited(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


# ---- records --------------------------------------------------------------------------------------------------------

COMMANDS = {
    "test": ("test", "--run=RUN"),
    "predict": (*PREDICT, "--output=s.csv"),
    "export": (*EXPORT, "--output=x"),
    "render": ("leaderboard", "render", "--records=runs", "--output=lb"),
    "diff": ("leaderboard", "diff", "runs", "runs"),
}


def with_settings(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda record: json.dumps({**record, "settings": {**record["settings"], **changes}})


RECORDS: dict[str, tuple[Callable[[dict[str, Any]], str | bytes], str]] = {
    "not UTF-8": (lambda _: b'{"a":\n"\xff"}', r"record.json, line 2: not UTF-8 text \(byte 7 of the file\)"),
    "not JSON": (lambda _: '{\n"a": ]', "record.json, line 2: not JSON"),
    "nested lists": (lambda _: "[" * 100_000, "nested too deeply"),
    "nested maps": (lambda _: '{"a":' * 100_000, "nested too deeply"),
    "6,000 digits": (
        lambda record: json.dumps(record).replace('"seed": 2020', f'"seed": {"9" * 6000}', 1),
        "value has 6000 digits",
    ),
    "NaN": (lambda record: json.dumps({**record, "valid_value": float("nan")}), "NaN is no number of JSON"),
    "infinite": (
        lambda record: json.dumps({**record, "valid_value": "HUGE"}).replace('"HUGE"', "1e999"),
        "1e999 is no number of JSON",
    ),
    "half a surrogate": (lambda record: json.dumps({**record, "run_id": "\ud800"}), "half of a surrogate pair"),
    "a list": (lambda _: "[]", "not a run record of version 1: Input should be a valid map"),
    "no keys": (lambda _: "{}", "not a run record of version 1: run_id: Field required"),
    "settings of another type": (lambda record: json.dumps({**record, "settings": 3}), "settings: Input should be"),
    "plugins of another type": (with_settings(plugins=4), "settings: plugins: expected a list of texts"),
    "tasks of another type": (with_settings(tasks=[1]), "settings: tasks: expected a list of maps"),
    "tasks without names": (with_settings(tasks=[{"label": "a"}]), "tasks: expected a name"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RECORDS)
def test_a_damaged_record_is_told(home: Path, tell: Tell, fault: str) -> None:
    file = run_folder(home) / "record.json"
    damage, expected = RECORDS[fault]
    content = damage(json.loads(file.read_text()))
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("test", "render"):
        code, error = tell(*COMMANDS[name])
        assert code == 2
        assert str(file.relative_to(home)) in error
        assert re.search(expected, error), error


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_reads_a_record_tells_of_one_that_is_cut_off(home: Path, tell: Tell, name: str) -> None:
    file = run_folder(home) / "record.json"
    os.truncate(file, 100)
    code, error = tell(*COMMANDS[name])
    assert (code, "record.json, line" in error, "take another copy of it" in error) == (2, True, True)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


class Code:
    """What pickle runs when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {name: value for name, value in content.items() if name != key}


def weights(change: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, "state_dict": {name: change(w) for name, w in content["state_dict"].items()}}


CHECKPOINTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no state_dict": (without("state_dict"), "state_dict: expected a map, found none"),
    "no schema": (without("schema"), "schema: expected a map, found none"),
    "no vocabularies": (without("vocabularies"), "vocabularies: expected a map, found none"),
    "no settings": (without("settings"), "settings: expected a map, found none"),
    "no epoch": (without("epoch"), "epoch: expected a whole number, found none"),
    "a list": (lambda _: [1], "not a checkpoint of format 1"),
    "another format": (lambda content: {**content, "format": 9}, "not a checkpoint of format 1"),
    "schema of another kind": (lambda content: {**content, "schema": {"fields": 3}}, "its schema or vocabularies"),
    "empty vocabularies": (lambda content: {**content, "vocabularies": {}}, "its schema or vocabularies"),
    "weights that are none": (weights(lambda _: "x"), "embedding.table.weight: expected a tensor, found str"),
    "shapes": (weights(lambda weight: weight[:1]), "size mismatch for embedding.table.weight"),
    "complex numbers": (weights(lambda weight: weight.to(torch.complex64)), "torch.complex64 there, torch.float32"),
    "whole numbers": (weights(lambda weight: weight.to(torch.int8)), "torch.int8 there, torch.float32"),
    "a weight less": (
        lambda content: {**content, "state_dict": dict(list(content["state_dict"].items())[1:])},
        'Missing key(s) in state_dict: "embedding.table.weight"',
    ),
}


@pytest.mark.parametrize("fault", CHECKPOINTS)
def test_a_checkpoint_that_is_not_whole_is_told(home: Path, tell: Tell, fault: str) -> None:
    file = run_folder(home) / "checkpoint.ckpt"
    damage, expected = CHECKPOINTS[fault]
    content = torch.load(file, weights_only=True)
    del content["sealed"]  # as if written without a checksum: it would be wrong now
    torch.save(damage(content), file)
    code, error = tell("test", "--run=RUN")
    assert (code, "checkpoint.ckpt" in error, expected in error) == (2, True, True), error
    code, error = tell(*TRAIN, "--init_from=RUN", "--output_dir=others")
    assert code == 2
    assert "checkpoint.ckpt" in error or "init_from=" in error


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_a_checkpoint_of_another_program_is_told(home: Path, tell: Tell, content: bytes) -> None:
    (run_folder(home) / "checkpoint.ckpt").write_bytes(content)
    code, error = tell(*PREDICT, "--output=s.csv")
    assert (code, "checkpoint.ckpt is not a checkpoint" in error) == (2, True)


def test_a_checkpoint_that_is_cut_off_is_told(home: Path, tell: Tell) -> None:
    file = run_folder(home) / "checkpoint.ckpt"
    os.truncate(file, file.stat().st_size // 2)
    code, error = tell(*PREDICT, "--output=s.csv")
    assert code == 2
    assert "checkpoint.ckpt is cut off" in error or "checkpoint.ckpt is not a checkpoint" in error
    assert not (home / "s.csv").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_checkpoint_is_not_run(home: Path, tell: Tell, zipped: bool) -> None:
    file, mark = run_folder(home) / "checkpoint.ckpt", home / "was-run"
    if zipped:
        torch.save({"format": 1, "state_dict": Code(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Code(mark), protocol=2))
    code, error = tell("test", "--run=RUN")
    assert (code, "could run any code: it was not opened" in error, mark.exists()) == (2, True, False)
    assert "weights_only" not in error


# ---- full disks and limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("list", "models"), ("--help",), COMMANDS["test"], (*TRAIN, "--dry_run")])
@pytest.mark.parametrize("full", [True, False])
def test_a_full_or_closed_standard_output_is_told(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, full: bool, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdout", full_disk() if full else closed_pipe())
    code, error = tell(*words)
    assert code == (1 if full else 0)
    assert ("(No space left on device): free space there" in error, "standard output" in error) == (full, full)


def full_disk() -> Any:
    """A file on which every write fails."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


def closed_pipe() -> Any:
    """A pipe whose reader has gone, as with ``| head``."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("full", [True, False])
def test_a_run_goes_on_when_nothing_can_be_printed(
    home: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", full_disk() if full else closed_pipe())
    code, error = tell(*TRAIN, "--output_dir=others")
    assert code == (1 if full else 0)
    assert "what is running goes on" in error
    (record,) = home.glob("others/mine/MMoE/*/record.json")
    assert json.loads(record.read_text())["status"] == "finished"
    assert "run written to" in record.with_name("log.txt").read_text()


@pytest.mark.parametrize(
    ("words", "named", "limit"),
    [
        ((*TRAIN, "--output_dir=others"), "log.txt", 400),
        ((*TRAIN, "--output_dir=others"), "checkpoint.ckpt", 2400),
        ((*TRAIN, "--cache_dir=c"), "c/mine", 100),
        ((*PREDICT, "--output=s.csv"), "s.csv", 1000),
        ((*PREDICT, "--output=s.csv.gz"), "s.csv.gz", 60),
        ((*PREDICT, "--output=s.csv.zst"), "s.csv.zst", 60),
        ((*PREDICT, "--output=s.parquet"), "s.parquet", 300),
        ((*EXPORT, "--output=x"), "home/x", 1000),
        (("leaderboard", "render", "--records=runs", "--output=lb"), "lb/runs.", 1000),
        (("data", "split", *TRAIN[1:], "--export=e"), "e: cannot be written", 1000),
        (("data", "info", *TRAIN[1:], "--json=i.json"), "i.json", 1000),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_written_whole_is_named(
    home: Path, tell: Tell, words: tuple[str, ...], named: str, limit: int
) -> None:
    with limited(resource.RLIMIT_FSIZE, limit):
        code, error = tell(*words)
    assert code == 2
    assert f"{named}" in error
    assert "File too large" in error
    assert not any((home / name).exists() for name in ("s.csv", "s.csv.gz", "s.csv.zst", "s.parquet", "x", "i.json"))


@pytest.mark.parametrize("words", [TRAIN, ("test", "--run=RUN"), (*PREDICT, "--output=s.csv"), COMMANDS["render"]])
def test_a_limit_on_open_files_is_told(home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    words = tuple(word.replace("RUN", str(run_folder(home))) for word in words)
    free = os.dup(0)  # the lowest number that is not in use
    os.close(free)
    with limited(resource.RLIMIT_NOFILE, free):
        code = main(list(words))
    error = capsys.readouterr().err
    assert code in (1, 2)
    assert "Too many open files)" in error
    assert "the system limits the number of open files: raise `ulimit -n`" in error


@pytest.mark.parametrize("limit", [10, 1000, 30_000])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, limit: int) -> None:
    file = tmp_path / "checkpoint.ckpt"
    save_whole(file, {"format": 1})
    before = file.read_bytes()
    with (
        limited(resource.RLIMIT_FSIZE, limit),
        pytest.raises(DataError, match=r"checkpoint.ckpt: cannot be written \(File too large"),
    ):
        save_whole(file, {"weights": torch.zeros(100, 100)})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


# ---- folders and files ----------------------------------------------------------------------------------------------


@pytest.fixture
def obeying() -> Iterator[None]:
    """Permissions hold for the administrator too."""
    if os.geteuid() != 0:
        yield
        return
    system = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, now = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    if system.capget(ctypes.byref(head), ctypes.byref(before)):
        pytest.skip("capabilities cannot be read here")
    now[:] = before[:]
    now[0] = now[3] = 0  # effective; the permitted ones stay, and come back
    assert system.capset(ctypes.byref(head), ctypes.byref(now)) == 0
    yield
    system.capset(ctypes.byref(head), ctypes.byref(before))


@pytest.mark.usefixtures("obeying")
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("mine.yaml", TRAIN),
        ("dataset", TRAIN),
        ("dataset/mine/mine.inter", TRAIN),
        ("dataset/mine/.cache", TRAIN),
        ("runs", TRAIN),
        ("runs", ("test", "--run=RUN")),
        ("RUN", ("test", "--run=RUN")),
        ("RUN/record.json", ("test", "--run=RUN")),
        ("RUN/record.json", COMMANDS["render"]),
        ("RUN/checkpoint.ckpt", (*PREDICT, "--output=s.csv")),
        ("RUN", COMMANDS["render"]),
        ("runs", COMMANDS["render"]),
        ("dataset/mine", (*PREDICT, "--output=s.csv")),
        ("dataset", ("data", "validate", "dataset/mine")),
        ("dataset", ("data", "cache", "list")),
    ],
)
def test_what_cannot_be_read_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], what: str, words: tuple[str, ...]
) -> None:
    run = run_folder(home)
    named = run if what == "RUN" else run / what.removeprefix("RUN/") if what.startswith("RUN/") else home / what
    name, mode = str(run.relative_to(home)), named.stat().st_mode
    named.chmod(0)
    try:
        code = main([word.replace("RUN", name) for word in words])
    finally:
        named.chmod(mode)
    error = capsys.readouterr().err
    assert (code, str(named.relative_to(home)) in error, "Permission denied" in error) == (2, True, True), error


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*TRAIN, "--output_dir=mine.yaml"), "output_dir=mine.yaml: cannot be written (mine.yaml is a file)"),
        ((*TRAIN, "--cache_dir=mine.yaml"), "mine.yaml/mine: cannot be written (Not a directory)"),
        ((*PREDICT, "--output=runs.csv"), "--output=runs.csv: cannot be written (runs.csv is a folder)"),
        ((*PREDICT, "--output=mine.yaml/s.csv"), "--output=mine.yaml/s.csv: cannot be written (mine.yaml is a file)"),
        ((*EXPORT, "--output=mine.yaml", "--overwrite"), "mine.yaml is a file"),
        ((*EXPORT, "--output=mine.yaml/x"), "mine.yaml is a file"),
        ((*EXPORT, "--output=runs", "--overwrite"), "--overwrite replaces an export, and mine is not of one"),
        ((*COMMANDS["render"][:3], "--output=mine.yaml"), "--output=mine.yaml: "),
        (("leaderboard", "run", "--models=MMoE", "--datasets=mine", "--output=mine.yaml"), "--output=mine.yaml: "),
        (("leaderboard", "diff", "runs", "runs", "--output=runs"), "a folder is where a file is expected"),
        (("test", "--run=mine.yaml"), "mine.yaml, line 1: not JSON"),
    ],
)
def test_a_file_in_the_place_of_a_folder_and_the_reverse(
    home: Path, tell: Tell, words: tuple[str, ...], expected: str
) -> None:
    (home / "runs.csv").mkdir()
    code, error = tell(*words)
    assert (code, expected in error) == (2, True), error
    assert (home / "mine.yaml").read_text() == SETTINGS
    assert run_folder(home).is_dir()


DIGESTS = ["[1]", '{".inter": 3}', '{".inter": []}', '{".inter": [["a", 1, 2]]}', "[" * 100_000,
           '{"a": ' + "9" * 6000 + "}"]  # fmt: skip


@pytest.mark.parametrize("content", DIGESTS, ids=lambda text: text[:12])
def test_digests_of_another_kind_are_taken_again(home: Path, tell: Tell, content: str) -> None:
    file = home / "dataset" / "mine" / ".cache" / "digests.json"
    right = json.loads(file.read_text())[".inter"][1]
    file.write_text(content)
    assert tell(*TRAIN, "--dry_run")[0] == 0
    assert tell("test", "--run=RUN")[0] == 0  # which compares the fingerprint of the data
    assert json.loads(file.read_text())[".inter"][1] == right


@pytest.mark.parametrize("digest", [5, None, ["a"], {"a": 1}])
def test_a_digest_that_is_no_text_is_taken_again(home: Path, tell: Tell, digest: Any) -> None:
    file = home / "dataset" / "mine" / ".cache" / "digests.json"
    right = json.loads(file.read_text())
    copied = (home / "dataset" / "mine" / "mine.inter").stat()
    stamp = [str((home / "dataset/mine/mine.inter").resolve()), copied.st_size, copied.st_mtime_ns]
    file.write_text(json.dumps({".inter": [stamp, digest]}))
    assert tell("test", "--run=RUN")[0] == 0  # which compares the fingerprint of the data
    assert json.loads(file.read_text())[".inter"][1] == right[".inter"][1]


# ---- an export in the place of another ------------------------------------------------------------------------------


def test_a_failure_between_the_renames_brings_the_old_export_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, folder, aside = (tmp_path / name for name in ("work", "x", ".x.replaced"))
    folder.mkdir()
    (folder / "model.pt2").write_text("old")
    with pytest.raises(FileNotFoundError):
        _take_place(work, folder, aside)  # there is no new one
    assert (folder / "model.pt2").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_export_replaces_one_even_after_a_kill_and_leaves_nothing_beside_it(home: Path, tell: Tell) -> None:
    # A kill came after the first of two renames.
    (home / ".x.replaced").mkdir()
    (home / ".x.replaced" / "encoder.json").write_text("old")
    code, error = tell(*EXPORT, "--output=x")
    assert (code, "exists: choose another folder" in error) == (2, True)
    assert (home / "x" / "encoder.json").read_text() == "old"
    assert tell(*EXPORT, "--output=x", "--overwrite")[0] == 0
    assert json.loads((home / "x" / "encoder.json").read_text())["format"] == 1
    assert [path.name for path in home.iterdir() if "x" in path.name] == ["x"]


# ---- runs that diverge, and signals ---------------------------------------------------------------------------------


def test_strict_ends_a_run_that_diverged_after_its_record(home: Path, tell: Tell) -> None:
    words = (*TRAIN, "--output_dir=others", "--optimizer.lr=1e3", "--epochs=2")
    assert tell(*words) == (0, "")
    code, error = tell(*words, "--strict", "--quiet=true")
    assert code == 1
    assert error.startswith("error: strict: the results are not to be trusted; others/mine/MMoE/")
    assert "the run diverged: try a lower optimizer.lr" in error
    for file in home.glob("others/mine/MMoE/*/record.json"):
        record = json.loads(file.read_text())
        assert record["status"] == "finished"
        ones, rows = record["positives"]["test"]["click"]
        rate = ones / rows
        assert record["test"]["click"]["logloss"] > -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        said = [text for text in record["warnings"] if "the run diverged: try" in text]
        assert said != []
        assert f"warning: {said[0]}" in file.with_name("log.txt").read_text()


def test_strict_leaves_a_sound_run_alone(tell: Tell) -> None:
    assert tell(*TRAIN, "--output_dir=others", "--strict") == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--optimizer.lr=1e38"], "larger than any number of float32: lower optimizer.lr (now 1e+38)"),
        (["--embedding_optimizer.lr=1e38"], "lower optimizer.lr (now 0.004, of embeddings 1e+38)"),
        (["--embedding_std=1e38"], "the training loss is inf in epoch 1, step 1: try a lower optimizer.lr (now 0.004)"),
        (["--weight_decay=1e30"], "in epoch 1, step 2: try a lower optimizer.lr (now 0.004), gradient_clip"),
    ],
)
def test_numbers_that_are_not_finite_end_a_run_at_once(home: Path, tell: Tell, words: list[str], expected: str) -> None:
    code, error = tell(*TRAIN, "--output_dir=others", "--epochs=3", *words)
    assert (code, expected in error) == (1, True), error
    assert list(home.glob("others/mine/MMoE/*/*.ckpt")) == []


class Spoiled(lightning.Callback):
    """Spoils a weight in the second epoch: of all rows, or of one that no row of the data looks up."""

    def __init__(self, rows: slice) -> None:
        self.rows = rows

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            with torch.no_grad():
                pl_module.model.embedding.table.weight[self.rows] = math.nan


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(None), "the training loss is nan in epoch 2, step 6: "),
        # Row 0 of the first field is that of a missing user: no loss and no logit has it.
        (slice(0, 1), "the weights embedding.table.weight are not finite in epoch 2, step 8: "),
    ],
)
def test_the_best_epoch_before_is_kept_and_can_be_tested(home: Path, tell: Tell, rows: slice, expected: str) -> None:
    # By log loss the second epoch is the better one.
    words = [*TRAIN[1:], "--output_dir=others", "--epochs=3", "--valid_metric=mean_logloss", "--quiet=true"]
    with pytest.raises(RecBoleDTNError, match=re.escape(expected)) as caught:
        fit_settings(resolve(words), callbacks=[Spoiled(rows)])
    (folder,) = (home / "others/mine/MMoE").iterdir()
    assert f"that of epoch 1 is kept in {folder.relative_to(home)}: `test --run` tests it" in str(caught.value)
    weights = torch.load(folder / "checkpoint.ckpt", weights_only=True)["state_dict"]
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    code, error = tell("test", f"--run={folder.relative_to(home)}")
    assert (code, "tested from the checkpoint of epoch 1" in error) == (0, True)


def test_a_board_marks_a_run_that_diverged_and_strict_fails_it(home: Path, tell: Tell) -> None:
    words = ["leaderboard", "run", "--models=MMoE", "--datasets=mine", "--seeds=1", "--floors=none"]
    words += ["--config_files=mine.yaml", "--output_dir=others", "--optimizer.lr=1e3", "--output=lb"]
    assert tell(*words) == (0, "")
    table = (home / "lb" / "mine.md").read_text()
    assert "| MMoE ‡ |" in table
    assert "Such runs are in the means: MMoE ‡ 1 of 1 (click; seed 2020)." in table
    for suffix in ("html", "tex"):
        assert ("‡" if suffix == "html" else r"\ddag{}") in (home / "lb" / f"mine.{suffix}").read_text()
    with (home / "lb" / "mine.csv").open(newline="") as file:
        assert {(line["runs"], line["runs_above_constant"]) for line in csv.DictReader(file)} == {("1", "1")}
    code, error = tell(*words, "--strict")
    assert (code, "strict: the results are not to be trusted; MMoE mine seed 2020: task 'click'" in error) == (1, True)


@pytest.mark.parametrize("name", ["s.csv", "s.parquet", "s.csv.zst"])
def test_sigterm_leaves_the_file_that_predict_would_replace(
    home: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (home / name).write_text("old")
    encode = Vocabularies.encode

    def stopped(*given: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return encode(*given, **more)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Vocabularies, "encode", stopped)
    code, error = tell(*PREDICT, f"--output={name}", "--overwrite", "--batch_size=16")
    assert (code, error) == (75, "ended by SIGTERM: no output was written\n")
    assert (home / name).read_text() == "old"
    assert signal.getsignal(signal.SIGTERM) is before
