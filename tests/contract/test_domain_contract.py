"""Models that read a domain keep the contract of such models, and the check finds the faults of published code."""

import pytest
import torch
from torch import nn

from recbole_dtn.layers.domains import DomainEmbedding
from recbole_dtn.layers.mlp import MLP
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.domains import domain_of
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.domains import check_domain_model

NEEDS_DOMAIN = [name for name in MODELS.names() if MODELS.attributes(name).get("needs_domain")]
OTHER_SETTINGS = [
    ("STAR", {"low_rank": 2, "star_hidden": [16], "tower_hidden": [8], "norm_shrinkage": 0.0}),
    ("STAR", {"norm": "none", "aux_hidden": None, "star_hidden": [16], "tower_hidden": []}),
    ("HMoE", {"owners": "pairs", "expert_hidden": [16], "tower_hidden": [8]}),
    ("HMoE", {"owners": "pairs", "mix": "hidden", "expert_hidden": [16], "tower_hidden": [8]}),
    ("APG", {"condition": "group", "generated_hidden": [16]}),
    ("APG", {"condition": "mix", "generated_hidden": [16], "tower_hidden": [8]}),
]


@pytest.mark.parametrize("name", NEEDS_DOMAIN)
def test_a_model_that_needs_a_domain_keeps_the_contract(name):
    check_domain_model(name)


@pytest.mark.parametrize(("name", "settings"), OTHER_SETTINGS)
def test_other_settings_keep_the_contract(name, settings):
    check_domain_model(name, **settings)


class Plain(MultiTaskRecommender):
    """A right model, written as a plug-in would be; each faulty one below changes one thing."""

    needs_domain = True

    def build(self, settings, schema):
        self.domains = DomainEmbedding(schema.num_domains, 4, std=0.5)
        self.bottom = MLP(4 + self.new_input(), [16])
        self.towers = Towers(16, [8], count=schema.num_tasks)

    def forward(self, features):
        h = self.bottom(torch.cat([self.domains(domain_of(self, features)), self.input(features)], dim=1))
        return ModelOutput(self.towers(self.normalised(h, features).unsqueeze(1).expand(-1, self.schema.num_tasks, -1)))

    def normalised(self, h, features):
        return h


class BatchMoments(Plain):
    """Published STAR: moments of the batch, in evaluation too."""

    def normalised(self, h, features):
        return (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()


class MomentsMoveInEvaluation(Plain):
    def build(self, settings, schema):
        super().build(settings, schema)
        self.register_buffer("mean", torch.zeros(16))

    def normalised(self, h, features):
        with torch.no_grad():
            self.mean.lerp_(h.mean(0), 0.1)
        return h


class UnbiasedVariance(Plain):
    """NaN in a batch of one."""

    def normalised(self, h, features):
        centred = h - h.mean(0)
        return centred / (centred.square().sum(0) / (len(h) - 1) + 1e-5).sqrt() if self.training else h


class MomentsInAList(Plain):
    """A published domain norm: what it learns is lost when it is saved."""

    def build(self, settings, schema):
        super().build(settings, schema)
        self.means = [torch.zeros(16)]

    def normalised(self, h, features):
        if self.training:
            self.means[0] = 0.5 * self.means[0] + 0.5 * h.detach().mean(0)
        return h - self.means[0]


class WeightsInAList(Plain):
    """Published STAR: the optimiser does not see the weights of any domain but the last."""

    def build(self, settings, schema):
        super().build(settings, schema)
        self.parts = [torch.eye(4)[0], torch.eye(4)[1]]
        self.last = nn.Parameter(torch.randn(4))
        del self.domains

    def domains(self, domain):
        return torch.stack([*self.parts, self.last])[domain]


class Zero(Plain):
    """Published SharedBottom: a domain that was not trained has one score."""

    def forward(self, features):
        output = super().forward(features)
        known = self.domains.seen.rows[features.domain] > 0
        return ModelOutput(torch.where(known.unsqueeze(1), output.logits, -30.0))


class EqualUnits(Plain):
    """Published HAMUR's adapter: all units start as ones, and stay equal."""

    def build(self, settings, schema):
        super().build(settings, schema)
        self.down = nn.Parameter(torch.ones(16, 8))
        self.up = nn.Parameter(torch.ones(8, 16))

    def normalised(self, h, features):
        return h + 0.01 * torch.relu(h @ self.down) @ self.up


class WithoutDomain(Plain):
    """A model that reads the domain nowhere cannot learn opposite labels."""

    def forward(self, features):
        h = torch.cat([self.domains.weight.mean(0).expand(len(features), -1), self.input(features)], dim=1)
        return ModelOutput(self.towers(self.bottom(h).unsqueeze(1).expand(-1, self.schema.num_tasks, -1)))


class TableNotTrained(Plain):
    """Published PPNet: a table that no gradient reaches."""

    def build(self, settings, schema):
        super().build(settings, schema)
        self.other = nn.Embedding(3, 4)

    def normalised(self, h, features):
        return h + self.other(features.domain).detach().sum(1, keepdim=True)


def test_a_plug_in_passes():
    check_domain_model(Plain)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (BatchMoments, "a row's logits depend on the other rows of its batch"),
        (MomentsMoveInEvaluation, "evaluation changes mean"),
        (UnbiasedVariance, "a batch of one is not finite"),
        (MomentsInAList, "something learned is not saved"),
        (WeightsInAList, "domain 0 has no parameter of its own"),
        (Zero, "a domain without training rows has the same logit in every row"),
        (EqualUnits, r"(down|up): all 8 slices along axis . are equal"),
        (WithoutDomain, "domain 0 has no parameter of its own"),
        (TableNotTrained, "no gradient within 10 steps: other.weight"),
    ],
)
def test_the_check_finds_a_fault(faulty, message):
    with pytest.raises(AssertionError, match=message):
        check_domain_model(faulty)
