"""Another library under the embedding table: the same look-ups, updates and checkpoints, or a clear refusal."""

import copy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_dtn.config.checks import FBGEMM_RULES
from recbole_dtn.config.digest import settings_digest
from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.backends import new_table, packages, require
from recbole_dtn.layers.backends.fbgemm import RULES, FbgemmTable
from recbole_dtn.layers.table import RowTable
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.optim.build import build_optimizer
from recbole_dtn.optim.schedule import build_schedule
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.training.fit import fit_settings

OTHERS = ("fbgemm",)
DEVICES = ("cpu", "cuda")
SCHEMA = tiny_schema()
BATCHES = [tiny_features(SCHEMA, 8, seed=seed) for seed in range(6)]


def needs(backend: str, device: str = "cpu") -> None:
    package = packages.PACKAGES[backend]
    if find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed: backend {backend} is not tested here")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device: backend {backend} is not tested on one here")


def make(backend: str = "fbgemm", rule: str = "rowwise_adagrad", **more: Any) -> Settings:
    given: dict[str, Any] = {
        "embedding_size": 4,
        "embedding_backend": backend,
        "embedding_l2": 0.1,
        "optimizer": {"name": "adam", "lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-4},
        "embedding_optimizer": {"name": rule, "lr": 2.0 if rule == "sgd" else 0.03},
        "scheduler": {"name": "linear", "warmup_steps": 2, "min_factor": 0.1, "gamma": 1.0},
    }
    return make_settings("MMoE", expert_hidden=[6], tower_hidden=[3], **(given | more))


def build(settings: Settings, device: str = "cpu") -> MultiTaskRecommender:
    torch.manual_seed(1)
    model: MultiTaskRecommender = MODELS.load("MMoE")(settings, SCHEMA)
    return model.to(device)


def train(model: MultiTaskRecommender, settings: Settings, *, one_by_one: bool = False) -> torch.optim.Optimizer:
    """Steps as the training module takes them; ``one_by_one``: a backward pass per task, as gradient surgery does."""
    optimizer = build_optimizer(model, settings)
    schedule = build_schedule(optimizer, settings.scheduler, steps_per_epoch=len(BATCHES), epochs=1)
    for batch in BATCHES:
        batch = batch.to(next(model.parameters()).device)
        optimizer.zero_grad()
        losses = model.task_losses(batch, model(batch))
        extra = torch.stack(list(model.penalties().values())).sum()
        for loss in (*losses, extra) if one_by_one else (losses.sum() + extra,):
            loss.backward(retain_graph=True)
        optimizer.step()
        schedule.step()
    return optimizer


def assert_same(one: torch.nn.Module, two: torch.nn.Module) -> None:
    expected, found = one.state_dict(), two.state_dict()
    assert list(expected) == list(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0, msg=name)


# ---- what the backends give -------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", OTHERS)
def test_a_look_up_is_the_rows_and_its_gradient_is_that_of_torch(backend: str, device: str) -> None:
    needs(backend, device)
    rows = torch.tensor([[3, 0, 3], [8, 3, 1]], device=device)
    gradients = []
    for name in ("torch", backend):
        torch.manual_seed(0)
        table = new_table(name, 9, 4, std=1.0).to(device)
        table.sparse, table.l2 = True, 0.5
        found = table.look_up(rows, batch_size=2)
        assert torch.equal(found, table.weight[rows])
        assert table.penalty is not None
        assert table.penalty.item() == pytest.approx(0.5 / 2 / 2 * table.weight[rows].square().sum().item(), rel=1e-6)
        ((found * torch.arange(4.0, device=device)).sum() + 3 * table.penalty).backward()
        assert table.weight.grad is not None
        assert table.weight.grad.is_sparse
        gradients.append(table.weight.grad.to_dense())
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", OTHERS)
def test_the_weight_is_the_only_parameter_and_stays_the_one_that_is_read(backend: str) -> None:
    needs(backend)
    table = new_table(backend, 9, 4, std=1.0)
    rows = torch.tensor([2, 2, 7])
    table.look_up(rows, batch_size=3)
    assert list(table.state_dict()) == [name for name, _ in table.named_parameters()] == ["weight"]
    copied = copy.deepcopy(table)
    with torch.no_grad():
        table.weight.fill_(2.0)
    assert table.look_up(rows, batch_size=3).eq(2.0).all()
    table.weight = torch.nn.Parameter(torch.full((9, 4), 3.0))
    assert table.look_up(rows, batch_size=3).eq(3.0).all()
    assert torch.equal(copied.look_up(rows, batch_size=3), copied.weight[rows])
    assert copied.weight.abs().max() < 6.0


@pytest.mark.parametrize("backend", OTHERS)
def test_no_rows_autocast_and_inference_mode(backend: str) -> None:
    needs(backend)
    table = new_table(backend, 9, 4, std=1.0).eval()
    rows = torch.tensor([5, 5])
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = table.look_up(rows, batch_size=1)
        assert found.dtype is torch.float32
        assert torch.equal(found, table.weight[rows])
        assert table.look_up(rows[:0], batch_size=1).shape == (0, 4)
    table.train()
    table.look_up(rows, batch_size=1).sum().backward()  # what was built in inference mode does not stay behind
    assert table.weight.grad is not None
    assert table.weight.grad.sum() == 8.0


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rule", FBGEMM_RULES)
@pytest.mark.parametrize("backend", OTHERS)
def test_training_moves_the_same_weights_as_with_torch(backend: str, rule: str, device: str, one_by_one: bool) -> None:
    """Schedule, penalty, duplicates, and (one_by_one) several backward passes in one step."""
    needs(backend, device)
    ours, theirs = build(make("torch", rule), device), build(make(backend, rule), device)
    before = theirs.tables()[0].weight.detach().clone()
    assert_same(ours, theirs)
    train(ours, make("torch", rule), one_by_one=one_by_one)
    train(theirs, make(backend, rule), one_by_one=one_by_one)
    assert (theirs.tables()[0].weight - before).abs().max() > 1e-3
    assert_same(ours, theirs)


@pytest.mark.parametrize("rule", FBGEMM_RULES)
def test_states_of_one_backend_continue_in_the_other(rule: str) -> None:
    """Train with one, load weights and optimiser into the other, train on: as if torch had done it all."""
    needs("fbgemm")
    reference = build(make("torch", rule))
    saved = copy.deepcopy(train(reference, make("torch", rule)).state_dict())
    middle = copy.deepcopy(reference.state_dict())
    for first, second in (("torch", "fbgemm"), ("fbgemm", "torch")):
        one, two = build(make(first, rule)), build(make(second, rule))
        state = train(one, make(first, rule)).state_dict()
        assert [list(part) for part in state["state"].values()] == [list(part) for part in saved["state"].values()]
        assert_same(reference, one)
        two.load_state_dict(one.state_dict())
        optimizer = build_optimizer(two, make(second, rule))
        optimizer.load_state_dict(copy.deepcopy(state))
        control = build(make("torch", rule))
        control.load_state_dict(middle)
        expected = build_optimizer(control, make("torch", rule))
        expected.load_state_dict(copy.deepcopy(saved))
        for model, update in ((two, optimizer), (control, expected)):
            for batch in BATCHES[:3]:
                update.zero_grad()
                model.task_losses(batch, model(batch)).sum().backward()
                update.step()
        assert_same(control, two)


def test_a_gradient_scaler_unscales_and_skips_infinities() -> None:
    needs("fbgemm")
    plain, scaled = build(make(rule="adagrad")), build(make(rule="adagrad"))
    straight = build_optimizer(plain, make(rule="adagrad"))
    optimizer = build_optimizer(scaled, make(rule="adagrad"))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in BATCHES:
        straight.zero_grad()
        plain.task_losses(batch, plain(batch)).sum().backward()
        straight.step()
        optimizer.zero_grad()
        scaler.scale(scaled.task_losses(batch, scaled(batch)).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert_same(plain, scaled)
    before = copy.deepcopy(scaled.state_dict())
    optimizer.zero_grad()
    scaler.scale(scaled.task_losses(BATCHES[0], scaled(BATCHES[0])).sum() * float("inf")).backward()
    scaler.step(optimizer)
    assert all(torch.equal(after, before[name]) for name, after in scaled.state_dict().items())


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", OTHERS)
def test_a_missing_package_is_told_before_any_data_is_read(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = packages.PACKAGES[backend]
    monkeypatch.setitem(sys.modules, package, None)  # import then fails as if it were not installed
    require.cache_clear()
    rule = "--embedding_optimizer.name=sgd"
    words = [f"--embedding_backend={backend}", rule, f"--data_path={tmp_path}/none", "--quiet=true"]
    with pytest.raises(UsageError) as error:
        fit_settings(resolve(words))
    message = str(error.value)
    assert message.startswith(f"embedding_backend={backend} needs the package {package}, which is not installed")
    assert "pip install" in message
    assert "embedding_backend=torch" in message
    with pytest.raises(UsageError, match=package):
        new_table(backend, 5, 4, std=1.0)
    monkeypatch.undo()
    require.cache_clear()


def test_a_package_that_does_not_load_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise OSError(f"{name}: libtorch_cuda.so: cannot open shared object file\nmore")

    monkeypatch.setattr(packages, "import_module", fails)
    require.cache_clear()
    with pytest.raises(UsageError, match=r"does not load here \(fbgemm_gpu: libtorch_cuda.so: cannot open") as error:
        require("fbgemm")
    assert "\n" not in str(error.value)
    require.cache_clear()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "rowwise_adagrad, adagrad or sgd; found lazy_adam"),
        (["--embedding_optimizer.name=adam"], "rowwise_adagrad, adagrad or sgd; found adam"),
        (["--embedding_optimizer.name=sgd", "--embedding_size=6"], "embedding_size: expected a multiple of 4"),
        (["--embedding_optimizer.name=sgd", "--embedding_dtype=bfloat16"], "embedding_dtype: expected float32"),
    ],
)
def test_what_fbgemm_cannot_do_as_torch_does_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(["--embedding_backend=fbgemm", *words])
    assert message in str(error.value)


def test_a_table_refuses_what_the_settings_would() -> None:
    with pytest.raises(UsageError, match="multiple of 4 and embedding_dtype=float32; found 6 and float32"):
        FbgemmTable(5, 6, std=1.0)
    with pytest.raises(UsageError, match="found 4 and bfloat16"):
        FbgemmTable(5, 4, std=1.0, dtype=torch.bfloat16)


def test_the_default_needs_no_package_and_rules_agree() -> None:
    assert resolve([]).settings.embedding_backend == "torch"
    assert type(new_table("torch", 5, 4, std=1.0)) is RowTable
    assert set(RULES) == set(FBGEMM_RULES)


def test_backends_are_one_experiment() -> None:
    digests = {settings_digest(make(backend)) for backend in ("torch", *OTHERS)}
    assert len(digests) == 1


def test_a_backend_that_is_not_offered_is_refused() -> None:
    with pytest.raises(UsageError, match="embedding_backend: expected one of torch, fbgemm"):
        resolve(["--embedding_backend=torchrec"])
