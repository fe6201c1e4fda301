"""RecBole's batches (ids of its own, padded sequences) as :class:`Features`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl
import torch
import torch.nn.functional as functional
from torch import Tensor

from recbole_dtn.config.conditions import parse_condition
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.condition import to_expression
from recbole_dtn.data.features import Features, MultiValued
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.schema import ABSENT, FIRST_TOKEN, DataSchema, FieldSpec

__all__ = ["Batch", "Translator", "observed_rows", "plain_float"]


class Batch(Protocol):
    """What the translator reads of a batch; RecBole's Interaction has it."""

    @property
    def columns(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: str) -> bool: ...
    def __getitem__(self, name: str) -> Tensor: ...


class Translator:
    """Encodes RecBole's batches with the vocabularies of the training split.

    Args:
        settings, schema, vocabularies: what the model is built from.
        tokens: for each field with ids, and for the domain's and the group's column, the token of each of RecBole's
            ids; its id 0 is padding, or absent.
        label_columns: for each task, the column that holds its label.
    """

    def __init__(
        self,
        settings: Settings,
        schema: DataSchema,
        vocabularies: Vocabularies,
        *,
        tokens: Mapping[str, Sequence[str]],
        label_columns: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.label_columns = dict(label_columns)
        self._tokens = {name: list(found) for name, found in tokens.items()}
        self.adopt(schema, vocabularies)

    def adopt(self, schema: DataSchema, vocabularies: Vocabularies) -> None:
        """Encode with these vocabularies from now on (those of a checkpoint, say).

        Raises:
            UsageError: where they number the domains of a column that is not there.
        """
        self.schema, self.vocabularies = schema, vocabularies
        # Per field (RecBole's ids,): row of the joint table. "" is an absent value, as RecBole's id 0 is.
        self._rows = {
            spec.name: spec.offset + torch.tensor(vocabularies.lookup(spec.name, ["", *self._tokens[spec.name][1:]]))
            for spec in schema.fields
            if spec.kind != "float"
        }
        domain, group = vocabularies.domain_field, self.settings.group_field
        if domain is not None and domain not in self._tokens:
            raise UsageError(f"domain_field {domain!r}: this data set has no such column; set domain_field to it")
        if domain is not None:
            # (RecBole's ids,): -1 for padding and for a domain that the vocabularies do not have.
            place = {token: number for number, token in enumerate(vocabularies.domains)}
            self._numbers = {domain: torch.tensor([-1, *(place.get(token, -1) for token in self._tokens[domain][1:])])}
        else:
            self._numbers = {}
        if group is not None and group in self._tokens:
            self._numbers[group] = _byte_order(self._tokens[group])

    def check_vocabularies(self, saved: Mapping[str, Any]) -> None:
        """Refuse saved vocabularies that differ from these: the saved rows of the table belong to other tokens.

        Raises:
            UsageError: naming the first field that differs.
        """
        other = Vocabularies.from_dict(saved)
        for spec in self.schema.fields:
            if spec.kind == "float":
                same = self.vocabularies.fields[spec.name] == other.fields[spec.name]
            else:
                same = self.vocabularies.tokens(spec.name) == other.tokens(spec.name)
            if not same:
                raise UsageError(
                    f"field {spec.name!r}: the saved model learned another vocabulary than this training split has; "
                    "load it over the split it was trained on"
                )
        if self.vocabularies.domains != other.domains:
            raise UsageError(
                f"domain_field {self.vocabularies.domain_field!r}: the saved model has the domains "
                f"{', '.join(other.domains) or 'none'}, this data set {', '.join(self.vocabularies.domains) or 'none'}"
            )

    def features(self, batch: Batch) -> Features:
        """B rows: tokens (B,), token sequences (B, L) padded with 0, floats (B,) or (B, 2), labels (B,).

        Labels are left out where the batch lacks one of them (prediction).

        Raises:
            UsageError: when it lacks an input column.
        """
        rows, device = len(batch), _column(batch, self.schema.fields[0].name).device
        # -1 stays in the columns of multi-valued and continuous fields.
        ids = torch.full((rows, self.schema.num_fields), -1, dtype=torch.int64, device=device)
        multi: dict[int, MultiValued] = {}
        dense = [torch.empty(rows, 0, device=device)]
        for position, spec in enumerate(self.schema.fields):
            column = _column(batch, spec.name)
            if spec.kind == "token":
                ids[:, position] = self._look_up(spec, column)
            elif spec.kind == "token_seq":
                multi[position] = self._many(spec, column, batch)
            elif spec.bins:
                ids[:, position] = spec.offset + _bins(plain_float(column), spec)
            else:
                dense.append(_standardised(plain_float(column), spec).unsqueeze(1))
        labels, observed = self._labels(batch, rows, device)
        weight = self.settings.weight_field
        return Features(
            ids=ids,
            multi=multi,
            dense=torch.cat(dense, 1),
            labels=labels,
            observed=observed,
            sample_weight=plain_float(batch[weight]) if weight is not None and weight in batch else None,
            domain=self._domain(batch),
            group=self._number(self.settings.group_field, batch),
        )

    def _domain(self, batch: Batch) -> Tensor | None:
        """(B,) the number of each row's domain, as :class:`Vocabularies` has it.

        Raises:
            UsageError: for a row without a domain, or with one that the model does not know.
        """
        name = self.vocabularies.domain_field
        if name is None:
            return None
        found = self._number(name, batch)
        if found is None or bool((found < 0).any()):
            raise UsageError(
                f"domain_field {name!r}: expected one of {', '.join(self.vocabularies.domains)} in every row; found "
                + ("no such column" if found is None else "a row without one")
            )
        return found

    def _number(self, name: str | None, batch: Batch) -> Tensor | None:
        """(B,) the number of each value of a column; None where the column is not there."""
        if name is None or name not in self._numbers or name not in batch:
            return None
        numbers, ids = self._numbers[name], batch[name]
        # Moved at the first batch on a device, and kept there.
        if numbers.device != ids.device:
            numbers = self._numbers[name] = numbers.to(ids.device)
        return numbers[ids]

    def _look_up(self, spec: FieldSpec, ids: Tensor) -> Tensor:
        """Rows of the joint table for RecBole's ids, in their shape."""
        rows = self._rows[spec.name]
        if rows.device != ids.device:
            rows = self._rows[spec.name] = rows.to(ids.device)
        return rows[ids]

    def _many(self, spec: FieldSpec, padded: Tensor, batch: Batch) -> MultiValued:
        # (B, L); id 0 is padding. Row by row the values lie one after another, with offsets (B + 1,).
        present = padded > 0
        offsets = functional.pad(present.sum(1).cumsum(0), (1, 0))
        weights = None
        if spec.weights is not None:
            # RecBole pads the weights by themselves: cut or extended to the width of the ids.
            given = _column(batch, spec.weights)[:, : padded.shape[1]]
            weights = functional.pad(given, (0, padded.shape[1] - given.shape[1]))[present]
        return MultiValued(self._look_up(spec, padded[present]), offsets, weights)

    def _labels(self, batch: Batch, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        names = [self.label_columns[task.name] for task in self.schema.tasks]
        if any(name not in batch for name in names):
            return torch.empty(rows, 0, device=device), torch.empty(rows, 0, dtype=torch.bool, device=device)
        labels = torch.stack([batch[name].float() for name in names], dim=1)
        observed = torch.stack(
            [observed_rows(task.observed_when, batch, rows, device) for task in self.schema.tasks], 1
        )
        return labels, observed


def observed_rows(condition: str | None, batch: Batch, rows: int, device: torch.device) -> Tensor:
    """(B,) bool: where a task's ``observed_when`` holds, over float columns; everywhere without one."""
    if condition is None:
        return torch.ones(rows, dtype=torch.bool, device=device)
    parsed = parse_condition(condition)
    frame = pl.DataFrame({name: plain_float(_column(batch, name)).cpu().numpy() for name in parsed.columns()})
    # A comparison with null is null in Polars: such a row is not observed.
    holds = frame.select(holds=to_expression(parsed, frame.schema))["holds"].fill_null(False)
    return torch.tensor(holds.to_list(), dtype=torch.bool, device=device)


def _byte_order(tokens: Sequence[str]) -> Tensor:
    """The number of each of RecBole's ids: tokens in the order of their bytes, from 0; absent (id 0) comes last."""
    order = sorted(range(1, len(tokens)), key=lambda number: tokens[number].encode())
    numbers = torch.full((len(tokens),), len(order))
    numbers[torch.tensor(order, dtype=torch.int64)] = torch.arange(len(order))
    return numbers


def plain_float(column: Tensor) -> Tensor:
    """A float column (B,); where it is among RecBole's ``numerical_features`` it is (B, 2), value and 1."""
    return column[:, 0] if column.dim() == 2 else column


def _column(batch: Batch, name: str) -> Tensor:
    if name not in batch:
        raise UsageError(f"the batch has no column {name!r}, which the model needs: {nearest(name, batch.columns)}")
    return batch[name]


def _standardised(values: Tensor, spec: FieldSpec) -> Tensor:
    """As :meth:`recbole_dtn.data.floats.FloatStatistics.standardise` does it: NaN stays NaN."""
    wide = values.double()
    if spec.log1p:
        wide = wide.abs().log1p().copysign(wide)
    found = (wide - spec.mean) / spec.std
    return (found if spec.clip is None else found.clamp(-spec.clip, spec.clip)).float()


def _bins(values: Tensor, spec: FieldSpec) -> Tensor:
    """Local ids of a binned float, as :func:`recbole_dtn.data.vocabulary.bin_ids` gives them."""
    # float32, as bin_ids compares them: a value that equals an edge lies above it.
    edges = torch.tensor(spec.bins, dtype=torch.float32, device=values.device)
    return torch.where(values.isnan(), ABSENT, FIRST_TOKEN + torch.bucketize(values.contiguous(), edges, right=True))
