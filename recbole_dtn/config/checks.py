"""Checks beyond types: registered names, and settings that must be consistent with each other."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath
from typing import Any

from recbole_dtn.config.faults import Fault
from recbole_dtn.config.metrics import metric_faults
from recbole_dtn.config.models import chain_faults, misfits
from recbole_dtn.config.settings import Settings
from recbole_dtn.config.tree import Branch, Items, Leaf
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.registry import MODELS, PREPROCESSORS
from recbole_dtn.schema import topological_order

__all__ = ["ACCELERATORS", "check_values"]

ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
"""Supported strategies. Strategies that spawn processes are excluded: the state of the first process would be lost."""
FBGEMM_RULES = ("rowwise_adagrad", "adagrad", "sgd")
"""Update rules that FBGEMM has on CPU and GPU and that equal our optimisers."""


def check_values(settings: Settings, merged: Branch, faulty: Collection[str]) -> list[Fault]:
    """Faults of settings that are each of the right type. Keys in ``faulty`` hold a placeholder and are skipped."""
    faults = []
    for key, message in _findings(settings, faulty):
        top = key.split(".")[0].split("[")[0]
        if top not in faulty:
            faults.append(Fault(key, message, merged[top].where if top in merged else ""))
    if not {"fields", "tasks", "dataset"} & set(faulty):
        faults.extend(_fields_and_tasks(settings, merged))
    return faults


def _findings(settings: Settings, faulty: Collection[str]) -> Iterator[tuple[str, str]]:
    if settings.embedding_dtype == "bfloat16" and settings.embedding_optimizer.name == "adam":
        yield (
            "embedding_dtype",
            "bfloat16 loses the small steps of dense adam; use embedding_optimizer.name=lazy_adam, rowwise_adagrad, "
            "adagrad or sgd, which round stochastically, or set float32",
        )
    if settings.folder is not None and (
        PurePath(settings.folder).is_absolute() or ".." in PurePath(settings.folder).parts
    ):
        yield "folder", f"expected a folder under data_path; found {settings.folder!r}; its place goes in data_path"
    compression = settings.embedding_compression
    if compression.method != "none" and compression.keep > compression.above:
        yield (
            "embedding_compression.keep",
            f"expected at most embedding_compression.above ({compression.above}), so that every compressed field has "
            f"tokens that share rows; found {compression.keep}",
        )
    if settings.embedding_backend == "fbgemm":
        yield from _fbgemm(settings)
    if settings.preprocessor is not None:
        try:
            PREPROCESSORS.entry(settings.preprocessor)
        except UsageError as error:
            yield "preprocessor", str(error)
    if getattr(settings.preprocess, "protocol", None) == "mtreclib" and not settings.selected_on_test:
        yield "preprocess.protocol", "mtreclib selects on the test set: use a data set of that name"
    if not {"tasks", "dataset"} & set(faulty):
        yield from metric_faults(settings)
        yield from _chain(getattr(settings, "task_chain", None), settings)
        if settings.tasks and "model" not in faulty:
            kinds = {task.name: task.kind for task in settings.tasks}
            asked = MODELS.attributes(settings.model)
            found = list(misfits(settings.model, asked, kinds, has_domain=settings.domain_field is not None))
            chain = asked.get("needs_chain")
            if chain and not found:  # one task too few is told once
                told = chain_faults(settings.model, settings.tasks, same_rows=chain == "same_rows")
                found = [("tasks", message) for message in told]
            yield from found
            least = asked.get("min_batch_rows", 1)
            if settings.train_batch_size < least:
                rows = settings.train_batch_size
                yield "train_batch_size", f"{settings.model} needs {least} rows or more of a batch; found {rows}"
    if settings.accelerator not in ACCELERATORS:
        yield (
            "accelerator",
            f"unknown accelerator {settings.accelerator!r}; " + nearest(settings.accelerator, ACCELERATORS),
        )
    if settings.strategy not in STRATEGIES:
        yield "strategy", f"unknown strategy {settings.strategy!r}; {nearest(settings.strategy, STRATEGIES)}"
    if settings.batch_parts > 1 and settings.compile != "none":
        yield "batch_parts", f"compile={settings.compile} compiles whole batches: use batch_parts=1 or compile=none"
    if settings.eval_step > settings.epochs:
        yield (
            "eval_step",
            f"expected at most epochs ({settings.epochs}), since no epoch could be selected without a "
            f"validation; found {settings.eval_step}",
        )
    if not _is_devices(settings.devices):
        expected = 'expected a number >= 1, "auto", -1 (all), or indices such as "0,1"'
        yield "devices", f"{expected}; found {settings.devices!r}"
    elif isinstance(settings.devices, int) and settings.devices > (os.cpu_count() or 1):
        yield "devices", f"expected at most {os.cpu_count()}, the machine's processors; found {settings.devices}"
    if settings.init_from is not None and not Path(settings.init_from).is_dir():
        yield "init_from", f"expected the folder of a run; found {settings.init_from!r}, which is not a folder"


def _fbgemm(settings: Settings) -> Iterator[tuple[str, str]]:
    """What FBGEMM's kernels cannot keep or update as the other backends do."""
    given = settings.embedding_optimizer.name
    if given not in FBGEMM_RULES:
        yield (
            "embedding_backend",
            f"fbgemm updates the table by embedding_optimizer.name={', '.join(FBGEMM_RULES[:-1])} or "
            f"{FBGEMM_RULES[-1]}; found {given}: choose one of them, or embedding_backend=torch",
        )
    if settings.embedding_size % 4:
        yield (
            "embedding_size",
            f"expected a multiple of 4 with embedding_backend=fbgemm; found {settings.embedding_size}",
        )
    if settings.embedding_dtype != "float32":
        yield (
            "embedding_dtype",
            f"expected float32 with embedding_backend=fbgemm, which rounds in other ways than ours; found "
            f"{settings.embedding_dtype}",
        )


def _chain(chain: Any, settings: Settings) -> Iterator[tuple[str, str]]:
    """A ``task_chain`` map names known tasks and has no cycle."""
    if not isinstance(chain, dict):
        return
    names = [task.name for task in settings.tasks]
    unknown = [name for name in dict.fromkeys([*chain, *(p for after in chain.values() for p in after)])
               if name not in names]  # fmt: skip
    for name in unknown:
        yield "task_chain", f"unknown task {name!r}; {nearest(name, names)}"
    if not unknown:
        try:
            topological_order({name: tuple(chain.get(name, ())) for name in names})
        except UsageError as error:
            yield "task_chain", str(error).removeprefix("task chain: ")


def _is_devices(devices: int | str) -> bool:
    if isinstance(devices, int):
        return devices >= 1 or devices == -1
    return devices == "auto" or re.fullmatch(r"\d+(,\d+)*,?", devices) is not None


def _fields_and_tasks(settings: Settings, merged: Branch) -> Iterator[Fault]:
    from recbole_dtn.config.tasks import check_fields_and_tasks

    try:
        check_fields_and_tasks(settings)
    except UsageError as error:
        for line in str(error).splitlines():
            key, _, rest = line.strip().partition(": ")
            top = key.split(".")[0].split("[")[0]
            where = _entry(line.strip(), merged) or merged[top if top in merged else "tasks"].where
            yield Fault(key, rest, where) if rest and top in merged else Fault("tasks", line.strip(), where)


def _entry(message: str, merged: Branch) -> str | None:
    """File and line of the entry of ``fields:`` or ``tasks:`` that a message names (the later one of two)."""
    begins = re.match(r"(field|task)s?:? '([^']*)'", message)
    entries = merged[f"{begins[1]}s"] if begins else None
    if begins is None or not isinstance(entries, Items):
        return None
    named = [item.where for item in entries if isinstance(item, Branch) and _name(item) == begins[2]]
    return named[-1] if named else None


def _name(entry: Branch) -> str | None:
    name = entry.get("name")
    return str(name.value) if isinstance(name, Leaf) else None
