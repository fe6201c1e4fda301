"""Widths that bring a model to the size of another: one factor for all of its width options, found by bisection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recbole_dtn.config.properties import flow_yaml
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["MATCHED", "Matched", "Size", "can_match", "match_widths", "size_of"]

Size = Literal["dense", "dense+codebook", "total", "flops"]
MATCHED: dict[Size, str] = {
    "dense": "dense parameters",
    "dense+codebook": "dense and codebook parameters",
    "total": "parameters",
    "flops": "FLOPs per row",
}
"""What rows are matched by, and how it is called."""
LARGEST = 2.0**9
"""Largest factor of widths, and 1 / the smallest."""
STEPS = 24
"""Most halvings of the interval of factors; widths are whole numbers and stop changing before that."""


@dataclass(frozen=True)
class Matched:
    """The size of a row beside that of the reference.

    Attributes:
        factor: of the widths; 1 where the row has its own. widths: the options that were changed.
        size, target: of the row and of the reference.
    """

    factor: float
    widths: Mapping[str, Any]
    size: int
    target: int

    @property
    def words(self) -> tuple[str, ...]:
        """The widths as words of a command line."""
        return tuple(f"--{name}={flow_yaml(value)}" for name, value in self.widths.items())

    @property
    def deviation(self) -> float:
        """Size over target, minus 1."""
        return self.size / self.target - 1


def can_match(model: str) -> bool:
    """Whether a model has widths: those that are fitted directly (logistic regression, trees) have none.

    >>> can_match("MMoE"), can_match("Logistic")
    (True, False)
    """
    return not MODELS.attributes(model).get("fits_directly")


def size_of(settings: Settings, schema: DataSchema, by: Size) -> int:
    """Parameters of the named parts, or FLOPs of a forward pass per row; no tensor is made."""
    from recbole_dtn.model.sizes import model_flops, model_parameters

    if by == "flops":
        return model_flops(settings, schema)
    counts = model_parameters(settings, schema)
    return sum(counts[part] for part in by.split("+"))


def match_widths(
    settings: Settings, schema: DataSchema, *, by: Size, target: int, tolerance: float, row: str = ""
) -> Matched:
    """Widths with which a model comes within ``tolerance`` of a target. A model that is there already keeps its own.

    All of its ``width_options`` are multiplied by one factor and rounded to whole numbers of at least 1; so is
    ``shared_interaction_dim`` where there is a shared interaction.

    Args:
        settings, schema: of the model. by: what is counted. target: of the reference. tolerance: as a share.
        row: of the leaderboard, for the message.

    Raises:
        UsageError: where no factor comes so close; with the closest.
    """
    counted = _Counted(settings, schema, by)
    own = Matched(1.0, {}, counted({}), target)
    if abs(own.deviation) <= tolerance:
        return own
    options = counted.options()
    best = own

    def at(factor: float) -> Matched:
        nonlocal best
        widths = {name: _scaled(value, factor) for name, value in options.items()}
        found = Matched(factor, widths, counted(widths), target)
        best = min(best, found, key=lambda each: abs(each.deviation))
        return found

    low = high = 1.0
    if options:
        # The interval is found by doubling, as the largest widths are slow to count.
        while high < LARGEST and at(high).size < target:
            low, high = high, high * 2
        while low > 1 / LARGEST and at(low).size > target:
            low, high = low / 2, low
        for _ in range(STEPS):
            middle = (low * high) ** 0.5
            found = at(middle)
            if abs(found.deviation) <= tolerance / 10 or found.widths in (at(low).widths, at(high).widths):
                break
            low, high = (middle, high) if found.size < target else (low, middle)
    if abs(best.deviation) > tolerance:
        raise UsageError(_refusal(best, settings, by, tolerance, row, list(options)))
    return best


class _Counted:
    """The size of a model by its widths; each is counted once."""

    def __init__(self, settings: Settings, schema: DataSchema, by: Size) -> None:
        self.settings, self.schema, self.by = settings, schema, by
        self.known: dict[str, int] = {}

    def __call__(self, widths: Mapping[str, Any]) -> int:
        key = flow_yaml(widths)
        if key not in self.known:
            self.known[key] = size_of(self.settings.model_copy(update=dict(widths)), self.schema, self.by)
        return self.known[key]

    def options(self) -> dict[str, Any]:
        """The width options with their values; without those that have no effect beside the other settings."""
        names = [*MODELS.attributes(self.settings.model).get("width_options", ())]
        if self.settings.shared_interaction is not None:
            names.append("shared_interaction_dim")
        found = {name: getattr(self.settings, name) for name in names}
        return {name: value for name, value in found.items() if value and self({name: _scaled(value, 2)}) != self({})}


def _scaled(value: Any, factor: float) -> Any:
    """A width, or a list of widths, times a factor.

    >>> _scaled([128, 64], 0.75), _scaled(3, 0.1)
    ([96, 48], 1)
    """
    return [_scaled(each, factor) for each in value] if isinstance(value, list) else max(1, round(value * factor))


def _refusal(best: Matched, settings: Settings, by: Size, tolerance: float, row: str, options: list[str]) -> str:
    name = row or settings.model
    scaled = f"by {', '.join(options)}" if options else "it has no option that scales it (width_options of its class)"
    return (
        f"match: {by}: {name!r} comes no closer to {best.target:,} {MATCHED[by]} than {best.size:,} "
        f"({best.deviation:+.1%}) {scaled}; change other settings of the row, leave it out, or set match_tolerance "
        f"(now {tolerance:g})"
    )
