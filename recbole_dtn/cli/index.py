"""``python run_recbole_dtn.py index``: write the index of built-in methods from their classes (for contributors)."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_dtn.cli.arguments import Command
from recbole_dtn.cli.docstrings import body_of
from recbole_dtn.cli.pages import pages
from recbole_dtn.config.choice import KINDS, keyword_options
from recbole_dtn.config.faults import declared, describe
from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.config.schema import field_of, schema_of
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import REGISTRIES, Entry, Registry, resolve, spelled
from recbole_dtn.report.console import make_console, say
from recbole_dtn.shipped import DETAILS, INDEX, builtin_index, properties_folder

__all__ = ["details_text", "index_files", "repository", "run"]

PACKAGES = ("interaction", "model", "loss", "balancer", "metric", "preprocess")
COMMAND = Command(
    "index",
    usage=["[--check]"],
    about=f"""
Imports every built-in method and writes what settings, lists and help need of it before torch is loaded:
properties/{INDEX}, and one YAML per method with its defaults; properties/{DETAILS} (equations and sizes); and the
generated parts of README.md and docs/. For contributors, in a clone: run it after a method's name, options, defaults or
docstring changed, and to resolve a conflict in any of these files.
""",
)
COMMAND.flag("check", "write nothing; exit 1 where a file differs")


def help_text(words: list[str]) -> str:
    """How to call it."""
    return COMMAND.help_text()


def run(words: list[str]) -> int:
    """Write the files that differ, and remove those of methods that are gone."""
    check = COMMAND.parse(words).check
    for registry in REGISTRIES:
        registry.start_empty()
    folder, files, console = properties_folder(), index_files(), make_console()
    for registry, entries in _registered().items():
        for entry in entries:
            registry.add(entry)  # also where its module had been imported before
    generated = {file for kind in {Path(name).parent for name in files} for file in (folder / kind).glob("*.yaml")}
    gone = sorted(
        file for file in generated - {folder / name for name in files} if f"\n{HEADER}" in file.read_text("utf-8")
    )
    stale = [name for name, text in files.items() if not _same(folder / name, text)]
    for name in [*stale, *(str(file.relative_to(folder)) for file in gone)]:
        say(console, f"{'differs' if check else 'written' if name in files else 'removed'}: properties/{name}")
    if not check:
        for name in stale:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(files[name], encoding="utf-8")
        for file in gone:
            file.unlink()
        # A model is built from settings, which read the index: it is complete by now.
        builtin_index.cache_clear()
    elif INDEX in stale:
        return 1  # equations and sizes are of the methods in the index
    pages = _write_details(folder, json.loads(files[INDEX]), console, check=check)
    return 1 if check and (stale or gone or pages) else 0


def _write_details(folder: Path, index: dict[str, Any], console: Console, *, check: bool) -> list[str]:
    """Write equations and sizes, and the generated parts of the pages; returns the names of files that differed."""
    text = details_text(index)
    root = repository(folder)
    texts = {f"properties/{DETAILS}": text, **({} if root is None else pages(root, index, json.loads(text)))}
    places = {name: folder / DETAILS if name.endswith(DETAILS) else folder.parent / name for name in texts}
    stale = [name for name in texts if not _same(places[name], texts[name])]
    for name in stale:
        say(console, f"{'differs' if check else 'written'}: {name}")
        if not check:
            places[name].write_text(texts[name], encoding="utf-8")
    return stale


def repository(folder: Path) -> Path | None:
    """The clone that ``properties/`` is in, with its README and docs/; None for an installed wheel."""
    root = folder.parent
    return root if (root / "docs").is_dir() and (root / "README.md").is_file() else None


def details_text(index: dict[str, Any]) -> str:
    """The file :data:`DETAILS`: text of the docstring and sizes of every method of the index."""
    from recbole_dtn.cli.sizes import measured

    found: dict[str, dict[str, Any]] = {}
    for registry in REGISTRIES:
        found[registry.kind] = {
            name: {"text": body_of(resolve(described["target"]).__doc__), "sizes": measured(registry, name)}
            for name, described in index[registry.kind].items()
        }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _same(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text


def index_files() -> dict[str, str]:
    """Every generated file by its name under ``properties/``.

    Raises:
        UsageError: for a method whose options the index cannot describe; it names the method and the option.
    """
    index: dict[str, dict[str, Any]] = {}
    files: dict[str, str] = {}
    for registry, entries in _registered().items():
        described = {entry.name: _described(registry, entry) for entry in entries}
        index[registry.kind] = described
        if registry.kind != "preprocessor":  # their values are those of the data sets' YAML files
            files |= {f"{registry.kind}/{name}.yaml": _yaml(values) for name, values in described.items()}
    files[INDEX] = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
    return files


def _registered() -> dict[Registry, list[Entry]]:
    """The entries that the built-in modules register, sorted by name; the index on disk is not asked."""
    fresh: dict[Registry, dict[str, Entry]] = {registry: {} for registry in REGISTRIES}
    for module in _modules():
        for value in vars(importlib.import_module(module)).values():
            for registry in REGISTRIES:
                entry = registry.declared.get(spelled(value)) if isinstance(value, type) else None
                if entry is not None and value.__module__ == module:
                    fresh[registry][entry.name] = entry
    return {registry: [found[name] for name in sorted(found, key=str.lower)] for registry, found in fresh.items()}


def _modules() -> Iterator[str]:
    for package in PACKAGES:
        root = importlib.import_module(f"recbole_dtn.{package}")
        for found in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            yield found.name


def _described(registry: Registry, entry: Entry) -> dict[str, Any]:
    """The index's entry of one method; options are checked to come back from their schema as they are."""
    target = entry.target
    described: dict[str, Any] = {"target": spelled(target), "summary": entry.summary, "paper": entry.paper}
    if entry.options_class is not None:
        described["options_class"] = spelled(entry.options_class)
    elif registry.kind != "preprocessor":
        described["options"] = _options(registry, target)
    attributes = {key: getattr(target, key) for key in registry.attribute_names if hasattr(target, key)}
    settings = getattr(target, "settings_class", None)
    if registry.kind == "model" and settings is not None:
        attributes |= {key: found for key in ("presets", "shared_defaults") if (found := getattr(settings, key))}
    if attributes:
        described["attributes"] = {key: _plain(value) for key, value in attributes.items()}
    return described


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else value


def _options(registry: Registry, target: Any) -> dict[str, Any]:
    if registry.kind == "model":
        model: Any = getattr(target, "settings_class", None) or Settings
        own = {name for cls in model.__mro__ if cls not in Settings.__mro__ for name in cls.__annotations__}
        names = sorted((name for name in model.model_fields if name in own), key=Settings.model_fields.__contains__)
    else:
        model = keyword_options(target)
        names = list(model.model_fields)
    kinds, schemas = declared(model), {}
    for name in names:
        info = model.model_fields[name]
        if not info.description:
            raise UsageError(f"{spelled(target)}: option {name!r} needs a description: Field(description=...)")
        try:
            schemas[name] = schema_of(info)
            again = describe(field_of(schemas[name], KINDS)[0])
        except Exception as error:
            told = f"option {name!r} has a type that the index cannot hold: {error}"
            raise UsageError(f"{spelled(target)}: {told}") from error
        if again != describe(kinds[name]):
            raise UsageError(f"{spelled(target)}: option {name!r} reads {describe(kinds[name])!r}, the index {again!r}")
    return schemas


HEADER = "# Generated by `index` from "


def _yaml(described: dict[str, Any]) -> str:
    """The method's defaults as YAML, each with its description as comment."""
    module = described["target"].partition(":")[0].replace(".", "/")
    paper = f" ({described['paper']})" if described["paper"] else ""
    lines = [f"# {described['summary']}{paper}.", f"{HEADER}{module}.py: change the defaults there."]
    for name, schema in described.get("options", {}).items():
        head = f"{name}: {flow_yaml(schema['default'])}" if "default" in schema else f"# {name}:"
        kind = describe(field_of(schema, KINDS)[0])
        words = f"{kind}: " if kind.startswith("one of") or "=" in kind or ">" in kind else ""
        lines.append(f"{head:<29} # {words}{schema['description']}")
    for name, values in described.get("attributes", {}).get("shared_defaults", {}).items():
        lines.append(f"{f'{name}: {flow_yaml(values)}':<29} # in place of the default of all models")
    return "\n".join(lines) + "\n"
