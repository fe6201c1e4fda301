"""What every multi-task model must do; run ``check_model(MyModel)`` in the tests of a plug-in."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema, TaskSpec
from recbole_dtn.testing.data import make_settings, take_rows, tiny_features, tiny_schema
from recbole_dtn.testing.devices import check_one_device
from recbole_dtn.testing.direct import check_direct_fit

__all__ = ["check_model"]

ROWS = 48
DRAWS = 10
"""Training passes, each with random numbers of its own, in one of which every parameter must have a gradient."""
OVERFITTED = 32
"""Rows that a model has to learn by heart."""
STEPS = 100
"""Of Adam, at most; the slowest built-in needs 50."""


def check_model(model: str | type[MultiTaskRecommender], **settings: Any) -> None:
    """Check a model against its contract, on fields of every kind and one, two and four tasks.

    Shapes and finite values (a batch of one row included); a gradient for every parameter (of a model that draws random
    numbers in training, in one of ten passes); gates that are weights and have names; factors of known tasks; a shared
    representation that every task reads; rows that do not depend on each other, nor on labels or row numbers; the same
    output twice in evaluation, and twice in training with one seed of torch; a state that can be saved and loaded;
    sparse gradients equal to dense ones; losses that ignore labels which are not observed; logits and gradients under
    bfloat16 autocast; the same numbers with ``fused: false``; a training step on torch's ``meta`` device, where a
    tensor made on another device is an error; 32 rows learned by heart; tasks of a kind that the model does not take,
    domains that are missing and training batches below ``min_batch_rows`` refused. A model without gradients
    (``has_gradients``) is checked without those of the list that need them. One that ``fits_directly`` is fitted: see
    :func:`recbole_dtn.testing.direct.check_direct_fit`.

    Args:
        model: a registered name, or the class. settings: its own settings, to check them too.

    Raises:
        AssertionError: with what was expected and found.

    >>> check_model("SharedBottom", bottom_hidden=[8], tower_hidden=[])
    """
    # A small width for speed, and embeddings large enough for every term to matter.
    chosen = {"embedding_size": 4, "embedding_std": 0.5, **settings}
    cls: type[MultiTaskRecommender] = MODELS.load(model) if isinstance(model, str) else model
    settings_of = partial(make_settings, model)
    build = partial(_build, cls, settings_of(**chosen))
    build_plain = partial(_build, cls, settings_of(**{**chosen, "fused": False}))
    domains = 3 if cls.needs_domain else 0
    for tasks in (each for each in (2, 1, 4) if each >= cls.min_tasks):
        schema = tiny_schema(tasks=tasks, weighted=tasks == 4, domains=domains or (3 if tasks == 4 else 0))
        built = build(schema, seed=tasks)
        features = tiny_features(schema, ROWS, seed=tasks, masked=True)
        _check_output(built, features)
        if not cls.has_gradients:
            continue
        _check_gradients(built, features)
        _check_rows(built, features)
        _check_state(built, build(schema, seed=tasks + 100), features)
        _check_sparse(built, features)
        _check_masks(built, features)
        _check_mixed_precision(built, features)
        _check_fused(built, build_plain(schema, seed=tasks), features)
        _check_device(built, features)
    # Ids alone (the short way of EmbeddingTable), and few ids among other kinds.
    for kinds in ({"multi": (), "dense": 0}, {"tokens": 2, "multi": ("sum",), "dense": 2}):
        schema = tiny_schema(domains=domains, **kinds)  # type: ignore[arg-type]
        _check_output(build(schema, seed=7), tiny_features(schema, ROWS))
    _check_tasks(cls, build, domains)
    if cls.has_gradients:
        schema = tiny_schema(tasks=max(2, cls.min_tasks), domains=domains)
        undropped = settings_of(**{**chosen, "dropout": 0.0})
        _check_overfits(partial(_build, cls, undropped, schema), tiny_features(schema, OVERFITTED, seed=10))
    if cls.fits_directly:
        named = [TaskSpec("seconds", "regression", "seconds")] if "regression" in cls.task_kinds else []
        mixed = [*tiny_schema(tasks=max(1, cls.min_tasks)).tasks, *named]
        check_direct_fit(partial(build, tiny_schema(tasks=mixed, weighted=True, domains=domains), seed=9))


def _build(
    cls: type[MultiTaskRecommender], settings: Settings, schema: DataSchema, *, seed: int
) -> MultiTaskRecommender:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(settings, schema)


def _check_output(model: MultiTaskRecommender, features: Features) -> None:
    names = model.schema.task_names
    for batch in (features, take_rows(features, [3])):
        for training in (True, False):
            if training and len(batch) < model.min_batch_rows:
                _check_small_batch(model, batch)
                continue
            output: ModelOutput = model.train(training)(batch)
            shape = (len(batch), len(names))
            assert output.logits.shape == shape, f"logits have shape {tuple(output.logits.shape)}, expected {shape}"
            assert output.logits.isfinite().all(), f"logits are not finite in a batch of {len(batch)}"
            for name, loss in output.auxiliary.items():
                assert loss.dim() == 0, f"auxiliary loss {name!r} must be a scalar, has shape {tuple(loss.shape)}"
                assert loss.isfinite(), f"auxiliary loss {name!r} is {loss.item()}"
            _check_gates(model, output, len(batch))
            _check_factors(model, output, len(batch))
            _check_shared(model, output, len(batch))


def _check_small_batch(model: MultiTaskRecommender, batch: Features) -> None:
    told = ""
    try:
        model.train()(batch)
    except UsageError as error:
        told = str(error)
    rows = f"{model.min_batch_rows} rows"
    assert "train_batch_size" in told and rows in told, (  # noqa: PT018
        f"a training batch of {len(batch)} rows must be refused with train_batch_size and {rows!r}; found {told!r}"
    )


def _check_gates(model: MultiTaskRecommender, output: ModelOutput, rows: int) -> None:
    unknown = set(output.gates) - set(model.schema.task_names)
    assert not unknown, f"gates: {sorted(unknown)} are not tasks"
    assert set(output.gates) == set(model.gate_names), (
        f"gates of {sorted(output.gates)}, but gate_names of {sorted(model.gate_names)}"
    )
    for task, weights in output.gates.items():
        names = model.gate_names[task]
        assert weights.shape == (rows, len(names)), f"gates of {task!r}: {tuple(weights.shape)} for {len(names)} names"
        assert len(set(names)) == len(names), f"gate_names of {task!r} repeat: {names}"
        assert all(name.count("/") == 1 for name in names), f"gate_names of {task!r} are not owner/module: {names}"
        sums = weights.detach().sum(1)
        # A task may have several softmax groups (DTN has two): the sum is their number, the same in every row.
        groups = sums.round()
        assert (weights >= 0).all(), f"gates of {task!r} are negative somewhere"
        assert (groups >= 1).all(), f"gates of {task!r} sum to {sums.min().item():.4g}"
        assert (groups == groups[0]).all(), f"gates of {task!r} sum to {sums.min():.4g} and to {sums.max():.4g}"
        assert torch.allclose(sums, groups, atol=1e-5), (
            f"gates of {task!r} must sum to a whole number (1 per softmax), sum to {sums[0].item():.6g}"
        )


def _check_factors(model: MultiTaskRecommender, output: ModelOutput, rows: int) -> None:
    for name, factor in output.factors.items():
        for task in (factor.label, factor.observed_by):
            assert task in model.schema.task_names, f"factor {name!r}: {task!r} is not a task"
        shape = tuple(factor.logit.shape)
        assert shape == (rows,), f"factor {name!r}: its logit has shape {shape}, expected ({rows},)"
        assert factor.logit.isfinite().all(), f"factor {name!r} is not finite"


def _check_shared(model: MultiTaskRecommender, output: ModelOutput, rows: int) -> None:
    if output.shared is None:
        return
    shape = tuple(output.shared.shape)
    assert len(shape) == 2, f"shared has shape {shape}, expected ({rows}, H)"
    assert shape[0] == rows, f"shared has shape {shape}, expected ({rows}, H)"
    for name, logits in zip(model.schema.task_names, output.logits.unbind(1), strict=True):
        (gradient,) = torch.autograd.grad(logits.sum(), output.shared, retain_graph=True, allow_unused=True)
        assert gradient is not None, f"task {name!r} does not read `shared`: a balancer would get no gradient of it"


def _trained(model: MultiTaskRecommender, features: Features, seed: int = 0) -> ModelOutput:
    """A training pass; a model that draws random numbers (gates, dropout) draws the same ones for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: ModelOutput = model.train()(features)
    return output


def _gradients(model: MultiTaskRecommender, features: Features, seed: int = 0) -> dict[str, Tensor]:
    model.zero_grad()
    output = _trained(model, features, seed)
    loss = torch.stack([*model.task_losses(features, output), *output.auxiliary.values()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _check_gradients(model: MultiTaskRecommender, features: Features) -> None:
    gradients = _gradients(model, features)
    for name, parameter in model.named_parameters():
        assert name in gradients or not parameter.requires_grad, f"{name} gets no gradient: DDP would fail on it"
    zero = {name for name, gradient in gradients.items() if gradient.numel()}
    for seed in range(DRAWS):
        # A random gate that is shut hides what it is in front of, and where it is at a bound it hides its parameter.
        for name, gradient in (gradients if seed == 0 else _gradients(model, features, seed)).items():
            assert gradient.isfinite().all(), f"the gradient of {name} is not finite"
            if gradient.numel() and gradient.abs().max() > 0:
                zero.discard(name)
        if not zero:
            return
    raise AssertionError(f"the gradient of {min(zero)} is zero everywhere: nothing reads it")


def _check_rows(model: MultiTaskRecommender, features: Features) -> None:
    with torch.no_grad():
        # Copies, since a training pass may move running means that the next one reads.
        first, second = (_trained(copy.deepcopy(model), features).logits for _ in range(2))
        assert torch.equal(first, second), "two training passes with one seed differ: draw from torch's generator"
        model.eval()
        whole = model(features).logits
        assert torch.equal(whole, model(features).logits), "two passes in evaluation differ"
        rows = [5, 2, 11]
        part = model(take_rows(features, rows)).logits
        assert torch.allclose(part, whole[rows], atol=1e-5), "a row's logits depend on the other rows of its batch"
        # As at serving time, where there are no labels.
        blind = replace(
            features, labels=torch.empty(0, 0), observed=torch.empty(0, 0, dtype=torch.bool), row=None, group=None
        )
        assert torch.equal(whole, model(blind).logits), "logits depend on labels, row numbers or groups"


def _check_state(model: MultiTaskRecommender, other: MultiTaskRecommender, features: Features) -> None:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        before = other.eval()(features).logits
        wanted = model.eval()(features).logits
        assert not torch.equal(before, wanted), "another seed gives the same logits: weights are not random"
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(features).logits, wanted), "a saved and loaded state gives other logits"


def _check_sparse(model: MultiTaskRecommender, features: Features) -> None:
    if model.settings.dropout > 0:
        return
    dense = _gradients(model, features)
    model.set_sparse(True)
    sparse = _gradients(model, features)
    model.set_sparse(False)
    model.zero_grad()
    tables = {id(table.weight) for table in model.tables()}
    for name, parameter in model.named_parameters():
        if id(parameter) in tables:
            assert sparse[name].is_sparse, f"{name} has a dense gradient after set_sparse(True)"
            assert torch.allclose(sparse[name].to_dense(), dense[name], atol=1e-6), f"{name}: sparse gradient differs"


def _check_masks(model: MultiTaskRecommender, features: Features) -> None:
    model.eval()
    output: ModelOutput = model(features)
    losses = model.task_losses(features, output)
    assert losses.shape == (model.schema.num_tasks,), f"task losses have shape {tuple(losses.shape)}"
    # Another value than the NaN that the batch has there.
    changed = replace(features, labels=torch.where(features.observed, features.labels, 1e6))
    assert torch.equal(losses, model.task_losses(changed, output)), "a label that is not observed changes the loss"
    # Of all tasks: the penalties of tables are not part of these losses.
    nothing = replace(features, observed=torch.zeros_like(features.observed))
    model.zero_grad()
    empty = model.task_losses(nothing, model(nothing))
    assert (empty == 0).all(), f"the loss over nothing is {empty.tolist()}, expected 0"
    empty.sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        quiet = parameter.grad is None or (parameter.grad == 0).all()
        assert quiet, f"the loss over nothing sends a gradient to {name}"


def _check_mixed_precision(model: MultiTaskRecommender, features: Features) -> None:
    model.eval().zero_grad()
    # bfloat16 has 8 bits: 0.4 % per number, and sums of such; more than a tenth is a wrong type or term.
    exact = model(features).logits.detach()
    with torch.autocast("cpu", torch.bfloat16):
        output: ModelOutput = model(features)
        loss = model.task_losses(features, output).sum()
    error = (output.logits.detach().float() - exact).abs().max().item() / max(1.0, exact.abs().max().item())
    assert error < 0.1, f"under bfloat16 autocast the logits are off by {error:.3g}"
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"bfloat16: gradient of {name} is not finite"
    model.zero_grad()


def _check_fused(model: MultiTaskRecommender, plain: MultiTaskRecommender, features: Features) -> None:
    left = [name for name, part in plain.named_modules() if isinstance(part, Fusible) and part.fused]
    assert not left, f"with fused: false these parts stay fused: {left[:3]}"
    if model.settings.dropout > 0:
        return
    # The plain path is the oracle, with the same weights.
    plain.load_state_dict(model.state_dict())
    expected = _gradients(plain, features)
    found = _gradients(model, features)
    ours, theirs = (_trained(each, features).logits for each in (model, plain))
    assert torch.allclose(ours, theirs, atol=1e-5), "fused and plain logits differ"
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), f"{name}: the fused gradient is not the plain one"


def _check_device(model: MultiTaskRecommender, features: Features) -> None:
    elsewhere = copy.deepcopy(model).to("meta")

    def step() -> None:
        for name, gradient in _gradients(elsewhere, features.to("meta")).items():
            assert gradient.is_meta, f"the gradient of {name} is on {gradient.device}, its parameter on meta"

    check_one_device("a training step", step)


def _check_overfits(build: Callable[..., MultiTaskRecommender], features: Features) -> None:
    # Nested labels, as chained tasks have them: no positive after a negative.
    features = replace(features, labels=features.labels.cumprod(1))
    fewest = features.labels.numel()
    # Of a narrow ReLU layer too many units may start at zero: other weights are tried.
    for seed in (10, 11, 12):
        fewest = min(fewest, _wrong_labels(build(seed=seed), features))
        if fewest == 0:
            return
    raise AssertionError(
        f"after {STEPS} steps {fewest} of {features.labels.numel()} labels of {len(features)} rows are still predicted "
        "wrong: the model cannot fit what it is trained on"
    )


def _wrong_labels(model: MultiTaskRecommender, features: Features) -> int:
    """How many labels of its training rows a trained model predicts wrong."""
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.03)
    for step in range(STEPS + 1):
        model.zero_grad()
        output: ModelOutput = model(features)
        wrong = int(((output.logits > 0) != (features.labels > 0.5)).sum())
        if not wrong or step == STEPS:
            break
        losses = [*model.task_losses(features, output), *output.auxiliary.values()]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return wrong


def _check_tasks(cls: type[MultiTaskRecommender], build: Callable[..., MultiTaskRecommender], domains: int) -> None:
    number = TaskSpec("seconds", "regression", "seconds")
    schema = tiny_schema(tasks=[*tiny_schema(tasks=max(1, cls.min_tasks)).tasks, number], domains=domains)
    if "regression" in cls.task_kinds:
        built, features = build(schema, seed=8), tiny_features(schema, ROWS)
        _check_output(built, features)
        if cls.has_gradients:
            _check_gradients(built, features)
    else:
        _check_refused(build, schema, ["seconds", cls.__name__])
    if cls.min_tasks > 1:
        _check_refused(build, tiny_schema(tasks=cls.min_tasks - 1, domains=domains), [cls.__name__])
    if cls.needs_domain:
        _check_refused(build, tiny_schema(tasks=max(2, cls.min_tasks)), ["domain_field", cls.__name__])


def _check_refused(build: Callable[..., MultiTaskRecommender], schema: DataSchema, named: list[str]) -> None:
    told = ""
    try:
        build(schema, seed=9)
    except UsageError as error:
        told = str(error)
    assert told, f"{named[-1]} was built for a data set that it says it does not take"
    missing = [word for word in named if word not in told]
    assert not missing, f"the refusal does not name {missing}: {told}"
