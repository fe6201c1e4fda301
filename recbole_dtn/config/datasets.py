"""Where the settings of a data set are: its own YAML, a shipped one, or the files and lines that the user gives."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from recbole_dtn.config.faults import Fault
from recbole_dtn.config.properties import read_tree, shipped, shipped_names
from recbole_dtn.config.tree import Branch, Leaf, is_null, merge, plain
from recbole_dtn.errors import UsageError, nearest

__all__ = [
    "INCOMPLETE",
    "dataset_layer",
    "dataset_values",
    "dataset_yaml",
    "has_atomic_files",
    "is_folder_name",
    "known_datasets",
    "prepared_datasets",
    "protocols",
    "refuse_shipped",
    "shadows",
]

INCOMPLETE = ".incomplete"
"""A file of this name in a folder of atomic files: they were being moved there when the process ended."""

LONGEST_NAME = 200
"""Bytes of a data set's name: a name of a file has 255 at most, and ``.train.inter`` and such are added to it."""
PROGRAM = "python run_recbole_dtn.py"
TOO_LATE = ("model", "dataset", "plugins", "data_path")
"""Keys that decide which files are read, so that a data set's YAML comes too late for them."""


def prepared_datasets(data_path: Path) -> tuple[str, ...]:
    """Names of the folders under ``data_path`` that hold atomic files or a YAML of their own name, sorted."""
    if not data_path.is_dir():
        return ()
    return tuple(
        sorted(
            folder.name
            for folder in data_path.iterdir()
            if folder.is_dir() and (has_atomic_files(folder) or (folder / f"{folder.name}.yaml").is_file())
        )
    )


def has_atomic_files(folder: Path) -> bool:
    """Whether the folder holds interactions under its own name (``<name>.inter``, or parts ``<name>.<part>.inter``).

    A folder whose files were not all moved there (:data:`INCOMPLETE`) holds none.
    """
    return not (folder / INCOMPLETE).exists() and any(
        file.name.startswith(f"{folder.name}.") for file in folder.glob("*.inter")
    )


def known_datasets(data_path: Path) -> tuple[str, ...]:
    """Names that ``--dataset`` knows: the shipped ones and the folders under ``data_path``.

    A folder in which a shipped data set of another name stores its files is not listed.
    """
    names = shipped_names("dataset")
    kept_elsewhere = {folder for name in names if (folder := _shipped_folder(name)) != name}
    prepared = [name for name in prepared_datasets(data_path) if dataset_yaml(name, data_path) is not None
                or name not in kept_elsewhere]  # fmt: skip
    return tuple(sorted({*names, *prepared}))


def dataset_yaml(name: str, data_path: Path) -> Path | None:
    """The YAML of a data set: ``<data_path>/<name>/<name>.yaml``, else the shipped one, else None.

    Atomic files in ``<data_path>/<name>`` are a user's own where the shipped data set of that name keeps its files in
    another folder; the shipped YAML does not describe them.
    """
    own = data_path / name / f"{name}.yaml"
    if own.is_file():
        return own
    elsewhere = shipped("dataset", name) is not None and _shipped_folder(name) != name
    return None if elsewhere and has_atomic_files(data_path / name) else shipped("dataset", name)


def _shipped_folder(name: str) -> str:
    """The folder under ``data_path`` in which a shipped data set keeps its atomic files."""
    return str(dataset_values(name, None).get("folder") or name)


def dataset_layer(name: str | None, data_path: str | None, merged: Branch, faults: list[Fault]) -> Branch:
    """The layer of the data set's YAML: ``<data_path>/<name>/<name>.yaml``, else the shipped one.

    Without a YAML, atomic files (or a preprocessor that makes them) are enough if ``fields`` and ``tasks`` are given. A
    fault is appended when there is neither.
    """
    if name is None or data_path is None:
        return Branch("")
    where = merged["dataset"].where
    if not is_folder_name(name):
        message = f"expected the name of a folder under data_path; found {name!r}; its place goes in data_path"
        faults.append(Fault("dataset", message, where))
        return Branch("")
    file = dataset_yaml(name, Path(data_path))
    try:
        if file is not None:
            layer = _extended(file, Path(data_path), [])
            return layer if file == shipped("dataset", name) else _without_late_keys(layer, faults)
    except UsageError as error:
        faults.append(Fault("dataset", str(error), ""))
        return Branch("")
    _check_bare(name, Path(data_path), merged, faults)
    return Branch("")


def is_folder_name(name: str) -> bool:
    """Whether a name may be a folder's, and is short enough for the endings of its files."""
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:  # half of a surrogate pair, which YAML can spell
        return False
    return size <= LONGEST_NAME and re.fullmatch(r"[^./\\:\s\x00-\x1f\x7f][^/\\:\s\x00-\x1f\x7f]*", name) is not None


@cache
def _parsed(file: Path, name: str) -> Branch:
    return read_tree(file, name=name, lines=False)


def _shipped_tree(file: Path, name: str) -> Branch:
    """A shipped file's tree, parsed once in a process; the caller may change its top level."""
    tree = Branch(name)
    tree.update(_parsed(file, name))
    return tree


def _extended(file: Path, data_path: Path, seen: list[str]) -> Branch:
    """The tree of a data set's YAML upon the one that it ``extends``; maps merge, lists replace."""
    is_shipped = file == shipped("dataset", file.stem)
    name = f"dataset/{file.stem}.yaml" if is_shipped else str(file)
    layer = _shipped_tree(file, name) if is_shipped else read_tree(file, name=name)
    base = layer.pop("extends", None)
    if base is None or is_null(base):
        return layer
    other = str(plain(base))
    found = (dataset_yaml(other, data_path) or shipped("dataset", other)) if is_folder_name(other) else None
    if found is None:
        raise UsageError(f"{name}: extends {other!r}, an unknown data set; {_nearest(other, data_path)}")
    if found == file:  # a file of the user's own that extends the shipped one of its name
        found = shipped("dataset", other)
    if found is None or str(found) in seen:
        raise UsageError(f"{name}: extends {other!r}, which extends this file in turn")
    lower = _extended(found, data_path, [*seen, str(file)])
    return merge(lower, layer)


def dataset_values(name: str, data_path: Path | None) -> dict[str, Any]:
    """The plain values of a data set's YAML with those that it extends; empty where there is no YAML.

    Args:
        name: of the data set. data_path: where a YAML of the user's own may be; None: the shipped one counts.

    Raises:
        UsageError: for a YAML that is wrong, or extends an unknown data set.
    """
    file = shipped("dataset", name) if data_path is None else dataset_yaml(name, data_path)
    values: dict[str, Any] = {} if file is None else plain(_extended(file, data_path or Path(), []))
    return values


def protocols(preprocessor: str) -> dict[str, str]:
    """Shipped data sets that a preprocessor makes, by protocol; of several with one protocol, the shortest name.

    >>> protocols("ml-100k")
    {'default': 'ml-100k'}
    """
    found: dict[str, str] = {}
    for name in sorted(shipped_names("dataset"), key=lambda name: (len(name), name)):
        values = dataset_values(name, None)
        if values.get("preprocessor") == preprocessor:
            found.setdefault(str((values.get("preprocess") or {}).get("protocol", "default")), name)
    return found


def shadows(name: str, data_path: Path) -> bool:
    """Whether a YAML or atomic files under ``data_path`` take the place of the shipped data set of that name."""
    return shipped("dataset", name) is not None and dataset_yaml(name, data_path) != shipped("dataset", name)


def refuse_shipped(name: str, preprocessor: str) -> None:
    """Refuse the name of a shipped data set that another preprocessor makes: ``--dataset`` would mean two things.

    Args:
        name: of the folder that is to be written. preprocessor: that writes it.

    Raises:
        UsageError: naming the shipped data set.
    """
    for other in shipped_names("dataset"):
        values = dataset_values(other, None)
        if name in (other, values.get("folder")) and values.get("preprocessor") != preprocessor:
            raise UsageError(
                f"--name={name}: that is the shipped data set {other!r} (made by preprocess "
                f"{values.get('preprocessor')}); choose another name, such as my-{name}"
            )


def _without_late_keys(layer: Branch, faults: list[Fault]) -> Branch:
    for key in TOO_LATE:
        if key in layer:
            message = "cannot be set in a data set's YAML, which is read after it; use config_files or the command line"
            faults.append(Fault(key, message, layer.pop(key).where))
    return layer


def _check_bare(name: str, data_path: Path, merged: Branch, faults: list[Fault]) -> None:
    """Check a data set without a YAML: it needs atomic files, ``fields`` and ``tasks``."""
    folder = _text(merged, "folder") or name
    described = bool(merged["fields"]) and bool(merged["tasks"])
    described = described and not isinstance(merged["fields"], Leaf) and not isinstance(merged["tasks"], Leaf)
    has_files = has_atomic_files(data_path / folder) or not is_null(merged["preprocessor"])
    where = merged["dataset"].where
    own = data_path / name / f"{name}.yaml"
    if has_files and not described:
        message = (
            f"{data_path / folder} has atomic files, but nothing says what they mean: "
            f"write {own} with fields: and tasks:, or give both in config_files"
        )
        if shipped("dataset", name) is not None:
            message += f". To train on the shipped data set {name!r}, move them out of {data_path / name}"
        faults.append(Fault("dataset", message, where))
    elif not has_files:
        synthetic = _synthetic_command(name, data_path)
        if synthetic is not None:
            message = f"{data_path / name} holds synthetic raw files; make atomic files of them first: `{synthetic}`"
        else:
            message = (
                f"unknown data set {name!r}; {_nearest(name, data_path)} "
                f"There is no {own}. To make it: `{PROGRAM} preprocess table --input=FILE --spec=SPEC "
                f"--name={name}`, or put atomic files and that YAML (fields:, tasks:) in {data_path / name}"
            )
        faults.append(Fault("dataset", message, where))


def _nearest(name: str, data_path: Path) -> str:
    """A sentence that names the nearest data sets, never all."""
    hint = nearest(name, known_datasets(data_path))
    return hint if hint.startswith("did you mean") else "`list datasets` shows all."


def _synthetic_command(name: str, data_path: Path) -> str | None:
    """The command that makes a data set of the synthetic raw files in its folder; None where there are none."""
    raw = data_path / name / "raw"
    try:
        planted = json.loads((raw / "planted.json").read_text(encoding="utf-8"))
        like, options = planted["like"], planted["options"]
        told = [(key, options[key]) for key in ("version", "countries") if key in options]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    values = {key: value if isinstance(value, str) else ",".join(value) for key, value in told}
    words = [f"--raw={raw}", f"--name={name}", *(f"--{key}={value}" for key, value in values.items())]
    words += [] if data_path == Path("dataset") else [f"--data_path={data_path}"]
    return " ".join([f"{PROGRAM} preprocess {like}", *words])


def _text(merged: Branch, key: str) -> str | None:
    tree = merged.get(key)
    return str(tree.value) if isinstance(tree, Leaf) and not is_null(tree) else None
