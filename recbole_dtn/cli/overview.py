"""The help that teaches: how to begin, the commands, and every setting with its type, default and meaning."""

from __future__ import annotations

import textwrap
from typing import Any

from recbole_dtn.cli.app import COMMANDS
from recbole_dtn.cli.help_text import PROGRAM, help_width
from recbole_dtn.config.choice import options_class
from recbole_dtn.config.faults import declared, describe
from recbole_dtn.config.load import settings_class
from recbole_dtn.config.properties import KeyHelp, key_help, option_help, properties_folder
from recbole_dtn.config.settings import Settings
from recbole_dtn.registry import INTERACTIONS, MODELS, Entry, load_plugins

__all__ = ["overview"]

PLAIN = ("text", "text, or null", "true or false", "a list of text", "a list of (a map)", "an integer or text")
"""Types that a help leaves out."""

EXAMPLES = (
    ("--model=DTN --dataset=ml-100k", "train and test"),
    ("--model=PLE --epochs=3", "any setting"),
    ('--config_files="a.yaml b.yaml"', "settings of files"),
    ("--model=PLE --dry_run", "settings, size, time"),
    ("--model=PLE --help", "the settings of PLE"),
    ("list models", "what there is"),
    ("preprocess table --help", "data of your own"),
)

SWITCHES = (
    ("--config_files", "YAML files of settings, apart by spaces or commas; later ones win"),
    ("--dry_run", "show the settings and what a run would cost, and stop"),
    ("--debug", "show the traceback of an error"),
    ("--version", "print the version"),
    ("--help, -h", "this; `<command> --help` for a command's own"),
)

SYNTAX = (
    "A setting is --key=value or --key value; lists and maps are written as in YAML: "
    "--interactions='[gdcn, {name: masknet, blocks: 3}]'. "
    "Later wins: defaults < model < data set < config_files < command line."
)


def overview(words: list[str]) -> str:
    """The whole help; with ``--model=X`` among the words, X's own settings and then those that all models share.

    Raises:
        UsageError: for an unknown model, or a plug-in file that cannot be read.
    """
    model = _given(words, "model")
    load_plugins([path for path in (_given(words, "plugins") or "").strip("[]").split(",") if path.strip()])
    width = help_width()
    shared = _settings(key_help(properties_folder() / "overall.yaml"), Settings, width)
    if model is not None:
        parts = [*_own_settings(model, width), "", f"settings that every model has; `{PROGRAM} --help` has the rest:"]
        return "\n".join([*parts, *shared])
    parts = ["recbole_dtn: multi-task CTR / CVR models for RecBole, trained under Lightning.", ""]
    for example, meaning in EXAMPLES:
        parts += _aligned(f"  {PROGRAM} {example}", meaning, width, 60)
    parts += ["", "commands (each has its own --help):"]
    for name, summary in COMMANDS.items():
        parts += _aligned(f"  {name}", summary, width, 15)
    parts += ["", "switches:"]
    for name, text in SWITCHES:
        parts += _aligned(f"  {name}", text, width, 19)
    parts += ["", *textwrap.wrap(SYNTAX, width, break_on_hyphens=False)]
    own = f"models: {', '.join(MODELS.names())}; `{PROGRAM} --model=NAME --help` shows a model's own settings"
    return "\n".join([*parts, *shared, "", *textwrap.wrap(own, width, break_on_hyphens=False)])


def _given(words: list[str], key: str) -> str | None:
    for position, word in enumerate(words):
        name, equals, text = word.partition("=")
        if name == f"--{key}":
            return text if equals else next(iter(words[position + 1 : position + 2]), None)
    return None


def _own_settings(model: str, width: int) -> list[str]:
    entry, cls = MODELS.entry(model), settings_class(model)
    heading = _heading(f"settings of {model}", entry, width)
    own = {*cls.model_fields} - {*Settings.model_fields}
    changed = {key for key, info in cls.model_fields.items() if key not in own and not info.is_required()}
    keys = option_help(cls, [key for key in cls.model_fields if key in own | changed])
    options = _interactions(width) if "interactions" in own else []
    return [*heading, *(_settings(keys, cls, width) if keys else ["  none of its own"]), *options]


def _heading(title: str, entry: Entry, width: int) -> list[str]:
    paper = f"; {entry.paper}" if entry.paper else ""
    return textwrap.wrap(f"{title} ({entry.summary}{paper}):", width, break_on_hyphens=False)


def _interactions(width: int) -> list[str]:
    """The options that an entry of ``interactions`` may have."""
    lines = []
    for name in INTERACTIONS.names():
        entry = INTERACTIONS.entry(name)
        lines += ["", *_heading(f"options of {name}", entry, width)]
        model = options_class(INTERACTIONS, name)
        kinds = declared(model)
        for key in option_help(model, list(kinds)):
            default = f"{key.key}: {key.default}" if key.default else key.key
            lines += _aligned(f"  {default}", _meaning(describe(kinds[key.key]), key.comment), width)
    return lines


def _settings(keys: list[KeyHelp], model: type[Settings], width: int) -> list[str]:
    lines: list[str] = []
    section = ""
    for key in keys:
        if key.section != section:
            section = key.section
            lines.append(f"\n  -- {section}")
        head = f"  --{key.key}={key.default}"
        lines += _aligned(head, _meaning(_type(key.key, model), key.comment), width)
    return lines


def _meaning(kind: str, comment: str) -> str:
    """Type and comment; the comment alone where it spells the choices out, or where the default tells the type."""
    if not comment:
        return kind
    spelled = kind.startswith("one of") and " | " in comment
    return comment if spelled or kind in PLAIN else f"{kind}: {comment}"


def _aligned(head: str, body: str, width: int, column: int = 34) -> list[str]:
    """Head, then body from a fixed column on, folded; a long head has its line for itself."""
    folded = textwrap.wrap(body, width - column, break_on_hyphens=False)
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
