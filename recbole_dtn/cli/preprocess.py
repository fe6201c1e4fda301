"""``run_recbole_dtn.py preprocess <set>``: raw files to atomic files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from recbole_dtn.cli.arguments import Parsed, folder_name, parse, path_option
from recbole_dtn.cli.raw_set import make, own_options, set_help
from recbole_dtn.config.choice import keyword_options
from recbole_dtn.config.datasets import dataset_values, refuse_shipped
from recbole_dtn.config.faults import declared, read_model
from recbole_dtn.config.properties import properties_folder, read_yaml
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.strict import Strict
from recbole_dtn.config.tree import from_python
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import PREPROCESSORS, load_plugins
from recbole_dtn.report.console import make_console, say

if TYPE_CHECKING:
    from recbole_dtn.preprocess.base import Preprocessor

__all__ = ["help_text", "run"]

COMMON = ("raw", "name", "data_path", "plugins", "max_rejected")
FLAGS = ("overwrite", "strict")

HELP = """\
python run_recbole_dtn.py preprocess <set> [--raw=FOLDER] [--protocol=P] [--name=NAME] [options of the set]
python run_recbole_dtn.py preprocess table --input=FILE --spec=SPEC --name=NAME
python run_recbole_dtn.py preprocess synthetic --like=SET --rows=N --output=FOLDER

Raw files as they were downloaded (archives, .gz and .zst too) become RecBole's atomic files, once; then
`--dataset=NAME` trains on them. `preprocess <set> --help` says where its files come from, its protocols, and each
option with its meaning and default.

  <set>                  {sets}
  --raw=FOLDER           the raw files (default <data_path>/<set>/raw; those of ml-100k come with RecBole)
  --protocol=P           which protocol, where a set has several (properties/dataset/ holds each as a file to read)
  --name=NAME            name of the data set that is written, <data_path>/NAME/ (default: the protocol's)
  --data_path=dataset    folder that holds one folder of atomic files per data set
  --max_rejected=0.001   faulty raw rows go to rejected.tsv; a larger share of them stops the run with exit code 3
  --strict               stop at the first faulty row, however small their share is
  --overwrite            replace a data set NAME that is there, with all of its files; without it, that is refused

{summaries}
"""
TABLE_HELP = """\
python run_recbole_dtn.py preprocess table --input=FILES --spec=SPEC --name=NAME [--data_path=dataset] [--overwrite]

Writes <data_path>/NAME/NAME.inter and NAME.yaml from tables with the same columns; docs/own-data.md explains it.

  --input=FILES          one file, a pattern ('logs/*.parquet') or several with commas between, read in sorted order:
                         .csv, .tsv or .txt (each also .gz or .zst), or .parquet
  --spec=SPEC            a YAML file with the keys below
  --name=NAME            name of the data set that is written
  --data_path=dataset    folder that holds one folder per data set
  --max_rejected=0.001   faulty rows go to rejected.tsv; a larger share of them stops the run with exit code 3
  --strict               stop at the first faulty row, saying what to write in the spec; without it the run goes on,
                         unless the share of such rows exceeds --max_rejected
  --overwrite            replace a data set NAME that is there, with all of its files; without it, that is refused

Keys of the spec (only fields and tasks are needed):
  reader:          of text tables: separator (default by the ending), columns (names, where there is no header),
                   strip (false), null_values ([]), quote ('"'; null: none)
  fields:          the inputs; of each: name, type (token; token_seq, float), min_count
                   token_seq: list_separator (' ', in a text), pooling (sum, mean), weights (column of numbers)
                   float: encoding (standardise; bins), bins (10), fill (number put where one is missing), missing
                   (refuse: reject the row; keep: leave the cells empty, absent values to our models)
  tasks:           of each: name, kind (binary; regression), label (column: 0, 1, true, false; or a number),
                   condition (such as rating >= 4), observed_when (condition of the rows where it is known),
                   after (tasks before it in a chain), weight (1), pos_weight (1)
  filter:          condition of the rows that are kept
  fill:            {column: number} for missing numbers, also of time_field and weight_field
  derive:          {column: condition}: further 0/1 columns
  split:           random, time (needs time_field) or user_time (needs time_field and user_field);
                   split_ratio [train, valid, test]
  group_field, domain_field, weight_field, min_count, pooling    as in a data set's YAML

Conditions: column == != >= <= > < value, column [not] in [values], and, or, not, parentheses; texts are quoted, a
column with spaces stands between backquotes.
"""


def help_text(words: list[str]) -> str:
    """How to call it, and what each preprocessor makes; of one of them, its own options."""
    if words[:1] == ["table"]:
        return TABLE_HELP
    if words[:1] == ["synthetic"]:
        from recbole_dtn.cli import synthetic

        text: str = synthetic.help_text()
        return text
    if words and not words[0].startswith("-"):
        return set_help(words[0])
    entries = [PREPROCESSORS.entry(name) for name in PREPROCESSORS.names()]
    width = max(len(entry.name) for entry in entries)
    lines = [f"  {entry.name:<{width}}  {entry.summary}" for entry in entries]
    return HELP.format(sets=", ".join(PREPROCESSORS.names()), summaries="\n".join(lines))


def run(words: list[str]) -> int:
    """Write the atomic files of one set."""
    if words[:1] == ["synthetic"]:
        from recbole_dtn.cli import synthetic

        code: int = synthetic.run(words[1:])
        return code
    parsed = parse(words, values=COMMON, flags=FLAGS, settings=True)
    load_plugins(path for path in parsed.values.get("plugins", "").split(",") if path)
    if len(parsed.words) != 1:
        found = f"; found {' '.join(parsed.words)!r}" if parsed.words else ""
        raise UsageError(f"preprocess: name one of {', '.join(PREPROCESSORS.names())}, synthetic{found}")
    (name,) = parsed.words
    PREPROCESSORS.entry(name)
    made = make(name, parsed) if PREPROCESSORS.entry(name).options_class is not None else _made(name, parsed)
    data_path = made.folder.parent
    console = make_console()
    with progress_meter(console) as meter:
        folder = made.run(
            lambda text: say(console, text),
            meter=meter,
            overwrite="overwrite" in parsed.flags,
            max_rejected=_share(parsed),
            strict="strict" in parsed.flags,
        )
    say(console, f"next: python run_recbole_dtn.py --dataset={_dataset_name(name, folder)}{path_option(data_path)}")
    return 0


def _share(parsed: Parsed) -> float:
    """``--max_rejected``, or its default."""
    default = read_yaml(properties_folder() / "overall.yaml")["max_rejected"]
    tree = from_python({"max_rejected": parsed.values.get("max_rejected", default)}, "")
    one: Any = create_model("Share", __base__=Strict, max_rejected=(declared(Settings)["max_rejected"], ...))
    return float(read_model(one, tree, of="options", prefix="--").max_rejected)


def _made(name: str, parsed: Parsed) -> Preprocessor:
    """A preprocessor without protocols; its options are its constructor's."""
    maker = PREPROCESSORS.load(name)
    options = _own_options(name, maker, parsed)
    raw, own_name = parsed.values.get("raw"), parsed.values.get("name")
    data_path = Path(parsed.values.get("data_path", "dataset"))
    if own_name is not None:
        refuse_shipped(folder_name(own_name), name)
    made: Preprocessor = maker(Path(raw) if raw else None, data_path, name=own_name, **options)
    return made


def _own_options(name: str, maker: Any, parsed: Parsed) -> dict[str, Any]:
    """A preprocessor's own options: the keyword-only arguments of its constructor, typed."""
    model = keyword_options(maker, leave_out=("name",))
    given = parse(parsed.settings, values=tuple(model.model_fields), settings=True)
    found = read_model(model, own_options(given, {}), of="options", prefix="--", owner=f"preprocess {name}")
    if "name" in _required(maker) and "name" not in parsed.values:
        raise UsageError(f"--name: preprocess {name} needs this option")
    return {key: getattr(found, key) for key in model.model_fields if key in found.model_fields_set}


def _required(maker: Any) -> list[str]:
    parameters = inspect.signature(maker.__init__).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def _dataset_name(name: str, folder: Path) -> str:
    """What ``--dataset`` is to be: the set's shipped name where that set reads this folder, else the folder's."""
    values = dataset_values(name, None)
    return name if values and (values.get("folder") or name) == folder.name else folder.name
