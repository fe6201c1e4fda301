"""The trials of one study, in Optuna's SQLite storage, and what comes next.

A trial enters the storage when it has ended, at the place of its number. What trial n tries is a function of the trials
before it and of a seed of its own: a study that was stopped goes on with the trials that it would have had.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EACCES, ENOSPC
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from recbole_dtn.errors import ADVICE, DataError, errno_of, why
from recbole_dtn.tuning.space import Dimension
from recbole_dtn.tuning.trial import Trial

__all__ = ["RANDOM_TRIALS", "Storage", "Study", "importances"]

RANDOM_TRIALS = 4
"""Trials, the defaults among them, before the sampler and the pruner read those that have ended."""
STATES: Mapping[TrialState, Literal["complete", "pruned", "failed"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
ATTRIBUTES = {"seconds", "run", "reason", "history"}
"""What the storage has of a trial as Optuna's user attributes."""
NOT_WRITTEN = {
    "SQLITE_FULL": ADVICE[ENOSPC],
    "SQLITE_READONLY": ADVICE[EACCES],
    "SQLITE_CANTOPEN": ADVICE[EACCES],
    "SQLITE_IOERR": "look at the disk, its free space and its connection, and at `ulimit -f`",
    "SQLITE_BUSY": "another program has it open and locked: end that program",
}
"""What to do about an error of SQLite, by how its name begins."""
STAY = "trials whose runs are recorded, or that are in the `.plan.json` of a leaderboard, do not run again"


class Storage:
    """Optuna's SQLite storage; several studies and processes may share it.

    Args:
        file: made where it is missing, and its folder.

    Raises:
        DataError: where the file cannot be made or is no such storage.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = FileLock(file.with_suffix(".lock"))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self.told():
            file.parent.mkdir(parents=True, exist_ok=True)
            with self.lock:
                self.of_optuna = optuna.storages.RDBStorage(
                    f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}}
                )

    @contextmanager
    def told(self) -> Iterator[None]:
        """``with storage.told():`` an error of the storage is told with its file and what to do.

        Raises:
            DataError: for any error.
        """
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # Optuna, SQLAlchemy and Alembic raise many kinds
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            name = getattr(cause, "sqlite_errorname", "")
            advice = next((advice for start, advice in NOT_WRITTEN.items() if name.startswith(start)), None)
            if errno_of(cause) is not None:
                message = f"cannot be written {why(cause)}"
            elif advice is not None:
                message = f"cannot be written ({cause}): {advice}"
            else:
                message = (
                    f"the trials cannot be kept there ({type(cause).__name__}: {cause}); move the file away or remove "
                    f"it: {STAY}"
                )
            raise DataError(f"{self.file}: {message}") from error


class Study:
    """The trials of one study.

    Args:
        storage: where they are. name: of the study. space: what is tuned.
        higher: whether larger values of the metric are better. seed: of the sampler.
        parallel: trials that start together, none of which knows the others' results.
    """

    def __init__(
        self, storage: Storage, name: str, space: Sequence[Dimension], *, higher: bool, seed: int, parallel: int = 1
    ) -> None:
        self.name, self.space, self.higher, self.seed, self.parallel = name, tuple(space), higher, seed, parallel
        self.direction: Literal["maximize", "minimize"] = "maximize" if higher else "minimize"
        self.distributions = {dimension.key: _distribution(dimension) for dimension in space}
        self.storage = storage
        with storage.told(), storage.lock:
            self.stored = optuna.create_study(
                storage=storage.of_optuna, study_name=name, direction=self.direction, load_if_exists=True
            )

    @property
    def trials(self) -> list[Trial]:
        """Those that have ended, by number."""
        return [self._trial(found) for found in self._frozen()]

    def _frozen(self) -> list[FrozenTrial]:
        """Optuna's own.

        Raises:
            DataError: for a trial that has not ended: its number would be that of one of this package's.
        """
        with self.storage.told():
            trials = self.stored.get_trials(deepcopy=False)
        for found in trials:
            if found.state not in STATES:
                state = found.state.name.lower()
                raise self._refused(found, f"it is {state}, and another program has added it: end that program")
        return trials

    def _trial(self, found: FrozenTrial) -> Trial:
        try:
            return Trial(
                number=found.number,
                state=STATES[found.state],
                value=None if found.state is TrialState.FAIL else found.value,
                params=dict(found.params),
                **{key: value for key, value in found.user_attrs.items() if key in ATTRIBUTES},
            )
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise self._refused(found, f"{key}: {first['msg']}") from None

    def _refused(self, found: FrozenTrial, fault: str) -> DataError:
        file = self.storage.file
        return DataError(
            f"{file}: study {self.name}, trial {found.number}: {fault}; delete the study with `optuna delete-study "
            f"--storage 'sqlite:///{file}' --study-name '{self.name}'`: {STAY}"
        )

    def suggest(self, number: int) -> dict[str, Any]:
        """The values that a trial tries, by key; trial 0 has the defaults.

        Its history are the trials that had ended before it and those that start with it.
        """
        if number == 0 or not self.space:
            return {dimension.key: dimension.default for dimension in self.space}
        sampler = optuna.samplers.TPESampler(seed=_mixed(self.seed, number), n_startup_trials=RANDOM_TRIALS)
        # Asking the stored study would leave a trial that has not ended in it.
        found = self.in_memory(self._before(number), sampler).ask(self.distributions).params
        return {dimension.key: dimension.rounded(found[dimension.key]) for dimension in self.space}

    def in_memory(self, count: int, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """A study of its own with the first ``count`` trials."""
        found = optuna.create_study(direction=self.direction, sampler=sampler)
        found.add_trials(self._frozen()[:count])
        return found

    def _before(self, number: int) -> int:
        return number // self.parallel * self.parallel

    def needed(self, number: int, epochs: int) -> list[float | None]:
        """For each epoch the median of what the complete trials before had reached by then; pruning is below it.

        Null in the last epoch, and where fewer than :data:`RANDOM_TRIALS` trials have come so far.
        """
        known = [self._trial(found) for found in self._frozen()[: self._before(number)]]
        complete = [trial for trial in known if trial.state == "complete"]
        if len(complete) < RANDOM_TRIALS:
            return []
        medians = []
        for epoch in range(epochs - 1):
            at = [trial.history[epoch] for trial in complete if epoch < len(trial.history)]
            values = [value for value in at if value is not None]
            medians.append(statistics.median(values) if values else None)
        return medians

    def add(self, trial: Trial) -> None:
        """Keep a trial that has ended, unless another process has kept it.

        Raises:
            DataError: where it does not fit what is tuned, or cannot be written.
        """
        with self.storage.told(), self.storage.lock:
            if trial.number < len(self._frozen()):
                return
            self.stored.add_trial(self._as_optuna(trial))

    def _as_optuna(self, trial: Trial) -> FrozenTrial:
        try:
            return optuna.create_trial(
                state=next(state for state, name in STATES.items() if name == trial.state),
                value=trial.value,
                params=trial.params,
                distributions={key: self.distributions[key] for key in trial.params},
                user_attrs=trial.model_dump(include=ATTRIBUTES, exclude_none=True),
                intermediate_values={epoch: value for epoch, value in enumerate(trial.history, 1) if value is not None},
            )
        except (KeyError, ValueError) as error:
            fault = f"{error} is not tuned" if isinstance(error, KeyError) else error
            raise DataError(
                f"study {self.name}: trial {trial.number} does not fit what is tuned: {fault}; if the `.plan.json` of "
                "the leaderboard was changed, put back a copy of it, or remove it"
            ) from error


def importances(study: Study, count: int) -> dict[str, float]:
    """The share of the values' variance that each setting explains (fANOVA), largest first.

    Hutter et al., ICML 2014, by Optuna's evaluator with a fixed seed. Empty with fewer than four complete trials, and
    where all values are equal.

    Args:
        study: with the trials. count: of them, from the first on, that are read.
    """
    complete = [trial for trial in study.trials[:count] if trial.state == "complete"]
    if len(complete) < RANDOM_TRIALS or len({trial.value for trial in complete}) < 2 or not study.space:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.seed)
    found = optuna.importance.get_param_importances(study.in_memory(count), evaluator=evaluator)
    return {key: float(share) for key, share in sorted(found.items(), key=lambda item: (-item[1], item[0]))}


def _mixed(seed: int, number: int) -> int:
    """One seed of a study's seed and a trial's number."""
    return (seed * 1_000_003 + number) % 2**32


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
