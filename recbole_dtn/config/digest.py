"""What makes two runs the same experiment, and the settings as a YAML that runs again."""

from __future__ import annotations

import hashlib
import json
from typing import Protocol

import yaml

from recbole_dtn.config.settings import Settings

__all__ = ["NOT_DIGESTED", "settings_digest", "settings_yaml"]

NOT_DIGESTED = frozenset(
    {
        "plugins",  # paths: the names they register are digested where they are used
        "data_path",
        "raw",
        "max_rejected",  # decides whether there are files, not what is in them
        "strict",
        "max_line",
        "cache_dir",
        "check",  # whether files are read to check them
        "output_dir",
        "eval_batch_size",  # changes no number
        "seed",  # runs that differ in seed alone are repeats of one experiment
        "split_seed",  # and so are runs on several splits of one data set; records hold the split beside the digest
        "fold",
        "checkpoint",  # how often a run is saved changes no number
        "accelerator",
        "devices",
        "strategy",
        "num_nodes",
        "embedding_backend",  # the same look-ups and updates by another library, up to rounding (1e-6)
        "fused",  # the same results, up to rounding (1e-6)
        "compile",  # the same, in another order of rounding
        "threads",
        "check_memory",
        "loggers",
        "progress",
        "profile",
        "quiet",
    }
)
"""The keys that the digest leaves out: where files are, which machine runs, what is shown, the seed, and the split."""


class _HasSettings(Protocol):
    @property
    def settings(self) -> Settings: ...


def settings_digest(settings: Settings) -> str:
    """Sixteen hex digits of the SHA-256 of every setting but :data:`NOT_DIGESTED`.

    All options of a method are included, defaults too. A preset (DTN's ``variant``) is replaced by the settings that it
    implies. ``init_from`` is included as the given path. ``block`` counts where there is one, in place of ``folder``:
    runs on its folders are repeats of one experiment.
    """
    values = {key: value for key, value in settings.effective().items() if key not in NOT_DIGESTED}
    values.pop("block" if settings.block is None else "folder")
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_yaml(resolved: _HasSettings) -> str:
    """Every setting as YAML; ``--config_files`` with this file alone gives the same settings again."""
    text: str = yaml.safe_dump(
        resolved.settings.dump(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )
    return text
