"""The shipped YAML files: where they are, how any YAML file is read, and the comments that are its help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from recbole_dtn.config.faults import read_model
from recbole_dtn.config.tree import Branch, Leaf, copied, from_python, parse_text, plain
from recbole_dtn.errors import UsageError, why
from recbole_dtn.shipped import properties_folder

__all__ = [
    "KeyHelp", "flow_yaml", "key_help", "option_help", "properties_folder", "read_tree", "read_typed", "read_yaml",
    "shipped", "shipped_names",
]  # fmt: skip

M = TypeVar("M", bound=BaseModel)

# overall.yaml is read whenever settings are resolved, and parsing took most of that time. By content: a changed file is
# parsed anew.
_parsed = lru_cache(maxsize=32)(parse_text)


def shipped(kind: str, name: str) -> Path | None:
    """The shipped file ``properties/<kind>/<name>.yaml``, or None; a name with a slash is never a shipped one."""
    file = properties_folder() / kind / f"{name}.yaml"
    return file if re.fullmatch(r"[\w.-]+", name) and file.is_file() else None


def shipped_names(kind: str) -> tuple[str, ...]:
    """Names of the shipped files of one kind (``model``, ``interaction``, ``dataset``), sorted."""
    return tuple(sorted(file.stem for file in (properties_folder() / kind).glob("*.yaml")))


def read_tree(path: Path, *, name: str | None = None, lines: bool = True) -> Branch:
    """Read a YAML file whose top level is a map, every scalar as written.

    Args:
        path: the file. name: what messages call it (default: the path). lines: whether values know their line.

    Raises:
        UsageError: for a file that is missing, is not UTF-8, or is not such YAML; with file and line.
    """
    name = name or str(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file (looked at {path.resolve()})") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UsageError(f"{name}, line {line}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{name}: cannot be read {why(error)}") from error
    tree = copied(_parsed(text, name, lines=lines))
    if isinstance(tree, Leaf) and tree.value is None:
        return Branch(name)
    if not isinstance(tree, Branch):
        raise UsageError(f"{name}: expected a map of `key: value` lines, found {type(plain(tree)).__name__}")
    return tree


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a map, as plain values.

    ``1e-3`` is a number; ``007``, dates, yes and no stay text. Where types are declared, prefer
    :func:`read_typed`.

    Raises:
        UsageError: for a file that is missing or wrong, a duplicate key included; with file and line.
    """
    values: dict[str, Any] = plain(read_tree(path))
    return values


def read_typed(path: Path, model: type[M], *, defaults: Mapping[str, Any] | None = None) -> M:
    """Read a YAML file as a typed model.

    Args:
        path: the file. model: the class. defaults: values of keys that the file leaves out.

    Raises:
        UsageError: one message with every fault, each with key, file and line.
    """
    written = read_tree(path)
    tree = Branch(written.where)
    tree.update({key: from_python(value, "default") for key, value in (defaults or {}).items()})
    tree.update(written)
    return read_model(model, tree, of=f"values in {path}")


@dataclass(frozen=True)
class KeyHelp:
    """One key of a shipped YAML file as its help shows it."""

    key: str
    default: str
    comment: str
    section: str


def option_help(model: type[BaseModel], names: Iterable[str]) -> list[KeyHelp]:
    """The fields of a class as help shows them: default as YAML, and description.

    >>> from recbole_dtn.config.choice import options_class
    >>> from recbole_dtn.registry import INTERACTIONS
    >>> option_help(options_class(INTERACTIONS, "gdcn"), ["layers"])
    [KeyHelp(key='layers', default='2', comment='gated cross layers', section='')]
    """
    fields = model.model_fields
    return [KeyHelp(name, _default(fields[name]), fields[name].description or "", "") for name in names]


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True)
    return "" if default is PydanticUndefined else flow_yaml(default)


def flow_yaml(value: Any) -> str:
    """A value on one line of YAML.

    >>> flow_yaml({"name": "gdcn", "hidden": [64]}), flow_yaml(None)
    ('{name: gdcn, hidden: [64]}', 'null')
    """
    text: str = yaml.safe_dump(
        to_jsonable_python(value), default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


_SECTION = re.compile(r"# -- (.+)")
_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?: +(?P<default>.*?))?(?:\s+# (?P<comment>.*))?")


def key_help(path: Path) -> list[KeyHelp]:
    """Keys of a shipped file in their order, dotted, with default and comment; a map's own line is left out."""
    found: list[KeyHelp] = []
    section, parent = "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if heading := _SECTION.fullmatch(line):
            section = heading[1]
        if not (match := _KEY.fullmatch(line)):
            continue
        if not match["indent"]:
            parent = match["key"]
        key = match["key"] if not match["indent"] else f"{parent}.{match['key']}"
        if match["default"]:
            found.append(KeyHelp(key, match["default"], match["comment"] or "", section))
    return found
