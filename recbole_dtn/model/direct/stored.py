"""Trees of another library, kept as the bytes of its own model format (no pickle) in a tensor."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recbole_dtn.data.progress import Meter
from recbole_dtn.errors import UsageError
from recbole_dtn.model.direct.columns import Matrix, TreeColumns
from recbole_dtn.model.direct.rows import TaskRows
from recbole_dtn.model.direct.tree_model import TaskTrees
from recbole_dtn.model.direct.trees import GrowingBuffers
from recbole_dtn.schema import TaskSpec

__all__ = ["StoredTrees", "require"]


def require(package: str) -> Any:
    """Import a package that is an extra.

    Raises:
        UsageError: with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"model: it needs the package {package}, which is not installed ({error}): pip install "
            f"'recbole_dtn[{package}]', or choose Boosting, which needs no other package"
        ) from error


class StoredTrees(GrowingBuffers, TaskTrees):
    """One task's trees. A library's class grows them, writes them as bytes and scores by them.

    Attributes:
        content: (bytes,) uint8, empty without trees. baseline: what is added to their scores.
        count: of the numbers that the trees consist of.
    """

    package: ClassVar[str]
    content: Tensor
    baseline: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("content", torch.empty(0, dtype=torch.uint8))
        self.register_buffer("baseline", torch.zeros((), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        # The library's object, with the tensor that it was read from.
        self._read: tuple[Tensor, Any] | None = None

    # ---- what a library's class writes --------------------------------------------------------------------------

    def grow(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, columns: TreeColumns, settings: Any, meter: Meter
    ) -> tuple[bytes, int, int, int]:
        """The kept trees as bytes, the count of their numbers, how many trees were grown, and how many were kept."""
        raise NotImplementedError

    def read(self, content: bytes) -> Any:
        """The library's object of what :meth:`grow` wrote."""
        raise NotImplementedError

    def raw(self, trees: Any, matrix: Matrix) -> npt.NDArray[np.float64]:
        """(B,): log-odds, or values, by the library's object."""
        raise NotImplementedError

    # ---- what all have ------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> int:
        return int(self.count)

    def set_constant(self, value: float) -> None:
        self.content, self.count = self.content.new_empty(0), torch.zeros_like(self.count)
        self.baseline.fill_(value)

    def fit(
        self, task: TaskSpec, train: TaskRows, valid: TaskRows, columns: TreeColumns, settings: Any, meter: Meter
    ) -> tuple[int, int]:
        """See :meth:`TaskTrees.fit`."""
        content, count, grown, kept = self.grow(task, train, valid, columns, settings, meter)
        self.set_constant(0.0)
        self.content = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        self.count.fill_(count)
        return grown, kept

    def scores(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        if not len(self.content):
            return np.full(len(matrix), float(self.baseline))
        if self._read is None or self._read[0] is not self.content:
            self._read = self.content, self.read(self.content.cpu().numpy().tobytes())
        return self.raw(self._read[1], matrix) + float(self.baseline)
