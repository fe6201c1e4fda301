"""``python run_recbole_dtn.py [train] --model=... --dataset=...``: train and test one model."""

from __future__ import annotations

import os

from recbole_dtn.cli.overview import overview
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError
from recbole_dtn.report.console import make_console

__all__ = ["help_text", "run"]

INTERRUPTED = 130


def help_text(words: list[str]) -> str:
    """The overview, and every setting of the model that the words name."""
    return overview(words)


def _dry_run(words: list[str]) -> tuple[bool, list[str]]:
    """Whether ``--dry_run`` is among the words, and the others."""
    dry, rest = False, []
    for word in words:
        key, equals, value = word.partition("=")
        if key != "--dry_run":
            rest.append(word)
        elif equals and value not in ("true", "false"):
            raise UsageError(f"dry_run: expected true or false; found {value!r} (command line)")
        else:
            dry = value != "false"
    return dry, rest


def run(words: list[str]) -> int:
    """Train, or with ``--dry_run`` show what would be."""
    dry, words = _dry_run(words)
    resolved = resolve(words)
    console = make_console(quiet=resolved.settings.quiet)
    if dry:
        from recbole_dtn.cli.dry_run import show

        show(resolved, console)
        return 0
    from recbole_dtn.preprocess.from_settings import check_files

    check_files(resolved.settings)  # before torch is loaded, which takes seconds
    from recbole_dtn.training.fit import fit_settings

    finished = fit_settings(resolved, console=console)
    if resolved.settings.quiet and os.environ.get("LOCAL_RANK", "0") == "0":
        print(finished.folder)
    return INTERRUPTED if finished.status == "interrupted" else 0
