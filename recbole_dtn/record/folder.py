"""The folder of a run: ``<output_dir>/<dataset>/<model>/<time>-<settings digest>-s<seed>[-f<fold>]/``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, why

__all__ = ["run_folder", "runs_folder"]

RUN_ID_VARIABLE = "RECBOLE_DTN_RUN_ID"
"""Set by the first process, so that the processes Lightning starts for other devices join the same run."""


def runs_folder(settings: Settings) -> Path:
    """The folder of all runs of a data set and model."""
    return Path(settings.output_dir) / settings.dataset / settings.model


def run_folder(settings: Settings, digest: str, *, first: bool) -> tuple[Path, str]:
    """Create the folder of a run.

    Args:
        settings: name the output folder, data set, model and seed. digest: of the settings.
        first: whether this is the first process of the run. The others create nothing: they read the run's name from
            an environment variable, and where that did not reach them Lightning broadcasts the folder later.

    Returns:
        The folder and the run's id, which is its name.

    Raises:
        UsageError: when the folder cannot be created.
    """
    parent = runs_folder(settings)
    if not first:
        given = os.environ.get(RUN_ID_VARIABLE, "unknown")
        return parent / given, given
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    fold = "" if settings.fold is None else f"-f{settings.fold}"
    base = f"{stamp}-{digest[:6]}-s{settings.seed}{fold}"
    for attempt in range(1, 1000):
        run_id = base if attempt == 1 else f"{base}-{attempt}"
        try:
            # mkdir fails where the name is taken, which settles a race between two runs of one second.
            (parent / run_id).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"output_dir={settings.output_dir}: cannot create {parent / run_id} {why(error)}"
            ) from error
        os.environ[RUN_ID_VARIABLE] = run_id
        return parent / run_id, run_id
    raise UsageError(f"output_dir={settings.output_dir}: too many runs started in this second")
