"""The record of a run that was killed after its training: its test, done again from the checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from recbole_dtn.metric.tasks import new_metrics, with_domain_names
from recbole_dtn.record.record import RunRecord, write_record
from recbole_dtn.record.training import FILE_NAME, has_trained, is_running
from recbole_dtn.serving.load import Evaluation, LoadedRun
from recbole_dtn.training.chain import ChainBreaks
from recbole_dtn.training.module import GateMeans
from recbole_dtn.training.warn import result_warnings

__all__ = ["rebuild_record"]


@torch.inference_mode()
def rebuild_record(folder: Path, loaded: LoadedRun) -> tuple[Evaluation, RunRecord | None]:
    """Test a run that has no record, and write the record.

    It is ``finished`` if the training had ended. Else it is ``preempted``: the test is that of the best epoch so far.

    Args:
        folder: of the run. loaded: from there.

    Returns:
        The test, and the record; None where a process is running the run, which will write it.
    """
    tasks = loaded.model.schema.tasks
    metrics, gates, breaks = new_metrics(loaded.settings, tasks), GateMeans(loaded.model.gate_names), ChainBreaks(tasks)
    metrics.use_fits(loaded.record.details.get("valid", {}))
    for batch, output in loaded.outputs("test"):
        metrics.add_batch(batch, output)
        gates.update(output.gates)
        breaks.update(output.logits)
    details = with_domain_names(metrics.details(), loaded.vocabularies.domains)
    found = Evaluation(metrics.compute(), metrics.compute_factors(), details)
    if is_running(folder):
        return found, None
    trained = has_trained(folder)
    factors = {"test": found.factors} if found.factors else {}
    record = loaded.record.model_copy(
        update={
            "status": "finished" if trained else "preempted",
            "interrupted_at": None if trained else f"an epoch after {loaded.record.epochs}",
            "test": found.tasks,
            "factors": {**loaded.record.factors, **factors},
            "details": {**loaded.record.details, **({"test": details} if details else {})},
            "gate_weights": gates.compute(),
            "chain_breaks": breaks.compute(),
        }
    )
    told = [sentence for sentence in result_warnings(record) if sentence not in record.warnings]
    record = record.model_copy(update={"warnings": [*record.warnings, *told]})
    write_record(record, folder)
    if trained:
        (folder / FILE_NAME).unlink()
    return found, record
