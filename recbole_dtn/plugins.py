"""Which plug-in files may be run, and whether those of a finished run are still what they were.

A plug-in is code. A file is run only if the user names it (``--plugins``, ``plugins=``) or trusts whatever a settings
file or a run's folder names (``--trust``, ``trust=True``). An installed package was trusted when it was installed.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recbole_dtn.errors import UsageError
from recbole_dtn.registry import REGISTRIES, Entry, Registry, load_plugins, plugin_module
from recbole_dtn.report.text import shown

__all__ = [
    "PluginChangedWarning",
    "PluginState",
    "changed_plugins",
    "check_named",
    "load_recorded",
    "plugin_states",
    "plugin_warnings",
]

PACKAGE = "package "
"""How the origin of an entry of an installed package begins."""


class PluginChangedWarning(UserWarning):
    """A plug-in has changed since the run that is loaded used it."""


@dataclass(frozen=True)
class PluginState:
    """One plug-in as it was when a run used it.

    Attributes:
        path: of the file. sha256: of its bytes; None in records that have no digests.
        package: name and version of the installed package that the file belongs to; None for a ``--plugins`` file.
        module: of that package.
    """

    path: str
    sha256: str | None
    package: str | None = None
    module: str | None = None


# ---- which files may be run -----------------------------------------------------------------------------------------


def _refusal(paths: Sequence[str], beside: Sequence[str]) -> str:
    """Why files that nobody named are not run, and what to write: the end of a sentence about what names them."""
    absolute = [str(_absolute(path)) for path in [*beside, *paths]]
    named, listed = ",".join(absolute), ", ".join(f'"{path}"' for path in absolute)
    files = "the plug-in file" if len(paths) == 1 else "the plug-in files"
    unnamed = ", ".join(absolute[len(beside) :])
    return (
        f"names {files} {unnamed}, and plug-ins are run only if you name them. If you trust this "
        f"code, add {shlex.quote(f'--plugins={named}')} (in Python plugins=[{listed}]); --trust (trust=True) allows "
        "every file that is named there"
    )


def check_named(paths: Iterable[str], source: str, *, beside: Sequence[str] = (), trust: bool = False) -> None:
    """Refuse plug-in files that only a settings file names.

    A file that this process has run already, and that has not changed since, is not refused.

    Args:
        paths: of the files. source: what names them, for the message. beside: files that the user named, which the
            line to add has too. trust: whether every file may be run.

    Raises:
        UsageError: naming the files, and what to add to the command line.
    """
    unknown = [] if trust else [path for path in paths if not _has_run(_absolute(path))]
    if unknown:
        raise UsageError(f"plugins: {source} {_refusal(unknown, beside)}")


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()


def _has_run(path: Path) -> bool:
    """Whether this process has run the file as it is now."""
    found = sys.modules.get(plugin_module(path))
    return found is not None and path.is_file() and getattr(found, "__sha256__", None) == _digest(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- what a run used ------------------------------------------------------------------------------------------------


def plugin_states(settings: Any) -> list[PluginState]:
    """The plug-in files and installed packages whose methods the settings use, as this process has them.

    The digest of a file is that of the code which was run, even if the file has changed since.
    """
    files = [_absolute(path) for path in settings.plugins]
    modules = [sys.modules.get(plugin_module(path)) for path in files]
    found = [
        PluginState(str(path), getattr(module, "__sha256__", None)) for path, module in zip(files, modules, strict=True)
    ]
    packages = {state.module: state for entry in _package_entries(settings) if (state := _installed_state(entry))}
    return [*found, *(packages[module] for module in sorted(packages, key=str))]


def changed_plugins(recorded: Sequence[PluginState], settings: Any) -> list[str]:
    """Paths of the recorded plug-ins that the settings use too, and that are not what they were."""
    now = {state.path: state.sha256 for state in plugin_states(settings)}
    return [
        state.path for state in recorded if state.sha256 is not None and now.get(state.path) not in (None, state.sha256)
    ]


def _package_entries(settings: Any) -> Iterator[Entry]:
    """Entries of installed packages that the settings name; all metrics where the settings leave them to us."""
    names = set(_names(settings))
    for registry in REGISTRIES:
        every = registry.kind == "metric" and getattr(settings, "metrics", None) is None
        for name in registry.names():
            entry = registry.entry(name)
            if entry.origin.startswith(PACKAGE) and (every or (registry.kind, name) in names or ("", name) in names):
                yield entry


def _names(settings: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of every method that the settings choose; no kind where a choice does not tell its kind."""
    yield "model", settings.model
    if getattr(settings, "preprocessor", None):
        yield "preprocessor", settings.preprocessor
    waiting = [getattr(settings, key) for key in type(settings).model_fields]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif hasattr(value, "name") and hasattr(value, "options"):
            yield "", value.name
            waiting.extend(value.options.values())
        elif hasattr(type(value), "model_fields"):
            waiting.extend(getattr(value, key) for key in type(value).model_fields)


def _installed_state(entry: Entry) -> PluginState | None:
    """The state of the module behind an entry of an installed package; None if it is not a file.

    The module is imported if it was not yet: an installed package is trusted.
    """
    registry = next(each for each in REGISTRIES if _has(each, entry))
    module = registry.load(entry.name).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    return PluginState(file, _digest(Path(file)), _package(entry), module)


def _has(registry: Registry, entry: Entry) -> bool:
    return entry.name in registry.names() and registry.entry(entry.name) is entry


def _package(entry: Entry) -> str:
    name = entry.origin.removeprefix(PACKAGE)
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name


# ---- a finished run -------------------------------------------------------------------------------------------------


def load_recorded(
    recorded: Sequence[PluginState], run: str | Path, *, named: Sequence[str] = (), trust: bool = False
) -> list[str]:
    """Load the plug-ins of a finished run; warns of each that has changed since.

    Args:
        recorded: what the run used. run: its folder or file, for messages.
        named: files that the user names: those of ``recorded``, or where they are now (found by their content, else by
            their name). trust: whether every recorded file may be run.

    Returns:
        The absolute paths of the files, those of the run first.

    Raises:
        UsageError: for a file that is not named, or is missing; for a package that is not installed.
    """
    files = [state for state in recorded if state.package is None]
    given = [_absolute(path) for path in named]
    placed = {state.path: _place(state, files, given) for state in files}
    missing = [state.path for state in files if not placed[state.path].is_file()]
    if missing:
        raise UsageError(
            f"{run} needs the plug-in file {missing[0]}, which is missing: put it back, or name it where it is now: "
            "--plugins=FILE"
        )
    unnamed = [path for path, place in placed.items() if place not in given]
    check_named(unnamed, str(run), beside=named, trust=trust)
    loaded = load_plugins(dict.fromkeys([*map(str, placed.values()), *map(str, given)]))
    for state in files:
        _compare(state, str(placed[state.path]), sys.modules[plugin_module(placed[state.path])].__sha256__, run)
    _check_packages([state for state in recorded if state.package is not None], run)
    return loaded


def _place(state: PluginState, files: Sequence[PluginState], given: Sequence[Path]) -> Path:
    """Where a recorded file is: where it was if that is named, else a named file of its content or name.

    Of one recorded file that is missing and one named file, the latter.
    """
    path = Path(state.path)
    others = [file for file in given if str(file) not in {other.path for other in files}]
    if path not in given:
        same = [file for file in others if file.is_file() and _digest(file) == state.sha256]
        same = same or [file for file in others if file.name == path.name]
        if not same and not path.is_file() and len(files) == len(others) == 1:
            same = others
        if same:
            return same[0]
    return path


def _compare(state: PluginState, path: str, digest: str | None, run: str | Path) -> None:
    if None not in (state.sha256, digest) and state.sha256 != digest:
        warnings.warn(
            f"the plug-in {path} has changed since {run} used it (SHA-256 {str(digest)[:12]}, recorded "
            f"{str(state.sha256)[:12]}): the numbers may differ",
            PluginChangedWarning,
            stacklevel=4,
        )


def _check_packages(states: Sequence[PluginState], run: str | Path) -> None:
    """Compare installed packages with those that the run used.

    Only modules that an entry point of an installed package names are imported, never one that a record names.
    """
    entries = [
        entry
        for registry in REGISTRIES if states
        for entry in map(registry.entry, registry.names())
        if entry.origin.startswith(PACKAGE)
    ]  # fmt: skip
    for state in states:
        now = [found for entry in entries if str(entry.target).partition(":")[0] == state.module
               or entry.origin.removeprefix(PACKAGE) == str(state.package).rpartition(" ")[0]
               if (found := _installed_state(entry)) is not None and found.module == state.module]  # fmt: skip
        if not now:
            raise UsageError(
                f"{run} needs the module {state.module} of the installed package {state.package}, which is missing: "
                "install that package"
            )
        _compare(state, f"{now[0].module} of {now[0].package}", now[0].sha256, run)


@contextmanager
def plugin_warnings() -> Iterator[None]:
    """Print every :class:`PluginChangedWarning` as a line on standard error, as commands do."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
            if issubclass(category, PluginChangedWarning):
                print(shown(f"warning: {message}"), file=sys.stderr)
            else:
                others(message, category, *place, **rest)

        warnings.showwarning = show
        warnings.simplefilter("always", PluginChangedWarning)
        yield
