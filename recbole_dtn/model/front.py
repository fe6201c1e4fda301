"""The layer between the embeddings and a model's networks: flattening, or the ``shared_interaction``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape, WithAuxiliary

__all__ = ["Front", "interact"]


def interact(
    module: FeatureInteraction, embeddings: Tensor, ids: Tensor, prepared: Any
) -> tuple[Tensor, Tensor | None]:
    """Run an interaction and check the shape of what it returns.

    Args:
        module: the interaction. embeddings: (B, F, D). ids: (B, F). prepared: what ``module.prepare(ids)`` returned.

    Returns:
        The output (B, O), and the interaction's own loss, if it has one.

    Raises:
        UsageError: when the output has another shape.
    """
    found = module(embeddings, ids, prepared)
    output, loss = (found.output, found.loss) if isinstance(found, WithAuxiliary) else (found, None)
    if output.shape != (ids.shape[0], module.output_dim):
        raise UsageError(
            f"interaction {type(module).__name__}: expected an output of shape ({len(ids)}, {module.output_dim}), one "
            f"row of output_dim numbers per input row; found {tuple(output.shape)}: its last layer must have "
            "output_dim columns (recbole_dtn.testing.check_interaction shows the rest)"
        )
    return output, loss


class Front(nn.Module):
    """``flat(e)``, or ``F(e)`` with an interaction F in front of a model's networks.

    Args:
        shape: sizes of the embeddings. interaction: F, or None. aux_weight: weight of F's own loss.

    Attributes:
        output_dim: F * D, or the interaction's O.
        penalty: the weighted loss of the interaction in the last training forward; None without one.
    """

    def __init__(
        self, shape: FieldShape, interaction: FeatureInteraction | None = None, aux_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.interaction = interaction
        self.aux_weight = aux_weight
        self.output_dim = shape.flat_dim if interaction is None else interaction.output_dim
        self.penalty: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the penalty: a copy of the model has no forward behind it, and torch copies no result of one."""
        return {**self.__dict__, "penalty": None}

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """(B, F, D), (B, F) -> (B, output_dim)."""
        if self.interaction is None:
            return embeddings.flatten(1)
        output, loss = interact(self.interaction, embeddings, ids, self.interaction.prepare(ids))
        # Set in every forward: None in evaluation, where an earlier batch's must not remain.
        self.penalty = self.aux_weight * loss if loss is not None and self.training and self.aux_weight else None
        return output
