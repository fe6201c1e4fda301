"""Users and videos of a synthetic KuaiRand: every attribute follows from the id and the seed, so nothing is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.data.hashing import Floats, Ints, effects, text_key, uniform
from recbole_dtn.synthetic.scores import pooled_effect
from recbole_dtn.synthetic.zipf import Zipf

__all__ = ["STATISTICS", "USER", "VIDEO", "Attributes"]

ACTIVE = ("full_active", "high_active", "middle_active", "UNKNOWN")
# Texts of each range, with the smallest number of each, as the publisher's README lists them.
RANGES = {
    "follow_user_num": (
        ("0", "(0,10]", "(10,50]", "(50,100]", "(100,150]", "(150,250]", "(250,500]", "500+"),
        (0, 1, 11, 51, 101, 151, 251, 501),
    ),
    "fans_user_num": (
        ("0", "[1,10)", "[10,100)", "[100,1k)", "[1k,5k)", "[5k,1w)", "[1w,10w)"),
        (0, 1, 10, 100, 1_000, 5_000, 10_000),
    ),
    "friend_user_num": (
        ("0", "[1,5)", "[5,30)", "[30,60)", "[60,120)", "[120,250)", "250+"),
        (0, 1, 5, 30, 60, 120, 250),
    ),
    "register_days": (
        ("15-30", "31-60", "61-90", "91-180", "181-365", "366-730", "730+"),
        (15, 31, 61, 91, 181, 366, 731),
    ),
}
MOST = {"follow_user_num": 2_000, "fans_user_num": 99_999, "friend_user_num": 800, "register_days": 3_650}
ONE_HOT = (2, 7, 50, 1471, 15, 34, 3, 118, 454, 7, 5, 5, 2, 2, 2, 2, 2, 2)
UNKNOWN = -124
VIDEO_TYPES, UPLOAD_TYPES = (
    ("NORMAL", "AD"),
    ("ShortImport", "LongImport", "ShortCamera", "LongCamera", "PictureSet", "Web", "Kmovie"),
)
SIZES = ((720, 1280), (1080, 1920), (720, 960), (1280, 720), (576, 1024))
TAGS, MOST_TAGS = 69, 4
MEANS = (
    "show_cnt show_user_num play_cnt play_user_num play_duration complete_play_cnt complete_play_user_num "
    "valid_play_cnt valid_play_user_num long_time_play_cnt long_time_play_user_num short_time_play_cnt "
    "short_time_play_user_num play_progress comment_stay_duration like_cnt like_user_num click_like_cnt "
    "double_click_cnt cancel_like_cnt cancel_like_user_num comment_cnt comment_user_num direct_comment_cnt "
    "reply_comment_cnt delete_comment_cnt delete_comment_user_num comment_like_cnt comment_like_user_num "
    "follow_cnt follow_user_num cancel_follow_cnt cancel_follow_user_num share_cnt share_user_num download_cnt "
    "download_user_num report_cnt report_user_num reduce_similar_cnt reduce_similar_user_num collect_cnt "
    "collect_user_num cancel_collect_cnt cancel_collect_user_num direct_comment_user_num reply_comment_user_num "
    "share_all_cnt share_all_user_num outsite_share_all_cnt"
)
STATISTICS = MEANS.split()
"""Daily means of video_features_statistic, in the order of the publisher's README."""
USER = (
    "user_id",
    *("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"),
    *(name for number in RANGES for name in (number, f"{number}_range")),
    *(f"onehot_feat{k}" for k in range(len(ONE_HOT))),
)
VIDEO = (
    *("video_id", "author_id", "video_type", "upload_dt", "upload_type", "visible_status", "video_duration"),
    *("server_width", "server_height", "music_id", "music_type", "tag"),
)
FIRST_DAY = np.datetime64("2020-01-01")


class Attributes:
    """Attributes of users and videos, by name.

    Args:
        seed: of the set. authors: how many there are.
    """

    def __init__(self, seed: int, authors: int) -> None:
        self.seed, self.authors = seed, authors

    def _u(self, name: str, ids: Ints) -> Floats:
        return uniform(f"{self.seed}|{name}", ids)

    def _pick(self, name: str, ids: Ints, size: int) -> Ints:
        return Zipf(size, 0.6).ranks(self._u(name, ids))

    def user(self, name: str, ids: Ints) -> Any:
        """An attribute of users: whole numbers, or (places, texts) of a text."""
        if name == "user_active_degree":
            return self._pick(name, ids, len(ACTIVE)), ACTIVE
        if name == "is_live_streamer":
            return np.select([self._u(name, ids) < 0.03, self._u(name, ids) < 0.05], [UNKNOWN, 1], 0)
        if name in ("is_lowactive_period", "is_video_author"):
            return (self._u(name, ids) < (0.02 if name == "is_lowactive_period" else 0.7)).astype(np.int64)
        if name in RANGES:
            return self._amount(name, ids)
        if name.endswith("_range"):
            texts, least = RANGES[name.removesuffix("_range")]
            return np.searchsorted(least, self._amount(name.removesuffix("_range"), ids), side="right") - 1, texts
        size = ONE_HOT[int(name.removeprefix("onehot_feat"))]
        return np.where(self._u(f"no {name}", ids) < 0.01, UNKNOWN, self._pick(name, ids, size))

    def _amount(self, name: str, ids: Ints) -> Ints:
        least, most = RANGES[name][1][0], MOST[name]
        u = self._u(name, ids)
        # Even over the logarithm, so that every range has its share.
        amount: Ints = np.floor((most + 1 - least) ** u).astype(np.int64) - 1 + least
        return amount

    def video(self, name: str, ids: Ints) -> Any:
        """An attribute of videos: numbers, or (places, texts) of a text."""
        if name == "video_type":
            return (self._u(name, ids) < 0.06).astype(np.int64), VIDEO_TYPES
        if name == "upload_type":
            return self._pick(name, ids, len(UPLOAD_TYPES)), UPLOAD_TYPES
        if name == "author_id":
            return self._pick(name, ids, self.authors)
        if name == "music_type":
            return np.where(self._u("no music", ids) < 0.02, UNKNOWN, self._pick(name, ids, 12))
        if name == "music_id":
            return (self._u(name, ids) * 4e9).astype(np.int64)
        if name == "video_duration":
            return np.floor(8_000 * 37.5 ** self._u(name, ids)).astype(np.int64)
        return (self._u(name, ids) >= 0.03).astype(np.int64)  # visible_status

    def no_duration(self, ids: Ints) -> Any:
        """Videos whose duration is not known: empty in the table of videos, 0 in the logs."""
        return self._u("no duration", ids) < 0.12

    def tags(self, ids: Ints) -> tuple[Ints, Ints]:
        """(row, tag) of every tag of each video, ascending and without repeats; 3 % of videos have none."""
        # One tag mostly, four at most.
        count = np.where(self._u("no tag", ids) < 0.03, 0, 1 + (MOST_TAGS * self._u("tags", ids) ** 3).astype(np.int64))
        row = np.repeat(np.arange(len(ids)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        keys = np.unique(row * TAGS + Zipf(TAGS, 0.6).ranks(self._u("tag", ids[row] * 8 + nth)))
        return keys // TAGS, keys % TAGS

    def effect(self, task: str, name: str, users: Ints, videos: Ints) -> Floats:
        """The planted effect of an attribute on each row of a log."""
        if name == "tag":
            # Tags are worked out once per video of the block.
            distinct, where = np.unique(videos, return_inverse=True)
            row, tag = self.tags(distinct)
            return pooled_effect(self.seed, task, name, tag, row, len(distinct))[where]
        found = self.user(name, users) if name in USER else self.video(name, videos)
        if isinstance(found, tuple):
            places, texts = found
            return effects(self.seed, task, name, np.array([text_key(text) for text in texts], dtype=np.uint64))[places]
        return effects(self.seed, task, name, found)

    def user_table(self, ids: Ints) -> pl.DataFrame:
        """Rows of user_features."""
        return pl.DataFrame({"user_id": ids} | {name: _column(self.user(name, ids)) for name in USER[1:]})

    def video_table(self, ids: Ints) -> pl.DataFrame:
        """Rows of video_features_basic."""
        made: dict[str, Any] = {"video_id": ids}
        sizes = np.array(SIZES)[self._pick("size", ids, len(SIZES))]
        for name in VIDEO[1:]:
            if name == "upload_dt":
                days = (830 * self._u(name, ids) ** 0.2).astype(np.int64)
                made[name] = pl.Series((FIRST_DAY + days).astype("datetime64[ms]")).dt.strftime("%Y-%m-%d")
            elif name == "video_duration":
                known = pl.Series(self.video(name, ids).astype(np.float64))
                made[name] = pl.select(pl.when(pl.lit(pl.Series(~self.no_duration(ids)))).then(known)).to_series()
            elif name.startswith("server_"):
                made[name] = sizes[:, 0 if name == "server_width" else 1]
            elif name == "tag":
                made[name] = self._tag_texts(ids)
            else:
                made[name] = _column(self.video(name, ids))
        return pl.DataFrame(made)

    def _tag_texts(self, ids: Ints) -> pl.Series:
        row, tag = self.tags(ids)
        frame = pl.DataFrame({"row": row, "tag": tag}).group_by("row", maintain_order=True)
        texts = frame.agg(pl.col("tag").cast(pl.String).str.join(","))
        rows = pl.DataFrame({"row": np.arange(len(ids))})
        return rows.join(texts, on="row", how="left", maintain_order="left")["tag"]

    def statistics_table(self, ids: Ints) -> pl.DataFrame:
        """Rows of video_features_statistic: invented means that say nothing about any label."""
        made: dict[str, Any] = {"video_id": ids, "counts": 1 + (80 * self._u("counts", ids)).astype(np.int64)}
        for name in STATISTICS:
            top = {"show_cnt": 200, "play_duration": 300_000, "play_progress": 1, "comment_stay_duration": 9_000}.get(
                name, 20
            )
            made[name] = np.round(top * self._u(name, ids) ** 3, 3) + 0.0
        return pl.DataFrame(made)


def _column(found: Any) -> pl.Series:
    if isinstance(found, tuple):
        places, texts = found
        return pl.Series(list(texts)).gather(places)
    return pl.Series(found)
