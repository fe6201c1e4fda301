"""What an unknown setting may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection

__all__ = ["suggest"]

MOST = 5
CUTOFF = 0.75
"""Similarity from which a name is offered; at 0.6 ``readr`` would be taken for ``threads``."""

SYNONYMS = {
    "config": ("config_files",),
    "config_file": ("config_files",),
    "data": ("dataset", "data_path"),
    "data_dir": ("data_path",),
    "device": ("accelerator", "devices"),
    "early_stopping": ("stopping_step",),
    "embed_dim": ("embedding_size",),
    "embedding_dim": ("embedding_size",),
    "gpu": ("accelerator", "devices"),
    "gpus": ("accelerator", "devices"),
    "grad_clip": ("gradient_clip",),
    "lr": ("optimizer.lr", "embedding_optimizer.lr", "learning_rate"),
    "max_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "num_threads": ("threads",),
    "patience": ("stopping_step",),
    "random_seed": ("seed",),
}
"""Names that other programs use -> ours."""


def suggest(key: str, known: Collection[str]) -> str:
    """What to try in place of ``key``: at most five settings, never a list of all.

    Args:
        key: the unknown name, dotted where it was given by its parts. known: every valid name, dotted ones included.

    >>> names = ["epochs", "threads", "optimizer.lr", "embedding_optimizer.lr", "train_batch_size", "eval_batch_size"]
    >>> suggest("lr", names)
    "did you mean 'optimizer.lr' or 'embedding_optimizer.lr'?"
    >>> suggest("batch_size", names), suggest("epoch", names)
    ("did you mean 'train_batch_size' or 'eval_batch_size'?", "did you mean 'epochs'?")
    >>> suggest("num_shared_expert", ["shared_experts", "task_experts"])
    "did you mean 'shared_experts'?"
    >>> suggest("readr", names)
    '--help shows the settings'
    """
    lowered = {name.lower(): name for name in known}
    wanted = key.lower()
    last = wanted.rpartition(".")[2]
    wanted = wanted.removeprefix("num_") if f"num_{wanted.removeprefix('num_')}" not in lowered else wanted
    close = [lowered[match] for match in difflib.get_close_matches(wanted, list(lowered), n=MOST, cutoff=CUTOFF)]
    found = [
        *(name for name in SYNONYMS.get(last, ()) if name in known),
        *(name for name in known if name.lower().endswith(f".{last}")),
        *(name for name in known if name.lower().endswith(f"_{last}") and "." not in key),
    ]
    hits = list(dict.fromkeys(found or close))[:MOST]  # an exact part of a name (lr, batch_size) is not a misspelling
    if not hits:
        return "--help shows the settings"
    *most, final = [repr(hit) for hit in hits]
    return f"did you mean {', '.join(most) + ' or ' if most else ''}{final}?"
