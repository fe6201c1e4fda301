"""Which parameters each task depends on: found once by a probe, or declared by the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recbole_dtn.balancer.processes import count_processes
from recbole_dtn.data.features import Features
from recbole_dtn.kernels.choice import Fusible, set_fused
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender

__all__ = ["Reach", "find_reach"]


@dataclass(frozen=True)
class Reach:
    """The trainable parameters of a model by the tasks that depend on them.

    Attributes:
        shared: those of two tasks or more. specific: per task, those of that task alone.
        other: those of no task; only auxiliary losses and penalties reach them.
        tables: those of them all that are embedding tables or codebooks.
        names: of all of them.
    """

    shared: tuple[nn.Parameter, ...]
    specific: tuple[tuple[nn.Parameter, ...], ...]
    other: tuple[nn.Parameter, ...] = ()
    tables: tuple[nn.Parameter, ...] = ()
    names: Mapping[str, nn.Parameter] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Mapping[str, nn.Parameter],
        tasks: Sequence[Collection[nn.Parameter]],
        tables: Sequence[nn.Parameter] = (),
    ) -> Reach:
        """From all trainable parameters by name, per task those that it depends on, and the tables.

        >>> a, b, c = (nn.Parameter(torch.zeros(())) for _ in range(3))
        >>> reach = Reach.of({"a": a, "b": b, "c": c}, [[a, b], [a]])
        >>> reach.shared == (a,), reach.specific == ((b,), ()), reach.other == (c,)
        (True, True, True)
        """
        parameters = [*names.values()]
        held = [{id(parameter) for parameter in each} for each in tasks]
        counts = [sum(id(parameter) in each for each in held) for parameter in parameters]
        alone = [parameter for parameter, count in zip(parameters, counts, strict=True) if count == 1]
        return cls(
            shared=tuple(parameter for parameter, count in zip(parameters, counts, strict=True) if count > 1),
            specific=tuple(tuple(parameter for parameter in alone if id(parameter) in each) for each in held),
            other=tuple(parameter for parameter, count in zip(parameters, counts, strict=True) if count == 0),
            tables=tuple(tables),
            names=names,
        )


def find_reach(model: MultiTaskRecommender, features: Features) -> Reach:
    """Which parameters each task depends on: as ``model.task_parameters()`` says, else by a probe of one batch.

    The probe sends NaN back from one task's logits and loss at a time, zeros from the others', and takes a parameter
    whose gradient then holds a NaN as one that the task depends on. A zero gradient is no evidence of independence,
    since the backward pass of stacked logits fills in zeros. A ReLU whose input is negative in every row stops the NaN,
    so the probe is repeated with dense parameters drawn at random (:data:`DRAWS`). It runs in evaluation mode on the
    plain path, whose operations do not mix tasks. It restores modes, buffers, gradients and random state. A parameter
    that the task reaches only for other batches (an expert that no row of this one is routed to) is missed: such a
    model declares them.

    Args:
        model: the model. features: any batch.
    """
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = [*names.values()]
    tasks = model.task_parameters()
    if tasks is None:
        reached = _probe(model, features, names)
        tasks = [[p for p, found in zip(parameters, row, strict=True) if found] for row in reached.tolist()]
    held = {id(table.weight) for table in model.tables()}
    return Reach.of(names, tasks, [parameter for parameter in parameters if id(parameter) in held])


DRAWS = (True, True, False, False, False)
"""Random draws of the probe; True: all values positive, so that a ReLU over positive inputs lets everything through."""


def _probe(model: MultiTaskRecommender, features: Features, names: Mapping[str, nn.Parameter]) -> Tensor:
    """(T, P) bool: whether task t reaches parameter p, on any process."""
    device = features.ids.device
    tables = {id(table.weight) for table in model.tables()}
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _plain_evaluation(model), torch.enable_grad():
        reached = _marked(model, features, dict(names))
        for positive in DRAWS:
            drawn = {name: _drawn(value, positive) for name, value in names.items() if id(value) not in tables}
            reached |= _marked(model, features, {**names, **drawn})
    if count_processes() > 1:
        found = reached.to(torch.int32)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        reached = found.bool()
    return reached


def _drawn(parameter: nn.Parameter, positive: bool) -> Tensor:
    """Random values of about the size that keeps activations near 1, so that none overflows."""
    values = torch.randn_like(parameter) * (parameter.numel() ** -0.5 if parameter.ndim > 1 else 1.0)
    return (values.abs() if positive else values).requires_grad_()


def _marked(model: MultiTaskRecommender, features: Features, parameters: Mapping[str, Tensor]) -> Tensor:
    """(T, P) bool: which gradients hold a NaN that was sent back from each task, with these parameters."""
    device = features.ids.device
    # The forward pass uses copies of the buffers, so that a running mean does not change.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    output: ModelOutput = functional_call(model, {**buffers, **parameters}, (features,))
    losses = model.task_losses(features, output)
    rows = []
    for task in range(len(losses)):
        mark = torch.zeros_like(losses)
        mark[task] = torch.nan
        # Through the logits too: a task without an observed row sends nothing through its loss.
        marks = [mark.to(output.logits.dtype).expand_as(output.logits), mark]
        found = torch.autograd.grad(
            [output.logits, losses], [*parameters.values()], marks, retain_graph=True, allow_unused=True
        )
        rows.append(torch.stack([_holds_nan(gradient, device) for gradient in found]))
    # An activation that is not finite makes NaN of the zeros too: such a draw says nothing.
    return torch.stack(rows) & output.logits.isfinite().all()


def _holds_nan(gradient: Tensor | None, device: torch.device) -> Tensor:
    if gradient is None:
        return torch.zeros((), dtype=torch.bool, device=device)
    return (gradient._values() if gradient.is_sparse else gradient).isnan().any()


@contextmanager
def _plain_evaluation(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    # None where only the class has the attribute.
    paths = [(module, vars(module).get("fused")) for module in model.modules() if isinstance(module, Fusible)]
    set_fused(model.eval(), False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, fused in paths:
            del module.fused
            if fused is not None:
                module.fused = fused
