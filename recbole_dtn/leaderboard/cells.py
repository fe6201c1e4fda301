"""The cells of a leaderboard. A cell is one run of data set x model x split x seed: its key and its settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.splits import SplitKey, plan_splits
from recbole_dtn.errors import DataError, UsageError, why
from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.datasets import DataEntry, data_entries
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import MODELS
from recbole_dtn.report.text import cell as cell_text
from recbole_dtn.version import __version__

__all__ = [
    "Cell", "CellKey", "Resolve", "cell_of", "parse_seeds", "plan_cells", "refuse_devices", "resolve_cell", "runs_once",
    "seed_of_split",
]  # fmt: skip

FIRST_SEED = 2020
DEFAULT_SEEDS = [FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2]
MOST_SEEDS = 100
OF_WORDS = "(command line)"
"""How a message ends about a setting that a cell's words have."""
RESERVED = {"model": "--models", "dataset": "--datasets", "seed": "--seeds", "trial": "--trials"}
Resolve = Callable[[list[str]], tuple[Settings, str]]
"""Gives the settings and their digest for words of a command line."""


@dataclass(frozen=True)
class CellKey:
    """What makes two runs the same cell. The digest leaves the seed, the split, paths, devices and loggers out.

    ``processes`` is the number that trained it, each with ``train_batch_size`` rows a step.
    """

    dataset: str
    model: str
    settings_digest: str
    seed: int
    split: SplitKey
    processes: int = 1
    code_version: str = __version__

    @classmethod
    def of(cls, record: RunRecord) -> CellKey:
        """The cell that a record fills."""
        return cls(
            record.dataset, record.model, record.settings_digest, record.seed, SplitKey.of(record),
            record.processes, record.code_version,
        )  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run of a leaderboard: its key, its settings, and the overrides that give them.

    ``name``: of the row that it belongs to. ``several_splits``: whether other cells of the row have other splits.
    """

    key: CellKey
    settings: Settings
    overrides: tuple[str, ...]
    name: str
    several_splits: bool = False

    @property
    def folder(self) -> Path:
        """Of the runs of its data set and model."""
        return Path(self.settings.output_dir) / self.key.dataset / self.key.model

    def place(self) -> Path:
        """The file of its lock, in a folder below ``output_dir``, which is made.

        Raises:
            DataError: where the folder cannot be made.
        """
        folder = Path(self.settings.output_dir) / ".cells"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: the locks of cells cannot be made there {why(error)}") from error
        return folder / hashlib.sha256(repr(self.key).encode()).hexdigest()[:24]

    def lock(self) -> FileLock:
        """A lock that one process holds while it runs the cell.

        It ends with that process, however that ends. Its file stays, empty.

        Raises:
            DataError: as :meth:`place`.
        """
        return FileLock(self.place(), blocking=False)

    @property
    def shown_dataset(self) -> str:
        """The name under which the leaderboard shows its data: the block's where there is one."""
        return self.settings.block or self.key.dataset

    @property
    def title(self) -> str:
        """Row, data set, split where there are several, and seed, as the progress line names them."""
        split = f" {self.key.split.title}" if self.several_splits else ""
        return f"{self.name} {self.key.split.draw or self.key.dataset}{split} seed {self.key.seed}"


def seed_of_split(position: int, first: int = FIRST_SEED) -> int:
    """The seed of the split at ``position`` (from 0) where each split has one: another for each.

    The spread over splits then holds the chance of initialisation and order too. With one seed for all, a mean over
    splits would be about that initialisation alone.

    >>> [seed_of_split(position) for position in range(3)]
    [2020, 2021, 2022]
    """
    return first + position


def parse_seeds(text: str, name: str = "seeds") -> list[int]:
    """The seeds that ``--seeds`` names: one number is a count from 2020 on, a list is the seeds themselves.

    Args:
        text: the option's value. name: of the option, for messages (``split_seeds`` is read the same way).

    Raises:
        UsageError: for anything else, a seed named twice, or one outside 0 to 2**32 - 1.

    >>> parse_seeds("3")
    [2020, 2021, 2022]
    >>> parse_seeds("7,11"), parse_seeds("[2020]")
    ([7, 11], [2020])
    """
    bare = text.strip()
    # "[2020]" is a list of one seed, "2020" a count, which is refused as too many.
    listed = bare.startswith("[") and bare.endswith("]")
    items = [item.strip() for item in bare.strip("[]").split(",")]
    if not all(item.isascii() and item.isdigit() for item in items):
        raise UsageError(
            f"{name}: expected a count (--{name}=3) or a list of whole numbers (--{name}=2020,2021), found {text!r}"
        )
    numbers = [int(item) for item in items]
    if len(numbers) == 1 and not listed:
        if not 1 <= numbers[0] <= MOST_SEEDS:
            raise UsageError(
                f"{name}: one number is how many seeds to run, 1 to {MOST_SEEDS}, found {text!r}; "
                f"for the seed {numbers[0]} itself write --{name}='[{numbers[0]}]'"
            )
        return list(range(FIRST_SEED, FIRST_SEED + numbers[0]))
    _refuse_repeats(name, items)
    for number in numbers:
        if number >= 2**32:
            raise UsageError(f"{name}: a seed is between 0 and {2**32 - 1}, found {number}")
    return numbers


def resolve_cell(overrides: list[str]) -> tuple[Settings, str]:
    """The validated settings that overrides give, and their digest."""
    from recbole_dtn.config.load import resolve, settings_digest

    settings = resolve(overrides).settings
    return settings, settings_digest(settings)


def cell_of(words: Sequence[str]) -> Cell:
    """The cell that settings give, as on the command line; named after its model.

    Raises:
        UsageError: for wrong settings.
    """
    settings, digest = resolve_cell(list(words))
    key = CellKey(settings.dataset, settings.model, digest, settings.seed, SplitKey.of(settings))
    return Cell(key, settings, tuple(words), settings.model)


def plan_cells(
    models: Sequence[str | Entry],
    datasets: Sequence[str | DataEntry],
    seeds: Sequence[int] | None,
    overrides: Sequence[str],
    *,
    settings: Sequence[str] = (),
    split_seeds: Sequence[int] | None = None,
    floors: Sequence[str] = (),
    chosen: Callable[[str, str], Sequence[str]] | None = None,
    resolve: Resolve = resolve_cell,
) -> list[Cell]:
    """Every cell in the order it runs: by data set, then split, row and seed; all settings are validated here.

    Args:
        models: rows, each the name of a model or an :class:`~.board.Entry`. datasets: names of data sets, or entries.
        seeds: initialisation seeds, each of which is run on every split; None: 2020 to 2022, or with several splits one
            seed per split, or per draw of a block (:func:`seed_of_split`).
        overrides: settings for every cell, as on the command line (``["--epochs=1"]``); with ``folds`` and no ``fold``
            there is a cell per fold. They win over a row's own settings, and these over ``settings``.
        settings: of every cell.
        split_seeds: seeds of splits, which all models share; None: the one that the settings name.
        floors: simple models that come after the others, on the same rows. Those that are deterministic have one cell
            per split, with the first seed. An override that only the other models have is not given to them.
        chosen: by shown data set and name of the row, the settings that were chosen for it, which come behind all
            others. resolve: gives the settings and their digest for one cell's overrides.

    Raises:
        UsageError: for an empty, repeated or unprintable name, that of a floor for another model, two rows of equal
            settings, a setting that the leaderboard itself fixes, or a cell whose settings are wrong; nothing has run
            by then.
    """
    entries = [Entry.of(model) for model in models]
    named = [entry.name for entry in entries]
    trained = list(dict.fromkeys(entry.model for entry in entries))
    for entry in entries:
        if entry.name in floors and entry.model != entry.name:
            raise UsageError(
                f"models: the row {entry.name!r} is of {entry.model}, and floors adds a row of that name; give it "
                f"another name, or leave {entry.name} out of floors"
            )
    added = [Entry.of(name) for name in dict.fromkeys(floors) if name not in named]
    data_sets = [entry for given in datasets for entry in data_entries(given)]
    lists = {"models": named, "datasets": [data.name for data in data_sets]}
    lists |= {name: [str(seed) for seed in given] for name, given in (("seeds", seeds), ("split_seeds", split_seeds))
              if given is not None}  # fmt: skip
    for name, values in lists.items():
        if not values or not all(value.strip() for value in values):
            raise UsageError(f"{name}: expected at least one, separated by commas, found {','.join(values)!r}")
        hidden = next((value for value in values if cell_text(value, None) != value), None)
        if hidden is not None:
            raise UsageError(f"{name}: expected names of one line without control characters, found {hidden!r}")
        _refuse_repeats(name, values)
    reserved = {**RESERVED, **({} if split_seeds is None else {"split_seed": "--split_seeds"})}
    shared = [*settings, *overrides]
    for words in (shared, *(entry.words for entry in entries)):
        _refuse_reserved(words, reserved)
    cells = []
    for data in data_sets:
        telling = {entry: _telling(resolve, overrides, entry, settings, data) for entry in (*entries, *added)}
        behind = {entry: chosen(data.shown, entry.name) if chosen else () for entry in (*entries, *added)}
        words_of = {entry: [*data.words, *settings, *entry.words, *overrides, *behind[entry]] for entry in entries}
        words_of |= {
            entry: [*data.words, *_shared_with(entry.model, trained, shared), *behind[entry]] for entry in added
        }
        planned = {
            entry: _splits_of(entry.model, data.dataset, given, split_seeds, telling[entry])
            for entry, given in words_of.items()
        }
        # A model's own defaults may set folds; the splits of a board are shared, or nothing could be paired.
        if len({tuple(splits) for splits in planned.values()}) > 1:
            raise UsageError(f"folds: the models have different splits of {data.name}; set folds for all of them")
        splits = next(iter(planned.values()))
        several = len(splits) > 1
        for position, split in enumerate(splits):
            alone = DEFAULT_SEEDS
            if several or data.block is not None:
                alone = [seed_of_split(position + data.position)]
            for entry, known in words_of.items():
                of_entry = list(alone if seeds is None else seeds)
                for seed in of_entry[:1] if runs_once(entry.model) else of_entry:
                    of_split = split.words() if several or split_seeds is not None else []
                    given = [*known, *of_split, f"--model={entry.model}", f"--dataset={data.dataset}", f"--seed={seed}"]
                    cells.append(_cell(entry.name, given, several, telling[entry]))
    _refuse_equal_rows(cells)
    return cells


def _telling(
    resolve: Resolve, overrides: Sequence[str], row: Entry, settings: Sequence[str], data: DataEntry
) -> Resolve:
    """The same, but a fault of a setting that is not among ``overrides`` is said to be of what has the setting."""
    of_row, of_data = f"(row {row.name!r})", f"(data set {data.name!r})"
    places = {"model": of_row, "dataset": "(datasets)"}
    for words, place in ((data.words, of_data), (settings, "(settings of the leaderboard)"), (row.words, of_row),
                         (overrides, OF_WORDS)):  # fmt: skip
        places |= dict.fromkeys((_key(word.removeprefix("--").partition("=")[0]) for word in words), place)

    def telling(words: list[str]) -> tuple[Settings, str]:
        try:
            return resolve(words)
        except UsageError as error:
            lines = str(error).split("\n")
            told = [line.replace(OF_WORDS, places.get(_key(line), f"(row {row.name!r})")) for line in lines]
            raise UsageError("\n".join(told)) from None

    return telling


def _key(text: str) -> str:
    """The setting that a line of a message, or a word, begins with.

    >>> _key("optimizer.lr: expected"), _key("  tasks[0].weight: expected"), _key("epochs")
    ('optimizer', 'tasks', 'epochs')
    """
    return re.split(r"[.:\[]", text.strip(), maxsplit=1)[0]


def _refuse_equal_rows(cells: Sequence[Cell]) -> None:
    """Two names of the same settings would share their runs."""
    names: dict[str, str] = {}
    for cell in cells:
        known = names.setdefault(cell.key.settings_digest, cell.name)
        if known != cell.name:
            raise UsageError(f"models: {known!r} and {cell.name!r} have the same settings; leave one of them out")


def _splits_of(
    model: str,
    dataset: str,
    overrides: Sequence[str],
    split_seeds: Sequence[int] | None,
    resolve: Resolve,
) -> list[SplitKey]:
    settings, _ = resolve([*overrides, f"--model={model}", f"--dataset={dataset}"])
    folder = Path(settings.data_path) / (settings.folder or settings.dataset)
    return plan_splits(settings, split_seeds, folder)


def _cell(name: str, given: list[str], several: bool, resolve: Resolve) -> Cell:
    # All cells are resolved before the first one runs, which may be hours earlier.
    settings, digest = resolve(given)
    refuse_devices(
        settings,
        "a leaderboard runs each cell",
        f"train on several by itself (--model={settings.model} --dataset={settings.dataset} --devices=...): more "
        "processes make larger steps, so that such a run fills no cell",
    )
    key = CellKey(settings.dataset, settings.model, digest, settings.seed, SplitKey.of(settings))
    return Cell(key, settings, tuple(given), name, several)


def runs_once(model: str) -> bool:
    """Whether every seed gives the same model, so that one run is all there is to know.

    >>> runs_once("Logistic"), runs_once("MMoE"), runs_once("a model of a plug-in that is not loaded")
    (True, False, False)
    """
    return model in MODELS.names() and bool(MODELS.attributes(model).get("deterministic"))


def _shared_with(floor: str, models: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides without those of settings that the other models have and ``floor`` has not."""
    from recbole_dtn.config.load import settings_class

    own = settings_class(floor).model_fields
    others = {key for model in models for key in settings_class(model).model_fields} - set(own)
    return [word for word in overrides if word.removeprefix("--").partition("=")[0].split(".")[0] not in others]


def _refuse_repeats(name: str, values: Sequence[str]) -> None:
    repeated = [value for position, value in enumerate(values) if value in values[:position]]
    if repeated:
        raise UsageError(f"{name}: {repeated[0]!r} is named twice")


def _refuse_reserved(overrides: Sequence[str], reserved: Mapping[str, str]) -> None:
    for override in overrides:
        key, equals, _ = override.removeprefix("--").partition("=")
        if (equals or override.startswith("--")) and key in reserved:
            raise UsageError(f"{key}: a leaderboard takes {reserved[key]}, found {override!r}")


def refuse_devices(settings: Settings, what: str, instead: str) -> None:
    """Refuse several devices: Lightning starts a process per device by running the whole command again.

    Args:
        settings: of one run. what: the command does, and ``instead`` what to do, for the message.

    Raises:
        UsageError: where the settings name more than one device or machine.
    """
    text = str(settings.devices).strip()
    named = text.startswith("[") or "," in text
    one = len([item for item in text.strip("[]").split(",") if item.strip()]) == 1 if named else text == "1"
    if not one or settings.num_nodes != 1:
        raise UsageError(f"devices={settings.devices}, num_nodes={settings.num_nodes}: {what} on one device; {instead}")
