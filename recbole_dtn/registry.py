"""One registry per kind of method: built-ins by the generated index, installed entry points, ``--plugins`` files.

Nothing is imported until :meth:`Registry.load` asks for the class, so that listing names and refusing a wrong one
cost neither torch nor recbole.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Any, Protocol, TypeVar

from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.report.faults import PLUGIN_MODULE
from recbole_dtn.shipped import builtin_index

__all__ = [
    "BALANCERS",
    "INTERACTIONS",
    "LOSSES",
    "METRICS",
    "MODELS",
    "PREPROCESSORS",
    "REGISTRIES",
    "Entry",
    "Registry",
    "load_plugins",
    "plugin_module",
    "resolve",
]

T = TypeVar("T")
BUILT_IN = "built-in"
NAME = re.compile(r"[^\W\d_][\w.+-]*")
NO_NAMES = ("null", "none", "true", "false")
"""Words that YAML reads as other values."""


class NamedOptions(Protocol):
    """A method's name and its options; :class:`recbole_dtn.config.choice.Choice` is one."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Entry:
    """A registered method.

    Attributes:
        name: what users write. target: the class, or ``module:class``. summary: one line. paper: its source.
        options: JSON schemas of its options by name, from the index; None: they are read from the class.
        options_class: a torch-free class of typed options (or ``module:class``), for a method that declares one.
        attributes: class attributes of the kind's own (:attr:`Registry.attributes`), from the index.
        origin: ``built-in``, a package or a module.
    """

    name: str
    target: Any
    summary: str
    paper: str = ""
    options: Mapping[str, Any] | None = None
    options_class: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    origin: str = BUILT_IN


def resolve(target: Any) -> Any:
    """Import ``module:attribute``; anything that is not a string is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def spelled(target: Any) -> str:
    """``module:class`` of a class or of what already is such a string."""
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


class Registry:
    """Names of one kind of method.

    Args:
        kind: in messages, singular. group: the entry-point group that installed packages use.
        attributes: class attributes that settings and lists need before the class is imported; plain values.
    """

    def __init__(self, kind: str, group: str, attributes: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self.attribute_names = attributes
        self.declared: dict[str, Entry] = {}
        """What decorators registered in this process, by ``module:class``."""
        self._entries: dict[str, Entry] = {}
        self._scanned = False

    def start_empty(self) -> None:
        """Forget every method, and read neither the index nor entry points: the index is about to be written."""
        self._entries, self._scanned = {}, True

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        for name, values in builtin_index().get(self.kind, {}).items():
            self._entries.setdefault(name, Entry(name, **values))
        for point in entry_points(group=self.group):
            if point.name not in self._entries:
                origin = f"package {point.dist.name}" if point.dist else "installed package"
                self._entries[point.name] = Entry(point.name, point.value, f"from {origin}", origin=origin)

    def add(self, entry: Entry) -> None:
        """Register a method.

        Raises:
            UsageError: when the name is taken by another class; registering the same class again is harmless.
        """
        self._scan()
        known = self._entries.get(entry.name)
        if known is not None and spelled(known.target) != spelled(entry.target):
            raise UsageError(
                f"{self.kind} {entry.name!r} from {entry.origin} is already registered by {known.origin}: "
                "choose another name"
            )
        if known is None:
            self._entries[entry.name] = entry

    def register(self, name: str, *, paper: str = "", options: Any = None) -> Callable[[T], T]:
        """Class decorator: ``@REGISTRY.register("name", paper="Author et al., 2020")``.

        The first line of the docstring is the summary. Options are the keyword-only arguments of the constructor
        (of a model: the fields of its ``settings_class``), or the fields of ``options`` where that class is given.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in NO_NAMES:
            found = f"{name!r}" if isinstance(name, str) else "a class: write @REGISTRY.register(NAME) above it"
            raise UsageError(
                f"{self.kind}: expected a name of letters, digits, '-', '_', '+' and '.', first a letter; found {found}"
            )

        def decorate(target: T) -> T:
            text = (getattr(target, "__doc__", None) or "").strip() or name
            summary = text.splitlines()[0].removesuffix(".")
            module = str(target.__module__)
            file = getattr(sys.modules.get(module), "__file__", None) if module.startswith(PLUGIN_MODULE) else None
            entry = Entry(name, target, summary, paper, options_class=options, origin=file or module)
            self.add(entry)
            self.declared[spelled(target)] = entry
            return target

        return decorate

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted without regard to case."""
        self._scan()
        return tuple(sorted(self._entries, key=str.lower))

    def entry(self, name: str) -> Entry:
        """The entry of ``name``.

        Raises:
            UsageError: for an unknown name, with the nearest ones.
        """
        self._scan()
        if name not in self._entries:
            raise UsageError(f"unknown {self.kind} {name!r}: {nearest(name, self._entries)}")
        return self._entries[name]

    def load(self, name: str) -> Any:
        """Import and return the class behind ``name``.

        Raises:
            UsageError: for an unknown name, and for an installed package whose entry point cannot be imported.
        """
        entry = self.entry(name)
        try:
            return resolve(entry.target)
        except Exception as error:
            if entry.origin == BUILT_IN or not isinstance(entry.target, str):
                raise
            raise UsageError(
                f"{self.kind} {name!r} of {entry.origin}: its entry point {entry.target} in {self.group} cannot be "
                f"imported ({type(error).__name__}: {error}); repair or uninstall that package"
            ) from error

    def forget(self, module: str) -> None:
        """Remove what a module registered."""
        self._entries = {
            name: entry
            for name, entry in self._entries.items()
            if isinstance(entry.target, str) or entry.target.__module__ != module
        }

    def build(self, choice: NamedOptions, *arguments: Any) -> Any:
        """An object of the chosen method: its class called with ``arguments`` and the options by keyword."""
        return self.load(choice.name)(*arguments, **choice.options)

    def attributes(self, name: str) -> dict[str, Any]:
        """The kind's own class attributes of ``name``; a built-in's come from the index, without an import."""
        entry = self.entry(name)
        if entry.origin == BUILT_IN:
            return dict(entry.attributes)
        target = self.load(name)
        return {key: getattr(target, key) for key in self.attribute_names if hasattr(target, key)}


class _SourceLoader(SourceFileLoader):
    """Runs the bytes that were read, and no bytecode: __pycache__ could hold that of another file."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.source, self.path)
        return code


def plugin_module(path: Path) -> str:
    """The name in ``sys.modules`` of the plug-in file at an absolute path."""
    return f"{PLUGIN_MODULE}{path.stem}_{zlib.crc32(str(path).encode()):x}"


def load_plugins(paths: Iterable[str]) -> list[str]:
    """Import each plug-in file; its decorators register what it holds.

    The caller has made sure that the user wants these files to be run (:mod:`recbole_dtn.plugins`).

    Returns:
        The absolute paths of the files, in order.

    Raises:
        UsageError: for a file that is missing or fails to import; the message names the file, and for a syntax error
            its line, column and text.
    """
    loaded = []
    for text in paths:
        path = Path(text).expanduser().resolve()
        loaded.append(str(path))
        name = plugin_module(path)
        source = path.read_bytes() if path.is_file() else b""
        digest = hashlib.sha256(source).hexdigest() if path.is_file() else None
        if name in sys.modules:
            if getattr(sys.modules[name], "__sha256__", None) == digest:
                continue
            _unload(name)  # the file has changed since
        if not path.exists():
            raise UsageError(f"plugins: there is no file {text!r} (looked at {path})")
        if digest is None or path.suffix != ".py":
            raise UsageError(f"plugins: {text!r} is not a Python file (looked at {path})")
        loader = _SourceLoader(name, str(path), source)
        module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
        module.__file__ = str(path)
        module.__dict__["__sha256__"] = digest
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except UsageError:
            _unload(name)
            raise
        except SyntaxError as error:
            _unload(name)
            line = f": {error.text.strip()}" if error.text else ""
            place = f"{error.filename or path}, line {error.lineno}, column {error.offset}"
            raise UsageError(f"plugins: {place}: {error.msg}{line}") from error
        except (Exception, SystemExit) as error:
            _unload(name)
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
            place = f"{path}, line {lines[-1]}," if lines else f"{path}"
            raise UsageError(f"plugins: {place} failed to import: {type(error).__name__}: {error}") from error
    return loaded


def _unload(module: str) -> None:
    """Remove a plug-in's module and what it registered."""
    del sys.modules[module]
    for registry in REGISTRIES:
        registry.forget(module)


MODELS = Registry(
    "model", "recbole_dtn.models",
    ("presets", "task_kinds", "needs_domain", "needs_chain", "min_tasks", "max_tasks",
     "deterministic", "fits_directly", "has_gradients", "package", "min_batch_rows",
     "width_options"),
)  # fmt: skip
INTERACTIONS = Registry("interaction", "recbole_dtn.interactions")
LOSSES = Registry("loss", "recbole_dtn.losses", ("task_kind", "calibrated", "link"))
BALANCERS = Registry("balancer", "recbole_dtn.balancers", ("reads_weights",))
METRICS = Registry(
    "metric", "recbole_dtn.metrics",
    ("task_kind", "higher_is_better", "needs_calibrated", "needs_group", "needs_domain", "by_default"),
)  # fmt: skip
PREPROCESSORS = Registry("preprocessor", "recbole_dtn.preprocessors")
REGISTRIES = (MODELS, INTERACTIONS, LOSSES, BALANCERS, METRICS, PREPROCESSORS)
