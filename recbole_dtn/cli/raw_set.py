"""Public data sets with protocols on the command line: ``preprocess aliccp --protocol=aitm``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from recbole_dtn.cli.arguments import folder_name, own_options
from recbole_dtn.cli.help_text import PROGRAM, aligned, wrapped
from recbole_dtn.config.datasets import dataset_values, protocols, refuse_shipped
from recbole_dtn.config.faults import Fault, declared, describe, faults_of, report
from recbole_dtn.config.layers import command_line_tree
from recbole_dtn.config.preprocess import PreprocessOptions, option_model, preprocess_options
from recbole_dtn.config.properties import properties_folder
from recbole_dtn.config.tree import Branch, from_python
from recbole_dtn.config.tree import values as values_of
from recbole_dtn.errors import nearest
from recbole_dtn.registry import PREPROCESSORS

if TYPE_CHECKING:
    from recbole_dtn.preprocess.raw_set import RawSet

__all__ = ["make", "set_help", "switches"]

DOCS = {"ml-1m": "movielens", "ml-100k": "movielens"}
"""Pages of docs/datasets/ that are not called like the set."""
LONG = 60
SHOWN = 4
"""Characters of a type, and values of a list, that are shown whole."""
ANY_SEED = f" and < {1 << 63}"
SWITCHES = ("raw", "name", "data_path", "max_rejected", "strict", "max_line", "overwrite")


def switches(raw: str, name: str) -> list[tuple[str, str]]:
    """What every set takes, with its meaning.

    Args:
        raw, name: the defaults of ``--raw`` and ``--name``, in words.
    """
    return [
        ("--raw=FOLDER", f"the raw files (default: {raw})"),
        ("--name=NAME", f"name of the data set that is written, <data_path>/NAME/ (default: {name})"),
        ("--data_path=dataset", "folder that holds one folder of atomic files per data set"),
        ("--max_rejected=0.001", "largest share of faulty rows, which go to rejected.tsv; above it, exit code 3"),
        ("--strict", "stop at the first faulty row"),
        ("--max_line=64", "MiB of the longest line of a raw text file; a longer one stops the run"),
        ("--overwrite", "replace a data set NAME that exists, with all of its files; without it, that is refused"),
    ]


def make(set_name: str, given: Namespace) -> RawSet:
    """The preprocessor that the words of a command ask for.

    Raises:
        UsageError: for an unknown protocol or option, or a wrong value.
    """
    model = option_model(set_name) or PreprocessOptions
    texts, unknown = own_options(given.settings, model.model_fields)
    owner, known_options = f"preprocess {set_name}", [*SWITCHES, *model.model_fields]
    faults = [Fault(f"--{key}", f"{owner} has no such option; {nearest(key, known_options)}", "") for key in unknown]
    known = protocols(set_name)
    protocol = texts.pop("protocol", next(iter(known)))
    if protocol not in known:
        faults.append(Fault("--protocol", f"unknown protocol {protocol!r}; {nearest(protocol, known)}", ""))
    tree = Branch("command line")
    base = dataset_values(known[protocol], None) if protocol in known else {}
    tree.update({key: from_python(value, "") for key, value in (base.get("preprocess") or {}).items()})
    tree.update({key: command_line_tree(text) for key, text in texts.items()})
    try:
        options: Any = model.model_validate(values_of(tree))
    except ValidationError as error:
        faults += faults_of(error, model, tree, prefix="--", owner=f"preprocess {set_name}")
    if faults:
        raise report(faults, of="options")
    maker: type[RawSet] = PREPROCESSORS.load(set_name)
    name = folder_name(given.name) if given.name else maker.name_of(options)
    refuse_shipped(name, set_name)
    own = dataset_values(name, None)
    if own.get("preprocessor") == set_name:  # a shipped set of these very options, such as one country's
        base = own
    return maker(Path(given.raw) if given.raw else None, Path(given.data_path), name=name, options=options, base=base)


def set_help(set_name: str) -> str:
    """Where the raw files of a set come from, its protocols and its options.

    Raises:
        UsageError: for an unknown set.
    """
    entry = PREPROCESSORS.entry(set_name)
    maker = PREPROCESSORS.load(set_name)
    model = entry.options_class
    options = "" if model is None else " [--protocol=P] [options]"
    lines = [f"{PROGRAM} preprocess {set_name} [--raw=FOLDER] [--name=NAME]{options}", "", f"{entry.summary}."]
    lines += wrapped(f"Raw files: {maker.source}.")
    lines += [f"  {line}" for line in getattr(maker, "files", ())]
    if entry.origin == "built-in":
        lines += [f"Layout, protocols, counts, sources: docs/datasets/{DOCS.get(set_name, set_name)}.md"]
    if model is not None:
        known = protocols(set_name)
        lines += ["", "Protocols (each is a file of properties/dataset/ to read; the first is the default):"]
        for protocol, dataset in known.items():
            lines += aligned(f"  --protocol={protocol}", f"{_first_comment(dataset)}; --dataset={dataset}")
        default = dataset_values(next(iter(known.values())), None).get("preprocess") or {}
        if found := _option_lines(set_name, default):
            heading = "Options with the values of the default protocol (other protocols may set other values):"
            lines += ["", heading, *found]
    raw = "those inside RecBole" if maker.bundled else f"<data_path>/{set_name}/raw"
    name = maker.default_name if model is None else "the protocol's"
    lines += ["", "Switches of every set:"]
    for switch, meaning in switches(raw, name):
        lines += aligned(f"  {switch}", meaning)
    return "\n".join(lines)


def _option_lines(set_name: str, given: dict[str, Any]) -> list[str]:
    """A set's options: default, type, meaning. A long list of names is shown once."""
    values = preprocess_options(set_name, given)
    shown: dict[str, str] = {}
    lines: list[str] = []
    for name, kind in declared(type(values)).items():
        if name == "protocol":
            continue
        words = describe(kind).replace(ANY_SEED, "")
        words = f"names as of --{shown[words]}" if words in shown else words
        if len(words) > LONG:
            shown[words] = name
        meaning = type(values).model_fields[name].description
        lines += aligned(f"  --{name}={_default(getattr(values, name))}", f"{words}: {meaning}" if meaning else words)
    return lines


def _default(value: Any) -> str:
    """A value as the command line takes it; of a long list the first."""
    if isinstance(value, list):
        return ",".join(map(str, value if len(value) <= SHOWN else [*value[:2], "..."]))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _first_comment(dataset: str) -> str:
    """The first line of a shipped data set's YAML, which says what it is."""
    file = properties_folder() / "dataset" / f"{dataset}.yaml"
    with file.open(encoding="utf-8") as lines:
        return next(lines).removeprefix("#").strip().removesuffix(".")
