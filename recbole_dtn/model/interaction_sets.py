"""Sets of interaction modules, one per owner, run over one batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.build import Spec, build_interactions
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.front import interact

__all__ = ["InteractionSets", "interaction_experts"]


class InteractionSets(nn.ModuleList):
    """The same list of interactions built once per owner: ``F_{o,j}(e_o)`` for owner o and module j.

    What a method computes of the ids alone (MemoNet's hashes) is prepared once a batch and serves all owners.

    Args:
        specs: the interactions of a set. shape: sizes of the embeddings. output_dim: O, of every module.
        owners: number of sets. aux_weight: weight of the modules' own losses.

    Attributes:
        names: of the modules of a set. output_dim: O.

    >>> shape = FieldShape(num_fields=2, embedding_dim=4, id_fields=(0, 1), field_sizes=(5, 5))
    >>> sets = InteractionSets(["gdcn", "masknet"], shape, 6, owners=3)
    >>> outputs, losses = sets([torch.zeros(7, 2, 4)] * 3, torch.zeros(7, 2, dtype=torch.int64))
    >>> [tuple(output.shape) for output in outputs], losses
    ([(7, 2, 6), (7, 2, 6), (7, 2, 6)], {})
    """

    def __init__(
        self, specs: Sequence[Spec], shape: FieldShape, output_dim: int, *, owners: int, aux_weight: float = 0.0
    ) -> None:
        sets = [build_interactions(specs, shape, output_dim) for _ in range(owners)]
        super().__init__(sets)
        self.names = tuple(sets[0])
        self.output_dim = output_dim
        self.aux_weight = aux_weight

    def forward(
        self, embeddings: Sequence[Tensor], ids: Tensor, raw: Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], Mapping[str, Tensor]]:
        """Run all modules.

        Args:
            embeddings: (B, F, D) per owner. ids: (B, F).
            raw: (B, F, D) per owner, for modules that read the ids; None: ``embeddings``.

        Returns:
            The outputs (B, M, O) per owner; and the sum of the modules' own losses, weighted, under ``interactions``
            (empty where there are none).
        """
        prepared: dict[Hashable, Any] = {}
        losses: list[Tensor] = []
        outputs: list[Tensor] = []
        for owned, scaled, plain in zip(self, embeddings, embeddings if raw is None else raw, strict=True):
            found = []
            for module in cast("Sequence[FeatureInteraction]", owned.children()):
                key = module.share_key()
                if key not in prepared:
                    prepared[key] = module.prepare(ids)
                output, loss = interact(module, plain if module.reads_ids else scaled, ids, prepared[key])
                found.append(output)
                if loss is not None:
                    losses.append(loss)
            outputs.append(torch.stack(found, dim=1))
        if not losses or not self.aux_weight:
            return outputs, {}
        return outputs, {"interactions": self.aux_weight * torch.stack(losses).sum()}


def interaction_experts(model: MultiTaskRecommender, specs: Sequence[Spec], *, owners: int) -> InteractionSets:
    """The experts of a model whose setting ``experts`` names interactions, as wide as its ``module_dim``.

    Raises:
        UsageError: where there is a ``shared_interaction`` too.
    """
    settings = model.settings
    if settings.shared_interaction is not None:
        raise UsageError(
            f"shared_interaction: the experts of this {type(model).__name__} are interactions, which read the "
            "embeddings: leave shared_interaction out, or experts"
        )
    return InteractionSets(
        specs, model.field_shape(), settings.module_dim, owners=owners, aux_weight=settings.aux_weight
    )
