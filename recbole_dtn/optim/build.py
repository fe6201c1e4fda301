"""From a model and its settings to the optimiser of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.config.settings import Settings
from recbole_dtn.layers.backends import FbgemmTable
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.optim.combined import DECAY, CombinedOptimizer
from recbole_dtn.optim.fbgemm import FbgemmOptimizer
from recbole_dtn.optim.lazy import LazyAdam
from recbole_dtn.optim.rowwise import SGD, Adagrad, RowwiseAdagrad

__all__ = ["build_optimizer", "decays", "sparse_gradients"]


def sparse_gradients(settings: Settings) -> bool:
    """Whether tables are to produce sparse gradients: under every ``embedding_optimizer`` but the dense ``adam``.

    DDP reads this from a table when it wraps the model, before Lightning configures the optimisers.
    ``TrainingModule.__init__`` therefore calls ``model.set_sparse(sparse_gradients(settings))``.
    """
    return settings.embedding_optimizer.name != "adam"


def build_optimizer(
    model: MultiTaskRecommender,
    settings: Settings,
    balancer: Sequence[nn.Parameter] = (),
    balancer_lr: float | None = None,
) -> CombinedOptimizer:
    """Dense parameters by ``optimizer``, tables and codebooks by ``embedding_optimizer``.

    ``weight_decay`` is decoupled and applies to dense weights that :func:`decays` names; ``adam`` and ``adamw`` are
    therefore the same here. Tables never decay: ``embedding_l2`` is for them. ``embedding_optimizer.name: adam`` is
    ``torch.optim.Adam`` over the whole table, as RecBole's own trainer has it, bit for bit. Also calls
    ``model.set_sparse`` (:func:`sparse_gradients`).

    Args:
        model: the model. settings: of the run.
        balancer: parameters that a loss balancer learns, for an Adam of their own as the last part.
        balancer_lr: its learning rate; None for that of ``optimizer``. They do not decay.
    """
    # By identity, each once: modules may share a table.
    tables = list({id(table.weight): table.weight for table in model.tables() if table.weight.requires_grad}.values())
    held = {id(weight) for weight in tables}
    # Again, for callers without a trainer.
    model.set_sparse(sparse_gradients(settings))

    groups = _dense_groups(model, settings, held)

    parts: list[torch.optim.Optimizer] = []
    if groups:
        parts.append(_dense(groups, settings, exact=not sparse_gradients(settings)))
    looked_up = {id(table.weight) for table in model.tables() if isinstance(table, FbgemmTable)}
    for by_fbgemm in (True, False):
        chosen = [weight for weight in tables if (id(weight) in looked_up) == by_fbgemm]
        if chosen:
            parts.append(_tables(chosen, settings, by_fbgemm=by_fbgemm))
    # The last part: TrainingModule.update_balancer steps ``parts[-1]`` alone.
    if balancer:
        shared = settings.optimizer
        lr = shared.lr if balancer_lr is None else balancer_lr
        parts.append(torch.optim.Adam(balancer, lr=lr, betas=shared.betas, eps=shared.eps, foreach=True))
    return CombinedOptimizer(parts)


def _dense_groups(model: MultiTaskRecommender, settings: Settings, tables: set[int]) -> list[dict[str, Any]]:
    """Groups of dense parameters by learning rate, and in each first those that decay. ``tables``: ids of the rest."""
    factors = model.learning_rates()
    for parameter, factor in factors.items():
        if id(parameter) in tables or not 0.0 < factor < math.inf:
            shape = tuple(parameter.shape)
            raise ValueError(
                f"{type(model).__name__}.learning_rates: expected a factor above 0 for dense parameters; found "
                f"{factor} for {'a table' if id(parameter) in tables else 'a parameter'} of shape {shape}"
            )
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    # In the model's order, and factor 1 first: a saved optimiser state numbers parameters by it.
    for factor in dict.fromkeys([1.0, *factors.values()]):
        found |= {(factor, True): [], (factor, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in tables:
            found[factors.get(parameter, 1.0), decays(model, name)].append(parameter)
    return [
        {"params": parameters, DECAY: settings.weight_decay if decayed else 0.0}
        # Without a rate of its own a group takes the optimiser's.
        | ({} if factor == 1.0 else {"lr": factor * settings.optimizer.lr})
        for (factor, decayed), parameters in found.items()
        if parameters
    ]


def decays(model: nn.Module, name: str) -> bool:
    """Whether the dense parameter ``name`` of ``model`` is a weight that decays: no bias, no vector, no norm's.

    Nor does one of a module with a false attribute ``decays``, such as the log alpha of random gates, whose 0 means
    half open.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm((2, 2)))
    >>> [name for name, _ in model.named_parameters() if decays(model, name)]
    ['0.weight']
    """
    path = name.split(".")
    owner = model.get_submodule(".".join(path[:-1]))
    named_bias = any(part.startswith("bias") for part in path)  # also in lists: experts.biases.0 is (K, 1, H)
    if not getattr(owner, "decays", True):
        return False
    return not (named_bias or model.get_parameter(name).ndim < 2 or type(owner).__name__.endswith("Norm"))


def _dense(groups: list[dict[str, Any]], settings: Settings, *, exact: bool) -> torch.optim.Optimizer:
    options = settings.optimizer
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, foreach=True)
    if options.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=options.lr, eps=options.eps, foreach=True)
    # ``torch.optim.Adam(fused=True)`` over a model's hundreds of small parameters is 7 times as fast on a CPU as one
    # update after another. It rounds the last bit differently, so the setting that reproduces RecBole's trainer goes
    # without.
    has_kernel = {group["params"][0].device.type for group in groups} <= {"cpu", "cuda"}
    how = {"fused": True} if has_kernel and not exact else {"foreach": True}
    return torch.optim.Adam(groups, lr=options.lr, betas=options.betas, eps=options.eps, **how)


def _tables(tables: list[Tensor], settings: Settings, *, by_fbgemm: bool) -> torch.optim.Optimizer:
    shared, name = settings.optimizer, settings.embedding_optimizer.name
    lr = shared.lr if settings.embedding_optimizer.lr is None else settings.embedding_optimizer.lr
    if by_fbgemm:
        return FbgemmOptimizer(tables, name, lr=lr, eps=shared.eps)
    if name == "adam":
        return torch.optim.Adam(tables, lr=lr, betas=shared.betas, eps=shared.eps, foreach=True)
    if name == "lazy_adam":
        return LazyAdam(tables, lr=lr, betas=shared.betas, eps=shared.eps)
    if name == "rowwise_adagrad":
        return RowwiseAdagrad(tables, lr=lr, eps=shared.eps)
    if name == "adagrad":
        return Adagrad(tables, lr=lr, eps=shared.eps)
    return SGD(tables, lr=lr)
