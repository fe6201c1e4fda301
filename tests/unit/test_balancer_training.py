"""Balancers in the training loop: gradients, own parameters, hooks, the fp16 scaler, clipping, the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recbole_dtn.balancer.base import GradientBalancer, LossBalancer
from recbole_dtn.balancer.step import Step
from recbole_dtn.data.features import Features
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.record.checkpoint import read_checkpoint, write_checkpoint
from recbole_dtn.record.plain_file import save_plain
from recbole_dtn.registry import BALANCERS, MODELS
from recbole_dtn.schema import TaskSpec
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.training.module import TrainingModule

SCHEMA = tiny_schema()
BATCHES = [tiny_features(SCHEMA, 24, seed=seed, masked=True) for seed in range(4)]
SMALL = {
    "embedding_size": 4,
    "embedding_l2": 0.01,
    # eps is far above the rounding of a gradient, which Adam would otherwise turn into steps
    "optimizer": {"name": "adam", "lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-4},
    "accelerator": "cpu",
}
SIZES: dict[str, dict[str, Any]] = {
    "MMoE": {"expert_hidden": [6, 5], "tower_hidden": [4]},
    "PLE": {"expert_hidden": [6], "tower_hidden": [4], "levels": 2},
    "SingleTask": {},
    "STEM": {"expert_hidden": [6], "tower_hidden": [4], "gate_hidden": [5]},
    "DTN": {"module_dim": 5, "interactions": ["gdcn"]},
}


class SumOfGradients(GradientBalancer):
    """What ``fixed`` does, task by task."""

    def solve(self, gram: Tensor, step: Step, tasks: Sequence[int]) -> Tensor:
        return torch.ones(len(gram), dtype=gram.dtype)


class OneAfterAnother(LossBalancer):
    """What ``fixed`` does, in T + 1 backward passes."""

    def backward(self, step: Step) -> Tensor:
        for loss in step.losses:
            step.run(loss, retain_graph=True)
        step.run(step.extra + 0.0 * step.losses.sum())
        return step.losses.detach().sum() + step.extra.detach()


def make_module(
    balancer: str | dict[str, Any] | type[LossBalancer], model: str = "MMoE", **settings: Any
) -> TrainingModule:
    named = "fixed" if isinstance(balancer, type) else balancer
    typed = make_settings(model, **{**SMALL, **SIZES[model], "balancer": named, **settings})
    torch.manual_seed(1)
    built = MODELS.load(model)(typed, SCHEMA)
    if not isinstance(balancer, type):
        return TrainingModule(built, typed, steps_per_epoch=len(BATCHES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BALANCERS, "build", lambda choice, tasks: balancer(tasks))
        return TrainingModule(built, typed, steps_per_epoch=len(BATCHES))


def train(
    module: TrainingModule, *, epochs: int = 2, batches: Sequence[Features] = BATCHES, plugins: Any = None
) -> TrainingModule:
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, plugins=plugins,
    )  # fmt: skip
    trainer.fit(module, train_dataloaders=DataLoader(list(batches), batch_size=None))  # type: ignore[arg-type]
    return module


def weights(module: TrainingModule) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.model.named_parameters()}


def assert_same(one: TrainingModule, other: TrainingModule, *, atol: float) -> None:
    wanted, start = weights(one), weights(make_module("fixed", one.settings.model))
    for name, value in weights(other).items():
        torch.testing.assert_close(
            value, wanted[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert any(not torch.equal(wanted[name], start[name]) for name in wanted)


@pytest.mark.parametrize("table", ["lazy_adam", "adam"])
@pytest.mark.parametrize("model", ["MMoE", "PLE", "SingleTask", "DTN", "STEM"])
def test_the_sum_of_per_task_gradients_is_fixed(model: str, table: str) -> None:
    more = {"embedding_optimizer": {"name": table, "lr": None}}
    fixed = train(make_module("fixed", model, **more))
    assert_same(fixed, train(make_module(SumOfGradients, model, **more)), atol=1e-6)


def test_several_backward_passes_are_fixed() -> None:
    assert_same(train(make_module("fixed")), train(make_module(OneAfterAnother)), atol=1e-6)


def test_clipping_sees_the_combined_gradient() -> None:
    more = {"gradient_clip": 0.05, "optimizer": {**SMALL["optimizer"], "name": "sgd"}}  # type: ignore[dict-item]
    clipped = train(make_module("fixed", **more))
    assert_same(clipped, train(make_module(SumOfGradients, **more)), atol=1e-6)
    free = weights(train(make_module("fixed", optimizer=more["optimizer"])))
    assert any((free[name] - value).abs().max() > 1e-4 for name, value in weights(clipped).items())


# ---- the fp16 scaler ------------------------------------------------------------------------------------------------


class ScaledOnly(MixedPrecision):
    """A gradient scaler as under fp16, with forward passes in float32."""

    def __init__(self, scale: float) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        yield


SCALED = ["pcgrad", "mgda", "uncertainty", "gradnorm", "fixed", "db_mtl", "famo", "gls", "imtl", "nash_mtl"]


@pytest.mark.parametrize("balancer", SCALED)
def test_a_scaler_changes_nothing(balancer: str) -> None:
    plain = train(make_module(balancer))
    scaled = train(make_module(balancer), plugins=ScaledOnly(4096.0))
    assert_same(plain, scaled, atol=1e-6)
    for name, parameter in plain.balancer.named_parameters():
        torch.testing.assert_close(scaled.balancer.get_parameter(name), parameter, atol=1e-6, rtol=0)


@pytest.mark.parametrize("balancer", SCALED)
def test_a_scale_that_overflows_skips_the_step(balancer: str) -> None:
    module = make_module(balancer)
    before = weights(module)
    train(module, epochs=1, batches=BATCHES[:1], plugins=ScaledOnly(float("inf")))
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


# ---- a batch in parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", BALANCERS.names())
def test_a_batch_in_parts_takes_the_step_of_the_whole(balancer: str) -> None:
    """24 rows in 5 parts; some tasks are observed in a few rows only, so that a mean over parts would be another."""
    whole, parts = (train(make_module(balancer, batch_parts=number)) for number in (1, 5))
    assert_same(whole, parts, atol=2e-6)
    for name, parameter in whole.balancer.named_parameters():
        torch.testing.assert_close(parts.balancer.get_parameter(name), parameter, atol=1e-5, rtol=0)


def test_a_batch_in_parts_under_a_scaler() -> None:
    scaled = train(make_module("mgda", batch_parts=3), plugins=ScaledOnly(4096.0))
    assert_same(train(make_module("mgda")), scaled, atol=2e-6)


# ---- own parameters -------------------------------------------------------------------------------------------------


def test_own_parameters_are_stepped_at_their_rate_and_do_not_decay() -> None:
    module = make_module({"name": "uncertainty", "lr": 0.3}, weight_decay=0.5)
    train(module, epochs=1, batches=BATCHES[:1])
    # Adam's first step is lr * g / (|g| + eps).
    assert module.balancer.get_parameter("log_variance").abs().tolist() == pytest.approx([0.3, 0.3], abs=1e-3)
    follows = make_module("uncertainty", weight_decay=0.5)
    train(follows, epochs=1, batches=BATCHES[:1])
    assert follows.balancer.get_parameter("log_variance").abs().tolist() == pytest.approx([0.02, 0.02], abs=1e-3)


def test_own_parameters_follow_the_schedule() -> None:
    schedule = {"name": "constant", "warmup_steps": 4, "min_factor": 0.0, "gamma": 1.0}
    module = train(make_module({"name": "uncertainty", "lr": 0.4}, scheduler=schedule), epochs=1, batches=BATCHES[:1])
    assert module.balancer.get_parameter("log_variance").abs().tolist() == pytest.approx([0.1, 0.1], abs=1e-3)


def test_the_checkpoint_holds_the_balancer(tmp_path: Path) -> None:
    module = train(make_module("gradnorm"))
    vocabularies = Vocabularies.from_counts([], {}, {}, min_count=1)
    file = tmp_path / "checkpoint.ckpt"
    write_checkpoint(file, module.model, vocabularies, epoch=1, balancer=module.balancer)
    saved = read_checkpoint(file).balancer
    assert set(saved) == {"weights", "first"}
    assert torch.equal(saved["weights"], module.balancer.get_parameter("weights"))
    other = make_module("gradnorm").balancer
    other.load_state_dict(saved)
    content = torch.load(file, weights_only=True)
    del content["balancer"]  # as an older version wrote it
    save_plain(content, file)
    assert read_checkpoint(file).balancer == {}


# ---- hooks ----------------------------------------------------------------------------------------------------------


class Watches(LossBalancer):
    """Remembers what the hooks were called with."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        self.epochs: list[tuple[int, Tensor | None]] = []
        self.places: list[tuple[int, int]] = []
        self.losses: list[Tensor] = []

    def backward(self, step: Step) -> Tensor:
        self.places.append((step.epoch, step.index))
        self.losses.append(step.values)
        assert step.output is not None
        assert step.output.logits.shape == (24, 2)
        total = step.losses.sum() + step.extra
        step.run(total)
        return total.detach()

    def epoch_start(self, epoch: int, mean_losses: Tensor | None) -> None:
        self.epochs.append((epoch, mean_losses))


def test_an_epoch_starts_with_the_mean_losses_of_the_one_before() -> None:
    half = tiny_features(SCHEMA, 24, seed=9)
    half.observed[:, 1] = False  # a batch in which task 1 has no row is left out of its mean
    module = train(make_module(Watches), batches=[*BATCHES[:2], half])
    found = module.balancer
    assert isinstance(found, Watches)
    assert found.places == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    (first, none), (second, means) = found.epochs
    assert (first, none, second) == (0, None, 1)
    assert means is not None
    losses = torch.stack(found.losses[:3])
    assert losses[2, 1] == 0
    wanted = [losses[:, 0].mean().item(), losses[:2, 1].mean().item()]
    assert means.tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_task_that_was_never_observed_has_no_mean() -> None:
    batch = tiny_features(SCHEMA, 24, seed=9)
    batch.observed[:, 1] = False
    module = train(make_module(Watches), batches=[batch])
    assert isinstance(module.balancer, Watches)
    means = module.balancer.epochs[1][1]
    assert means is not None
    assert means.isnan().tolist() == [False, True]


class AfterTheStep(LossBalancer):
    """FAMO's way to learn: its logits follow what the step has done to the losses of the same batch."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        self.logits = nn.Parameter(torch.zeros(len(tasks)))
        self.lr = 0.1
        self.checks: list[Callable[[], None]] = []
        self.after: list[Tensor] = []

    def backward(self, step: Step) -> Tensor:
        total = (torch.softmax(self.logits.detach(), 0) * step.losses).sum() * len(self.logits) + step.extra
        step.run(total)
        return total.detach()

    def after_step(self, step: Step) -> None:
        again = step.losses_again()
        assert not again.requires_grad
        self.after.append(again)
        gained = step.values.log() - again.log()
        weights = torch.softmax(self.logits.detach(), 0)
        self.logits.grad = weights * (gained - (weights * gained).sum())
        step.update()


def test_losses_after_the_step_and_an_update_of_its_own() -> None:
    module = make_module(AfterTheStep, "DTN", tsn_scale="normalised", dropout=0.0)
    random = torch.get_rng_state()
    train(module, epochs=1, batches=BATCHES[:1])
    balancer = module.balancer
    assert isinstance(balancer, AfterTheStep)
    assert balancer.logits.detach().abs().tolist() == pytest.approx([0.1, 0.1], abs=1e-2)  # Adam's first step
    with torch.no_grad():
        mean = module.model.scales[0].mean.clone()
        again = module.model.train().task_losses(BATCHES[0], module.model(BATCHES[0]))
        assert not torch.equal(mean, module.model.scales[0].mean)  # a training pass moves it
    torch.testing.assert_close(balancer.after[0], again, atol=1e-5, rtol=0)
    other = make_module("fixed", "DTN", tsn_scale="normalised", dropout=0.0)
    torch.set_rng_state(random)
    train(other, epochs=1, batches=BATCHES[:1])
    torch.testing.assert_close(mean, other.model.scales[0].mean)


@pytest.mark.parametrize("balancer", ["pcgrad", "mgda"])
def test_dropout_draws_the_same_units_whatever_the_balancer(balancer: str) -> None:
    """The probe and the gradients draw nothing: the losses of the first step are those under ``fixed``."""
    losses = []
    for name in ("fixed", balancer):
        module = make_module(name, dropout=0.5)
        torch.manual_seed(5)
        train(module, epochs=1, batches=BATCHES[:1])
        losses.append(module.loss_sum.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
