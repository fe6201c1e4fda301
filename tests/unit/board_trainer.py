"""Stands in for training: a record from the settings alone, in no time. Its AUC is best at a learning rate of .005."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recbole_dtn.config.load import resolve, settings_digest
from recbole_dtn.config.settings import Settings
from recbole_dtn.record.record import EpochRecord, RunRecord, write_record
from recbole_dtn.version import __version__

__all__ = ["FINGERPRINT", "Trainer"]

FINGERPRINT = "f" * 64


def auc_of(settings: Settings) -> float:
    """At the last epoch."""
    distance = math.log10(settings.optimizer.lr / 0.005)
    return round(0.8 - 0.05 * distance**2 - 0.02 * settings.dropout + settings.seed % 7 * 1e-4, 6)


@dataclass
class Trainer:
    """``run_cell`` of a leaderboard.

    Attributes:
        before: called with the settings of each run, to raise in place of it. ran: settings of the runs.
        seconds: of an epoch, by model; 1 by default.
    """

    before: Callable[[Settings], object] = str
    ran: list[Settings] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, overrides: list[str]) -> RunRecord:
        settings = resolve(overrides).settings
        self.before(settings)
        self.ran.append(settings)
        curve = [auc_of(settings) - 0.01 * (settings.epochs - epoch) for epoch in range(1, settings.epochs + 1)]
        needed = settings.trial.needed if settings.trial else []
        behind = (epoch for epoch, least in enumerate(needed, 1) if least is not None and curve[epoch - 1] < least)
        curve = curve[: next(behind, len(curve))]
        folder = Path(settings.output_dir) / settings.dataset / settings.model
        run_id = f"20260101-{len(list(folder.glob('*'))):06}-{settings_digest(settings)[:6]}-s{settings.seed}"
        record = RunRecord(
            run_id=run_id, status="finished", interrupted_at=None, model=settings.model, dataset=settings.dataset,
            seed=settings.seed, split_seed=settings.split_seed, settings=settings.dump(),
            settings_digest=settings_digest(settings), data_fingerprint=FINGERPRINT, code_version=__version__,
            tasks=[], valid={"like": {"auc": curve[-1]}},
            test=None if settings.trial else {"like": {"auc": curve[-1], "logloss": 0.5}},
            best_epoch=len(curve), epochs=len(curve),
            history=[
                EpochRecord(epoch=epoch, step=epoch, loss=0.5, valid=None, selected=value)
                for epoch, value in enumerate(curve, 1)
            ],
            parameters={"embedding": 1, "codebook": 0, "dense": 1}, train_samples_per_second=1.0, peak_rss_bytes=1,
            peak_anon_bytes=None, wall_seconds={"train": len(curve) * self.seconds.get(settings.model, 1.0)},
            gate_weights={}, versions={}, valid_value=curve[-1],
        )  # fmt: skip
        write_record(record, folder / run_id)
        return record
