"""YAML and command-line text as a tree that keeps every scalar as it was written, and where.

A value gets its type only when the declared type is known (:mod:`recbole_dtn.config.faults`), so that ``007`` stays
text for a text setting and ``1e-3`` becomes a number for a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NoReturn

import yaml

from recbole_dtn.errors import UsageError

__all__ = [
    "CHOICES", "Branch", "Items", "Leaf", "Tree", "as_choice", "copied", "found", "from_python", "is_null", "merge",
    "names_method", "parse_text", "places", "plain", "show", "values",
]  # fmt: skip

CHOICES = ("balancer", "shared_interaction")
"""Settings that name one method: ``balancer: gradnorm`` is ``balancer: {name: gradnorm}``."""
NAMED = ("tasks", "fields")
"""Lists of maps with a ``name``, whose entries a map of names changes: ``tasks: {click: {pos_weight: 200}}``."""
ENTRY_CHOICES = ("loss",)
"""Keys of an entry of :data:`NAMED` that name one method: ``loss: focal`` is ``loss: {name: focal}``."""

DEEPEST = 40
"""Levels of maps and lists in a document; the settings need six."""
MOST_VALUES = 100_000
"""Values of a document with its aliases written out; the largest shipped file has 600."""
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_STANDARD_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "value")
)
_MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Leaf:
    """One scalar.

    Attributes:
        value: the text as written, or a Python value that a caller passed.
        where: file and line, or ``command line``.
        quoted: whether the text was in quotes (``"null"`` is text, ``null`` is nothing).
        bare: a word of the command line without a value, true for a setting that is true or false.
    """

    value: Any
    where: str
    quoted: bool = False
    bare: bool = False


class Branch(dict[str, "Leaf | Branch | Items"]):
    """A map, and its file and line."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where


class Items(list["Leaf | Branch | Items"]):
    """A list, and its file and line. ``unknown``: names in an overriding map (:data:`NAMED`) that match no entry."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.unknown: dict[str, str] = {}


Tree = Leaf | Branch | Items


def is_null(tree: Tree) -> bool:
    """Whether the value is nothing: Python's None, or null, ~ or no text at all without quotes."""
    if not isinstance(tree, Leaf):
        return False
    return tree.value is None or (isinstance(tree.value, str) and not tree.quoted and tree.value in _NULLS)


def values(tree: Tree) -> Any:
    """What pydantic reads: maps, lists and text as written, None for nothing, and Python values of a caller.

    >>> values(parse_text("{a: 1e-3, b: 007, c: [true, 'null'], d: ~}", "doc"))
    {'a': '1e-3', 'b': '007', 'c': ['true', 'null'], 'd': None}
    """
    if isinstance(tree, Branch):
        return {key: values(value) for key, value in tree.items()}
    if isinstance(tree, Items):
        return [values(value) for value in tree]
    return None if is_null(tree) else tree.value


def plain(tree: Tree) -> Any:
    """Python values where no type is declared: null, true/false, numbers, else text (``007`` and dates are text).

    >>> plain(parse_text("{a: 1e-3, b: 007, c: [true, '1'], d: ~}", "doc"))
    {'a': 0.001, 'b': '007', 'c': [True, '1'], 'd': None}
    """
    if isinstance(tree, Branch):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, Items):
        return [plain(value) for value in tree]
    if is_null(tree):
        return None
    text = tree.value
    if not isinstance(text, str) or tree.quoted:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if len(text) < 400 and _INTEGER.fullmatch(text):  # Python refuses numbers of thousands of digits
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def show(tree: Tree) -> str:
    """The value as a message quotes it, cut to 60 characters."""
    if is_null(tree):
        return "null"
    value = plain(tree)
    if isinstance(tree, Leaf) and isinstance(tree.value, str):
        value = tree.value
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def found(tree: Tree) -> str:
    """The end of a message that has said what was expected.

    >>> found(Leaf("ten", "")), found(Leaf("", "")), found(Leaf(True, "", bare=True))
    ("found 'ten'", 'found nothing', 'the value is missing')
    """
    if isinstance(tree, Leaf) and tree.bare:
        return "the value is missing"
    if isinstance(tree, Leaf) and tree.value == "" and not tree.quoted:
        return "found nothing"
    return f"found {show(tree)}"


def from_python(value: Any, where: str) -> Tree:
    """A tree of values that a Python caller passed; numpy's numbers and paths as Python's numbers and text."""
    if isinstance(value, Leaf | Branch | Items):
        return value
    if isinstance(value, Mapping):
        branch = Branch(where)
        for key, item in value.items():
            branch[str(key)] = from_python(item, where)
        return branch
    if isinstance(value, list | tuple):
        items = Items(where)
        items.extend(from_python(item, where) for item in value)
        return items
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, Integral) and not isinstance(value, bool):
        value = int(value)
    elif isinstance(value, Real) and not isinstance(value, Integral):
        value = float(value)
    return Leaf(value, where, quoted=isinstance(value, str))


def parse_text(text: str, name: str, *, lines: bool = True) -> Tree:
    """Parse one YAML document.

    Args:
        text: the document. name: what messages call it. lines: whether ``where`` gives the line.

    Raises:
        UsageError: for a syntax error, a control character, a duplicate key, a key that is not text, a tag, more than
            :data:`DEEPEST` levels or :data:`MOST_VALUES` values; with the line.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return _Reader(loader, name, lines).read(node) if node is not None else Leaf(None, name)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        number = text[: error.position].count("\n") + 1
        raise UsageError(
            f"{name}, line {number}: not valid YAML: the control character {chr(error.character)!r} is not allowed; "
            "remove it, or write it as an escape in double quotes"
        ) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which recurses for each level, with a bound on the levels."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} levels of maps and lists", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    """Turns composed YAML nodes into a tree; nothing is ever constructed from a tag."""

    def __init__(self, loader: yaml.SafeLoader, name: str, lines: bool) -> None:
        self.loader = loader
        self.name = name
        self.lines = lines
        self.open: list[yaml.Node] = []
        self.count = 0

    def fail(self, line: int, message: str) -> NoReturn:
        raise UsageError(f"{self.name}, line {line}: {message}")

    def read(self, node: yaml.Node, line: int | None = None) -> Tree:
        line = node.start_mark.line + 1 if line is None else line
        where = f"{self.name}:{line}" if self.lines else self.name
        self.count += 1
        if self.count > MOST_VALUES:  # a few aliases of aliases can expand to billions of values
            self.fail(line, f"more than {MOST_VALUES:,} values, those that aliases repeat included")
        if node.tag not in _STANDARD_TAGS:
            self.fail(line, f"the tag {node.tag!r} is not allowed; write a plain value")
        if any(node is parent for parent in self.open):
            self.fail(line, "the alias refers to the value that holds it")
        if isinstance(node, yaml.ScalarNode):
            implicit = self.loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
            return Leaf(node.value, where, quoted=node.style is not None or node.tag != implicit)
        self.open.append(node)
        tree = self._map(node, where) if isinstance(node, yaml.MappingNode) else self._list(node, where)
        self.open.pop()
        return tree

    def _list(self, node: yaml.Node, where: str) -> Items:
        items = Items(where)
        items.extend(self.read(item) for item in node.value)
        return items

    def _map(self, node: yaml.MappingNode, where: str) -> Branch:
        first: dict[str, int] = {}
        own, merged = Branch(where), Branch(where)
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.fail(line, "a key must be text")
            if key.tag == _MERGE_TAG:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    other = self.read(source)
                    if not isinstance(other, Branch):
                        self.fail(line, "<< expects a map, or a list of maps")
                    merged = _upon(other, merged)  # the first of several maps wins
                continue
            if key.value in first:
                self.fail(line, f"the key {key.value!r} is already given in line {first[key.value]}")
            first[key.value] = line
            own[key.value] = self.read(value, line)
        return _upon(merged, own)


def names_method(*path: str) -> bool:
    """Whether a dotted key, in parts, names one method: :data:`CHOICES`, or :data:`ENTRY_CHOICES` of an entry.

    >>> names_method("balancer"), names_method("tasks", "click", "loss"), names_method("balancer", "alpha")
    (True, True, False)
    """
    if len(path) == 3:
        return path[0] in NAMED and path[2] in ENTRY_CHOICES
    return len(path) == 1 and path[0] in CHOICES


def as_choice(tree: Tree) -> Tree:
    """The value of a setting that names one method (:func:`names_method`), a name as a map with that name."""
    if not isinstance(tree, Leaf) or is_null(tree):
        return tree
    branch = Branch(tree.where)
    branch["name"] = tree
    return branch


def merge(lower: Branch, upper: Branch, choices: tuple[str, ...] = CHOICES, named: tuple[str, ...] = NAMED) -> Branch:
    """Both layers as one: the upper wins, maps merge, lists replace; a map of names changes a list of named entries.

    Args:
        lower, upper: the layers. choices, named: keys as :data:`CHOICES` and :data:`NAMED`, which are those of a whole
            layer; a map inside of one has others.
    """
    merged = Branch(upper.where)
    merged.update(lower)
    for key, tree in upper.items():
        below = merged.get(key)
        if key in choices:
            below, tree = None if below is None else as_choice(below), as_choice(tree)
            if isinstance(below, Branch) and isinstance(tree, Branch) and _renamed(below, tree):
                below = None  # another method, with options of its own
        if isinstance(below, Branch) and isinstance(tree, Branch):
            merged[key] = merge(below, tree, (), ())
        elif key in named and isinstance(below, Items) and isinstance(tree, Branch):
            merged[key] = _changed(below, tree)
        else:
            merged[key] = tree
    return merged


def _renamed(below: Branch, tree: Branch) -> bool:
    name = tree.get("name")
    return isinstance(name, Leaf) and not (isinstance(old := below.get("name"), Leaf) and old.value == name.value)


def _changed(entries: Items, changes: Branch) -> Items:
    """The entries, each with what ``changes`` has under its name."""
    changed = Items(entries.where)
    changed.unknown = {name: change.where for name, change in changes.items()}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, Branch) else None
        change = changes.get(str(name.value)) if isinstance(name, Leaf) else None
        if isinstance(entry, Branch) and isinstance(change, Branch):
            changed.unknown.pop(str(name.value))  # type: ignore[union-attr]
            entry = merge(entry, change, ENTRY_CHOICES, ())
        changed.append(entry)
    return changed


def copied(tree: Tree) -> Tree:
    """The tree with maps and lists of its own; leaves never change and stay the same.

    >>> tree = parse_text("{a: {b: [1]}}", "doc")
    >>> copied(tree) == tree, copied(tree)["a"]["b"] is tree["a"]["b"]
    (True, False)
    """
    if isinstance(tree, Branch):
        branch = Branch(tree.where)
        branch.update({key: copied(value) for key, value in tree.items()})
        return branch
    if isinstance(tree, Items):
        items = Items(tree.where)
        items.extend(copied(value) for value in tree)
        items.unknown = dict(tree.unknown)
        return items
    return tree


def places(tree: Branch, prefix: str = "") -> dict[str, str]:
    """Where each value was written, by dotted key."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Branch) and value:
            found.update(places(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value.where
    return found


def _upon(lower: Branch, upper: Branch) -> Branch:
    """The keys of both; those of ``upper`` win."""
    joined = Branch(upper.where)
    joined.update(lower)
    joined.update(upper)
    return joined
