"""What a feature interaction is: embeddings (B, F, D) in, one vector (B, O) out."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from recbole_dtn.kernels.choice import Fusible

__all__ = ["FeatureInteraction", "FieldShape", "WithAuxiliary"]


@dataclass(frozen=True)
class FieldShape:
    """The numbers an interaction is built from.

    Attributes:
        num_fields: F. embedding_dim: D.
        id_fields: positions of the fields with one id per row (``ids`` is -1 elsewhere).
        field_sizes: rows of each field in the joint table, length F.
    """

    num_fields: int
    embedding_dim: int
    id_fields: tuple[int, ...]
    field_sizes: tuple[int, ...]

    @property
    def flat_dim(self) -> int:
        """F * D, the width of the concatenated embeddings."""
        return self.num_fields * self.embedding_dim


class WithAuxiliary(NamedTuple):
    """What ``forward`` returns when a method has a loss of its own: the output (B, O) and a scalar."""

    output: Tensor
    loss: Tensor


class FeatureInteraction(Fusible):
    """Base of every interaction. A subclass takes its options as keyword-only numbers and strings.

    Maps of :mod:`recbole_dtn.layers` and functions of :mod:`recbole_dtn.kernels` follow the setting ``fused`` by
    themselves. A method with a faster implementation uses it if ``self.fused`` is true.

    Args:
        shape: sizes of the input.
        output_dim: O, the width all modules of a model share.
    """

    reads_ids = False
    """True for a method that needs the ids themselves; it then reads the raw embeddings (no input affine)."""

    ignores_field_order = False
    """True where the output stays the same when the fields, and nothing else, are put into another order."""

    bounded = ""
    """What an option ``auto`` bounds here (:mod:`recbole_dtn.interaction.bounds`), a sentence; empty: nothing."""

    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.output_dim = output_dim
        self.chosen_options: Hashable = None  # set where the module is built from settings

    def share_key(self) -> Hashable:
        """Modules with equal keys share what :meth:`prepare` returns: by default those of one class and options."""
        return type(self), self.chosen_options

    def prepare(self, ids: Tensor) -> Any:
        """Once a batch and key, whatever all owners share (such as MemoNet's hashes); None by default."""
        return None

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor | WithAuxiliary:
        """Interact.

        Args:
            embeddings: (B, F, D). ids: (B, F) rows of the joint table, -1 for a field without one id.
            shared: what :meth:`prepare` returned for this batch, or None (then the module prepares by itself).

        Returns:
            (B, O), or :class:`WithAuxiliary`.
        """
        raise NotImplementedError
