"""One run, from settings to record: prepare, build, train, select on validation, test once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.console import Console

from recbole_dtn.config.load import Resolved, resolve, settings_digest, settings_yaml
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.layers.compression import describe as describe_compression
from recbole_dtn.metric.tasks import Details, with_domain_names
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.plugins import plugin_states
from recbole_dtn.preprocess.prepare import PreparedData, prepare
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.record.checkpoint import initialise_from, read_weights
from recbole_dtn.record.folder import run_folder
from recbole_dtn.record.record import PluginRecord, RunRecord, TaskRecord, package_versions, write_record
from recbole_dtn.report.console import make_console
from recbole_dtn.report.files import write_text
from recbole_dtn.training.allocator import keep_large_blocks
from recbole_dtn.training.build import build_model, left_out_of_pairs, use_threads
from recbole_dtn.training.callbacks import BestKeeper, Clock, ProgressLine
from recbole_dtn.training.direct import train_directly
from recbole_dtn.training.loaders import Loaders
from recbole_dtn.training.memory import MemoryWatch
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.profile import Profiler
from recbole_dtn.training.report import Report
from recbole_dtn.training.trainer import check_settings, is_first_process, new_trainer, quiet_lightning
from recbole_dtn.training.warn import data_warnings, result_warnings
from recbole_dtn.version import __version__

__all__ = ["Run", "fit", "fit_argv", "fit_settings"]

TERMINATED = 143
"""Exit code of a process that ends by SIGTERM, as shells have it."""


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
    trust: bool = False,
) -> Run:
    """Train and test a model from Python.

    Args:
        model: registered model. dataset: data set, as for ``--dataset``.
        overrides: settings by name; nested ones as maps or dotted keys (``{"optimizer.lr": 1e-3}``).
        config_files: YAML files below the overrides.
        quiet: print nothing.
        trust: run the plug-in files that ``config_files`` name; those of ``overrides`` are always run.

    Raises:
        UsageError: for a wrong setting. DataError: for faulty data.
    """
    given = {**(overrides or {}), "model": model, "dataset": dataset}
    if quiet:
        given["quiet"] = True
    return fit_settings(resolve(given, config_files=list(config_files), trust=trust))


def fit_argv(overrides: Sequence[str], *, quiet: bool = True) -> Run:
    """Train and test with settings written as on the command line (``["--model=PLE", "--epochs=1"]``)."""
    return fit_settings(resolve([*overrides, *(["--quiet=true"] if quiet else [])]))


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
    first = is_first_process()
    if settings.quiet or not first:
        console = make_console(quiet=True)
    report = Report(console or make_console(), progress=settings.progress)
    # Before data is read: the thresholds hold for memory that is taken from now on.
    keep_large_blocks()
    # Before the data is prepared, which may take long.
    check_settings(settings)
    use_threads(settings)
    with MemoryWatch() as memory:
        start = time.perf_counter()
        prepared = _prepare(settings, report)
        prepare_seconds = time.perf_counter() - start
        report.data(settings.dataset, prepared, prepare_seconds)
        warnings = data_warnings(settings, prepared)
        report.warnings([*([SELECTED_ON_TEST] if settings.selected_on_test else []), *warnings])
        # Built before the folder exists, so that a wrong setting of the model leaves no run behind.
        model = _model(settings, prepared, report)
        folder, run_id = run_folder(settings, settings_digest(settings), first=first)
        if first:
            report.log_to(folder / "log.txt")
            write_text(folder / "settings.yaml", settings_yaml(resolved))
        outcome = _train(settings, prepared, model, folder, report, callbacks)
        outcome.wall_seconds = {"prepare": prepare_seconds, **outcome.wall_seconds}
    record = _record(run_id, settings, prepared, model, outcome, memory)
    # Those of the data first, as they were printed.
    record = record.model_copy(update={"warnings": [*warnings, *result_warnings(record)]})
    if first:
        write_record(record, folder)
        report.end(record, folder)
    return Run(folder, record)


# ---- the parts ------------------------------------------------------------------------------------------------------


def _prepare(settings: Settings, report: Report) -> PreparedData:
    with progress_meter(report.console, show=settings.progress) as meter:
        return prepare(settings, log=report.show, meter=meter)


def _model(settings: Settings, prepared: PreparedData, report: Report) -> MultiTaskRecommender:
    model = build_model(settings, prepared)
    if not model.fits_directly:  # else they are counted after the fit, which decides how many there are
        report.model(settings.model, model.count_parameters())
    for sentence in left_out_of_pairs(model):
        report.show(sentence)
    if model.compression is not None:
        report.show(describe_compression(prepared.schema, model.compression))
    if settings.init_from is not None and not model.fits_directly:
        rows = initialise_from(model, prepared.vocabularies, Path(settings.init_from))
        report.show(f"weights from {settings.init_from}; {rows:,} embedding rows matched by token")
    return model


@dataclass
class _Outcome:
    """What training and testing found."""

    keeper: BestKeeper
    clock: Clock
    processes: int
    test: dict[str, dict[str, float | None]] | None = None
    factors: dict[str, dict[str, float | None]] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    gates: dict[str, dict[str, float]] = field(default_factory=dict)
    chain_breaks: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    wall_seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "test": 0.0})


def _train(
    settings: Settings,
    prepared: PreparedData,
    model: MultiTaskRecommender,
    folder: Path,
    report: Report,
    callbacks: Sequence[lightning.Callback],
) -> _Outcome:
    """Fit under Lightning, reload the best epoch, test."""
    positives = prepared.summary.positives["valid"]
    keeper = BestKeeper(settings, prepared.vocabularies, folder / CHECKPOINT, positives)
    if settings.profile and not model.fits_directly:
        callbacks = [Profiler(folder, report), *callbacks]
    clock = Clock()
    # Clock before ProgressLine, which reads the rate of the batch that has just ended.
    trainer = new_trainer(settings, folder, [clock, keeper, ProgressLine(report, clock, keeper), *callbacks])
    data = Loaders(settings, prepared, report)
    # Rounded up: the last batch of an epoch may be short.
    steps = max(1, -(-prepared.splits["train"].rows // (settings.train_batch_size * trainer.world_size)))
    module = TrainingModule(model, settings, steps_per_epoch=steps)
    outcome = _Outcome(keeper, clock, trainer.world_size)
    seconds = outcome.wall_seconds
    start = time.perf_counter()
    try:
        with quiet_lightning():
            if model.fits_directly:
                train_directly(trainer, module, data, keeper, report)
            else:
                trainer.fit(module, datamodule=data)
            seconds["train"] = time.perf_counter() - start
            # Only the first process knows the folder for certain; all load its best epoch, after it has been written.
            folder = Path(trainer.strategy.broadcast(str(folder)))
            trainer.strategy.barrier()
            model.load_state_dict(read_weights(folder))
            for sentence in model.findings():
                report.show(sentence)
            module.metrics.use_fits(keeper.details)
            trainer.test(module, datamodule=data, verbose=False)
        outcome.test, outcome.factors = module.latest, module.latest_factors
        outcome.details = module.latest_details
        outcome.gates = module.gate_means.compute()
        outcome.chain_breaks = module.chain_breaks.compute()
        seconds["test"] = time.perf_counter() - start - seconds["train"]
    except SIGTERMException:
        # Lightning raises it after the batch in which the signal came, with 0 as the exit code.
        raise SystemExit(TERMINATED) from None
    except SystemExit:
        # On Ctrl-C, Lightning calls its callbacks and then raises SystemExit; it is caught so that the record is
        # written.
        if keeper.interrupted_at is None:
            raise
        seconds["train"] = seconds["train"] or time.perf_counter() - start
    return outcome


def _record(
    run_id: str,
    settings: Settings,
    prepared: PreparedData,
    model: MultiTaskRecommender,
    outcome: _Outcome,
    memory: MemoryWatch,
) -> RunRecord:
    keeper = outcome.keeper
    return RunRecord(
        run_id=run_id,
        status="interrupted" if keeper.interrupted_at else "finished",
        interrupted_at=keeper.interrupted_at,
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
        valid=keeper.valid,
        test=outcome.test,
        factors={name: found for name, found in (("valid", keeper.factors), ("test", outcome.factors)) if found},
        details={
            name: with_domain_names(found, prepared.vocabularies.domains)
            for name, found in (("valid", keeper.details), ("test", outcome.details))
            if found
        },
        best_epoch=keeper.best_epoch,
        epochs=keeper.epochs,
        history=keeper.history,
        parameters=model.count_parameters(),
        train_samples_per_second=outcome.clock.rate,
        peak_rss_bytes=memory.peak_rss,
        peak_anon_bytes=memory.peak_anon,
        wall_seconds=outcome.wall_seconds,
        gate_weights=outcome.gates,
        versions=package_versions(),
        folds=settings.folds,
        fold=settings.fold,
        rows=dict(prepared.summary.rows),
        source_fingerprint=prepared.source_fingerprint,
        valid_value=keeper.best,
        positives={split: dict(found) for split, found in prepared.summary.positives.items()},
        chain_breaks=outcome.chain_breaks,
        processes=outcome.processes,
        plugins=[PluginRecord(**asdict(state)) for state in plugin_states(settings)],
    )
