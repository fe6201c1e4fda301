"""Hold a torch model against its equation written again in numpy: outputs, and gradients by the complex step.

The derivative of a real function is ``Im f(p + i h v) / h`` for a tiny h, exact to rounding (no difference is taken,
so nothing cancels): a reference in numpy gives gradients good to 1e-14, if all it does is defined for complex numbers.
The functions here are; ``x.real`` inside a reference is a stopped gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from recbole_dtn.data.features import Features
from recbole_dtn.layers import dropout as package_dropout
from recbole_dtn.schema import DataSchema

__all__ = [
    "Array",
    "Reference",
    "assert_close",
    "check_reference",
    "embed",
    "experts_of",
    "gate_of",
    "mlp",
    "parameters_of",
    "recorded_dropout",
    "redraw",
    "relu",
    "sigmoid",
    "softmax",
    "tower_of",
]

Array: TypeAlias = np.ndarray[Any, Any]
Reference: TypeAlias = Callable[[Mapping[str, Array]], Array]

# Far below the rounding of the real part, which it therefore leaves unchanged.
STEP = 1e-30


def relu(x: Array) -> Array:
    """max(x, 0)."""
    # Decided by the real part, which is the number itself; the imaginary part is its derivative.
    return np.where(x.real > 0, x, 0)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    result: Array = 1 / (1 + np.exp(-x))
    return result


def softmax(x: Array) -> Array:
    """Over the last axis."""
    # Shifted by a real number: the shift is a constant and has no derivative.
    powers = np.exp(x - x.real.max(-1, keepdims=True))
    result: Array = powers / powers.sum(-1, keepdims=True)
    return result


def mlp(parameters: Mapping[str, Array], prefix: str, x: Array, masks: Iterator[Array] | None = None) -> Array:
    """Linear and ReLU, and a dropout mask where there are any, for every ``<prefix>.<n>.weight`` in order of n."""
    # By number, as names would sort 10 before 2.
    numbers = sorted(int(key[len(prefix) + 1 : -7]) for key in parameters if _is_weight(key, prefix))
    for number in numbers:
        x = relu(x @ parameters[f"{prefix}.{number}.weight"].T + parameters[f"{prefix}.{number}.bias"])
        x = x if masks is None else x * next(masks)
    return x


def _is_weight(key: str, prefix: str) -> bool:
    return key.startswith(f"{prefix}.") and key.endswith(".weight") and key[len(prefix) + 1 : -7].isdigit()


def experts_of(p: Mapping[str, Array], prefix: str, x: Array, masks: Iterator[Array] | None = None) -> list[Array]:
    """Outputs (B, out) of one :class:`~recbole_dtn.layers.experts.Experts`, expert by expert; none without layers.

    A dropout mask is that of a layer of all experts, (K, B, out).
    """
    layers = sum(key.startswith(f"{prefix}.weights.") for key in p)
    count = len(p[f"{prefix}.weights.0"]) if layers else 0
    drops = [np.ones((count, 1, 1)) if masks is None else next(masks) for _ in range(layers)]
    outputs = []
    for k in range(count):
        h = x
        for layer in range(layers):
            h = relu(h @ p[f"{prefix}.weights.{layer}"][k] + p[f"{prefix}.biases.{layer}"][k, 0]) * drops[layer][k]
        outputs.append(h)
    return outputs


def gate_of(p: Mapping[str, Array], prefix: str, x: Array) -> Array:
    """Weights (B, K) of a gate: the softmax of a linear map, after hidden layers where it has any."""
    hidden = mlp(p, f"{prefix}.hidden.layers", x)
    return softmax(hidden @ p[f"{prefix}.linear.weight"].T + p.get(f"{prefix}.linear.bias", 0.0))


def tower_of(p: Mapping[str, Array], prefix: str, x: Array, masks: Iterator[Array] | None = None) -> Array:
    """Logits (B,) of a tower: hidden layers, then a linear map to one number."""
    hidden = mlp(p, f"{prefix}.hidden.layers", x, masks)
    logit: Array = hidden @ p[f"{prefix}.logit.weight"][0] + p[f"{prefix}.logit.bias"][0]
    return logit


def embed(table: Array, schema: DataSchema, features: Features) -> Array:
    """Embeddings (B, F, D) of a batch, row by row and field by field."""
    rows = [
        [_embed_one(table, schema, features, row, position) for position in range(schema.num_fields)]
        for row in range(len(features))
    ]
    return np.array(rows)


def _embed_one(table: Array, schema: DataSchema, features: Features, row: int, position: int) -> Array:
    spec = schema.fields[position]
    if spec.kind == "float" and not spec.bins:
        value = float(features.dense[row, schema.dense_fields.index(position)])
        absent: Array = table[spec.offset]
        return absent if np.isnan(value) else value * table[spec.offset + 1]
    if spec.kind != "token_seq":
        found: Array = table[int(features.ids[row, position])]
        return found
    many = features.multi[position]
    begin, end = int(many.offsets[row]), int(many.offsets[row + 1])
    weights = np.ones(end - begin) if many.weights is None else many.weights[begin:end].double().numpy()
    total = np.zeros(table.shape[1], dtype=table.dtype)
    for value, weight in zip(many.values[begin:end].tolist(), weights, strict=True):
        total = total + weight * table[value]
    mass = weights.sum() if spec.pooling == "mean" and weights.sum() != 0 else 1.0
    result: Array = total / mass
    return result


def redraw(model: nn.Module, *, seed: int = 0, gain: float = 1.5, table_std: float = 0.5) -> None:
    """Draw every parameter anew, large enough that gates leave uniform and biases matter.

    Tables get N(0, ``table_std``), matrices N(0, ``gain`` / sqrt(in)), the rest N(0, .5).
    """
    draw = torch.Generator().manual_seed(seed)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            std = 0.5
            if id(parameter) in tables:
                std = table_std
            elif parameter.dim() >= 2:
                # (out, in) of a linear map; (K, in, out) of experts, whose input is the last axis but one.
                std = gain / parameter.shape[-1 if parameter.dim() == 2 else -2] ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * std)


@contextmanager
def recorded_dropout() -> Iterator[list[Array]]:
    """Collect the mask (0 or 1 / (1 - p)) of every dropout applied inside, in order.

    >>> with recorded_dropout() as masks:
    ...     _ = nn.Dropout(0.5)(torch.ones(4, 3))
    >>> [mask.shape for mask in masks], set(masks[0].ravel()) <= {0.0, 2.0}
    ([(4, 3)], True)
    """
    masks: list[Array] = []
    places: tuple[Any, ...] = (torch.nn.functional, package_dropout)
    real = [place.dropout for place in places]

    def recording(drop: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
            # Drawn as for the input itself, so that the random numbers are those of a run without recording.
            before = len(masks)
            kept = drop(torch.ones_like(input), p, training)
            if len(masks) == before:  # the package's dropout may have called torch's, which was recorded
                masks.append(kept.detach().double().numpy())
            return input * kept

        return dropout

    for place, drop in zip(places, real, strict=True):
        place.dropout = recording(drop)
    try:
        yield masks
    finally:
        for place, drop in zip(places, real, strict=True):
            place.dropout = drop


def parameters_of(model: nn.Module) -> dict[str, Array]:
    """Every parameter by name, as float64."""
    return {name: parameter.detach().double().numpy().copy() for name, parameter in model.named_parameters()}


def assert_close(found: Tensor | Array, expected: Array, tolerance: float, what: str) -> None:
    """Largest absolute error over max(1, largest expected value)."""
    got = found.detach().double().numpy() if isinstance(found, Tensor) else found
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    error = float(np.abs(got - expected).max(initial=0.0)) / scale
    assert error <= tolerance, f"{what}: error {error:.3g} is above {tolerance:.3g}"


def check_reference(
    model: nn.Module, forward: Callable[[nn.Module], Tensor], reference: Reference, *, entries: int = 3, seed: int = 0
) -> None:
    """Outputs and gradients of ``model`` against ``reference``: 1e-10 at float64, 1e-5 at float32.

    The derivative of ``sum(c * output)``, c random, is compared along two random directions over all parameters
    together; then, unless ``entries`` is 0, for each parameter along a random direction over the whole tensor and at
    ``entries`` single entries (one anywhere, the others where there is a gradient).

    Args:
        model: turned to float64 here. forward: its output, given the model. reference: the same output from
            :func:`parameters_of` the model.
        entries: single entries per parameter, 0 for the quick check. seed: of the draws.

    Raises:
        AssertionError: naming what differs.
    """
    draw = np.random.default_rng(seed)
    model.double()
    before = copy.deepcopy(model)
    output = forward(model)
    values = parameters_of(model)
    expected = reference(values)
    assert_close(output, expected, 1e-10, "output, float64")
    factors = draw.normal(size=expected.shape)

    gradients = _gradients(model, output, factors)

    def compare(directions: Mapping[str, Array], what: str) -> None:
        # All of ``directions`` at once: the imaginary part of the output is the derivative along them.
        moved = {**values, **{name: values[name] + 1j * STEP * along for name, along in directions.items()}}
        slope = np.array((reference(moved).imag * factors).sum() / STEP)
        found = np.array(sum((gradients[name] * along).sum() for name, along in directions.items()))
        assert_close(found, slope, 1e-10, f"gradient of {what}, float64")

    for _ in range(2):
        compare({name: draw.normal(size=value.shape) for name, value in values.items()}, "all parameters together")
    for name, value in values.items() if entries else ():
        for along in (draw.normal(size=value.shape), *_unit_vectors(gradients[name], entries, draw)):
            compare({name: along}, name)

    single = before.float()
    output = forward(single)
    assert_close(output, expected, 1e-5, "output, float32")
    for name, gradient in _gradients(single, output, factors).items():
        assert_close(gradient, gradients[name], 1e-5, f"gradient of {name}, float32")


def _gradients(model: nn.Module, output: Tensor, factors: Array) -> dict[str, Array]:
    model.zero_grad()
    (output * torch.as_tensor(factors, dtype=output.dtype)).sum().backward()  # type: ignore[no-untyped-call]
    return {
        name: np.zeros(tuple(parameter.shape)) if parameter.grad is None else parameter.grad.double().numpy().copy()
        for name, parameter in model.named_parameters()
    }


def _unit_vectors(gradient: Array, entries: int, draw: np.random.Generator) -> list[Array]:
    flat = np.abs(gradient).ravel()
    # One entry anywhere, mostly with gradient 0 in a table; the others where the gradient is not 0.
    chosen = list(draw.integers(flat.size, size=1))
    moving = np.flatnonzero(flat)
    if moving.size:
        chosen += list(draw.choice(moving, size=entries - 1))
    vectors = []
    for entry in chosen[:entries]:
        vector = np.zeros(flat.size)
        vector[entry] = 1.0
        vectors.append(vector.reshape(gradient.shape))
    return vectors
