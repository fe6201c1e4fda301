"""Which run ``resume`` goes on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from recbole_dtn.config.load import settings_digest
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.record.folder import RUN_ID_VARIABLE
from recbole_dtn.record.record import FILE_NAME as RECORD
from recbole_dtn.record.record import RunRecord, read_record
from recbole_dtn.record.training import FILE_NAME as TRAINING
from recbole_dtn.record.training import find_unfinished, of_this_code, read_training, record_in, refuse_other_run
from recbole_dtn.training.report import Report
from recbole_dtn.version import __version__

__all__ = ["Resume", "folder_to_resume"]

Resume = Path | str | Literal["auto"] | None


def folder_to_resume(
    resume: Resume, settings: Settings, fingerprint: str, report: Report, *, first: bool
) -> Path | None:
    """The folder of the run to go on with; None: a new one.

    Args:
        resume: as :func:`~recbole_dtn.training.fit.fit` has it. settings: of the run. fingerprint: of the data now.
        report: told why ``auto`` starts anew. first: whether this is the first process of the run; the others join it.

    Raises:
        UsageError: for a run with other settings, or one that is finished. DataError: when it cannot be read, or the
            data has changed.
    """
    if resume is None:
        return None
    digest = settings_digest(settings)
    if resume != "auto":
        folder = Path(resume)
        record = _check(folder, settings, digest, fingerprint)
        if not of_this_code(record):
            report.show("resume: the code of this package has changed since the run began")
        if first:
            os.environ[RUN_ID_VARIABLE] = folder.name
        return folder
    if not first and RUN_ID_VARIABLE not in os.environ:
        raise UsageError(
            "resume=auto: this process was not started by the first one of the run, so that they may find different "
            "runs; name the folder in its place"
        )
    if not first:
        joined = Path(settings.output_dir) / settings.dataset / settings.model / os.environ[RUN_ID_VARIABLE]
        return joined if (joined / TRAINING).is_file() else None
    found, left_out = find_unfinished(settings, digest, __version__)
    for message in left_out:
        report.show(f"left out: {message}")
    if found is None:
        report.show("resume: no run with these settings, seed and split has stopped: starts one")
        return None
    try:
        _check(found, settings, digest, fingerprint)
    except DataError as error:
        report.show(f"resume: starts a new run: {error}")
        return None
    os.environ[RUN_ID_VARIABLE] = found.name
    return found


def _check(folder: Path, settings: Settings, digest: str, fingerprint: str) -> RunRecord:
    if (folder / RECORD).is_file() and read_record(folder).status == "finished":
        raise UsageError(f"resume={folder}: this run is finished; its result is in {folder / RECORD}")
    record = record_in(read_training(folder, mapped=True), folder / TRAINING)
    refuse_other_run(record, settings, digest, __version__, folder)
    if record.data_fingerprint != fingerprint:
        raise DataError(
            f"resume={folder}: the data has changed since (fingerprint {fingerprint}, recorded "
            f"{record.data_fingerprint}), so that the run cannot go on as it began"
        )
    return record
