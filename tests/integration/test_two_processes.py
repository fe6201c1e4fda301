"""Two CPU processes (gloo): they train one model, and evaluate every row exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from recbole_dtn import load
from recbole_dtn.record.checkpoint import read_checkpoint
from recbole_dtn.record.record import read_record
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


@pytest.mark.parametrize(
    ("embedding_optimizer", "tasks", "balancer"),
    [
        ("adam", None, "fixed"),
        ("lazy_adam", MASKED, "fixed"),
        ("lazy_adam", MASKED, "pcgrad"),
        ("adam", None, "{name: mgda, normalize: loss+}"),
        ("lazy_adam", MASKED, "uncertainty"),
        ("lazy_adam", MASKED, "passes"),
    ],
)
def test_two_processes_train_as_one_with_twice_the_batch(
    embedding_optimizer: str, tasks: str | None, balancer: str, small_fit: Callable[..., Run], tmp_path: Path
) -> None:
    overrides: dict[str, object] = {"tasks": yaml.safe_load(tasks)} if tasks else {}
    overrides["balancer"] = yaml.safe_load(balancer)
    if balancer == "passes":
        (tmp_path / "passes.py").write_text(PASSES)
        overrides["plugins"] = [str(tmp_path / "passes.py")]
    alone = small_fit("SharedBottom", embedding_optimizer__name=embedding_optimizer, train_batch_size=400, **overrides)
    settings = alone.record.settings
    command = [
        *(sys.executable, str(ROOT / "run_recbole_dtn.py"), "--model=SharedBottom", "--dataset=ml-100k"),
        *(f"--data_path={settings['data_path']}", f"--output_dir={tmp_path}", "--limit_rows=3000", "--epochs=2"),
        *("--train_batch_size=200", "--embedding_size=4", f"--embedding_optimizer.name={embedding_optimizer}"),
        *("--accelerator=cpu", "--devices=2", "--strategy=ddp"),
        *((f"--tasks={tasks}",) if tasks else ()),
        f"--balancer={balancer}",
        *((f"--plugins={tmp_path / 'passes.py'}",) if balancer == "passes" else ()),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("RECBOLE_DTN_RUN_ID", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("*/*/*/record.json")
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
