"""The typed settings that every run is made of. Types and ranges are here; defaults are in ``properties/overall.yaml``.

No field of :class:`Settings` has a default on purpose: ``properties/overall.yaml`` is their only source, and a test
holds the two sets of keys equal. A model's own settings are a subclass in the model's own file, with defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from recbole_dtn.config.choice import Balancer, Choice, Interaction, Loss, Metric
from recbole_dtn.config.preprocess import PreprocessorOptions, read_options
from recbole_dtn.config.strict import Count, NonNegative, Positive, Rate, Strict, Widths
from recbole_dtn.registry import METRICS

__all__ = [
    "SELECTED_ON_TEST",
    "CheckpointSettings",
    "Choice",
    "CompressionSettings",
    "Count",
    "EmbeddingOptimizerSettings",
    "FieldSettings",
    "Interaction",
    "NonNegative",
    "OptimizerSettings",
    "Positive",
    "Rate",
    "SchedulerSettings",
    "Settings",
    "Strict",
    "TaskSettings",
    "TrialSettings",
    "Widths",
]

SELECTED_ON_TEST = (
    "selected_on_test: the validation rows are, or contain, rows of the test set, so the test numbers are optimistic; "
    "compare them with published tables of the same protocol only"
)
"""What is said wherever such a data set is looked at or trained on."""

Share = Annotated[float, Field(gt=0, le=1e9)]
"""A part of a ratio; the parts are divided by their sum."""
RECBOLE_METRICS = {"auc": "mean_auc", "logloss": "mean_logloss"}


def _our_metric(name: Any) -> Any:
    """RecBole's ``AUC`` and ``LogLoss`` are the means over the tasks."""
    return RECBOLE_METRICS.get(name.lower(), name) if isinstance(name, str) else name


def _our_names(names: Any) -> Any:
    """RecBole writes AUC, LogLoss, RMSE for what is auc, logloss, rmse here."""
    if not isinstance(names, list):
        return names
    known = METRICS.names()
    return [name.lower() if isinstance(name, str) and name.lower() in known else name for name in names]


class FieldSettings(Strict):
    """One entry of a data set's ``fields:``. Defaults here are the meaning of a key left out."""

    name: str
    type: Literal["token", "token_seq", "float"] = "token"
    min_count: Count | None = None  # None: the data set's min_count
    encoding: Literal["auto", "standardise", "log1p", "bins"] = "auto"  # floats; auto: bins where it is skewed
    bins: Annotated[int, Field(ge=2, le=10_000)] = 20  # of about equally many rows, floats in bins
    clip: Positive | None = 10.0  # largest magnitude of a standardised float, in standard deviations; None: no limit
    pooling: Literal["sum", "mean"] | None = None  # None: the setting `pooling`
    weights: str | None = None  # float_seq column that weights a token_seq
    count_parts: list[Literal["train", "valid", "test"]] | None = None  # None: training alone; for published protocols


class TaskSettings(Strict):
    """One entry of a data set's ``tasks:``."""

    name: str
    kind: Literal["binary", "regression"] = "binary"
    label: str
    condition: str | None = None
    after: list[str] = Field(default_factory=list)
    weight: NonNegative = 1.0
    pos_weight: Positive = 1.0
    observed_when: str | None = None
    loss: Loss | None = None  # None: bce of a binary task, mse of a regression
    negative_rate: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the negatives kept when rows were down-sampled
    pairwise: NonNegative = 0.0  # weight of the in-batch ranking loss that is added
    standardise: bool = True  # learn the label of a regression in units of the training rows


class CompressionSettings(Strict):
    """Sharing of table rows among the tokens of large fields."""

    method: Literal["none", "hash", "quotient_remainder"]
    above: Count  # tokens
    collisions: Annotated[int, Field(ge=2)]
    keep: Annotated[int, Field(ge=0)]
    operation: Literal["product", "sum"]  # of quotient_remainder


class OptimizerSettings(Strict):
    """Optimiser of the dense parameters."""

    name: Literal["adam", "adamw", "sgd", "adagrad"]
    lr: Positive
    betas: tuple[Rate, Rate]
    eps: Positive


class EmbeddingOptimizerSettings(Strict):
    """Optimiser of the embedding table and of codebooks."""

    name: Literal["adam", "lazy_adam", "rowwise_adagrad", "adagrad", "sgd"]
    lr: Positive | None  # None: optimizer.lr


class CheckpointSettings(Strict):
    """When a training checkpoint is written, from which ``--resume`` goes on."""

    every_steps: Count | None
    every_minutes: Positive | None


class SchedulerSettings(Strict):
    """Learning-rate schedule, a factor on every group's lr, counted in optimiser steps."""

    name: Literal["constant", "linear", "cosine", "exponential"]
    warmup_steps: Annotated[int, Field(ge=0)]
    min_factor: Annotated[float, Field(ge=0, le=1)]
    gamma: Annotated[float, Field(gt=0, le=1)]  # factor per epoch of `exponential`


class TrialSettings(Strict):
    """What tuning adds to a run that is a trial: its test rows are not read."""

    study: str
    number: Annotated[int, Field(ge=0)]
    needed: list[float | None] = Field(default_factory=list)
    """Values of ``valid_metric`` that the best epoch so far must reach, by epoch; training stops where it does not."""


class Settings(Strict):
    """All keys that every model shares.

    ``presets`` names settings that determine values of others: ``{"variant": {"released": {"fusion": "sum"}}}`` means
    that with ``variant: released`` a ``fusion`` that is null counts as ``sum`` (:meth:`effective`).
    ``shared_defaults`` are a model's defaults of nested keys that all models have: ``{"optimizer": {"lr": 0.002}}``.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    shared_defaults: ClassVar[Mapping[str, Any]] = {}

    # what
    model: str
    dataset: str
    plugins: list[str]
    # where
    data_path: str
    cache_dir: str | None
    check: Literal["quick", "full"]
    output_dir: str
    # data
    folder: str | None
    block: str | None
    preprocessor: str | None
    preprocess: Annotated[Any, PreprocessorOptions()]
    raw: str | None
    max_rejected: Annotated[float, Field(ge=0, le=1)]
    strict: bool
    max_line: Annotated[int, Field(ge=1, le=1 << 20)]  # MiB
    fields: list[FieldSettings]
    tasks: list[TaskSettings]
    group_field: str | None
    domain_field: str | None
    weight_field: str | None
    split: Literal["random", "time", "user_time", "given", "column"]
    split_ratio: tuple[Share, Share, Share]
    split_seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    split_field: str | None
    stratify: str | None
    folds: Annotated[int, Field(ge=2, le=1000)] | None
    fold: Annotated[int, Field(ge=0)] | None
    selected_on_test: bool
    time_field: str | None
    user_field: str | None
    min_count: Count
    pooling: Literal["sum", "mean"]
    limit_rows: Annotated[int, Field(ge=1, lt=1 << 63)] | None
    # model
    embedding_size: Annotated[int, Field(ge=1, le=4096)]
    embedding_std: Positive
    embedding_dtype: Literal["float32", "bfloat16"]
    embedding_compression: CompressionSettings
    embedding_backend: Literal["torch", "fbgemm"]
    dropout: Rate
    head_bias: Literal["base_rate", "random"]
    shared_interaction: Interaction | None
    shared_interaction_dim: Count
    aux_weight: NonNegative
    init_from: str | None
    # loss
    balancer: Balancer
    weight_decay: NonNegative
    embedding_l2: NonNegative
    codebook_l2: NonNegative
    # training
    epochs: Count
    train_batch_size: Count
    batch_parts: Count
    eval_batch_size: Count
    shuffle_rows: Annotated[int, Field(ge=1024)] | None  # None: what half of the machine's memory holds
    eval_step: Count
    stopping_step: Annotated[int, Field(ge=0)]
    valid_metric: Annotated[str, BeforeValidator(_our_metric)]
    metrics: Annotated[list[Metric] | None, BeforeValidator(_our_names)]  # None: all that apply
    checkpoint: CheckpointSettings
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    trial: TrialSettings | None
    optimizer: OptimizerSettings
    embedding_optimizer: EmbeddingOptimizerSettings
    scheduler: SchedulerSettings
    gradient_clip: Positive | None
    # machine
    accelerator: str
    devices: Annotated[int | str, Field(union_mode="left_to_right")]
    strategy: str
    num_nodes: Count
    precision: Literal["32", "bf16-mixed", "16-mixed"]
    fused: bool
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"]
    threads: Count | None
    check_memory: bool
    # display
    loggers: list[Literal["csv", "tensorboard", "wandb"]]
    progress: bool
    profile: bool
    quiet: bool

    @field_validator("preprocess", mode="plain")
    @classmethod
    def _typed_options(cls, given: Any, info: ValidationInfo) -> Any:
        return read_options(info.data.get("preprocessor"), given)

    @property
    def draw(self) -> str:
        """The folder among those of :attr:`block`; empty without one."""
        return (self.folder or self.dataset) if self.block is not None else ""

    def dump(self) -> dict[str, Any]:
        """Plain values of every key, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def effective(self) -> dict[str, Any]:
        """:meth:`dump` without the keys of ``presets``, and with the values that they imply where a setting is null."""
        values = self.dump()
        for key, presets in self.presets.items():
            meant = presets[values.pop(key)]
            values |= {name: value for name, value in meant.items() if values[name] is None}
        return values
