"""``run_recbole_dtn.py preprocess <set>``: raw files to atomic files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from recbole_dtn.cli.arguments import Parsed, folder_name, parse, path_option
from recbole_dtn.cli.console import make_console, say
from recbole_dtn.config.options import keyword_options
from recbole_dtn.config.properties import read_yaml, shipped
from recbole_dtn.config.tree import Branch, Leaf
from recbole_dtn.config.typed import Fault, declared, report, typed
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import PREPROCESSORS, load_plugins

__all__ = ["help_text", "run"]

COMMON = ("raw", "name", "data_path", "plugins")

HELP = """\
run_recbole_dtn.py preprocess <set> [--raw=FOLDER] [--name=NAME] [--data_path=dataset]
run_recbole_dtn.py preprocess table --input=FILE --spec=SPEC --name=NAME [--data_path=dataset]

  <set>                  {sets}
  --raw=FOLDER           the raw files (default <data_path>/<set>/raw; those of ml-100k come with RecBole)
  --name=NAME            name of the data set that is written, <data_path>/NAME/
  --data_path=dataset    folder that holds one folder of atomic files per data set
  --input=FILE           table: a CSV, TSV or Parquet file
  --spec=SPEC            table: a YAML file that names its fields and tasks, as a data set's YAML does

{summaries}
"""


def help_text(words: list[str]) -> str:
    """How to call it, and what each preprocessor makes."""
    entries = [PREPROCESSORS.entry(name) for name in PREPROCESSORS.names()]
    width = max(len(entry.name) for entry in entries)
    lines = [f"  {entry.name:<{width}}  {entry.summary}" for entry in entries]
    return HELP.format(sets=", ".join(PREPROCESSORS.names()), summaries="\n".join(lines))


def run(words: list[str]) -> int:
    """Write the atomic files of one set."""
    parsed = parse(words, values=COMMON, settings=True)
    load_plugins(path for path in parsed.values.get("plugins", "").split(",") if path)
    if len(parsed.words) != 1:
        found = f"; found {' '.join(parsed.words)!r}" if parsed.words else ""
        raise UsageError(f"preprocess: name one of {', '.join(PREPROCESSORS.names())}{found}")
    (name,) = parsed.words
    PREPROCESSORS.entry(name)
    maker = PREPROCESSORS.load(name)
    options = _own_options(name, maker, parsed)
    raw, own_name = parsed.values.get("raw"), parsed.values.get("name")
    data_path = Path(parsed.values.get("data_path", "dataset"))
    console = make_console()
    made = maker(
        Path(raw) if raw else None, data_path, name=None if own_name is None else folder_name(own_name), **options
    )
    folder = made.run(lambda text: say(console, text))
    say(console, f"next: run_recbole_dtn.py --dataset={_dataset_name(name, folder)}{path_option(data_path)}")
    return 0


def _own_options(name: str, maker: Any, parsed: Parsed) -> dict[str, Any]:
    """A preprocessor's own options: the keyword-only arguments of its constructor, typed."""
    model = keyword_options(maker, leave_out=("name",))
    kinds = declared(model)
    given = parse(parsed.settings, values=tuple(kinds), settings=True)
    faults = []
    for word in given.settings:
        if word.startswith("--"):
            option = word[2:].partition("=")[0]
            hint = nearest(option, [*COMMON, *kinds])
            faults.append(Fault(f"--{option}", f"preprocess {name} has no such option; {hint}", ""))
    tree = Branch("command line")
    tree.update({key: Leaf(text, "command line", loose=True) for key, text in given.values.items()})
    options = {key: typed(value, kinds[key], f"--{key}", faults) for key, value in tree.items()}
    for key, info in model.model_fields.items():
        if info.is_required() and key not in options:
            faults.append(Fault(f"--{key}", f"preprocess {name} needs this option", ""))
    if "name" in _required(maker) and "name" not in parsed.values:
        faults.append(Fault("--name", f"preprocess {name} needs this option", ""))
    if faults:
        raise report(faults, of="options")
    return options


def _required(maker: Any) -> list[str]:
    parameters = inspect.signature(maker.__init__).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def _dataset_name(name: str, folder: Path) -> str:
    """What ``--dataset`` is to be: the set's shipped name where that set reads this folder, else the folder's."""
    file = shipped("dataset", name)
    return name if file is not None and read_yaml(file).get("folder", name) == folder.name else folder.name
