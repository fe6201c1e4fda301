"""The planted model: what each task depends on, and how much.

``P(y_t = 1 | x) = P(y_a = 1 | x) sigmoid(b_t + sum_{f in S_t} w_{t,f} z_{t,f}(x))``, where a is the task before t in
the chain (1 where there is none), and z is, per kind of field,

- token: ``e(token)`` of ``hashing.effects``; 0 where the field is absent;
- tokens: ``sum_j e(token_j) / sqrt(n)`` over the n tokens of the row; 0 where there is none;
- number: ``slope (x - centre) / scale``, with ``slope = sign(e(0))`` and the centre and scale written in planted.json.

Of the K fields of a task, the k-th (from 0) moves the log-odds by ``s_k ~ 1 - k / (2 K)`` standard deviations, with
``sum s^2 = signal^2``: ``w_k = s_k / std(z_k)``, the deviation over the rows that the intercept is solved on. So the
fields' true importances are known and fall from the first to the last, whatever effects the tokens happened to get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recbole_dtn.data.hashing import Floats, effects
from recbole_dtn.synthetic.auc import AucSketch

__all__ = ["Field", "Goal", "Labels", "Model", "Task", "choose", "number_effect"]

# Halvings of the interval of intercepts: 80 / 2^60 is below their rounding to nine digits.
STEPS = 60


@dataclass(frozen=True)
class Field:
    """A field that a task may depend on; ``centre`` and ``scale`` are those of a number."""

    name: str
    kind: str = "token"
    centre: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Goal:
    """The rate and candidate fields of one task, as a layout declares them.

    Args:
        name: of the task. rate: positives among the rows where it can be one (those of ``after``). after: the task
            before it in the chain. fields: candidates, the most important first.
    """

    name: str
    rate: float
    fields: tuple[Field, ...]
    after: str | None = None


@dataclass
class Task:
    """One planted task.

    Args:
        goal: what the layout says. spread: of each informative field, how much it moves the log-odds (standard
            deviation). weights, intercept: of the equation, solved by ``Model.calibrate``.
    """

    goal: Goal
    spread: dict[str, float]
    weights: dict[str, float] = field(default_factory=dict)
    intercept: float = 0.0

    @property
    def fields(self) -> list[Field]:
        """The informative fields, the most important first."""
        known = {one.name: one for one in self.goal.fields}
        return [known[name] for name in self.spread]


def choose(goals: Sequence[Goal], count: int, overlap: float, signal: float) -> list[Task]:
    """Give each task its informative fields.

    The first task takes its first ``count`` candidates. Each other takes ``round(overlap * count)`` of these, from the
    first on, and fills up with candidates of its own.

    >>> x, y, u, v = (Field(name) for name in "xyuv")
    >>> goals = [Goal("a", 0.5, (x, y)), Goal("b", 0.5, (x, y, u, v))]
    >>> [list(task.spread) for task in choose(goals, 2, 0.5, 1.0)]
    [['x', 'y'], ['x', 'u']]
    """
    # In the order of importance; the other tasks share a prefix of it.
    first = [one.name for one in goals[0].fields][:count]
    shared = first[: round(overlap * count)]
    falling = 1 - np.arange(count) / (2 * count)
    # Variances of independent fields add up to signal^2.
    spread = signal * falling / np.sqrt((falling**2).sum())
    tasks = []
    for position, goal in enumerate(goals):
        # A field of the first task that is not shared is not taken either, so that the overlap is exact.
        own = [one.name for one in goal.fields if one.name not in first]
        names = first if position == 0 else [*shared, *own][:count]
        tasks.append(Task(goal, {name: float(s) for name, s in zip(names, spread, strict=True)}))
    return tasks


def number_effect(seed: int, task: str, one: Field, x: Floats) -> Floats:
    """The effect of a number: ``slope (x - centre) / scale``."""
    # The sign is that of a hash: some numbers raise the log-odds, others lower them.
    slope = 1.0 if effects(seed, task, one.name, [0])[0] >= 0 else -1.0
    return slope * (x - one.centre) / one.scale


def sigmoid(x: Floats) -> Floats:
    """``1 / (1 + exp(-x))``."""
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)


@dataclass(frozen=True)
class Labels:
    """Drawn labels and true probabilities of one block, by task; ``own`` is given the task before."""

    label: dict[str, Floats]
    joint: dict[str, Floats]
    own: dict[str, Floats]


Effects = Mapping[tuple[str, str], Floats]
"""Of (task, field): the effect z on every row of a block."""


@dataclass
class Model:
    """The planted tasks of one set.

    Args:
        tasks: in the order of the chain.
        stray: rows (share) whose first two labels are 0 and 1 whatever x is, as Ali-CCP has a few.
    """

    tasks: list[Task]
    stray: float = 0.0
    sketches: dict[tuple[str, str], AucSketch] = field(default_factory=dict)

    def needed(self) -> list[tuple[str, Field]]:
        """Every (task, field) whose effect a block must compute."""
        return [(task.goal.name, one) for task in self.tasks for one in task.fields]

    def calibrate(self, blocks: Sequence[Effects]) -> None:
        """Solve the weights, and each intercept so that the mean probability over ``blocks`` is the goal's rate.

        A field that is the same in every row of ``blocks`` gets the weight 0.
        """
        # P(y = 1 | x) of the tasks so far; ``after`` names one of them.
        reached: dict[str, Floats] = {}
        for task in self.tasks:
            name, after = task.goal.name, task.goal.after
            parts = {one: np.concatenate([block[name, one] for block in blocks]) for one in task.spread}
            for one, spread in task.spread.items():
                deviation = float(parts[one].std())
                # Rounded as planted.json stores them; the spread is then what the rounded weight gives.
                task.weights[one] = round(spread / deviation, 9) if deviation > 1e-9 else 0.0
                task.spread[one] = task.weights[one] * deviation
            score = np.sum([w * parts[one] for one, w in task.weights.items()], axis=0)
            # The rate is that among rows where the task before is positive: rows count with the probability of that.
            before = np.ones_like(score) if after is None else reached[after]
            task.intercept = _solve(score, before, task.goal.rate)
            reached[name] = before * sigmoid(task.intercept + score)

    def draw(self, part: str, found: Effects, random: Callable[[int], Floats]) -> Labels:
        """Draw the labels of one block and add it to the sketches of ``part``."""
        label: dict[str, Floats] = {}
        joint: dict[str, Floats] = {}
        own: dict[str, Floats] = {}
        for task in self.tasks:
            name, after = task.goal.name, task.goal.after
            score: Floats = np.sum([w * found[name, one] for one, w in task.weights.items()], axis=0)
            own[name] = sigmoid(task.intercept + score)
            drawn = (random(len(score)) < own[name]).astype(np.float64)
            # A chain: a positive needs a positive of the task before.
            label[name] = drawn if after is None else drawn * label[after]
            joint[name] = own[name] if after is None else own[name] * joint[after]
        # After the labels are drawn and before they are counted: the sketches see what is written.
        if self.stray:
            self._stray(label, joint, random)
        for task in self.tasks:
            name, after = task.goal.name, task.goal.after
            self._sketch(part, name).add(joint[name], label[name])
            if after is not None:
                seen = self._sketch(part, f"{name}@{after}")
                # Given the task before: expected weights by its probability, drawn ones by its label.
                seen.add(own[name], label[name] * label[after], joint[after], label[after])
        return Labels(label, joint, own)

    def _stray(self, label: dict[str, Floats], joint: dict[str, Floats], random: Callable[[int], Floats]) -> None:
        first, second = (task.goal.name for task in self.tasks[:2])
        odd = random(len(label[first])) < self.stray
        label[first] = np.where(odd, 0.0, label[first])
        label[second] = np.where(odd, 1.0, label[second])
        # The true probabilities include the stray rows, so that the best AUC is reachable.
        joint[first] = (1 - self.stray) * joint[first]
        joint[second] = self.stray + (1 - self.stray) * joint[second]

    def _sketch(self, part: str, name: str) -> AucSketch:
        return self.sketches.setdefault((part, name), AucSketch())

    def describe(self, parts: Sequence[str]) -> list[dict[str, Any]]:
        """The tasks for planted.json."""
        return [self._describe(task, parts) for task in self.tasks]

    def _describe(self, task: Task, parts: Sequence[str]) -> dict[str, Any]:
        goal = task.goal
        fields = [
            {"name": one.name, "kind": one.kind, "weight": task.weights[one.name], "spread": task.spread[one.name]}
            | ({"centre": one.centre, "scale": one.scale} if one.kind == "number" else {})
            for one in task.fields
        ]
        names = [goal.name] + ([f"{goal.name}@{goal.after}"] if goal.after else [])
        found = {name: {part: _numbers(self._sketch(part, name)) for part in parts} for name in names}
        return {
            "name": goal.name,
            "after": goal.after,
            "rate": goal.rate,
            "intercept": task.intercept,
            "informative": fields,
            "reachable": found,
        }


def _numbers(sketch: AucSketch) -> dict[str, float | int | None]:
    return {
        "rows": sketch.rows,
        "positives": sketch.positives,
        "expected_positives": sketch.expected,
        "best_auc": sketch.best,
        "best_auc_error": sketch.error,
        "drawn_auc": sketch.drawn,
    }


def _solve(score: Floats, before: Floats, rate: float) -> float:
    # The mean probability rises with the intercept.
    low, high = -40.0, 40.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if (before * sigmoid(middle + score)).sum() < rate * before.sum():
            low = middle
        else:
            high = middle
    return round((low + high) / 2, 9)
