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


@pytest.mark.parametrize(("embedding_optimizer", "tasks"), [("adam", None), ("lazy_adam", MASKED)])
def test_two_processes_train_as_one_with_twice_the_batch(
    embedding_optimizer: str, tasks: str | None, small_fit: Callable[..., Run], tmp_path: Path
) -> None:
    overrides = {"tasks": yaml.safe_load(tasks)} if tasks else {}
    alone = small_fit("SharedBottom", embedding_optimizer__name=embedding_optimizer, train_batch_size=400, **overrides)
    settings = alone.record.settings
    command = [
        *(sys.executable, str(ROOT / "run_recbole_dtn.py"), "--model=SharedBottom", "--dataset=ml-100k"),
        *(f"--data_path={settings['data_path']}", f"--output_dir={tmp_path}", "--limit_rows=3000", "--epochs=2"),
        *("--train_batch_size=200", "--embedding_size=4", f"--embedding_optimizer.name={embedding_optimizer}"),
        *("--accelerator=cpu", "--devices=2", "--strategy=ddp"),
        *((f"--tasks={tasks}",) if tasks else ()),
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
    two, one = read_checkpoint(folder).state_dict, read_checkpoint(alone.folder).state_dict
    for name, tensor in one.items():
        assert (two[name] - tensor).abs().max() < 1e-4, f"{name}: the mean of two halves is the gradient of the whole"
