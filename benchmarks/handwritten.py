"""The limit of plain PyTorch: a training loop written by hand for this one model, with nothing else in it.

    python -m benchmarks.handwritten rowwise_adagrad|lazy_adam|dense_adam FOLDER MMoE|PLE THREADS cpu|gpu

One table, one gather outside autograd, all experts as one product, all gates as one; after the backward pass the
gradients of the looked-up rows are sorted once, summed per row and applied by hand. Dense parameters: one fused Adam.
On a GPU the data lies there from the start.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from benchmarks.sides.train_common import (
    BATCH,
    EXPERTS,
    HIDDEN,
    LEARNING_RATE,
    SHARED_EXPERTS,
    TASK_EXPERTS,
    TASKS,
    TOWER,
    WIDTH,
    AnonymousMemory,
    Timed,
    Work,
    finish,
)


class Mixture(nn.Module):
    """MMoE or one-level PLE: experts and gates as one product each; ``reads[t]`` are the experts that task t mixes."""

    def __init__(self, inputs: int, model: str) -> None:
        super().__init__()
        tasks = len(TASKS)
        if model == "MMoE":
            count, self.reads = EXPERTS, [slice(0, EXPERTS)] * tasks
        else:  # task 1's experts, the shared ones, task 2's: each task reads a slice
            count = tasks * TASK_EXPERTS + SHARED_EXPERTS
            self.reads = [slice(0, TASK_EXPERTS + SHARED_EXPERTS), slice(TASK_EXPERTS, count)]
        self.count = count
        self.experts = nn.Linear(inputs, count * HIDDEN)
        self.choices = self.reads[0].stop - self.reads[0].start
        self.gates = nn.Linear(inputs, tasks * self.choices, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(HIDDEN, TOWER) for _ in TASKS)
        self.heads = nn.ModuleList(nn.Linear(TOWER, 1) for _ in TASKS)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.experts(x).relu_().view(len(x), self.count, HIDDEN)
        weights = self.gates(x).view(len(x), len(TASKS), self.choices).softmax(2)
        if self.count == self.choices:
            mixed = torch.bmm(weights, outputs).unbind(1)
        else:
            mixed = [torch.bmm(weights[:, t : t + 1], outputs[:, read]).squeeze(1) for t, read in enumerate(self.reads)]
        logits = [head(hidden(part).relu_()) for head, hidden, part in zip(self.heads, self.hidden, mixed, strict=True)]
        return torch.cat(logits, dim=1)


def distinct(ids: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of ``ids`` (n,) and the sums of their gradients (n, D)."""
    ordered, order = torch.sort(ids)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    starts = first.nonzero().squeeze(1)
    return ordered[starts], functional.embedding_bag(order, gradient, starts, mode="sum")


class Rowwise:
    """Row-wise Adagrad."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.sum = table, torch.zeros(len(table), device=table.device)

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        total = self.sum[rows].add_(gradient.square().mean(1))
        self.sum[rows] = total
        moved = self.table[rows].addcdiv_(gradient, total.sqrt_().add_(1e-8).unsqueeze(1), value=-LEARNING_RATE)
        self.table.index_copy_(0, rows, moved)


class Lazy:
    """Adam over the touched rows."""

    def __init__(self, table: Tensor) -> None:
        self.table, self.first, self.second = table, torch.zeros_like(table), torch.zeros_like(table)
        self.steps = 0

    def step(self, rows: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        first = self.first[rows].lerp_(gradient, 0.1)
        second = self.second[rows].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        self.first.index_copy_(0, rows, first)
        self.second.index_copy_(0, rows, second)
        root = second.sqrt_().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
        moved = self.table[rows].addcdiv_(first, root, value=-LEARNING_RATE / (1 - 0.9**self.steps))
        self.table.index_copy_(0, rows, moved)


def main() -> None:
    work, memory = Work(), AnonymousMemory()
    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    device = work.place.device
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(work.sizes)[:-1]])).to(device)
    table = torch.empty(sum(work.sizes), WIDTH, device=device).normal_(0, 0.01)
    model = Mixture(len(work.sizes) * WIDTH, work.model).to(device)
    dense = work.side == "dense_adam"
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam([*parameters, table] if dense else parameters, lr=LEARNING_RATE, fused=True)
    rule = None if dense else {"rowwise_adagrad": Rowwise, "lazy_adam": Lazy}[work.side](table)
    ids, labels = torch.from_numpy(work.ids).to(device), torch.from_numpy(work.labels).to(device)
    steps = Timed(list(torch.randperm(len(ids), device=device).split(BATCH)), work.place)
    for rows in steps:
        looked_up = (ids[rows] + offsets).flatten()
        found = table[looked_up].requires_grad_()
        loss = functional.binary_cross_entropy_with_logits(model(found.view(len(rows), -1)), labels[rows])
        optimizer.zero_grad()
        (len(TASKS) * loss).backward()
        with torch.no_grad():
            if rule is None:
                table.grad = torch.zeros_like(table).index_add_(0, looked_up, found.grad)
            else:
                rule.step(*distinct(looked_up, found.grad))
            optimizer.step()
    finish(steps.seconds, steps.cpu, memory, work.place)


if __name__ == "__main__":
    main()
