"""What the processes of tests do, in a module that is imported in no time: each of them imports it anew."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from recbole_dtn.leaderboard.cell_run import Answer, Call


def job(argument: dict[str, Any]) -> Any:
    """What the processes of these tests do."""
    if argument.get("die"):
        os.kill(os.getpid(), argument["die"])
    if argument.get("child_leaves"):
        if os.fork() == 0:
            sys.exit(0)
        time.sleep(0.5)
    if argument.get("forks"):
        child = os.fork()
        if child == 0:
            time.sleep(60)
        Path(argument["forks"]).write_text(str(child))
        os._exit(4)
    if argument.get("exit") is not None:
        sys.exit(argument["exit"])
    if argument.get("leave") is not None:
        os._exit(argument["leave"])
    if argument.get("raise"):
        raise ValueError(argument["raise"])
    if argument.get("stop"):
        raise KeyboardInterrupt
    if argument.get("saves"):
        signal.signal(signal.SIGTERM, lambda *_: (Path(argument["saves"]).write_text("saved"), sys.exit(75)))
        Path(argument["saves"]).write_text("running")
        time.sleep(60)
    return os.getpid(), argument["value"]


def answer(call: Call) -> Answer:
    """What a job of another machine does: dies once where a file is missing, then says who it is."""
    told = dict(word.removeprefix("--").split("=", 1) for word in call.words if "=" in word)
    if "dies_once" in told and not Path(told["dies_once"]).exists():
        Path(told["dies_once"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ("failure", told["fails"]) if "fails" in told else ("result", (call.folder, told["value"]))


def explain(error: BaseException) -> str:
    return f"explained: {error}"
