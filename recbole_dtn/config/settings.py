"""The typed settings every run is made of. Types and ranges are here; every default is in ``properties/``.

No field below has a default on purpose: ``properties/overall.yaml`` (and ``model/<Model>.yaml``) is their only source,
and a test holds the two sets of keys equal. A model's own settings are a subclass with more keys
(:mod:`recbole_dtn.config.models`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "SELECTED_ON_TEST",
    "CompressionSettings",
    "EmbeddingOptimizerSettings",
    "FieldSettings",
    "OptimizerSettings",
    "SchedulerSettings",
    "Settings",
    "Strict",
    "TaskSettings",
]

Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Widths = list[Count]

SELECTED_ON_TEST = (
    "selected_on_test: the validation rows are, or contain, rows of the test set, so the test numbers are optimistic; "
    "compare them with published tables of the same protocol only"
)
"""What is said wherever such a data set is looked at or trained on."""

RECBOLE_METRICS = {"auc": "mean_auc", "logloss": "mean_logloss"}


def _our_metric(name: Any) -> Any:
    """RecBole's ``AUC`` and ``LogLoss`` are the means over the tasks."""
    return RECBOLE_METRICS.get(name.lower(), name) if isinstance(name, str) else name


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FieldSettings(Strict):
    """One entry of a data set's ``fields:``. Defaults here are the meaning of a key left out."""

    name: str
    type: Literal["token", "token_seq", "float"] = "token"
    min_count: Count | None = None  # None: the data set's min_count
    encoding: Literal["standardise", "bins"] = "standardise"  # floats only
    bins: Annotated[int, Field(ge=2, le=10_000)] = 10  # quantile bins, floats with encoding: bins
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


class SchedulerSettings(Strict):
    """Learning-rate schedule, a factor on every group's lr, counted in optimiser steps."""

    name: Literal["constant", "linear", "cosine", "exponential"]
    warmup_steps: Annotated[int, Field(ge=0)]
    min_factor: Annotated[float, Field(ge=0, le=1)]
    gamma: Annotated[float, Field(gt=0, le=1)]  # factor per epoch of `exponential`


class Settings(Strict):
    """All keys that every model shares."""

    # what
    model: str
    dataset: str
    plugins: list[str]
    # where
    data_path: str
    cache_dir: str | None
    output_dir: str
    # data
    folder: str | None
    preprocessor: str | None
    preprocess: dict[str, Any]
    raw: str | None
    max_rejected: Annotated[float, Field(ge=0, le=1)]
    strict: bool
    fields: list[FieldSettings]
    tasks: list[TaskSettings]
    group_field: str | None
    domain_field: str | None
    weight_field: str | None
    split: Literal["random", "time", "user_time", "given"]
    split_ratio: tuple[Positive, Positive, Positive]
    split_seed: int
    selected_on_test: bool
    time_field: str | None
    user_field: str | None
    min_count: Count
    pooling: Literal["sum", "mean"]
    limit_rows: Count | None
    # model
    embedding_size: Annotated[int, Field(ge=1, le=4096)]
    embedding_std: Positive
    embedding_dtype: Literal["float32", "bfloat16"]
    embedding_compression: CompressionSettings
    embedding_backend: Literal["torch", "fbgemm", "torchrec"]
    dropout: Rate
    init_from: str | None
    # loss
    balancer: str
    weight_decay: NonNegative
    embedding_l2: NonNegative
    codebook_l2: NonNegative
    # training
    epochs: Count
    train_batch_size: Count
    eval_batch_size: Count
    shuffle_rows: Annotated[int, Field(ge=1024)] | None  # None: what half of the machine's memory holds
    eval_step: Count
    stopping_step: Annotated[int, Field(ge=0)]
    valid_metric: Annotated[str, BeforeValidator(_our_metric)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    optimizer: OptimizerSettings
    embedding_optimizer: EmbeddingOptimizerSettings
    scheduler: SchedulerSettings
    gradient_clip: Positive | None
    # machine
    accelerator: str
    devices: int | str
    strategy: str
    num_nodes: Count
    precision: Literal["32", "bf16-mixed", "16-mixed"]
    fused: bool
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"]
    threads: Count | None
    # display
    loggers: list[Literal["csv", "tensorboard", "wandb"]]
    progress: bool
    profile: bool
    quiet: bool

    def dump(self) -> dict[str, Any]:
        """Plain values of every key, ready for YAML or JSON."""
        return self.model_dump(mode="json")
