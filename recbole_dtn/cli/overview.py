"""The help that teaches: how to begin, the commands, and every setting with its type, default and meaning."""

from __future__ import annotations

import textwrap
from typing import Any

from recbole_dtn.cli.app import COMMANDS
from recbole_dtn.config.layers import builtin_models
from recbole_dtn.config.load import settings_class
from recbole_dtn.config.options import options_class
from recbole_dtn.config.properties import KeyHelp, key_help, properties_folder, shipped
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.typed import declared, describe
from recbole_dtn.registry import INTERACTIONS, MODELS, load_plugins

__all__ = ["overview"]

WIDTH = 118

BEGIN = """\
recbole_dtn: multi-task CTR / CVR models for RecBole, trained under Lightning.

  run_recbole_dtn.py --model=DTN --dataset=ml-100k                     train and test; the data comes with RecBole
  run_recbole_dtn.py --model=PLE --epochs=3 --optimizer.lr=0.003       any setting: --key=value or --key value
  run_recbole_dtn.py --interactions='[gdcn, {name: masknet, blocks: 3}, gdcn]'      lists and maps as in YAML
  run_recbole_dtn.py --config_files="a.yaml b.yaml" --seed=7           files of settings; the command line wins
  run_recbole_dtn.py --model=PLE --dry_run                             settings with their sources, size, time
  run_recbole_dtn.py list models                                       what there is
  run_recbole_dtn.py preprocess table --input=x.parquet --spec=spec.yaml --name=mine      data of your own
  run_recbole_dtn.py leaderboard --models=DTN,MMoE,PLE --datasets=ml-100k --seeds=3       a comparison
  run_recbole_dtn.py --model=PLE --help                                also the settings of PLE
"""

SWITCHES = (
    ("--config_files", "YAML files of settings, apart by spaces or commas; later ones win"),
    ("--dry_run", "show the settings and what a run would cost, and stop"),
    ("--debug", "show the traceback of an error"),
    ("--version", "print the version"),
    ("--help, -h", "this; `<command> --help` for a command's own"),
)


def overview(words: list[str]) -> str:
    """The whole help; with ``--model=X`` among the words, X's own settings too.

    Raises:
        UsageError: for an unknown model, or a plug-in file that cannot be read.
    """
    model = _given(words, "model")
    load_plugins([path for path in (_given(words, "plugins") or "").strip("[]").split(",") if path.strip()])
    parts = [BEGIN, "commands (each has its own --help):"]
    parts += [f"  {name:<13}{summary}" for name, summary in COMMANDS.items()]
    parts += ["", "switches:", *(f"  {name:<17}{text}" for name, text in SWITCHES), ""]
    parts.append("settings (later wins: defaults < model < data set < config_files < command line):")
    parts += _settings(key_help(properties_folder() / "overall.yaml"), Settings)
    if model is not None:
        parts += _own_settings(model)
    else:
        parts += ["", f"models: {', '.join(MODELS.names())}; `--model=NAME --help` shows a model's own settings"]
    return "\n".join(parts)


def _given(words: list[str], key: str) -> str | None:
    for position, word in enumerate(words):
        name, equals, text = word.partition("=")
        if name == f"--{key}":
            return text if equals else next(iter(words[position + 1 : position + 2]), None)
    return None


def _own_settings(model: str) -> list[str]:
    entry, cls = MODELS.entry(model), settings_class(model)
    heading = f"\nsettings of {model} ({entry.summary}{'; ' + entry.paper if entry.paper else ''}):"
    file = shipped("model", model)
    if model in builtin_models() and file is not None:
        options = _interactions() if "interactions" in cls.model_fields else []
        return [heading, *_settings(key_help(file), cls), *options]
    own = [
        KeyHelp(name, str(info.get_default(call_default_factory=True)), info.description or "", "")
        for name, info in cls.model_fields.items()
        if name not in Settings.model_fields
    ]
    return [heading, *(_settings(own, cls) if own else ["  none of its own"])]


def _interactions() -> list[str]:
    """The options that an entry of ``interactions`` may have."""
    lines = []
    for name in INTERACTIONS.names():
        entry = INTERACTIONS.entry(name)
        lines += ["", f"options of {name} ({entry.summary}{'; ' + entry.paper if entry.paper else ''}):"]
        kinds = declared(options_class(name))
        file = shipped("interaction", name)
        keys = key_help(file) if file is not None else [KeyHelp(option, "", "", "") for option in kinds]
        for key in keys:
            default = f"{key.key}: {key.default}" if key.default else key.key
            lines += _aligned(f"  {default}", _meaning(describe(kinds[key.key]), key.comment))
    return lines


def _settings(keys: list[KeyHelp], model: type[Settings]) -> list[str]:
    lines: list[str] = []
    section = ""
    for key in keys:
        if key.section != section:
            section = key.section
            lines.append(f"\n  -- {section}")
        head = f"  --{key.key}={key.default}"
        lines += _aligned(head, _meaning(_type(key.key, model), key.comment))
    return lines


def _meaning(kind: str, comment: str) -> str:
    """Type and comment; the comment alone where it spells the choices out."""
    if not comment:
        return kind
    return comment if kind.startswith("one of") and " | " in comment else f"{kind}: {comment}"


def _aligned(head: str, body: str, column: int = 36) -> list[str]:
    """Head, then body from a fixed column on, folded; a long head has its line for itself."""
    folded = textwrap.wrap(body, WIDTH - column)
    if len(head) >= column:
        return [head, *(" " * column + line for line in folded)]
    return [head.ljust(column) + folded[0], *(" " * column + line for line in folded[1:])]


def _type(key: str, model: type[Settings]) -> str:
    kinds = declared(model)
    first, _, inner = key.partition(".")
    if inner:
        nested: Any = model.model_fields[first].annotation
        return describe(declared(nested)[inner])
    return describe(kinds[first])
