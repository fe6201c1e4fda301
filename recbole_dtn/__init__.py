"""Multi-task CTR / CVR recommendation for RecBole, trained under Lightning.

>>> from recbole_dtn import fit, load  # doctest: +SKIP
>>> run = fit(model="DTN", dataset="ml-100k")  # doctest: +SKIP
>>> load(run.folder).predict(frame)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_dtn.version import __version__

if TYPE_CHECKING:
    from recbole_dtn.serving.load import load
    from recbole_dtn.training.fit import fit

__all__ = ["__version__", "fit", "load"]


def __getattr__(name: str) -> Any:
    # Lazy: `import recbole_dtn` and the command line's errors must not wait for torch and Lightning.
    if name == "fit":
        from recbole_dtn.training.fit import fit

        return fit
    if name == "load":
        from recbole_dtn.serving.load import load

        return load
    raise AttributeError(f"module 'recbole_dtn' has no attribute {name!r}")
