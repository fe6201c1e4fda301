"""Parameters and FLOPs of a method at one stated size, as the index holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_dtn.balancer.base import LossBalancer
from recbole_dtn.cli.details import FIELDS, OUTPUT, TASKS, VALUES, WIDTH
from recbole_dtn.config.choice import keyword_options
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.sizes import forward_flops, meta_batch, meta_model
from recbole_dtn.registry import BALANCERS, INTERACTIONS, MODELS, Registry
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import make_settings

__all__ = ["measured"]

ROWS = 64
DOMAINS = 3


def measured(registry: Registry, name: str) -> dict[str, int] | None:
    """Sizes of a registered method with its default options, from its plain implementation.

    ``parameters`` without those of tables, ``tables`` (a model's embeddings and codebooks), and ``flops`` of a forward
    pass per row, as :func:`~recbole_dtn.model.sizes.forward_flops` counts them.

    Returns:
        None for a kind that has no such sizes, a method with an option that has no default, one that a solver fits,
        and one that does not take data of this size.
    """
    makers: dict[Registry, Any] = {INTERACTIONS: _interaction, MODELS: _model, BALANCERS: _balancer}
    if registry not in makers:
        return None
    method = registry.load(name)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(2020)
            sizes: dict[str, int] | None = makers[registry](method, name)
    except UsageError:
        return None
    return sizes


def _interaction(method: type[FeatureInteraction], name: str) -> dict[str, int] | None:
    if _needs_options(method):
        return None
    shape = FieldShape(FIELDS, WIDTH, tuple(range(FIELDS)), (VALUES,) * FIELDS)
    module = set_fused(method(shape, OUTPUT), False).eval()
    embeddings = torch.randn(ROWS, FIELDS, WIDTH)
    return {"parameters": _count(module), "flops": forward_flops(module, embeddings, _ids(), rows=ROWS)}


def _model(method: type[MultiTaskRecommender], name: str) -> dict[str, int] | None:
    if method.fits_directly:
        return None
    fields = tuple(FieldSpec(f"field{place}", "token", VALUES, VALUES * place) for place in range(FIELDS))
    names = ("click", "buy", *(f"task{place}" for place in range(TASKS, method.min_tasks)))
    after = [(), *((before,) for before in names)]
    tasks = tuple(TaskSpec(name, "binary", name, after=before) for name, before in zip(names, after, strict=False))
    schema = DataSchema(fields, tasks, DOMAINS if method.needs_domain else 0)
    model = meta_model(make_settings(name, embedding_size=WIDTH), schema)
    counts = model.count_parameters()
    return {
        "parameters": counts["dense"],
        "tables": counts["embedding"] + counts["codebook"],
        "flops": forward_flops(model, meta_batch(schema, ROWS), rows=ROWS),
    }


def _balancer(method: type[LossBalancer], name: str) -> dict[str, int] | None:
    if _needs_options(method):
        return None
    return {"parameters": _count(method([TaskSpec(task, "binary", task) for task in ("click", "buy")]))}


def _needs_options(method: type[Any]) -> bool:
    return any(info.is_required() for info in keyword_options(method).model_fields.values())


def _ids() -> Tensor:
    return torch.randint(VALUES, (ROWS, FIELDS)) + VALUES * torch.arange(FIELDS)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
