"""The matrix that trees read of a batch: categories, numbers, and a few columns of each multi-valued field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, DataSchema, FieldSpec

__all__ = ["TreeColumns"]

Matrix = npt.NDArray[np.float64]


class TreeColumns:
    """A batch as (B, P) float64: the P_c categorical columns first, then the numbers; NaN is absent.

    - A token field is one category per token: its row within the field (1 unknown, from 2 the tokens, most frequent
      first). With ``most`` categories, the last of them stands for all tokens that are left over.
    - A float is its encoded value: the standardised number, or the number of its bin, in the order of the values.
    - A multi-valued field is a number per value for its ``list_tokens`` most frequent tokens (its weight in the row, or
      how often it occurs; 0 if it does not), and the count of its values.

    Args:
        schema: fields. most: largest number of categories of a column; None: no limit. list_tokens: see above.

    Attributes:
        categorical: P_c. names: of the P columns.
    """

    def __init__(self, schema: DataSchema, *, most: int | None, list_tokens: int) -> None:
        self.schema, self.most = schema, most
        places = list(enumerate(schema.fields))
        self.tokens = [(place, spec) for place, spec in places if spec.kind == "token"]
        self.bins = [(place, spec) for place, spec in places if spec.kind == "float" and spec.bins]
        self.lists = [
            (place, spec, max(0, min(list_tokens, spec.size - FIRST_TOKEN)))
            for place, spec in places
            if spec.kind == "token_seq"
        ]
        self.categorical = len(self.tokens)
        self.names = [spec.name for _, spec in (*self.tokens, *self.bins)]
        self.names += [schema.fields[place].name for place in schema.dense_fields]
        for _, spec, kept in self.lists:
            self.names += [*(f"{spec.name}#{rank}" for rank in range(kept)), f"{spec.name}#count"]

    def left_over(self) -> list[str]:
        """Names of the token fields that have more tokens than categories."""
        return [spec.name for _, spec in self.tokens if self.most is not None and spec.size > self.most]

    def __call__(self, features: Features) -> Matrix:
        """The matrix of a batch on the CPU."""
        matrix = np.empty((len(features), len(self.names)))
        at = 0
        for place, spec in (*self.tokens, *self.bins):
            local = features.ids[:, place].numpy() - spec.offset
            matrix[:, at] = np.where(local == ABSENT, np.nan, self._category(local, spec))
            at += 1
        dense = len(self.schema.dense_fields)
        matrix[:, at : at + dense] = features.dense.numpy()[:, :dense]
        at += dense
        for place, spec, kept in self.lists:
            matrix[:, at : at + kept + 1] = _list_columns(features.multi[place], spec, len(features), kept)
            at += kept + 1
        return matrix

    def _category(self, local: npt.NDArray[np.int64], spec: FieldSpec) -> npt.NDArray[np.int64]:
        if spec.kind != "token" or self.most is None:
            return local
        return np.minimum(local, self.most - 1)

    @staticmethod
    def stack(parts: Sequence[Matrix]) -> Matrix:
        """The matrices one below the other."""
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _list_columns(many: MultiValued, spec: FieldSpec, batch: int, kept: int) -> Matrix:
    lengths = np.diff(many.offsets.numpy())
    owner = np.repeat(np.arange(batch), lengths)
    rank = many.values.numpy() - spec.offset - FIRST_TOKEN
    weights = np.ones(len(rank)) if many.weights is None else many.weights.numpy().astype(np.float64)
    shown = (rank >= 0) & (rank < kept)
    cells = owner[shown] * (kept + 1) + rank[shown]
    counted = np.bincount(cells, weights[shown], minlength=batch * (kept + 1))
    found: Matrix = counted.reshape(batch, kept + 1).astype(np.float64)
    found[:, kept] = lengths
    return found
