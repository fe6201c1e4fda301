"""A shop's click log to atomic files."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from recbole_dtn.data.write import write_atomic
from recbole_dtn.errors import DataError
from recbole_dtn.preprocess.base import Preprocessor, Work
from recbole_dtn.preprocess.lines import LINE, line_blocks, read_table
from recbole_dtn.preprocess.raw_files import RawFolder
from recbole_dtn.registry import PREPROCESSORS

COLUMNS = {"user": "token", "item": "token", "click": "float", "buy": "float"}


@PREPROCESSORS.register("shop_clicks")
class ShopClicks(Preprocessor):
    """clicks.csv (also .gz, .zst or in an archive): user,item,click,buy without a header."""

    default_name = "shop_clicks"
    source = "the shop's export"

    def write(self, work: Work) -> dict[str, int]:
        """Write shop_clicks.inter; rows whose labels are not 0 or 1 are rejected."""
        raw = RawFolder(self.raw, work.scratch).find("clicks.csv")
        if raw is None:
            raise DataError(f"{self.raw}: clicks.csv is missing; it comes from {self.source}")
        tally = work.rejects.table("clicks")

        def frames() -> Iterator[pl.DataFrame]:
            for lines in line_blocks(raw, meter=work.meter):
                frame = read_table(lines, list(COLUMNS), tally, raw.name)
                good = (frame["click"].is_in(["0", "1"]) & frame["buy"].is_in(["0", "1"])).fill_null(False)
                tally.reject(raw.name, frame.filter(~good)[LINE].to_list(), "click, buy: expected 0 or 1")
                kept = frame.filter(good)
                tally.written += len(kept)
                yield kept

        file = f"{self.name}.inter"
        return {file: write_atomic(frames(), work.folder / file, COLUMNS)}

    def meaning(self) -> dict[str, Any]:
        """Two inputs, two tasks."""
        tasks = [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "after": ["click"]}]
        return {"fields": [{"name": "user"}, {"name": "item"}], "tasks": tasks}
