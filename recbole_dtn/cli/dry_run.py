"""``--dry_run``: the settings with the source of each, the model's size and the time that an epoch would take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_dtn.config.choice import Choice, options_class
from recbole_dtn.config.datasets import has_atomic_files
from recbole_dtn.config.load import Resolved, settings_digest
from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.registry import PREPROCESSORS, REGISTRIES
from recbole_dtn.report.console import say
from recbole_dtn.report.tables import show_table

__all__ = ["show"]

LONGEST = 60
"""Characters of a value beyond which it folds."""


def show(resolved: Resolved, console: Console) -> None:
    """Print everything that is known before training."""
    show_table(console, ("setting", "value", "source"), setting_rows(resolved), longest=LONGEST)
    say(console, f"\nsettings digest: {settings_digest(resolved.settings)}")
    if resolved.settings.selected_on_test:
        say(console, f"warning: {SELECTED_ON_TEST}")
    missing = what_is_missing(resolved.settings)
    if missing is not None:
        say(console, missing)
        return
    from recbole_dtn.training.project import project

    say(console, str(project(resolved.settings)))


def setting_rows(resolved: Resolved) -> list[tuple[str, str, str]]:
    """A row per setting: dotted key, value as one would write it, source."""
    rows = []
    settings, sources = resolved.settings, resolved.sources
    for key, value in settings.dump().items():
        source = sources.get(key, "")
        if key in ("fields", "tasks"):
            entries = [entry.model_dump(exclude_defaults=True) for entry in getattr(settings, key)]
            rows += [(f"{key}[{i}]", flow_yaml(entry), source) for i, entry in enumerate(entries)]
            continue
        written = _short(getattr(settings, key), value)
        parts = {f"{key}.{inner}": item for inner, item in written.items()} if isinstance(written, dict) else {}
        for name, item in (parts or {key: written}).items():
            rows.append((name, flow_yaml(item), sources.get(name, source)))
    return rows


def _short(value: Any, dumped: Any) -> Any:
    """A setting without the options of its methods that have their defaults; ``dumped`` for one that names none."""
    if isinstance(value, Choice):
        differing = _differing(value)
        return {"name": value.name, **differing} if differing else value.name
    if isinstance(value, list) and value and all(isinstance(item, Choice) for item in value):
        return [_short(item, None) for item in value]
    return dumped


def _differing(choice: Choice) -> dict[str, Any]:
    for registry in REGISTRIES:
        if choice.name in registry.names():
            fields = options_class(registry, choice.name).model_fields
            if fields.keys() == choice.options.keys():
                return {key: item for key, item in choice.options.items() if item != fields[key].default}
    return dict(choice.options)


def what_is_missing(settings: Settings) -> str | None:
    """How a run would first make the atomic files; None where they exist."""
    folder = Path(settings.data_path) / (settings.folder or settings.dataset)
    if has_atomic_files(folder):
        return None
    if settings.preprocessor is not None and PREPROCESSORS.entry(settings.preprocessor).options_class is not None:
        from recbole_dtn.preprocess.from_settings import raw_set

        return f"a run would first do this: {raw_set(settings, folder.name).announce()}"
    return (
        f"there are no atomic files in {folder} yet: a run would first make them by `preprocess "
        f"{settings.preprocessor}`, then encode them; parameters and time are known after that"
    )
