"""Where the shipped YAML files and the index of built-in methods are. Reading them costs neither torch nor recbole."""

from __future__ import annotations

import importlib.resources
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_dtn.errors import UsageError

__all__ = ["DETAILS", "INDEX", "builtin_details", "builtin_index", "properties_folder"]

INDEX = "index.json"
"""The generated file in :func:`properties_folder` that describes every built-in method; ``index`` writes it."""

DETAILS = "details.json"
"""The generated file beside it with what only ``list --details`` and the pages of docs/ need."""


@cache
def properties_folder() -> Path:
    """The folder of the shipped YAML files.

    It is the package ``recbole_dtn.properties`` in a wheel, and the repository's ``properties/`` beside the package
    in an editable install.

    Raises:
        UsageError: when neither is there (a broken installation).
    """
    if find_spec("recbole_dtn.properties") is not None:
        # Through a file: a folder without __init__.py is a MultiplexedPath, which is not a path itself.
        overall = Path(str(importlib.resources.files("recbole_dtn.properties") / "overall.yaml"))
        if overall.is_file():
            return overall.parent
    beside = Path(__file__).resolve().parents[1] / "properties"
    if (beside / "overall.yaml").is_file():
        return beside
    raise UsageError(f"the shipped properties are missing (looked in {beside}): install recbole_dtn again")


@cache
def builtin_index() -> dict[str, dict[str, dict[str, Any]]]:
    """``{kind: {name: description}}`` of every built-in method, as the command ``index`` wrote it.

    A description has ``target`` (``module:class``), ``summary`` and ``paper``; ``options`` (JSON schemas by name, with
    defaults and descriptions) or ``options_class`` (``module:class``, torch-free); and ``attributes``.

    Raises:
        UsageError: when the file is missing or is not JSON (a broken installation).
    """
    return _read(INDEX)


@cache
def builtin_details() -> dict[str, dict[str, dict[str, Any]]]:
    """``{kind: {name: details}}`` of every built-in method: ``text`` (of its docstring) and ``sizes``, null if unknown.

    A file of its own, so that nothing else pays for reading it.

    Raises:
        UsageError: as :func:`builtin_index`.
    """
    return _read(DETAILS)


def _read(name: str) -> dict[str, dict[str, dict[str, Any]]]:
    file = properties_folder() / name
    try:
        index: dict[str, dict[str, dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: the index of built-in methods cannot be read ({error}): install again") from error
    return index
