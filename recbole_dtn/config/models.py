"""Settings of the built-in models, shared keys and each model's own; defaults in ``properties/model/<Model>.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from recbole_dtn.config.settings import Count, Settings, Widths
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.schema import DataSchema, topological_order

__all__ = [
    "DTNSettings",
    "DTNVariant",
    "MMoESettings",
    "PLESettings",
    "SharedBottomSettings",
    "SingleTaskSettings",
    "resolve_chain",
    "resolve_variant",
]

Fusion = Literal["concat", "sum"]
GateInput = Literal["embedding", "module"]
GateActivation = Literal["none", "relu"]


class DTNSettings(Settings):
    """DTN (METHODS §1). ``variant: released`` sets fusion, gate_input, gate_activation and tsn_detach together;
    each can still be set on its own."""

    variant: Literal["paper", "released"]
    interactions: list[str | dict[str, Any]]
    module_dim: Count
    use_shared: bool
    use_tsn: bool
    fusion: Fusion | None
    gate_input: GateInput | None
    gate_activation: GateActivation | None
    tsn_detach: bool | None
    tsn_scale: Literal["raw", "normalised"]
    task_chain: Literal["dataset"] | dict[str, list[str]]
    input_affine: bool
    aux_weight: float
    tower_hidden: Widths


@dataclass(frozen=True)
class DTNVariant:
    """The four choices in which the authors' code differs from the paper (METHODS §1.2)."""

    fusion: Fusion
    gate_input: GateInput
    gate_activation: GateActivation
    tsn_detach: bool


VARIANTS = {
    "paper": DTNVariant("concat", "embedding", "none", tsn_detach=False),
    "released": DTNVariant("sum", "module", "relu", tsn_detach=True),
}


def resolve_variant(settings: DTNSettings) -> DTNVariant:
    """The four choices: what ``variant`` says, but for those set on their own."""
    base = VARIANTS[settings.variant]
    return DTNVariant(
        fusion=settings.fusion or base.fusion,
        gate_input=settings.gate_input or base.gate_input,
        gate_activation=settings.gate_activation or base.gate_activation,
        tsn_detach=base.tsn_detach if settings.tsn_detach is None else settings.tsn_detach,
    )


def resolve_chain(settings: DTNSettings, schema: DataSchema) -> dict[str, tuple[str, ...]]:
    """Direct predecessors of every task: the tasks' ``after``, or the map ``task_chain`` in its place.

    Raises:
        UsageError: for a name that is no task, a cycle, or (with TSN) a predecessor without a probability.
    """
    if settings.task_chain == "dataset":
        chain = {task.name: task.after for task in schema.tasks}
    else:
        for name in (*settings.task_chain, *(each for many in settings.task_chain.values() for each in many)):
            if name not in schema.task_names:
                raise UsageError(f"task_chain: {name!r} is no task: {nearest(name, schema.task_names)}")
        chain = {name: tuple(settings.task_chain.get(name, ())) for name in schema.task_names}
    topological_order(chain)
    if settings.use_tsn:
        scaling = {predecessor for many in chain.values() for predecessor in many}
        for task in schema.tasks:
            if task.name in scaling and task.kind != "binary":
                raise UsageError(
                    f"task_chain: {task.name!r} comes before another task, but is a {task.kind} task: TSN scales by a "
                    "probability. Leave it out of the chain by task_chain, or set use_tsn: false"
                )
    return chain


class MMoESettings(Settings):
    """MMoE: shared experts, one gate and one tower per task."""

    experts: Count
    expert_hidden: Widths
    tower_hidden: Widths


class PLESettings(Settings):
    """PLE: levels of shared and task-specific experts; one level is CGC."""

    levels: Count
    shared_experts: Count
    task_experts: Count
    expert_hidden: Widths
    tower_hidden: Widths


class SharedBottomSettings(Settings):
    """SharedBottom: one network below, one tower per task."""

    bottom_hidden: Widths
    tower_hidden: Widths


class SingleTaskSettings(Settings):
    """SingleTask: a network per task."""

    hidden: Widths
