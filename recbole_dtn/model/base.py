"""The base of every multi-task model: a RecBole model class that Lightning trains too."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_dtn import bridge
from recbole_dtn.config.models import misfits
from recbole_dtn.config.settings import Settings
from recbole_dtn.data.features import Features
from recbole_dtn.data.progress import Meter
from recbole_dtn.errors import UsageError, nearest
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.layers.compression import Compression
from recbole_dtn.layers.embedding import EmbeddingTable
from recbole_dtn.layers.table import RowTable
from recbole_dtn.loss.scales import unscaled
from recbole_dtn.loss.tasks import TaskLosses
from recbole_dtn.model.direct.rows import DirectFit, Rows
from recbole_dtn.model.front import Front
from recbole_dtn.registry import INTERACTIONS
from recbole_dtn.schema import DataSchema

__all__ = ["Factor", "ModelOutput", "MultiTaskRecommender", "Say"]

Say = Callable[[str], None]
"""Prints a line, on the terminal and into a run's log."""


@dataclass(frozen=True)
class Factor:
    """A probability that a task's probability is the product of, such as pCVR in pCTCVR = pCTR * pCVR.

    Attributes:
        logit: (B,), the log-odds of P(label = 1 | observed_by = 1, x). It has a value in every row, also where
            ``observed_by`` is 0.
        label: name of the task whose label the factor predicts.
        observed_by: name of the task whose label is 1 in the rows that the factor is about; metrics evaluate it on
            those rows alone.
    """

    logit: Tensor
    label: str
    observed_by: str


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass returns.

    Attributes:
        logits: (B, T); for task t the log-odds of P(label_t = 1 | x) among the training rows, or the value of a
            regression in the units of its loss; :meth:`MultiTaskRecommender.served` makes predictions of them.
        gates: per task name, the weights (B, M) with which it mixes what ``model.gate_names[task]`` names.
        auxiliary: scalar losses beside the tasks', already weighted.
        factors: per name (such as ``cvr``), a conditional probability that a task's probability is a product of.
        shared: (B, H), the last representation that every task reads, and through which its loss reaches the
            parameters before it; for balancers that work on the gradient of a representation. None where a model has
            no such representation.
    """

    logits: Tensor
    gates: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, Factor] = field(default_factory=dict)
    shared: Tensor | None = None


class MultiTaskRecommender(AbstractRecommender):  # type: ignore[misc]
    """Base class. A model defines ``build`` and ``forward``; it may override ``task_losses`` and ``task_parameters``.

    Args:
        config: typed settings, or RecBole's Config.
        dataset: a :class:`DataSchema`, or the training Dataset that RecBole passes.
    """

    # What RecBole reads of a model's class: inputs with a label per row, and no negative sampling.
    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE

    settings_class: ClassVar[Any] = Settings
    """Settings of the model: a subclass of :class:`Settings` with a default for every key of its own."""
    task_kinds: ClassVar[frozenset[str]] = frozenset({"binary", "regression"})
    """Kinds of task that the model takes."""
    min_tasks: ClassVar[int] = 1
    max_tasks: ClassVar[int | None] = None
    """Fewest and most tasks that the model works with; None: any number."""
    min_batch_rows: ClassVar[int] = 1
    """Fewest rows of a training batch: 2 where the model normalises over the batch. Fewer at an epoch's end are left
    out."""
    needs_domain: ClassVar[bool] = False
    """Whether ``Features.domain`` must be there (the setting ``domain_field``)."""
    needs_chain: ClassVar[Literal["same_rows", "any_rows"] | None] = None
    """Whether tasks must come ``after`` one another, each after one other at most. ``same_rows``: and be observed in
    the same rows. The model makes a :class:`~recbole_dtn.model.chains.TaskChain` of them in ``build``."""
    fits_directly: ClassVar[bool] = False
    """Whether :meth:`fit_directly` finds the weights; training then has no epochs of gradient steps."""
    has_gradients: ClassVar[bool] = True
    """Whether logits have gradients. Without, the model cannot be trained by RecBole's Trainer."""
    package: ClassVar[str | None] = None
    """The package that an extra installs and the model needs, if it needs one; checked before data is read."""
    deterministic: ClassVar[bool] = False
    """Whether every seed gives the same model; a leaderboard then runs it with one seed."""

    width_options: ClassVar[tuple[str, ...]] = ()
    """Settings of its own that are widths (a number, or a list of them). One factor scales all of them where a
    leaderboard matches sizes."""

    gate_names: dict[str, tuple[str, ...]]
    """For each key of ``ModelOutput.gates``, the names ``owner/module`` of its columns."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__()
        self.translator: bridge.Translator | None = None
        if isinstance(config, Settings) and isinstance(dataset, DataSchema):
            settings, schema = config, dataset
        else:
            self.translator = bridge.translate(type(self), config, dataset)
            settings, schema = self.translator.settings, self.translator.schema
            # RecBole's Trainer saves and restores the attributes that this list names, beside the weights.
            self.other_parameter_name = ["vocabularies"]
        if not isinstance(settings, self.settings_class):  # checked by the index, which does not import the class
            settings = self.settings_class.model_validate(settings.dump())
        # Before any layer is built, so that the error names the task and not a shape.
        self.check_tasks(schema)
        self.settings, self.schema = settings, schema
        self.gate_names = {}
        if self.fits_directly:
            _refuse_pairs(type(self).__name__, schema)
        self.losses = TaskLosses([unscaled(task) for task in schema.tasks] if self.fits_directly else schema.tasks)
        self.evaluated_task = schema.task_names[0]
        # In order: the losses' parameters, then what the model builds. A seed's weights depend on it.
        self.build(settings, schema)
        if settings.head_bias == "base_rate":
            self.start_at_base_rates()
        # After ``build``, over all modules: parts of a plug-in follow the setting too.
        if not settings.fused:
            set_fused(self, False)
        # Found once: a walk over all modules at every step takes 70 us.
        self._tables = tuple(self.tables())
        self._fronts = tuple(module for module in self.modules() if isinstance(module, Front))
        if settings.shared_interaction is not None and not self._fronts and not self.fits_directly:
            name = type(self).__name__
            raise UsageError(f"shared_interaction: {name} does not read it (it calls neither new_input nor new_front)")
        for table in self._tables:
            table.l2 = settings.embedding_l2 if table.kind == "embedding" else settings.codebook_l2

    # ---- what a model writes ------------------------------------------------------------------------------------

    def build(self, settings: Any, schema: DataSchema) -> None:
        """Create the layers."""
        raise NotImplementedError

    def forward(self, features: Features) -> ModelOutput:
        """Score a batch."""
        raise NotImplementedError

    def fit_directly(self, train: Rows, valid: Rows, *, say: Say, meter: Meter) -> DirectFit:
        """Find all weights and leave them in parameters or buffers; called where ``fits_directly`` is true.

        Whatever is chosen (a strength, a number of trees) is chosen on ``valid``, per task and over the rows where the
        task is observed. Metrics, checkpoint and test follow as for every model.

        Args:
            train, valid: the rows of the two splits. say: prints a line. meter: gets the progress of long work.
        """
        raise NotImplementedError

    def task_parameters(self) -> Sequence[Collection[nn.Parameter]] | None:
        """The parameters that each task's logit and loss depend on, one collection for each task.

        None: a balancer that needs to know finds them by :func:`recbole_dtn.balancer.reach.find_reach`. A model whose
        rows take different paths (routed experts) declares them.
        """
        return None

    def learning_rates(self) -> Mapping[nn.Parameter, float]:
        """Dense parameters with a learning rate of their own: what multiplies ``optimizer.lr`` for each of them.

        RecBole's Trainer does not read it, and has one rate for all.
        """
        return {}

    def findings(self) -> Sequence[str]:
        """What the trained weights tell beside the metrics, one sentence each; shown before the test."""
        return ()

    def heads(self) -> Sequence[nn.Linear]:
        """The linear unit that ends each task's tower, in the order of the tasks; empty where a model has none.

        Found as the ``logit`` of :class:`Tower` and its like. A model with another kind of head overrides this method.
        """
        found = [unit for module in self.modules() if isinstance(unit := getattr(module, "logit", None), nn.Linear)]
        return found if len(found) == self.schema.num_tasks else []

    def head_rates(self) -> Sequence[float | None]:
        """What the sigmoid of each head's output is the probability of, in training: its share of positives.

        It is each task's own; a model whose heads give conditional probabilities overrides this method. None: unknown.
        """
        return [task.rate for task in self.schema.tasks]

    # ---- what every model has -----------------------------------------------------------------------------------

    @torch.no_grad()
    def start_at_base_rates(self) -> None:
        """Set each head's bias to ``log(w r / (1 - r))``, r the share of positives and w the task's ``pos_weight``.

        Among constants it has the least loss. Weights stay as they were drawn.
        """
        for head, task, rate in zip(self.heads(), self.schema.tasks, self.head_rates(), strict=False):
            if rate is not None and head.bias is not None:
                head.bias.fill_(math.log(task.pos_weight * rate / (1 - rate)))

    @classmethod
    def check_tasks(cls, schema: DataSchema) -> None:
        """Refuse a data set that the model cannot work with.

        Raises:
            UsageError: naming the model and the task, or what is missing.
        """
        asked = {name: getattr(cls, name) for name in ("task_kinds", "min_tasks", "max_tasks", "needs_domain")}
        kinds = {task.name: task.kind for task in schema.tasks}
        for setting, message in misfits(cls.__name__, asked, kinds, has_domain=schema.num_domains > 0):
            raise UsageError(f"{setting}: {message}")

    def new_embedding(self, *, dim: int | None = None, fields: Sequence[int] | None = None) -> EmbeddingTable:
        """A joint table; to be called in ``build``.

        Args:
            dim: width of an embedding; None: the setting ``embedding_size``.
            fields: positions of the fields that it is for (:meth:`field_positions`); None: all of them.

        Returns:
            A module ``Features -> (B, fields, dim)``, the fields in the schema's order.
        """
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.settings.embedding_dtype]
        return EmbeddingTable(
            self.schema,
            self.settings.embedding_size if dim is None else dim,
            std=self.settings.embedding_std,
            dtype=dtype,
            compression=self.compression,
            backend=self.settings.embedding_backend,
            fields=fields,
        )

    def field_positions(self, names: Sequence[str], *, setting: str) -> tuple[int, ...]:
        """Positions of fields that a setting names.

        Raises:
            UsageError: for a name that is not a field of the data set.
        """
        known = [spec.name for spec in self.schema.fields]
        for name in names:
            if name not in known:
                raise UsageError(f"{setting}: {name!r} is not a field of the data set; {nearest(name, known)}")
        return tuple(known.index(name) for name in names)

    @property
    def reads_domain(self) -> bool:
        """Whether rows must have a domain: where ``needs_domain`` is True, and in some models by a setting."""
        return self.needs_domain

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
        width: int = self.schema.num_fields * self.settings.embedding_size
        return width

    def new_front(self) -> Front:
        """A module ``embeddings (B, F, D), ids (B, F) -> (B, I)``, I its ``output_dim``; to be called in ``build``.

        It flattens, or runs the interaction that the setting ``shared_interaction`` names.
        """
        chosen = self.settings.shared_interaction
        if chosen is None:
            return Front(self.field_shape())
        module = INTERACTIONS.build(chosen, self.field_shape(), self.settings.shared_interaction_dim)
        return Front(self.field_shape(), module, self.settings.aux_weight)

    def new_input(self) -> int:
        """Create ``self.embedding`` and ``self.front``, the parts that :meth:`input` runs; to be called in ``build``.

        Returns:
            I, the width of the input.
        """
        self.embedding = self.new_embedding()
        front = self.new_front()
        self.front = front
        return front.output_dim

    def input(self, features: Features) -> Tensor:
        """What the networks of most models read, (B, I): the embeddings, flat or after ``shared_interaction``."""
        x: Tensor = self.front(self.embedding(features), features.ids)
        return x

    def new_inputs(self, count: int) -> int:
        """As :meth:`new_input` for ``count`` owners with a table each: ``self.embeddings`` and ``self.fronts``."""
        self.embeddings = nn.ModuleList(self.new_embedding() for _ in range(count))
        fronts = [self.new_front() for _ in range(count)]
        self.fronts = nn.ModuleList(fronts)
        return fronts[0].output_dim

    def inputs(self, features: Features) -> list[Tensor]:
        """As :meth:`input`, (B, I) for each owner."""
        pairs = zip(self.embeddings, self.fronts, strict=True)
        return [front(embedding(features), features.ids) for embedding, front in pairs]

    def tables(self) -> list[RowTable]:
        """Every embedding table and codebook."""
        return [module for module in self.modules() if isinstance(module, RowTable)]

    def set_sparse(self, sparse: bool) -> None:
        """Whether tables produce sparse gradients."""
        for table in self.tables():
            table.sparse = sparse

    def task_losses(self, features: Features, output: ModelOutput, total: Tensor | None = None) -> Tensor:
        """Unweighted loss of every task over its observed rows, (T,); 0 where none is observed.

        A model whose loss is not that of its logits overrides this method. The result must depend on
        ``features.labels`` only where ``features.observed`` is true, and each loss must be a sum over rows divided by
        ``total``, so that processes of a distributed run can be averaged::

            def task_losses(self, features, output, total=None):
                losses = super().task_losses(features, output, total)  # (T,)
                ...  # replace or add terms, such as a loss of ``output.factors``
                return losses

        A term that balancers must not re-weight goes into ``ModelOutput.auxiliary`` instead.

        Args:
            features: the batch, with labels. output: what :meth:`forward` returned for it.
            total: (T,) what to divide by; None: the sum of the weights of the observed rows.
        """
        losses: Tensor = self.losses(
            output.logits, features.labels, features.observed, features.sample_weight, total, features.group
        )
        return losses

    def served(self, output: ModelOutput) -> ModelOutput:
        """What metrics and predictions read: log-odds at the full rate of negatives, regressions in their own units.

        See :class:`~recbole_dtn.loss.scales.Scales`; without either, ``output`` itself. Factors are left as they are.
        """
        logits: Tensor = self.losses.scales.predictions(output.logits)
        return output if logits is output.logits else replace(output, logits=logits)

    def penalties(self) -> dict[str, Tensor]:
        """Penalties of the last training forward, by kind: L2 of the tables, and the loss of ``shared_interaction``."""
        found: dict[str, Tensor] = {}
        terms = [(f"{table.kind}_l2", table.penalty) for table in self._tables]
        for key, penalty in (*terms, *(("shared_interaction", front.penalty) for front in self._fronts)):
            if penalty is not None:
                # Several tables of one kind are one term.
                found[key] = found[key] + penalty if key in found else penalty
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
        return self.probabilities(self.served(self(self._features(interaction))).logits)[:, column]


def _refuse_pairs(model: str, schema: DataSchema) -> None:
    for task in schema.tasks:
        if task.pairwise > 0:
            raise UsageError(f"task {task.name!r}: pairwise: {model} has no batches to rank; leave it out")
