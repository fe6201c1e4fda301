"""Synthetic AliExpress search log: ``aliexpress_{NL}_datasets.zip`` with four zips of one CSV each."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import polars as pl

from recbole_dtn.data.hashing import Floats, Ints, rng, uniform
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.synthetic.faults import LineFile, spoil
from recbole_dtn.synthetic.layout import (
    BLOCK_ROWS,
    DrawnBlock,
    Part,
    Place,
    Plan,
    SyntheticLayout,
    check_rates,
    csv_lines,
)
from recbole_dtn.synthetic.planted import Field, Goal, Labels, number_effect
from recbole_dtn.synthetic.scores import token_effect

__all__ = ["AliExpress", "columns_of"]

COUNTRIES = {"NL": 5, "ES": 3, "FR": 4, "US": 9, "RU": 8}  # with the value of categorical_1, invented but for US
CLICK_RATE, BUY_RATE = 0.022, 0.0009  # assumed; count the real files before comparing
TEST_SHARE = 0.31
PER_SEARCH = 10.0
SIZES = {2: 4, 3: 6, 4: 2, 5: 25, 6: 7, 7: 50, 8: 8, 9: 7} | dict.fromkeys(range(10, 17), 2)
NEVER = (58, 59, 60)
"""Numbers that are 0 in every row, as in the real samples."""
FAULTS = {
    "item": ("fields", "separator", "label", "orphan", "overflow", "text", "utf8", "blank"),
    "user": ("fields", "separator", "overflow", "text", "utf8", "blank"),
}
STAMP = (2022, 1, 1, 0, 0, 0)
"""Date of every entry of the archives: the same arguments give the same bytes."""


def columns_of(kind: str) -> list[str]:
    """Names of the columns of a ``user`` or ``item`` file, in order, as processed files call them.

    >>> columns_of("user")[:3], len(columns_of("user")), len(columns_of("item"))
    (['search_id', 'categorical_1', 'categorical_2'], 33, 49)
    """
    categorical = {"user": [*range(2, 9), 32, 33], "item": [19, 34, 35, 36, 40, 41, 42]}
    width = {"user": 33, "item": 48}
    letter, number = (1, 1) if kind == "user" else (10, 24)
    names = ["search_id"]
    for column in range(2, width[kind] + 1):
        if column in categorical[kind]:
            names.append(f"categorical_{letter}")
            letter += 1
        else:
            names.append(f"numerical_{number}")
            number += 1
    return names if kind == "user" else [*names, "label"]


def _shape(name: str) -> tuple[float, float]:
    """Share of zeros and largest value of a number: the same in every set."""
    if int(name.partition("_")[2]) in NEVER:
        return 1.0, 0.0
    # Without the seed of the set.
    first, second = uniform(f"aliexpress {name}", [0, 1])
    return (0.0, 0.15, 0.3, 0.5, 0.7)[int(first * 5)], (1.0, 0.8, 0.5, 0.2)[int(second * 4)]


def _number(name: str) -> Field:
    zeros, top = _shape(name)
    # Mean and deviation of: 0 with probability ``zeros``, otherwise even between 0 and ``top``.
    mean = (1 - zeros) * top / 2
    return Field(name, "number", round(mean, 6), round(((1 - zeros) * top**2 / 3 - mean**2) ** 0.5, 6))


class AliExpress(SyntheticLayout):
    """Click, then conversion, on products shown in search results.

    Args:
        plan: rows (shown products over all countries and both parts), seed and the like.
        countries: of NL, ES, FR, US, RU, with commas between; the rows are shared out evenly.
        test_share: of the rows, the later ones. click_rate: P(click). buy_rate: P(conversion).
        zipped: zips as published; else the plain CSV files.
    """

    name = "aliexpress"
    unit = "shown products"

    def __init__(
        self,
        plan: Plan,
        *,
        countries: str = "NL,ES,FR,US",
        test_share: float = TEST_SHARE,
        click_rate: float = CLICK_RATE,
        buy_rate: float = BUY_RATE,
        zipped: bool = True,
    ) -> None:
        self.countries = [one.strip().upper() for one in countries.split(",") if one.strip()]
        for one in self.countries:
            if one not in COUNTRIES:
                raise UsageError(f"--countries: {one!r} is none; {nearest(one, COUNTRIES)}")
        if not self.countries or len(set(self.countries)) < len(self.countries):
            raise UsageError(f"--countries: expected each of some of {', '.join(COUNTRIES)} once; found {countries!r}")
        if not 0 < buy_rate < click_rate < 1:
            raise UsageError(f"expected 0 < buy_rate < click_rate < 1; found {buy_rate} and {click_rate}")
        check_rates(test_share=test_share)
        self.test_share, self.click_rate, self.buy_rate, self.zipped = test_share, click_rate, buy_rate, zipped
        self.files: dict[str, LineFile] = {}
        self.inner = ExitStack()
        super().__init__(plan)
        if plan.rows < 2 * len(self.countries):
            raise UsageError(f"--rows: at least {2 * len(self.countries)} for {len(self.countries)} countries")

    def goals(self) -> tuple[Goal, ...]:
        click = ("categorical_7", "numerical_28", "categorical_5", "numerical_30", "categorical_3", "numerical_52")
        buy = ("categorical_8", "numerical_1", "categorical_9", "numerical_35", "categorical_6", "numerical_19")
        return (
            Goal("click", self.click_rate, _fields(click)),
            Goal("conversion", self.buy_rate / self.click_rate, _fields((*buy, *click)), after="click"),
        )

    def parts(self) -> list[Part]:
        parts = []
        for position, country in enumerate(self.countries):
            total = self.plan.rows * (position + 1) // len(self.countries)
            total -= self.plan.rows * position // len(self.countries)
            test = min(max(round(total * self.test_share), 1), total - 1)
            parts += [Part(f"{country}|train", total - test, "train"), Part(f"{country}|test", test, "test")]
        return parts

    def notes(self) -> list[str]:
        return [
            "fields are called as in processed files: user columns 2-8, 32, 33 are categorical_1-9, 9-31 are "
            "numerical_1-23; item columns 19, 34-36, 40-42 are categorical_10-16, the others numerical_24-63",
            "search ids grow along time and begin again in test; the two parts are not joined by them",
            "rates and the share of test rows are assumed, not counted in the real files",
        ]

    def draw(self, part: Part, block: int, rows: int, needed: Sequence[tuple[str, Field]]) -> DrawnBlock:
        random = rng(self.plan.seed, f"rows|{part.name}", block)
        shown = np.clip(-PER_SEARCH * np.log1p(-random.random(rows)), 1, 200).astype(np.int64)
        count = int(np.searchsorted(np.cumsum(shown), rows)) + 1
        owner = np.repeat(np.arange(count), shown[:count])[:rows]
        # Ids grow by 1 to 9 and a block has at most BLOCK_ROWS searches: blocks do not overlap.
        search = block * BLOCK_ROWS * 10 + np.cumsum(1 + (random.random(count) * 9).astype(np.int64))
        user = {name: self._column(name, count, part, random) for name in columns_of("user")[1:]}
        item = {name: self._column(name, rows, part, random) for name in columns_of("item")[1:-1]}
        found = {}
        for task, one in needed:
            values = user[one.name][owner] if one.name in user else item[one.name]
            if one.kind == "number":
                found[task, one.name] = number_effect(self.plan.seed, task, one, np.asarray(values, dtype=np.float64))
            else:
                found[task, one.name] = token_effect(self.plan.seed, task, one.name, values.astype(np.int64))
        return DrawnBlock(part, block, rows, found, {"search": search, "owner": owner, "user": user, "item": item})

    def _column(self, name: str, count: int, part: Part, random: np.random.Generator) -> Floats | Ints:
        number = int(name.partition("_")[2])
        if name == "categorical_1":
            return np.full(count, COUNTRIES[part.name.partition("|")[0]])
        if name.startswith("categorical"):
            return (random.random(count) ** 1.5 * SIZES[number]).astype(np.int64)
        zeros, top = _shape(name)
        if number in NEVER:
            return np.zeros(count, dtype=np.int64)
        # At least 0.0001, so that no number is written with an exponent; the planted effect uses the number as written.
        values = np.round(np.maximum(random.random(count) * top, 1e-4), 6)
        return np.where(random.random(count) < zeros, 0.0, values)

    def open(self, place: Place) -> None:
        self.folder = place.folder
        place.stack.enter_context(self.inner)
        for country in self.countries:
            for part in ("train", "test"):
                for kind in ("item", "user"):
                    name = f"{country.lower()}_{kind}_{part}"
                    self.files[f"{country}|{part}|{kind}"] = self._open(place, name, kind)

    def _open(self, place: Place, name: str, kind: str) -> LineFile:
        def make(fault: str, line: bytes) -> bytes:
            return spoil(fault, line, number=18 if kind == "item" else 6, label=48, key=0)

        if not self.zipped:
            return place.open(f"{name}.csv", FAULTS[kind], make)
        archive = self.inner.enter_context(zipfile.ZipFile(place.folder / f"{name}.zip", "w"))
        stream = self.inner.enter_context(
            archive.open(_entry(f"{name}.csv", zipfile.ZIP_DEFLATED), "w", force_zip64=True)
        )
        return place.lines(f"{name}.csv", cast(BinaryIO, stream), FAULTS[kind], make)

    def write(self, block: DrawnBlock, labels: Labels) -> None:
        data, name = block.data, block.part.name
        users = pl.DataFrame({"search_id": data["search"]} | data["user"])
        self.files[f"{name}|user"].write(csv_lines(users), len(users))
        # 0 shown, 1 clicked, 2 bought: a conversion has a click.
        label = (labels.label["click"] + labels.label["conversion"]).astype(np.int64)
        items = pl.DataFrame({"search_id": data["search"][data["owner"]]} | data["item"] | {"label": label})
        self.files[f"{name}|item"].write(csv_lines(items), len(items))

    def finish(self) -> None:
        self.inner.close()
        if not self.zipped:
            return
        for country in self.countries:
            with zipfile.ZipFile(self.folder / f"aliexpress_{country}_datasets.zip", "w") as outer:
                for part in ("train", "test"):
                    for kind in ("item", "user"):
                        _put(outer, self.folder / f"{country.lower()}_{kind}_{part}.zip")


def _fields(names: Sequence[str]) -> tuple[Field, ...]:
    return tuple(Field(name) if name.startswith("categorical") else _number(name) for name in names)


def _entry(name: str, method: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, STAMP)
    entry.compress_type = method
    entry.external_attr = 0o644 << 16
    return entry


def _put(outer: zipfile.ZipFile, path: Path) -> None:
    with path.open("rb") as source, outer.open(_entry(path.name, zipfile.ZIP_STORED), "w", force_zip64=True) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    path.unlink()
