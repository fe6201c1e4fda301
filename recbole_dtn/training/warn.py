"""Warnings about a run: about its data before it starts, about its results and gates when it has ended.

docs/warnings.md says what each of them means and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from recbole_dtn.config.settings import Settings, TaskSettings
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.inspect.info.inputs import input_findings, input_sentences
from recbole_dtn.inspect.info.skewed import skewed_numbers
from recbole_dtn.inspect.info.tasks import FEW, few_in_test, few_words
from recbole_dtn.preprocess.prepare import PreparedData, Split
from recbole_dtn.record.constant import LOST, Worse, worse_than_constant
from recbole_dtn.record.record import RunRecord
from recbole_dtn.registry import BALANCERS, METRICS, MODELS
from recbole_dtn.report.text import share
from recbole_dtn.training.gates import gate_groups

__all__ = [
    "data_warnings",
    "failure_signs",
    "large_model",
    "large_targets",
    "refuse_untrusted",
    "result_warnings",
    "unread_weights",
    "untrusted",
]

ALMOST_PERFECT, PERFECT, UNEXPLAINED = 0.99, 0.999, 0.1
"""A test AUC above the first is suspicious where less than the third of the entropy is left (NE), or above the second
in any case. A task about a person's age or marriage reaches .995 at an NE of .13 without any outcome among its
inputs."""
DIVERGED = 2.0
"""Log loss, in units of that of a constant, from which on a run has diverged and does not overfit alone."""
SHIFTED = 4.0
"""Standard errors between the shares of positives of two splits, from which on they are told to differ."""
LARGEST_SHOWN = 1e6
BROKEN = 0.05
"""Share of test rows with P(later) > P(earlier) above which it is a warning."""
COLLAPSED = 0.95
UNIFORM = 0.005
LARGE = 25.0
"""Loss of a regression task at its start, times its weight, above which it outweighs a binary one (at most ln 2)."""
LOOKED_AT = 1 << 20
PER_ROW, MANY = 100, 1_000_000
"""Dense parameters per training row, and in all, above which both a model is large for its data."""


def unread_weights(settings: Settings) -> list[str]:
    """A sentence about weights of tasks that the chosen balancer does not read."""
    weighted = [task.name for task in settings.tasks if task.weight != 1.0]
    if not weighted or BALANCERS.attributes(settings.balancer.name).get("reads_weights"):
        return []
    return [
        f"the balancer {settings.balancer.name} does not read the weight of {', '.join(weighted)}: it weighs the tasks "
        "by itself (fixed reads them)"
    ]


def large_targets(tasks: list[TaskSettings], train: Split) -> list[str]:
    """Sentences about regression tasks, not standardised, whose squared error would outweigh the others' losses.

    Args:
        tasks: of the data set. train: its training rows; at most the first 2^20 of them are looked at.
    """
    # Labels of all splits lie in one memory-mapped array; only the pages of these rows are read.
    rows = slice(train.start, train.start + min(train.rows, LOOKED_AT))
    labels, observed = train.store.labels[rows], train.store.observed[rows]
    found = []
    for position, task in enumerate(tasks):
        if task.standardise:
            continue
        values = labels[:, position][observed[:, position]].astype(np.float64)
        # The loss of a model that predicts 0, which a fresh one nearly does.
        square = float(np.mean(values**2)) if len(values) else 0.0
        if task.kind == "regression" and task.weight * square > LARGE and len(tasks) > 1:
            found.append(
                f"task {task.name!r}: its targets are large (mean square {square:.3g}), so its loss would outweigh "
                f"the others': leave standardise at true, or give it a weight of about {1 / square:.1g} in tasks"
            )
    return found


def large_model(dense: int, rows: int) -> list[str]:
    """A sentence about a model with many more dense parameters than training rows.

    >>> large_model(17_000_000, 8_000)[0][:76]
    'the model has 17,000,000 dense parameters for 8,000 training rows, 2,125 for'
    >>> large_model(99 * 8_000, 8_000), large_model(999_999, 10)
    ([], [])
    """
    if dense <= MANY or dense <= PER_ROW * rows:
        return []
    return [
        f"the model has {dense:,} dense parameters for {rows:,} training rows, {dense // max(1, rows):,} for each: "
        "expect it to overfit; try fewer interactions, a smaller embedding_size or module_dim, or a smaller model such "
        "as SharedBottom, and compare on validation"
    ]


def data_warnings(settings: Settings, prepared: PreparedData) -> list[str]:
    """Sentences about the data, before training: weights and targets, rare classes, inputs that may be outcomes."""
    found = input_findings(prepared)
    # Models that are fitted directly know no balancer, and no sum of losses.
    together = not _fits_directly(settings.model)
    return [
        *(unread_weights(settings) if together else ()),
        *(large_targets(settings.tasks, prepared.splits["train"]) if together else ()),
        *skewed_numbers(prepared.splits["train"]).values(),
        *few_rows(settings, prepared.summary.positives),
        *input_sentences([spec.name for spec in prepared.schema.fields], found.aucs, found.telling),
    ]


def few_rows(settings: Settings, positives: Mapping[str, Mapping[str, tuple[int, int]]]) -> Iterator[str]:
    """Sentences about classes that are rare in test, or in validation where they help to select.

    Args:
        settings: model, tasks and ``valid_metric``. positives: positive and observed rows by split and task.
    """
    binary = [task.name for task in settings.tasks if task.kind == "binary"]
    yield from few_in_test(binary, positives["test"])
    direct = _fits_directly(settings.model)
    rare = {name: min(ones, rows - ones) < FEW for name, (ones, rows) in positives["valid"].items()}
    if not direct and settings.valid_metric.startswith("weighted_") and not all(rare[name] for name in binary):
        return  # a rare task counts little beside a frequent one
    for name in binary:
        ones, observed = positives["valid"][name]
        if not rare[name] or not (direct or _selects(settings, name)):
            continue
        text = few_words(name, ones, observed, "validation")
        chosen = "what the model chooses there" if direct else f"the epoch that {settings.valid_metric} selects"
        instead = "" if direct else "select by another task (valid_metric), or "
        yield f"{text}; {chosen} follows the noise of these: {instead}validate on more rows (split_ratio)"


def _fits_directly(model: str) -> bool:
    """Whether the model has no epochs, and fits each task by itself."""
    return model in MODELS.names() and bool(MODELS.attributes(model).get("fits_directly"))


def _selects(settings: Settings, name: str) -> bool:
    """Whether a binary task has a part in ``valid_metric``."""
    chosen = settings.valid_metric
    if any(chosen.startswith(f"{task.name}_") for task in settings.tasks):
        return chosen.startswith(f"{name}_")
    metric = chosen.partition("_")[2]
    return metric not in METRICS.names() or METRICS.attributes(metric).get("task_kind") == "binary"


def result_warnings(record: RunRecord) -> list[str]:
    """Sentences about the results of a run that has been tested."""
    return [*_too_good(record), *_worse_than_constant(record), *_first_epoch(record), *_broken_chain(record)]


def _too_good(record: RunRecord) -> Iterator[str]:
    for task, values in (record.test or {}).items():
        auc, ne = values.get("auc"), values.get("ne")
        if auc is not None and (auc > PERFECT or (auc > ALMOST_PERFECT and (ne is None or ne < UNEXPLAINED))):
            yield (
                f"task {task!r} has a test AUC of {auc:.4f}: few outcomes can be predicted so well from what is known "
                "before them: look for an input that is the outcome (`data info` shows each field alone), or rows of "
                "test that are rows of training"
            )


def _worse_than_constant(record: RunRecord) -> Iterator[str]:
    for found in worse_than_constant(record):
        # Overfitting alone does not take a log loss this far.
        diverged = found.loss > DIVERGED * found.base
        what = "the run diverged" if diverged else f"the run diverged or overfits{_shift(record, found)}"
        of_what = "that of predicting the share of positives for every row" if found.base != LOST else "which is no use"
        yield (
            f"task {found.task!r} has a log loss of {_shown(found.loss)} in {found.split}, above {found.base:.4f}, "
            f"{of_what}: {what}: try a lower optimizer.lr, larger embedding_l2 or weight_decay, "
            "gradient_clip, or select by mean_logloss (valid_metric)"
        )


def _shift(record: RunRecord, found: Worse) -> str:
    """That the share of positives is another one than in training, where it is by more than chance."""
    name = "valid" if found.split == "validation" else found.split
    (ones, rows), (trained, of) = (record.positives.get(each, {}).get(found.task, (0, 0)) for each in (name, "train"))
    if not rows or not of:
        return ""
    pooled = (ones + trained) / (rows + of)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / of))
    if abs(ones / rows - trained / of) <= SHIFTED * error:
        return ""
    return f", or predicts the share of training, {share(trained / of)} positives, where it is {share(ones / rows)}"


def _shown(value: float) -> str:
    return f"{value:.4f}" if value < LARGEST_SHOWN else f"{value:.3g}"


def untrusted(record: RunRecord) -> list[str]:
    """The warnings about a run's results that ``strict`` makes an error: its numbers are not to be used.

    They are about a log loss above that of a constant (the run diverged, or overfits), and an AUC that is too good.
    """
    return [*_worse_than_constant(record), *_too_good(record)]


def refuse_untrusted(runs: Sequence[tuple[str, RunRecord]]) -> None:
    """End a command whose ``strict`` is true, after everything was written.

    Args:
        runs: the name of each run, for the message, and its record.

    Raises:
        RecBoleDTNError: where a run has :func:`untrusted` results.
    """
    found = [(name, sentences) for name, record in runs if (sentences := untrusted(record))]
    if found:
        name, sentences = found[0]
        several = f"{len(found)} of {len(runs)} runs have results that are" if len(runs) > 1 else "the results are"
        raise RecBoleDTNError(f"strict: {several} not to be trusted; {name}: {sentences[0]}")


def _first_epoch(record: RunRecord) -> Iterator[str]:
    if record.best_epoch != 1 or record.epochs < 2 or _fits_directly(record.model):
        return  # rounds of a model that is fitted directly are trees
    advice = "try a lower optimizer.lr, a larger embedding_l2 or dropout, or another valid_metric"
    if _has_memonet(record):
        advice += "; MemoNet memorises small data at once: a larger codebook_l2, fewer codes, or none of it"
    yield (
        f"the best of {record.epochs} epochs is the first: the model overfits from the second one on, or "
        f"{record.settings.get('valid_metric', 'valid_metric')} follows noise: {advice}"
    )


def _broken_chain(record: RunRecord) -> Iterator[str]:
    for later, pairs in record.chain_breaks.items():
        for earlier, (broken, rows) in pairs.items():
            if rows and broken / rows > BROKEN:
                yield (
                    f"task {later!r} is predicted to be more probable than {earlier!r}, which it comes after, in "
                    f"{broken:,} of {rows:,} test rows ({share(broken / rows, 1)}): their probabilities contradict "
                    "each other: a model of conditional probabilities (ESMM) cannot do this; pos_weight, or few "
                    "positives, are usual reasons"
                )


def _has_memonet(record: RunRecord) -> bool:
    interactions = record.settings.get("interactions") or record.settings.get("experts")
    if not isinstance(interactions, list):  # a number of MLP experts, or none
        return False
    return "memonet" in [entry if isinstance(entry, str) else entry["name"] for entry in interactions]


def failure_signs(record: RunRecord) -> list[str]:
    """Sentences about gates that collapsed or stayed uniform, and a best epoch so early that the model overfits."""
    signs = []
    # Of the first epoch there is a warning.
    if record.best_epoch == 2 < record.epochs and _has_memonet(record):
        signs.append(
            f"the best epoch is {record.best_epoch}: MemoNet memorises small data at once; try a larger codebook_l2 or "
            "embedding_l2, fewer codes, or --interactions='[gdcn, masknet]'"
        )
    flat = []
    for task, weights in record.gate_weights.items():
        # A group of one module has nothing to choose.
        groups = [group for group in gate_groups(task, weights) if len(group.weights) > 1]
        for group in groups:
            name, largest = max(group.weights.items(), key=lambda item: item[1])
            if largest > COLLAPSED:
                signs.append(f"the gate of {task} has collapsed: {name} has a mean weight of {largest:.3f}")
        if groups and all(max(g.weights.values()) - min(g.weights.values()) < UNIFORM for g in groups):
            flat.append(task)
    if flat:
        signs.append(f"the gates of {', '.join(flat)} stayed uniform: the modules were averaged, not selected")
    return signs
