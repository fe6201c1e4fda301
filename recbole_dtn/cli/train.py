"""``python run_recbole_dtn.py [train] --model=... --dataset=...``: train and test one model."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_dtn.cli.overview import overview
from recbole_dtn.config.load import resolve
from recbole_dtn.config.resumed import resolve_resumed
from recbole_dtn.config.splits import plan_splits
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.cells import parse_seeds
from recbole_dtn.record.folder import runs_folder
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.files import check_place

__all__ = ["help_text", "run"]

ENDED = {"finished": 0, "interrupted": 130, "preempted": 75}
"""Exit code by the status of a run."""


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


def _taken(words: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of the option ``--name`` (the last one given, None without it), and the other words."""
    text, rest, waiting = None, [], list(words)
    while waiting:
        word = waiting.pop(0)
        key, equals, value = word.partition("=")
        if key != f"--{name}":
            rest.append(word)
        else:
            text = value if equals or not waiting else waiting.pop(0)
    return text, rest


def _split_seeds(words: list[str]) -> tuple[list[int] | None, list[str]]:
    """The seeds that ``--split_seeds`` names (None without it), and the other words."""
    text, rest = _taken(words, "split_seeds")
    if text is not None and any(word.partition("=")[0] == "--split_seed" for word in rest):
        raise UsageError("split_seed: split_seeds names the seeds of all splits; give one of the two (command line)")
    return None if text is None else parse_seeds(text, "split_seeds"), rest


def run(words: list[str]) -> int:
    """Train, or with ``--dry_run`` show what would be; a run per split with ``--split_seeds``, or ``folds`` alone."""
    dry, words = _dry_run(words)
    seeds, words = _split_seeds(words)
    resume, words = _taken(words, "resume")
    resolved = resolve(words) if resume in (None, "auto") else resolve_resumed(Path(resume or ""), words)
    settings = resolved.settings
    console = make_console(quiet=settings.quiet, lasting=not dry)
    splits = plan_splits(settings, seeds, Path(settings.data_path) / (settings.folder or settings.dataset))
    if dry:
        from recbole_dtn.cli.dry_run import show

        if len(splits) > 1:
            say(console, f"{len(splits)} runs, one per split; this is the first: {splits[0].title}\n")
        show(resolve([*words, *splits[0].words()]) if seeds is not None or len(splits) > 1 else resolved, console)
        return 0
    from recbole_dtn.preprocess.from_settings import check_files

    # Before torch is loaded, which takes seconds.
    if resume in (None, "auto"):
        check_place(runs_folder(settings), f"output_dir={settings.output_dir}")
    check_files(settings)
    if seeds is not None or len(splits) > 1:
        from recbole_dtn.cli.train_splits import run_splits

        if resume not in (None, "auto"):
            raise UsageError(
                f"resume={resume}: that is one run, here are several splits; --resume=auto finds each of them"
            )
        return ENDED[run_splits(words, settings, splits, console, resume=resume)]
    from recbole_dtn.training.fit import fit_settings

    finished = fit_settings(resolved, console=console, resume=resume)
    if settings.quiet and os.environ.get("LOCAL_RANK", "0") == "0":
        print(finished.folder)
    if settings.strict and finished.status == "finished":
        from recbole_dtn.training.warn import refuse_untrusted

        refuse_untrusted([(str(finished.folder), finished.record)])
    return ENDED[finished.status]
