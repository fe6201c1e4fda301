"""The trials of one study, in Optuna's SQLite storage, and what comes next.

A trial enters the storage when it has ended, at the place of its number. What trial n tries is a function of the trials
before it and of a seed of its own: a study that was stopped goes on with the trials that it would have had.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from recbole_dtn.errors import DataError
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
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with self.lock:
                self.of_optuna = optuna.storages.RDBStorage(
                    f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": 60}}
                )
        except Exception as error:  # SQLAlchemy and Alembic raise many kinds
            raise DataError(f"{file}: the trials cannot be kept there: {type(error).__name__}: {error}") from error


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
        self.lock = storage.lock
        with self.lock:
            self.stored = optuna.create_study(
                storage=storage.of_optuna, study_name=name, direction=self.direction, load_if_exists=True
            )

    @property
    def trials(self) -> list[Trial]:
        """Those that have ended, by number."""
        return [_trial(found) for found in self._frozen()]

    def _frozen(self) -> list[FrozenTrial]:
        return self.stored.get_trials(deepcopy=False)

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
        known = [_trial(found) for found in self._frozen()[: self._before(number)]]
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
        """Keep a trial that has ended, unless another process has kept it."""
        with self.lock:
            if trial.number < len(self._frozen()):
                return
            state = next(state for state, name in STATES.items() if name == trial.state)
            told = trial.model_dump(include={"seconds", "run", "reason", "history"}, exclude_none=True)
            self.stored.add_trial(
                optuna.create_trial(
                    state=state,
                    value=trial.value,
                    params=trial.params,
                    distributions={key: self.distributions[key] for key in trial.params},
                    user_attrs=told,
                    intermediate_values={
                        epoch: value for epoch, value in enumerate(trial.history, 1) if value is not None
                    },
                )
            )


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


def _trial(found: FrozenTrial) -> Trial:
    return Trial(
        number=found.number,
        state=STATES[found.state],
        value=None if found.state is TrialState.FAIL else found.value,
        params=dict(found.params),
        **{key: value for key, value in found.user_attrs.items() if key in Trial.model_fields},
    )
