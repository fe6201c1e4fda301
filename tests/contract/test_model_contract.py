"""Every registered model keeps the contract, every built-in has a reference test, and the check finds faults."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from recbole_dtn.kernels.choice import Fusible, set_fused
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import Factor, ModelOutput, MultiTaskRecommender
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.models import check_model

REFERENCE = Path(__file__).parents[1] / "reference"
LISTED = [{"name": "masknet", "structure": "serial"}, "gdcn", {"name": "gdcn", "low_rank": 2}]
OTHER_SETTINGS = [
    ("DTN", {"variant": "released"}),
    ("DTN", {"tsn_scale": "normalised", "input_affine": True, "interactions": LISTED}),
    ("DTN", {"use_shared": False, "use_tsn": False, "fusion": "sum", "tower_hidden": []}),
    ("DTN", {"gate_input": "module", "task_chain": {}, "dropout": 0.2}),
    ("MMoE", {"experts": 3, "expert_hidden": [6, 5], "dropout": 0.2}),
    ("PLE", {"levels": 3, "expert_hidden": [8], "shared_experts": 1, "task_experts": 3}),
    ("PLE", {"levels": 2, "expert_hidden": [8], "tower_hidden": [], "dropout": 0.2}),
    ("MMoE", {"gate_hidden": [5], "gate_bias": True}),
    ("PLE", {"levels": 2, "shared_gate": "shared", "gate_hidden": [5, 4], "gate_bias": True}),
    ("STEM", {"levels": 2, "task_experts": 2, "gate_hidden": [], "gate_bias": False, "dropout": 0.2}),
    ("PEPNet", {"tower_hidden": [], "gate_fields": ["t1", "t0"], "gate_embedding_size": 3}),
    ("PPNet", {"tower_hidden": [6], "dropout": 0.2}),
    ("ESMM", {"tower_hidden": []}),
    ("SharedBottom", {"bottom_hidden": [], "tower_hidden": []}),
    ("SingleTask", {"hidden": []}),
    ("CrossStitch", {"tower_hidden": [6], "stitch_own": 0.5, "dropout": 0.2}),
    ("SNR", {"form": "aver", "levels": 2, "subnetworks": 3, "expert_hidden": [6], "tower_hidden": []}),
    ("SNR", {"levels": 3, "expert_hidden": [6, 5], "gate_penalty": 0.0, "dropout": 0.2}),
    ("AdaTT", {"levels": 2, "task_experts": 2, "expert_hidden": [6]}),
    ("AdaTT", {"form": "general", "levels": 3, "expert_hidden": [6, 5], "shared_experts": 2, "dropout": 0.2}),
    ("HoME", {"meta_hidden": [6, 5], "expert_hidden": [5, 4], "feature_gate": "owner", "tower_hidden": [4]}),
    ("HoME", {"meta_experts": 1, "task_experts": 1, "feature_gate": "none", "dropout": 0.2}),
    ("STAR", {"low_rank": 2, "tower_hidden": [], "aux_hidden": None, "dropout": 0.2}),
    ("STAR", {"norm": "none", "star_hidden": [], "aux_hidden": [], "domain_embedding_size": 3}),
    ("HMoE", {"mix": "hidden", "gate_hidden": [4], "weight_hidden": [5], "dropout": 0.2}),
    ("APG", {"condition": "mix", "condition_fields": ["t0", "t1"], "core": 3, "over_parameterised": 5, "dropout": 0.2}),
    ("APG", {"generated_hidden": [9, 6], "tower_hidden": [], "condition": "self", "detach_condition": True}),
    ("MSSM", {"levels": 3, "cells": 2, "cell_hidden": [6, 16], "tower_hidden": [], "dropout": 0.2}),
    ("MMoE", {"experts": ["dcn", "memonet"], "expert_sets": 1, "gate_bias": True}),
    ("PLE", {"experts": ["dcn", "memonet"], "levels": 2, "expert_hidden": [6], "task_experts": 1}),
    ("SingleTask", {"experts": ["dcn", "memonet"], "fusion": "sum", "hidden": [6]}),
    ("ESCM2", {"form": "ips", "tower_hidden": []}),
    ("DCMT", {"self_normalised": True, "tower_hidden": []}),
    ("AITM", {"tower_hidden": [], "dropout": 0.2}),
    ("ResFlow", {"tower_hidden": [8, 6], "dropout": 0.2}),
]


@pytest.mark.parametrize("name", MODELS.names())
def test_registered_model_keeps_the_contract(name):
    package = MODELS.attributes(name).get("package")
    if package is not None:
        pytest.importorskip(package)
    check_model(name)


@pytest.mark.parametrize(("name", "settings"), OTHER_SETTINGS)
def test_other_settings_keep_the_contract(name, settings):
    check_model(name, **settings)


@pytest.mark.parametrize("name", MODELS.names())
def test_built_in_model_has_a_reference_test(name):
    entry = MODELS.entry(name)
    if entry.origin == "built-in":
        module = entry.target.partition(":")[0].rpartition(".")[2]
        test = "test_stored_trees.py" if "package" in entry.attributes else f"test_{module}.py"
        assert (REFERENCE / test).is_file(), f"{name} has no tests/reference/{test}"


class Plain(MultiTaskRecommender):
    """A right model, written as a plug-in would be; each faulty one below changes one thing."""

    def build(self, settings, schema):
        self.embedding = self.new_embedding()
        self.gate = nn.Linear(self.flat_dim, 2)
        self.towers = Towers(self.flat_dim, [], count=schema.num_tasks)
        self.gate_names = dict.fromkeys(schema.task_names, ("shared/a", "shared/b"))

    def logits(self, features):
        x = self.embedding(features).flatten(1)
        weights = torch.softmax(self.gate(x), dim=1)
        x = x * weights[:, :1]
        return self.towers(x.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)), weights

    def forward(self, features):
        logits, weights = self.logits(features)
        return ModelOutput(logits, gates=dict.fromkeys(self.schema.task_names, weights))


class UnusedParameter(Plain):
    def build(self, settings, schema):
        super().build(settings, schema)
        self.unused = nn.Linear(2, 2)


class DeadParameter(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits + 0 * self.gate.weight.sum() * 0 + self.dead.sum() * 0, output.gates)

    def build(self, settings, schema):
        super().build(settings, schema)
        self.dead = nn.Parameter(torch.ones(2))


class WrongAxis(Plain):
    def forward(self, features):
        logits, weights = self.logits(features)
        weights = torch.softmax(weights, dim=0)
        return ModelOutput(logits, gates=dict.fromkeys(self.schema.task_names, weights))


class SizeOneAxis(Plain):
    def forward(self, features):
        logits, weights = self.logits(features)
        weights = torch.softmax(weights.unsqueeze(2), dim=2).squeeze(2) * weights.new_tensor([0.5, 0.4])
        return ModelOutput(logits, gates=dict.fromkeys(self.schema.task_names, weights))


class WithoutNames(Plain):
    def build(self, settings, schema):
        super().build(settings, schema)
        self.gate_names = {}


class SqueezesTheBatch(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits.squeeze(), output.gates)


class MixesRows(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits - output.logits.mean(0), output.gates)


class ReadsLabels(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits + (0 if features.row is None else features.row.unsqueeze(1)), output.gates)


class Random(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits + torch.rand_like(output.logits), output.gates)


class DrawsElsewhere(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits * (random.random() if self.training else 1.0), output.gates)


class TakesOneRow(Plain):
    min_batch_rows = 2


class StateOutsideTheState(Plain):
    def build(self, settings, schema):
        super().build(settings, schema)
        self.hidden = torch.rand(())

    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits + self.hidden, output.gates)


class NotFinite(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits / 0.0, output.gates)


class OwnLoss(Plain):
    def task_losses(self, features, output):
        return (output.logits - features.labels.nan_to_num()).square().mean(0)


class IgnoresSparse(Plain):
    def set_sparse(self, sparse):
        pass


class SharedThatNothingReads(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits, output.gates, shared=self.embedding(features).flatten(1))


class FactorOfNoTask(Plain):
    def forward(self, features):
        output = super().forward(features)
        factor = Factor(output.logits[:, 0], label="purchase", observed_by="click")
        return ModelOutput(output.logits, output.gates, factors={"cvr": factor})


class FactorPerTask(Plain):
    def forward(self, features):
        output = super().forward(features)
        factor = Factor(output.logits, label="click", observed_by="click")
        return ModelOutput(output.logits, output.gates, factors={"cvr": factor})


class OnTheCPU(Plain):
    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(output.logits + torch.zeros(len(features), 1), output.gates)


class TwoThings(Fusible):
    """Twice as much where it is fused."""

    def forward(self, logits):
        return logits * (2 if self.fused else 1)


class FusedDiffers(Plain):
    def build(self, settings, schema):
        super().build(settings, schema)
        self.last = TwoThings()

    def forward(self, features):
        output = super().forward(features)
        return ModelOutput(self.last(output.logits), output.gates)


class StaysFused(Plain):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        set_fused(self, True)


class ReadsOneField(Plain):
    def logits(self, features):
        x = self.embedding(features)
        x = torch.cat([x[:, :1], 0.001 * torch.tanh(x[:, 1:])], dim=1).flatten(1)
        weights = torch.softmax(self.gate(x), dim=1)
        return self.towers((x * weights[:, :1]).unsqueeze(1).expand(-1, self.schema.num_tasks, -1)), weights


class TakesWhatItRefuses(Plain):
    task_kinds = frozenset({"binary"})

    @classmethod
    def check_tasks(cls, schema):
        pass


def test_a_plug_in_passes():
    check_model(Plain)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (UnusedParameter, "unused.weight gets no gradient"),
        (DeadParameter, "gradient of dead is zero everywhere"),
        (WrongAxis, "gates of 'click' sum to"),
        (SizeOneAxis, "must sum to a whole number"),
        (WithoutNames, "gate_names of"),
        (SqueezesTheBatch, r"logits have shape \(2,\), expected \(1, 2\)"),
        (MixesRows, "depend on the other rows"),
        (ReadsLabels, "depend on"),
        (Random, "two passes in evaluation differ"),
        (DrawsElsewhere, "two training passes with one seed differ"),
        (TakesOneRow, "a training batch of 1 rows must be refused with train_batch_size and '2 rows'"),
        (StateOutsideTheState, "saved and loaded state gives other logits"),
        (NotFinite, "logits are not finite in a batch of 48"),
        (OwnLoss, "label that is not observed changes the loss"),
        (IgnoresSparse, "has a dense gradient after set_sparse"),
        (SharedThatNothingReads, "task 'click' does not read `shared`"),
        (FactorOfNoTask, "factor 'cvr': 'purchase' is not a task"),
        (FactorPerTask, r"factor 'cvr': its logit has shape \(48, 2\), expected \(48,\)"),
        (OnTheCPU, "a training step: add reads tensors on cpu and meta"),
        (FusedDiffers, "fused and plain logits differ"),
        (StaysFused, "with fused: false these parts stay fused: .*towers"),
        (ReadsOneField, "labels of 32 rows are still predicted wrong"),
        (TakesWhatItRefuses, "TakesWhatItRefuses was built for a data set that it says it does not take"),
    ],
)
def test_the_check_finds_a_fault(faulty, message):
    with pytest.raises(AssertionError, match=message):
        check_model(faulty)
