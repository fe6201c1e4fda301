"""``run_recbole_dtn.py preprocess <set>``: raw files to atomic files."""

from __future__ import annotations

import inspect
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from recbole_dtn.cli.arguments import Command, folder_name, own_options, path_option, real, split_words
from recbole_dtn.cli.help_text import PROGRAM, aligned
from recbole_dtn.cli.raw_set import make, set_help, switches
from recbole_dtn.config.choice import keyword_options
from recbole_dtn.config.datasets import dataset_values, refuse_shipped
from recbole_dtn.config.faults import Fault, faults_of, report
from recbole_dtn.config.layers import command_line_tree
from recbole_dtn.config.properties import properties_folder, read_yaml
from recbole_dtn.config.tree import Branch, values
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import PREPROCESSORS, load_plugins
from recbole_dtn.report.console import make_console, say

if TYPE_CHECKING:
    from recbole_dtn.preprocess.base import Preprocessor

__all__ = ["help_text", "run"]

ABOUT = """
Raw files as they were downloaded (archives, .gz and .zst too) become RecBole's atomic files, once; then
`--dataset=NAME` trains on them. `preprocess <set> --help` says where its files come from, its protocols, and each
option with its meaning and default.
"""


def _share(text: str) -> float:
    share = real(text)
    if not 0 <= share <= 1:
        raise ArgumentTypeError(f"expected a share between 0 and 1; found {text!r}")
    return share


def _mebibytes(text: str) -> int:
    if not (text.isdecimal() and 1 <= len(text) <= 7 and 1 <= int(text) <= 1 << 20):
        raise ArgumentTypeError(f"expected whole MiB from 1 to {1 << 20:,}; found {text!r}")
    return int(text)


def _command() -> Command:
    """The options of every set; those of one set are parsed later, by its own types."""
    usage = [
        "<set> [--raw=FOLDER] [--protocol=P] [--name=NAME] [options of the set]",
        "table --input=FILE --spec=SPEC --name=NAME",
        "synthetic --like=SET --rows=N --output=FOLDER",
    ]
    command = Command("preprocess", usage=usage, about=ABOUT, settings=True)
    command.add_argument("--max_rejected", type=_share)
    command.add_argument("--max_line", type=_mebibytes)
    command.kinds |= {"max_rejected": "value", "max_line": "value"}
    for name in ("raw", "name", "data_path", "plugins"):
        command.option(name, name.upper(), default="dataset" if name == "data_path" else None)
    for name in ("overwrite", "strict"):
        command.flag(name, "")
    return command


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
  --max_line=64          MiB of the longest line of a text table; a longer one stops the run with exit code 2
  --overwrite            replace a data set NAME that is there, with all of its files; without it, that is refused

Keys of the spec (only fields and tasks are needed):
  reader:          of text tables: separator (default by the ending), columns (names, where there is no header),
                   strip (false), null_values ([]), quote ('"'; null: none)
  fields:          the inputs; of each: name, type (token; token_seq, float), min_count
                   token_seq: list_separator (' ', in a text), pooling (sum, mean), weights (column of numbers)
                   float: encoding (auto; standardise, log1p, bins), bins (20), clip (10 standard deviations; null: no
                   limit), fill (number put where one is missing), missing (refuse: reject the row; keep: leave the
                   cells empty, absent values to our models)
  tasks:           of each: name, kind (binary; regression), label (column: 0, 1, true, false; or a number),
                   condition (such as rating >= 4), observed_when (condition of the rows where it is known),
                   after (tasks before it in a chain), weight (1), pos_weight (1), loss (bce or mse by kind),
                   negative_rate (1; share of the negatives in the file), pairwise (0), standardise (true)
  filter:          condition of the rows that are kept
  fill:            {column: number} for missing numbers, also of time_field and weight_field
  derive:          {column: condition}: further 0/1 columns
  split:           random, time (needs time_field), user_time (needs time_field and user_field)
                   or column (needs split_field); split_ratio [train, valid, test]
  group_field, domain_field, weight_field, min_count, pooling    as in a data set's YAML

Conditions: column == != >= <= > < value, column [not] in [values], and, or, not, parentheses; texts are quoted, a
column name with spaces is written between backquotes.
"""


def help_text(words: list[str]) -> str:
    """How to call it, and what each preprocessor makes; of one of them, its own options."""
    if words[:1] == ["table"]:
        return TABLE_HELP
    if words[:1] == ["synthetic"]:
        from recbole_dtn.cli import synthetic

        text: str = synthetic.help_text()
        return text
    given = _command().parse(words, most_words=len(words))
    load_plugins(split_words(given.plugins or ""))
    if given.words:
        return set_help(given.words[0])
    lines = [_command().help_text(), ""]
    places = switches("<data_path>/<set>/raw; those of ml-100k come with RecBole", "the protocol's")
    known = ", ".join(PREPROCESSORS.names())
    for head, text in (("<set>", known), ("--protocol=P", "which protocol, where a set has several"), *places):
        lines += aligned(f"  {head}", text, 26)
    lines.append("")
    for name in PREPROCESSORS.names():
        lines += aligned(f"  {name}", PREPROCESSORS.entry(name).summary, 18)
    return "\n".join(lines)


def run(words: list[str]) -> int:
    """Write the atomic files of one set."""
    if words[:1] == ["synthetic"]:
        from recbole_dtn.cli import synthetic

        code: int = synthetic.run(words[1:])
        return code
    given = _command().parse(words, most_words=len(words))
    load_plugins(split_words(given.plugins or ""))
    if len(given.words) != 1:
        found = f"; found {' '.join(given.words)!r}" if given.words else ""
        raise UsageError(f"preprocess: name one of {', '.join(PREPROCESSORS.names())}, synthetic{found}")
    (name,) = given.words
    made = make(name, given) if PREPROCESSORS.entry(name).options_class is not None else _made(name, given)
    data_path = made.folder.parent
    defaults = read_yaml(properties_folder() / "overall.yaml")
    rejected, longest = (
        defaults[key] if getattr(given, key) is None else getattr(given, key) for key in ("max_rejected", "max_line")
    )
    console = make_console()
    with progress_meter(console) as meter:
        folder = made.run(
            lambda text: say(console, text),
            meter=meter,
            overwrite=given.overwrite,
            max_rejected=rejected,
            strict=given.strict,
            max_line=longest << 20,
        )
    say(console, f"next: {PROGRAM} --dataset={_dataset_name(name, folder)}{path_option(data_path)}")
    return 0


def _made(name: str, given: Namespace) -> Preprocessor:
    """A preprocessor without protocols; its options are its constructor's."""
    maker = PREPROCESSORS.load(name)
    options = _own_options(name, maker, given)
    if given.name is not None:
        refuse_shipped(folder_name(given.name), name)
    raw = Path(given.raw) if given.raw else None
    made: Preprocessor = maker(raw, Path(given.data_path), name=given.name, **options)
    return made


def _own_options(name: str, maker: Any, given: Namespace) -> dict[str, Any]:
    """A preprocessor's own options: the keyword-only arguments of its constructor, typed."""
    model = keyword_options(maker, leave_out=("name",))
    texts, unknown = own_options(given.settings, model.model_fields)
    known = [*_command().kinds, *model.model_fields]
    owner = f"preprocess {name}"
    faults = [Fault(f"--{key}", f"{owner} has no such option; {nearest(key, known)}", "") for key in unknown]
    tree = Branch("command line")
    tree.update({key: command_line_tree(text) for key, text in texts.items()})
    options: dict[str, Any] = {}
    try:
        read = model.model_validate(values(tree))
        options = {key: getattr(read, key) for key in model.model_fields}
    except ValidationError as error:
        faults += faults_of(error, model, tree, prefix="--", owner=owner)
    if "name" in _required(maker) and given.name is None:
        faults.append(Fault("--name", f"{owner} needs this option", ""))
    if faults:
        raise report(faults, of="options")
    return options


def _required(maker: Any) -> list[str]:
    parameters = inspect.signature(maker.__init__).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]


def _dataset_name(name: str, folder: Path) -> str:
    """What ``--dataset`` is to be: the set's shipped name where that set reads this folder, else the folder's."""
    values = dataset_values(name, None)
    return name if values and (values.get("folder") or name) == folder.name else folder.name
