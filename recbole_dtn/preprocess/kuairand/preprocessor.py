"""KuaiRand: logs of a short-video app with 11 feedback signals, user and video features beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import Work
from recbole_dtn.preprocess.kuairand.log import INTER_TYPES, LogReader
from recbole_dtn.preprocess.kuairand.options import (
    BINARY_SIGNALS,
    CLICK_LONG_VIEW,
    TIME_WEIGHTS,
    KuaiRandOptions,
    Signal,
)
from recbole_dtn.preprocess.kuairand.sides import write_items, write_users
from recbole_dtn.preprocess.part_files import PartFiles
from recbole_dtn.preprocess.raw_files import RawFile, RawFolder
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["KuaiRand"]

STANDARD = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08")
RANDOM = "log_random_4_22_to_5_08"
PARTS_27K = ("part1", "part2")


@PREPROCESSORS.register("kuairand", paper="Gao et al., CIKM 2022", options=KuaiRandOptions)
class KuaiRand(RawSet):
    """KuaiRand 1K, Pure or 27K: 11 feedback signals, user and video features joined.

    ``.inter`` is cut into parts by day, with all signals as float columns; ``.user`` and ``.item`` hold the features.

    Days are those of the log's own ``date`` column. ``hour`` comes from ``hourmin``, ``weekday`` (1 Monday to 7 Sunday)
    from ``date``. ``duration_ms`` is 0 where it is not known, as in the logs, and
    ``duration_known`` is 0 there, else 1. ``video_features_statistic`` is not read:
    its daily means cover the test days, so that the outcome of a test row is in its own inputs.
    """

    set_name = "kuairand"
    default_name = "kuairand-1k"
    source = "kuairand.com (Kuaishou and USTC; Gao et al., CIKM 2022), licence CC BY-SA 4.0"
    files = (
        "KuaiRand-1K.tar.gz, KuaiRand-Pure.tar.gz or KuaiRand-27K.tar.gz, or the CSV files of data/ inside:",
        "log_standard_4_08_to_4_21_1k.csv, log_standard_4_22_to_5_08_1k.csv, user_features_1k.csv,",
        "video_features_basic_1k.csv; for a random-policy test also log_random_4_22_to_5_08_1k.csv",
        "(_pure, _27k in place of _1k; the standard logs of 27K end with _part1, _part2)",
    )
    bytes_per_second = 35e6
    options: KuaiRandOptions

    @classmethod
    def name_of(cls, options: Any) -> str:
        """``kuairand-<version>``, with ``-stem`` and ``-unbiased`` where the options say so."""
        stem = "-stem" if options.protocol.startswith("stem") else ""
        return f"kuairand-{options.version}{stem}{'-unbiased' if options.test_log == 'random' else ''}"

    def _logs(self) -> list[str]:
        version = self.options.version
        if version != "27k":
            return [f"{log}_{version}.csv" for log in STANDARD]
        return [f"{log}_{version}_{part}.csv" for log in STANDARD for part in PARTS_27K]

    def _others(self) -> list[str]:
        names = [f"{RANDOM}_{self.options.version}.csv"] if self.options.test_log == "random" else []
        return [*names, *(f"{table}_{self.options.version}.csv" for table in ("user_features", "video_features_basic"))]

    def wanted(self) -> list[str]:
        if not self.options.partial:
            return [*self._logs(), *self._others()]
        folder = RawFolder(self.raw)
        there = [name for name in self._logs() if folder.find(name) is not None]
        return [*(there or self._logs()[:1]), *self._others()]

    def missing(self, names: Sequence[str]) -> str:
        text = super().missing(names)
        logs = self._logs()
        if any(name in logs for name in names) and not all(name in names for name in logs) and not self.options.partial:
            text += "\nTo make a set of the standard logs that are there alone: --partial=true"
        return text

    def adapted(self, values: dict[str, Any]) -> dict[str, Any]:
        if self.options.tasks is not None:
            values["tasks"] = [_task(name, self.options.tasks) for name in self.options.tasks]
            if not any(name in BINARY_SIGNALS for name in self.options.tasks):
                values["valid_metric"] = f"{self.options.tasks[0]}_rmse"
        return values

    def write(self, work: Work) -> dict[str, int]:
        raw = self.open_raw(work.scratch)
        missing = [name for name in self._logs() if name not in raw]
        if missing:
            work.log(f"warning: made without {', '.join(missing)} (partial: true): not the whole published set")
        with PartFiles(work.folder, self.name, INTER_TYPES) as parts:
            reader = LogReader(self.options, parts, work.meter)
            for name in self._logs():
                if name in raw:
                    reader.read(raw[name], work.rejects.table("standard log"), random=False)
            self._read_random(raw, reader, work)
            written = parts.written()
        self._check_parts(reader, written)
        features = (("user", "user_features", reader.users), ("item", "video_features_basic", reader.videos))
        for kind, table, seen in features:
            write = write_users if kind == "user" else write_items
            file = f"{self.name}.{kind}"
            written[file] = write(raw[f"{table}_{self.options.version}.csv"], seen, work.folder / file, work)
        return written

    def _read_random(self, raw: dict[str, RawFile], reader: LogReader, work: Work) -> None:
        if self.options.test_log != "random":
            return
        if self.options.random_days == "all":
            work.log(
                "warning: random_days: all: the test part has days of the training part (it is unbiased by the policy, "
                "and not later than what was learned)"
            )
        reader.read(raw[f"{RANDOM}_{self.options.version}.csv"], work.rejects.table("random log"), random=True)

    def _check_parts(self, reader: LogReader, written: dict[str, int]) -> None:
        empty = [part for part in ("train", "valid", "test") if not written[f"{self.name}.{part}.inter"]]
        if empty:
            days = "no day" if reader.days is None else f"{reader.days[0]} to {reader.days[1]}"
            raise DataError(
                f"{self.raw}: no row for the {', '.join(empty)} part: the logs have {days}; train_until is "
                f"{self.options.train_until} and valid_until {self.options.valid_until} (both days included): set "
                "other ones, --train_until=YYYY-MM-DD --valid_until=YYYY-MM-DD"
            )


def _task(name: Signal, chosen: Sequence[Signal]) -> dict[str, Any]:
    """One task of a data set's YAML; a long view counts after a click where both are tasks."""
    if name in TIME_WEIGHTS:
        return {"name": name, "kind": "regression", "label": name, "weight": TIME_WEIGHTS[name]}
    if name == "long_view" and "is_click" in chosen:
        # Not named like the raw column: stock RecBole has no conditions and reads the column with the task's name.
        condition = "long_view == 1 and is_click == 1"
        return {"name": CLICK_LONG_VIEW, "label": CLICK_LONG_VIEW, "condition": condition, "after": ["is_click"]}
    return {"name": name, "label": name}
