"""The memory of a run, estimated before its model is built.

The model is made on torch's ``meta`` device, where tensors have a shape and no data, and one training step is run
there. What it would allocate is counted operation by operation. A few rows of the data give the shapes of a batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from recbole_dtn.balancer.base import GradientBalancer
from recbole_dtn.balancer.db_mtl import DBMTL
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.data.loader import machine_memory
from recbole_dtn.data.order import DRAWN_ROWS
from recbole_dtn.data.store import HELD_VALUES, PACKED_BYTES, Split
from recbole_dtn.errors import RecBoleDTNError
from recbole_dtn.interaction.base import FeatureInteraction
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.table import RowTable
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.optim.build import sparse_gradients
from recbole_dtn.preprocess.prepare import PreparedData
from recbole_dtn.registry import BALANCERS, INTERACTIONS, MODELS

__all__ = ["Footprint", "LiveBytes", "estimate", "parameter_bytes", "state_bytes"]

PROBED_ROWS = 4096
"""Most rows of a batch that is run on the meta device; a larger batch takes memory in proportion."""
STATES = {"adam": 2, "adamw": 2, "lazy_adam": 2, "adagrad": 1, "sgd": 0}
"""Numbers of optimiser state per parameter; ``rowwise_adagrad`` has one per row."""
STEP_COPIES = 5
"""Copies of the touched rows of a table that an optimiser's step holds."""
LIBRARIES = 24 << 20
"""What torch, its threads and Lightning take once a training starts, measured on small models."""
METRIC_BYTES = 48
"""Per evaluated row and task: what metrics keep, and sort."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a run takes beside what the process has.

    Attributes:
        tables: embeddings and codebooks. dense: all other parameters, and buffers. states: of the optimisers.
        gradients: of one step. activations: what a batch takes at most beside them; None where it is not known.
        data: buffers of the loaders and what metrics keep. modules: parameters by interaction, all owners together.
        rows: of the batch that takes most.
    """

    tables: int
    dense: int
    states: int
    gradients: int
    activations: int | None
    data: int
    rows: int
    modules: Mapping[str, int] = field(default_factory=dict)

    @property
    def model(self) -> int:
        """Bytes beside those of the data, which are on the device that trains."""
        return self.tables + self.dense + self.states + self.gradients + (self.activations or 0)

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.model + self.data


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make and that are still held: ``live``, and ``peak`` of it.

    Args:
        given: tensors that were there before, and are not counted where an operation gives a view of them.

    >>> with LiveBytes() as found:
    ...     kept = torch.ones(4, device="meta").mul(2.0).mul(3.0)
    >>> found.live, found.peak
    (16, 32)
    """

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._given = [tensor.untyped_storage() for tensor in given]  # held, so that no other gets the id of one
        self._sizes = {id(storage): 0 for storage in self._given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_iter(found):
            if isinstance(each, Tensor):
                for part in (each._indices(), each._values()) if each.is_sparse else (each,):
                    self._add(part)
        return found

    def _add(self, tensor: Tensor) -> None:
        # Views share a storage: it counts once.
        storage = tensor.untyped_storage()
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, id(storage))

    def _drop(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, each once."""
    held = {id(each): each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers())}
    return sum(held.values())


def state_bytes(model: MultiTaskRecommender, settings: Settings) -> int:
    """Bytes of what the optimisers keep from step to step."""
    tables = {id(table.weight): table.weight for table in model.tables() if table.weight.requires_grad}
    dense = sum(each.numel() for each in model.parameters() if each.requires_grad and id(each) not in tables)
    name = settings.embedding_optimizer.name
    # float32 also where a table is bfloat16.
    of_tables: int = sum(
        len(table) if name == "rowwise_adagrad" else STATES[name] * table.numel() for table in tables.values()
    )
    states: int = 4 * (STATES[settings.optimizer.name] * dense + of_tables)
    return states


def estimate(settings: Settings, prepared: PreparedData) -> Footprint | None:
    """The memory of a run with this model on these data; None for a model that is fitted directly.

    Activations are those of float32 without ``compile``. They are None, and not counted, where the model's operations
    cannot run without data.
    """
    if MODELS.load(settings.model).fits_directly:
        return None
    train = prepared.splits["train"]
    evaluated = max(prepared.splits["valid"].rows, prepared.splits["test"].rows)
    sizes = min(settings.train_batch_size, train.rows), min(settings.eval_batch_size, evaluated)
    try:
        with torch.device("meta"):
            model: MultiTaskRecommender = MODELS.load(settings.model)(settings, prepared.schema)
    except RecBoleDTNError:
        raise
    except Exception:  # a plug-in's model that reads values while it is built
        return None
    model.set_sparse(sparse_gradients(settings))
    tables = sum({id(t.weight): t.weight.numel() * t.weight.element_size() for t in model.tables()}.values())
    held = parameter_bytes(model)
    gradients, peak = _step(model, train, sizes, settings) or (held, None)
    return Footprint(
        tables=tables,
        dense=held - tables,
        states=state_bytes(model, settings),
        gradients=gradients,
        activations=None if peak is None else peak - gradients,
        data=_data_bytes(settings, prepared, sizes),
        rows=max(sizes),
        modules=_by_method(model),
    )


def _step(
    model: MultiTaskRecommender, split: Split, sizes: tuple[int, int], settings: Settings
) -> tuple[int, int] | None:
    """Bytes of the gradients of a training step, and the most that it or an evaluation has beside parameters."""
    for fused in dict.fromkeys([settings.fused, False]):  # the plain operations are those that any device has
        set_fused(model, fused)
        try:
            gradients, training = _training(model, *_batch(split, sizes[0]), settings)
            return gradients, max(training, _evaluation(model, *_batch(split, sizes[1])))
        except Exception:  # an operation that needs values
            model.zero_grad()
    return None


def _batch(split: Split, rows: int) -> tuple[Features, float]:
    """A batch without data, and how many times larger the wanted one is."""
    probed = max(1, min(rows, PROBED_ROWS, split.rows))
    return split.batch(np.arange(probed)).to("meta"), rows / probed


def _training(model: MultiTaskRecommender, batch: Features, times: float, settings: Settings) -> tuple[int, int]:
    model.train()
    looked_up = [_counted(table) for table in model.tables()]
    with LiveBytes((*model.parameters(), *model.buffers())) as memory:
        output = model(batch)
        forward = memory.peak
        losses = model.task_losses(batch, output)
        terms = (*output.auxiliary.values(), *model.penalties().values())
        sum(terms, losses.sum()).backward()
    del output, losses, terms
    # Autograd keeps no values of a sparse gradient on the meta device: those of tables are counted by their look-ups.
    given = [each.grad for each in model.parameters() if each.grad is not None and not each.grad.is_sparse]
    dense, sparse, step = sum(each.numel() * each.element_size() for each in given), 0, 0
    for table, rows in zip(model.tables(), looked_up, strict=True):
        if table.weight.grad is not None and table.weight.grad.is_sparse:
            found = int(times * rows[0]) or len(table.weight)  # a codebook that is read whole by a kernel
            sparse += found * (8 + table.embedding_dim * table.weight.element_size())
            step += STEP_COPIES * min(found, len(table.weight)) * table.embedding_dim * 4
    model.zero_grad()
    # Gradients are made while activations are given up, but the allocator keeps those blocks for the next step.
    activations = int(times / settings.batch_parts * max(forward, memory.peak - dense))
    if issubclass(BALANCERS.load(settings.balancer.name), (GradientBalancer, DBMTL)):
        dense *= 1 + model.schema.num_tasks  # one of each task is held until they are combined
    gradients = dense + sparse
    return gradients, gradients + max(activations, step)


def _counted(table: RowTable) -> list[int]:
    """A list whose one number grows with the rows that ``table`` looks up."""
    count, look_up = [0], table.look_up

    def counting(rows: Tensor, *, batch_size: int) -> Tensor:
        count[0] += rows.numel()
        return look_up(rows, batch_size=batch_size)

    table.look_up = counting  # type: ignore[method-assign]
    return count


def _evaluation(model: MultiTaskRecommender, batch: Features, times: float) -> int:
    model.eval()
    with LiveBytes((*model.parameters(), *model.buffers())) as memory, torch.no_grad():
        model(batch)
    return int(times * memory.peak)


def _data_bytes(settings: Settings, prepared: PreparedData, sizes: tuple[int, int]) -> int:
    """Buffers of the loaders, and what the metrics keep of an evaluation."""
    train, fields = prepared.splits["train"], prepared.schema.num_fields
    packed = 4 * train.rows * fields
    packed = packed if packed <= min(PACKED_BYTES, machine_memory() // 8) else 0
    order = 4 * train.rows if train.rows <= DRAWN_ROWS else 0
    # A stretch of rows as it is gathered, and three batches that are cut from it.
    gathered = 4 * max(HELD_VALUES, max(sizes) * fields) + 3 * 8 * max(sizes) * fields
    evaluated = max(prepared.splits["valid"].rows, prepared.splits["test"].rows)
    return LIBRARIES + packed + order + gathered + METRIC_BYTES * evaluated * len(settings.tasks)


def _by_method(model: nn.Module) -> dict[str, int]:
    """Bytes of the parameters of each interaction method, of all owners together."""
    names = {INTERACTIONS.load(name): name for name in INTERACTIONS.names()}
    found: dict[str, int] = {}
    for module in model.modules():
        if isinstance(module, FeatureInteraction) and type(module) in names:
            name = names[type(module)]
            found[name] = found.get(name, 0) + parameter_bytes(module)
    return found
