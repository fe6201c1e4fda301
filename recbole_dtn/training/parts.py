"""The setting ``batch_parts``: a training batch computed in parts, for less memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.domains import PartitionedNorm
from recbole_dtn.model.base import Factor, ModelOutput

__all__ = ["Forward", "check_parts", "forward_in_parts"]

Forward = Callable[[Features], tuple[ModelOutput, Mapping[str, Tensor]]]
"""What a model returns for a batch, and the penalties of that forward."""


def check_parts(model: nn.Module, parts: int) -> None:
    """Refuse a model whose rows depend on each other, where a batch is computed in parts.

    Raises:
        UsageError: naming the layer that normalises over the batch.
    """
    if parts == 1:
        return
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm | PartitionedNorm):
            raise UsageError(
                f"batch_parts: expected 1 for {type(model).__name__}, found {parts}: {name} normalises over the batch, "
                "which parts of it would change; use a smaller train_batch_size, or leave the normalisation out"
            )


def forward_in_parts(forward: Forward, batch: Features, parts: int) -> tuple[ModelOutput, dict[str, Tensor]]:
    """The forward of a batch in ``parts`` parts of rows, one after another.

    A part keeps its output alone; what its backward pass needs is computed again there, from the same random numbers.
    So the memory of activations is that of one part, for the time of one more forward in each backward pass (a
    balancer that asks for each task's gradients has T + 1 of them). What is computed from the output, such as losses
    over the observed rows, is that of the whole batch. ``shared`` is None: the logits do not depend on a tensor that
    joins the parts' representations.

    Args:
        forward: of the model. batch: B rows. parts: at most B of them are made.

    Returns:
        The output and the penalties. Auxiliary losses and penalties, means over rows, are weighted by the rows of
        their part.
    """
    pieces = batch.split(parts)
    found = [checkpoint(forward, piece, use_reentrant=False) for piece in pieces]
    outputs = [output for output, _ in found]
    shares = [len(piece) / len(batch) for piece in pieces]
    changed = {
        each.name: _joined([getattr(output, each.name) for output in outputs])
        for each in fields(outputs[0])
        if each.name not in ("auxiliary", "shared")
    }
    changed |= {"auxiliary": _weighted([output.auxiliary for output in outputs], shares), "shared": None}
    return replace(outputs[0], **changed), _weighted([penalties for _, penalties in found], shares)


def _joined(values: Sequence[Any]) -> Any:
    """One value of the rows of all parts: of tensors, or of maps and factors of them."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _joined([value[key] for value in values]) for key in first}
    if isinstance(first, Factor):
        return replace(first, logit=_joined([value.logit for value in values]))
    return None if first is None else torch.cat(list(values))


def _weighted(terms: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    return {
        key: torch.stack([share * part[key] for share, part in zip(shares, terms, strict=True)]).sum()
        for key in terms[0]
    }
