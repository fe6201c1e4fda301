"""User and video features of KuaiRand, as ``.user`` and ``.item``: a row per user and per video of the logs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.escape import escape_series
from recbole_dtn.data.write import write_atomic
from recbole_dtn.preprocess.base import Work
from recbole_dtn.preprocess.kuairand.log import SeenIds, integer
from recbole_dtn.preprocess.lines import LINE
from recbole_dtn.preprocess.part_files import keep_sound, text_blocks_with_header
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.rejects import Tally

__all__ = ["ITEM_TYPES", "USER_TYPES", "write_items", "write_users"]

BLOCK_BYTES = 1 << 24
COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
USER_TYPES = {
    **dict.fromkeys(["user_id", "user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"],
                    "token"),
    **{name: kind for count in COUNTS for name, kind in ((count, "float"), (f"{count}_range", "token"))},
    **{f"onehot_feat{number}": "token" for number in range(18)},
}  # fmt: skip
ITEM_TYPES = {
    **dict.fromkeys(["video_id", "author_id", "video_type", "upload_dt", "upload_type", "visible_status"], "token"),
    "video_duration": "float",
    **dict.fromkeys(["server_width", "server_height", "music_id", "music_type"], "token"),
    "tag": "token_seq",
}
UNKNOWN = ("-124", "-124.0", "")
"""What the publisher writes where a category is not known (as a float where a column has gaps): an empty cell here."""


def write_users(raw: RawFile, seen: SeenIds, path: Path, work: Work) -> int:
    """Write the ``.user`` file; returns its rows."""
    return _write(raw, "user_id", USER_TYPES, seen.values(), path, work)


def write_items(raw: RawFile, seen: SeenIds, path: Path, work: Work) -> int:
    """Write the ``.item`` file; returns its rows."""
    return _write(raw, "video_id", ITEM_TYPES, seen.values(), path, work)


def _write(
    raw: RawFile, key: str, types: Mapping[str, str], wanted: npt.NDArray[np.int64], path: Path, work: Work
) -> int:
    table = _Side(raw, key, types, wanted, work.rejects.table(f"{key.removesuffix('_id')} features"))
    with closing(table.frames(work)) as frames:
        rows = write_atomic(frames, path, types, escaped=True, gaps=table.floats)
    for name, count in table.gaps.items():
        if count:
            work.log(
                f"warning: {raw.name}: {name!r} is not known in {count:,} rows; the cells stay empty, absent values to "
                "our models; stock RecBole reads the column's mean there"
            )
    if rows < len(wanted):
        work.log(f"{len(wanted) - rows:,} of {len(wanted):,} {key.removesuffix('_id')}s of the logs have no features")
    return rows


class _Side:
    """One table of features; ``gaps`` counts unknown numbers."""

    def __init__(
        self, raw: RawFile, key: str, types: Mapping[str, str], wanted: npt.NDArray[np.int64], tally: Tally
    ) -> None:
        self.raw, self.key, self.types, self.wanted, self.tally = raw, key, types, wanted, tally
        self.floats = [name for name, kind in types.items() if kind == "float"]
        self.gaps = dict.fromkeys(self.floats, 0)
        # Per id of the logs (sorted): whether it was written, and the hash of its row.
        self._there = np.zeros(len(wanted), np.bool_)
        self._hashes = np.zeros(len(wanted), np.uint64)

    def frames(self, work: Work) -> Generator[pl.DataFrame, None, None]:
        """Blocks of rows to be written."""
        checks = self._checks()
        columns = list(self.types)
        with text_blocks_with_header(
            self.raw, columns, self.tally, meter=work.meter, block_bytes=BLOCK_BYTES
        ) as blocks:
            for block in blocks:
                # The publisher's "unknown" becomes an empty cell before anything is checked.
                known = block.with_columns(
                    pl.when(~pl.col(name).is_in(UNKNOWN)).then(pl.col(name)).alias(name)
                    for name in columns
                    if name != self.key
                )
                kept = self._new(keep_sound(known, checks, self.tally, self.raw.name))
                for name in self.floats:
                    self.gaps[name] += kept[name].null_count()
                self.tally.written += kept.height
                yield self._harmless(kept)

    def _checks(self) -> dict[str, pl.Expr]:
        found = {f"{self.key}: expected an integer from 0": integer(self.key)}
        for name in self.floats:
            number = pl.col(name).cast(pl.Float64, strict=False)
            sound = pl.col(name).is_null() | (number.is_finite() & (number >= 0)).fill_null(value=False)
            found[f"{name}: expected a number from 0, or nothing"] = sound
        return found

    def _new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose id occurs in the logs and was not written before."""
        ids = frame[self.key].cast(pl.Int64).to_numpy()
        places = np.searchsorted(self.wanted, ids)
        if len(self.wanted):
            # searchsorted gives the length for ids above the largest one.
            there = self.wanted[np.minimum(places, len(self.wanted) - 1)] == ids
        else:
            there = np.zeros(len(ids), np.bool_)
        if not there.all():
            self.tally.dropped["not in the logs that are used"] += int((~there).sum())
            frame, places = frame.filter(pl.Series(there)), places[there]
        # A repeated row is dropped where its hash is the same, and rejected where it differs.
        hashes = frame.drop(LINE).hash_rows().to_numpy()
        _, firsts = np.unique(places, return_index=True)
        new = np.zeros(len(places), np.bool_)
        new[firsts] = ~self._there[places[firsts]]
        self._there[places[new]] = True
        self._hashes[places[new]] = hashes[new]
        if new.all():
            return frame
        same = ~new & (self._hashes[places] == hashes)
        self.tally.dropped["the same row again"] += int(same.sum())
        other = frame.filter(pl.Series(~new & ~same))
        shown = other.select(pl.concat_str(pl.exclude(LINE).fill_null(""), separator=",")).to_series().to_list()
        reason = f"{self.key} is there already, with other values"
        self.tally.reject(self.raw.name, other[LINE].to_list(), reason, shown)
        return frame.filter(pl.Series(new))

    def _harmless(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Texts as an atomic file spells them; a comma list becomes a sequence."""
        made = []
        for name, kind in self.types.items():
            if kind == "token" and name != self.key:
                made.append(escape_series(frame[name]))
            elif kind == "token_seq":
                made.append(_sequence(frame[name]))
        return frame.with_columns(made)


def _sequence(lists: pl.Series) -> pl.Series:
    """``12,65`` as ``12 65`` without unknown values. Only distinct lists are converted: there are few."""
    distinct = lists.unique().drop_nulls()
    # Lists of plain numbers only need spaces for their commas. Others are split, cleaned and escaped in Python.
    odd = distinct.filter(~distinct.str.contains(r"^\d+(?:,\d+)*$"))
    spelled = lists.str.replace_all(",", " ", literal=True)
    if not len(odd):
        return spelled
    written = [_tokens(text.split(",")) for text in odd]
    replaced = lists.replace_strict(odd, pl.Series(written, dtype=pl.String), default=None, return_dtype=pl.String)
    return spelled.zip_with(~lists.is_in(odd.to_list()).fill_null(value=False), replaced)


def _tokens(values: Sequence[str]) -> str | None:
    kept = [value.strip() for value in values]
    series = pl.Series([value for value in kept if value not in UNKNOWN], dtype=pl.String)
    return " ".join(escape_series(series, in_sequence=True)) or None
