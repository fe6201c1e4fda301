"""Two processes with uneven rows: every row counts exactly once."""

import json
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from recbole_dtn.data.features import Features
from recbole_dtn.metric.tasks import MultiTaskMetrics
from recbole_dtn.model.base import Factor, ModelOutput
from recbole_dtn.schema import TaskSpec
from recbole_dtn.training.chain import ChainBreaks

TASKS = (TaskSpec("a", "binary", "a"), TaskSpec("b", "binary", "b"), TaskSpec("c", "regression", "c"))
ROWS = 101


CASES = [(weighted, dtype) for weighted in (False, True) for dtype in (torch.float32, torch.float64)]


def update(metrics: MultiTaskMetrics, rows: torch.Tensor, weighted: bool, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(ROWS, 4, generator=draw)
    labels = (torch.rand(ROWS, 3, generator=draw) < 0.4).float()
    observed = torch.rand(ROWS, 3, generator=draw) < 0.7
    observed[30:, 1] = False  # all observed rows of b are on one process
    weights = torch.rand(ROWS, generator=draw)
    group = torch.randint(8, (ROWS,), generator=draw)
    for part in rows.split(40):
        features = Features(
            ids=torch.zeros(len(part), 1, dtype=torch.int64),
            labels=labels[part],
            observed=observed[part],
            sample_weight=weights[part] if weighted else None,
            group=group[part],
        )
        # Only the process of the first rows computes in float64, as if the others had another build of torch.
        scores = logits[part].to(dtype if bool((part < 30).any()) else torch.float32)
        output = ModelOutput(scores[:, :3], factors={"d": Factor(scores[:, 3], "a", "b")})
        if len(part) or metrics.factors:  # at first, a process without rows has heard of no factor
            metrics.add_batch(features, output)


def results(metrics: MultiTaskMetrics) -> dict:
    return {**metrics.compute(), **metrics.compute_factors()}


def chain_breaks(rows: torch.Tensor) -> dict:
    breaks = ChainBreaks((TASKS[0], TaskSpec("b", "binary", "b", after=("a",))))
    logits = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(6))
    for part in rows.split(40):
        breaks.update(logits[part])
    return breaks.compute()


CUTS = (70, ROWS)  # 70 + 31 rows, and all + none


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found: dict[int, list[dict]] = {}
    chain: dict[int, dict] = {}
    for cut in CUTS:
        for weighted, dtype in CASES:
            metrics = MultiTaskMetrics(TASKS, grouped=True)
            rows = torch.arange(ROWS)[:cut] if rank == 0 else torch.arange(ROWS)[cut:]
            update(metrics, rows, weighted, dtype)
            results(metrics)  # the second call must not count the gathered rows again
            found.setdefault(cut, []).append(results(metrics))
            update(metrics, rows, weighted, dtype)
            found[cut].append(results(metrics))
        chain[cut] = chain_breaks(rows)
    Path(folder, f"{rank}.json").write_text(json.dumps({**found, "chain": chain}))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes found, by cut."""
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(run, args=(str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("cut", CUTS)
def test_uneven_rows_count_once(of_two: list[dict], cut: int) -> None:
    expected = []
    for weighted, dtype in CASES:
        metrics = MultiTaskMetrics(TASKS, grouped=True)
        for _ in range(2):
            update(metrics, torch.arange(ROWS), weighted, dtype)
            expected.append(results(metrics))
    assert None not in (
        expected[0]["a"]["gauc"],
        expected[0]["a"]["auc_se"],
        expected[0]["a@b"]["auc"],
        expected[0]["a@b"]["logloss"],
    )
    together = json.loads(json.dumps(chain_breaks(torch.arange(ROWS))))
    for found in of_two:
        assert found["chain"][str(cut)] == together
        for ours, theirs in zip(found[str(cut)], expected, strict=True):
            assert list(ours) == list(theirs)
            for task, values in theirs.items():
                assert ours[task] == pytest.approx(values, abs=1e-12)
