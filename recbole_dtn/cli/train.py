"""``python run_recbole_dtn.py [train] --model=... --dataset=...``: train and test one model."""

from __future__ import annotations

import os

from recbole_dtn.cli.console import make_console
from recbole_dtn.cli.overview import overview
from recbole_dtn.config.load import resolve

__all__ = ["help_text", "run"]

INTERRUPTED = 130


def help_text(words: list[str]) -> str:
    """The overview, and every setting of the model that the words name."""
    return overview(words)


def run(words: list[str]) -> int:
    """Train, or with ``--dry_run`` show what would be."""
    dry = any(word in ("--dry_run", "--dry_run=true") for word in words)
    resolved = resolve([word for word in words if word.partition("=")[0] != "--dry_run"])
    console = make_console(quiet=resolved.settings.quiet)
    if dry:
        from recbole_dtn.cli.dry_run import show

        show(resolved, console)
        return 0
    from recbole_dtn.data.preprocess.at_once import check_files

    check_files(resolved.settings)  # before torch is loaded, which takes seconds
    from recbole_dtn.training.fit import fit_settings

    finished = fit_settings(resolved, console=console)
    if resolved.settings.quiet and os.environ.get("LOCAL_RANK", "0") == "0":
        print(finished.folder)
    return INTERRUPTED if finished.status == "interrupted" else 0
