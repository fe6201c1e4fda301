"""Small schemas, batches and settings for tests, of this project and of plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import FIRST_TOKEN, DataSchema, FieldSpec, TaskSpec

__all__ = ["make_settings", "take_rows", "tiny_features", "tiny_schema"]


def tiny_schema(
    *,
    tokens: int = 3,
    multi: Sequence[str] = ("sum", "mean"),
    weighted: bool = False,
    dense: int = 1,
    tasks: int | Sequence[TaskSpec] = 2,
    vocabulary: int = 6,
    domains: int = 0,
    zero_unknown: Sequence[int] = (),
) -> DataSchema:
    """A schema with every kind of field, the kinds mixed in order.

    Args:
        tokens: single-valued fields. multi: the pooling of each multi-valued field. weighted: whether those have
            weights. dense: continuous fields.
        tasks: how many binary tasks, each after the one before, named ``click``, ``cart``, ``buy``, ``return``, then
            ``task4``, ...; or the tasks themselves.
        vocabulary: tokens of the first id field; each further one has one more.
        domains: how many domains the rows come from; 0: no domain field.
        zero_unknown: positions of the fields whose unknown row starts at zero.

    >>> schema = tiny_schema()
    >>> [(spec.name, spec.size, spec.offset) for spec in schema.fields]
    [('t0', 8, 0), ('m0', 9, 8), ('d0', 2, 17), ('t1', 10, 19), ('m1', 11, 29), ('t2', 12, 40)]
    """
    kinds: list[tuple[str, str]] = []
    # The kinds take turns, so that no kind is a contiguous stretch of the fields.
    for turn in range(max(tokens, len(multi), dense)):
        kinds += [("token", f"t{turn}")] if turn < tokens else []
        kinds += [("token_seq", f"m{turn}")] if turn < len(multi) else []
        kinds += [("float", f"d{turn}")] if turn < dense else []
    fields: list[FieldSpec] = []
    offset = 0
    for kind, name in kinds:
        known = sum(spec.kind != "float" for spec in fields)
        # Each field has another size: a mixed-up offset then reads another row or none.
        size = 2 if kind == "float" else FIRST_TOKEN + vocabulary + known
        if kind == "token_seq":
            pooling = multi[int(name[1:])]
            weights = f"{name}_weight" if weighted else None
            fields.append(FieldSpec(name, "token_seq", size, offset, "sum" if pooling == "sum" else "mean", weights))
        else:
            fields.append(FieldSpec(name, "token" if kind == "token" else "float", size, offset))
        offset += size
    return DataSchema(tuple(fields), _tasks(tasks), domains, extra={"zero_unknown": list(zero_unknown)})


def _tasks(tasks: int | Sequence[TaskSpec]) -> tuple[TaskSpec, ...]:
    if not isinstance(tasks, int):
        return tuple(tasks)
    names = ["click", "cart", "buy", "return", *(f"task{number}" for number in range(4, tasks))][:tasks]
    return tuple(
        TaskSpec(name, "binary", f"{name}_label", after=(names[number - 1],) if number else ())
        for number, name in enumerate(names)
    )


def tiny_features(
    schema: DataSchema, rows: int, *, seed: int = 0, masked: bool = False, sample_weight: bool = False
) -> Features:
    """A random batch that fits ``schema``: absent and unknown ids, empty lists and missing numbers included.

    It has a domain per row where the schema has domains.

    Args:
        schema: fields and tasks. rows: B. seed: of the draw.
        masked: leave about a third of the labels unobserved; their values are then NaN.
        sample_weight: draw weights in [0.5, 1.5].
    """
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw)

    ids = torch.full((rows, schema.num_fields), -1, dtype=torch.int64)
    for position in schema.id_fields:
        spec = schema.fields[position]
        ids[:, position] = spec.offset + torch.randint(spec.size, (rows,), generator=draw)
    multi: dict[int, MultiValued] = {}
    for position in schema.multi_fields:
        spec = schema.fields[position]
        lengths = torch.randint(4, (rows,), generator=draw)
        # From 1: a list holds no absent value, as an absent list is empty.
        values = spec.offset + torch.randint(1, spec.size, (int(lengths.sum()),), generator=draw)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        multi[position] = MultiValued(values, offsets, uniform(len(values)) + 0.5 if spec.weights else None)
    dense = torch.randn(rows, len(schema.dense_fields), generator=draw)
    # NaN: a quarter of the numbers is absent.
    dense[uniform(*dense.shape) < 0.25] = float("nan")
    labels = torch.stack(
        [
            torch.randn(rows, generator=draw) if task.kind == "regression" else (uniform(rows) < 0.5).float()
            for task in schema.tasks
        ],
        dim=1,
    )
    # Without ``masked`` every number is above -1: all are observed.
    observed = uniform(*labels.shape) > (1 / 3 if masked else -1.0)
    return Features(
        ids=ids,
        multi=multi,
        dense=dense,
        labels=torch.where(observed, labels, float("nan")),
        observed=observed,
        sample_weight=uniform(rows) + 0.5 if sample_weight else None,
        domain=torch.randint(schema.num_domains, (rows,), generator=draw) if schema.num_domains else None,
        row=torch.arange(rows),
    )


def take_rows(features: Features, rows: Sequence[int]) -> Features:
    """The rows of a batch at the given places, in that order."""
    index = torch.tensor(rows, dtype=torch.int64)

    def take(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[index]

    multi = {}
    for position, many in features.multi.items():
        # Places of each chosen row's values; their lengths give the new offsets.
        pieces = [torch.arange(int(many.offsets[row]), int(many.offsets[row + 1])) for row in rows]
        lengths = torch.tensor([0, *(len(piece) for piece in pieces)])
        places = torch.cat(pieces)
        weights = None if many.weights is None else many.weights[places]
        multi[position] = MultiValued(many.values[places], lengths.cumsum(0), weights)
    return Features(
        ids=features.ids[index],
        multi=multi,
        dense=features.dense[index],
        labels=features.labels[index],
        observed=features.observed[index],
        sample_weight=take(features.sample_weight),
        domain=take(features.domain),
        group=take(features.group),
        row=take(features.row),
    )


PLAIN = {"dropout": 0.0, "embedding_l2": 0.0, "codebook_l2": 0.0}
"""Dropout and penalties off, since no equation that is checked has them."""


def make_settings(model: str | type[Any], **overrides: Any) -> Settings:
    """Typed settings of a model: the shipped defaults, dropout and penalties off, and ``overrides``.

    An override replaces the whole value of a top-level key. What depends on a data set (such as the names in
    ``task_chain``) is not checked here. A model that needs a domain field is given one named ``domain``.

    Args:
        model: a registered name, or a class, whose ``settings_class`` then has a default for each key of its own.

    Raises:
        pydantic.ValidationError: for an unknown key or a wrong value.

    >>> make_settings("MMoE", experts=3).experts
    3
    """
    if isinstance(model, str):
        needed = {"domain_field": "domain"} if MODELS.attributes(model).get("needs_domain") else {}
        defaults = resolve({"model": model, **needed}).settings
        return type(defaults).model_validate({**defaults.model_dump(), **PLAIN, **overrides})
    # A class that is not registered has no shipped settings: the shared ones come from any registered model.
    shared = resolve({"model": "SharedBottom"}).settings.model_dump(include=set(Settings.model_fields))
    kind: type[Settings] = model.settings_class or Settings
    return kind.model_validate({**shared, **PLAIN, "model": model.__name__, **overrides})
