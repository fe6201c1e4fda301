"""FuxiCTR in the training benchmark: its embeddings, MLP blocks, ``MultiTaskModel`` and ``fit``.

Its MMoE and PLE are in its repository and not in its wheel; here they are put together again from the wheel's blocks
as they are there: one block per expert and gate, experts stacked, gates by broadcast product and sum. Its own loop
clips the gradient's norm over all parameters and reads the loss at every step. Batches are cut beforehand.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import MultiTaskModel
from torch import nn
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


def block(inputs: int, hidden: list[int], output: int | None = None) -> nn.Module:
    return MLP_Block(input_dim=inputs, hidden_units=hidden, output_dim=output, hidden_activations="ReLU")


class Model(MultiTaskModel):
    """MMoE, or PLE of one level; ``own`` experts per task beside the shared ones."""

    def __init__(self, feature_map, shared: int, own: int, **options) -> None:
        super().__init__(feature_map, task=["binary_classification"] * 2, num_tasks=2, **options)
        inputs = feature_map.num_fields * WIDTH
        self.embedding_layer = FeatureEmbedding(feature_map, WIDTH)
        self.shared = nn.ModuleList(block(inputs, [HIDDEN]) for _ in range(shared))
        self.own = nn.ModuleList(nn.ModuleList(block(inputs, [HIDDEN]) for _ in range(own)) for _ in TASKS)
        self.gate = nn.ModuleList(block(inputs, [], shared + own) for _ in TASKS)
        self.tower = nn.ModuleList(block(HIDDEN, [TOWER], 1) for _ in TASKS)
        self.compile("adam", "binary_crossentropy", LEARNING_RATE)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        x = self.embedding_layer(self.get_inputs(inputs)).flatten(start_dim=1)
        shared = [expert(x) for expert in self.shared]
        both = torch.stack(shared, dim=1) if not len(self.own[0]) else None
        found = {}
        for number, name in enumerate(self.feature_map.labels):
            outputs = both
            if outputs is None:
                outputs = torch.stack([expert(x) for expert in self.own[number]] + shared, dim=1)
            weights = torch.softmax(self.gate[number](x), dim=-1)
            mixed = torch.sum(weights.unsqueeze(-1) * outputs, dim=1)
            found[f"{name}_pred"] = self.output_activation[number](self.tower[number](mixed))
        return found


def main() -> None:
    work, memory = Work(), AnonymousMemory()
    torch.set_num_threads(work.threads)
    with tempfile.TemporaryDirectory() as folder:
        known = FeatureMap("bench", folder)
        known.features = OrderedDict(
            (name, {"source": "", "type": "categorical", "vocab_size": size})
            for name, size in zip(work.names, work.sizes, strict=True)
        )
        known.labels, known.num_fields = list(TASKS), len(work.names)
        experts = (EXPERTS, 0) if work.model == "MMoE" else (SHARED_EXPERTS, TASK_EXPERTS)
        options = {"model_id": "bench", "gpu": 0 if work.place.gpu else -1, "verbose": 0, "model_root": folder}
        model = Model(known, *experts, **options, metrics=["AUC"], eval_steps=10**9)
        batches = Timed([batch(work, start) for start in range(0, len(work.ids), BATCH)], work.place)
        model._max_gradient_norm, model._total_steps, model._stop_training = 10.0, 0, False  # as fit() sets them
        model.train_epoch(batches)
    finish(batches.seconds, batches.cpu, memory, work.place)


def batch(work: Work, start: int) -> dict[str, torch.Tensor]:
    rows = slice(start, start + BATCH)
    features = {name: torch.from_numpy(work.ids[rows, i].copy()).long() for i, name in enumerate(work.names)}
    return features | {name: torch.from_numpy(work.labels[rows, i].copy()) for i, name in enumerate(TASKS)}


if __name__ == "__main__":
    main()
