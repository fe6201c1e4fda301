"""MSSM: multiple-level sparse sharing (Ding et al., SIGIR 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, NonNegative, Settings, Widths
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.kernels.choice import Fusible
from recbole_dtn.kernels.experts import first_layers
from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.dropout import Dropout
from recbole_dtn.layers.experts import Experts
from recbole_dtn.layers.hard_concrete import HardConcrete
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.schema import DataSchema

__all__ = ["MSSM", "CellRoutes", "FieldCells", "MSSMSettings"]


class MSSMSettings(Settings):
    """Settings of :class:`MSSM`."""

    levels: Annotated[Count, Field(description="levels of cells")] = 1
    cells: Annotated[Count, Field(description="cells of each level")] = 4
    cell_hidden: Annotated[
        Widths, Field(description="widths of each cell's layers on the first level (ReLU); the last is H of all cells")
    ] = [128]
    tower_hidden: Annotated[Widths, Field(description="hidden widths of each task's tower")] = [64]
    gate_penalty: Annotated[
        NonNegative, Field(description="penalty on the expected share of open gates (lambda), for each kind of gate")
    ] = 1e-4


class FieldCells(nn.Module):
    """C perceptrons, each over fields of its own choice: ``u_c = MLP_c([z_c1 e_1, ..., z_cF e_F])``.

    Args:
        fields: F. input_dim: width of what a cell reads. hidden: widths of a cell's layers. cells: C. dropout: after
            each layer.
    """

    def __init__(self, fields: int, input_dim: int, hidden: Sequence[int], *, cells: int, dropout: float) -> None:
        super().__init__()
        self.gates = HardConcrete((cells, fields))
        self.cells = Experts(input_dim, hidden, count=cells, dropout=dropout)
        self.output_dim = self.cells.output_dim

    def forward(self, embeddings: Tensor, front: nn.Module | None, ids: Tensor) -> Tensor:
        """(B, F, D) -> (B, C, H). ``front``: what turns gated embeddings into a cell's input; None: they are flat."""
        z = self.gates()  # (C, F)
        weight, bias = self.cells.weights[0], self.cells.biases[0]
        if front is None:
            # The gates are the same for all rows, so they scale the weights: all cells then read one input.
            weight = weight * z.repeat_interleave(embeddings.shape[2], dim=1).unsqueeze(2)
            x = embeddings.flatten(1)
            if self.cells.fused:
                return self.cells.after_first(first_layers([weight], [bias], x)[0])
            first = torch.einsum("bi,cio->cbo", x, weight) + bias
        else:
            count = len(z)
            gated = (embeddings.unsqueeze(0) * z[:, None, :, None]).flatten(0, 1)  # (C * B, F, D)
            x = front(gated, ids.repeat(count, 1)).unflatten(0, (count, len(ids)))
            first = torch.baddbmm(bias, x, weight)
        return self.cells.after_first(torch.relu(first).transpose(0, 1))


class CellRoutes(Fusible):
    """What one reader gets of J cells, unit by unit: ``v = sum_j z_j * (W_j u_j)``, ``*`` elementwise.

    The J matrices start as one ``nn.Linear(J * H, H)``.

    Args:
        cells: J. width: H, of every u_j and of v. bias: whether ``+ b``.
    """

    def __init__(self, cells: int, width: int, *, bias: bool) -> None:
        super().__init__()
        self.gates = HardConcrete((cells, width))
        bound = 1.0 / math.sqrt(cells * width)
        # (J, out, in).
        self.weight = nn.Parameter(torch.empty(cells, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound)) if bias else None

    def gated(self) -> Tensor:
        """The gated matrices as one, (H, J * H)."""
        z: Tensor = self.gates()
        weight = self.weight * z.unsqueeze(2)
        return weight.transpose(0, 1).flatten(1)


def _route(routes: Sequence[CellRoutes], u: Tensor) -> Tensor:
    """(B, J * H) -> (B, I, H) for I readers, as one product."""
    weight = torch.cat([each.gated() for each in routes])
    biases: list[Tensor] = [each.bias for each in routes if each.bias is not None]
    bias = torch.cat(biases) if biases else None
    fused = all(each.fused for each in routes)
    found = linear(u, weight, bias) if fused else torch.nn.functional.linear(u, weight, bias)
    return found.unflatten(1, (len(routes), -1))  # type: ignore[no-untyped-call, no-any-return]


@MODELS.register("MSSM", paper="Ding et al., SIGIR 2021 (doi 10.1145/3404835.3463022)")
class MSSM(MultiTaskRecommender):
    """Levels of cells with random gates on the fields that a cell reads and on the units that it passes on.

    With z gates between 0 and 1, ``*`` elementwise, cells c and J cells in a level of width H::

        u_c     = MLP_c([z_c1 e_1, ..., z_cF e_F])                  first level: a gate for each cell and field
        u_i     = ReLU(sum_j z_ij * (W_ij u_j) + b_i)               levels above: a gate for each i, j and unit
        logit_t = tower_t(sum_j z_tj * (W_tj u_j))                  tasks read the last level

    As specified here; the gates are hard concrete as in SNR (:class:`~recbole_dtn.layers.hard_concrete.HardConcrete`):
    drawn anew at each training step, without noise in evaluation. The loss has lambda times the expected share of open
    gates in addition, once for each kind (fields, and units of each level), so that kinds weigh alike whatever their
    number. Published code has no gates on fields, draws the gates once, and leaves their parameters and W out of the
    optimiser. With ``shared_interaction`` every cell reads the interaction of its gated embeddings.
    """

    settings_class: ClassVar = MSSMSettings
    width_options = ("cell_hidden", "tower_hidden")

    def build(self, settings: MSSMSettings, schema: DataSchema) -> None:
        """The embedding, cells on fields, routes between cells, routes to tasks and T towers."""
        if not settings.cell_hidden:
            raise UsageError("cell_hidden: expected one width or more, such as [128]; found none")
        width = self.new_input()
        self.field_cells = FieldCells(
            schema.num_fields, width, settings.cell_hidden, cells=settings.cells, dropout=settings.dropout
        )
        width = self.field_cells.output_dim
        self.routes = nn.ModuleList(
            nn.ModuleList(CellRoutes(settings.cells, width, bias=True) for _ in range(settings.cells))
            for _ in range(settings.levels - 1)
        )
        self.dropout = Dropout(settings.dropout)
        self.task_routes = nn.ModuleList(CellRoutes(settings.cells, width, bias=False) for _ in schema.tasks)
        self.towers = Towers(width, settings.tower_hidden, count=schema.num_tasks, dropout=settings.dropout)

    def forward(self, features: Features) -> ModelOutput:
        """A batch -> logits (B, T), and the penalty of the gates."""
        front = None if self.front.interaction is None else self.front
        cells = self.field_cells(self.embedding(features), front, features.ids)  # (B, C, H)
        for routes in self.routes:
            cells = self.dropout(torch.relu(_route(_listed(routes), cells.flatten(1))))
        shared = cells.flatten(1)
        read = _route(_listed(self.task_routes), shared)  # (B, T, H)
        return ModelOutput(self.towers(read), auxiliary=self._penalty(), shared=shared)

    def _gates(self) -> dict[str, list[HardConcrete]]:
        """Gates by kind: ``fields``, ``units1`` of the cells of level 2, ..., and ``tasks``."""
        levels = {f"units{number}": _listed(routes) for number, routes in enumerate(self.routes, 1)}
        levels["tasks"] = _listed(self.task_routes)
        return {"fields": [self.field_cells.gates], **{kind: [r.gates for r in each] for kind, each in levels.items()}}

    def _penalty(self) -> dict[str, Tensor]:
        if self.settings.gate_penalty == 0.0:
            return {}
        shares = [
            torch.stack([gates.penalty() for gates in each]).sum() / sum(gates.log_alpha.numel() for gates in each)
            for each in self._gates().values()
        ]
        return {"gates": self.settings.gate_penalty * torch.stack(shares).sum()}

    def kept_gates(self) -> dict[str, Tensor]:
        """Which gates are open in evaluation, bool: ``fields`` (C, F), ``units<l>`` (C, C, H), ``tasks`` (T, C, H)."""
        found = {kind: torch.stack([gates.kept() for gates in each]) for kind, each in self._gates().items()}
        return {**found, "fields": found["fields"].squeeze(0)}

    def findings(self) -> Sequence[str]:
        """The share of gates that are open, by kind."""
        return [
            f"gates of {kind}: {int(kept.sum())} of {kept.numel()} open" for kind, kept in self.kept_gates().items()
        ]


def _listed(routes: nn.Module) -> list[CellRoutes]:
    return [cast(CellRoutes, each) for each in cast(nn.ModuleList, routes)]
