"""Two processes with uneven rows: every row counts exactly once."""

import json
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.schema import TaskSpec

TASKS = (TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b"), TaskSpec("c", "regression", "c"))
ROWS = 101


def update(metrics: MultiTaskMetrics, rows: torch.Tensor, weighted: bool) -> None:
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(ROWS, 3, generator=draw)
    labels = (torch.rand(ROWS, 3, generator=draw) < 0.4).float()
    observed = torch.rand(ROWS, 3, generator=draw) < 0.7
    observed[30:, 1] = False  # all observed rows of b are on one process
    weights = torch.rand(ROWS, generator=draw)
    for part in rows.split(40):
        metrics.update(logits[part], labels[part], observed[part], weights[part] if weighted else None)


def run(rank: int, folder: str, cut: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for weighted in (False, True):
        metrics = MultiTaskMetrics(TASKS)
        rows = torch.arange(ROWS)[:cut] if rank == 0 else torch.arange(ROWS)[cut:]
        update(metrics, rows, weighted)
        metrics.compute()  # the second call must not count the gathered rows again
        found.append(metrics.compute())
        update(metrics, rows, weighted)
        found.append(metrics.compute())
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.mark.parametrize("cut", [70, ROWS])  # 70 + 31 rows, and all + none
def test_uneven_rows_count_once(tmp_path: Path, cut: int) -> None:
    multiprocessing.spawn(run, args=(str(tmp_path), cut), nprocs=2)
    expected = []
    for weighted in (False, True):
        metrics = MultiTaskMetrics(TASKS)
        for _ in range(2):
            update(metrics, torch.arange(ROWS), weighted)
            expected.append(metrics.compute())
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for ours, theirs in zip(found, expected, strict=True):
            for task, values in theirs.items():
                assert ours[task] == pytest.approx(values, abs=1e-12)
