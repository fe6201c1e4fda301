"""The base of every multi-task model: a RecBole model class that Lightning trains too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_dtn import bridge
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.layers.compression import Compression
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.layers.table import RowTable
from recbole_dtn.loss.tasks import task_losses
from recbole_dtn.schema import DataSchema

__all__ = ["ModelOutput", "MultiTaskRecommender"]


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass returns.

    Attributes:
        logits: (B, T); for task t the log-odds of P(label_t = 1 | x), or the value of a regression task.
        gates: per task name, the weights (B, M) with which it mixes what ``model.gate_names[task]`` names.
        auxiliary: scalar losses beside the tasks', already weighted.
        factors: per name, a probability (B,) that a logit is the product of (such as pCVR).
    """

    logits: Tensor
    gates: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, Tensor] = field(default_factory=dict)


class MultiTaskRecommender(AbstractRecommender):  # type: ignore[misc]
    """Base class. A model writes ``build`` and ``forward`` and nothing else.

    Args:
        config: typed settings, or RecBole's Config.
        dataset: a :class:`DataSchema`, or the training Dataset that RecBole passes.
    """

    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE

    gate_names: dict[str, tuple[str, ...]]
    """For each key of ``ModelOutput.gates``, the names ``owner/module`` of its columns."""
    settings_class: ClassVar[Any] = None
    """Typed settings of a plug-in model; built-ins name theirs in the registry."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__()
        self.translator: bridge.Translator | None = None
        if isinstance(config, Settings) and isinstance(dataset, DataSchema):
            settings, schema = config, dataset
        else:
            self.translator = bridge.translate(type(self), config, dataset)
            settings, schema = self.translator.settings, self.translator.schema
            self.other_parameter_name = ["vocabularies"]
        self.settings, self.schema = settings, schema
        self.gate_names = {}
        self.evaluated_task = schema.task_names[0]
        self.build(settings, schema)
        self._penalised = tuple(self.tables())  # at every step: a walk over all modules takes 70 us
        for table in self._penalised:
            table.l2 = settings.embedding_l2 if table.kind == "embedding" else settings.codebook_l2

    # ---- what a model writes ------------------------------------------------------------------------------------

    def build(self, settings: Any, schema: DataSchema) -> None:
        """Create the layers."""
        raise NotImplementedError

    def forward(self, features: Features) -> ModelOutput:
        """Score a batch."""
        raise NotImplementedError

    def task_parameters(self) -> Sequence[Collection[nn.Parameter]] | None:
        """The parameters that each task's logit and loss depend on, one collection for each task.

        None: a balancer that needs to know finds them by :func:`recbole_dtn.balancer.reach.find_reach`. A model whose
        rows take different paths (routed experts) declares them.
        """
        return None

    # ---- what every model has -----------------------------------------------------------------------------------

    def new_embedding(self) -> EmbeddingTable:
        """A fused table for the schema's fields; to be called in ``build``."""
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.settings.embedding_dtype]
        return EmbeddingTable(
            self.schema,
            self.settings.embedding_size,
            std=self.settings.embedding_std,
            dtype=dtype,
            compression=self.compression,
            backend=self.settings.embedding_backend,
        )

    @property
    def compression(self) -> Compression | None:
        """How tokens of large fields share rows of the table; None where every id has its own."""
        return Compression.of(self.settings.embedding_compression.model_dump())

    def field_shape(self) -> FieldShape:
        """The numbers an interaction is built from."""
        return FieldShape(
            num_fields=self.schema.num_fields,
            embedding_dim=self.settings.embedding_size,
            id_fields=self.schema.id_fields,
            field_sizes=tuple(spec.size for spec in self.schema.fields),
        )

    @property
    def flat_dim(self) -> int:
        """F * D."""
        return self.schema.num_fields * self.settings.embedding_size

    def tables(self) -> list[RowTable]:
        """Every embedding table and codebook."""
        return [module for module in self.modules() if isinstance(module, RowTable)]

    def set_sparse(self, sparse: bool) -> None:
        """Whether tables produce sparse gradients."""
        for table in self.tables():
            table.sparse = sparse

    def task_losses(self, features: Features, output: ModelOutput, total: Tensor | None = None) -> Tensor:
        """Unweighted loss of every task over its observed rows, (T,); 0 where none is observed.

        ``total`` as in :func:`recbole_dtn.loss.tasks.task_losses`.
        """
        return task_losses(
            output.logits.float(), features.labels, features.observed, self.schema.tasks, features.sample_weight, total
        )

    def penalties(self) -> dict[str, Tensor]:
        """L2 penalties of the last training forward, by kind; only those switched on."""
        found: dict[str, Tensor] = {}
        for table in self._penalised:
            if table.penalty is not None:
                key = f"{table.kind}_l2"
                found[key] = found[key] + table.penalty if key in found else table.penalty
        return found

    def count_parameters(self) -> dict[str, int]:
        """Trainable numbers by part: embedding, codebook, dense."""
        parts = {"embedding": 0, "codebook": 0, "dense": 0}
        held = set()
        for table in self.tables():
            parts[table.kind] += table.weight.numel()
            held.add(id(table.weight))
        parts["dense"] = sum(p.numel() for p in self.parameters() if id(p) not in held and p.requires_grad)
        return parts

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, T): sigmoid for binary tasks, the value itself for regression."""
        logits = logits.float()
        kinds = [task.kind == "binary" for task in self.schema.tasks]
        if all(kinds):
            return torch.sigmoid(logits)
        return torch.where(torch.tensor(kinds, device=logits.device), torch.sigmoid(logits), logits)

    # ---- RecBole's interface ------------------------------------------------------------------------------------

    def _features(self, interaction: Any) -> Features:
        if self.translator is None:
            raise RuntimeError("this model was built from Settings; RecBole's batches need a model built by RecBole")
        return self.translator.features(interaction)

    @property
    def vocabularies(self) -> Any:
        """Plain values of the vocabularies; RecBole's Trainer saves them beside the weights."""
        return None if self.translator is None else self.translator.vocabularies.to_dict()

    @vocabularies.setter
    def vocabularies(self, saved: Any) -> None:
        if self.translator is not None and saved is not None:
            self.translator.check_vocabularies(saved)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """RecBole's training loss: each task's weighted loss, then auxiliary losses and penalties."""
        features = self._features(interaction)
        output = self(features)
        losses = self.task_losses(features, output)
        weights = losses.new_tensor([task.weight for task in self.schema.tasks])
        return (*(weights * losses).unbind(0), *output.auxiliary.values(), *self.penalties().values())

    def predict(self, interaction: Any) -> Tensor:
        """RecBole's score (B,): the probability of ``evaluated_task``."""
        column = self.schema.task_names.index(self.evaluated_task)
        return self.probabilities(self(self._features(interaction)).logits)[:, column]
