"""The cells of a leaderboard. A cell is one run of data set x model x seed: its key and its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import MODELS

__all__ = ["Cell", "CellKey", "parse_seeds", "plan_cells", "resolve_cell", "runs_once"]

FIRST_SEED = 2020
MOST_SEEDS = 100
RESERVED = {"model": "--models", "dataset": "--datasets", "seed": "--seeds"}


@dataclass(frozen=True)
class CellKey:
    """What makes two runs the same cell. The digest leaves the seed, paths, devices and loggers out."""

    dataset: str
    model: str
    settings_digest: str
    seed: int

    @classmethod
    def of(cls, record: RunRecord) -> CellKey:
        """The cell that a record fills."""
        return cls(record.dataset, record.model, record.settings_digest, record.seed)


@dataclass(frozen=True)
class Cell:
    """One run of a leaderboard: its key, its settings, and the overrides that give them."""

    key: CellKey
    settings: Settings
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        """Model, data set and seed, as the progress line names them."""
        return f"{self.key.model} {self.key.dataset} seed {self.key.seed}"


def parse_seeds(text: str) -> list[int]:
    """The seeds that ``--seeds`` names: one number is a count from 2020 on, a list is the seeds themselves.

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
            f"seeds: expected a count (--seeds=3) or a list of whole numbers (--seeds=2020,2021), found {text!r}"
        )
    numbers = [int(item) for item in items]
    if len(numbers) == 1 and not listed:
        if not 1 <= numbers[0] <= MOST_SEEDS:
            raise UsageError(
                f"seeds: one number is how many seeds to run, 1 to {MOST_SEEDS}, found {text!r}; "
                f"for the seed {numbers[0]} itself write --seeds='[{numbers[0]}]'"
            )
        return list(range(FIRST_SEED, FIRST_SEED + numbers[0]))
    _refuse_repeats("seeds", items)
    for number in numbers:
        if number >= 2**32:
            raise UsageError(f"seeds: a seed is between 0 and {2**32 - 1}, found {number}")
    return numbers


def resolve_cell(overrides: list[str]) -> tuple[Settings, str]:
    """The validated settings that overrides give, and their digest."""
    from recbole_dtn.config.load import resolve, settings_digest

    settings = resolve(overrides).settings
    return settings, settings_digest(settings)


def plan_cells(
    models: Sequence[str],
    datasets: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
    *,
    floors: Sequence[str] = (),
    resolve: Callable[[list[str]], tuple[Settings, str]] = resolve_cell,
) -> list[Cell]:
    """Every cell in the order it runs: by data set, then model, then seed; all settings are validated here.

    Args:
        models: names of models. datasets: names of data sets. seeds: initialisation seeds; all share one split.
        overrides: settings for every cell, as on the command line (``["--epochs=1"]``).
        floors: simple models that come after the others, on the same rows. Those that are deterministic have one cell
            per data set, with the first seed. An override that only the other models have is not given to them.
        resolve: gives the settings and their digest for one cell's overrides.

    Raises:
        UsageError: for an empty or repeated name, a setting that the leaderboard itself fixes, or a cell whose settings
            are wrong; nothing has run by then.
    """
    added = [name for name in dict.fromkeys(floors) if name not in models]
    for name, values in (("models", models), ("datasets", datasets), ("seeds", [str(seed) for seed in seeds])):
        if not values or not all(values):
            raise UsageError(f"{name}: expected at least one, separated by commas, found {','.join(values)!r}")
        _refuse_repeats(name, values)
    _refuse_reserved(overrides)
    cells = []
    for dataset in datasets:
        for model in (*models, *added):
            known = _shared_with(model, models, overrides) if model in added else overrides
            for seed in seeds[:1] if runs_once(model) else seeds:
                given = [*known, f"--model={model}", f"--dataset={dataset}", f"--seed={seed}"]
                # All cells are resolved before the first one runs, which may be hours earlier.
                settings, digest = resolve(given)
                _refuse_devices(settings)
                key = CellKey(settings.dataset, settings.model, digest, settings.seed)
                cells.append(Cell(key, settings, tuple(given)))
    return cells


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


def _refuse_reserved(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, _ = override.removeprefix("--").partition("=")
        if (equals or override.startswith("--")) and key in RESERVED:
            raise UsageError(f"{key}: a leaderboard takes {RESERVED[key]}, found {override!r}")


def _refuse_devices(settings: Settings) -> None:
    """Refuse several devices: Lightning starts a process per device by running the whole command, leaderboard
    included."""
    text = str(settings.devices).strip()
    named = text.startswith("[") or "," in text
    one = len([item for item in text.strip("[]").split(",") if item.strip()]) == 1 if named else text == "1"
    if not one or settings.num_nodes != 1:
        raise UsageError(
            f"devices={settings.devices}, num_nodes={settings.num_nodes}: a leaderboard runs each cell on one device; "
            f"train such a cell by itself (--model={settings.model} --dataset={settings.dataset} "
            f"--seed={settings.seed} --devices=...) and run the leaderboard without --devices: it finds the record"
        )
