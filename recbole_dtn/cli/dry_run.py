"""``--dry_run``: the settings with the source of each, the model's size and the time that an epoch would take."""

from __future__ import annotations

from pathlib import Path

import yaml
from rich.console import Console

from recbole_dtn.config.datasets import has_atomic_files
from recbole_dtn.config.load import Resolved, settings_digest
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.registry import PREPROCESSORS
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
    for key, value in resolved.settings.dump().items():
        parts = {f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}
        for name, item in parts.items():
            if name in ("fields", "tasks"):
                source = resolved.sources.get(name, "")
                rows += [(f"{name}[{i}]", _flow(part), source) for i, part in enumerate(_as_written(resolved, name))]
            else:
                rows.append((name, _flow(item), resolved.sources.get(name, resolved.sources.get(key, ""))))
    return rows


def _as_written(resolved: Resolved, name: str) -> list[dict[str, object]]:
    """Each field or task without the keys that have their default."""
    return [part.model_dump(exclude_defaults=True) for part in getattr(resolved.settings, name)]


def _flow(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def what_is_missing(settings: Settings) -> str | None:
    """What a run would do first, where the atomic files are not there yet; None where they are."""
    folder = Path(settings.data_path) / (settings.folder or settings.dataset)
    if has_atomic_files(folder):
        return None
    if settings.preprocessor is not None and PREPROCESSORS.entry(settings.preprocessor).options_class is not None:
        from recbole_dtn.preprocess.from_settings import raw_set

        return f"a run would first do this: {raw_set(settings, folder.name).announce()}"
    return (
        f"there are no atomic files in {folder} yet: a run would first make them by `preprocess "
        f"{settings.preprocessor}`, then encode them; parameters and time can be told after that"
    )
