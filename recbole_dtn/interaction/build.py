"""From the setting ``interactions`` to modules with names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from recbole_dtn.config.load import interaction_options
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.registry import INTERACTIONS

__all__ = ["build_interactions", "interaction_names"]

Spec = str | Mapping[str, Any]


def interaction_names(specs: Sequence[Spec]) -> list[str]:
    """The module name of every entry; a method that is named more than once is numbered from 1.

    Raises:
        UsageError: for an entry that is neither a name nor a mapping with ``name``.

    >>> interaction_names(["gdcn", {"name": "masknet", "blocks": 3}, "gdcn"])
    ['gdcn#1', 'masknet', 'gdcn#2']
    """
    methods = [_method(spec) for spec in specs]
    total, seen = Counter(methods), Counter[str]()
    names = []
    for method in methods:
        seen[method] += 1
        names.append(method if total[method] == 1 else f"{method}#{seen[method]}")
    return names


def build_interactions(specs: Sequence[Spec], shape: FieldShape, output_dim: int) -> nn.ModuleDict:
    """One set of interaction modules, as every owner of a model has one.

    Args:
        specs: entries of the setting ``interactions``: a registered name, or a mapping of ``name`` and options.
            Options left out have the method's defaults.
        shape: sizes of the input. output_dim: O, common to all.

    Returns:
        The modules in the order given, under :func:`interaction_names`.

    Raises:
        UsageError: for an entry, name or option that is not valid, or a method that cannot work on these fields.

    >>> shape = FieldShape(num_fields=2, embedding_dim=4, id_fields=(0, 1), field_sizes=(5, 5))
    >>> list(build_interactions(["gdcn", {"name": "gdcn", "layers": 1}], shape, 6))
    ['gdcn#1', 'gdcn#2']
    """
    modules = nn.ModuleDict()
    for name, spec in zip(interaction_names(specs), specs, strict=True):
        module = _build(spec, shape, output_dim)
        try:
            modules[name] = module
        except KeyError as error:  # torch has no room for a name with a dot, or of ModuleDict's own methods
            raise UsageError(
                f"interactions: {name!r} cannot name a module ({error.args[0]}): register it under another name"
            ) from error
    return modules


def _method(spec: Spec) -> str:
    name = spec.get("name") if isinstance(spec, Mapping) else spec
    if not isinstance(name, str):
        raise UsageError(
            f"interactions: {spec!r} is neither a name, such as gdcn, nor a map with a name, such as "
            f"{{name: masknet, blocks: 3}}; the names are {', '.join(INTERACTIONS.names())}"
        )
    return INTERACTIONS.entry(name).name


def _build(spec: Spec, shape: FieldShape, output_dim: int) -> FeatureInteraction:
    method = _method(spec)
    given = {key: value for key, value in spec.items() if key != "name"} if isinstance(spec, Mapping) else {}
    module: FeatureInteraction = INTERACTIONS.load(method)(shape, output_dim, **interaction_options(method, given))
    return module
