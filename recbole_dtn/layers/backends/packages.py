"""Checks that the package of a backend is installed and loads."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from recbole_dtn.errors import UsageError

__all__ = ["require"]

PACKAGES = {"torch": "torch", "fbgemm": "fbgemm_gpu"}
INSTALL = {"fbgemm": "pip install fbgemm-gpu, or fbgemm-gpu-cpu for a torch without CUDA (never both)"}


@cache
def require(backend: str) -> None:
    """Import the package of ``backend``.

    Raises:
        UsageError: when it is missing, or does not load (built for another torch, or for a CUDA that is not here).
    """
    package = PACKAGES[backend]
    try:
        import_module(package)
    except (ImportError, OSError, RuntimeError) as error:
        found = "is not installed" if isinstance(error, ModuleNotFoundError) else "does not load here"
        raise UsageError(
            f"embedding_backend={backend} needs the package {package}, which {found} ({_first_line(error)}): "
            f"{INSTALL[backend]}, of the release made for this torch (docs/embeddings-backends.md), or use "
            "embedding_backend=torch, which needs no package"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
