"""Settings of the built-in models: the shared keys and each model's own. Defaults: ``properties/model/<Model>.yaml``."""

from __future__ import annotations

from typing import Any, Literal

from recbole_dtn.config.settings import Count, Settings, Widths

__all__ = ["DTNSettings", "MMoESettings", "PLESettings", "SharedBottomSettings", "SingleTaskSettings"]


class DTNSettings(Settings):
    """DTN (METHODS §1). ``variant: released`` sets fusion, gate_input, gate_activation and tsn_detach together;
    each can still be set on its own."""

    variant: Literal["paper", "released"]
    interactions: list[str | dict[str, Any]]
    module_dim: Count
    use_shared: bool
    use_tsn: bool
    fusion: Literal["concat", "sum"] | None
    gate_input: Literal["embedding", "module"] | None
    gate_activation: Literal["none", "relu"] | None
    tsn_detach: bool | None
    tsn_scale: Literal["raw", "normalised"]
    task_chain: Literal["dataset"] | dict[str, list[str]]
    input_affine: bool
    aux_weight: float
    tower_hidden: Widths


class MMoESettings(Settings):
    experts: Count
    expert_hidden: Widths
    tower_hidden: Widths


class PLESettings(Settings):
    levels: Count
    shared_experts: Count
    task_experts: Count
    expert_hidden: Widths
    tower_hidden: Widths


class SharedBottomSettings(Settings):
    bottom_hidden: Widths
    tower_hidden: Widths


class SingleTaskSettings(Settings):
    hidden: Widths
