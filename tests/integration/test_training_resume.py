"""A run that is stopped anywhere goes on to the very same result; what is left by a signal or a kill agrees."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from torch import Tensor

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import DataError, Preempted, UsageError
from recbole_dtn.leaderboard.remake import read_below
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record
from recbole_dtn.record.training import FILE_NAME, find_unfinished, lock_run, read_training
from recbole_dtn.registry import load_plugins
from recbole_dtn.training.fit import Run, fit_settings
from recbole_dtn.training.resume import random_state, set_random_state

MODELS: dict[str, dict[str, Any]] = {
    "DTN": {"module_dim": 8, "interactions": ["gdcn", {"name": "memonet", "codes": 50, "attention_dim": 4}]},
    "MMoE": {"balancer": "gradnorm", "scheduler.name": "cosine", "eval_step": 2, "embedding_dtype": "bfloat16"},
}
STEPS, VALIDATIONS, TESTS = 8, 1, 1
"""Batches of each part: of 800 training rows in eights, and of the others in one."""


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Watch(lightning.Callback):
    """Does something after the n-th batch of a part (train, valid, test), and keeps the parameters after training."""

    def __init__(self, part: str = "", number: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.part, self.number, self.act = part, number, act
        self.seen = 0
        self.final: dict[str, Tensor] = {}

    def _end(self, part: str) -> None:
        if part == self.part:
            self.seen += 1
            if self.seen == self.number:
                self.act()

    def on_train_batch_end(self, *_: Any) -> None:
        self._end("train")

    def on_validation_batch_end(self, *_: Any) -> None:
        self._end("valid")

    def on_test_start(self, *_: Any) -> None:
        self._end("test")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.final = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """``tiny(model, watch, resume=..., **settings)``: 3 epochs of 8 steps."""
    home = tmp_path_factory.mktemp("resume")

    def run(model: str = "DTN", watch: Watch | None = None, resume: Any = None, **given: Any) -> Run:
        settings = {
            **{"model": model, "dataset": "ml-100k", "data_path": str(home / "dataset"), "quiet": True},
            **{"output_dir": str(home / "runs"), "limit_rows": 1000, "epochs": 3, "train_batch_size": 100},
            **{"embedding_size": 4, "accelerator": "cpu", "threads": 1, "dropout": 0.1, **MODELS[model], **given},
        }
        return fit_settings(resolve(settings), callbacks=[watch] if watch else [], resume=resume)

    return run


@pytest.fixture(scope="module")
def whole(tiny: Callable[..., Run]) -> Callable[[str], tuple[Run, Watch]]:
    """The uninterrupted run of a model, with its parameters after training."""
    found: dict[str, tuple[Run, Watch]] = {}

    def run(model: str) -> tuple[Run, Watch]:
        if model not in found:
            watch = Watch()
            found[model] = tiny(model, watch), watch
        return found[model]

    return run


RESULTS = (
    "valid",
    "test",
    "history",
    "epochs",
    "best_epoch",
    "valid_value",
    "gate_weights",
    "chain_breaks",
    "warnings",
)


def assert_same(run: Run, watch: Watch | None, reference: tuple[Run, Watch]) -> None:
    """The result, the checkpoint, metrics.csv and the parameters after training, all to the last bit."""
    expected = reference[0]
    assert run.status == "finished"
    for key in RESULTS:
        assert getattr(run.record, key) == getattr(expected.record, key), key
    ours, theirs = read_checkpoint(run.folder), read_checkpoint(expected.folder)
    assert ours.epoch == theirs.epoch
    for name, tensor in {**theirs.state_dict, **theirs.balancer}.items():
        assert torch.equal({**ours.state_dict, **ours.balancer}[name], tensor), name
    assert (run.folder / "metrics.csv").read_text() == (expected.folder / "metrics.csv").read_text()
    if watch is not None:
        assert watch.final.keys() == reference[1].final.keys()
        for name, tensor in reference[1].final.items():
            assert torch.equal(watch.final[name], tensor), name
    assert not list(run.folder.glob(".*")), "no temporary file and no lock is left"


drawn = random.Random(5)
PLACES = [
    ("DTN", "train", drawn.randrange(1, STEPS)),
    ("DTN", "train", STEPS + drawn.randrange(1, STEPS)),
    ("DTN", "train", 2 * STEPS),
    ("DTN", "valid", 2),
    ("DTN", "test", 1),
    ("MMoE", "train", drawn.randrange(1, STEPS)),
    ("MMoE", "train", STEPS),  # the end of an epoch without validation
    ("MMoE", "train", 2 * STEPS + drawn.randrange(1, STEPS)),
    ("MMoE", "valid", 1),
]


@pytest.mark.parametrize(("model", "part", "number"), PLACES)
def test_a_run_that_gets_sigterm_goes_on_to_the_same_bits(
    model: str, part: str, number: int, tiny: Callable[..., Run], whole: Callable[[str], tuple[Run, Watch]]
) -> None:
    stopped = tiny(model, Watch(part, number, terminate))
    assert (stopped.status, stopped.test) == ("preempted", None)
    step = number if part == "train" else STEPS * number * (2 if model == "MMoE" else 1)
    expected = "the test" if part == "test" else f"epoch {-(-step // STEPS)}, step {step}"
    assert stopped.record.interrupted_at == expected
    assert read_record(stopped.folder) == stopped.record
    content = torch.load(stopped.folder / FILE_NAME, weights_only=True)
    assert content["trained"] == (part == "test")
    watch = Watch()
    again = tiny(model, watch, resume="auto")
    assert again.folder == stopped.folder
    assert not (again.folder / FILE_NAME).exists()
    assert read_record(again.folder) == again.record
    assert_same(again, None if part == "test" else watch, whole(model))


def test_ctrl_c_stops_after_the_batch_and_the_run_goes_on(
    tiny: Callable[..., Run], whole: Callable[[str], tuple[Run, Watch]]
) -> None:
    run = tiny("DTN", Watch("train", 3, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert (run.status, run.record.interrupted_at) == ("interrupted", "epoch 1, step 3")
    assert read_training(run.folder)["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    watch = Watch()
    assert_same(tiny("DTN", watch, resume=run.folder), watch, whole("DTN"))


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"every_steps": 5}, [5, 10, 15]),
        ({"every_steps": None, "every_minutes": 1e-9}, [*range(1, 17)]),
        ({"every_steps": None, "every_minutes": None}, []),
    ],
)
def test_training_checkpoints_are_written_every_so_many_steps_or_minutes(
    given: dict[str, Any], steps: list[int], tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "recbole_dtn.training.resume.write_training", lambda folder, content, record: written.append(content)
    )
    tiny("DTN", checkpoint=given, epochs=2)
    *parts, last = written
    assert [content["step"] for content in parts] == steps
    assert [content["epoch"] * STEPS + content["batch"] for content in parts] == steps
    assert last["trained"], "the last one is written when the training has ended"
    assert "model" not in last


def test_a_run_may_be_stopped_again_and_again(
    tiny: Callable[..., Run], whole: Callable[[str], tuple[Run, Watch]]
) -> None:
    folder = tiny("DTN", Watch("train", 3, terminate)).folder
    for part, number in (("train", 2), ("train", 4), ("valid", 1), ("test", 1)):
        assert tiny("DTN", Watch(part, number, terminate), resume=folder).status == "preempted"
    assert_same(tiny("DTN", resume=str(folder)), None, whole("DTN"))


@pytest.mark.parametrize(("part", "number"), [("train", STEPS + 3), ("valid", 2)])
def test_a_run_that_is_killed_goes_on_from_its_last_training_checkpoint(
    part: str, number: int, tiny: Callable[..., Run], whole: Callable[[str], tuple[Run, Watch]], tmp_path: Path
) -> None:
    """What a kill leaves is a copy of the folder as it is then; one is written every second step."""
    left: list[Path] = []

    def copy() -> None:
        (parent,) = {path for path in (tmp_path / "ml-100k" / "DTN").iterdir() if path.is_dir()}
        left.append(parent)
        shutil.copytree(parent, tmp_path / "left")

    given = {"output_dir": str(tmp_path), "checkpoint.every_steps": 2}
    tiny("DTN", Watch(part, number, copy), **given)
    shutil.rmtree(left[0])
    (tmp_path / "left").rename(left[0])
    done = STEPS + 2 if part == "train" else 2 * STEPS
    content = read_training(left[0])
    assert content["epoch"] * STEPS + content["batch"] == content["step"] == done
    watch = Watch()
    again = tiny("DTN", watch, resume="auto", **given)
    assert again.folder == left[0]
    assert_same(again, watch, whole("DTN"))


def test_a_kill_after_the_training_loses_no_result(
    tiny: Callable[..., Run],
    whole: Callable[[str], tuple[Run, Watch]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def copy() -> None:
        (parent,) = (tmp_path / "ml-100k" / "DTN").iterdir()
        shutil.copytree(parent, tmp_path / "left", ignore=shutil.ignore_patterns(".lock"))

    run = tiny("DTN", Watch("test", 1, copy), output_dir=str(tmp_path))
    left = tmp_path / "left"
    assert not (left / "record.json").exists()
    assert main(["test", f"--run={left}", "--json"]) == 0
    assert "one was written (finished)" in capsys.readouterr().err
    record = read_record(left)
    assert record.status == "finished"
    for key in ("run_id", "valid", "history", "best_epoch", "valid_value", "warnings", "settings_digest"):
        assert getattr(record, key) == getattr(run.record, key), key
    assert record.test is not None
    assert run.test is not None
    for task, values in run.test.items():
        assert record.test[task] == pytest.approx(values, abs=1e-6)
        assert record.gate_weights[task] == pytest.approx(run.record.gate_weights[task], abs=1e-6)
    assert not (left / FILE_NAME).exists()
    (tmp_path / "a" / "ml-100k" / "DTN").mkdir(parents=True)
    left.rename(tmp_path / "a" / "ml-100k" / "DTN" / run.folder.name)
    assert len(read_below([tmp_path / "a"]).runs) == 1, "it fills its cell of a leaderboard"


def test_without_its_record_a_run_is_tested_from_its_best_epoch_but_not_finished(
    tiny: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny("DTN", Watch("train", STEPS + 1, terminate), seed=7).folder
    (folder / "record.json").unlink()
    with lock_run(folder):
        assert main(["test", f"--run={folder}"]) == 0
    assert "is being run" in capsys.readouterr().err
    assert not (folder / "record.json").exists()
    assert main(["test", f"--run={folder}"]) == 0
    record = read_record(folder)
    assert (record.status, record.best_epoch, record.epochs) == ("preempted", 1, 1)
    assert record.test is not None
    assert not read_below([folder.parents[2]]).runs or all(
        each.run_id != folder.name for runs in read_below([folder.parents[2]]).runs.values() for _, each in runs
    )


@pytest.mark.parametrize("when", ["written", "renamed"])
def test_ctrl_c_in_the_write_of_a_checkpoint_leaves_file_and_record_in_agreement(
    when: str, tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, replace = torch.save, os.replace
    writes = 0

    def interrupted_save(content: Any, file: Path) -> None:
        nonlocal writes
        writes += Path(file).name.startswith(".writing-checkpoint.ckpt-")
        save(content, file)
        if when == "written" and writes == 2:
            raise KeyboardInterrupt

    def interrupted_replace(source: Any, target: Any) -> None:
        replace(source, target)
        if when == "renamed" and writes == 2 and Path(target).name == "checkpoint.ckpt":
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("recbole_dtn.record.checkpoint.torch.save", interrupted_save)
    monkeypatch.setattr("recbole_dtn.record.checkpoint.os.replace", interrupted_replace)
    run = tiny("DTN")
    assert run.status == "interrupted"
    assert run.record.best_epoch == read_checkpoint(run.folder).epoch == (1 if when == "written" else 2)
    assert run.record.valid_value is not None
    assert not list(run.folder.glob(".writing-*"))


def test_the_command_line_exits_75_and_goes_on(
    tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recbole_dtn.training.module import TrainingModule

    original = TrainingModule.training_step

    def step(self: TrainingModule, *args: Any) -> Any:
        if self.steps_taken == 2:
            terminate()
        return original(self, *args)

    settings = tiny("DTN").record.settings
    words = [f"--{key}={settings[key]}" for key in ("data_path", "limit_rows", "embedding_size", "module_dim")]
    words += ["--model=DTN", "--train_batch_size=200", "--epochs=1", "--interactions=[gdcn]", "--accelerator=cpu"]
    words += [f"--output_dir={Path(settings['output_dir']).parent / 'line'}"]
    with monkeypatch.context() as changed:
        changed.setattr(TrainingModule, "training_step", step)
        assert main(words) == 75
    out = " ".join(capsys.readouterr().out.split())
    (folder,) = (Path(settings["output_dir"]).parent / "line").glob("*/*/*")
    assert "preempted at epoch 1, step 3; there is no checkpoint yet; there is no test result" in out
    assert f"--resume={folder} goes on with it" in out
    assert main(["--model=DTN", f"--resume={folder}", "--epochs=2"]) == 2
    assert "epochs: 1 there, 2 here" in capsys.readouterr().err
    assert main([f"--resume={folder}", "--train_batch_size", "200", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert "goes on in epoch 1 after batch 3 of 4" in (folder / "log.txt").read_text()
    assert main([f"--resume={folder}"]) == 2
    assert "this run is finished" in capsys.readouterr().err
    assert main([f"--resume={folder.parent}"]) == 2
    assert "no settings at" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_another_plugin(tiny: Callable[..., Run], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    given = {"plugins": [str(file)], "seed": 11}
    for content in ("A = 1", "A = 2"):
        file.write_text(content)
        load_plugins([str(file)])
        if content == "A = 1":
            folder = tiny("DTN", Watch("train", 2, terminate), **given).folder
    with pytest.raises(UsageError, match=f"the plug-in {file} has changed since this run began"):
        tiny("DTN", resume=folder, **given)
    assert tiny("DTN", resume="auto", **given).folder != folder
    file.write_text("A = 1")
    load_plugins([str(file)])
    assert tiny("DTN", resume=folder, **given).status == "finished"


def test_auto_takes_no_run_that_is_finished_running_damaged_or_another(
    tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny("DTN", Watch("train", 2, terminate), seed=9).folder
    settings = resolve({**read_record(folder).settings}).settings
    digest, version = read_record(folder).settings_digest, read_record(folder).code_version
    assert find_unfinished(settings, digest, version) == (folder, [])
    assert find_unfinished(settings.model_copy(update={"seed": 10}), digest, version) == (None, [])
    assert find_unfinished(settings.model_copy(update={"split_seed": 1}), digest, version) == (None, [])
    assert find_unfinished(settings, digest, "another") == (None, [])
    with monkeypatch.context() as patched:  # the package was edited since
        patched.setattr("recbole_dtn.record.training.code_digest", lambda: "another")
        found, (message,) = find_unfinished(settings, digest, version)
        assert found is None
        assert message == f"{folder}: another state of the code of this package began it"
    with lock_run(folder):
        assert find_unfinished(settings, digest, version) == (None, [])
        with pytest.raises(UsageError, match="another process is running it"):
            tiny("DTN", resume=folder, seed=9)
    with pytest.raises(UsageError, match="seed: 9 there, 8 here"):
        tiny("DTN", resume=folder, seed=8)
    whole = (folder / FILE_NAME).read_bytes()
    (folder / FILE_NAME).write_bytes(whole[: len(whole) // 2])
    found, (message,) = find_unfinished(settings, digest, version)
    assert found is None
    assert str(folder / FILE_NAME) in message
    with pytest.raises(DataError, match=r"training\.ckpt is not a checkpoint that torch can read"):
        tiny("DTN", resume=folder, seed=9)
    fresh = tiny("DTN", resume="auto", seed=9)
    assert fresh.folder != folder
    assert "left out: " in (fresh.folder / "log.txt").read_text()


def test_a_flipped_bit_in_a_checkpoint_is_told_with_what_to_do(
    tiny: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny("DTN", Watch("train", STEPS + 2, terminate), seed=11).folder
    for name in ("checkpoint.ckpt", FILE_NAME):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    assert main([f"--resume={folder}"]) == 2
    assert f"{folder / FILE_NAME} does not have its checksum" in capsys.readouterr().err
    (folder / FILE_NAME).unlink()
    assert main(["test", f"--run={folder}"]) == 2
    said = capsys.readouterr().err
    assert f"{folder / 'checkpoint.ckpt'} does not have its checksum" in said
    assert "Put back a copy of it, or train again" in said
    assert "this is a bug" not in said


def test_what_killed_runs_left_half_written_is_removed_by_the_next(
    tiny: Callable[..., Run], whole: Callable[[str], tuple[Run, Watch]]
) -> None:
    killed = whole("DTN")[0].folder.parent / "20200101-000000-abcdef-s1"
    killed.mkdir()
    dead, live = killed / ".writing-training.ckpt-dead", killed / ".writing-training.ckpt-live"
    with live.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        dead.write_text("half")
        for file in (dead, live):
            os.utime(file, (1, 1))
        tiny("DTN", epochs=1)
        assert not dead.exists()
        assert live.exists()
    shutil.rmtree(killed)


def test_a_cache_file_that_is_cut_in_training_is_a_message(tiny: Callable[..., Run]) -> None:
    prepared = prepare(resolve({**tiny("DTN", epochs=1).record.settings}).settings)
    file = prepared.cache_folder / "labels.npy"

    def cut() -> None:  # its last page stays, so that no read can end the process
        os.truncate(file, file.stat().st_size - 1)

    with pytest.raises(DataError, match=r"labels\.npy: cut to .* while it was read.* goes on with --resume=auto"):
        tiny("DTN", Watch("train", 2, cut))
    assert tiny("DTN", epochs=1).status == "finished"


def test_a_disk_without_space_costs_the_training_checkpoint_alone(
    tiny: Callable[..., Run], whole: Callable[[str], tuple[Run, Watch]], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(content: Any, file: Path) -> None:
        if FILE_NAME in Path(file).name:
            Path(file).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr("recbole_dtn.record.checkpoint.torch.save", full)
    run = tiny("DTN", **{"checkpoint.every_steps": 5})
    assert "warning: no training checkpoint could be written" in (run.folder / "log.txt").read_text()
    assert_same(run, None, whole("DTN"))


def test_sigterm_before_the_training_says_so(
    tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("recbole_dtn.training.fit.prepare", lambda *_, **__: terminate())
    with pytest.raises(Preempted):
        tiny("DTN")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "handlers are put back"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_random_states_are_restored() -> None:
    device = torch.device("cpu")
    np.random.normal()  # leaves a second normal number behind
    random.gauss(0, 1)
    state = random_state(device)

    def draw() -> list[Any]:
        return [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1), random.random()]

    first = draw()
    assert draw() != first
    set_random_state(state, device)
    assert draw() == first
