"""The help of training: how to begin on two screens, and each section of the settings by its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recbole_dtn.cli.app import COMMANDS
from recbole_dtn.cli.help_text import PROGRAM, aligned, wrapped
from recbole_dtn.config.choice import options_class
from recbole_dtn.config.faults import declared, describe
from recbole_dtn.config.load import settings_class
from recbole_dtn.config.properties import KeyHelp, key_help, option_help, properties_folder
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import MODELS, PREPROCESSORS, REGISTRIES, Entry, Registry, load_plugins

__all__ = ["overview"]

PLAIN = ("text", "text, or null", "true or false", "a list of text", "a list of (a map)", "an integer or text")
"""Types that a help leaves out."""

EXAMPLES = (
    ("--model=DTN --dataset=ml-100k", "train and test"),
    ("--model=PLE --epochs=3", "any setting"),
    ('--config_files="a.yaml b.yaml"', "settings of files"),
    ("--model=PLE --dry_run", "settings, size, time"),
    ("--model=PLE --help", "the settings of PLE"),
    ("--help=optim", "one section of the settings"),
    ("list models", "what there is"),
    ("preprocess table --help", "data of your own"),
)

SWITCHES = (
    ("--config_files", "YAML files of settings, separated by spaces or commas; later files override earlier ones"),
    ("--dry_run", "print the settings, the number of parameters and the projected time, and exit"),
    (
        "--split_seeds=N",
        "a run on each of N random splits (split_seed 2020, 2021, ...); --split_seeds=1,5 names them; "
        "--folds=N: a run per fold",
    ),
    ("--trust", "run the plug-in files that config_files name, as if they were named in --plugins"),
    (
        "--resume=FOLDER",
        "go on with the run in FOLDER; --resume=auto: with the newest run of these settings that has not ended, or "
        "a new one",
    ),
    ("--debug", "show the traceback of an error"),
    ("--version", "print the version"),
    ("--help, -h", "this help; `<command> --help` shows the help of a command"),
    ("--help=NAME", "a section, a setting or a method: --help=optim, --help=epochs, --help=gdcn; --help=all"),
)

SYNTAX = (
    "A setting is --key=value or --key value; lists and maps are written as in YAML: "
    "--interactions='[gdcn, {name: masknet, blocks: 3}]'. "
    "Precedence: command line > config_files > data set > model > defaults."
)

OFTEN = (
    *("model", "dataset", "data_path", "output_dir", "embedding_size", "dropout", "balancer", "epochs"),
    *("train_batch_size", "stopping_step", "valid_metric", "seed", "optimizer.lr", "devices"),
)
"""Settings that the first help shows."""


def overview(words: list[str]) -> str:
    """The help on two screens; with ``--help=NAME`` among the words one section, setting or method; with ``--model=X``
    the model's own settings.

    Raises:
        UsageError: for an unknown name, with the nearest; or a plug-in file that cannot be read.
    """
    topic, model = _given(words, "help"), _given(words, "model")
    load_plugins([path for path in (_given(words, "plugins") or "").strip("[]").split(",") if path.strip()])
    if topic is not None:
        return "\n".join(_topic(topic))
    return "\n".join(_start() if model is None else _model(model))


def _given(words: list[str], key: str) -> str | None:
    for position, word in enumerate(words):
        name, equals, text = word.partition("=")
        if name == f"--{key}":
            return text if equals else next(iter(words[position + 1 : position + 2]), None)
    return None


def _shared() -> list[KeyHelp]:
    return key_help(properties_folder() / "overall.yaml")


# ---- the first help -------------------------------------------------------------------------------------------------


def _start() -> list[str]:
    keys = _shared()
    lines = ["recbole_dtn: multi-task CTR / CVR models for RecBole, trained under Lightning.", ""]
    for example, meaning in EXAMPLES:
        lines += aligned(f"  {PROGRAM} {example}", meaning, 60)
    lines += ["", "commands (each has its own --help):"]
    for name, summary in COMMANDS.items():
        lines += aligned(f"  {name}", summary, 15)
    lines += ["", "switches:"]
    for name, text in SWITCHES:
        lines += aligned(f"  {name}", text, 19)
    lines += ["", *wrapped(SYNTAX), "", "settings that are often given:"]
    lines += _settings([key for key in keys if key.key in OFTEN], Settings)
    lines += ["", *wrapped(f"all settings by section; `{PROGRAM} --help=SECTION` explains them:")]
    for section, names in _sections(keys).items():
        lines += aligned(f"  {section}", ", ".join(dict.fromkeys(name.partition(".")[0] for name in names)), 12)
    return [*lines, "", *wrapped(f"models, each with `{PROGRAM} --model=NAME --help`: {', '.join(MODELS.names())}")]


def _sections(keys: Iterable[KeyHelp]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(key.section, []).append(key.key)
    return found


# ---- one thing ------------------------------------------------------------------------------------------------------


def _topic(name: str) -> list[str]:
    """A section of the settings, a setting or a map of settings, a method, or everything."""
    keys = _shared()
    if name == "all":
        return _everything(keys)
    chosen = [key for key in keys if name in (key.section, key.key, key.key.partition(".")[0])]
    lines = [f"settings: {name}", *_settings(chosen, Settings)] if chosen else []
    for registry in REGISTRIES:
        if name in registry.names():
            lines += ["", *_method(registry, name)] if lines else _method(registry, name)
    if not lines:
        known = [*_sections(keys), *(key.key for key in keys), *(one for each in REGISTRIES for one in each.names())]
        raise UsageError(f"--help: no section, setting or method is called {name!r}; {nearest(name, [*known, 'all'])}")
    return lines


def _everything(keys: list[KeyHelp]) -> list[str]:
    lines = ["settings that every model has:"]
    for section in _sections(keys):
        lines += ["", f"  -- {section}", *_settings([key for key in keys if key.section == section], Settings)]
    for registry in REGISTRIES:
        for name in registry.names() if registry is not PREPROCESSORS else ():
            lines += ["", *_method(registry, name)]
    return lines


def _method(registry: Registry, name: str) -> list[str]:
    """The options of a method; of a model its settings, of a preprocessor where its files come from."""
    if registry is MODELS:
        return _model(name)
    if registry is PREPROCESSORS:
        from recbole_dtn.cli.raw_set import set_help

        return set_help(name).splitlines()
    model = options_class(registry, name)
    kinds = declared(model)
    lines = _heading(f"options of the {registry.kind} {name}", registry.entry(name))
    for key in option_help(model, list(kinds)):
        default = f"{key.key}: {key.default}" if key.default else key.key
        lines += aligned(f"  {default}", _meaning(describe(kinds[key.key]), key.comment))
    return lines if kinds else [*lines, "  none"]


def _model(name: str) -> list[str]:
    """A model's own settings, and shared ones that have another default in it."""
    cls = settings_class(name)
    own = {*cls.model_fields} - {*Settings.model_fields}
    changed = {key for key, info in cls.model_fields.items() if key not in own and not info.is_required()}
    keys = option_help(cls, [key for key in cls.model_fields if key in own | changed])
    lines = _heading(f"settings of {name}", MODELS.entry(name))
    lines += _settings(keys, cls) if keys else ["  none of its own"]
    if "interactions" in own:
        hint = f"The options of each interaction: `{PROGRAM} --help=gdcn`; `{PROGRAM} list interactions` names them."
        lines += ["", *wrapped(hint)]
    return [*lines, "", *wrapped(f"Settings shared by all models: `{PROGRAM} --help`.")]


def _heading(title: str, entry: Entry) -> list[str]:
    paper = f"; {entry.paper}" if entry.paper else ""
    return wrapped(f"{title} ({entry.summary}{paper}):")


# ---- lines ----------------------------------------------------------------------------------------------------------


def _settings(keys: list[KeyHelp], model: type[Settings]) -> list[str]:
    lines: list[str] = []
    for key in keys:
        lines += aligned(f"  --{key.key}={key.default}", _meaning(_type(key.key, model), key.comment))
    return lines


def _meaning(kind: str, comment: str) -> str:
    """Type and comment; only the comment if it lists the choices, or if the default shows the type."""
    if not comment:
        return kind
    spelled = kind.startswith("one of") and " | " in comment
    return comment if spelled or kind in PLAIN else f"{kind}: {comment}"


def _type(key: str, model: type[Settings]) -> str:
    kinds = declared(model)
    first, _, inner = key.partition(".")
    if inner:
        nested: Any = model.model_fields[first].annotation
        return describe(declared(nested)[inner])
    return describe(kinds[first])
