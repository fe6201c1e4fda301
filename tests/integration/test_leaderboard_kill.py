"""A real leaderboard, tuned and matched, in two processes: killed twice, it ends as if it had not been."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOARD = """\
datasets: [{name: small, plantings: 2, rows: 3000, fields: 4, informative: 2, overlap: 1}]
models:
  - {name: DTN, model: DTN, interactions: [gdcn, masknet]}
  - {name: shared, model: MMoE, experts: [gdcn, masknet]}
proposed: [DTN]
contrasts: {owned: [DTN, shared]}
settings: {embedding_size: 4, epochs: 3}
match: dense
reference: DTN
tune: {trials: 2, epochs: 2}
"""
MEASURED = ("samples_per_second", "train_seconds")
"""Columns that are measured anew in each run."""


def command(folder: Path) -> list[str]:
    (folder / "b.yaml").write_text(BOARD)
    return [sys.executable, str(ROOT / "run_recbole_dtn.py"), "leaderboard", "run", "b.yaml", "--workers=2"]


def results(folder: Path) -> dict[str, Any]:
    """What does not depend on times and names of runs."""
    table = [
        {key: value for key, value in line.items() if key not in MEASURED}
        for line in csv.DictReader((folder / "leaderboard" / "b.csv").open())
    ]
    plan = json.loads((folder / "leaderboard" / "b.plan.json").read_text())
    chosen = [(row["name"], row["words"], [trial["value"] for trial in row["tuning"]["trials"]])
              for row in plan["rows"] if row["tuning"]]  # fmt: skip
    others = {form: (folder / "leaderboard" / f"b.{form}").read_text() for form in ("differences.csv", "tex")}
    return {"table": table, "chosen": chosen, **others}


@pytest.mark.slow
def test_kills_do_not_change_what_a_leaderboard_finds(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    subprocess.run(command(whole), cwd=whole, check=True, capture_output=True)
    all_runs = len(list(whole.glob("runs/*/*/*/record.json")))
    for after in (2, 7):  # among the trials, and among the runs
        process = subprocess.Popen(command(killed), cwd=killed, stdout=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 300
        while len(list(killed.glob("runs/*/*/*/record.json"))) < after:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end, "too slow"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(killed), cwd=killed, check=True, capture_output=True)
    assert results(killed) == results(whole)
    assert len(list(killed.glob("runs/*/*/*/record.json"))) == all_runs
