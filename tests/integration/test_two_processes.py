"""Two CPU processes (gloo): they train one model, and evaluate every row exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from recbole_dtn import load
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record
from recbole_dtn.record.training import read_training
from recbole_dtn.training.fit import Run

ROOT = Path(__file__).resolve().parents[2]


# The second set observes `love` on some rows only: the two halves of a batch then hold unequal numbers of labels.
MASKED = (
    "[{name: like, label: rating, condition: rating >= 4},"
    " {name: love, label: rating, condition: rating == 5, after: [like], observed_when: rating >= 3}]"
)


# A balancer of several backward passes: DDP has to reduce gradients in the last one alone.
PASSES = """
from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.registry import BALANCERS


@BALANCERS.register("passes")
class Passes(LossBalancer):
    "One backward pass for each task."

    def backward(self, step):
        for loss in step.losses:
            step.run(loss, retain_graph=True)
        step.run(step.extra + 0 * step.losses.sum())
        return step.losses.detach().sum()
"""


# A balancer with which the second process gets a signal at its fifth step. Where it is stopped, and so hangs, the first
# one gets SIGTERM while it waits for it.
ENDING = """
import os, signal, threading

from recbole_dtn.balancer.fixed import Fixed
from recbole_dtn.registry import BALANCERS
from recbole_dtn.training import processes

processes.BATCH = 3.0


@BALANCERS.register("ending")
class Ending(Fixed):
    "Sends a signal to the second process."

    def backward(self, step):
        if step.index == 4 and os.environ.get("LOCAL_RANK") == "1":
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        elif step.index == 4 and int(os.environ["SIGNAL"]) == signal.SIGSTOP:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return super().backward(step)
"""


# optimiser of the table, tasks, balancer
CASES = [
    ("adam", None, "fixed"),
    ("lazy_adam", MASKED, "fixed"),
    ("lazy_adam", MASKED, "pcgrad"),
    ("adam", None, "{name: mgda, normalize: loss+}"),
    ("lazy_adam", MASKED, "uncertainty"),
    ("lazy_adam", MASKED, "famo"),
    ("adam", MASKED, "db_mtl"),
    ("lazy_adam", MASKED, "passes"),
]

# As run_recbole_dtn.py, and then more runs in the same two processes: importing torch takes longer than a run.
SCRIPT = """
import json, os, sys

from recbole_dtn.cli import main

code = main()
for words in json.loads(os.environ["FURTHER_RUNS"]):
    code = code or main(words)
sys.exit(code)
"""


def changes(embedding_optimizer: str, tasks: str | None, balancer: str, folder: Path) -> dict[str, str]:
    """The settings of a case, as text."""
    given = {"embedding_optimizer.name": embedding_optimizer, "balancer": balancer}
    if tasks:
        given["tasks"] = tasks
    if balancer == "passes":
        given["plugins"] = str(folder / "passes.py")
    return given


def environment_of(**given: str) -> dict[str, str]:
    """The environment of two processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **given}
    environment.pop("RECBOLE_DTN_RUN_ID", None)
    return environment


@pytest.fixture(scope="module")
def of_two(small_fit: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case trained by two processes; the runs of the case at position i are in the folder i."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "passes.py").write_text(PASSES)
    (folder / "script.py").write_text(SCRIPT)
    data_path = small_fit("SharedBottom", epochs=1).record.settings["data_path"]
    commands = [
        [
            *(
                "--model=SharedBottom",
                "--dataset=ml-100k",
                f"--data_path={data_path}",
                f"--output_dir={folder / str(i)}",
            ),
            *("--limit_rows=3000", "--epochs=2", "--train_batch_size=200", "--embedding_size=4"),
            *("--accelerator=cpu", "--devices=2", "--strategy=ddp"),
            *(f"--{key}={value}" for key, value in changes(*case, folder).items()),
        ]
        for i, case in enumerate(CASES)
    ]
    environment = environment_of(FURTHER_RUNS=json.dumps(commands[1:]))
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), *commands[0]],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_two_processes_train_as_one_with_twice_the_batch(
    case: int, small_fit: Callable[..., Run], of_two: Path
) -> None:
    given = {key: yaml.safe_load(value) for key, value in changes(*CASES[case], of_two).items()}
    alone = small_fit("SharedBottom", train_batch_size=400, **given)
    (file,) = (of_two / str(case)).glob("*/*/*/record.json")
    folder, record = file.parent, read_record(file)
    assert record.test is not None
    again = load(folder).test()
    for task, values in record.test.items():
        for name, value in values.items():
            assert again[task][name] == pytest.approx(value, abs=1e-6), "every test row counts once over both processes"
    two, one = read_checkpoint(folder), read_checkpoint(alone.folder)
    for name, tensor in one.state_dict.items():
        error = (two.state_dict[name] - tensor).abs().max()
        assert error < 1e-4, f"{name}: the mean of two halves is the gradient of the whole"
    assert set(two.balancer) == set(one.balancer)
    for name, tensor in one.balancer.items():
        assert (two.balancer[name] - tensor).abs().max() < 1e-4, f"{name} of the balancer"


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 75, []),
        (signal.SIGKILL, 1, ["error: process 1 of the run (pid ", "was ended by SIGKILL", "--resume"]),
        (signal.SIGSTOP, 75, ["ended by SIGTERM (the batch did not end within 3 s); ", "--resume"]),
    ],
)
def test_a_process_that_ends_takes_the_other_along(
    number: signal.Signals, code: int, said: list[str], small_fit: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    data_path = small_fit("SharedBottom", epochs=1).record.settings["data_path"]
    words = [
        *("--model=SharedBottom", "--dataset=ml-100k", f"--data_path={data_path}", f"--output_dir={tmp_path}"),
        *("--limit_rows=3000", "--train_batch_size=200", "--embedding_size=4", "--checkpoint.every_steps=2"),
        *("--accelerator=cpu", "--devices=2", "--strategy=ddp", "--quiet"),
        *(f"--plugins={tmp_path / 'ending.py'}", "--balancer=ending"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "recbole_dtn", *words],
        env=environment_of(SIGNAL=str(int(number))), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert all(part in done.stderr for part in said)
    assert len(done.stderr.splitlines()) == bool(said), "the cause is told once"
    (folder,) = tmp_path.glob("*/*/*")
    content = read_training(folder)
    assert (content["step"], len(content["random"])) == (5 if number == signal.SIGTERM else 4, 2)
    if number == signal.SIGTERM:
        record = read_record(folder)
        assert (record.status, record.interrupted_at) == ("preempted", "epoch 1, step 5")
