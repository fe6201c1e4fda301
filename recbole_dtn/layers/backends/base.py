"""What the tables of other libraries share."""

from __future__ import annotations

from torch import Tensor

from recbole_dtn.layers.table import LookUp, RowTable

__all__ = ["OtherTable"]


class OtherTable(RowTable):
    """A table whose :meth:`gather` is another library's; its gradient is that of a :class:`RowTable`.

    The weight stays the parameter of the model, under the same name: checkpoints, optimisers, AMP and DDP see the same
    table whatever looks it up.
    """

    def look_up(self, rows: Tensor, *, batch_size: int) -> Tensor:
        """As :meth:`RowTable.look_up`."""
        found: Tensor
        scale = self.l2 / batch_size if self.training else 0.0
        found, self.penalty = LookUp.apply(self.weight, rows, self.sparse, scale, self.gather)  # type: ignore[no-untyped-call]
        return found
