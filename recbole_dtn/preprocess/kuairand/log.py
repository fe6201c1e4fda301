"""Read KuaiRand's logs: check rows, derive inputs from the time, and write each row to the part of its day."""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from recbole_dtn.data.progress import Meter
from recbole_dtn.preprocess.kuairand.options import (
    BINARY_SIGNALS,
    CLICK_LONG_VIEW,
    SIGNALS,
    TIME_SIGNALS,
    KuaiRandOptions,
)
from recbole_dtn.preprocess.part_files import PartFiles, keep_sound, text_blocks_with_header
from recbole_dtn.preprocess.raw_files import RawFile
from recbole_dtn.preprocess.rejects import Tally

__all__ = ["COLUMNS", "INTER_TYPES", "LogReader", "SeenIds", "integer"]

COLUMNS = ("user_id", "video_id", "date", "hourmin", "time_ms", *SIGNALS, "duration_ms", "is_rand", "tab")
KNOWN = "duration_known"
INTER_TYPES = {
    **dict.fromkeys(["user_id", "video_id", "date", "hour", "weekday", "tab", "is_rand", KNOWN], "token"),
    **dict.fromkeys(["time_ms", "duration_ms", *SIGNALS, CLICK_LONG_VIEW], "float"),
}
# At most 18 digits, so that the number fits in 64 bits.
INTEGER = r"^(?:0|[1-9]\d{0,17})$"
BLOCK_BYTES = 1 << 24
# Ids that may wait before they are sorted in.
LARGEST_MERGE = 1 << 21


def integer(name: str) -> pl.Expr:
    """Whether a text is a non-negative integer without sign or leading zeros."""
    return pl.col(name).str.contains(INTEGER)


def _number(name: str) -> pl.Expr:
    found = pl.col(name).cast(pl.Float64, strict=False)
    return found.is_finite() & (found >= 0)


def _day() -> pl.Expr:
    return pl.col("date").str.to_date("%Y%m%d", strict=False)


def log_checks() -> dict[str, pl.Expr]:
    """``{reason: condition}``: the condition holds for every sound row, the reason is reported for others."""
    minutes = pl.col("hourmin").cast(pl.Int32, strict=False)
    time = pl.col("time_ms").cast(pl.Int64, strict=False)
    return {
        "user_id: expected an integer from 0": integer("user_id"),
        "video_id: expected an integer from 0": integer("video_id"),
        "date: expected a day such as 20220421": (pl.col("date").str.len_bytes() == 8) & _day().is_not_null(),
        # Read as a number: 5 is five past midnight.
        "hourmin: expected hour and minute such as 1705": minutes.is_between(0, 2359) & (minutes % 100 < 60),
        "time_ms: expected an integer from 0": time >= 0,
        **{f"{name}: expected 0 or 1": pl.col(name).is_in(["0", "1"]) for name in (*BINARY_SIGNALS, "is_rand")},
        **{f"{name}: expected a number from 0": _number(name) for name in (*TIME_SIGNALS, "duration_ms")},
        "tab: expected an integer from 0": integer("tab"),
    }


class SeenIds:
    """The distinct integers among many, 8 bytes each."""

    def __init__(self) -> None:
        self._sorted: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._waiting: list[npt.NDArray[np.int64]] = []
        self._count = 0

    def add(self, texts: pl.Series) -> None:
        """Add integers, given as texts."""
        found = texts.unique().cast(pl.Int64).to_numpy()
        self._waiting.append(found)
        self._count += len(found)
        # Sorted in when they are more than the sorted ones: a merge costs in proportion to what was added.
        if self._count > max(LARGEST_MERGE, len(self._sorted)):
            self.values()

    def values(self) -> npt.NDArray[np.int64]:
        """All of them, sorted."""
        if self._waiting:
            self._sorted = np.unique(np.concatenate([self._sorted, *self._waiting]))
            self._waiting, self._count = [], 0
        return self._sorted


class LogReader:
    """Reads logs into the three parts.

    Attributes:
        users, videos: the ids that were written. days: of the rows read: the first and the last one.
    """

    def __init__(self, options: KuaiRandOptions, parts: PartFiles, meter: Meter) -> None:
        self.options, self.parts, self.meter = options, parts, meter
        self.users, self.videos = SeenIds(), SeenIds()
        self.days: tuple[date, date] | None = None
        self._train_until = pl.lit(options.train_until).str.to_date()
        self._valid_until = pl.lit(options.valid_until).str.to_date()

    def read(self, raw: RawFile, tally: Tally, *, random: bool) -> None:
        """Write the rows of one log; rows of days that belong to no part are dropped and counted."""
        checks = log_checks()
        route = self._random if random else self._standard
        with text_blocks_with_header(raw, COLUMNS, tally, meter=self.meter, block_bytes=BLOCK_BYTES) as frames:
            for frame in frames:
                sound = keep_sound(frame, checks, tally, raw.name)
                if not sound.height:
                    continue
                day, minutes = _day(), pl.col("hourmin").cast(pl.Int32)
                both = (pl.col("is_click") == "1") & (pl.col("long_view") == "1")
                made = sound.with_columns(
                    both.cast(pl.Int8).alias(CLICK_LONG_VIEW),
                    (pl.col("duration_ms").cast(pl.Float64) > 0).cast(pl.Int8).alias(KNOWN),
                    hour=minutes // 100,
                    weekday=day.dt.weekday(),
                    day=day,
                    train=day <= self._train_until,
                    valid=(day > self._train_until) & (day <= self._valid_until),
                )
                # Days of all sound rows, also of those that no part gets: for the message about an empty part.
                first, last = made["day"].min(), made["day"].max()
                assert isinstance(first, date)
                assert isinstance(last, date)
                self.days = (first, last) if not self.days else (min(first, self.days[0]), max(last, self.days[1]))
                route(made, tally)

    def _standard(self, frame: pl.DataFrame, tally: Tally) -> None:
        later = ~pl.col("train") & ~pl.col("valid")
        self._write("train", frame.filter(pl.col("train")), tally)
        self._write("valid", frame.filter(pl.col("valid")), tally)
        rest = frame.filter(later)
        if self.options.test_log == "standard":
            self._write("test", rest, tally)
        elif rest.height:
            tally.dropped["after valid_until: the test part is the random log"] += rest.height

    def _random(self, frame: pl.DataFrame, tally: Tally) -> None:
        if self.options.random_days == "after_train":
            early = int(frame["train"].sum())
            if early:
                tally.dropped["random log, up to train_until"] += early
                frame = frame.filter(~pl.col("train"))
        self._write("test", frame, tally)

    def _write(self, part: str, frame: pl.DataFrame, tally: Tally) -> None:
        if not frame.height:
            return
        self.parts[part].add(frame)
        tally.written += frame.height
        self.users.add(frame["user_id"])
        self.videos.add(frame["video_id"])
