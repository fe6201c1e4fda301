"""One run, from settings to record: prepare, build, train, select on validation, test once."""

from __future__ import annotations

import logging
import os
import platform
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as lightning
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, Logger
from rich.console import Console

from recbole_dtn.config.load import Resolved, resolve, settings_digest, settings_yaml
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.backends import require as require_backend
from recbole_dtn.layers.compression import describe as describe_compression
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.preprocess.prepare import PreparedData, prepare
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.record.checkpoint import initialise_from, read_weights
from recbole_dtn.record.record import RunRecord, TaskRecord, write_record, write_text
from recbole_dtn.registry import MODELS
from recbole_dtn.training.allocator import keep_large_blocks
from recbole_dtn.training.callbacks import BestKeeper, Clock, ProgressLine
from recbole_dtn.training.compiled import check_compiler
from recbole_dtn.training.loaders import EpochOrder, Loaders
from recbole_dtn.training.memory import MemoryWatch
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.profile import Profiler
from recbole_dtn.training.report import Report
from recbole_dtn.training.warn import failure_signs, large_targets
from recbole_dtn.version import __version__

__all__ = ["Run", "build_model", "fit", "fit_argv", "fit_settings", "seed_everything", "use_threads"]

RUN_ID_VARIABLE = "RECBOLE_DTN_RUN_ID"
"""Set by the first process, so that the processes Lightning starts for other devices join the same run."""


@dataclass(frozen=True)
class Run:
    """A run that ended: its folder and its record."""

    folder: Path
    record: RunRecord

    @property
    def status(self) -> str:
        """``finished`` or ``interrupted``."""
        return self.record.status

    @property
    def test(self) -> dict[str, dict[str, float | None]] | None:
        """Test metrics, ``{task: {metric: value}}``."""
        return self.record.test


def fit(
    model: str = "DTN",
    dataset: str = "ml-100k",
    overrides: Mapping[str, Any] | None = None,
    *,
    config_files: Sequence[str] = (),
    quiet: bool = False,
) -> Run:
    """Train and test a model from Python.

    Args:
        model: registered model. dataset: data set, as for ``--dataset``.
        overrides: settings by name; nested ones as maps or dotted keys (``{"optimizer.lr": 1e-3}``).
        config_files: YAML files below the overrides.
        quiet: print nothing.

    Raises:
        UsageError: for a wrong setting. DataError: for faulty data.
    """
    given = {**(overrides or {}), "model": model, "dataset": dataset}
    if quiet:
        given["quiet"] = True
    return fit_settings(resolve(given, config_files=list(config_files)))


def fit_argv(overrides: Sequence[str], *, quiet: bool = True) -> Run:
    """Train and test with settings written as on the command line (``["--model=PLE", "--epochs=1"]``)."""
    return fit_settings(resolve([*overrides, *(["--quiet=true"] if quiet else [])]))


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def use_threads(settings: Settings) -> None:
    """Let torch compute with as many threads as the settings say, if they do."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def build_model(settings: Settings, prepared: PreparedData) -> MultiTaskRecommender:
    """A freshly initialised model for the prepared data; ``settings.seed`` alone decides its weights."""
    seed_everything(settings.seed)
    model: MultiTaskRecommender = MODELS.load(settings.model)(settings, prepared.schema)
    return model


def fit_settings(
    resolved: Resolved, *, console: Console | None = None, callbacks: Sequence[lightning.Callback] = ()
) -> Run:
    """Train and test with resolved settings.

    Args:
        resolved: settings with their sources. console: where to print; the standard output by default.
        callbacks: Lightning callbacks of your own, called after ours.

    Returns:
        The run; ``status`` is ``interrupted`` when Ctrl-C ended the training, and the best checkpoint is kept.
    """
    settings = resolved.settings
    first = _is_first_process()
    console = console or Console(emoji=False)
    if settings.quiet or not first:
        console = Console(quiet=True, emoji=False)
    report = Report(console, progress=settings.progress)
    keep_large_blocks()
    _check_loggers(settings)
    require_backend(settings.embedding_backend)
    _check_machine(settings)
    check_compiler(settings)
    use_threads(settings)
    with MemoryWatch() as memory:
        start = time.perf_counter()
        with progress_meter(console, show=settings.progress) as meter:
            prepared = prepare(settings, log=report.show, meter=meter)
        prepare_seconds = time.perf_counter() - start
        report.data(settings.dataset, prepared, prepare_seconds)
        if settings.selected_on_test:
            report.show(f"warning: {SELECTED_ON_TEST}\n")
        for sentence in large_targets(settings.tasks, prepared.splits["train"]):
            report.show(f"warning: {sentence}\n")
        model = build_model(settings, prepared)
        report.model(settings.model, model.count_parameters())
        if model.compression is not None:
            report.show(describe_compression(prepared.schema, model.compression))
        if settings.init_from is not None:
            rows = initialise_from(model, prepared.vocabularies, Path(settings.init_from))
            report.show(f"weights from {settings.init_from}; {rows:,} embedding rows matched by token")
        folder, run_id = _run_folder(settings, settings_digest(settings))
        if first:
            report.log_to(folder / "log.txt")
            write_text(folder / "settings.yaml", settings_yaml(resolved))
        outcome = _train(settings, prepared, model, folder, report, callbacks)
    status: Literal["finished", "interrupted"] = "interrupted" if outcome.keeper.interrupted_at else "finished"
    record = RunRecord(
        run_id=run_id,
        status=status,
        interrupted_at=outcome.keeper.interrupted_at,
        model=settings.model,
        dataset=settings.dataset,
        seed=settings.seed,
        split_seed=settings.split_seed,
        settings=settings.dump(),
        settings_digest=settings_digest(settings),
        data_fingerprint=prepared.fingerprint,
        selected_on_test=settings.selected_on_test,
        code_version=__version__,
        tasks=[TaskRecord(name=t.name, label=t.label, after=list(t.after)) for t in prepared.schema.tasks],
        valid=outcome.keeper.valid,
        test=outcome.test,
        best_epoch=outcome.keeper.best_epoch,
        epochs=outcome.keeper.epochs,
        parameters=model.count_parameters(),
        train_samples_per_second=outcome.clock.rate,
        peak_rss_bytes=memory.peak_rss,
        peak_anon_bytes=memory.peak_anon,
        wall_seconds={
            "prepare": prepare_seconds,
            "train": outcome.train_seconds,
            "test": outcome.test_seconds,
        },
        gate_weights=outcome.gates,
        versions=_versions(),
    )
    if first:
        write_record(record, folder)
        _print_end(report, record, folder)
    return Run(folder, record)


# ---- the parts ------------------------------------------------------------------------------------------------------


@dataclass
class _Outcome:
    keeper: BestKeeper
    clock: Clock
    test: dict[str, dict[str, float | None]] | None = None
    gates: dict[str, dict[str, float]] = field(default_factory=dict)
    train_seconds: float = 0.0
    test_seconds: float = 0.0


def _train(
    settings: Settings,
    prepared: PreparedData,
    model: MultiTaskRecommender,
    folder: Path,
    report: Report,
    callbacks: Sequence[lightning.Callback],
) -> _Outcome:
    """Fit under Lightning, reload the best epoch, test."""
    keeper = BestKeeper(settings, prepared.vocabularies, folder / CHECKPOINT)
    if settings.profile:
        callbacks = [Profiler(folder, report), *callbacks]
    clock = Clock()
    trainer = _trainer(settings, folder, [clock, keeper, ProgressLine(report, clock, keeper), *callbacks])
    data = Loaders(settings, prepared, report)
    steps = max(1, -(-prepared.splits["train"].rows // (settings.train_batch_size * trainer.world_size)))
    module = TrainingModule(model, settings, steps_per_epoch=steps)
    outcome = _Outcome(keeper, clock)
    start = time.perf_counter()
    try:
        with _own_warnings():
            trainer.fit(module, datamodule=data)
            outcome.train_seconds = time.perf_counter() - start
            folder = Path(trainer.strategy.broadcast(str(folder)))
            trainer.strategy.barrier()
            model.load_state_dict(read_weights(folder))
            trainer.test(module, datamodule=data, verbose=False)
        outcome.test, outcome.gates = module.latest, module.gate_means.compute()
        outcome.test_seconds = time.perf_counter() - start - outcome.train_seconds
    except SystemExit:
        # Lightning turns Ctrl-C into an exit once its callbacks have heard of it; the record is still to be written.
        if keeper.interrupted_at is None:
            raise
        outcome.train_seconds = outcome.train_seconds or time.perf_counter() - start
    return outcome


def _check_loggers(settings: Settings) -> None:
    """Refuse a logger whose package is missing before any data is read."""
    for logger in settings.loggers:
        if logger != "csv" and find_spec(logger) is None:
            raise UsageError(
                f"loggers: {logger} needs the package {logger}, which is not installed: pip install "
                f"'recbole-dtn[{logger}]', or leave it out"
            )


def _machine(settings: Settings) -> dict[str, Any]:
    """The settings that go to Lightning as they are."""
    return {name: getattr(settings, name) for name in ("accelerator", "devices", "strategy", "num_nodes", "precision")}


def _check_machine(settings: Settings) -> None:
    """Refuse devices that are not there before any data is read."""
    try:
        with _own_warnings():
            lightning.Trainer(
                **_machine(settings), logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False,
            )  # fmt: skip
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        given = ", ".join(f"{name}={value}" for name, value in _machine(settings).items())
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{given}: Lightning cannot run on this here: {reason}") from error


def _trainer(settings: Settings, folder: Path, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    with _own_warnings():
        return lightning.Trainer(
            **_machine(settings),
            max_epochs=settings.epochs,
            check_val_every_n_epoch=settings.eval_step,
            num_sanity_val_steps=0,
            logger=_loggers(settings, folder),
            callbacks=[EpochOrder(), *callbacks],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1_000_000,
            default_root_dir=str(folder),
        )


def _loggers(settings: Settings, folder: Path) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(save_dir=folder, name="", version="")]
    if "tensorboard" in settings.loggers:
        from pytorch_lightning.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(save_dir=folder, name="", version="tensorboard"))
    if "wandb" in settings.loggers:
        from pytorch_lightning.loggers import WandbLogger

        loggers.append(WandbLogger(save_dir=folder, project="recbole_dtn", name=folder.name))
    return loggers


def _is_first_process() -> bool:
    rank: int | None = getattr(rank_zero_only, "rank", None)
    return rank in (None, 0)


def _run_folder(settings: Settings, digest: str) -> tuple[Path, str]:
    """Create the run's folder; the processes of one run share it through an environment variable."""
    parent = Path(settings.output_dir) / settings.dataset / settings.model
    if not _is_first_process():
        # The first process made the folder; where the variable did not reach this one, a broadcast will.
        given = os.environ.get(RUN_ID_VARIABLE, "unknown")
        return parent / given, given
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = f"{stamp}-{digest[:6]}-s{settings.seed}"
    for attempt in range(1, 1000):
        run_id = base if attempt == 1 else f"{base}-{attempt}"
        try:
            (parent / run_id).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"output_dir={settings.output_dir}: cannot create {parent / run_id}: {error}") from error
        os.environ[RUN_ID_VARIABLE] = run_id
        return parent / run_id, run_id
    raise UsageError(f"output_dir={settings.output_dir}: too many runs started in this second")


def _versions() -> dict[str, str]:
    packages = ("torch", "pytorch-lightning", "torchmetrics", "recbole", "polars", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Silence Lightning's notes that do not concern a user of this tool (our loader has no workers, ...)."""
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
            r".*You have overridden `transfer_batch_to_device`.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def _print_end(report: Report, record: RunRecord, folder: Path) -> None:
    if record.status == "interrupted":
        best = record.best_epoch
        kept = f"the best checkpoint (epoch {best}) is kept" if best else "there is no checkpoint yet"
        report.show(f"interrupted at {record.interrupted_at}; {kept}; there is no test result")
    if record.test is not None:
        mark = " (selected on the test set)" if record.selected_on_test else ""
        report.result(f"test{mark}, best epoch {record.best_epoch} of {record.epochs}", record.test)
    report.gates(record.gate_weights)
    for sign in failure_signs(record):
        report.show(f"note: {sign}")
    report.show(f"\nrun written to {folder}")
