"""Public data sets with protocols on the command line: ``preprocess aliccp --protocol=aitm``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_dtn.cli.arguments import Parsed, folder_name, parse
from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.preprocess import option_kinds, preprocess_options
from recbole_dtn.config.properties import properties_folder
from recbole_dtn.config.tree import Branch
from recbole_dtn.config.typed import Fault, command_line_tree, describe, report, typed
from recbole_dtn.errors import nearest
from recbole_dtn.registry import PREPROCESSORS

if TYPE_CHECKING:
    from recbole_dtn.data.preprocess.base import RawSet

__all__ = ["make", "set_help"]

SWITCHES = ("raw", "name", "data_path", "max_rejected", "strict", "overwrite")


def make(set_name: str, parsed: Parsed) -> RawSet:
    """The preprocessor that the words of a command ask for.

    Raises:
        UsageError: for an unknown protocol or option, or a wrong value.
    """
    kinds = option_kinds(set_name)
    given = parse(parsed.settings, values=tuple(kinds), settings=True)
    faults: list[Fault] = []
    for word in given.settings:
        option = word.removeprefix("--").partition("=")[0]
        hint = nearest(option, [*SWITCHES, *kinds])
        faults.append(Fault(f"--{option}", f"preprocess {set_name} has no such option; {hint}", ""))
    known = protocols(set_name)
    protocol = given.values.pop("protocol", next(iter(known)))
    if protocol not in known:
        faults.append(Fault("--protocol", f"unknown protocol {protocol!r}; {nearest(protocol, known)}", ""))
    tree = Branch("command line")
    tree.update({key: command_line_tree(text) for key, text in given.values.items()})
    values: dict[str, Any] = {key: typed(value, kinds[key], f"--{key}", faults) for key, value in tree.items()}
    if faults:
        raise report(faults, of="options")
    base = dataset_values(known[protocol], None)
    options = preprocess_options(set_name, {**(base.get("preprocess") or {}), **values})
    maker: type[RawSet] = PREPROCESSORS.load(set_name)
    name = folder_name(parsed.values["name"]) if parsed.values.get("name") else maker.name_of(options)
    own = dataset_values(name, None)
    if own.get("preprocessor") == set_name:  # a shipped set of these very options, such as one country's
        base = own
    raw = parsed.values.get("raw")
    data_path = Path(parsed.values.get("data_path", "dataset"))
    return maker(Path(raw) if raw else None, data_path, name=name, options=options, base=base)


def set_help(set_name: str) -> str:
    """Where the raw files of a set come from, its protocols and its options.

    Raises:
        UsageError: for an unknown set.
    """
    entry = PREPROCESSORS.entry(set_name)
    maker = PREPROCESSORS.load(set_name)
    lines = [f"python run_recbole_dtn.py preprocess {set_name} [--raw=FOLDER] [--name=NAME] [--overwrite] ...", ""]
    lines += [f"{entry.summary}.", f"Raw files: {maker.source}"]
    lines += [f"  {line}" for line in getattr(maker, "files", ())]
    kinds = option_kinds(set_name)
    if kinds:
        lines += ["", "Protocols (--protocol=P; each is a file of properties/dataset/):"]
        for protocol, dataset in protocols(set_name).items():
            lines.append(f"  {protocol:<12} {_first_comment(dataset)} (--dataset={dataset})")
        lines += ["", "Options (the protocol's value holds where one is left out):"]
        lines += [f"  --{name}: {describe(kind)}" for name, kind in kinds.items() if name != "protocol"]
    lines += ["", "`preprocess --help` lists the options of every set."]
    return "\n".join(lines)


def _first_comment(dataset: str) -> str:
    """The first line of a shipped data set's YAML, which says what it is."""
    file = properties_folder() / "dataset" / f"{dataset}.yaml"
    with file.open(encoding="utf-8") as lines:
        return next(lines).removeprefix("#").strip().removesuffix(".")
