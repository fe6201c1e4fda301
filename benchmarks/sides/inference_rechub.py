"""torch-rechub in the inference benchmark: its MMOE or PLE, by ``forward`` or by its trainer's ``predict``.

Its batches are cut beforehand.
"""

from __future__ import annotations

import torch
from inference_common import LARGE, finish, starts
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.trainers import MTLTrainer
from train_common import EXPERTS, HIDDEN, SHARED_EXPERTS, TASK_EXPERTS, TASKS, TOWER, WIDTH, Work


def main() -> None:
    work = Work()
    torch.set_num_threads(work.threads)
    features = [SparseFeature(name, size, embed_dim=WIDTH) for name, size in zip(work.names, work.sizes, strict=True)]
    expert, towers, kinds = {"dims": [HIDDEN]}, [{"dims": [TOWER]} for _ in TASKS], ["classification"] * 2
    if work.model == "MMoE":
        model = MMOE(features, kinds, EXPERTS, expert, towers)
    else:
        model = PLE(features, kinds, 1, TASK_EXPERTS, SHARED_EXPERTS, expert, towers)
    large = [batch(work, start, LARGE) for start in starts(len(work.ids))]
    single = [batch(work, row, 1) for row in range(1000)]
    model.to(work.place.device).eval()
    if work.side == "predict":
        trainer = MTLTrainer(model, kinds, device=work.place.device)
        return finish(lambda found: trainer.predict(model, [found]), large, [], work.place)
    with torch.inference_mode():
        finish(model, large, single, work.place)


def batch(work: Work, start: int, rows: int) -> dict[str, torch.Tensor]:
    device = "cpu" if work.side == "predict" else work.place.device  # predict moves its batches itself
    ids = torch.from_numpy(work.ids[start : start + rows].T.copy()).long().to(device)
    return dict(zip(work.names, ids, strict=True))


if __name__ == "__main__":
    main()
