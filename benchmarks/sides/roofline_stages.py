"""Time of each stage in the product's own run: ``python -m benchmarks.sides.roofline_stages RULE FOLDER MODEL THREADS
cpu|gpu``.

The run is that of the training benchmark with ``profile: true``. From the profiler's events: the stages that the
product marks, the backward pass by the forward stage that each of its operations belongs to (their sequence numbers),
and the optimiser by its parts.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from unittest import mock

import torch
from torch.autograd import DeviceType

from benchmarks.sides.train_common import AnonymousMemory, Work, finish
from benchmarks.sides.train_ours import prepared_of, settings_of
from recbole_dtn.layers.stages import PREFIX
from recbole_dtn.training import fit as training
from recbole_dtn.training import profile

INNER = ("embed", "tower", "gate", "loss")
"""Stages of a forward pass that are told apart; all else of it is its core: experts or interactions."""
OPTIMISER = "Optimizer.step#"
NODE = "autograd::engine::evaluate_function: "


class Spans:
    """Stretches of time that do not overlap, each with a name."""

    def __init__(self, spans: Iterable[tuple[float, float, str]]) -> None:
        self.spans = sorted(spans)
        self.starts = [start for start, _, _ in self.spans]

    def at(self, time: float) -> str | None:
        """The name of the stretch that holds ``time``."""
        place = bisect_right(self.starts, time) - 1
        return self.spans[place][2] if place >= 0 and time < self.spans[place][1] else None


def stage_times(events: Sequence[Any], steps: int, *, gpu: bool, gates_apart: bool) -> dict[str, float]:
    """Milliseconds of a training step: ``STAGE``, ``STAGE, backward``, ``optimiser, PART``, ``whole``.

    On a GPU what its kernels took, on a CPU what passed on the clock.
    """
    inner = INNER if gates_apart else tuple(name for name in INNER if name != "gate")
    events = [event for event in events if event.device_type == DeviceType.CPU]
    marked = defaultdict(list)
    for event in events:
        if event.name.startswith(PREFIX):
            marked[event.name.removeprefix(PREFIX)].append((event.time_range.start, event.time_range.end))
    embeds, losses = sorted(marked["embed"]), sorted(marked["loss"])
    cores = Spans((embed[1], loss[0], "core") for embed, loss in zip(embeds, losses, strict=True))
    parts = Spans((start, end, name) for name in inner for start, end in marked[name])
    backward = Spans((start, end, "backward") for start, end in marked["backward"])

    def stage_at(time: float) -> str | None:
        return parts.at(time) or cores.at(time)

    found: dict[str, float] = defaultdict(float)
    latest: dict[int, tuple[float, str]] = {}
    for event in events:
        stage, start = stage_at(event.time_range.start), event.time_range.start
        if stage is None:
            continue
        if gpu:
            found[stage] += event.self_device_time_total
        if event.sequence_nr >= 0 and start >= latest.get(event.sequence_nr, (0.0, ""))[0]:
            # The last operation that shows a number is the one whose gradient has it.
            latest[event.sequence_nr] = start, stage
    for event in events:
        if event.name.startswith(NODE) and backward.at(event.time_range.start):
            numbers = [child.sequence_nr for child in event.cpu_children if child.sequence_nr in latest]
            stage = latest[numbers[0]][1] if numbers else "other"
            found[f"{stage}, backward"] += event.device_time_total if gpu else event.cpu_time_total
        elif event.name.startswith(OPTIMISER):
            name = event.name.removeprefix(OPTIMISER).removesuffix(".step")
            found[f"optimiser, {name}"] += event.device_time_total if gpu else event.cpu_time_total
    if not gpu:
        for name in (*inner, "backward", "optimiser", "load"):
            found[name] = sum(end - start for start, end in marked[name])
        nested = sum(found[name] for name in inner if name not in ("embed", "loss"))
        found["core"] = sum(end - start for start, end, _ in cores.spans) - nested
        counted = sum(value for name, value in found.items() if name.endswith(", backward"))
        found["other, backward"] += found["backward"] - counted
    found["whole"] = sum(end - start for start, end in marked[profile.WHOLE])
    return {name: value / 1e3 / steps for name, value in found.items()}


def main() -> None:
    work, memory = Work(), AnonymousMemory()
    torch.set_num_threads(work.threads)
    found: dict[str, dict[str, float]] = {}
    own = profile.stage_times

    def keep(running: Any, count: int) -> Any:
        kept = own(running, count)
        if "train" not in found:  # the profiler's first stretch; the second is validation
            events = running.events()
            found["train"] = stage_times(events, count, gpu=work.place.gpu, gates_apart=work.model == "DTN")
        else:
            found["valid"] = {name: time.device if work.place.gpu else time.cpu for name, time in kept.items()}
        return kept

    with tempfile.TemporaryDirectory() as output:
        resolved = settings_of(work, work.side, output, profile=True)
        prepared = prepared_of(work, resolved)
        with (
            mock.patch.object(training, "prepare", return_value=prepared),
            mock.patch.object(profile, "stage_times", keep),
        ):
            record = training.fit_settings(resolved).record
    seconds = found["train"]["whole"] / 1e3
    rows = {"eval_rows": prepared.splits["valid"].rows, "eval_batch": resolved.settings.eval_batch_size}
    finish(seconds, 0.0, memory, work.place, stages=found, parameters=record.parameters, **rows)


if __name__ == "__main__":
    main()
