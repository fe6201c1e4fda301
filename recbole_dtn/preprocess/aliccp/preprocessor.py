"""Ali-CCP (Ma et al., "Entire Space Multi-Task Model", SIGIR 2018): impressions of a shop's search with click and buy.

A row of the skeleton is an impression, and names the row of the common features that holds its user. The user part
(about 600 features) is stored once in ``<name>.user``, not in each of its 58 impressions (on average).
"""

from __future__ import annotations

from typing import Any

from recbole_dtn.preprocess.aliccp.join import BLOCK_BYTES, PARTS, WORKERS, Join, raw_name
from recbole_dtn.preprocess.aliccp.options import AliCCPOptions
from recbole_dtn.preprocess.base import Work
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.registry import PREPROCESSORS

__all__ = ["AliCCP"]


@PREPROCESSORS.register("aliccp", paper="Ma et al., SIGIR 2018", options=AliCCPOptions)
class AliCCP(RawSet):
    """Ali-CCP: click and purchase over 85 M impressions, user histories in a separate table.

    Reads ``sample_skeleton_{train,test}.csv`` and ``common_features_{train,test}.csv`` as downloaded.

    Attributes:
        block_bytes, workers: bytes read at a time, and threads; the files written depend on neither.
    """

    set_name = "aliccp"
    default_name = "aliccp"
    source = (
        "Alibaba, on Tianchi: https://tianchi.aliyun.com/dataset/408 (registration; its terms are accepted there); "
        "sample_train.tar.gz and sample_test.tar.gz"
    )
    files = (
        "sample_train.tar.gz, or its sample_skeleton_train.csv and common_features_train.csv",
        "sample_test.tar.gz, or its sample_skeleton_test.csv and common_features_test.csv",
    )
    options: AliCCPOptions
    bytes_per_second = 75e6
    block_bytes = BLOCK_BYTES
    workers = WORKERS

    def wanted(self) -> list[str]:
        return [raw_name(kind, part) for part in PARTS for kind in ("skeleton", "common")]

    def write(self, work: Work) -> dict[str, int]:
        raw = self.open_raw(work.scratch)
        join = Join(self.name, self.options, raw, work, block_bytes=self.block_bytes, workers=self.workers)
        return join.write()

    def adapted(self, values: dict[str, Any]) -> dict[str, Any]:
        """The data set's fields as the options write them, with their types."""
        options = self.options
        described = {str(spec["name"]): dict(spec) for spec in values.get("fields", [])}
        fields: list[dict[str, Any]] = []
        known = [name for name in described if name in options.fields]
        for name in [*known, *(name for name in options.fields if name not in described)]:
            spec = described.get(name, {"name": name})
            if name in options.lists and options.repeated == "all":
                spec["type"] = "token_seq"
            else:
                spec = {key: value for key, value in spec.items() if key not in ("type", "pooling", "weights")}
            fields.append(spec)
        return {**values, "fields": fields}
