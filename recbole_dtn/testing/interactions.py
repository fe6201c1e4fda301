"""``check_interaction``: the contract of a feature interaction as a check, for plug-in authors and our own tests."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.testing.devices import check_one_device
from recbole_dtn.testing.equations import check_equation, split_output

__all__ = ["check_equation", "check_interaction"]

OUTPUT_DIM = 6
BATCH = 7
LAYOUTS = {
    "four id fields": FieldShape(4, 8, (0, 1, 2, 3), (40, 7, 300, 12)),
    # Gaps in ``id_fields``: a method that takes 0 .. F-1 for them reads ids of -1.
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
    method with ``ignores_field_order`` does not depend on the order of the fields; a gradient reaches every parameter
    and the embeddings; outputs and gradients are finite for embeddings that are zero, equal or large, and under
    autocast to bfloat16; a deep copy, a state_dict and ``fused: false`` give the same output; forward, backward and a
    step of an optimiser stay on one device.

    Args:
        cls_or_name: the class, or the name under which it is registered.
        options: the method's own options, where the defaults are not to be checked.

    Raises:
        AssertionError: with a sentence that says what is wrong, and on which layout.

    >>> check_interaction("gdcn", layers=1)
    """
    method = INTERACTIONS.load(cls_or_name) if isinstance(cls_or_name, str) else cls_or_name
    _check_signature(method, options)
    # The caller's random numbers stay as they are.
    with torch.random.fork_rng(devices=[]):
        for layout, shape in {**LAYOUTS, **POORER_LAYOUTS}.items():
            torch.manual_seed(2020)
            case = _build(method, layout, shape, options)
            if case is not None:
                for check in CHECKS if layout in LAYOUTS else POORER_CHECKS:
                    check(case)


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
            return split_output(module(embeddings, ids, shared))[0]

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
        # Only a layout that is poor may be refused.
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
        output, _ = split_output(module.eval()(embeddings.float(), ids.clone()))
    if not isinstance(output, Tensor) or output.dtype != torch.float32:
        raise AssertionError(f"{name}: from float32 embeddings the output must be a float32 tensor")


def _batch(shape: FieldShape, size: int) -> tuple[Tensor, Tensor]:
    """Embeddings (B, F, D) of standard deviation .5 and ids (B, F) in the rows of one joint table."""
    embeddings = 0.5 * torch.randn(size, shape.num_fields, shape.embedding_dim, dtype=torch.float64)
    ids = torch.full((size, shape.num_fields), -1)
    for field in shape.id_fields:
        # Rows of the joint table: the fields before this one come first.
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
        # Row ``row`` in a batch of other rows, and (``alone``) in a batch of one.
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


def _field_order_as_declared(case: _Case) -> None:
    if not case.module.ignores_field_order:
        return
    turned, ids = case.embeddings.flip(1), case.ids.flip(1)
    case.require(
        case.near(case.output(turned, ids), case.output()),
        "the output changes with the order of the fields, but ignores_field_order is True; set it to False",
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
    # More rows than elsewhere, so that no ReLU is off in all of them.
    embeddings, ids = _batch(case.shape, 64)
    embeddings.requires_grad_()
    with _explained(f"{case.name}: forward in training mode"):
        output, loss = split_output(module(embeddings, ids))
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


def _extreme_inputs(case: _Case) -> None:
    """Weights as they are initialised, in float32: 0 / 0, log 0 and overflow show as NaN or inf."""
    ones = torch.ones(BATCH, case.shape.num_fields, case.shape.embedding_dim)
    extremes = {"zero": 0.0 * ones, "equal": ones, "tiny": 1e-20 * ones, "large": 60.0 * case.embeddings.float()}
    for name, embeddings in extremes.items():
        _require_finite(case, f"for {name} embeddings", embeddings)


def _half_precision(case: _Case) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _require_finite(case, "under autocast to bfloat16", case.embeddings.float())


def _require_finite(case: _Case, when: str, embeddings: Tensor) -> None:
    """Output and gradients of a new module in training mode."""
    module = case.build().train()
    embeddings = embeddings.clone().requires_grad_()
    with _explained(f"{case.name}: forward and backward {when}"):
        output, loss = split_output(module(embeddings, case.ids))
        (output.float().sum() + (0.0 if loss is None else loss)).backward()  # type: ignore[no-untyped-call]
    case.require(bool(output.isfinite().all()), f"the output is not finite {when}")
    for name, leaf in (("the embeddings", embeddings), *module.named_parameters()):
        gradient = torch.zeros(()) if leaf.grad is None else leaf.grad
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        case.require(bool(values.isfinite().all()), f"the gradient of {name} is not finite {when}")


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
    # A new module has other weights, so that only what state_dict carries can make it equal.
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

        # Defaults bind this turn's objects; a closure would see the last turn's.
        def forward(module: Any = module, embeddings: Tensor = embeddings, found: list[Tensor] = found) -> None:
            output, loss = split_output(module(embeddings, case.ids.to("meta")))
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
    _field_order_as_declared,
    _shared,
    _gradients,
    _extreme_inputs,
    _half_precision,
    _copies,
    _fused_is_plain,
    _one_device,
)
POORER_CHECKS = tuple(check for check in CHECKS if check is not _gradients)
"""Layouts without the gradient check: with one field, attention or pair sums have no gradient."""
