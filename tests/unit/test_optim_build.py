"""The optimiser of a run: groups, weight decay, equality with stock Adam, GradScaler, checkpoints."""

import copy
import io
from typing import Any, ClassVar

import pytest
import torch

from recbole_dtn.config.settings import Settings
from recbole_dtn.layers.table import RowTable
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.mmoe import MMoE
from recbole_dtn.optim.build import build_optimizer, decays, sparse_gradients
from recbole_dtn.optim.combined import CombinedOptimizer
from recbole_dtn.optim.lazy import LazyAdam
from recbole_dtn.optim.schedule import build_schedule
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema

SCHEMA = tiny_schema(dense=0, multi=("sum",))
BATCHES = [tiny_features(SCHEMA, 8, seed=seed) for seed in range(5)]
DENSE = ("adam", "adamw", "sgd", "adagrad")
TABLES = ("adam", "lazy_adam", "rowwise_adagrad", "adagrad", "sgd")


def make(dense: str = "adam", table: str = "lazy_adam", table_lr: float | None = None, **more: Any) -> Settings:
    return make_settings(
        "MMoE",
        embedding_size=4,
        optimizer={"name": dense, "lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4},
        embedding_optimizer={"name": table, "lr": table_lr},
        expert_hidden=[6],
        tower_hidden=[3],
        **more,
    )


def build(settings: Settings) -> MultiTaskRecommender:
    torch.manual_seed(1)
    model: MultiTaskRecommender = MODELS.load("MMoE")(settings, SCHEMA)
    return model


def loss_of(model: MultiTaskRecommender, number: int) -> torch.Tensor:
    losses = model.task_losses(BATCHES[number], model(BATCHES[number]))
    return losses.sum() + sum(model.penalties().values(), torch.zeros(()))


def train(model: MultiTaskRecommender, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        optimizer.zero_grad()
        loss_of(model, number).backward()
        optimizer.step()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def table_names(model: MultiTaskRecommender) -> set[str]:
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, RowTable)}


def test_with_dense_adam_it_is_stock_adam_over_all_parameters_bit_for_bit() -> None:
    settings = make("adam", "adam")
    ours, stock = build(settings), build(settings)
    optimizer = build_optimizer(ours, settings)
    train(ours, optimizer, range(5))
    train(stock, torch.optim.Adam(stock.parameters(), lr=0.05, betas=(0.8, 0.9), eps=1e-4), range(5))
    for name, parameter in stock.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name)), name


@pytest.mark.parametrize("table", TABLES)
def test_tables_are_sparse_except_under_dense_adam(table: str) -> None:
    settings = make(table=table)
    model = build(settings)
    build_optimizer(model, settings)
    loss_of(model, 0).backward()
    gradients = [found.weight.grad for found in model.tables()]
    assert gradients
    assert all(gradient is not None and gradient.is_sparse == (table != "adam") for gradient in gradients)


@pytest.mark.parametrize(("dense", "kind"), [("adamw", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_the_dense_part_is_the_named_one(dense: str, kind: type) -> None:
    settings = make(dense, table_lr=0.5)
    model = build(settings)
    first, second = build_optimizer(model, settings).parts
    assert type(first) is kind
    assert isinstance(second, LazyAdam)
    assert {group["lr"] for group in first.param_groups} == {0.05}
    assert [group["lr"] for group in second.param_groups] == [0.5]
    assert second.param_groups[0]["betas"] == (0.8, 0.9)
    held = [parameter for part in (first, second) for group in part.param_groups for parameter in group["params"]]
    assert len(held) == len({id(parameter) for parameter in held}) == len(list(model.parameters()))


class TwoRates(MMoE):
    """Its gates learn ten times as fast as the rest, its first tower's logit half as fast."""

    factors: ClassVar[tuple[float, float]] = (10.0, 0.5)

    def learning_rates(self) -> dict[torch.nn.Parameter, float]:
        logit = self.heads()[0]
        return {**dict.fromkeys(self.gates.parameters(), self.factors[0]), logit.weight: 0.5, logit.bias: 0.5}


def test_parameters_with_a_learning_rate_of_their_own() -> None:
    settings = make(
        "sgd", weight_decay=0.3, scheduler={"name": "linear", "warmup_steps": 0, "min_factor": 0.0, "gamma": 1.0}
    )
    model, plain = TwoRates(settings, SCHEMA), build(settings)
    optimizer = build_optimizer(model, settings)
    found = {
        name: (group["lr"], group["decoupled_decay"])
        for group in optimizer.parts[0].param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    tables = table_names(model)
    assert set(found) == {name for name, _ in model.named_parameters()} - tables
    for name, (rate, decay) in found.items():
        factor = 10.0 if name.startswith("gates") else 0.5 if name.startswith("towers.towers.0.logit") else 1.0
        assert rate == pytest.approx(0.05 * factor), name
        assert decay == (0.0 if "bias" in name else 0.3), name
    # A group without one of its own stays first, as in a saved state; schedules scale every group.
    assert [group["lr"] for group in optimizer.param_groups[:2]] == [0.05, 0.05]
    assert len(build_optimizer(plain, settings).param_groups) == 3
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = build_schedule(optimizer, settings.scheduler, steps_per_epoch=5, epochs=2)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.9 * rate for rate in rates])


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_is_no_learning_rate_is_refused(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoRates, "factors", (factor, 0.5))
    model = TwoRates(make(), SCHEMA)
    with pytest.raises(
        ValueError, match=f"TwoRates.learning_rates: expected a factor above 0 .* found {factor} for a p"
    ):
        build_optimizer(model, model.settings)


def test_a_table_has_the_learning_rate_of_its_own_optimiser() -> None:
    model = build(make())
    model.learning_rates = lambda: {model.tables()[0].weight: 2.0}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"found 2\.0 for a table of shape"):
        build_optimizer(model, model.settings)


@pytest.mark.parametrize("dense", DENSE)
def test_weight_decay_shrinks_dense_weights_before_the_update(dense: str) -> None:
    """One step from the same weights: the difference is lr * weight_decay * w on weights, and nothing elsewhere."""
    found = []
    for decay in (0.0, 0.5):
        settings = make(dense, weight_decay=decay)
        model = build(settings)
        start = weights(model)
        train(model, build_optimizer(model, settings), range(1))
        found.append(weights(model))
    tables = table_names(model)
    decayed = 0
    for name, before in start.items():
        expected = found[0][name]
        if name not in tables and "bias" not in name:
            expected = expected - 0.05 * 0.5 * before
            decayed += 1
        torch.testing.assert_close(found[1][name], expected, atol=1e-6, rtol=0)
    assert decayed >= 6  # experts, gates and towers of two tasks


def test_weight_decay_is_that_of_adamw() -> None:
    settings = make("adamw", "adam", weight_decay=0.3)
    ours, stock = build(settings), build(settings)
    optimizer = build_optimizer(ours, settings)
    tables = table_names(stock)
    plain = [p for name, p in stock.named_parameters() if name in tables or "bias" in name]
    heavy = [p for name, p in stock.named_parameters() if not (name in tables or "bias" in name)]
    reference = torch.optim.AdamW(
        [{"params": heavy, "weight_decay": 0.3}, {"params": plain, "weight_decay": 0.0}],
        lr=0.05, betas=(0.8, 0.9), eps=1e-4,
    )  # fmt: skip
    train(ours, optimizer, range(4))
    train(stock, reference, range(4))
    for name, parameter in stock.named_parameters():
        torch.testing.assert_close(parameter, ours.get_parameter(name), atol=1e-6, rtol=0)


def test_biases_vectors_and_norms_do_not_decay() -> None:
    class FieldNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(2, 3))

    model = torch.nn.Module()
    model.linear = torch.nn.Linear(3, 2)
    model.norm = FieldNorm()
    model.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(4, 1, 2))])
    model.scale = torch.nn.Parameter(torch.ones(3))
    model.experts = torch.nn.Parameter(torch.ones(4, 3, 2))
    assert [name for name, _ in model.named_parameters() if decays(model, name)] == ["experts", "linear.weight"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("dense", DENSE)
def test_a_checkpoint_continues_identically(dense: str, table: str) -> None:
    settings = make(dense, table, weight_decay=0.1)
    model = build(settings)
    optimizer = build_optimizer(model, settings)
    start = weights(model)
    train(model, optimizer, range(3))
    assert all(not torch.equal(after, start[name]) for name, after in weights(model).items())
    buffer = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    other = build(settings)
    restored = build_optimizer(other, settings)
    other.load_state_dict(saved["model"])
    restored.load_state_dict(saved["optimizer"])
    train(model, optimizer, range(3, 5))
    train(other, restored, range(3, 5))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


@pytest.mark.parametrize("reload", [False, True])
def test_a_schedule_reaches_the_parts(reload: bool) -> None:
    settings = make("sgd", "sgd", scheduler={"name": "linear", "warmup_steps": 0, "min_factor": 0.0, "gamma": 1.0})
    model = build(settings)
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings.scheduler, steps_per_epoch=2, epochs=1)
    train(model, optimizer, range(1))
    schedule.step()
    if reload:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = weights(model)
    optimizer.zero_grad()
    loss_of(model, 1).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = before[name] - 0.025 * parameter.grad.to_dense()
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-7, rtol=0)


def test_states_of_the_parts_are_the_states_of_the_whole() -> None:
    settings = make()
    model = build(settings)
    optimizer = build_optimizer(model, settings)
    train(model, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    assert all(part.state is optimizer.state for part in optimizer.parts)
    assert set(optimizer.state) == set(model.parameters())
    groups = [group for part in optimizer.parts for group in part.param_groups]
    assert all(ours is theirs for ours, theirs in zip(optimizer.param_groups, groups, strict=True))


@pytest.mark.parametrize("table", TABLES)
def test_a_gradient_scaler_changes_nothing_and_skips_infinities(table: str) -> None:
    settings = make(table=table, weight_decay=0.1)
    plain, scaled = build(settings), build(settings)
    train(plain, build_optimizer(plain, settings), range(3))
    optimizer = build_optimizer(scaled, settings)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number in range(3):
        optimizer.zero_grad()
        scaler.scale(loss_of(scaled, number)).backward()
        scaler.unscale_(optimizer)  # as Lightning does, so that gradients can be clipped
        scaler.step(optimizer)
        scaler.update()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter, scaled.get_parameter(name), atol=1e-6, rtol=0)
    before = weights(scaled)
    optimizer.zero_grad()
    scaler.scale(loss_of(scaled, 3) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert all(torch.equal(after, before[name]) for name, after in weights(scaled).items())


def test_embedding_l2_pulls_each_row_by_its_look_ups() -> None:
    """Gradient of the penalty of row r: l2 / B * (times the batch looks r up) * r; the update is lr times that."""
    settings = make("sgd", "sgd", embedding_l2=0.6)
    model = build(settings)
    optimizer = build_optimizer(model, settings)
    (table,) = model.tables()
    before = table.weight.detach().clone()
    features = BATCHES[0]
    counts = torch.zeros(len(before))
    for rows in (features.ids[features.ids >= 0], *(many.values for many in features.multi.values())):
        counts += torch.bincount(rows, minlength=len(before))
    assert counts.max() > 1
    assert counts.min() == 0
    model(features)
    model.penalties()["embedding_l2"].backward()
    optimizer.step()
    expected = before - 0.05 * 0.6 / 8 * counts[:, None] * before
    torch.testing.assert_close(table.weight.detach(), expected, atol=1e-8, rtol=0)


def test_frozen_parameters_are_left_out() -> None:
    settings = make(weight_decay=0.5)
    model = build(settings)
    frozen = [model.tables()[0].weight, next(p for name, p in model.named_parameters() if "tower" in name)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in frozen]
    train(model, build_optimizer(model, settings), range(2))
    assert all(torch.equal(now, then) for now, then in zip(frozen, before, strict=True))


def test_a_closure_is_called_with_gradients_on() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = CombinedOptimizer([torch.optim.SGD([weight], lr=1.0)])

    def closure() -> torch.Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 4.0
    assert weight.item() == -2.0


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_know_before_ddp_asks_what_the_optimiser_will_want(table: str) -> None:
    settings = make(table=table)
    model = build(settings)
    build_optimizer(model, settings)
    assert {found.sparse for found in model.tables()} == {sparse_gradients(settings)} == {table != "adam"}


@pytest.mark.parametrize("table", ["adam", "lazy_adam"])
def test_gradients_from_autograd_grad_train_as_those_of_backward(table: str) -> None:
    """``autograd.grad`` may give a transposed gradient, which torch's fused kernel would read in the wrong order."""
    settings = make(table=table, weight_decay=0.1)
    settings = type(settings).model_validate({**settings.model_dump(), "expert_hidden": [6, 5], "tower_hidden": [4]})
    wanted, found = build(settings), build(settings)
    parameters = list(found.parameters())
    optimizer = build_optimizer(found, settings)
    train(wanted, build_optimizer(wanted, settings), range(5))
    transposed = 0
    for number in range(5):
        losses = found.task_losses(BATCHES[number], found(BATCHES[number]))
        for parameter in parameters:
            parameter.grad = None
        for loss in losses:
            each = torch.autograd.grad(loss, parameters, retain_graph=True)
            for parameter, gradient in zip(parameters, each, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
                transposed += not gradient.is_sparse and gradient.stride() != parameter.stride()
        optimizer.step()
    assert transposed
    for name, parameter in wanted.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), parameter, atol=1e-6, rtol=0, msg=name)


def test_only_a_gradient_of_another_layout_is_copied() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(3)]
    weights.append(torch.nn.Parameter(torch.zeros(4, 1)))
    own, transposed = torch.ones(2, 3), torch.arange(6.0).view(3, 2).t()
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.ones(2, 3), (2, 3))
    column = torch.ones(1, 4).t()  # of another stride in a dimension of size 1: the same layout
    gradients = [own, transposed, sparse, column]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    CombinedOptimizer([torch.optim.SGD(weights, lr=1.0)]).step()
    assert weights[0].grad is own
    assert weights[2].grad is sparse
    assert weights[3].grad is column
    assert weights[1].grad is not None
    assert weights[1].grad.is_contiguous()
    assert torch.equal(weights[1].grad, transposed)
