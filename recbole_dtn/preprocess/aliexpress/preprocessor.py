"""AliExpress search log: result pages joined with the products they show; click and conversion."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.aliexpress.columns import ITEM, LABEL, SEARCH, USER, item_types, user_types
from recbole_dtn.preprocess.aliexpress.options import COUNTRIES, PUBLISHED, AliExpressOptions
from recbole_dtn.preprocess.aliexpress.searches import HeldOut, Searches
from recbole_dtn.preprocess.base import Work
from recbole_dtn.preprocess.lines import LINE
from recbole_dtn.preprocess.part_files import PartFiles, TextTable, keep_sound, text_blocks
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.preprocess.rejects import Tally
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["AliExpress"]

BLOCK_BYTES = 1 << 24


@PREPROCESSORS.register("aliexpress", paper="Li et al., 2020", options=AliExpressOptions)
class AliExpress(RawSet):
    """AliExpress search log: click and conversion, one country or several as domains.

    ``.user`` has a row per search, keyed ``<split>:<search id>``; ``.inter`` has a row per shown product.

    The files are joined on the search id (inner join), as the publisher's recipe does; products of a search whose row
    in the user file is faulty are rejected with it. Values are written as the raw
    files spell them. Label 0 shown, 1 clicked, 2 bought gives (click, conversion) = (0, 0), (1, 0), (1, 1). There is no
    time column: the publisher cut train and test along time, and the order of the file is taken as time.
    """

    set_name = "aliexpress"
    default_name = "aliexpress"
    source = "the publisher's page, Tianchi data set 74690 (AliExpress; Li et al., CIKM 2020), under its own terms"
    files = (
        "aliexpress_NL_datasets.zip, and _ES_, _FR_, _US_ as --countries names them, not unpacked,",
        "or the CSV files inside: nl_user_train.csv, nl_item_train.csv, nl_user_test.csv, nl_item_test.csv, ...",
    )
    bytes_per_second = 40e6
    options: AliExpressOptions

    @classmethod
    def name_of(cls, options: Any) -> str:
        """``aliexpress`` for the four countries, else with the countries; with the protocol where it is not clean."""
        countries = "" if tuple(options.countries) == PUBLISHED else f"-{'-'.join(options.countries).lower()}"
        protocol = "" if options.protocol == "clean" else f"-{options.protocol}"
        return f"aliexpress{countries}{protocol}"

    def wanted(self) -> list[str]:
        return [
            raw_name(country, kind, split)
            for country in self.options.countries
            for split in ("train", "test")
            for kind in ("user", "item")
        ]

    def adapted(self, values: dict[str, Any]) -> dict[str, Any]:
        domain = "country" if len(self.options.countries) > 1 else None
        if values.get("domain_field") != domain:
            values["domain_field"] = domain
        return values

    def announce(self) -> str:
        archives = {country: self.raw / f"aliexpress_{country}_datasets.zip" for country in COUNTRIES}
        if not all(archives[country].is_file() for country in self.options.countries):
            return super().announce()
        # Zips inside a zip must be unpacked before they can be listed.
        size = sum(archives[country].stat().st_size for country in self.options.countries)
        return self._announcement(0, size, slower=True)

    def write(self, work: Work) -> dict[str, int]:
        raw = self.open_raw(work.scratch)
        several = len(self.options.countries) > 1
        with (
            _user_table(work.folder / f"{self.name}.user", country=several) as users,
            PartFiles(work.folder, self.name, item_types()) as parts,
        ):
            for country in self.options.countries:
                for split in ("train", "test"):
                    files = [raw[raw_name(country, kind, split)] for kind in ("user", "item")]
                    _Pair(self, work, country, split, several=several).write(files[0], files[1], users, parts)
            written = {users.path.name: users.rows, **parts.written()}
        if self.options.protocol == "mtreclib":
            self._copy_test(work, written)
        for part in ("train", "valid", "test"):
            if not written[f"{self.name}.{part}.inter"]:
                raise DataError(f"{self.raw}: the {part} part has no row; expected searches in both files of a pair")
        return written

    def _copy_test(self, work: Work, written: dict[str, int]) -> None:
        valid, test = (f"{self.name}.{part}.inter" for part in ("valid", "test"))
        shutil.copyfile(work.folder / test, work.folder / valid)
        written[valid] = written[test]
        work.log(
            "warning: protocol mtreclib selects on the test set: the validation part is a copy of the test part, so "
            "that the numbers are optimistic; use them for comparison with that library's tables and for nothing else "
            "(--protocol=clean holds out training rows instead)"
        )


def raw_name(country: str, kind: str, split: str) -> str:
    """The publisher's name of a file.

    >>> raw_name("NL", "item", "train")
    'nl_item_train.csv'
    """
    return f"{country.lower()}_{kind}_{split}.csv"


@contextmanager
def _user_table(path: Path, *, country: bool) -> Iterator[TextTable]:
    table = TextTable(path, user_types(country=country))
    try:
        yield table
    finally:
        table.close()


class _Pair:
    """The user and the item file of one country and split."""

    def __init__(self, made: AliExpress, work: Work, country: str, split: str, *, several: bool) -> None:
        self.options, self.work, self.country, self.split = made.options, work, country, split
        self.prefix = f"{country}:" if several else ""
        self.searches = Searches()

    def write(self, user: RawFile, item: RawFile, users: TextTable, parts: PartFiles) -> None:
        """Write both; training rows are held out where the protocol says so."""
        self._users(user, users)
        if self.split == "train" and self.options.protocol == "clean":
            # All rows are first written to training. The last ones are moved when their number is known.
            held = HeldOut(parts["train"], self.work.scratch)
            rows = self._items(item, held)
            if not rows:
                return
            moved = held.move(parts["valid"], self.options.valid_share)
            self.work.log(
                f"{self.country}: validation is the last {moved:,} of {rows:,} training rows ({moved / rows:.1%}), "
                "whole searches, in the order of the file, which is taken as time"
            )
        else:
            self._items(item, parts[self.split])

    def _keyed(self, frame: pl.DataFrame, categorical: list[str]) -> pl.DataFrame:
        # Search ids begin again in the test files and in each country: split and country make them distinct.
        key = pl.concat_str(pl.lit(f"{self.prefix}{self.split}:"), pl.col(SEARCH)).alias(SEARCH)
        ids = [pl.concat_str(pl.lit(self.prefix), pl.col(name)).alias(name) for name in categorical if self.prefix]
        return frame.with_columns(key, *ids)

    def _users(self, raw: RawFile, users: TextTable) -> None:
        tally = self.work.rejects.table(f"{self.country} user {self.split}")
        # Products of a search whose user row is faulty are rejected with it, not dropped as unknown.
        tally.watch = self.searches.refuse
        checks = USER.checks()
        with text_blocks(raw, USER.columns, tally, meter=self.work.meter, block_bytes=BLOCK_BYTES) as frames:
            for frame in frames:
                sound = keep_sound(frame, checks, tally, raw.name)
                kept = self.searches.add(sound, SEARCH, tally, raw.name)
                tally.written += kept.height
                users.add(self._keyed(kept, USER.categorical).with_columns(country=pl.lit(self.country)))

    def _items(self, raw: RawFile, target: HeldOut | TextTable) -> int:
        """Write the products of known searches; returns how many."""
        tally = self.work.rejects.table(f"{self.country} item {self.split}")
        checks = ITEM.checks()
        labels = [(pl.col(LABEL) != "0").cast(pl.Int8).alias("click"), (pl.col(LABEL) == "2").cast(pl.Int8)]
        with text_blocks(raw, ITEM.columns, tally, meter=self.work.meter, block_bytes=BLOCK_BYTES) as frames:
            for frame in frames:
                sound = keep_sound(frame, checks, tally, raw.name)
                # Ids of searches without a user row get numbers too; ``known`` is false for them.
                codes = self.searches.codes(sound[SEARCH])
                known = self.searches.known[codes]
                if not known.all():
                    self._without_user(sound.filter(pl.Series(~known)), tally, raw.name)
                    sound, codes = sound.filter(pl.Series(known)), codes[known]
                made = self._keyed(sound, ITEM.categorical).with_columns(labels[0], labels[1].alias("conversion"))
                if isinstance(target, HeldOut):
                    target.add(made, codes)
                else:
                    target.add(made)
                tally.written += made.height
        return tally.written

    def _without_user(self, items: pl.DataFrame, tally: Tally, file: str) -> None:
        """Drop the products of searches that are not in the user file; reject those whose user row is rejected."""
        refused = items.filter(pl.col(SEARCH).is_in(list(self.searches.refused)))
        tally.dropped["inner join: no user row of its search"] += items.height - refused.height
        shown = refused.select(pl.concat_str(pl.exclude(LINE), separator=",")).to_series().to_list()
        tally.reject(file, refused[LINE].to_list(), "its user row is rejected", shown)
