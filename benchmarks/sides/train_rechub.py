"""torch-rechub in the training benchmark: its MMOE or PLE under its MTLTrainer.

Its MLPs have a batch normalisation after every layer, gates included, which no option turns off. Batches are cut
beforehand, where its own data generator would collate row by row.
"""

from __future__ import annotations

import torch
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.multi_task import MMOE, PLE
from torch_rechub.trainers import MTLTrainer
from train_common import (
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


def main() -> None:
    work, memory = Work(), AnonymousMemory()
    torch.set_num_threads(work.threads)
    features = [SparseFeature(name, size, embed_dim=WIDTH) for name, size in zip(work.names, work.sizes, strict=True)]
    expert, towers, kinds = {"dims": [HIDDEN]}, [{"dims": [TOWER]} for _ in TASKS], ["classification"] * 2
    if work.model == "MMoE":
        model = MMOE(features, kinds, EXPERTS, expert, towers)
    else:
        model = PLE(features, kinds, 1, TASK_EXPERTS, SHARED_EXPERTS, expert, towers)
    trainer = MTLTrainer(model, kinds, optimizer_params={"lr": LEARNING_RATE}, n_epoch=1, device=work.place.device)
    batches = Timed([batch(work, start) for start in range(0, len(work.ids), BATCH)], work.place)
    trainer.train_one_epoch(batches)
    finish(batches.seconds, batches.cpu, memory, work.place)


def batch(work: Work, start: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows = slice(start, start + BATCH)
    features = {name: torch.from_numpy(work.ids[rows, i].copy()).long() for i, name in enumerate(work.names)}
    return features, torch.from_numpy(work.labels[rows])


if __name__ == "__main__":
    main()
