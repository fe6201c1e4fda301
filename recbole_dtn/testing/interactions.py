"""``check_interaction``: the contract of a feature interaction as a check, for plug-in authors and our own tests."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape, WithAuxiliary
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.testing.devices import check_one_device

__all__ = ["check_equation", "check_interaction"]

OUTPUT_DIM = 6
BATCH = 7
LAYOUTS = {
    "four id fields": FieldShape(4, 8, (0, 1, 2, 3), (40, 7, 300, 12)),
    "id fields between a multi-valued and a continuous one": FieldShape(5, 4, (0, 2, 3), (9, 30, 50, 4, 2)),
    "two id fields": FieldShape(2, 4, (0, 1), (5, 6)),
}
POORER_LAYOUTS = {
    "one field": FieldShape(1, 4, (0,), (10,)),
    "no id field": FieldShape(3, 4, (), (20, 2, 2)),
}
"""Layouts that a method may refuse, by a UsageError from its constructor."""


def check_interaction(cls_or_name: type[FeatureInteraction] | str, **options: Any) -> None:
    """Check that a feature interaction keeps its contract.

    Built from a FieldShape alone, on several layouts of fields (``ids`` is -1 for multi-valued and continuous ones):
    the output is (B, O) for one row and for seven, finite, of the embeddings' type (float32 and float64), the same
    twice in eval mode, the same with ``shared`` from :meth:`~FeatureInteraction.prepare` and without; each row
    depends on itself only; the inputs are left as they were; only a method with ``reads_ids`` depends on the ids; a
    gradient reaches every parameter and the embeddings; a deep copy, a state_dict and ``fused: false`` give the same
    output; forward, backward and a step of an optimiser stay on one device.

    Args:
        cls_or_name: the class, or the name under which it is registered.
        options: the method's own options, where the defaults are not to be checked.

    Raises:
        AssertionError: with a sentence that says what is wrong, and on which layout.

    >>> check_interaction("gdcn", layers=1)
    """
    method = INTERACTIONS.load(cls_or_name) if isinstance(cls_or_name, str) else cls_or_name
    _check_signature(method, options)
    with torch.random.fork_rng(devices=[]):
        for layout, shape in {**LAYOUTS, **POORER_LAYOUTS}.items():
            torch.manual_seed(2020)
            case = _build(method, layout, shape, options)
            if case is not None:
                for check in CHECKS if layout in LAYOUTS else POORER_CHECKS:
                    check(case)


Equation = Callable[[Mapping[str, NDArray[Any]], NDArray[Any], NDArray[Any]], NDArray[Any]]


def check_equation(module: FeatureInteraction, equation: Equation, embeddings: Tensor, ids: Tensor) -> None:
    """Check an interaction against its equation, written again in numpy.

    On a copy with weights drawn large enough that every term matters: outputs agree to 1e-10 in float64 and 1e-5 in
    float32; gradients of the embeddings and of every parameter agree with central differences of ``equation`` to
    1e-6 (relative above 1), at the entries of the largest gradients and at random ones.

    Args:
        module: the interaction.
        equation: ``(weights by their state_dict names, embeddings (B, F, D), ids (B, F)) -> (B, O)``, all in numpy.
        embeddings: (B, F, D). ids: (B, F).

    Raises:
        AssertionError: with what differs, where, and by how much.

    >>> from recbole_dtn.interaction.gdcn import GDCN
    >>> shape = FieldShape(2, 3, (0, 1), (4, 4))
    >>> def equation(w, e, ids):
    ...     c0 = e.reshape(len(e), -1)
    ...     gate = 1 / (1 + np.exp(-c0 @ w["gates.0.weight"].T))
    ...     c1 = c0 * (c0 @ w["crosses.0.weight"].T + w["crosses.0.bias"]) * gate + c0
    ...     return c1 @ w["head.weight"].T + w["head.bias"]
    >>> check_equation(GDCN(shape, 5, layers=1), equation, torch.rand(4, 2, 3), torch.zeros(4, 2, dtype=torch.long))
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2020)
        module = _strengthened(module)
        probe = torch.randn(len(ids), module.output_dim, dtype=torch.float64)
    inputs = embeddings.double().detach().requires_grad_()
    output, _ = _split(module(inputs, ids))
    (output * probe).sum().backward()  # type: ignore[no-untyped-call]
    leaves = {**dict(module.named_parameters()), "(the embeddings)": inputs}
    values = {name: leaf.detach().numpy().copy() for name, leaf in leaves.items()}

    def expected() -> NDArray[Any]:
        return equation(values, values["(the embeddings)"], ids.numpy())

    _agree("the output in float64", output.detach(), expected(), 1e-10)
    with torch.no_grad():
        single, _ = _split(copy.deepcopy(module).float()(inputs.detach().float(), ids))
    _agree("the output in float32", single, expected(), 1e-5)
    for name, leaf in leaves.items():
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        gradient = (gradient.to_dense() if gradient.is_sparse else gradient).flatten()
        for entry in _entries(gradient):
            slope = _slope(lambda: float((expected() * probe.numpy()).sum()), values[name].reshape(-1), entry)
            tolerance = 1e-6 * max(1.0, abs(slope))
            _agree(f"the gradient of {name}, entry {entry},", gradient[entry], np.asarray(slope), tolerance)


def _strengthened(module: FeatureInteraction) -> FeatureInteraction:
    """A copy in float64: matrices N(0, 1.5 / sqrt(width)), vectors moved by N(0, .5)."""
    module = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() > 1:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.5 * noise)
    return module


def _entries(gradient: Tensor, count: int = 4) -> list[int]:
    """Positions of the largest gradients and, evenly spread, of others."""
    if not len(gradient):
        return []
    largest = gradient.abs().topk(min(count, len(gradient))).indices.tolist()
    return sorted({*largest, *np.linspace(0, len(gradient) - 1, count, dtype=int).tolist()})


def _slope(function: Callable[[], float], values: NDArray[Any], entry: int, step: float = 1e-6) -> float:
    """Central difference of ``function``, which reads ``values``, in one of them."""
    middle = values[entry]
    values[entry] = middle + step
    above = function()
    values[entry] = middle - step
    below = function()
    values[entry] = middle
    return (above - below) / (2 * step)


def _agree(what: str, found: Tensor, expected: NDArray[Any], tolerance: float) -> None:
    if tuple(found.shape) != expected.shape:
        raise AssertionError(f"{what} has shape {tuple(found.shape)}; the equation gives {expected.shape}")
    error = float(np.abs(found.double().numpy() - expected).max())
    if not error <= tolerance:
        raise AssertionError(f"{what} is off by {error:.3g} from the equation, more than {tolerance:.0e}")


@dataclass(frozen=True)
class _Case:
    """A module on a layout, and a batch for it."""

    name: str
    shape: FieldShape
    module: FeatureInteraction
    embeddings: Tensor
    ids: Tensor
    build: Callable[[], FeatureInteraction]

    def require(self, right: bool, sentence: str) -> None:
        if not right:
            raise AssertionError(f"{self.name}: {sentence}")

    def output(
        self,
        embeddings: Tensor | None = None,
        ids: Tensor | None = None,
        *,
        module: FeatureInteraction | None = None,
        shared: Any = None,
    ) -> Tensor:
        """The output in eval mode, without gradients."""
        module = (module or self.module).eval()
        embeddings = self.embeddings if embeddings is None else embeddings
        ids = self.ids if ids is None else ids
        with _explained(f"{self.name}: forward in float64 with B={len(ids)}"), torch.no_grad():
            return _split(module(embeddings, ids, shared))[0]

    def near(self, one: Tensor, other: Tensor) -> bool:
        """Equal up to the rounding of float64."""
        return one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever fails inside into an AssertionError that says what was tried."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what} failed: {type(error).__name__}: {error}") from error


def _split(returned: Any) -> tuple[Tensor, Tensor | None]:
    return (returned.output, returned.loss) if isinstance(returned, WithAuxiliary) else (returned, None)


def _check_signature(method: Any, options: dict[str, Any]) -> None:
    if not (inspect.isclass(method) and issubclass(method, FeatureInteraction)):
        raise AssertionError(f"{method!r} is not a subclass of FeatureInteraction")
    name = method.__name__
    parameters = list(inspect.signature(method).parameters.values())
    if [parameter.name for parameter in parameters[:2]] != ["shape", "output_dim"]:
        raise AssertionError(f"{name}: the constructor must begin with (self, shape, output_dim, *, ...)")
    for parameter in parameters[2:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise AssertionError(f"{name}: option {parameter.name!r} must be keyword-only (after a *)")
        if parameter.default is inspect.Parameter.empty and parameter.name not in options:
            raise AssertionError(f"{name}: option {parameter.name!r} has no default, so its name alone cannot build it")
        untyped = parameter.annotation is inspect.Parameter.empty
        if untyped and parameter.default in (None, inspect.Parameter.empty):
            raise AssertionError(f"{name}: option {parameter.name!r} has no type hint, so a setting cannot be checked")
    unknown = set(options) - {parameter.name for parameter in parameters[2:]}
    if unknown:
        raise AssertionError(f"{name}: has no option {', '.join(sorted(unknown))}")


def _build(method: Any, layout: str, shape: FieldShape, options: dict[str, Any]) -> _Case | None:
    """A case with float64 weights away from their initial values; None where the method may refuse the layout."""
    name = f"{method.__name__} on {layout}"

    def build() -> FeatureInteraction:
        module: FeatureInteraction = method(shape, OUTPUT_DIM, **options)
        return module

    with _explained(f"{name}: building it from a FieldShape"):
        try:
            module = build()
        except UsageError:
            if layout in POORER_LAYOUTS:
                return None
            raise
    if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
        raise AssertionError(f"{name}: parameters must be float32 when built; let the trainer choose the precision")
    embeddings, ids = _batch(shape, BATCH)
    _check_types(name, module, embeddings, ids)
    module.double()
    with torch.no_grad():  # a weight initialised to zero may block gradients at the start only
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return _Case(name, shape, module, embeddings, ids, build)


def _check_types(name: str, module: FeatureInteraction, embeddings: Tensor, ids: Tensor) -> None:
    """The output has the embeddings' type in float32; every later check is in float64."""
    what = f"{name}: forward on embeddings (B, F, D) in float32 and ids (B, F)"
    with _explained(what), torch.no_grad():
        output, _ = _split(module.eval()(embeddings.float(), ids.clone()))
    if not isinstance(output, Tensor) or output.dtype != torch.float32:
        raise AssertionError(f"{name}: from float32 embeddings the output must be a float32 tensor")


def _batch(shape: FieldShape, size: int) -> tuple[Tensor, Tensor]:
    """Embeddings (B, F, D) of standard deviation .5 and ids (B, F) in the rows of one joint table."""
    embeddings = 0.5 * torch.randn(size, shape.num_fields, shape.embedding_dim, dtype=torch.float64)
    ids = torch.full((size, shape.num_fields), -1)
    for field in shape.id_fields:
        offset = sum(shape.field_sizes[:field])
        ids[:, field] = torch.randint(offset, offset + shape.field_sizes[field], (size,))
    return embeddings, ids


def _shape_and_type(case: _Case) -> None:
    for size in (1, BATCH):
        output = case.output(case.embeddings[:size], case.ids[:size])
        found = tuple(output.shape)
        case.require(found == (size, OUTPUT_DIM), f"the output for B={size} is {found}, not {(size, OUTPUT_DIM)}")
        case.require(output.dtype == torch.float64, f"from float64 embeddings the output is {output.dtype}")
        case.require(bool(output.isfinite().all()), f"the output for B={size} is not finite")


def _deterministic(case: _Case) -> None:
    same = torch.equal(case.output(), case.output())
    case.require(same, "two forward passes in eval mode differ; random parts must obey train() and eval()")


def _leaves_inputs(case: _Case) -> None:
    embeddings, ids = case.embeddings.clone(), case.ids.clone()
    case.output(embeddings, ids)
    case.require(
        torch.equal(embeddings, case.embeddings), "forward changes the embeddings in place; all owners read them"
    )
    case.require(torch.equal(ids, case.ids), "forward changes the ids in place; all owners read them")


def _rows_apart(case: _Case) -> None:
    whole = case.output()
    other_embeddings, other_ids = _batch(case.shape, BATCH)
    for row in range(BATCH):
        embeddings, ids = other_embeddings.clone(), other_ids.clone()
        embeddings[row], ids[row] = case.embeddings[row], case.ids[row]
        alone = case.output(case.embeddings[row : row + 1], case.ids[row : row + 1])
        case.require(
            case.near(case.output(embeddings, ids)[row], whole[row]) and case.near(alone[0], whole[row]),
            f"in eval mode the output of row {row} changes with the other rows of the batch",
        )


def _ids_as_declared(case: _Case) -> None:
    if case.module.reads_ids:
        return
    _, other_ids = _batch(case.shape, BATCH)
    case.require(
        torch.equal(case.output(ids=other_ids), case.output()),
        "the output depends on the ids, but reads_ids is False; set reads_ids = True",
    )


def _shared(case: _Case) -> None:
    other = case.build().double()
    with _explained(f"{case.name}: prepare(ids), or hash(share_key()),"):
        prepared, others = case.module.prepare(case.ids), other.prepare(case.ids)
        alike = (
            hash(other.share_key()) == hash(case.module.share_key()) and other.share_key() == case.module.share_key()
        )
    case.require(
        case.near(case.output(shared=prepared), case.output()),
        "the output with shared=prepare(ids) differs from that with shared=None",
    )
    if alike:
        case.require(
            case.near(case.output(shared=others), case.output()),
            "two modules have equal share_key(), but one cannot use what the other's prepare(ids) returned",
        )


def _gradients(case: _Case) -> None:
    module = copy.deepcopy(case.module).train()
    embeddings, ids = _batch(case.shape, 64)
    embeddings.requires_grad_()
    with _explained(f"{case.name}: forward in training mode"):
        output, loss = _split(module(embeddings, ids))
    if loss is not None:
        case.require(loss.dim() == 0, f"the auxiliary loss has shape {tuple(loss.shape)}, not a scalar's")
    total = (output * torch.randn_like(output)).sum() + (0.0 if loss is None else loss)
    case.require(total.requires_grad, "no gradient flows from the output")
    total.backward()  # type: ignore[no-untyped-call]
    reached = dict(module.named_parameters())
    if not module.reads_ids:
        reached["(the embeddings)"] = nn.Parameter(embeddings)
        reached["(the embeddings)"].grad = embeddings.grad
    for name, parameter in reached.items():
        if not parameter.requires_grad:
            continue
        case.require(parameter.grad is not None, f"no gradient reaches {name}; an unused parameter breaks DDP")
        assert parameter.grad is not None
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        case.require(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite")
        case.require(bool(gradient.any()) or not gradient.numel(), f"the gradient of {name} is zero everywhere")


def _copies(case: _Case) -> None:
    expected = case.output()
    duplicate = copy.deepcopy(case.module)
    case.require(case.near(case.output(module=duplicate), expected), "a deep copy gives another output")
    # A parameter without entries has no memory: its pointer is 0 in every copy.
    mine, theirs = (
        {parameter.data_ptr() for parameter in module.parameters() if parameter.numel()}
        for module in (case.module, duplicate)
    )
    case.require(not mine & theirs, "a deep copy shares parameters with the module, so owners would not be independent")
    fresh = case.build().double()
    fresh.load_state_dict(case.module.state_dict())
    case.require(
        case.near(case.output(module=fresh), expected),
        "a new module with the old one's state_dict gives another output: something it depends on is not saved",
    )


def _fused_is_plain(case: _Case) -> None:
    plain = set_fused(copy.deepcopy(case.module), False)
    case.require(
        case.near(case.output(module=plain), case.output()), "with fused: false the output differs, beyond rounding"
    )


def _one_device(case: _Case) -> None:
    """Forward, backward and a step of Adam on the meta device, fused and plain."""
    for fused in (True, False):
        module = set_fused(copy.deepcopy(case.module), fused).to("meta").train()
        embeddings = case.embeddings.to("meta").requires_grad_()
        found: list[Tensor] = []

        def forward(module: Any = module, embeddings: Tensor = embeddings, found: list[Tensor] = found) -> None:
            output, loss = _split(module(embeddings, case.ids.to("meta")))
            found.append(output.sum() if loss is None else output.sum() + loss)

        def backward(found: list[Tensor] = found) -> None:
            found[0].backward()  # type: ignore[no-untyped-call]

        check_one_device(f"{case.name}: forward", forward)
        if found:  # else an operation could not run without values
            check_one_device(f"{case.name}: backward", backward)
            optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
            check_one_device(f"{case.name}: a step of Adam", optimizer.step)


CHECKS = (
    _leaves_inputs,  # first: a later pass could hide a change that is the same when made twice
    _shape_and_type,
    _deterministic,
    _rows_apart,
    _ids_as_declared,
    _shared,
    _gradients,
    _copies,
    _fused_is_plain,
    _one_device,
)
POORER_CHECKS = tuple(check for check in CHECKS if check is not _gradients)
"""Layouts without the gradient check: with one field, attention or pair sums have no gradient."""
