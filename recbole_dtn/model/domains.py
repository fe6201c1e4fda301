"""The domain of every row, as models with parts per domain read it."""

from __future__ import annotations

from torch import Tensor, nn

from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError

__all__ = ["domain_of"]


def domain_of(model: nn.Module, features: Features) -> Tensor:
    """(B,) int64, numbers below ``schema.num_domains``.

    Raises:
        UsageError: for a batch without domains.
    """
    if features.domain is None:
        name = type(model).__name__
        raise UsageError(f"domain_field: {name} reads the domain of every row, and this batch has none")
    return features.domain
