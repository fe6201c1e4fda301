"""Synthetic KuaiRand: ``data/`` with logs of two policies, and tables of users and videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recbole_dtn.data.hashing import Floats, Ints, effects, rng
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.synthetic.faults import LineFile, spoil
from recbole_dtn.synthetic.kuairand_features import STATISTICS, USER, VIDEO, Attributes
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
from recbole_dtn.synthetic.planted import Field, Goal, Labels
from recbole_dtn.synthetic.zipf import Scatter, Zipf

__all__ = ["KuaiRand"]

# Rows of both policies, users and videos of the published versions.
VERSIONS = {
    "1k": (11_713_045, 43_028, 1_000, 4_369_953),
    "pure": (1_436_609, 1_186_059, 27_285, 7_551),
    "27k": (322_278_385, 1_186_059, 27_285, 32_038_725),
}
CLICK_RATE, LONG_RATE, LIKE_RATE = 0.4, 0.65, 0.04  # assumed; long view and like are shares of the clicks
HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
LOG = HEADER.split(",")
FIRST, SECOND = "4_08_to_4_21", "4_22_to_5_08"
DAYS = {FIRST: (0, 14), SECOND: (14, 31)}
MIDNIGHT = 1_649_347_200_000  # 8 April 2022 in Beijing, in milliseconds
DAY = 86_400_000
TABS, RANDOM_VIDEOS = 15, 7_551
RARE = {"is_follow": 0.006, "is_comment": 0.012, "is_forward": 0.004, "is_hate": 0.001, "is_profile_enter": 0.03}
FAULTS = {
    "log": ("fields", "separator", "label", "orphan", "overflow", "text", "utf8", "blank"),
    "table": ("fields", "separator", "overflow", "text", "utf8", "blank"),
}


class KuaiRand(SyntheticLayout):
    """Click, then long view and like among the clicks, in short videos.

    Args:
        plan: rows (of all logs), seed and the like. version: 1k, pure or 27k: names of files, sizes, and the share of
            the random policy. click_rate: P(is_click). long_rate, like_rate: P(long_view | is_click) and
            P(is_like | is_click).
    """

    name = "kuairand"
    unit = "log rows"

    def __init__(
        self,
        plan: Plan,
        *,
        version: str = "1k",
        click_rate: float = CLICK_RATE,
        long_rate: float = LONG_RATE,
        like_rate: float = LIKE_RATE,
    ) -> None:
        version = version.lower()
        if version not in VERSIONS:
            raise UsageError(f"--version={version}: no such version; {nearest(version, VERSIONS)}")
        check_rates(click_rate=click_rate, long_rate=long_rate, like_rate=like_rate)
        self.version, self.rates = version, (click_rate, long_rate, like_rate)
        standard, random, users, videos = VERSIONS[version]
        # As in the published set; ids grow with the square root of the rows, so that frequent and rare ones are mixed.
        self.random_share = random / (standard + random)
        share = min(1.0, (plan.rows / (standard + random)) ** 0.5)
        self.users, self.videos = (
            max(30, round(users * share)),
            max(100, min(round(videos * share), round(0.4 * plan.rows))),
        )
        self.attributes = Attributes(plan.seed, max(40, self.videos // 4))
        self.files: dict[str, LineFile] = {}
        super().__init__(plan)

    def goals(self) -> tuple[Goal, ...]:
        click = ("tab", "tag", "user_active_degree", "onehot_feat4", "upload_type", "onehot_feat7")
        long_view = (
            "music_type",
            "register_days_range",
            "onehot_feat2",
            "follow_user_num_range",
            "onehot_feat9",
            "video_type",
        )
        like = (
            "fans_user_num_range",
            "onehot_feat1",
            "friend_user_num_range",
            "onehot_feat10",
            "onehot_feat5",
            "onehot_feat11",
        )
        rates = self.rates
        return (
            Goal("is_click", rates[0], _fields(click)),
            Goal("long_view", rates[1], _fields((*long_view, *click)), after="is_click"),
            Goal("is_like", rates[2], _fields((*like, *click)), after="is_click"),
        )

    def parts(self) -> list[Part]:
        random = max(1, round(self.plan.rows * self.random_share))
        first = round((self.plan.rows - random) * 14 / 31)
        runs = [(f"log_standard_{FIRST}", first, "train")]
        runs += [(f"log_standard_{SECOND}", self.plan.rows - random - first, "test")]
        parts = []
        for name, rows, group in runs:
            if self.version == "27k":
                parts += [
                    Part(f"{name}_27k_part1", rows - rows // 2, group),
                    Part(f"{name}_27k_part2", rows // 2, group),
                ]
            else:
                parts.append(Part(f"{name}_{self.version}", rows, group))
        return [*parts, Part(f"log_random_{SECOND}_{self.version}", random, "random")]

    def notes(self) -> list[str]:
        return [
            "train is the standard log of 8 to 21 April, test the standard log of 22 April to 8 May, random the log of "
            "the random policy",
            f"{self.users:,} users, {self.videos:,} videos",
            "the other feedback signals are drawn among the clicks with fixed rates and depend on nothing else; "
            "play_time_ms agrees with is_click and long_view where the duration is known",
            "keys of the planted effects: the integer modulo 2^64 (-124 included), text_key of a text",
        ]

    def draw(self, part: Part, block: int, rows: int, needed: Sequence[tuple[str, Field]]) -> DrawnBlock:
        random = rng(self.plan.seed, f"rows|{part.name}", block)
        is_random = part.group == "random"
        users = Scatter(self.users)(Zipf(self.users, 0.5).ranks(random.random(rows)))
        # The random policy shows a small pool of videos, all equally often (exponent 0).
        pool = min(self.videos, RANDOM_VIDEOS) if is_random else self.videos
        videos = Scatter(self.videos)(Zipf(pool, 0.0 if is_random else 0.8).ranks(random.random(rows)))
        tab = Zipf(TABS, 1.2).ranks(random.random(rows))
        tab = np.where(tab == 0, 1, np.where(tab == 1, 0, tab))  # tab 1 is the most frequent
        start, end = self._span(part)
        # Times ascend within a block and over the blocks of a part.
        share = (block * BLOCK_ROWS + np.sort(random.random(rows)) * rows) / part.rows
        time = MIDNIGHT + ((start + share * (end - start)) * DAY).astype(np.int64)
        found: dict[tuple[str, str], Floats] = {}
        for task, one in needed:
            found[task, one.name] = self._effect(task, one.name, users, videos, tab)
        data = {"users": users, "videos": videos, "tab": tab, "time": time, "u": random.random((len(RARE) + 3, rows))}
        return DrawnBlock(part, block, rows, found, data)

    def _span(self, part: Part) -> tuple[float, float]:
        start, end = DAYS[FIRST if FIRST in part.name else SECOND]
        middle = (start + end) / 2
        if part.name.endswith("_part1"):
            return start, middle
        return (middle, end) if part.name.endswith("_part2") else (start, end)

    def _effect(self, task: str, name: str, users: Ints, videos: Ints, tab: Ints) -> Floats:
        if name == "tab":
            return effects(self.plan.seed, task, name, tab)
        return self.attributes.effect(task, name, users, videos)

    def open(self, place: Place) -> None:
        def of_log(kind: str, line: bytes) -> bytes:
            return spoil(kind, line, number=1, label=LOG.index("is_click"), key=0)

        def of_table(kind: str, line: bytes) -> bytes:
            if kind == "fields":  # the first column: the last may be a quoted list
                return line.partition(b",")[2]
            return spoil(kind, line, number=0)

        for part in self.parts():
            self.files[part.name] = place.open(f"data/{part.name}.csv", FAULTS["log"], of_log)
            self.files[part.name].header(",".join(LOG))
        for name, columns in (("user_features", USER), ("video_features_basic", VIDEO)):
            self.files[name] = place.open(f"data/{name}_{self.version}.csv", FAULTS["table"], of_table)
            self.files[name].header(",".join(columns))
        for number in range(3 if self.version == "27k" else 1):
            suffix = f"_part{number + 1}" if self.version == "27k" else ""
            file = place.open(f"data/video_features_statistic_{self.version}{suffix}.csv", FAULTS["table"], of_table)
            file.header(",".join(("video_id", "counts", *STATISTICS)))
            self.files[f"statistic{number}"] = file

    def write(self, block: DrawnBlock, labels: Labels) -> None:
        data, u = block.data, block.data["u"]
        local = data["time"] - MIDNIGHT
        day = local // DAY
        click = labels.label["is_click"].astype(np.int64)
        long_view = labels.label["long_view"].astype(np.int64)
        rare = {name: ((u[k] < rate) & (click > 0)).astype(np.int64) for k, (name, rate) in enumerate(RARE.items())}
        known = self.attributes.video("video_duration", data["videos"])
        made: dict[str, Any] = {
            "user_id": data["users"],
            "video_id": data["videos"],
            # Day 0 is 8 April, day 23 is 1 May.
            "date": np.where(day < 23, 20220408 + day, 20220501 + day - 23),
            "hourmin": local % DAY // 3_600_000 * 100,
            "time_ms": data["time"],
            "is_click": click,
            "is_like": labels.label["is_like"].astype(np.int64),
            "long_view": long_view,
            "play_time_ms": _play_time(known, click, long_view, u[-1]),
            "duration_ms": np.where(self.attributes.no_duration(data["videos"]), 0, known),
            "profile_stay_time": np.where(rare["is_profile_enter"] > 0, (u[-2] * 60_000).astype(np.int64), 0),
            "comment_stay_time": np.where(u[-3] < 0.1 * click, (u[-2] * 40_000).astype(np.int64), 0),
            "is_rand": np.full(block.rows, int(block.part.group == "random")),
            "tab": data["tab"],
        }
        frame = pl.DataFrame(made | rare).select(LOG)
        self.files[block.part.name].write(csv_lines(frame), block.rows)

    def finish(self) -> None:
        for start in range(0, self.users, BLOCK_ROWS):
            ids = np.arange(start, min(start + BLOCK_ROWS, self.users))
            self.files["user_features"].write(csv_lines(self.attributes.user_table(ids)), len(ids))
        pieces = sum(name.startswith("statistic") for name in self.files)
        for piece in range(pieces):
            last = self.videos * (piece + 1) // pieces
            for start in range(self.videos * piece // pieces, last, BLOCK_ROWS):
                ids = np.arange(start, min(start + BLOCK_ROWS, last))
                self.files["video_features_basic"].write(csv_lines(self.attributes.video_table(ids)), len(ids))
                self.files[f"statistic{piece}"].write(csv_lines(self.attributes.statistics_table(ids)), len(ids))


def _fields(names: Sequence[str]) -> tuple[Field, ...]:
    return tuple(Field(name, "tokens" if name == "tag" else "token") for name in names)


def _play_time(duration: Ints, click: Ints, long_view: Ints, u: Floats) -> Ints:
    """Milliseconds: under 7 s without a click, 7 to 18 s with one, from 18 s (or all of it) with a long view."""
    enough = np.minimum(duration, 18_000)
    low = np.where(long_view > 0, enough, np.where(click > 0, 7_001, 0))
    high = np.where(long_view > 0, 2.5 * enough, np.where(click > 0, enough, 7_000))
    played: Ints = np.floor(low + u * (high - low)).astype(np.int64)
    return played
