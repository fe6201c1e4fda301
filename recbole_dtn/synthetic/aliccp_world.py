"""The users, shops and items of a synthetic Ali-CCP: sizes, id ranges, and attributes of the items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_dtn.data.hashing import Ints, uniform
from recbole_dtn.synthetic.zipf import Scatter, Zipf

__all__ = ["FULL_ROWS", "PROFILE", "World"]

FULL_ROWS = 85_316_975
"""Impressions of the real set, train and test."""

# Distinct ids of the real set's fields, read off the id ranges of its rows; ids are global, in this order.
FULL = {"user": 446_000, "category": 12_000, "shop": 715_000, "brand": 240_000, "intention": 100_000}
# Smallest sizes, for sets of few rows.
LEAST = {"user": 20, "category": 60, "shop": 120, "brand": 60, "intention": 120}
ITEMS_OF_SHOP = 6
OUTSIDE = 4
"""Shops of histories per shop that has items on show."""
PROFILE = {"121": 98, "122": 14, "124": 3, "125": 8, "126": 4, "127": 4, "128": 3, "129": 5}
# Items whose attributes are computed at a time.
CHUNK = 1 << 18
EXPONENT = {"category": 0.95, "brand": 0.9, "intention": 0.84}
BRANDLESS = 0.27


@dataclass(frozen=True)
class Range:
    """Ids of a field: ``start`` .. ``start + size - 1``, popular ones scattered over it."""

    start: int
    size: int

    def ids(self, ranks: Ints) -> Ints:
        """Global id of each rank; -1 stays -1."""
        return np.where(ranks >= 0, self.start + Scatter(self.size)(np.maximum(ranks, 0)), -1)


class World:
    """Everything that does not depend on the row: sizes by the number of rows, tables of the items.

    A field of many ids has ``full sqrt(rows / 85.3 M)`` of them, so that frequent and rare ids are mixed at any size.

    Args:
        rows: impressions of the set. seed: of the set.
    """

    def __init__(self, rows: int, seed: int) -> None:
        share = min(1.0, (rows / FULL_ROWS) ** 0.5)
        self.sizes = {name: max(LEAST[name], round(full * share)) for name, full in FULL.items()}
        self.seed = seed
        self.items = self.sizes["shop"] * ITEMS_OF_SHOP
        self.ranges = self._ranges()
        self.category, self.brand = self._attributes()
        self.intention_start, self.intentions = self._intentions()

    def _ranges(self) -> dict[str, Range]:
        size = self.sizes
        layout = {
            "101": size["user"],
            "109_14": size["category"],
            "110_14": size["shop"] * OUTSIDE,
            "121": PROFILE["121"],
            "122": PROFILE["122"],
            "124": PROFILE["124"],
            "125": PROFILE["125"],
            "126": PROFILE["126"],
            "127": PROFILE["127"],
            "127_14": size["brand"],
            "128": PROFILE["128"],
            "129": PROFILE["129"],
            "150_14": size["intention"],
            "205": self.items,
            "206": size["category"],
            "207": size["shop"],
            "210": size["intention"],
            "216": size["brand"],
            "301": 4,
            "508": size["category"],
            "509": size["shop"],
            "702": size["brand"],
            "853": size["intention"],
        }
        ranges, start = {}, 1
        for name, count in layout.items():
            ranges[name] = Range(start, count)
            start += count
        return ranges

    def shop(self, item: Ints) -> Ints:
        """The shop of each item."""
        shop: Ints = item % self.sizes["shop"]
        return shop

    def _attributes(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        category = np.empty(self.items, dtype=np.int32)
        brand = np.empty(self.items, dtype=np.int32)
        categories = Zipf(self.sizes["category"], EXPONENT["category"])
        brands = Zipf(self.sizes["brand"], EXPONENT["brand"])
        for start in range(0, self.items, CHUNK):
            item = np.arange(start, min(start + CHUNK, self.items))
            shop, place = self.shop(item), item // self.sizes["shop"]
            # A shop sells in up to three categories, and has up to two brands.
            here = slice(start, start + len(item))
            category[here] = categories.ranks(uniform(f"{self.seed}|category", shop * 3 + place % 3))
            named = brands.ranks(uniform(f"{self.seed}|brand", shop * 2 + place % 2))
            brand[here] = np.where(uniform(f"{self.seed}|brandless", item) < BRANDLESS, -1, named)
        return category, brand

    def _intentions(self) -> tuple[Ints, NDArray[np.int32]]:
        """The intentions of each item, without repeats: 1 to 38 of them, 5.7 drawn on average."""
        size = self.sizes["intention"]
        zipf = Zipf(size, EXPONENT["intention"])
        counts, found = [], []
        for start in range(0, self.items, CHUNK):
            item = np.arange(start, min(start + CHUNK, self.items))
            length = 1 + np.minimum((-4.9 * np.log1p(-uniform(f"{self.seed}|length", item))).astype(np.int64), 37)
            row = np.repeat(np.arange(len(item)), length)
            nth = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
            ranks = zipf.ranks(uniform(f"{self.seed}|intention", (row + start) * 64 + nth))
            # Sorted and without repeats: an item has each intention once.
            keys = np.unique(row * size + ranks)
            counts.append(np.bincount(keys // size, minlength=len(item)))
            found.append((keys % size).astype(np.int32))
        ends = np.cumsum(np.concatenate(counts))
        return np.concatenate([[0], ends]), np.concatenate(found)
