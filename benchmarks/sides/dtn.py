"""One side of the DTN benchmark: ``python -m benchmarks.sides.dtn SIDE THREADS STEPS ROWS MODULES cpu|gpu``.

SIDE is ``fused``, ``plain``, ``gemm-torch`` or ``gemm-onednn``.

Steps of training (forward, loss, backward, optimiser) on one batch of drawn ids, without a loader or a trainer.
"""

import json
import statistics
import sys
import time

import torch

from benchmarks.sides.train_common import Place

FIELDS, IDS, EXPONENT = 23, 999_995, 1.05


def ids_of_a_batch(rows: int, sizes: list[int]) -> torch.Tensor:
    """(rows, 23) Zipf-distributed rows of the joint table."""
    generator = torch.Generator().manual_seed(0)
    columns, offset = [], 0
    for size in sizes:
        shares = torch.arange(1, size + 1, dtype=torch.float64).pow(-EXPONENT)
        columns.append(torch.multinomial(shares, rows, replacement=True, generator=generator) + offset)
        offset += size
    return torch.stack(columns, 1)


def make(fused: bool, rows: int, modules: list[str], device: str):  # type: ignore[no-untyped-def]
    """The model, its optimiser and a batch."""
    from recbole_dtn.data.features import Features
    from recbole_dtn.model.dtn import DTN
    from recbole_dtn.optim.build import build_optimizer
    from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
    from recbole_dtn.testing.data import make_settings

    growth = [30_000 ** (position / (FIELDS - 1)) for position in range(FIELDS)]
    sizes = [max(10, int(IDS * each / sum(growth))) for each in growth]
    fields = tuple(FieldSpec(f"f{i}", "token", size, sum(sizes[:i])) for i, size in enumerate(sizes))
    tasks = (TaskSpec("click", "binary", "click"), TaskSpec("buy", "binary", "buy", after=("click",)))
    interactions = [{"name": name, "top_fields": None} if name == "memonet" else name for name in modules]
    settings = make_settings("DTN", embedding_size=16, module_dim=64, interactions=interactions, fused=fused)
    torch.manual_seed(0)
    model = DTN(settings, DataSchema(fields, tasks)).to(device)
    labels = torch.rand(rows, 2) < torch.tensor([0.3, 0.06])
    features = Features(
        ids=ids_of_a_batch(rows, sizes), multi={}, dense=torch.empty(rows, 0), labels=labels.float(),
        observed=torch.ones(rows, 2, dtype=torch.bool),
    )  # fmt: skip
    return model, build_optimizer(model, settings), features.to(torch.device(device))


def train(fused: bool, steps: int, rows: int, modules: list[str], place: Place) -> dict[str, object]:
    model, optimizer, features = make(fused, rows, modules, place.device)
    times: list[tuple[float, float, float]] = []
    busy: list[float] = []
    for _ in range(steps + 3):
        optimizer.zero_grad()
        used = time.process_time()
        start = place.clock()
        losses = model.task_losses(features, model(features))
        loss = losses.sum() + sum(model.penalties().values())
        middle = place.clock()
        loss.backward()
        ends = place.clock()
        optimizer.step()
        times.append((middle - start, ends - middle, place.clock() - ends))
        busy.append(time.process_time() - used)
    forward, backward, update = (statistics.median(column) for column in zip(*times[3:], strict=True))
    return {
        "seconds": statistics.median(sum(each) for each in times[3:]),
        "forward": forward, "backward": backward, "optimiser": update,
        "cpu": statistics.median(busy[3:]),
        "loss": loss.item(), "parameters": model.count_parameters(), **place.found(),
    }  # fmt: skip


def multiply(onednn: bool, steps: int, rows: int, place: Place) -> dict[str, object]:
    """The rate of GDCN's and MaskNet's products: forward, gradient of the input, gradient of the weight."""
    from recbole_dtn.kernels import products as product

    product.prefers_onednn = lambda: onednn  # type: ignore[assignment]
    rates, total = [], 0.0
    for inputs, outputs in ((368, 368), (368, 736), (736, 368)):
        shapes = ((rows, inputs), (outputs, inputs), (rows, outputs))
        x, w, g = (torch.randn(shape, device=place.device) for shape in shapes)
        for work in (
            lambda x=x, w=w: product.product(x, w),
            lambda g=g, w=w: product.product(g, w.t()),
            lambda g=g, x=x: product.outer(g, x),
        ):
            times = []
            for _ in range(steps + 2):
                start = place.clock()
                work()
                times.append(place.clock() - start)
            seconds = statistics.median(times[2:])
            total += seconds
            rates.append(2 * rows * inputs * outputs / seconds / 1e9)
    return {"seconds": total, "gflops": statistics.median(rates), "best_gflops": max(rates)}


def main() -> None:
    side, threads, steps, rows, modules = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5].split(",")
    place = Place(sys.argv[6])
    torch.set_num_threads(threads)
    if side.startswith("gemm"):
        found = multiply(side == "gemm-onednn", steps, rows, place)
    else:
        found = train(side == "fused", steps, rows, modules, place)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
