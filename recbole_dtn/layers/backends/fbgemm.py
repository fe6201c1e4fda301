"""FBGEMM's table-batched embedding over the memory of a :class:`RowTable`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.layers.table import LookUp, RowTable

__all__ = ["RULES", "FbgemmTable", "TableBatched"]

RULES = {"rowwise_adagrad": "EXACT_ROWWISE_ADAGRAD", "adagrad": "EXACT_ADAGRAD", "sgd": "EXACT_SGD"}
"""Update rules, by the name of ``embedding_optimizer`` and by FBGEMM's."""


class TableBatched:
    """FBGEMM's ``SplitTableBatchedEmbeddingBagsCodegen`` over the memory of an existing table.

    Its forward looks rows up; the backward of what it returns updates those rows in place, duplicates summed first.
    No module of its own, so that a model's parameters and their names stay what they are.

    Args:
        weight: (R, D) float32, contiguous; D a multiple of 4. rule: a key of :data:`RULES`.
        state: the rule's accumulator: (R,) of ``rowwise_adagrad``, (R, D) of ``adagrad``, none of ``sgd``.
    """

    def __init__(self, weight: Tensor, rule: str = "sgd", state: Tensor | None = None) -> None:
        self.memory = self._memory(weight, state)
        # A module made while ``predict`` runs serves training too: inference tensors could not.
        with torch.inference_mode(False):
            self.module = self._build(weight, rule)
            self._put("weights", weight)
            if state is not None:
                self._put("momentum1", state)

    @staticmethod
    def _memory(weight: Tensor, state: Tensor | None) -> tuple[Any, ...]:
        return tuple((part.device, part.data_ptr(), part.shape) for part in (weight, state) if part is not None)

    def lies_over(self, weight: Tensor, state: Tensor | None = None) -> bool:
        """Whether these tensors are still the memory it was built over (a move to another device changes it)."""
        return self.memory == self._memory(weight, state)

    @staticmethod
    def _build(weight: Tensor, rule: str) -> Any:
        common = import_module("fbgemm_gpu.split_table_batched_embeddings_ops_common")
        training = import_module("fbgemm_gpu.split_table_batched_embeddings_ops_training")
        configs = import_module("fbgemm_gpu.split_embedding_configs")
        kind = weight.device.type
        place, compute = ("HOST", "CPU") if kind == "cpu" else ("DEVICE", "CUDA")
        spec = (*weight.shape, common.EmbeddingLocation[place], training.ComputeDevice[compute])
        return training.SplitTableBatchedEmbeddingBagsCodegen(
            [spec],
            optimizer=configs.EmbOptimType[RULES[rule]],
            # One vector per look-up: EmbeddingTable pools. A row beyond the table raises instead of reading other
            # memory.
            pooling_mode=common.PoolingMode.NONE,
            bounds_check_mode=common.BoundsCheckMode.FATAL,
            stochastic_rounding=False,
            device=weight.device,
        )

    def _put(self, name: str, tensor: Tensor) -> None:
        """Replace the module's own memory by that of ``tensor``."""
        key = f"{name}_host" if tensor.device.type == "cpu" else f"{name}_dev"
        # FBGEMM keeps a table flat. The new parameter shares the memory of ``tensor``, so that its update is the
        # model's.
        own, flat = getattr(self.module, key), tensor.detach().view(-1)
        assert own.shape == flat.shape
        assert own.dtype is flat.dtype
        setattr(self.module, key, nn.Parameter(flat, own.requires_grad) if isinstance(own, nn.Parameter) else flat)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (n,) int64 -> (n, D) float32. Every look-up is a bag of its own: a GPU works on bags in parallel."""
        found: Tensor = self.module(rows, torch.arange(len(rows) + 1, device=rows.device))
        return found

    def update(self, rows: Tensor, gradient: Tensor, *, lr: float, eps: float) -> None:
        """Move rows (n,), in which a row may come several times, by their gradients (n, D)."""
        # Before the forward: FBGEMM's backward uses the rate that its forward has seen.
        self.module.update_hyper_parameters({"lr": lr, "eps": eps})
        with torch.enable_grad():
            self(rows).backward(gradient)  # type: ignore[no-untyped-call]


class FbgemmTable(RowTable):
    """A table whose rows FBGEMM's kernel gathers, and FBGEMM's rule updates (``optim.fbgemm``).

    The weight stays the parameter of the model, under the same name: checkpoints, optimisers, AMP and DDP see the same
    table. Between look-up and update, gradients are ordinary sparse ones. FBGEMM's usual way, an update inside the
    backward pass, would see the losses of one task at a time, gradients still scaled by AMP, and those of one process
    alone.

    Raises:
        UsageError: for a width that is not a multiple of 4, or a type other than float32.
    """

    def __init__(self, rows: int, dim: int, *, std: float, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        if dim % 4 or dtype is not torch.float32:
            raise UsageError(
                "embedding_backend=fbgemm: expected an embedding_size that is a multiple of 4 and "
                f"embedding_dtype=float32; found {dim} and {str(dtype).removeprefix('torch.')}"
            )
        super().__init__(rows, dim, std=std, dtype=dtype, **options)
        self._kernels: Sequence[TableBatched] = ()  # none or one; in a tuple, so that it is not a submodule

    def look_up(self, rows: Tensor, *, batch_size: int) -> Tensor:
        """As :meth:`RowTable.look_up`."""
        found: Tensor
        scale = self.l2 / batch_size if self.training else 0.0
        found, self.penalty = LookUp.apply(self.weight, rows, self.sparse, scale, self.gather)  # type: ignore[no-untyped-call]
        return found

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (any shape of int64) -> the same shape + (dim,), without a gradient."""
        # The weight has other memory after ``model.to`` another device.
        if not (self._kernels and self._kernels[0].lies_over(self.weight)):
            self._kernels = (TableBatched(self.weight),)
        # Under inference_mode FBGEMM's operators, which are registered as autograd's, would not be found.
        with torch.inference_mode(False), torch.no_grad():
            found = self._kernels[0](rows.reshape(-1))
        return found.view(*rows.shape, self.embedding_dim)
