"""One batch, as models see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

__all__ = ["Features", "MultiValued"]


@dataclass(frozen=True)
class MultiValued:
    """The values of one multi-valued field over a batch.

    ``values (V,)`` rows of the joint table; ``offsets (B+1,)``: row b owns ``values[offsets[b]:offsets[b+1]]``;
    ``weights (V,)`` or None.
    """

    values: Tensor
    offsets: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Features:
    """A batch of B rows, F fields, N continuous fields and T tasks.

    Attributes:
        ids: (B, F) int64 rows of the joint table; -1 for a field without one id (multi-valued, continuous).
        multi: multi-valued fields by their position in the schema.
        dense: (B, N) float32, standardised values of ``schema.dense_fields``; NaN where absent.
        labels: (B, T) float32. observed: (B, T) bool. Both absent (T = 0 columns) when only predicting.
        sample_weight: (B,) float32, or None. domain, group, row: (B,) int64, or None.
    """

    ids: Tensor
    multi: dict[int, MultiValued] = field(default_factory=dict)
    dense: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    observed: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.bool))
    sample_weight: Tensor | None = None
    domain: Tensor | None = None
    group: Tensor | None = None
    row: Tensor | None = None

    def __len__(self) -> int:
        return self.ids.shape[0]

    def rows(self, start: int, size: int) -> Features:
        """Rows ``start`` to ``start + size``, without copying them; fewer at the end of the batch.

        >>> many = MultiValued(torch.tensor([5, 6, 7]), torch.tensor([0, 2, 2, 3]))
        >>> part = Features(ids=torch.tensor([[1], [2], [3]]), multi={0: many}).rows(1, 5)
        >>> part.ids.tolist(), part.multi[0].values.tolist(), part.multi[0].offsets.tolist()
        ([[2], [3]], [7], [0, 0, 1])
        """
        total, stop = len(self), min(start + size, len(self))

        def cut(tensor: Tensor) -> Tensor:
            # An attribute that was not given has no row for each row of the batch.
            return tensor[start:stop] if len(tensor) == total else tensor

        def values(many: MultiValued) -> MultiValued:
            first, last = int(many.offsets[start]), int(many.offsets[stop])
            weights = None if many.weights is None else many.weights[first:last]
            return MultiValued(many.values[first:last], many.offsets[start : stop + 1] - first, weights)

        alone = replace(self, multi={}).map(cut)
        return replace(alone, multi={key: values(many) for key, many in self.multi.items()})

    def map(self, change: Callable[[Tensor], Tensor]) -> Features:
        """The same batch with ``change`` applied to every tensor."""

        def optional(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(
            self,
            ids=change(self.ids),
            multi={
                key: MultiValued(change(many.values), change(many.offsets), optional(many.weights))
                for key, many in self.multi.items()
            },
            dense=change(self.dense),
            labels=change(self.labels),
            observed=change(self.observed),
            sample_weight=optional(self.sample_weight),
            domain=optional(self.domain),
            group=optional(self.group),
            row=optional(self.row),
        )

    def split(self, parts: int) -> list[Features]:
        """The batch in ``parts`` runs of rows of equal length, the last ones one shorter; at most a row each."""
        rows = len(self)
        count = max(1, min(parts, rows))
        lengths = [rows // count + (place < rows % count) for place in range(count)]
        stops = list(accumulate(lengths))
        return [self._run(stop - length, stop) for stop, length in zip(stops, lengths, strict=True)]

    def _run(self, start: int, stop: int) -> Features:
        """Rows ``start`` to ``stop - 1``, as views."""
        # Offsets and values of multi-valued fields have other lengths than the batch.
        rest = replace(self, multi={}).map(lambda tensor: tensor[start:stop])
        multi = {}
        for key, many in self.multi.items():
            first, last = int(many.offsets[start]), int(many.offsets[stop])
            weights = None if many.weights is None else many.weights[first:last]
            multi[key] = MultiValued(many.values[first:last], many.offsets[start : stop + 1] - first, weights)
        return replace(rest, multi=multi)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Features:
        """The batch on ``device``."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Features:
        """The batch in page-locked memory, so that a copy to a GPU can overlap with work."""
        return self.map(lambda tensor: tensor.pin_memory())
