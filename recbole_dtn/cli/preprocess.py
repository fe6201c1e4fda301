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
python run_recbole_dtn.py preprocess <set> [--raw=FOLDER] [--name=NAME] [--data_path=dataset] [--overwrite]
python run_recbole_dtn.py preprocess table --input=FILE --spec=SPEC --name=NAME [--data_path=dataset] [--overwrite]

  <set>                  {sets}
  --raw=FOLDER           the raw files (default <data_path>/<set>/raw; those of ml-100k come with RecBole)
  --name=NAME            name of the data set that is written, <data_path>/NAME/
  --data_path=dataset    folder that holds one folder of atomic files per data set
  --overwrite            replace a data set NAME that is there, with all of its files; without it, that is refused
  --input=FILE           table: a CSV, TSV or Parquet file
  --spec=SPEC            table: a YAML file that says how to read it; `preprocess table --help` lists its keys

{summaries}
"""
TABLE_HELP = """\
python run_recbole_dtn.py preprocess table --input=FILE --spec=SPEC --name=NAME [--data_path=dataset] [--overwrite]

Writes <data_path>/NAME/NAME.inter and NAME.yaml from one table; docs/own-data.md explains it with examples.

  --input=FILE           .csv, .tsv or .txt (also with .gz), or .parquet
  --spec=SPEC            a YAML file with the keys below
  --name=NAME            name of the data set that is written
  --data_path=dataset    folder that holds one folder per data set
  --overwrite            replace a data set NAME that is there, with all of its files; without it, that is refused

Keys of the spec (only fields and tasks are needed):
  reader:          of text tables: separator (default by the ending), columns (names, where there is no header),
                   strip (false), null_values ([]), quote ('"'; null: none)
  fields:          the inputs; of each: name, type (token; token_seq, float), min_count
                   token_seq: list_separator (' ', in a text), pooling (sum, mean), weights (column of numbers)
                   float: encoding (standardise; bins), bins (10), fill (number put where one is missing), missing
                   (refuse; keep: leave the cells empty, absent values to our models)
  tasks:           of each: name, kind (binary; regression), label (column: 0, 1, true, false; or a number),
                   condition (such as rating >= 4), observed_when (condition of the rows where it is known),
                   after (tasks before it in a chain), weight (1), pos_weight (1)
  filter:          condition of the rows that are kept
  fill:            {column: number} for missing numbers, also of time_field and weight_field
  derive:          {column: condition}: further 0/1 columns
  split:           random, time or user_time; split_ratio [train, valid, test], time_field, user_field
  group_field, domain_field, weight_field, min_count, pooling    as in a data set's YAML

Conditions: column == != >= <= > < value, column [not] in [values], and, or, not, parentheses; texts are quoted, a
column with spaces stands between backquotes.
"""


def help_text(words: list[str]) -> str:
    """How to call it, and what each preprocessor makes; of ``table``, the keys of its spec."""
    if words[:1] == ["table"]:
        return TABLE_HELP
    entries = [PREPROCESSORS.entry(name) for name in PREPROCESSORS.names()]
    width = max(len(entry.name) for entry in entries)
    lines = [f"  {entry.name:<{width}}  {entry.summary}" for entry in entries]
    return HELP.format(sets=", ".join(PREPROCESSORS.names()), summaries="\n".join(lines))


def run(words: list[str]) -> int:
    """Write the atomic files of one set."""
    parsed = parse(words, values=COMMON, flags=("overwrite",), settings=True)
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
    folder = made.run(lambda text: say(console, text), overwrite="overwrite" in parsed.flags)
    say(console, f"next: python run_recbole_dtn.py --dataset={_dataset_name(name, folder)}{path_option(data_path)}")
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
            hint = nearest(option, [*COMMON, "overwrite", *kinds])
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
