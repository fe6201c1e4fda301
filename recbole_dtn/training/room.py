"""Whether a run fits in memory: its estimate against what is free, told before the model is built."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from recbole_dtn.config.choice import options_class
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.training.footprint import Footprint, estimate
from recbole_dtn.training.free_memory import free_memory, gpu_free

__all__ = ["Room", "check_memory", "gib"]

REFUSED, WARNED = 1.3, 0.8
"""Shares of the free memory from which an estimate is refused, and from which a warning says that it is near."""
SMALLER = (
    "low_rank",
    "reduction",
    "top_fields",
    "bilinear",
    "weight",
    "codes",
    "code_dim",
    "hidden",
    "layers",
    "blocks",
)
"""Options of interactions that decide their size, in the order in which they are named."""
LISTED = 0.1
"""Share of the estimate below which a part is not named."""


def gib(size: float) -> str:
    """Bytes in GiB, or in MiB below a tenth of one.

    >>> gib(17.6 * 2**30), gib(3 * 2**20)
    ('17.6 GiB', '3 MiB')
    """
    return f"{size / 2**30:,.1f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:,.0f} MiB"


class Room:
    """An estimate beside the memory that is free.

    Args:
        footprint: of one process. free: bytes. device: where, in words. processes: that share it.
    """

    def __init__(self, footprint: Footprint, free: int, device: str, processes: int = 1) -> None:
        self.footprint, self.free, self.device, self.processes = footprint, free, device, processes
        self.needed = processes * (footprint.total if device == "memory" else footprint.model)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(size)}" for name, size in self.parts())
        each = f" in each of {self.processes} processes" if self.processes > 1 else ""
        unknown = "; activations are not known" if self.footprint.activations is None else ""
        needed = gib(self.needed / self.processes)
        return f"about {needed} of {self.device}{each} ({parts}{unknown}); free: {gib(self.free)}"

    def parts(self) -> list[tuple[str, int]]:
        """The parts by size, those that are large enough to be named."""
        found = self.footprint
        parts = {
            "embeddings and codebooks": found.tables,
            "other parameters": found.dense,
            "optimiser states": found.states,
            "gradients": found.gradients,
            f"activations of {found.rows:,} rows": found.activations or 0,
            "data buffers": found.data if self.device == "memory" else 0,
        }
        total = sum(parts.values())
        by_size = sorted(parts.items(), key=lambda each: -each[1])
        return [(name, size) for name, size in by_size if size > LISTED * total]

    def advice(self, settings: Settings) -> Iterator[str]:
        """Settings that make the large parts smaller, a line each."""
        found = self.footprint
        # A parameter counts with its gradient and its states.
        if found.tables > LISTED * found.total:
            yield (
                "embeddings: a smaller embedding_size, a larger min_count, embedding_compression.method=hash, "
                "embedding_dtype=bfloat16, embedding_optimizer.name=rowwise_adagrad (one number of state per row)"
            )
        if found.dense > LISTED / 2 * found.total or (found.activations or 0) > LISTED * found.total:
            for name, size in sorted(found.modules.items(), key=lambda each: -each[1]):
                if size > LISTED * (found.dense + found.tables):
                    known = options_class(INTERACTIONS, name).model_fields
                    options = [option for option in SMALLER if option in known]
                    told = f"options {', '.join(options)} of " if options else ""
                    yield f"{name} has {gib(size)} of parameters: smaller {told}{name}, or interactions without it"
        if (found.activations or 0) > LISTED * found.total:
            yield (
                f"activations: a larger batch_parts ({settings.batch_parts}), which computes the same step in parts; a "
                f"smaller train_batch_size ({settings.train_batch_size:,}) or eval_batch_size "
                f"({settings.eval_batch_size:,})"
            )


def check_memory(settings: Settings, prepared: PreparedData) -> tuple[list[Room], list[str]]:
    """Estimate the memory of a run before its model is built.

    Returns:
        The estimate beside what is free, for each kind of memory that the run takes (none for a model that is fitted
        directly), and sentences where it is near the limit.

    Raises:
        UsageError: when the estimate is clearly above what is free, and ``check_memory`` is true.
    """
    footprint = estimate(settings, prepared)
    if footprint is None:
        return [], []
    rooms, near = list(_rooms(settings, footprint)), []
    for room in rooms:
        share = room.needed / max(1, room.free)
        if share > REFUSED and settings.check_memory:
            lines = "".join(f"\n  {line}" for line in room.advice(settings))
            raise UsageError(
                f"the run does not fit: it takes {room}. To make it smaller:{lines}\n  check_memory=false tries it "
                "nevertheless"
            )
        if share > WARNED:
            near.append(f"the run may not fit: it takes {room}")
    return rooms, near


def _rooms(settings: Settings, footprint: Footprint) -> Iterator[Room]:
    count = settings.devices if isinstance(settings.devices, int) else 1
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        yield Room(footprint, gpu_free(), "GPU memory")
    elif settings.accelerator in ("auto", "cpu"):
        yield Room(footprint, free_memory(), "memory", max(1, count))
