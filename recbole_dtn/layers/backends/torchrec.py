"""TorchRec's ``EmbeddingCollection`` over the memory of a :class:`RowTable`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.layers.backends.base import OtherTable

__all__ = ["TorchRecTable"]

NAME = "rows"


class TorchRecTable(OtherTable):
    """A table whose rows a TorchRec ``EmbeddingCollection`` gathers, unsharded.

    Unsharded, the collection is an ``nn.Embedding`` behind TorchRec's types: it is trained by any of our optimisers,
    and is no faster than ``torch``. What TorchRec adds, tables sharded over processes, is not used.
    """

    def __init__(self, rows: int, dim: int, *, std: float, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        super().__init__(rows, dim, std=std, dtype=dtype, **options)
        self._collections: tuple[Any, ...] = ()  # none or one; in a tuple, so that it is no submodule

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (any shape of int64) -> the same shape + (dim,), without a gradient."""
        sparse = import_module("torchrec.sparse.jagged_tensor")
        collection, flat = self._collection(), rows.reshape(-1)
        keyed = sparse.KeyedJaggedTensor([NAME], flat, lengths=torch.tensor([len(flat)], device=flat.device))
        found: Tensor = collection(keyed)[NAME].values()
        return found.detach().view(*rows.shape, self.embedding_dim)

    def _collection(self) -> Any:
        if not (self._collections and self._collections[0].embeddings[NAME].weight is self.weight):
            modules = import_module("torchrec.modules.embedding_modules")
            configs = import_module("torchrec.modules.embedding_configs")
            config = configs.EmbeddingConfig(
                name=NAME, num_embeddings=self.num_embeddings, embedding_dim=self.embedding_dim, feature_names=[NAME]
            )
            # On the device without memory: its one table is then replaced by ours.
            collection = modules.EmbeddingCollection([config], device=torch.device("meta"))
            collection.embeddings[NAME].weight = self.weight
            self._collections = (collection,)
        return self._collections[0]
