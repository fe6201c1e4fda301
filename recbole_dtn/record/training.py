"""The training checkpoint: all that a run needs to go on, beside the checkpoint of its best epoch.

Plain values and tensors, readable with ``weights_only=True``. It is replaced as a whole, so that a run that is killed
while one is written keeps the one before, and it is removed when the run has its record.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.plugins import changed_plugins
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.record.checkpoint import read_checkpoint, save_whole
from recbole_dtn.record.code import code_digest
from recbole_dtn.record.plain_file import load_plain
from recbole_dtn.record.record import FILE_NAME as RECORD
from recbole_dtn.record.record import RunRecord, read_record, record_from

__all__ = [
    "FILE_NAME", "find_unfinished", "has_trained", "is_running", "lacks_record", "lock_run", "of_this_code",
    "read_training", "record_in", "record_of", "refuse_other_run", "write_training",
]  # fmt: skip

FILE_NAME = "training.ckpt"
LOCK = ".lock"
FORMAT = 1
SAME = ("model", "dataset", "settings_digest", "seed", "split_seed", "fold", "draw", "code_version")
"""Keys of a record that are equal in a run and in what goes on with it."""


def write_training(folder: Path, content: dict[str, Any], record: RunRecord) -> None:
    """Write the training checkpoint of a run, whole or not at all.

    Args:
        folder: of the run. content: where the training is and what it holds. record: of the run so far.
    """
    save_whole(folder / FILE_NAME, {"format": FORMAT, "record": record.model_dump(mode="json"), **content})


def read_training(folder: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read the training checkpoint of a run, onto the CPU. ``mapped``: tensors are read from the file when used.

    Raises:
        DataError: when there is none, it is not one of ours, or does not have its checksum.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        raise DataError(
            f"no training checkpoint at {file}: expected the folder of a run that has not ended; one is written every "
            "checkpoint.every_steps or checkpoint.every_minutes, and removed when the run is finished"
        )
    content = load_plain(file, mapped=mapped)
    if not isinstance(content, dict) or content.get("format") != FORMAT or "record" not in content:
        raise DataError(f"{file} is not a training checkpoint of format {FORMAT}: another program or version wrote it")
    return content


def record_in(content: dict[str, Any], file: Path) -> RunRecord:
    """The record that a checkpoint holds: of the run as it was then.

    Raises:
        DataError: when it holds none, or one of another version.
    """
    if not content.get("record"):
        raise DataError(f"{file} holds no record of its run: an earlier version wrote it")
    return record_from(content["record"], str(file))


def record_of(folder: Path) -> RunRecord:
    """The record of a run, or where a kill left none the one that its checkpoints hold.

    Raises:
        DataError: when there is neither, or it cannot be read.
    """
    best = folder / CHECKPOINT
    recorded = not best.is_file() or (folder / RECORD).exists()
    if recorded and (record := read_record(folder)).status == "finished":
        return record
    if has_trained(folder):
        return record_in(read_training(folder, mapped=True), folder / FILE_NAME)
    return record if recorded else record_in({"record": read_checkpoint(folder).record}, best)


def has_trained(folder: Path) -> bool:
    """Whether a run that has not ended has ended its training, so that its test alone is left."""
    return (folder / FILE_NAME).is_file() and bool(read_training(folder, mapped=True)["trained"])


def lacks_record(folder: Path) -> bool:
    """Whether a run has a checkpoint and no record of its end, so that a test is enough to write one."""
    if not (folder / CHECKPOINT).is_file():
        return False
    if not (folder / RECORD).exists():
        return True
    return has_trained(folder) and read_record(folder).status != "finished"


def refuse_other_run(record: RunRecord, settings: Settings, digest: str, version: str, folder: Path) -> None:
    """Check that settings are those of a run, and plug-ins what they were.

    Raises:
        UsageError: naming what differs.
    """
    given = {
        "model": settings.model,
        "dataset": settings.dataset,
        "settings_digest": digest,
        "seed": settings.seed,
        "split_seed": settings.split_seed,
        "fold": settings.fold,
        "draw": settings.draw,
        "code_version": version,
    }
    differing = [key for key in SAME if getattr(record, key) != given[key]]
    if not differing:
        changed = changed_plugins(record.plugin_states(), settings)
        if changed:
            raise UsageError(
                f"resume={folder}: the plug-in {changed[0]} has changed since this run began: put back what it was, or "
                "start another run"
            )
        return
    if "settings_digest" in differing:
        now = settings.dump()
        named = [f"{key}: {record.settings.get(key)} there, {value} here" for key, value in now.items()
                 if record.settings.get(key) != value]  # fmt: skip
    else:
        named = [f"{key}: {getattr(record, key)} there, {given[key]} here" for key in differing]
    raise UsageError(
        f"resume={folder}: a run goes on with its own settings; leave out those that differ, or start another run:\n  "
        + "\n  ".join(named)
    )


def find_unfinished(settings: Settings, digest: str, version: str) -> tuple[Path | None, list[str]]:
    """The newest run with these settings, seed and split that can go on, and a sentence for each that is left out.

    These are runs that cannot be read, and those that another state of the code began. Finished runs, and those that
    another process is running, are passed over.
    """
    parent = Path(settings.output_dir) / settings.dataset / settings.model
    left_out: list[str] = []
    # The name of a run's folder begins with the time at which it was made.
    for folder in sorted(parent.glob(f"*-{digest[:6]}-s{settings.seed}*"), reverse=True):
        if not (folder / FILE_NAME).is_file() or is_running(folder):
            continue
        try:
            if (folder / RECORD).is_file() and read_record(folder).status == "finished":
                continue
            record = record_in(read_training(folder, mapped=True), folder / FILE_NAME)
            refuse_other_run(record, settings, digest, version, folder)
        except UsageError:
            continue
        except DataError as error:
            left_out.append(str(error))
            continue
        if not of_this_code(record):
            left_out.append(f"{folder}: another state of the code of this package began it")
            continue
        return folder, left_out
    return None, left_out


def of_this_code(record: RunRecord) -> bool:
    """Whether the code of this package is as it was when the record was written, as far as is known."""
    return record.versions.get("code", code_digest()) == code_digest()


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of a run."""
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that cannot be written to: nothing runs there
        return False


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a run. It ends with the process, however that ends.

    Raises:
        UsageError: when another process holds it.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"resume={folder}: another process is running it") from None
    try:
        yield
    finally:
        # Before it is given back: another process could hold it by then.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
