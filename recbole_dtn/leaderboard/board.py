"""What a leaderboard compares: models under names, each with settings of its own, read from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from recbole_dtn.config.faults import read_model
from recbole_dtn.config.layers import config_file
from recbole_dtn.config.properties import flow_yaml, read_tree
from recbole_dtn.config.strict import Positive, Strict
from recbole_dtn.config.tree import Branch, merge, plain
from recbole_dtn.errors import UsageError
from recbole_dtn.leaderboard.datasets import DataEntry, data_entries
from recbole_dtn.leaderboard.match import Size
from recbole_dtn.leaderboard.plan import TuneWanted

__all__ = ["BoardFile", "Entry", "appended", "entry_of", "read_board"]

NO_SETTINGS = {
    "plugins": "a leaderboard's file names them under its own key plugins, not among settings or in a row",
    "trust": "only the command line can say this (--trust), not a leaderboard's file",
}
"""What settings of a leaderboard's file cannot have, and why."""


@dataclass(frozen=True)
class Entry:
    """One row of a leaderboard.

    Attributes:
        name: of the row. model: a registered model. words: its own settings, as on the command line.
    """

    name: str
    model: str
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: str | Mapping[str, Any] | Entry) -> Entry:
        """A model's name, or a map of ``model``, ``name`` (the model's by default) and settings.

        Raises:
            UsageError: for a map without a model.

        >>> Entry.of({"name": "modules", "model": "DTN", "interactions": ["gdcn"]})
        Entry(name='modules', model='DTN', words=('--interactions=[gdcn]',))
        """
        if isinstance(value, Entry):
            return value
        if isinstance(value, str):
            return cls(value, value)
        given = dict(value) if isinstance(value, Mapping) else {}
        model = given.pop("model", None)
        name = given.pop("name", model)
        if not isinstance(model, str) or not isinstance(name, str) or not name.strip():
            raise UsageError(
                f"models: expected a model's name, or a map such as {{name: one module, model: DTN, interactions: "
                f"[gdcn]}}; found {flow_yaml(value)}"
            )
        return cls(name, model, setting_words(given))


def setting_words(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings as words of a command line.

    >>> setting_words({"epochs": 1, "optimizer": {"lr": 0.01}})
    ('--epochs=1', '--optimizer={lr: 0.01}')

    Raises:
        UsageError: for ``plugins`` and ``trust``, which decide what code is run.
    """
    words = tuple(f"--{key}={flow_yaml(value)}" for key, value in settings.items())
    for word in words:
        key = word.lstrip("-").partition("=")[0].strip().partition(".")[0]
        if key in NO_SETTINGS:  # as words of a command line these would count as the user's own
            raise UsageError(f"{key}: {NO_SETTINGS[key]}")
    return words


class BoardFile(Strict):
    """A leaderboard's YAML file. Options of the command line replace its keys of the same name.

    ``extends`` names another file whose keys it has, but for those that it writes itself.
    """

    models: Annotated[
        list[Any], Field(min_length=1, description="names of models, or maps of name, model and settings of that row")
    ]
    datasets: Annotated[
        list[Any], Field(min_length=1, description="names of data sets, or maps of name, plantings, rows and options")
    ]
    seeds: Annotated[int | list[int] | None, Field(description="a number of seeds, or the seeds themselves")] = None
    split_seeds: Annotated[int | list[int] | None, Field(description="a number of random splits, or their seeds")] = (
        None
    )
    folds: Annotated[int | None, Field(ge=2, le=1000, description="number of folds")] = None
    floors: Annotated[list[str] | None, Field(description="simple models on the same rows; []: none")] = None
    proposed: Annotated[list[str], Field(description="names of the rows that are no baselines")] = []  # noqa: RUF012
    contrasts: Annotated[
        dict[str, list[str]], Field(description="planned comparisons: a title, and two rows, the first less the second")
    ] = {}  # noqa: RUF012
    exploratory: Annotated[bool, Field(description="contrasts were chosen after results were known")] = False
    settings: Annotated[dict[str, Any], Field(description="settings of every row")] = {}  # noqa: RUF012 (frozen)
    plugins: Annotated[list[str], Field(description="Python files that register methods")] = []  # noqa: RUF012
    match: Annotated[Literal["none"] | Size, Field(description="what rows are matched by")] = "none"
    reference: Annotated[str | None, Field(description="row whose size the others take")] = None
    match_tolerance: Annotated[Positive, Field(description="largest deviation from it, as a share")] = 0.05
    tune: Annotated[TuneWanted | None, Field(description="trials of each row, and what is tuned")] = None

    @property
    def entries(self) -> list[Entry]:
        """The rows, in order."""
        return [Entry.of(value) for value in self.models]

    @property
    def data(self) -> list[DataEntry]:
        """The folders of data, in order."""
        return [entry for value in self.datasets for entry in data_entries(value)]


def read_board(path: Path) -> BoardFile:
    """Read a leaderboard's file.

    Args:
        path: of the file, or of a shipped one below ``properties/``, such as ``leaderboard/interactions.yaml``.

    Raises:
        UsageError: for a file that is missing or wrong; one message with every fault, each with its line.
    """
    path = config_file(str(path))
    tree = _extended(path, [])
    found = read_model(BoardFile, tree, of=f"values in {path}")
    # Settings have their types elsewhere: here a number is a number, as it stands in the file.
    written = plain(tree)
    found = found.model_copy(
        update={
            **{key: written[key] for key in ("models", "datasets")}, "settings": written.get("settings") or {},
            "plugins": [_beside(path, name) for name in found.plugins],
        }
    )  # fmt: skip
    if found.tune is not None:
        as_written = {key: written["tune"][key] for key in ("space", "also") if key in written["tune"]}
        if isinstance(as_written.get("space"), str):
            as_written["space"] = _beside(path, as_written["space"])
        found = found.model_copy(update={"tune": found.tune.model_copy(update=as_written)})
    try:  # a wrong entry is told before anything runs
        _ = found.entries, found.data
        setting_words(found.settings)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return found


def _beside(path: Path, name: str) -> str:
    """A file that a leaderboard names: from the working directory, or else beside the leaderboard's own file."""
    return name if Path(name).is_file() or not (path.parent / name).is_file() else str(path.parent / name)


def _extended(path: Path, seen: Sequence[Path]) -> Branch:
    """The tree of a file upon that of the one that it ``extends``: maps merge, lists and contrasts replace.

    The other is beside it, or a shipped one.
    """
    tree = read_tree(path)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    name = str(plain(base))
    other = path.parent / name if (path.parent / name).is_file() else config_file(name)
    if other.resolve() in [known.resolve() for known in (path, *seen)]:
        raise UsageError(f"{path}: extends {name}, which extends this file in turn")
    below = _extended(other, [path, *seen])
    if "contrasts" in tree:  # those of the other file may name rows that are not here
        below.pop("contrasts", None)
        below.pop("exploratory", None)
    return merge(below, tree, (), ())


def entry_of(model: str, name: str | None, words: Sequence[str]) -> str:
    """A row as an item of ``models``, in YAML.

    Args:
        model: its model. name: of the row; None: the model's. words: its settings, as on the command line.

    Raises:
        UsageError: for a word that is no ``--key=value``.

    >>> entry_of("PLE", "two levels", ["--levels=2", "--optimizer={lr: 0.01}"])
    '{name: two levels, model: PLE, levels: 2, optimizer: {lr: 0.01}}'
    >>> entry_of("PLE", None, [])
    'PLE'
    """
    entry: dict[str, Any] = {"model": model} if name is None else {"name": name, "model": model}
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            raise UsageError(f"{word}: settings of a row are --key=value")
        try:
            entry[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"{key}: not YAML: {value!r}") from None
    return flow_yaml(model if list(entry) == ["model"] else entry)


def appended(text: str, key: str, item: str, *, inherited: bool = False) -> str:
    """A YAML file as text, with one more item at the end of a list. Comments, line ends and all else stay as they are.

    Args:
        text: of the file. key: of the list, at the top; without it, the list is added at the end. item: as YAML.
        inherited: whether a file that it extends has items, which a list of its own would replace.

    Raises:
        UsageError: where the key has something else than a list, or aliases in its place or among its items, or only a
            file that it extends has the list.

    >>> print(appended("models:  # rows\\n  - A\\n# end\\nseeds: 3\\n", "models", "{model: B, epochs: 2}"), end="")
    models:  # rows
      - A
      - {model: B, epochs: 2}
    # end
    seeds: 3
    >>> appended("models: [A]\\n", "models", "B"), appended("models: [A]", "plugins", "p.py")
    ('models: [A, B]\\n', 'models: [A]\\nplugins: [p.py]\\n')
    """
    root = yaml.compose(text, yaml.SafeLoader)
    nodes = {name.value: (name, value) for name, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    newline = "\r\n" if "\r\n" in text else "\n"
    if inherited and "extends" in nodes and key not in nodes:
        raise UsageError(
            f"the leaderboard takes its {key} from {nodes['extends'][1].value}, and a list of its own replaces them: "
            f"write all of them under {key}, with {item}"
        )
    if key not in nodes:
        return f"{text.rstrip()}{newline}{key}: [{item}]{newline}"
    name, node = nodes[key]
    if not isinstance(node, yaml.SequenceNode):
        raise UsageError(f"{key}: expected a list; add {item} by hand")
    places = [found.start_mark.index for found in (name, node, *node.value)]
    if places != sorted(set(places)):  # an alias has the place of its anchor
        raise UsageError(f"{key}: expected a list without aliases (*name); add {item} by hand")
    if node.flow_style:  # behind the last item: a comma or a comment may follow it
        end = node.value[-1].end_mark.index if node.value else node.start_mark.index + 1
        return f"{text[:end]}{', ' if node.value else ''}{item}{text[end:]}"
    lines = text.splitlines(keepends=True)
    last = node.value[-1].end_mark
    place = last.line + 1 if last.column else last.line
    # A block ends where the next begins: comments and blank lines between them are not its own.
    while place > 0 and not lines[place - 1].split("#")[0].strip():
        place -= 1
    if not lines[place - 1].endswith("\n"):
        lines[place - 1] += newline
    lines.insert(place, f"{' ' * node.start_mark.column}- {item}{newline}")
    return "".join(lines)


def listed(value: int | Sequence[int] | None) -> str | None:
    """Seeds of a file as the command line writes them: ``3`` is a count, ``[3]`` a list.

    >>> listed(3), listed([2020, 2021]), listed(None)
    ('3', '[2020, 2021]', None)
    """
    return None if value is None else str(value) if isinstance(value, int) else str(list(value))
