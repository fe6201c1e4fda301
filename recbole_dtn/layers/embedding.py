"""One embedding table for all fields: one gather per batch, then pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.layers.backends import new_table
from recbole_dtn.layers.compression import Compression, SharedRows, row_blocks
from recbole_dtn.schema import UNKNOWN, DataSchema

__all__ = ["EmbeddingTable", "pool"]


def pool(vectors: Tensor, many: MultiValued, mode: str) -> Tensor:
    """Pool the vectors of each row's values; a row without values gives zeros.

    ``sum``: sum_v w_v e_v; ``mean``: the same over sum_v w_v (over 1 where the weights sum to 0). Without weights
    every w_v is 1, so that the mean is the plain one.

    Args:
        vectors: (V, D), one per value. many: values, offsets (B+1,) and weights. mode: ``sum`` or ``mean``.

    Returns:
        (B, D).

    >>> many = MultiValued(torch.arange(3), torch.tensor([0, 2, 2, 3]))
    >>> pool(torch.tensor([[1.0], [3.0], [5.0]]), many, "mean").flatten().tolist()
    [2.0, 0.0, 5.0]
    """
    lengths = many.offsets.diff()
    rows = lengths.shape[0]
    # (V,): the row of the batch that each value belongs to. With ``output_size`` a GPU is not waited for.
    owner = torch.repeat_interleave(lengths, output_size=vectors.shape[0])
    weights = None if many.weights is None else many.weights.to(vectors.dtype)
    weighted = vectors if weights is None else vectors * weights.unsqueeze(1)
    total = vectors.new_zeros(rows, vectors.shape[1]).index_add(0, owner, weighted)
    if mode == "sum":
        return total
    mass = lengths.to(vectors.dtype) if weights is None else vectors.new_zeros(rows).index_add(0, owner, weights)
    # A row without values has total 0: divided by 1 it stays 0, with a finite gradient.
    return total / torch.where(mass == 0, torch.ones_like(mass), mass).unsqueeze(1)


class FieldSelection(nn.Module):
    """Turns a batch of all fields into a batch of some, with rows numbered as in ``schema.select(positions)``.

    Args:
        schema: all fields. positions: those to keep, in order.
    """

    def __init__(self, schema: DataSchema, positions: Sequence[int]) -> None:
        super().__init__()
        chosen = schema.select(positions)
        # How far the rows of each kept field move down where fields before it are left out.
        shifts = [schema.fields[i].offset - spec.offset for i, spec in zip(positions, chosen.fields, strict=True)]
        dense = [column for column, i in enumerate(schema.dense_fields) if i in positions]
        self.multi = {i: (place, shifts[place]) for place, i in enumerate(positions) if i in schema.multi_fields}
        self.register_buffer("positions", torch.tensor(positions, dtype=torch.int64), persistent=False)
        self.register_buffer("shifts", torch.tensor(shifts, dtype=torch.int64), persistent=False)
        self.register_buffer("dense", torch.tensor(dense, dtype=torch.int64), persistent=False)
        self.positions: Tensor
        self.shifts: Tensor
        self.dense: Tensor

    def forward(self, features: Features) -> Features:
        """The same rows with the kept fields alone."""
        ids = features.ids.index_select(1, self.positions)
        multi = {
            place: replace(features.multi[i], values=features.multi[i].values - shift)
            for i, (place, shift) in self.multi.items()
        }
        dense = features.dense.index_select(1, self.dense) if len(self.dense) else features.dense[:, :0]
        return replace(features, ids=torch.where(ids < 0, ids, ids - self.shifts), multi=multi, dense=dense)


class EmbeddingTable(nn.Module):
    """Embeddings (B, F, D) of a batch from one table over the rows of all fields, or of some.

    A single id gives its row. A multi-valued field is pooled (:func:`pool`). A continuous field at offset o gives
    ``value * row[o + 1]``, and ``row[o]`` where the value is absent (NaN). The row of unknown tokens starts at zero
    in the fields of ``schema.extra["zero_unknown"]``. These fields have no rare training token, so the row is never
    trained and would keep its random initial value.

    Args:
        schema: fields, sizes and offsets. dim: D. std: standard deviation of the initial rows. dtype: of the rows as
            they are kept; look-ups are float32. compression: how tokens of large fields share rows, if they do.
        backend: the library that looks rows up (:func:`recbole_dtn.layers.backends.new_table`).
        fields: positions of the fields that the table is for; None: all of them. F counts these alone.

    Attributes:
        field_names: names of its fields, in the order of the output. output_dim: F * D.
        compressed: maps ids to shared rows; None where no field is large enough to be compressed.
    """

    def __init__(
        self,
        schema: DataSchema,
        dim: int,
        *,
        std: float,
        dtype: torch.dtype = torch.float32,
        compression: Compression | None = None,
        backend: str = "torch",
        fields: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.selection: FieldSelection | None = None
        if fields is not None and len(set(fields)) < schema.num_fields:
            self.selection = FieldSelection(schema, sorted(set(fields)))
            schema = schema.select(fields)
        self.field_names = tuple(spec.name for spec in schema.fields)
        self.output_dim = schema.num_fields * dim
        blocks = row_blocks(schema, compression)
        self.compressed: SharedRows | None = None
        if compression is not None and any(block.shared for block in blocks):
            # The parts in the order in which ``forward`` makes them.
            groups = [schema.id_fields, *([schema.dense_fields] if schema.dense_fields else [])]
            self.compressed = SharedRows(schema, compression, [*groups, *((i,) for i in schema.multi_fields)])
        rows = schema.num_rows if self.compressed is None else self.compressed.num_rows
        self.table = new_table(backend, rows, dim, std=std, dtype=dtype)
        # Absent and unknown come first in a field's rows, compressed or not.
        untrained = [blocks[i].offset + UNKNOWN for i in schema.extra.get("zero_unknown", ())]
        with torch.no_grad():
            self.table.weight[untrained] = 0.0
        if self.compressed is not None:
            self.compressed.initialise(self.table.weight, std)
        self.multi_fields = schema.multi_fields
        self.pooling = tuple(schema.fields[i].pooling for i in schema.multi_fields)
        # Fields in the order in which ``forward`` joins them; ``order`` puts them back into the schema's.
        gathered = schema.id_fields + schema.dense_fields + schema.multi_fields
        self.in_order = gathered == tuple(range(schema.num_fields))
        self.only_ids = len(schema.id_fields) == schema.num_fields and self.compressed is None
        offsets = torch.tensor([schema.fields[i].offset for i in schema.dense_fields], dtype=torch.int64)
        self.register_buffer("id_fields", torch.tensor(schema.id_fields, dtype=torch.int64), persistent=False)
        self.register_buffer("dense_offsets", offsets, persistent=False)
        self.register_buffer("order", torch.tensor(gathered, dtype=torch.int64).argsort(), persistent=False)
        self.id_fields: Tensor
        self.dense_offsets: Tensor
        self.order: Tensor

    def forward(self, features: Features) -> Tensor:
        """A batch of B rows -> (B, F, D)."""
        if self.selection is not None:
            features = self.selection(features)
        # Not len(), which would make a constant of it where the model is exported.
        batch, dim = features.ids.shape[0], self.table.embedding_dim
        # The ids are the rows: no part to join, and no column to move.
        if self.only_ids:
            return self.table.look_up(features.ids, batch_size=batch)
        # The parts: ids (B, F_id), rows of the continuous fields (B, N), and (V, 1) per multi-valued field. All are
        # looked up at once: a RowTable keeps the penalty of its last look-up alone.
        many = [features.multi[position] for position in self.multi_fields]
        parts = [features.ids.index_select(1, self.id_fields)]
        values = None
        if len(self.dense_offsets):
            present = ~features.dense.isnan()
            # The absent row is taken times one; multiplying by NaN and selecting later would send NaN into gradients.
            values = torch.where(present, features.dense, 1.0)
            parts.append(self.dense_offsets + present)
        first_many = len(parts)
        parts.extend(each.values.unsqueeze(1) for each in many)
        chunks: Sequence[Tensor]
        if self.compressed is None:
            found = self.table.look_up(torch.cat([part.flatten() for part in parts]), batch_size=batch)
            chunks = torch.split(found, [part.numel() for part in parts])
        else:
            chunks = self.compressed.look_up(self.table, parts, batch_size=batch)
        fields = [chunks[0].view(batch, -1, dim)]
        if values is not None:
            fields.append(chunks[1].view(batch, -1, dim) * values.to(chunks[1].dtype).unsqueeze(2))
        pooled = zip(chunks[first_many:], many, self.pooling, strict=True)
        fields.extend(pool(vectors, each, mode).unsqueeze(1) for vectors, each, mode in pooled)
        embeddings = torch.cat(fields, dim=1) if len(fields) > 1 else fields[0]
        return embeddings if self.in_order else embeddings.index_select(1, self.order)
