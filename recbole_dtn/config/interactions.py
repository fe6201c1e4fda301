"""Options of the built-in interactions. Defaults: ``properties/interaction/<name>.yaml``."""

from __future__ import annotations

from typing import Literal

from recbole_dtn.config.settings import Count, Positive, Strict, Widths

__all__ = ["GDCNOptions", "MaskNetOptions", "MemoNetOptions"]


class GDCNOptions(Strict):
    """Gated deep cross network."""

    layers: Count
    structure: Literal["stacked", "parallel"]
    hidden: Widths
    low_rank: Count | None


class MaskNetOptions(Strict):
    """Instance-guided masks."""

    structure: Literal["serial", "parallel"]
    blocks: Count
    block_dim: Count
    reduction: Positive
    hidden: Widths
    embedding_norm: bool
    output_activation: Literal["none", "relu"]


class MemoNetOptions(Strict):
    """Memory of field pairs in a hashed codebook."""

    codes: Count
    code_dim: Count | None
    hashes: Count
    restore: Literal["lmr", "amr"]
    shrink: Literal["attentive", "sum", "none"]
    attention_dim: Count
    hidden: Widths
    top_fields: Count | None
