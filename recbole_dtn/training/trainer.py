"""Lightning's trainer as the settings ask for it, and the checks that need no data."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.backends import require as require_backend
from recbole_dtn.registry import MODELS
from recbole_dtn.report.files import writing
from recbole_dtn.training.compiled import check_compiler
from recbole_dtn.training.loaders import EpochOrder
from recbole_dtn.training.processes import keep_together

__all__ = ["check_settings", "is_first_process", "new_trainer", "quiet_lightning"]

QUIET: dict[str, Any] = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""What Lightning would print or write and we do ourselves."""


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes."""
    rank: int | None = getattr(rank_zero_only, "rank", None)
    return rank in (None, 0)


def check_settings(settings: Settings) -> None:
    """Refuse what cannot work on this machine, before any data is read.

    Raises:
        UsageError: for a logger, a table backend or a model's package that is not installed, devices that are not
            there, or a ``compile`` without a compiler.
    """
    for logger in settings.loggers:
        if logger != "csv" and find_spec(logger) is None:
            raise UsageError(
                f"loggers: {logger} needs the package {logger}, which is not installed: pip install "
                f"'recbole-dtn[{logger}]', or leave it out"
            )
    require_backend(settings.embedding_backend)
    package = MODELS.attributes(settings.model).get("package")
    if package is not None and find_spec(package) is None:
        raise UsageError(
            f"model: {settings.model} needs the package {package}, which is not installed: pip install "
            f"'recbole_dtn[{package}]', or choose another model"
        )
    _check_machine(settings)
    check_compiler(settings)


def _machine(settings: Settings) -> dict[str, Any]:
    """The settings that go to Lightning as they are."""
    return {name: getattr(settings, name) for name in ("accelerator", "devices", "strategy", "num_nodes", "precision")}


def _check_machine(settings: Settings) -> None:
    try:
        with quiet_lightning():
            # Lightning's own checks of devices and precision, by a trainer that is thrown away.
            lightning.Trainer(**_machine(settings), logger=False, **QUIET)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        given = ", ".join(f"{name}={value}" for name, value in _machine(settings).items())
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{given}: Lightning cannot run on this here: {reason}") from error


def new_trainer(settings: Settings, folder: Path, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """A trainer that logs into the run's folder.

    Args:
        settings: epochs, devices, precision, loggers. folder: of the run. callbacks: called in this order.
    """
    with quiet_lightning():
        trainer = lightning.Trainer(
            **_machine(settings),
            **QUIET,
            max_epochs=settings.epochs,
            check_val_every_n_epoch=settings.eval_step,
            # BestKeeper would count a sanity check as a validation.
            num_sanity_val_steps=0,
            logger=_loggers(settings, folder),
            callbacks=[EpochOrder(), *callbacks],
            use_distributed_sampler=False,  # our loader cuts each process's share itself
            # No number is logged per step.
            log_every_n_steps=1_000_000,
            default_root_dir=str(folder),
        )
    keep_together(trainer)
    trainer._signal_connector = _NoSignals(trainer)
    # Every step sends what Lightning's handlers would note; TrainingKeeper asks all processes itself.
    setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", lambda: None)  # noqa: B010
    return trainer


class _NoSignals(_SignalConnector):
    """Sets no handlers. Lightning's waits for the other processes inside of the handler, for ever where they are in
    another collective call; ours are in :class:`~recbole_dtn.training.signals.Signals`."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False


class _CSVLogger(CSVLogger):
    def save(self) -> None:
        with writing(Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE):
            super().save()


def _loggers(settings: Settings, folder: Path) -> list[Logger]:
    loggers: list[Logger] = [_CSVLogger(save_dir=folder, name="", version="")]
    if "tensorboard" in settings.loggers:
        from pytorch_lightning.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(save_dir=folder, name="", version="tensorboard"))
    if "wandb" in settings.loggers:
        from pytorch_lightning.loggers import WandbLogger

        loggers.append(WandbLogger(save_dir=folder, project="recbole_dtn", name=folder.name))
    return loggers


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence those of Lightning's notes that do not concern a user of this tool (our loader has no workers, ...)."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            r".*does not have many workers.*",
            r".*exists and is not empty.*",
            r".*Detected KeyboardInterrupt.*",
            r".*logging interval.*",
            r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
            r".*GPU available but not used.*",
            r".*It is recommended to use `self.log.*sync_dist.*",
            r".*your dataloader is not resumable.*",
            r".*You have overridden `transfer_batch_to_device`.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
