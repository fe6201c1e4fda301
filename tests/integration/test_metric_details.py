"""What metrics tell beside their values: a fit on validation rows, a reliability table, values by domain."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from recbole_dtn import load
from recbole_dtn.cli import main
from recbole_dtn.metric.base import Rows
from recbole_dtn.metric.rne import platt_fit
from recbole_dtn.training.fit import Run

METRICS = ["auc", "ne", "rne", "ece", "auc/domain", "ndcg@2"]


@pytest.fixture(scope="module")
def run(small_fit: Callable[..., Run]) -> Run:
    """A run whose second epoch is not the best in every metric."""
    return small_fit("MMoE", metrics=METRICS, domain_field="gender")


def test_the_recalibration_is_fitted_on_validation_and_used_on_test(run: Run) -> None:
    loaded = load(run.folder)
    valid, test = ([(b, o.logits) for b, o in loaded.outputs(split)] for split in ("valid", "test"))
    logits = torch.cat([logits[:, 0] for _, logits in valid])
    slope, intercept = platt_fit(Rows(logits, torch.cat([batch.labels[:, 0] for batch, _ in valid]).float()))
    details = run.record.details
    assert details["valid"]["like"]["rne"] == pytest.approx({"slope": slope, "intercept": intercept}, abs=1e-4)
    assert details["test"]["like"]["rne"] == details["valid"]["like"]["rne"]

    labels = torch.cat([batch.labels[:, 0] for batch, _ in test]).double()
    mapped = slope * torch.cat([logits[:, 0] for _, logits in test]).double() + intercept
    rate = labels.mean()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(mapped, labels)
    expected = loss / -(rate * rate.log() + (1 - rate) * (1 - rate).log())
    assert run.test["like"]["rne"] == pytest.approx(float(expected), abs=1e-5)


def test_a_loaded_run_tells_the_same(run: Run) -> None:
    found = load(run.folder).evaluate()
    assert found.tasks == run.test
    assert found.details == run.record.details["test"]
    valid = load(run.folder).evaluate("valid")
    assert valid.tasks["like"]["rne"] == pytest.approx(run.record.valid["like"]["rne"], rel=1e-9)


def test_domains_have_their_names_and_every_row(run: Run) -> None:
    domains = run.record.details["test"]["like"]["auc/domain"]["domains"]
    assert set(domains) == {"F", "M"}
    assert sum(found["rows"] for found in domains.values()) == run.record.rows["test"]
    mean = sum(found["value"] for found in domains.values()) / 2
    assert run.test["like"]["auc/domain"] == pytest.approx(mean, rel=1e-12)


def test_the_command_prints_the_tables(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", f"--run={run.folder}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines.index("like, ece")
    assert lines[table + 1].split() == ["bin", "rows", "predicted", "observed"]
    assert [line.split()[0] for line in lines[table + 2 : table + 17]] == [str(number) for number in range(1, 16)]
    table = lines.index("love, auc/domain")
    assert {line.split()[0] for line in lines[table + 2 : table + 4]} == {"F", "M"}
    assert main(["test", f"--run={run.folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["details"] == run.record.details["test"]
