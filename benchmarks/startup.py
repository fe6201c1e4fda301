"""Start-up: how long a user waits for help, for an error, for a list, and for the first training step.

    python -m benchmarks.startup --rounds=5

Every figure is of a new process, from its start to its end; "first step" from its start until the first training step
of a run over a data set that is prepared already (DTN, ml-100k) has ended. Commands take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import machine, markdown

GOALS = {"--help": 1.0, "a wrong setting": 1.0, "list models": 3.0, "first step": 5.0}
"""Seconds that each may take."""
COMMANDS = {"--help": ["--help"], "a wrong setting": ["--modle=DTN"], "list models": ["list", "models"]}


class _FirstStepError(Exception):
    """The first step has ended: nothing more is to be measured."""


def first_step(data_path: str) -> None:
    """Run until the first step has ended; prints the seconds since this process began."""
    import psutil
    import pytorch_lightning as lightning

    from recbole_dtn.config.load import resolve
    from recbole_dtn.training.fit import fit_settings

    class Stop(lightning.Callback):
        def on_train_batch_end(self, *_: object, **__: object) -> None:
            print(json.dumps({"seconds": time.time() - psutil.Process().create_time()}), flush=True)
            raise _FirstStepError

    with tempfile.TemporaryDirectory() as output:
        given = {"model": "DTN", "dataset": "ml-100k", "data_path": data_path, "output_dir": output, "quiet": True}
        try:
            fit_settings(resolve(given), callbacks=[Stop()])
        except _FirstStepError:
            return


def seconds_of(name: str, data_path: str) -> float:
    """One process of one command."""
    if name in COMMANDS:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "recbole_dtn", *COMMANDS[name]], capture_output=True, check=False)
        return time.perf_counter() - start
    command = [sys.executable, "-m", "benchmarks.startup", "--first_step", data_path]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return float(json.loads(printed.splitlines()[-1])["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of every command (default: 5)")
    parser.add_argument("--data_path", default="dataset", help="folder of the data sets (default: dataset)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="gets the JSON")
    parser.add_argument("--first_step", metavar="DATA_PATH", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_step:
        first_step(arguments.first_step)
        return
    seconds_of("first step", arguments.data_path)  # prepares the data
    found: dict[str, list[float]] = {name: [] for name in GOALS}
    for number in range(arguments.rounds):
        for name, values in found.items():
            values.append(seconds_of(name, arguments.data_path))
            print(f"round {number + 1}/{arguments.rounds}  {name:<16} {values[-1]:.2f} s", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": "startup", "machine": machine(), "seconds": found}
    (arguments.output / "startup.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    rows = [
        [name, f"{statistics.median(values):.2f}", f"{min(values):.2f}–{max(values):.2f}", f"{GOALS[name]:g}"]
        for name, values in found.items()
    ]
    print(markdown(["", "seconds, median", "least–largest", "at most"], rows))


if __name__ == "__main__":
    main()
