"""From the setting ``interactions`` to modules with names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from recbole_dtn.config.choice import Choice, choose
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.registry import INTERACTIONS

__all__ = ["build_interactions", "module_names"]

Spec = str | Mapping[str, Any] | Choice


def module_names(choices: Sequence[Choice]) -> list[str]:
    """The module name of every choice; a method that is named more than once is numbered from 1.

    >>> module_names([Choice("gdcn"), Choice("masknet"), Choice("gdcn")])
    ['gdcn#1', 'masknet', 'gdcn#2']
    """
    total, seen = Counter(choice.name for choice in choices), Counter[str]()
    names = []
    for choice in choices:
        seen[choice.name] += 1
        names.append(choice.name if total[choice.name] == 1 else f"{choice.name}#{seen[choice.name]}")
    return names


def build_interactions(specs: Sequence[Spec], shape: FieldShape, output_dim: int) -> nn.ModuleDict:
    """One set of interaction modules, as every owner of a model has one.

    Args:
        specs: the setting ``interactions``, or in its place registered names and maps of ``name`` and options.
        shape: sizes of the input. output_dim: O, common to all.

    Returns:
        The modules in the order given, under :func:`module_names`.

    Raises:
        UsageError: for a name or an option that is not valid, or a method that cannot work on these fields.

    >>> shape = FieldShape(num_fields=2, embedding_dim=4, id_fields=(0, 1), field_sizes=(5, 5))
    >>> list(build_interactions(["gdcn", {"name": "gdcn", "layers": 1}], shape, 6))
    ['gdcn#1', 'gdcn#2']
    """
    choices = [choose(INTERACTIONS, spec) for spec in specs]
    modules = nn.ModuleDict()
    for name, choice in zip(module_names(choices), choices, strict=True):
        module = INTERACTIONS.build(choice, shape, output_dim)
        module.chosen_options = repr(sorted(choice.options.items()))
        try:
            modules[name] = module
        except KeyError as error:  # a name with a dot, or that of one of ModuleDict's own methods
            raise UsageError(
                f"interactions: {name!r} cannot name a module ({error.args[0]}): register it under another name"
            ) from error
    return modules
