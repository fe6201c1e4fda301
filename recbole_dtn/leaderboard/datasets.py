"""The data sets of a leaderboard: names, and sets that are planted anew a number of times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from recbole_dtn.config.datasets import is_folder_name
from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.errors import UsageError

__all__ = ["DataEntry", "board_name", "data_entries", "write_planted"]

LIKE = "planted"
MOST = 1000


@dataclass(frozen=True)
class DataEntry:
    """One folder of data that every row of a leaderboard is run on.

    Attributes:
        dataset: as ``--dataset`` takes it. words: further settings of its cells, as on the command line.
        block: name of the folders that are draws of one data set; None: it stands alone. position: among these, from 0.
        planting: rows, seed and options of :func:`~recbole_dtn.synthetic.generate.generate`, of a folder that is made
            where it is missing.
    """

    dataset: str
    words: tuple[str, ...] = ()
    block: str | None = None
    position: int = 0
    planting: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.dataset if self.block is None else f"{self.block}-{(self.planting or {})['seed']}"

    @property
    def shown(self) -> str:
        """The name under which the leaderboard shows it."""
        return self.block or self.dataset


def data_entries(value: str | DataEntry | Mapping[str, Any]) -> list[DataEntry]:
    """The folders of an item of ``datasets``: a name, or a map of ``name``, ``plantings``, ``rows`` and options.

    ``plantings`` is a number (seeds from 1 on), or the seeds. The options are those of
    ``preprocess synthetic --like=planted``.

    Raises:
        UsageError: for anything else, a name that cannot be a folder's, an unknown option, or one out of its range.

    >>> found = data_entries({"name": "same", "plantings": 2, "rows": 1000, "overlap": 1})
    >>> [one.name for one in found], found[0].words
    (['same-1', 'same-2'], ('--folder=same-1', '--block=same'))
    """
    if isinstance(value, DataEntry):
        return [value]
    if isinstance(value, str):
        return [DataEntry(value)]
    given = dict(value) if isinstance(value, Mapping) else {}
    name, plantings, rows = (given.pop(key, None) for key in ("name", "plantings", "rows"))
    if not isinstance(name, str) or not name.strip() or plantings is None or not isinstance(rows, int):
        raise UsageError(
            "datasets: expected a name, or a map such as {name: same-tables, plantings: 10, rows: 160000, overlap: 1}; "
            f"found {flow_yaml(value)}"
        )
    if not is_folder_name(name):
        raise UsageError(
            f"datasets: name: expected the name of a folder under data_path, without spaces or slashes; found {name!r}"
        )
    options, words = _options(name, rows, given)
    return [
        DataEntry(
            LIKE,
            (f"--folder={name}-{seed}", f"--block={name}", *words),
            name,
            position,
            {"rows": rows, "seed": seed, **options},
        )
        for position, seed in enumerate(_seeds(name, plantings))
    ]


def _seeds(name: str, plantings: Any) -> list[int]:
    seeds = list(range(1, plantings + 1)) if type(plantings) is int else plantings
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not 1 <= len(set(seeds)) == len(seeds) <= MOST:
        raise UsageError(
            f"datasets: {name}: plantings: expected a number from 1 to {MOST}, or a list of different seeds; found "
            f"{flow_yaml(plantings)}"
        )
    return list(seeds)


def _options(name: str, rows: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options of the planting with their types checked, and the settings that follow from them."""
    from recbole_dtn.synthetic.generate import layout_class, layout_options, make_plan
    from recbole_dtn.synthetic.pairs import dataset_yaml

    known = layout_options(LIKE)
    for key, value in given.items():
        kinds = (int, float) if isinstance(known.get(key), float) else type(known.get(key))
        if key in known and (not isinstance(value, kinds) or isinstance(value, bool) != isinstance(known[key], bool)):
            raise UsageError(f"datasets: {name}: {key}: expected a value like {known[key]}; found {flow_yaml(value)}")
    try:
        plan, own = make_plan(LIKE, rows, 0, given)
        layout_class(LIKE)(plan, **own)
    except UsageError as error:
        raise UsageError(f"datasets: {name}: {str(error).removeprefix('--')}") from None
    described, usual = (
        dataset_yaml(options["fields"], chain=options["chain"]) for options in (known | dict(given), known)
    )
    return dict(given), [f"--{key}={flow_yaml(value)}" for key, value in described.items() if value != usual[key]]


def board_name(entries: Iterable[DataEntry]) -> str:
    """Name of a leaderboard's files, from those of its data sets."""
    return "+".join(dict.fromkeys(entry.shown for entry in entries))


def write_planted(entries: Sequence[DataEntry], data_path: Path, log: Callable[[str], None]) -> None:
    """Write the planted folders that are missing below ``data_path``.

    Raises:
        UsageError: for a folder that was planted with other options, or that is no planted set.
    """
    from recbole_dtn.synthetic.generate import RECORD, generate, layout_options, planted_record

    for entry in entries:
        if entry.planting is None:
            continue
        folder = data_path / entry.name
        data_path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=True):
            if not (folder / RECORD).is_file():
                log(f"planting {folder}")
                generate(LIKE, output=folder, **entry.planting)
                continue
        record = planted_record(folder)
        found = {"like": record["like"], "rows": record["rows"], "seed": record["seed"], **record["options"]}
        wanted = {"like": LIKE, **layout_options(LIKE), **entry.planting}
        told = [f"{key} {found.get(key)}, and not {value}" for key, value in wanted.items() if found.get(key) != value]
        if told:
            raise UsageError(
                f"{folder} was planted with {'; '.join(told)}; remove it, or give the data set of the leaderboard "
                "another name"
            )
