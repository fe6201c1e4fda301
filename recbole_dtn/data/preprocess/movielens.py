"""MovieLens-100K, from the copy inside RecBole's wheel (nothing is downloaded)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl

from recbole_dtn.data.atomic import AtomicTable
from recbole_dtn.data.preprocess.base import Preprocessor, Work
from recbole_dtn.data.write import write_atomic
from recbole_dtn.errors import DataError

__all__ = ["MovieLens100K"]


class MovieLens100K(Preprocessor):
    """Users, items and ratings with derived fields; the tasks' labels come from ``rating`` by condition.

    ``hour`` and ``weekday`` (1 Monday to 7 Sunday) are those of the time stamp in UTC, ``zip_prefix`` the first three
    letters or digits of the zip code. ``rating`` and ``timestamp`` stay beside the fields and are no inputs.
    """

    default_name = "ml-100k-mt"
    bundled = True
    source = "inside RecBole's wheel"

    def write(self, work: Work) -> dict[str, int]:
        raw = self.raw if self.raw_given else _inside_recbole()
        inter, user, item = (_read(raw / f"ml-100k.{kind}") for kind in ("inter", "user", "item"))
        time = pl.from_epoch(pl.col("timestamp").cast(pl.Int64), time_unit="s")
        inter = inter.with_columns(hour=time.dt.hour(), weekday=time.dt.weekday())
        alphanumeric = pl.col("zip_code").str.replace_all("[^0-9A-Za-z]", "")
        user = user.with_columns(age=pl.col("age").cast(pl.Float64), zip_prefix=alphanumeric.str.head(3))
        item = item.rename({"class": "genres"})
        rated = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
        tables = {
            "inter": (inter, rated | {"hour": "token", "weekday": "token"}),
            "user": (
                user,
                {"user_id": "token", "age": "float", "gender": "token", "occupation": "token", "zip_prefix": "token"},
            ),
            "item": (item, {"item_id": "token", "release_year": "token", "genres": "token_seq"}),
        }
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
