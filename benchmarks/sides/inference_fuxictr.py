"""FuxiCTR in the inference benchmark: the model of train_fuxictr.py. Its batches are cut beforehand."""

from __future__ import annotations

import tempfile
from collections import OrderedDict

import torch
from fuxictr.features import FeatureMap
from inference_common import LARGE, finish, starts
from train_common import EXPERTS, SHARED_EXPERTS, TASK_EXPERTS, TASKS, Work
from train_fuxictr import Model


def main() -> None:
    work = Work()
    torch.set_num_threads(work.threads)
    with tempfile.TemporaryDirectory() as folder:
        known = FeatureMap("bench", folder)
        known.features = OrderedDict(
            (name, {"source": "", "type": "categorical", "vocab_size": size})
            for name, size in zip(work.names, work.sizes, strict=True)
        )
        known.labels, known.num_fields = list(TASKS), len(work.names)
        experts = (EXPERTS, 0) if work.model == "MMoE" else (SHARED_EXPERTS, TASK_EXPERTS)
        options = {
            "model_id": "bench",
            "gpu": 0 if work.place.gpu else -1,
            "verbose": 0,
            "model_root": folder,
            "metrics": ["AUC"],
        }
        model = Model(known, *experts, **options)
        model.eval()
        large = [batch(work, start, LARGE) for start in starts(len(work.ids))]
        single = [batch(work, row, 1) for row in range(1000)]
        with torch.inference_mode():
            finish(model, large, single, work.place)


def batch(work: Work, start: int, rows: int) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(work.ids[start : start + rows].T.copy()).long().to(work.place.device)
    return dict(zip(work.names, ids, strict=True))


if __name__ == "__main__":
    main()
