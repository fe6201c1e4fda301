"""YAML and command-line text as a tree that keeps every scalar as it was written, and where.

A value gets its type only when the declared type is known (:mod:`recbole_dtn.config.typed`), so that ``007`` stays
text for a text setting and ``1e-3`` becomes a number for a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from recbole_dtn.errors import UsageError

__all__ = ["Branch", "Items", "Leaf", "Tree", "found", "from_python", "is_null", "parse_text", "plain", "show"]

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
        loose: from the command line, where ``a,b`` may stand for a list.
        bare: a word of the command line without a value, true for a setting that is true or false.
    """

    value: Any
    where: str
    quoted: bool = False
    loose: bool = False
    bare: bool = False


class Branch(dict[str, "Leaf | Branch | Items"]):
    """A map, and where it stands."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where


class Items(list["Leaf | Branch | Items"]):
    """A list, and where it stands."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where


Tree = Leaf | Branch | Items


def is_null(tree: Tree) -> bool:
    """Whether the value is nothing: Python's None, or null, ~ or no text at all without quotes."""
    if not isinstance(tree, Leaf):
        return False
    return tree.value is None or (isinstance(tree.value, str) and not tree.quoted and tree.value in _NULLS)


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
    if _INTEGER.fullmatch(text):
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
    """A tree of values that a Python caller passed."""
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
    return Leaf(value, where, quoted=isinstance(value, str))


def parse_text(text: str, name: str, *, lines: bool = True, loose: bool = False) -> Tree:
    """Parse one YAML document.

    Args:
        text: the document. name: what messages call it.
        lines: whether ``where`` gives the line. loose: mark the scalars as the command line's.

    Raises:
        UsageError: for a syntax error, a duplicate key, a key that is not text or a tag, with the line.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return _Reader(loader, name, lines, loose).read(node) if node is not None else Leaf(None, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


class _Reader:
    """Turns composed YAML nodes into a tree; nothing is ever constructed from a tag."""

    def __init__(self, loader: yaml.SafeLoader, name: str, lines: bool, loose: bool) -> None:
        self.loader = loader
        self.name = name
        self.lines = lines
        self.loose = loose
        self.open: list[yaml.Node] = []

    def read(self, node: yaml.Node, line: int | None = None) -> Tree:
        line = node.start_mark.line + 1 if line is None else line
        where = f"{self.name}:{line}" if self.lines else self.name
        if node.tag not in _STANDARD_TAGS:
            raise UsageError(f"{self.name}, line {line}: the tag {node.tag!r} is not allowed; write a plain value")
        if any(node is parent for parent in self.open):
            raise UsageError(f"{self.name}, line {line}: the alias refers to the value that holds it")
        if isinstance(node, yaml.ScalarNode):
            implicit = self.loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
            return Leaf(node.value, where, quoted=node.style is not None or node.tag != implicit, loose=self.loose)
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
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(f"{self.name}, line {line}: a key must be text")
            if key.tag != _MERGE_TAG and key.value in first:
                raise UsageError(
                    f"{self.name}, line {line}: the key {key.value!r} is already given in line {first[key.value]}"
                )
            first[key.value] = line
        self.loader.flatten_mapping(node)
        branch = Branch(where)
        for key, value in node.value:
            branch[key.value] = self.read(value, key.start_mark.line + 1)
        return branch
