"""Multi-task CTR / CVR recommendation for RecBole, trained under Lightning.

>>> from recbole_dtn import fit, load  # doctest: +SKIP
>>> run = fit(model="DTN", dataset="ml-100k")  # doctest: +SKIP
>>> load(run.folder).predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recbole_dtn.version import __version__

if TYPE_CHECKING:
    from recbole_dtn.serving.evaluate import evaluate
    from recbole_dtn.serving.load import load
    from recbole_dtn.training.fit import fit
    from recbole_dtn.training.quick_start import run_recbole

__all__ = ["__version__", "evaluate", "fit", "load", "run_recbole"]

LAZY = {
    "evaluate": "recbole_dtn.serving.evaluate",
    "fit": "recbole_dtn.training.fit",
    "load": "recbole_dtn.serving.load",
    "run_recbole": "recbole_dtn.training.quick_start",
}
"""Where the public names are. `import recbole_dtn` and errors of settings must not wait for torch and Lightning."""


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(importlib.import_module(LAZY[name]), name)
    raise AttributeError(f"module 'recbole_dtn' has no attribute {name!r}")
