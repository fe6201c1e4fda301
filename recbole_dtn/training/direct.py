"""Training of a model that is fitted directly: the fit, then the validation that gives every model its checkpoint."""

from __future__ import annotations

import pytorch_lightning as lightning

from recbole_dtn.data.progress import progress_meter
from recbole_dtn.training.callbacks import BestKeeper
from recbole_dtn.training.loaders import Loaders
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.report import Report

__all__ = ["train_directly"]


def train_directly(
    trainer: lightning.Trainer, module: TrainingModule, data: Loaders, keeper: BestKeeper, report: Report
) -> None:
    """Fit ``module.model`` on the training rows, then validate it once; ``keeper`` writes its checkpoint.

    Raises:
        SystemExit: on Ctrl-C, as Lightning ends an interrupted training; ``keeper.interrupted_at`` says where.
    """
    model, splits = module.model, data.prepared.splits
    at = "the start"
    try:
        with progress_meter(report.console, show=data.settings.progress) as meter:

            def noted(stage: str, done: int, total: int) -> None:
                nonlocal at
                at = stage
                meter(stage, done, total)

            found = model.fit_directly(splits["train"], splits["valid"], say=report.show, meter=noted)
    except KeyboardInterrupt:
        keeper.interrupted_at = at
        raise SystemExit(130) from None
    report.model(data.settings.model, model.count_parameters())
    keeper.epochs, keeper.best_round = found.rounds, found.best_round
    trainer.validate(module, datamodule=data, verbose=False)
    if keeper.valid is not None:
        report.result("validation", {**keeper.valid, **keeper.factors})
