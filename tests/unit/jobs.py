"""What the processes of tests do, in a module that is imported in no time: each of them imports it anew."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def job(argument: dict[str, Any]) -> Any:
    """What the processes of these tests do."""
    if argument.get("die"):
        os.kill(os.getpid(), argument["die"])
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


def explain(error: BaseException) -> str:
    return f"explained: {error}"
