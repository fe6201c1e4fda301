"""The contract of a loss as a check, for the tests of this project and of plug-ins."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.loss.base import TaskLoss
from recbole_dtn.loss.tasks import TaskLosses
from recbole_dtn.registry import LOSSES
from recbole_dtn.schema import TaskSpec

__all__ = ["check_loss"]

ROWS = 40
STEP = 1e-6


def check_loss(cls_or_name: type[TaskLoss] | str, **options: Any) -> None:
    """Check that a loss keeps its contract.

    It is elementwise and not reduced, for (B,), (B, T), one row and none; finite, of the logits' type (float32 and
    float64), the same twice; its gradient agrees with central differences and reaches every parameter of its own; the
    tensors given are left as they were; it computes on torch's ``meta`` device, so that no tensor is made on the wrong
    one. In :class:`TaskLosses` a row that is not observed has no part in the loss or in the gradient, NaN included.

    Args:
        cls_or_name: the class, or the name under which it is registered.
        options: the loss's own options, where the defaults are not to be checked.

    Raises:
        AssertionError: with a sentence that says what is wrong.

    >>> check_loss("bce")
    """
    kind = LOSSES.load(cls_or_name) if isinstance(cls_or_name, str) else cls_or_name
    assert isinstance(kind, type), f"expected a class, found {kind!r}"
    assert issubclass(kind, TaskLoss), f"{kind.__name__} is not a TaskLoss"
    assert kind.task_kind in ("binary", "regression"), f"task_kind is {kind.task_kind!r}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2020)
        loss = kind(**options)
        for dtype in (torch.float64, torch.float32):
            logits = torch.randn(ROWS, 3, dtype=dtype)
            # Targets of a regression are positive, for losses that take logarithms.
            labels = (torch.rand(ROWS, 3) < 0.4).to(dtype) if kind.task_kind == "binary" else torch.rand(ROWS, 3) + 0.1
            loss.to(dtype)
            _check_elementwise(loss, logits, labels.to(dtype))
            if dtype is torch.float64:
                _check_gradient(loss, logits, labels.to(dtype))
        _check_extremes(loss)
        _check_masking(loss, logits[:, 0], labels[:, 0])
        _check_device(loss)


def _check_extremes(loss: TaskLoss) -> None:
    """Logits as large as an outlier gives; a probability that rounds to 0 or 1 makes a naive logarithm infinite."""
    sizes = (20.0, 100.0, 1e4)
    logits = torch.tensor([sign * size for size in sizes for sign in (1, -1)] * 2, requires_grad=True)
    labels = torch.tensor([0.0, 1.0]).repeat_interleave(len(logits) // 2)
    values = loss.float()(logits, labels if loss.task_kind == "binary" else labels + 0.1)
    assert bool(values.isfinite().all()), f"the loss is not finite at logits of {sizes}: {values.tolist()}"
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert bool(gradient.isfinite().all()), f"the gradient is not finite at logits of {sizes}: {gradient.tolist()}"


def _check_elementwise(loss: TaskLoss, logits: Tensor, labels: Tensor) -> None:
    before = logits.clone(), labels.clone()
    column = loss(logits[:, 0], labels[:, 0])
    same = torch.equal(logits, before[0]) and torch.equal(labels, before[1])
    assert same, "the tensors given are changed"
    assert column.shape == (ROWS,), f"(B,) logits give a loss of shape {tuple(column.shape)}: it is not to be reduced"
    assert column.dtype is logits.dtype, f"{logits.dtype} logits give a {column.dtype} loss"
    assert bool(column.isfinite().all()), "a loss is not finite"
    assert torch.equal(column, loss(logits[:, 0], labels[:, 0])), "the same rows give another loss the second time"
    wide = loss(logits, labels)
    assert wide.shape == logits.shape, f"(B, T) logits give a loss of shape {tuple(wide.shape)}"
    rtol, atol = (1e-5, 1e-6) if logits.dtype is torch.float32 else (1e-12, 1e-12)
    for position in range(logits.shape[1]):
        alone = loss(logits[:, position].contiguous(), labels[:, position].contiguous())
        torch.testing.assert_close(
            wide[:, position], alone, rtol=rtol, atol=atol, msg="(B, T) differs from its columns"
        )
    # One row, none, and some: a reduction over the batch shows in one of them.
    for rows in (slice(0, 1), slice(0, 0), slice(5, 9)):
        some = loss(logits[rows, 0], labels[rows, 0])
        torch.testing.assert_close(
            some, column[rows], rtol=rtol, atol=atol, msg="the loss of a row depends on the other rows"
        )


def _check_gradient(loss: TaskLoss, logits: Tensor, labels: Tensor) -> None:
    logits, labels = logits[:, 0].clone().requires_grad_(), labels[:, 0]
    given = [logits, *(p for p in loss.parameters() if p.requires_grad)]
    found = torch.autograd.grad(loss(logits, labels).sum(), given, allow_unused=True)
    for name, gradient in zip([name for name, _ in loss.named_parameters()], found[1:], strict=False):
        assert gradient is not None, f"no gradient reaches the parameter {name!r}"
    assert found[0] is not None, "no gradient reaches the logits"
    with torch.no_grad():
        slopes = (loss(logits + STEP, labels) - loss(logits - STEP, labels)) / (2 * STEP)
    torch.testing.assert_close(
        found[0], slopes, rtol=1e-6, atol=1e-6, msg="the gradient differs from central differences"
    )


def _check_masking(loss: TaskLoss, logits: Tensor, labels: Tensor) -> None:
    """Through the means over the observed rows, as training takes them."""
    losses = TaskLosses([TaskSpec("t", loss.task_kind, "t")])
    # ``safe`` would skip the mask in front of the loss, which is what is tested.
    losses.losses[0], losses.safe = loss, False
    observed = torch.arange(ROWS) % 3 > 0
    whole = logits.unsqueeze(1).clone().requires_grad_()
    holes = torch.where(observed, labels, math.nan).unsqueeze(1)
    found = losses(whole, holes, observed.unsqueeze(1))
    expected = loss(logits[observed], labels[observed]).mean()
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6, msg="rows that are not observed count")
    (gradient,) = torch.autograd.grad(found.sum(), whole)
    assert bool(gradient.isfinite().all()), "a label that is not observed makes the gradient NaN"
    assert bool((gradient[~observed] == 0).all()), "rows that are not observed have a gradient"


def _check_device(loss: TaskLoss) -> None:
    loss = loss.to("meta")
    logits = torch.zeros(5, device="meta", requires_grad=True)
    found = loss(logits, torch.zeros(5, device="meta"))
    assert found.device.type == "meta", f"on the device 'meta' the loss is on {found.device.type!r}"
    found.sum().backward()
