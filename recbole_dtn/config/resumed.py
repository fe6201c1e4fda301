"""The settings of a run that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole_dtn.config.load import Resolved, resolve
from recbole_dtn.errors import UsageError

__all__ = ["resolve_resumed"]


def resolve_resumed(folder: Path, words: Sequence[str]) -> Resolved:
    """The settings of a run, with what the words of a command line change of where and how it runs.

    That they change the run itself is found later, when its training checkpoint is read.

    Raises:
        UsageError: when the folder has no settings, or for wrong words.
    """
    file = folder / "settings.yaml"
    if not file.is_file():
        raise UsageError(f"resume: no settings at {file}: expected a run's folder, as printed by the run, or auto")
    return resolve(words, config_files=[file])
