"""Each optimiser of a table against the same formula in numpy, over five steps with duplicates in the batch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from recbole_dtn.kernels.pages import PAGE, huge_pages
from recbole_dtn.layers.rows import touched_rows
from recbole_dtn.layers.table import RowTable
from recbole_dtn.optim.combined import CombinedOptimizer
from recbole_dtn.optim.lazy import LazyAdam
from recbole_dtn.optim.rows import RowOptimizer, rounded_at_random
from recbole_dtn.optim.rowwise import SGD, Adagrad, RowwiseAdagrad

ROWS, DIM = 9, 3
BATCHES = ([1, 4, 1, 8], [4, 4, 4], [0, 8, 2], [1], [2, 1, 0, 2, 4, 2])  # rows 3, 5, 6, 7 never


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, DIM))


def gradient(step: int) -> np.ndarray:
    """Of every look-up of batch ``step``, (n, DIM)."""
    return np.random.default_rng(10 + step).normal(size=(len(BATCHES[step]), DIM))


def summed(step: int) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for row, part in zip(BATCHES[step], gradient(step), strict=True):
        found[row] = found.get(row, 0) + part
    return found


def lazy_adam(lr: float = 0.1, b1: float = 0.8, b2: float = 0.95, eps: float = 1e-3) -> np.ndarray:
    w, m, v = start(), np.zeros((ROWS, DIM)), np.zeros((ROWS, DIM))
    for step in range(5):
        for row, g in summed(step).items():
            m[row] = b1 * m[row] + (1 - b1) * g
            v[row] = b2 * v[row] + (1 - b2) * g * g
            w[row] -= lr * (m[row] / (1 - b1 ** (step + 1))) / (np.sqrt(v[row] / (1 - b2 ** (step + 1))) + eps)
    return w


def rowwise_adagrad(lr: float = 0.1, eps: float = 1e-3) -> np.ndarray:
    w, a = start(), np.zeros(ROWS)
    for step in range(5):
        for row, g in summed(step).items():
            a[row] += sum(x * x for x in g) / DIM
            w[row] -= lr * g / (math.sqrt(a[row]) + eps)
    return w


def adagrad(lr: float = 0.1, eps: float = 1e-3) -> np.ndarray:
    w, a = start(), np.zeros((ROWS, DIM))
    for step in range(5):
        for row, g in summed(step).items():
            a[row] += g**2
            w[row] -= lr * g / (np.sqrt(a[row]) + eps)
    return w


def sgd(lr: float = 0.1) -> np.ndarray:
    w = start()
    for step in range(5):
        for row, g in summed(step).items():
            w[row] -= lr * g
    return w


OPTIMIZERS: list[tuple[type[RowOptimizer], dict[str, Any], Any]] = [
    (LazyAdam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}, lazy_adam),
    (RowwiseAdagrad, {"lr": 0.1, "eps": 1e-3}, rowwise_adagrad),
    (Adagrad, {"lr": 0.1, "eps": 1e-3}, adagrad),
    (SGD, {"lr": 0.1}, sgd),
]


def take_step(weight: torch.nn.Parameter, optimizer: RowOptimizer, step: int) -> None:
    optimizer.zero_grad()
    found = functional.embedding(torch.tensor(BATCHES[step]), weight, sparse=True)
    (found * torch.tensor(gradient(step), dtype=weight.dtype)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.is_sparse
    optimizer.step()


@pytest.mark.parametrize(("kind", "options", "reference"), OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_five_steps_equal_numpy(kind: type[RowOptimizer], options: Any, reference: Any, dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(torch.tensor(start(), dtype=dtype))
    optimizer = kind([weight], **options)
    for step in range(5):
        take_step(weight, optimizer, step)
    np.testing.assert_allclose(weight.detach().numpy(), reference(), atol=1e-12 if dtype == torch.float64 else 1e-5)
    untouched = [3, 5, 6, 7]
    assert torch.equal(weight.detach()[untouched], torch.tensor(start(), dtype=dtype)[untouched])


@pytest.mark.parametrize(("kind", "options", "reference"), OPTIMIZERS)
def test_a_restored_state_continues_identically(kind: type[RowOptimizer], options: Any, reference: Any) -> None:
    weight = torch.nn.Parameter(torch.tensor(start()))
    optimizer = kind([weight], **options)
    for step in range(3):
        take_step(weight, optimizer, step)
    other = torch.nn.Parameter(weight.detach().clone())
    restored = kind([other], **{**options, "lr": 7.0})
    restored.load_state_dict(optimizer.state_dict())
    for step in (3, 4):
        take_step(other, restored, step)
    np.testing.assert_allclose(other.detach().numpy(), reference(), atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (LazyAdam, torch.optim.Adam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
        (Adagrad, torch.optim.Adagrad, {"lr": 0.1, "eps": 1e-3}),
        (SGD, torch.optim.SGD, {"lr": 0.1}),
    ],
)
def test_with_dense_gradients_it_is_torchs_dense_optimiser(ours: Any, theirs: Any, options: Any) -> None:
    first, second = (torch.nn.Parameter(torch.tensor(start())) for _ in range(2))
    one, two = ours([first], **options), theirs([second], **options)
    for step in range(5):
        first.grad = torch.tensor(np.random.default_rng(step).normal(size=(ROWS, DIM)))
        second.grad = first.grad.clone()
        one.step()
        two.step()
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)


def test_rowwise_adagrad_keeps_one_number_per_row() -> None:
    weight = torch.nn.Parameter(torch.tensor(start()))
    optimizer = RowwiseAdagrad([weight])
    take_step(weight, optimizer, 0)
    total = optimizer.state[weight]["sum"]
    assert total.shape == (ROWS,)
    assert total[1].item() == pytest.approx((summed(0)[1] ** 2).mean())
    assert total[3].item() == 0.0


def test_touched_rows_of_each_kind_of_gradient() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    sparse = torch.sparse_coo_tensor(torch.tensor([[2, 0, 2]]), values, (4, 2), check_invariants=True)
    for gradient_ in (sparse, sparse.coalesce()):
        rows, found = touched_rows(gradient_)
        assert rows.tolist() == [0, 2]
        assert found.tolist() == [[3.0, 4.0], [11.0, 22.0]]
    rows, found = touched_rows(values)
    assert rows.tolist() == [0, 1, 2]
    assert torch.equal(found, values)
    empty = torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64), torch.empty(0, 2), (4, 2), check_invariants=True
    )
    rows, found = touched_rows(empty)
    assert rows.shape == (0,)
    assert found.shape == (0, 2)


@pytest.mark.parametrize(("kind", "options", "reference"), OPTIMIZERS)
def test_a_batch_without_a_look_up_moves_nothing(kind: type[RowOptimizer], options: Any, reference: Any) -> None:
    weight = torch.nn.Parameter(torch.tensor(start()))
    optimizer = kind([weight], **options)
    functional.embedding(torch.empty(0, dtype=torch.int64), weight, sparse=True).sum().backward()
    optimizer.step()
    assert torch.equal(weight.detach(), torch.tensor(start()))


def test_a_dense_and_a_sparse_gradient_of_one_step_add_up() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 1))
    optimizer = SGD([weight], lr=1.0)
    (functional.embedding(torch.tensor([1, 1]), weight, sparse=True).sum() + weight.sum()).backward()
    optimizer.step()
    assert weight.flatten().tolist() == [-1.0, -3.0, -1.0]


@pytest.mark.parametrize("rows", [50, 2**58])  # the second leaves no room to pack a row and its place into 63 bits
def test_many_look_ups_are_summed_per_row_in_the_order_of_the_batch(rows: int) -> None:
    random = np.random.default_rng(5)
    looked_up = rows - 1 - random.integers(0, 50, 3000)
    values = random.normal(size=(3000, 4)).astype(np.float32)
    sparse = torch.sparse_coo_tensor(
        torch.from_numpy(looked_up)[None], torch.from_numpy(values), (rows, 4), check_invariants=True
    )
    found, sums = touched_rows(sparse)
    assert found.tolist() == sorted(set(looked_up.tolist()))
    for row, total in zip(found.tolist(), sums, strict=True):
        np.testing.assert_allclose(total.numpy(), values[looked_up == row].sum(0, dtype=np.float64), atol=2e-5)
    assert torch.equal(touched_rows(sparse)[1], sums)


def test_rounding_at_random_keeps_the_mean_and_repeats_with_the_seed() -> None:
    # The bfloat16 neighbours of 1 + 1/1024 are 1 and 1 + 1/128: it becomes the upper one in 1/8 of the cases.
    values = torch.full((200_000,), 1 + 1 / 1024)
    torch.manual_seed(3)
    rounded = rounded_at_random(values)
    assert rounded.dtype is torch.bfloat16
    assert set(rounded.float().tolist()) == {1.0, 1 + 1 / 128}
    share = (rounded > 1).double().mean().item()
    assert share == pytest.approx(1 / 8, abs=4 * math.sqrt(1 / 8 * 7 / 8 / 200_000))
    torch.manual_seed(3)
    assert torch.equal(rounded_at_random(values), rounded)
    negative = rounded_at_random(-values).double().mean().item()
    assert negative == pytest.approx(-(1 + 1 / 1024), abs=5e-5)
    special = torch.tensor([math.inf, -math.inf, 0.0, 1.5])
    assert torch.equal(rounded_at_random(special).float(), special)
    assert rounded_at_random(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize(("kind", "options", "reference"), OPTIMIZERS)
def test_a_bfloat16_table_follows_the_float32_one_on_average(
    kind: type[RowOptimizer], options: Any, reference: Any
) -> None:
    tables = []
    for seed in range(50):
        torch.manual_seed(seed)
        weight = torch.nn.Parameter(torch.tensor(start()).bfloat16())
        optimizer = kind([weight], **options)
        for step in range(5):
            take_step(weight, optimizer, step)
        assert all(part.dtype is torch.float32 for part in optimizer.state[weight].values() if torch.is_tensor(part))
        tables.append(weight.detach().float())
    mean = torch.stack(tables).mean(0).numpy()
    np.testing.assert_allclose(mean, reference(), atol=0.02)  # start() and gradients themselves were rounded to 1/256
    untouched = torch.tensor(start()).bfloat16().float()[3]
    assert torch.equal(tables[0][3], untouched)


def test_steps_below_half_a_unit_are_not_lost_in_bfloat16() -> None:
    weight = torch.nn.Parameter(torch.ones(1, 4096, dtype=torch.bfloat16))
    optimizer = SGD([weight], lr=1e-4)
    for _ in range(100):
        weight.grad = torch.sparse_coo_tensor(
            torch.tensor([[0]]), torch.ones(1, 4096, dtype=torch.bfloat16), (1, 4096), check_invariants=True
        )
        optimizer.step()
    assert weight.double().mean().item() == pytest.approx(0.99, abs=5e-4), "rounding to nearest would stay at 1"


def test_the_state_of_a_bfloat16_table_is_restored_in_float32() -> None:
    weight = torch.nn.Parameter(torch.tensor(start()).bfloat16())
    optimizer = CombinedOptimizer([LazyAdam([weight])])
    for step in range(3):
        take_step(weight, optimizer, step)  # type: ignore[arg-type]
    other = torch.nn.Parameter(weight.detach().clone())
    restored = CombinedOptimizer([LazyAdam([other])])
    restored.load_state_dict(optimizer.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        assert restored.state[other][name].dtype is torch.float32
        assert torch.equal(restored.state[other][name], optimizer.state[weight][name])
    restored.state[other]["exp_avg"].zero_()
    assert optimizer.state[weight]["exp_avg"].any(), "the restored state is a copy"


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_penalised_look_up_has_both_gradients(sparse: bool, dtype: torch.dtype) -> None:
    table = RowTable(6, 2, std=1.0, dtype=dtype)
    table.sparse, table.l2 = sparse, 0.5
    rows = torch.tensor([[1, 4], [1, 1]])
    found = table.look_up(rows, batch_size=2)
    assert found.dtype is torch.float32
    assert found.shape == (2, 2, 2)
    assert table.penalty is not None
    factors = torch.arange(8.0).view(2, 2, 2)
    ((found * factors).sum() + 3 * table.penalty).backward()
    assert table.weight.grad is not None
    assert table.weight.grad.is_sparse == sparse
    given = table.weight.detach().float()
    expected = torch.zeros(6, 2)
    for row, factor in zip(rows.flatten().tolist(), factors.view(4, 2), strict=True):
        expected[row] += factor + 3 * 0.5 / 2 * given[row]
    tolerance = 1e-6 if dtype is torch.float32 else 0.2
    torch.testing.assert_close(table.weight.grad.to_dense().float(), expected, atol=tolerance, rtol=0)


def test_large_pages_keep_the_values() -> None:
    size = 5 * PAGE // 4  # floats of 5 pages
    kept = huge_pages(torch.empty(size)).copy_(torch.arange(size))
    assert huge_pages(kept) is kept
    assert torch.equal(kept, torch.arange(size, dtype=torch.float32))
