"""Fewer rows than tokens: large fields whose tokens share rows of the joint embedding table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from recbole_dtn.layers.table import RowTable
from recbole_dtn.schema import FIRST_TOKEN, DataSchema

__all__ = ["Compression", "RowBlock", "SharedRows", "describe", "row_blocks"]


@dataclass(frozen=True)
class Compression:
    """Which tokens share rows, and how a token's vector is made of them.

    Tokens are counted by their rank i in the vocabulary, 0 being the most frequent one that shares rows, n the number
    of those, and m = ceil(n / collisions)::

        hash                          e_i = R[i mod m]
        quotient_remainder, product   e_i = R[i mod m] * Q[i div m]
        quotient_remainder, sum       e_i = R[i mod m] + Q[i div m]

    ``hash`` is the hashing trick over ranks: the m most frequent tokens never share a row with one another.
    ``quotient_remainder`` is Algorithm 2 of Shi et al. (KDD 2020, arXiv 1909.02107): the pair (i mod m, i div m) is
    unique, so that every token has a vector of its own. The paper's third operation, concatenation, would need tables
    of half the width and is not offered.

    Attributes:
        method: as above. above: a field is compressed when its vocabulary has more tokens than this.
        collisions: tokens per row of R (the paper's "enforced hash collisions"), at least 2.
        keep: number of most frequent tokens of a field that keep rows of their own, besides absent and unknown.
        operation: ``product`` or ``sum``; read by ``quotient_remainder`` alone.
    """

    method: Literal["hash", "quotient_remainder"]
    above: int
    collisions: int
    keep: int = 0
    operation: Literal["product", "sum"] = "product"

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> Compression | None:
        """From plain values of the setting ``embedding_compression``; None where the method is ``none``."""
        return None if options is None or options["method"] == "none" else cls(**options)

    @property
    def paired(self) -> bool:
        """Whether a shared token has two rows."""
        return self.method == "quotient_remainder"


@dataclass(frozen=True)
class RowBlock:
    """The rows of a field in the table: its own, then R, then Q.

    Attributes:
        offset: first row. own: rows that belong to one id each: all of them where the field is not compressed.
        remainders: rows of R. quotients: rows of Q. shared: tokens that share them.
    """

    offset: int
    own: int
    remainders: int = 0
    quotients: int = 0
    shared: int = 0

    @property
    def size(self) -> int:
        """Rows of the field."""
        return self.own + self.remainders + self.quotients


def row_blocks(schema: DataSchema, compression: Compression | None) -> tuple[RowBlock, ...]:
    """The block of every field, in order; without compression they are the schema's offsets and sizes.

    Fields of tokens are compressed (single- and multi-valued), numbers and their bins are not, nor is a field whose
    shared rows would not be fewer than the tokens that share them.

    >>> from recbole_dtn.schema import FieldSpec
    >>> schema = DataSchema((FieldSpec("a", "token", 5, 0), FieldSpec("b", "token", 102, 5)), ())
    >>> for block in row_blocks(schema, Compression("quotient_remainder", above=50, collisions=4)):
    ...     print(block)
    RowBlock(offset=0, own=5, remainders=0, quotients=0, shared=0)
    RowBlock(offset=5, own=2, remainders=25, quotients=4, shared=100)
    """
    found: list[RowBlock] = []
    offset = 0
    for spec in schema.fields:
        block = RowBlock(offset, spec.size)
        if compression is not None and spec.kind != "float" and spec.size - FIRST_TOKEN > compression.above:
            # A vocabulary is ordered by frequency, so the tokens that share rows are its last ones. At least 1:
            # ``keep`` may exceed the vocabulary, and the last test then leaves the field as it is.
            shared = max(spec.size - FIRST_TOKEN - compression.keep, 1)
            remainders = -(-shared // compression.collisions)
            # One row of Q per value of i div m, at most ``collisions`` of them since m >= n / collisions.
            quotients = -(-shared // remainders) if compression.paired else 0
            if remainders + quotients < shared:
                block = RowBlock(offset, spec.size - shared, remainders, quotients, shared)
        found.append(block)
        offset += block.size
    return tuple(found)


def describe(schema: DataSchema, compression: Compression) -> str:
    """One line for the user: which fields are compressed, to how many rows.

    >>> from recbole_dtn.schema import FieldSpec
    >>> schema = DataSchema((FieldSpec("user", "token", 9_002, 0),), ())
    >>> describe(schema, Compression("hash", above=5_000, collisions=4))
    'embedding_compression: user, 9,000 tokens on 2,250 rows'
    >>> describe(schema, Compression("hash", above=10_000, collisions=4))
    'embedding_compression: no field has more than 10,000 tokens, so that none is compressed'
    """
    blocks = row_blocks(schema, compression)
    found = [
        f"{spec.name}, {spec.size - FIRST_TOKEN:,} tokens on {block.size - FIRST_TOKEN:,} rows"
        for spec, block in zip(schema.fields, blocks, strict=True)
        if block.shared
    ]
    none = f"no field has more than {compression.above:,} tokens, so that none is compressed"
    return f"embedding_compression: {'; '.join(found) or none}"


class SharedRows(nn.Module):
    """Looks a batch up in a table with compressed fields: one gather, whatever the method.

    Ids are rows of the schema's joint table, as in the rest of the package: only the look-up depends on compression. A
    table with quotients ends in one row of zeros. Ids with a row of their own read it as their second row; its gradient
    is 0, so it stays zero.

    Args:
        schema: fields. compression: the method. groups: field positions of the columns of each part that
            :meth:`look_up` is given.

    Attributes:
        blocks: of each field. num_rows: of the table. zeros: the row of zeros.
    """

    def __init__(self, schema: DataSchema, compression: Compression, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.blocks = row_blocks(schema, compression)
        self.product = compression.operation == "product"
        self.zeros = sum(block.size for block in self.blocks)
        # The row of zeros follows the rows of all fields, so that it moves none of them.
        self.num_rows = self.zeros + (1 if compression.paired else 0)
        self.groups = nn.ModuleList(_IdsToRows(schema, self.blocks, group, self.zeros) for group in groups)

    @torch.no_grad()
    def initialise(self, weight: Tensor, std: float) -> None:
        """From rows that are all N(0, std): the vector of every token starts with mean 0 and that standard deviation.

        R and Q become N(0, sqrt(std)) for a product, since the variance of a product of independent numbers of mean 0
        is the product of their variances, and N(0, std / sqrt(2)) for a sum.
        """
        for block in self.blocks:
            if block.quotients:
                # R and Q lie side by side behind the field's own rows.
                weight[block.offset + block.own : block.offset + block.size] *= std**-0.5 if self.product else 0.5**0.5
        if self.num_rows > self.zeros:
            weight[self.zeros] = 0.0

    def look_up(self, table: RowTable, parts: Sequence[Tensor], *, batch_size: int) -> list[Tensor]:
        """Vectors of every id, in the order given.

        Args:
            table: of ``num_rows`` rows. parts: ids (n, C), one column for each field of the part's group.
            batch_size: B of the table's penalty.

        Returns:
            One (n * C, D) for each part.
        """
        # Order of the rows looked up: the first rows of every part, then the second rows of those that have any. One
        # gather gives the table one gradient and one penalty.
        placed = [group(part) for group, part in zip(self.groups, parts, strict=True)]
        seconds = [each.second for each in placed if each.second is not None]
        wanted = [*(each.first for each in placed), *seconds]
        found = table.look_up(torch.cat([rows.flatten() for rows in wanted]), batch_size=batch_size)
        chunks = torch.split(found, [rows.numel() for rows in wanted])
        rest = iter(chunks[len(placed) :])
        return [
            # zip ends with the parts, so that ``rest`` holds the second rows alone, in the same order.
            chunk if each.second is None else self._combined(chunk, next(rest), each)
            for chunk, each in zip(chunks, placed, strict=False)
        ]

    def _combined(self, chunk: Tensor, second: Tensor, placed: _PartRows) -> Tensor:
        """The part's vectors (n, D) with those of its paired columns made of two rows."""
        assert placed.second is not None
        dim = chunk.shape[1]
        # (n, C, D): index_select picks the P paired columns, index_copy puts their products or sums back.
        vectors = chunk.view(*placed.first.shape, dim)
        first = vectors if placed.columns is None else vectors.index_select(1, placed.columns)
        own = (placed.second == self.zeros).unsqueeze(-1)
        # For an id with a row of its own, 1 (product) or 0 (sum) replaces the row of zeros, which then gets no
        # gradient.
        second = second.view(*placed.second.shape, dim).masked_fill(own, 1.0 if self.product else 0.0)
        both = first * second if self.product else first + second
        return (both if placed.columns is None else vectors.index_copy(1, placed.columns, both)).view(-1, dim)


class _PartRows(NamedTuple):
    """Rows of a part (n, C); second rows (n, P) of its paired columns, or None; which those are, None for all."""

    first: Tensor
    second: Tensor | None
    columns: Tensor | None


class _IdsToRows(nn.Module):
    """From ids of some fields, one to a column, to rows of the table."""

    def __init__(self, schema: DataSchema, blocks: Sequence[RowBlock], fields: Sequence[int], zeros: int) -> None:
        super().__init__()
        chosen = [blocks[position] for position in fields]
        paired = [column for column, block in enumerate(chosen) if block.quotients]
        self.zeros = zeros
        self.some, self.all = bool(paired), len(paired) == len(chosen)

        def numbers(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64)

        # (C,) each, broadcast over ids (n, C). Not saved: schema and settings give them again.
        self.register_buffer("start", numbers([schema.fields[i].offset for i in fields]), persistent=False)
        self.register_buffer("offset", numbers([block.offset for block in chosen]), persistent=False)
        self.register_buffer("own", numbers([block.own for block in chosen]), persistent=False)
        # A field that is not compressed has no id beyond its own rows; its divisor is 1, since it must not be 0.
        self.register_buffer("remainders", numbers([max(1, block.remainders) for block in chosen]), persistent=False)
        self.register_buffer("paired", numbers(paired), persistent=False)
        self.start: Tensor
        self.offset: Tensor
        self.own: Tensor
        self.remainders: Tensor
        self.paired: Tensor

    def forward(self, ids: Tensor) -> _PartRows:
        local = ids - self.start
        # i of the formulas; negative for an id with a row of its own, whose result below is not selected.
        rank = local - self.own
        first = self.offset + torch.where(rank < 0, local, self.own + rank % self.remainders)
        if not self.some:
            return _PartRows(first, None, None)
        # The first row of Q.
        behind = self.offset + self.own + self.remainders
        if not self.all:
            rank, behind = rank.index_select(1, self.paired), behind.index_select(0, self.paired)
        divisor = self.remainders if self.all else self.remainders.index_select(0, self.paired)
        second = torch.where(rank < 0, self.zeros, behind + rank // divisor)
        return _PartRows(first, second, None if self.all else self.paired)
