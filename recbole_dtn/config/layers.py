"""The layers that settings are made of: command line and files as nested maps under our names, and their merging."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_dtn.config.faults import Fault
from recbole_dtn.config.properties import properties_folder, read_tree
from recbole_dtn.config.recbole_names import ALIASES, REFUSED, SOURCES, translate
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tree import (
    Branch,
    Leaf,
    Tree,
    as_choice,
    from_python,
    merge,
    names_method,
    parse_text,
    plain,
    show,
)
from recbole_dtn.errors import UsageError
from recbole_dtn.shipped import builtin_index

__all__ = ["command_line", "command_line_tree", "config_file", "config_layers", "ours"]

COMMAND_LINE = "command line"
BOOLEAN_WORDS = frozenset({"true", "yes", "on", "false", "no", "off"})

DEEPEST = 50
"""Dots of a key; no setting has as many."""


def _boolean_keys() -> frozenset[str]:
    """Settings that are true or false, those of every built-in model included."""
    shared = {key for key, info in Settings.model_fields.items() if info.annotation is bool}
    own = {
        key
        for model in builtin_index()["model"].values()
        for key, schema in model["options"].items()
        if schema.get("type") == "boolean"
    }
    return frozenset(shared | own)


def command_line_tree(text: str) -> Tree:
    """A value on the command line: YAML flow syntax when it begins with [ or {, else one scalar."""
    if text[:1] in ("[", "{"):
        return parse_text(text, COMMAND_LINE, lines=False)
    return Leaf(text, COMMAND_LINE)


def command_line(overrides: Sequence[str] | Mapping[str, Any], faults: list[Fault]) -> Branch:
    """One layer of what a caller gave: ``--key=value``, ``--key value``, ``--flag``; or a mapping of Python values.

    If a key is given twice, the second value counts; ``config_files`` are concatenated.
    """
    if isinstance(overrides, Mapping):
        tree = from_python(overrides, "overrides")
        assert isinstance(tree, Branch)
        return tree
    layer = Branch(COMMAND_LINE)
    files: list[str] = []
    booleans = _boolean_keys() | {"trust"}
    words = list(overrides)
    while words:
        word = words.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not key or not (equals or word.startswith("--")):
            faults.append(Fault(repr(word), "unexpected word; settings are --key=value or --key value", COMMAND_LINE))
            continue
        if not equals:
            takes = bool(words) and not words[0].startswith("--")
            if key in booleans:
                takes = takes and words[0].lower() in BOOLEAN_WORDS
            text = words.pop(0) if takes else "true"
            if not takes and key not in booleans:
                if key == "config_files":
                    faults.append(Fault(key, "expected paths of YAML files; the value is missing", COMMAND_LINE))
                else:
                    layer[key] = Leaf(True, COMMAND_LINE, bare=True)
                continue
        if key == "config_files":
            files.append(text)
            continue
        try:
            layer[key] = command_line_tree(text)
        except UsageError as error:
            message = re.sub(r"^command line(, line \d+)?[,:] ", "", str(error))
            faults.append(Fault(key, f"{message}; found {text!r}", COMMAND_LINE))
    if files:
        layer["config_files"] = from_python(files, COMMAND_LINE)
    return layer


def config_layers(given: Tree | None, first: Sequence[str | Path], faults: list[Fault]) -> list[Branch]:
    """The layers of the configuration files, in order.

    Args:
        given: the value of ``config_files``: paths separated by spaces or commas, or a list of such.
        first: files that come before them.
    """
    texts = [str(path) for path in first]
    if given is not None:
        entries = list(given) if not isinstance(given, Leaf) else [given]
        for entry in entries:
            text = str(entry.value) if isinstance(entry, Leaf) else str(entry)
            whole = text in texts or Path(text).is_file()
            texts.extend([text] if whole else [part for part in re.split(r"[\s,]+", text) if part])
    layers = []
    for text in texts:
        try:
            layers.append(_from_recbole(read_tree(config_file(text), name=text), faults))
        except UsageError as error:
            faults.append(Fault("config_files", str(error), ""))
    return layers


def _from_recbole(layer: Branch, faults: list[Fault]) -> Branch:
    """A file's layer with RecBole's keys translated into ours; what has no counterpart is a fault."""
    settings, unknown = translate(plain(layer))
    faults.extend(Fault(key, f"is RecBole's setting; {line}", layer[key].where) for key, line in unknown)
    made = Branch(layer.where)
    for key, value in settings.items():
        written = next(layer[source] for source in (key, *SOURCES.get(key, ())) if source in layer)
        # What is unchanged stays as written: its text is parsed to the type that the setting declares.
        made[key] = written if plain(written) == value else from_python(value, written.where)
    return made


def config_file(text: str) -> Path:
    """The file itself, else a shipped one named as under properties/ (``model/DTN-released.yaml``)."""
    path = Path(text).expanduser()
    if not path.is_absolute() and not path.exists() and ".." not in path.parts:
        inside = properties_folder() / path
        if inside.is_file():
            return inside
    return path


def ours(layer: Branch, faults: list[Fault]) -> Branch:
    """The layer under our names: dotted keys nested, RecBole's two accepted names replaced, its others refused."""
    nested = Branch(layer.where)
    origin: dict[str, str] = {}
    for key, tree in _dotted(layer):
        if key in REFUSED:
            faults.append(Fault(key, f"is RecBole's setting; {REFUSED[key]}", tree.where))
            continue
        name = ALIASES.get(key, key)
        if name in ALIASES.values():
            earlier = _get(nested, name)
            if earlier is not None and origin[name] != key and not _same(earlier, tree):
                message = f"is given as {show(earlier)} and, as {key!r}, as {show(tree)}; give one of the two"
                faults.append(Fault(origin[name], message, tree.where))
            origin[name] = key
        if name.count(".") > DEEPEST:  # what reads the tree calls itself for each part
            message = f"unknown key: expected at most {DEEPEST} dots, found {name.count('.'):,}"
            faults.append(Fault(f"{name[:40]}...", message, tree.where))
        elif not _put(nested, name.split("."), tree):
            faults.append(Fault(name, "is given both as one value and by its parts; give one of the two", tree.where))
    return nested


def _dotted(layer: Branch, prefix: str = "") -> Iterator[tuple[str, Tree]]:
    """Pairs of dotted key and value; a map is expanded if aliases exist for parts of its key."""
    opened = {name.split(".")[0] for name in ALIASES.values()}
    for key, tree in layer.items():
        if isinstance(tree, Branch) and not prefix and key in opened and tree:
            yield from _dotted(tree, f"{key}.")
        else:
            yield f"{prefix}{key}", tree


def _same(one: Tree, other: Tree) -> bool:
    if not (isinstance(one, Leaf) and isinstance(other, Leaf)):
        return False
    try:
        return float(one.value) == float(other.value)
    except (TypeError, ValueError):
        return bool(one.value == other.value)


def _get(branch: Branch, name: str) -> Tree | None:
    tree: Tree | None = branch
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, Branch) else None
    return tree


def _put(branch: Branch, parts: list[str], tree: Tree) -> bool:
    """Set a nested value; False if a part of the path is not a map."""
    *way, last = parts
    for depth, part in enumerate(way):
        inner = branch.setdefault(part, Branch(tree.where))
        # --balancer=gradnorm --balancer.alpha=2, --tasks.click.loss=focal --tasks.click.loss.gamma=1
        if names_method(*way[: depth + 1]):
            inner = branch[part] = as_choice(inner)
        if not isinstance(inner, Branch):
            return False
        branch = inner
    present = branch.get(last)
    if names_method(*parts) and isinstance(present, Branch):
        tree = as_choice(tree)
    branch[last] = merge(present, tree, (), ()) if isinstance(present, Branch) and isinstance(tree, Branch) else tree
    return True
