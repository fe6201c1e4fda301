"""Uncertainty weighting against numpy: sum_t L_t / (c e^s_t) + s_t / 2."""

from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.balancer.uncertainty import Uncertainty

Array = Any


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize(("form", "factors"), [("auto", [1.0, 0.5, 1.0]), ("half", [0.5] * 3), ("whole", [1.0] * 3)])
def test_weights_and_log_variances_over_steps(
    form: str, factors: list[float], tasks: int, balanced: Any, numpy_adam: Any
) -> None:
    run = balanced(tasks)
    kinds = ["binary", "regression", "binary"][:tasks]
    balancer = Uncertainty(run.specs(kinds), form=form, init=-0.5, lr=0.05).double()  # type: ignore[arg-type]
    assert balancer.lr == 0.05
    own = torch.optim.Adam(balancer.parameters(), lr=0.05)
    adam, spread, factor = numpy_adam(0.05), np.full(tasks, -0.5), np.array(factors[:tasks])

    def reference(index: int, losses: Array, gradients: Array) -> tuple[Array, Array]:
        nonlocal spread
        weights = factor * np.exp(-spread)
        spread = adam.step(spread, -weights * losses + 0.5)
        return weights, weights

    for _ in range(6):
        run.check(balancer, reference, own)
        np.testing.assert_allclose(balancer.log_variance.detach().numpy(), spread, rtol=1e-9)
    assert np.abs(spread + 0.5).min() > 0.1
