"""Parts per domain: rows sorted by domain, and moments over the rows of two processes."""

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from recbole_dtn.layers.domains import DomainEmbedding, DomainRows, PartitionedNorm, SeenDomains, StarLinear

ROWS, DOMAINS = 25, 3


def test_rows_by_domain_and_back():
    domain = torch.tensor([1, 3, 1, 0, 3, 3])
    rows = DomainRows.of(domain, 5)
    x = torch.arange(12.0).view(6, 2)
    parts = rows.split(x)
    assert [part[:, 0].tolist() for part in parts] == [[6.0], [0.0, 4.0], [], [2.0, 8.0, 10.0], []]
    assert torch.equal(rows.join(parts), x)


def test_every_domain_has_a_gradient_also_without_a_row():
    """DistributedDataParallel fails where a parameter has none."""
    layer = StarLinear(2, 3, 4)
    rows = DomainRows.of(torch.tensor([1, 1]), 4)
    parts = layer.of_parts(rows.split(torch.ones(2, 2)), torch.ones(4), activate=False)
    rows.join(parts).sum().backward()
    assert layer.offsets.grad.abs().sum((1, 2)).gt(0).tolist() == [False, True, False, False]
    assert layer.bias_offsets.grad.sum(1).tolist() == [0.0, 6.0, 0.0, 0.0]


def test_only_training_counts_rows():
    seen = SeenDomains(3)
    assert seen(torch.tensor([2, 0, 2])).tolist() == [1.0, 0.0, 1.0]
    assert seen.eval()(torch.tensor([1])).tolist() == [1.0, 0.0, 1.0]
    assert seen.rows.tolist() == [1, 0, 2]


def test_embeddings_are_trained_as_they_are_looked_up():
    table = DomainEmbedding(3, 2, std=1.0)
    assert torch.equal(table(torch.tensor([2, 0])), table.weight[[2, 0]])


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    x = 3 + 2 * torch.randn(ROWS, 4, generator=draw, dtype=torch.float64)
    return x, torch.randint(DOMAINS, (ROWS,), generator=draw), torch.randn(ROWS, 4, generator=draw).double()


def step(rows: slice) -> tuple[torch.Tensor, torch.Tensor, PartitionedNorm, SeenDomains]:
    norm, seen = PartitionedNorm(4, DOMAINS, shrinkage=5.0).double(), SeenDomains(DOMAINS)
    x, domain, factors = batch()
    for _ in range(2):
        part = x[rows].clone().requires_grad_()
        output = norm(part, domain[rows], seen(domain[rows]))
    (output * factors[rows]).sum().backward()
    assert part.grad is not None
    return output.detach(), part.grad, norm, seen


def run(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    output, gradient, norm, seen = step(slice(0, 17) if rank == 0 else slice(17, ROWS))
    found = {"output": output, "gradient": gradient, **norm.state_dict(), "rows": seen.rows}
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_moments_are_those_of_the_rows_of_all_processes(tmp_path: Path) -> None:
    multiprocessing.spawn(run, args=(str(tmp_path),), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    output, gradient, norm, seen = step(slice(0, ROWS))
    torch.testing.assert_close(torch.cat([each["output"] for each in both]), output)
    # The loss of a process moves the moments of the other's rows.
    torch.testing.assert_close(torch.cat([each["gradient"] for each in both]), gradient)
    for each in both:
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(each[name], value, msg=name)
        assert torch.equal(each["rows"], seen.rows)


@pytest.mark.parametrize("rows", [1, 20])
def test_half_precision_inputs_are_normalised_in_float32(rows):
    norm = PartitionedNorm(4, 2)
    x = (100 + torch.randn(rows, 4)).bfloat16()
    output = norm(x, torch.arange(rows) % 2, torch.ones(2))
    assert output.dtype is torch.float32
    assert output.isfinite().all()
