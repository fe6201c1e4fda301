"""Stages of the pipeline benchmark: ``python pipeline_stages.py encode|steps DATA_PATH DATASET [STEPS]``."""

import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path


def anonymous_mib() -> float:
    """Resident memory that no file backs, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def encode(data_path: str, dataset: str) -> dict[str, float]:
    """Atomic files to a cache that is ready for training."""
    from recbole_dtn.config.load import resolve
    from recbole_dtn.preprocess.prepare import prepare

    settings = resolve([f"--dataset={dataset}", f"--data_path={data_path}"]).settings
    start = time.perf_counter()
    prepared = prepare(settings)
    seconds = time.perf_counter() - start
    if prepared.cached:
        raise SystemExit("the cache was there already: nothing was measured")
    size = sum(file.stat().st_size for file in prepared.cache_folder.iterdir())
    return {"seconds": seconds, "rows": sum(prepared.summary.rows.values()), "cache_bytes": size}


def steps(data_path: str, dataset: str, count: int) -> dict[str, float]:
    """Open the cache, build DTN and take its first training steps."""
    import torch

    from recbole_dtn.config.load import resolve
    from recbole_dtn.data.loader import BatchLoader
    from recbole_dtn.optim.build import build_optimizer
    from recbole_dtn.preprocess.prepare import prepare
    from recbole_dtn.training.build import build_model

    settings = resolve(["--model=DTN", f"--dataset={dataset}", f"--data_path={data_path}"]).settings
    start = time.perf_counter()
    prepared = prepare(settings)
    opened = time.perf_counter() - start
    model = build_model(settings, prepared).train()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    optimizer = build_optimizer(model, settings)
    loader = BatchLoader(prepared.splits["train"], settings.train_batch_size, shuffle=True, seed=1, prefetch=2)
    losses, anonymous = [], 0.0
    start = time.perf_counter()
    for batch in islice(cycle(loader), count):
        optimizer.zero_grad()
        output = model(batch)
        terms = (*output.auxiliary.values(), *model.penalties().values())
        loss = model.task_losses(batch, output).sum()
        sum(terms, loss).backward()
        optimizer.step()
        losses.append(loss.item())
        anonymous = max(anonymous, anonymous_mib())
    state = [tensor for entry in optimizer.state.values() for tensor in entry.values() if torch.is_tensor(tensor)]
    held = [*model.parameters(), *state]
    return {
        "seconds": time.perf_counter() - start,
        "opened": opened,
        "anonymous_mib": anonymous,
        "table_mib": sum(tensor.numel() * tensor.element_size() for tensor in held) / 2**20,
        "parameters": parameters,
        "first_loss": losses[0],
        "last_loss": sum(losses[-20:]) / len(losses[-20:]),
    }


if __name__ == "__main__":
    stage, path, name = sys.argv[1:4]
    print(json.dumps(encode(path, name) if stage == "encode" else steps(path, name, int(sys.argv[4]))))
