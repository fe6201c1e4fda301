"""MovieLens: 100K from the copy inside RecBole's wheel (nothing is downloaded), 1M from the files of GroupLens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.data.write import write_atomic
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import Preprocessor, Work
from recbole_dtn.preprocess.lines import line_blocks, read_table
from recbole_dtn.preprocess.movielens.options import MovieLens1MOptions
from recbole_dtn.preprocess.part_files import keep_sound
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.preprocess.rejects import Tally
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["MovieLens1M", "MovieLens100K"]

RATING_TYPES = {
    "user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float", "hour": "token",
    "weekday": "token",
}  # fmt: skip
ITEM_TYPES = {"item_id": "token", "release_year": "token", "genres": "token_seq"}
COLUMNS = {
    "ratings.dat": ("user_id", "item_id", "rating", "timestamp"),
    "users.dat": ("user_id", "gender", "age", "occupation", "zip_code"),
    "movies.dat": ("item_id", "title", "genres"),
}
# Stands for "::", since the reader takes one character.
UNIT_SEPARATOR = b"\x1f"
LAST_SECOND = 4102444800  # the year 2100


@PREPROCESSORS.register("ml-100k", paper="GroupLens")
class MovieLens100K(Preprocessor):
    """MovieLens-100K as shipped inside RecBole's wheel.

    Users, items and ratings with derived fields; the tasks' labels come from ``rating`` by condition.

    ``hour`` and ``weekday`` (1 Monday to 7 Sunday) are those of the time stamp in UTC, ``zip_prefix`` the first three
    letters or digits of the zip code. ``rating`` and ``timestamp`` are written too but are not inputs.
    """

    default_name = "ml-100k-mt"
    bundled = True
    source = "inside RecBole's wheel"

    def write(self, work: Work) -> dict[str, int]:
        raw = self.raw if self.raw_given else _inside_recbole()
        inter, user, item = (_read(raw / f"ml-100k.{kind}") for kind in ("inter", "user", "item"))
        inter = inter.with_columns(_time_of_day())
        user = user.with_columns(_zip_prefix(), age=pl.col("age").cast(pl.Float64))
        item = item.rename({"class": "genres"})
        user_types = {
            "user_id": "token", "age": "float", "gender": "token", "occupation": "token", "zip_prefix": "token"
        }  # fmt: skip
        tables = {"inter": (inter, RATING_TYPES), "user": (user, user_types), "item": (item, ITEM_TYPES)}
        return {
            f"{self.name}.{kind}": write_atomic(frame, work.folder / f"{self.name}.{kind}", types)
            for kind, (frame, types) in tables.items()
        }


def _inside_recbole() -> Path:
    """The folder in RecBole's package, found without importing it."""
    spec = find_spec("recbole")
    places = spec.submodule_search_locations if spec is not None else None
    folder = Path(next(iter(places or [""]))) / "dataset_example" / "ml-100k"
    if not (folder / "ml-100k.inter").is_file():
        raise DataError(f"RecBole's example data are not installed (looked at {folder}): pip install recbole==1.2.1")
    return folder


def _read(path: Path) -> pl.DataFrame:
    return pl.concat([batch.frame for batch in AtomicTable([path]).batches()])


@PREPROCESSORS.register("ml-1m", paper="GroupLens", options=MovieLens1MOptions)
class MovieLens1M(RawSet):
    """MovieLens-1M with genres.

    Users, items and ratings, with the derived fields of :class:`MovieLens100K`.

    ``age`` and ``occupation`` are the publisher's codes (18 is "18 to 24"), ``release_year`` is read from the title.
    The files are Latin-1, with ``::`` between the values.
    """

    set_name = "ml-1m"
    source = (
        "GroupLens, https://grouplens.org/datasets/movielens/1m/ (ml-1m.zip, 6 MB); its README has the terms: "
        "acknowledge it, no redistribution or commercial use without permission"
    )
    files = (
        "ml-1m.zip as it is, or the files of it:",
        "ratings.dat (1,000,209 rows), users.dat (6,040 rows), movies.dat (3,883 rows)",
    )
    synthetic_rows = 0
    bytes_per_second = 20e6
    options: MovieLens1MOptions

    def wanted(self) -> list[str]:
        return list(COLUMNS)

    def write(self, work: Work) -> dict[str, int]:
        raw = self.open_raw(work.scratch)
        users = self._side(raw["users.dat"], work, "user_id")
        items = self._side(raw["movies.dat"], work, "item_id")
        users = users.with_columns(_zip_prefix())
        genres = pl.col("genres").str.split("|")
        items = items.with_columns(genres, release_year=pl.col("title").str.extract(r"\((\d{4})\)\s*$"))
        user_types = dict.fromkeys(("user_id", "age", "gender", "occupation", "zip_prefix"), "token")
        ratings = self._ratings(raw["ratings.dat"], work, users["user_id"], items["item_id"])
        written = {}
        for kind, frames, types in (
            ("inter", ratings, RATING_TYPES),
            ("user", iter([users]), user_types),
            ("item", iter([items]), ITEM_TYPES),
        ):
            file = f"{self.name}.{kind}"
            written[file] = write_atomic(frames, work.folder / file, types)
        return written

    def _side(self, raw: RawFile, work: Work, key: str) -> pl.DataFrame:
        """Users or movies; the second row of one key is rejected."""
        tally = work.rejects.table(raw.name.rpartition("/")[2])
        frame = pl.concat(list(_frames(raw, tally, work)))
        frame = keep_sound(frame, {f"{key}: is empty": pl.col(key).is_not_null()}, tally, raw.name, separator="::")
        first = {f"{key}: is there already": pl.col(key).is_first_distinct()}
        frame = keep_sound(frame, first, tally, raw.name, separator="::")
        tally.written += frame.height
        return frame

    def _ratings(self, raw: RawFile, work: Work, users: pl.Series, items: pl.Series) -> Iterator[pl.DataFrame]:
        tally = work.rejects.table("ratings.dat")
        second = pl.col("timestamp").cast(pl.Int64, strict=False)
        checks = {
            "rating: expected 1 to 5": pl.col("rating").is_in(["1", "2", "3", "4", "5"]),
            "timestamp: expected seconds since 1970": second.is_between(0, LAST_SECOND),
            "user_id: is not in users.dat": pl.col("user_id").is_in(users.implode()),
            "item_id: is not in movies.dat": pl.col("item_id").is_in(items.implode()),
        }
        for frame in _frames(raw, tally, work):
            sound = keep_sound(frame, checks, tally, raw.name, separator="::")
            tally.written += sound.height
            yield sound.with_columns(_time_of_day())


def _frames(raw: RawFile, tally: Tally, work: Work) -> Iterator[pl.DataFrame]:
    """The rows of a ``.dat`` file."""
    columns: Sequence[str] = COLUMNS[raw.name.rpartition("/")[2].removesuffix(".gz").removesuffix(".zst")]
    with closing(line_blocks(raw, meter=work.meter, max_line=tally.max_line)) as blocks:
        for lines in blocks:
            # Latin-1 becomes UTF-8 before rows are parsed.
            data = lines.data.decode("latin-1").encode().replace(b"::", UNIT_SEPARATOR)
            text = replace(lines, data=data)
            yield read_table(text, columns, tally, raw.name, separator=UNIT_SEPARATOR.decode())


def _time_of_day() -> list[pl.Expr]:
    time = pl.from_epoch(pl.col("timestamp").cast(pl.Int64), time_unit="s")
    return [time.dt.hour().alias("hour"), time.dt.weekday().alias("weekday")]


def _zip_prefix() -> pl.Expr:
    return pl.col("zip_code").str.replace_all("[^0-9A-Za-z]", "").str.head(3).alias("zip_prefix")
