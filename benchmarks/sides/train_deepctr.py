"""DeepCTR-Torch in the training benchmark: its MMOE or PLE and its ``fit``, which has a data loader of its own.

Its PLE also computes the shared owner's gate and mixture on the last level, which nothing reads. Ids travel as
float32, as ``fit`` has it.
"""

from __future__ import annotations

import time

import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import MMOE, PLE
from train_common import (
    BATCH,
    EXPERTS,
    HIDDEN,
    LEARNING_RATE,
    SHARED_EXPERTS,
    TASK_EXPERTS,
    TOWER,
    WARM_UP,
    WIDTH,
    AnonymousMemory,
    Work,
    finish,
)


def main() -> None:
    work, memory = Work(), AnonymousMemory()
    torch.set_num_threads(work.threads)
    columns = [SparseFeat(name, size, embedding_dim=WIDTH) for name, size in zip(work.names, work.sizes, strict=True)]
    sizes = {
        "expert_dnn_hidden_units": (HIDDEN,),
        "gate_dnn_hidden_units": (),
        "tower_dnn_hidden_units": (TOWER,),
        "l2_reg_embedding": 0.0,
        "l2_reg_linear": 0.0,
        "device": work.place.device,
    }
    if work.model == "MMoE":
        model = MMOE(columns, num_experts=EXPERTS, **sizes)
    else:
        model = PLE(columns, shared_expert_num=SHARED_EXPERTS, specific_expert_num=TASK_EXPERTS, num_levels=1, **sizes)
    model.compile(torch.optim.Adam(model.parameters(), lr=LEARNING_RATE), loss=["binary_crossentropy"] * 2)
    warm = WARM_UP * BATCH
    fit(model, work, slice(0, warm))
    start, cpu = work.place.clock(), time.process_time()
    fit(model, work, slice(warm, None))
    finish(work.place.clock() - start, time.process_time() - cpu, memory, work.place)


def fit(model, work: Work, rows: slice) -> None:
    features = {name: work.ids[rows, i] for i, name in enumerate(work.names)}
    model.fit(features, work.labels[rows], batch_size=BATCH, epochs=1, verbose=0)


if __name__ == "__main__":
    main()
