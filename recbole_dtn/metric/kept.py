"""Base class of metrics that cannot be computed from sums: it stores values of every row."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from recbole_dtn.metric.base import Rows, TaskMetric

__all__ = ["KeepingMetric", "RowsMetric", "narrowed"]

PARTS, BLOCK = 128, 1 << 18
"""This many tensors of a state are joined to one, unless they have a block of rows already."""
TYPES = (torch.float32, torch.float64, torch.int32, torch.int64)


def narrowed(numbers: Tensor) -> Tensor:
    """int64 numbers as int32 if that holds them all.

    >>> narrowed(torch.tensor([5, 2**31])).dtype, narrowed(torch.tensor([-5, 5])).dtype
    (torch.int64, torch.int32)
    """
    narrow = not len(numbers) or (int(numbers.max()) < 2**31 and int(numbers.min()) >= -(2**31))
    return numbers.to(torch.int32) if narrow else numbers


class KeepingMetric(TaskMetric):
    """A metric whose state is one growing column, or several, of numbers: float32, float64, int32 or int64.

    Attributes:
        kept: names of the columns.
    """

    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        for name in self.kept:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def keep(self, name: str, values: Tensor) -> None:
        """Append ``values`` (N,) to a column."""
        parts = getattr(self, name)
        assert isinstance(parts, list)
        parts.append(values)
        # An object of a few rows takes more memory than its rows do. Joined in groups of PARTS, each row is copied
        # once or twice, and not once per batch as it would be in one growing tensor.
        if len(parts) >= PARTS and len(parts[-PARTS]) < BLOCK:
            parts[-PARTS:] = [torch.cat(parts[-PARTS:])]

    def whole(self, name: str) -> Tensor:
        """A column as one tensor; of the widest type that it was given."""
        parts = getattr(self, name)
        # After a gather torchmetrics leaves one tensor in place of the list.
        if not len(parts):
            return torch.empty(0)
        return dim_zero_cat(parts) if isinstance(parts, Tensor) or len(parts) > 1 else parts[0]

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        # All processes must send tensors of one type: those without a row, and those with float32 where another has
        # float64, take the widest.
        columns = [self.whole(name) for name in self.kept]
        types = torch.tensor([TYPES.index(column.dtype) if len(column) else -1 for column in columns])
        widest = torch.stack(dist_sync_fn(types, process_group)).amax(0).clamp(min=0).tolist()
        for name, column, index in zip(self.kept, columns, widest, strict=True):
            setattr(self, name, [column.to(TYPES[index])])
        super()._sync_dist(dist_sync_fn, process_group)


class RowsMetric(KeepingMetric):
    """A metric that reads all rows at once; a subclass writes ``compute`` from :meth:`rows`.

    Keeps 8 bytes a row, and 4 more for each of sample weight, group and domain, the latter two only where it needs
    them (8 instead of 4 for float64 logits or labels, and for numbers of groups that int32 does not hold).
    """

    kept = ("logits", "labels", "weights", "groups", "domains")

    def add(self, rows: Rows) -> None:
        self.keep("logits", rows.logits)
        self.keep("labels", rows.labels if rows.labels.dtype is torch.float64 else rows.labels.float())
        if rows.weights is not None:
            self.keep("weights", rows.weights)
        if self.needs_group:
            assert rows.group is not None
            self.keep("groups", narrowed(rows.group))
        if self.needs_domain:
            assert rows.domain is not None
            self.keep("domains", narrowed(rows.domain))

    def rows(self) -> Rows:
        """The rows of some weight, of all processes when called in ``compute``."""
        logits, labels, weights, groups, domains = map(self.whole, self.kept)
        if len(weights) not in (0, len(logits)):
            raise ValueError(f"sample weights of all rows or of none: {len(weights)} weights for {len(logits)} rows")
        found = Rows(
            logits,
            labels,
            weights if len(weights) else None,
            groups.long() if self.needs_group else None,
            domains.long() if self.needs_domain else None,
        )
        return found if found.weights is None else found.take(found.weights > 0)
