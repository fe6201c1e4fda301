"""One run, from settings to record: prepare, build, train, select on validation, test once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as lightning
from rich.console import Console

from recbole_dtn.config.load import Resolved, resolve, settings_digest, settings_yaml
from recbole_dtn.config.settings import SELECTED_ON_TEST, Settings
from recbole_dtn.data.progress import progress_meter
from recbole_dtn.errors import Preempted
from recbole_dtn.layers.compression import describe as describe_compression
from recbole_dtn.metric.tasks import Details, with_domain_names
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.plugins import plugin_states
from recbole_dtn.preprocess.prepare import PreparedData, prepare
from recbole_dtn.record.checkpoint import FILE_NAME as CHECKPOINT
from recbole_dtn.record.checkpoint import initialise_from, load_weights, read_weights
from recbole_dtn.record.code import code_digest
from recbole_dtn.record.folder import run_folder, runs_folder
from recbole_dtn.record.held import held
from recbole_dtn.record.record import PluginRecord, RunRecord, TaskRecord, package_versions, write_record
from recbole_dtn.record.scores import ScoreKeeper
from recbole_dtn.record.training import FILE_NAME as TRAINING
from recbole_dtn.record.training import lock_run
from recbole_dtn.report.console import make_console
from recbole_dtn.report.files import check_place, collect, write_text
from recbole_dtn.synthetic.generate import best_aucs
from recbole_dtn.training.allocator import keep_large_blocks
from recbole_dtn.training.build import build_model, choices_by_data, use_threads
from recbole_dtn.training.callbacks import BestKeeper, Clock, ProgressLine
from recbole_dtn.training.direct import train_directly
from recbole_dtn.training.loaders import Loaders
from recbole_dtn.training.memory import MemoryWatch
from recbole_dtn.training.module import TrainingModule
from recbole_dtn.training.processes import watched
from recbole_dtn.training.profile import Profiler
from recbole_dtn.training.report import Report
from recbole_dtn.training.resume import TrainingKeeper
from recbole_dtn.training.room import check_memory
from recbole_dtn.training.signals import Signals
from recbole_dtn.training.trainer import check_settings, is_first_process, new_trainer, quiet_lightning
from recbole_dtn.training.unfinished import Resume, folder_to_resume
from recbole_dtn.training.warn import data_warnings, large_model, result_warnings
from recbole_dtn.version import __version__

__all__ = ["AsCell", "Run", "fit", "fit_argv", "fit_settings"]


@dataclass(frozen=True)
class AsCell:
    """How a run of a leaderboard differs from one alone.

    Attributes:
        keep_scores: whether the scores of the test rows are kept (:mod:`recbole_dtn.record.scores`).
        beside_others: whether other runs share the machine, so that times and rates tell nothing.
    """

    keep_scores: bool = True
    beside_others: bool = False


@dataclass(frozen=True)
class Run:
    """A run that ended: its folder and its record."""

    folder: Path
    record: RunRecord

    @property
    def status(self) -> Literal["finished", "interrupted", "preempted"]:
        """``finished``, ``interrupted`` (Ctrl-C) or ``preempted`` (SIGTERM)."""
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
    resume: Resume = None,
) -> Run:
    """Train and test a model from Python.

    Args:
        model: registered model. dataset: data set, as for ``--dataset``.
        overrides: settings by name; nested ones as maps or dotted keys (``{"optimizer.lr": 1e-3}``).
        config_files: YAML files below the overrides.
        quiet: print nothing.
        trust: run the plug-in files that ``config_files`` name; those of ``overrides`` are always run.
        resume: folder of a run with the same settings to go on with, or ``"auto"`` for the newest that has not ended.

    Raises:
        UsageError: for a wrong setting. DataError: for faulty data.
    """
    given = {**(overrides or {}), "model": model, "dataset": dataset}
    if quiet:
        given["quiet"] = True
    return fit_settings(resolve(given, config_files=list(config_files), trust=trust), resume=resume)


def fit_argv(overrides: Sequence[str], *, quiet: bool = True, resume: Resume = None, cell: AsCell | None = None) -> Run:
    """Train and test with settings written as on the command line (``["--model=PLE", "--epochs=1"]``)."""
    return fit_settings(resolve([*overrides, *(["--quiet=true"] if quiet else [])]), resume=resume, cell=cell)


def fit_settings(
    resolved: Resolved,
    *,
    console: Console | None = None,
    callbacks: Sequence[lightning.Callback] = (),
    resume: Resume = None,
    cell: AsCell | None = None,
) -> Run:
    """Train and test with resolved settings.

    Args:
        resolved: settings with their sources. console: where to print; the standard output by default.
        callbacks: Lightning callbacks of your own, called after ours.
        resume: as for :func:`fit`. cell: of a leaderboard; None: a run by itself.

    Returns:
        The run; ``status`` is ``interrupted`` when Ctrl-C ended it and ``preempted`` when SIGTERM did. The best
        checkpoint is kept, and the training checkpoint from which ``resume`` goes on.

    Raises:
        Preempted: when SIGTERM came before the run had a folder.
    """
    with Signals() as signals, contextlib.ExitStack() as locks:
        return _fit(resolved, console, callbacks, resume, signals, locks, cell or AsCell(keep_scores=False))


def _fit(
    resolved: Resolved,
    console: Console | None,
    callbacks: Sequence[lightning.Callback],
    resume: Resume,
    signals: Signals,
    locks: contextlib.ExitStack,
    cell: AsCell,
) -> Run:
    settings = resolved.settings
    code_digest()  # of the files as they are now; they may change while it runs
    first = is_first_process()
    if settings.quiet or not first:
        console = make_console(quiet=True)
    report = Report(console or make_console(), progress=settings.progress)
    # Before data is read: the thresholds hold for memory that is taken from now on.
    keep_large_blocks()
    # Before the data is prepared, which may take long.
    check_settings(settings)
    if first and resume in (None, "auto"):
        check_place(runs_folder(settings), f"output_dir={settings.output_dir}")
    use_threads(settings)
    with MemoryWatch() as memory:
        start = time.perf_counter()
        prepared = _prepare(settings, report)
        prepare_seconds = time.perf_counter() - start
        report.data(settings.dataset, prepared, prepare_seconds)
        warnings = [*data_warnings(settings, prepared), *check_memory(settings, prepared)[1]]
        report.warnings([*([SELECTED_ON_TEST] if settings.selected_on_test else []), *warnings])
        resumed = folder_to_resume(resume, settings, prepared.fingerprint, report, first=first)
        # Built before the folder exists, so that a wrong setting of the model leaves no run behind.
        model = _model(settings, prepared, report, resumed=resumed is not None)
        if resumed is not None:
            folder, run_id = resumed, resumed.name
        else:
            folder, run_id = run_folder(settings, settings_digest(settings), first=first)
        if first:
            locks.enter_context(lock_run(folder))
            collect(folder.parent.iterdir())  # what killed runs, and this one before, left half written
            report.log_to(folder / "log.txt")
            write_text(folder / "settings.yaml", settings_yaml(resolved))
        if not model.fits_directly:
            large = large_model(model.count_parameters()["dense"], prepared.splits["train"].rows)
            report.warnings(large)
            warnings += large
        described = _Described(run_id, settings, prepared, model, memory, warnings, cell)
        outcome = _train(described, folder, report, callbacks, signals, resumed=resumed is not None)
        outcome.wall_seconds = {"prepare": prepare_seconds, **outcome.wall_seconds}
    record = described.record(outcome)
    if first:
        # A second signal does not tear the record from the checkpoints that it is about.
        with held():
            write_record(record, folder)
            if record.status == "finished":
                (folder / TRAINING).unlink(missing_ok=True)
                if settings.trial is not None:  # its value and settings are all that is read of it
                    (folder / CHECKPOINT).unlink(missing_ok=True)
        report.end(record, folder)
    return Run(folder, record)


# ---- the parts ------------------------------------------------------------------------------------------------------


def _prepare(settings: Settings, report: Report) -> PreparedData:
    with progress_meter(report.console, show=settings.progress) as meter:
        return prepare(settings, log=report.show, meter=meter)


def _model(settings: Settings, prepared: PreparedData, report: Report, *, resumed: bool) -> MultiTaskRecommender:
    model = build_model(settings, prepared)
    if not model.fits_directly:  # else they are counted after the fit, which decides how many there are
        report.model(settings.model, model.count_parameters())
    for sentence in choices_by_data(model):
        report.show(sentence)
    if model.compression is not None:
        report.show(describe_compression(prepared.schema, model.compression))
    if settings.init_from is not None and not model.fits_directly and not resumed:
        rows = initialise_from(model, prepared.vocabularies, Path(settings.init_from))
        report.show(f"weights from {settings.init_from}; {rows:,} embedding rows matched by token")
    return model


@dataclass
class _Outcome:
    """What training and testing found."""

    keeper: BestKeeper
    clock: Clock
    processes: int = 1
    status: Literal["finished", "preempted"] = "preempted"
    """``preempted`` until all is done: that is what a checkpoint says of its run."""
    stopped_at: str | None = None
    test: dict[str, dict[str, float | None]] | None = None
    factors: dict[str, dict[str, float | None]] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    gates: dict[str, dict[str, float]] = field(default_factory=dict)
    chain_breaks: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    wall_seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "test": 0.0})


@dataclass(frozen=True)
class _Described:
    """What a record has from the start of a run."""

    run_id: str
    settings: Settings
    prepared: PreparedData
    model: MultiTaskRecommender
    memory: MemoryWatch
    warnings: Sequence[str]
    cell: AsCell

    def record(self, outcome: _Outcome) -> RunRecord:
        """The record of what has been found so far."""
        record = _record(self.run_id, self.settings, self.prepared, self.model, outcome, self.memory)
        # Those of the data first, as they were printed.
        found = {"warnings": [*self.warnings, *result_warnings(record)], "beside_others": self.cell.beside_others}
        return record.model_copy(update=found)


def _train(
    run: _Described,
    folder: Path,
    report: Report,
    callbacks: Sequence[lightning.Callback],
    signals: Signals,
    *,
    resumed: bool,
) -> _Outcome:
    """Fit under Lightning, reload the best epoch, test."""
    settings, prepared, model = run.settings, run.prepared, run.model

    def describe() -> RunRecord:
        outcome.wall_seconds["train"] = training.elapsed
        return run.record(outcome)

    positives = prepared.summary.positives["valid"]
    keeper = BestKeeper(settings, prepared.vocabularies, folder / CHECKPOINT, positives, describe)
    if settings.profile and not model.fits_directly:
        callbacks = [Profiler(folder, report), *callbacks]
    clock = Clock()
    outcome = _Outcome(keeper, clock)
    data = Loaders(settings, prepared, report)
    training = TrainingKeeper(folder, keeper, clock, data, report, signals, describe, resumed=resumed)
    # Clock before ProgressLine, which reads the rate of the batch that has just ended.
    trainer = new_trainer(settings, folder, [clock, keeper, ProgressLine(report, clock, keeper), *callbacks, training])
    outcome.processes = trainer.world_size
    # Rounded up: the last batch of an epoch may be short.
    steps = max(1, -(-prepared.splits["train"].rows // (settings.train_batch_size * trainer.world_size)))
    module = TrainingModule(model, settings, steps_per_epoch=steps)
    # Of several processes each has a part of the rows alone.
    if run.cell.keep_scores and trainer.world_size == 1:
        module.test_scores = ScoreKeeper(prepared.splits["test"].rows, len(settings.tasks))
    try:
        with quiet_lightning(), watched(trainer, signals):
            if not training.trained:
                _fit_model(trainer, module, data, training)
            if settings.trial is None:  # else the test rows stay unread
                with signals.deferred():
                    _test(trainer, module, data, folder, report, outcome)
        outcome.status = "finished"
    except Preempted:
        outcome.stopped_at = _place(trainer, training)
    except SystemExit:
        # On Ctrl-C, Lightning calls its callbacks and then raises SystemExit; it is caught so that the record is
        # written.
        if keeper.interrupted_at is None:
            raise
    except KeyboardInterrupt:
        keeper.interrupted_at = keeper.interrupted_at or _place(trainer, training)
    outcome.wall_seconds["train"] = training.elapsed
    return outcome


def _fit_model(trainer: lightning.Trainer, module: TrainingModule, data: Loaders, training: TrainingKeeper) -> None:
    if module.model.fits_directly:
        train_directly(trainer, module, data, training.keeper, training.report)
    else:
        with training.signals.deferred():
            trainer.fit(module, datamodule=data)
    with training.signals.deferred():
        training.end_training(trainer)


def _test(
    trainer: lightning.Trainer,
    module: TrainingModule,
    data: Loaders,
    folder: Path,
    report: Report,
    outcome: _Outcome,
) -> None:
    """Test the best epoch."""
    start = time.perf_counter()
    # Only the first process knows the folder for certain; all load its best epoch, after it has been written.
    folder = Path(trainer.strategy.broadcast(str(folder)))
    trainer.strategy.barrier()
    load_weights(module.model, read_weights(folder), str(folder / CHECKPOINT))
    for sentence in module.model.findings():
        report.show(sentence)
    module.metrics.use_fits(outcome.keeper.details)
    trainer.test(module, datamodule=data, verbose=False)
    if module.test_scores is not None:
        module.test_scores.write(folder, data.prepared.fingerprint)
    outcome.test, outcome.factors = module.latest, module.latest_factors
    outcome.details = module.latest_details
    outcome.gates = module.gate_means.compute()
    outcome.chain_breaks = module.chain_breaks.compute()
    outcome.wall_seconds["test"] = time.perf_counter() - start


def _place(trainer: lightning.Trainer, training: TrainingKeeper) -> str:
    """Where a run was stopped."""
    if training.trained:
        return "the test"
    return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"


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
        status="interrupted" if keeper.interrupted_at else outcome.status,
        interrupted_at=keeper.interrupted_at or outcome.stopped_at,
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
        choices=choices_by_data(model),
        plugins=[PluginRecord(**asdict(state)) for state in plugin_states(settings)],
        best_auc=best_aucs(prepared.folder) if settings.limit_rows is None else {},
    )
