"""Regression trees as tensors: taken from scikit-learn once, then evaluated without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["GrowingBuffers", "Trees"]

Matrix = npt.NDArray[np.float64]
CELLS = 1 << 19
"""Pairs of a row and a tree that are evaluated at a time."""
CODES = 256
"""Codes of a category, 0 to 255, whose sides a split keeps as bits."""


class GrowingBuffers(nn.Module):
    """A module whose buffers take the shapes of the state that is loaded: a fit decides how large they are."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(f"{prefix}{name}")
            if isinstance(saved, Tensor) and buffer is not None:
                self._buffers[name] = torch.empty(saved.shape, dtype=saved.dtype, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Trees(GrowingBuffers):
    """A sum of regression trees over rows (B, P), whose first columns are categories.

    ``score = baseline + sum_k leaf_k(row)``. A split on a number goes left where ``x <= threshold``, a split on a
    category where the category is in its set; an absent value (NaN), and a category that the tree was not grown with,
    goes to the side that the split has for them. A new module has no tree and the baseline 0.
    """

    baseline: Tensor
    roots: Tensor
    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    absent_left: Tensor
    split_set: Tensor
    sets: Tensor

    def __init__(self) -> None:
        super().__init__()
        kinds = {
            "roots": torch.int32,  # (K,): the node that each tree begins at
            "feature": torch.int32,  # (M,): column of each node; -1: a leaf
            "threshold": torch.float64,
            "left": torch.int32,
            "right": torch.int32,
            "value": torch.float64,  # (M,): of a leaf
            "absent_left": torch.bool,
            "split_set": torch.int32,  # (M,): row of ``sets``; -1: a split on a number
        }
        self.register_buffer("baseline", torch.zeros((), dtype=torch.float64))
        for name, dtype in kinds.items():
            self.register_buffer(name, torch.empty(0, dtype=dtype))
        # (S, CODES / 8): bit c of a row says whether code c goes left.
        self.register_buffer("sets", torch.empty(0, CODES // 8, dtype=torch.uint8))

    @property
    def numbers(self) -> int:
        """How many numbers the trees consist of: a threshold or set and two children per split, a value per leaf."""
        leaves = int((self.feature < 0).sum())
        return leaves + 3 * (len(self.feature) - leaves)

    def set_constant(self, value: float) -> None:
        """Score every row ``value``."""
        Trees.__init__(self)
        self.baseline.fill_(value)

    def take(self, predictors: Sequence[Any], baseline: float, categories: Sequence[npt.NDArray[np.float64]]) -> None:
        """Become a copy of scikit-learn's trees.

        Args:
            predictors: its ``TreePredictor`` of each round. baseline: what they are added to.
            categories: for each categorical column, the codes that it was fitted with, in order: scikit-learn numbers
                them from 0.
        """
        nodes = np.concatenate([predictor.nodes for predictor in predictors])
        sizes = np.array([len(predictor.nodes) for predictor in predictors])
        starts = np.cumsum(sizes) - sizes
        first = np.repeat(starts, sizes)
        leaf, categorical = nodes["is_leaf"].astype(bool), nodes["is_categorical"].astype(bool)
        split_set = np.where(~leaf & categorical, np.cumsum(~leaf & categorical) - 1, -1)
        lefts = [
            _left_codes(node, predictor.raw_left_cat_bitsets[node["bitset_idx"]], categories[node["feature_idx"]])
            for predictor in predictors
            for node in predictor.nodes[(predictor.nodes["is_leaf"] == 0) & (predictor.nodes["is_categorical"] == 1)]
        ]
        arrays = {
            "roots": starts,
            "feature": np.where(leaf, -1, nodes["feature_idx"]),
            "threshold": nodes["num_threshold"],
            "left": nodes["left"] + first,
            "right": nodes["right"] + first,
            "value": nodes["value"],
            "absent_left": nodes["missing_go_to_left"].astype(bool),
            "split_set": split_set,
            "sets": np.packbits(np.array(lefts, bool).reshape(-1, CODES), axis=1, bitorder="little"),
        }
        for name, array in arrays.items():
            self._buffers[name] = torch.from_numpy(np.ascontiguousarray(array)).to(getattr(self, name).dtype)
        self.baseline = torch.tensor(baseline, dtype=torch.float64)

    def scores(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """(B, P) -> (B,)."""
        found = np.full(len(matrix), float(self.baseline))
        trees = len(self.roots)
        if trees:
            size = max(1, CELLS // trees)
            for start in range(0, len(matrix), size):
                found[start : start + size] += self._sums(matrix[start : start + size])
        return found

    def _sums(self, matrix: Matrix) -> npt.NDArray[np.float64]:
        """The leaves' sum for each row: all pairs of a row and a tree descend at once, and leave at their leaf."""
        arrays = {name: buffer.cpu().numpy() for name, buffer in self.named_buffers()}
        feature, threshold, split_set = arrays["feature"], arrays["threshold"], arrays["split_set"]
        flat, width = np.ascontiguousarray(matrix).reshape(-1), matrix.shape[1]
        row = np.repeat(np.arange(len(matrix), dtype=np.int32), len(self.roots))
        node = np.tile(arrays["roots"], len(matrix))
        total = np.zeros(len(matrix))
        while len(node):
            column = feature.take(node)
            inner = column >= 0
            if not inner.all():
                done = ~inner
                total += np.bincount(row[done], arrays["value"].take(node[done]), minlength=len(matrix))
                row, node, column = row[inner], node[inner], column[inner]
            x = flat.take(row.astype(np.int64) * width + column)
            goes_left = x <= threshold.take(node)
            sets = split_set.take(node)
            among = np.flatnonzero(sets >= 0)
            if len(among):
                code = np.nan_to_num(x[among], nan=0.0).astype(np.int64)
                bits = arrays["sets"][sets[among], code >> 3]
                goes_left[among] = (bits >> (code & 7)) & 1
            absent = np.flatnonzero(np.isnan(x))
            goes_left[absent] = arrays["absent_left"].take(node[absent])
            node = np.where(goes_left, arrays["left"].take(node), arrays["right"].take(node))
        return total


def _left_codes(node: Any, bitset: npt.NDArray[np.uint32], codes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """(CODES,): which codes go left; codes that the tree was not grown with go where absent values go."""
    left = np.full(CODES, bool(node["missing_go_to_left"]))
    # Eight words of 32 bits: bit j stands for the j-th of the codes.
    places = np.arange(len(codes))
    left[codes.astype(np.int64)] = (bitset[places >> 5] >> (places & 31).astype(np.uint32)) & 1
    return left
