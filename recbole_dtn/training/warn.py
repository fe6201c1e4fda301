"""Signs in a finished run that its reader should know of."""

from __future__ import annotations

from recbole_dtn.training.record import RunRecord

__all__ = ["failure_signs"]

COLLAPSED = 0.95
UNIFORM = 0.005


def failure_signs(record: RunRecord) -> list[str]:
    """Sentences about gates that collapsed or stayed uniform, and a best epoch so early that the model overfits."""
    signs = []
    interactions = record.settings.get("interactions", [])
    names = [entry if isinstance(entry, str) else entry["name"] for entry in interactions]
    if record.best_epoch is not None and record.best_epoch <= 2 < record.epochs and "memonet" in names:
        signs.append(
            f"the best epoch is {record.best_epoch}: MemoNet memorises small data at once; try a larger codebook_l2 or "
            "embedding_l2, fewer codes, or --interactions='[gdcn, masknet]'"
        )
    for task, weights in record.gate_weights.items():
        if len(weights) < 2:
            continue
        name, largest = max(weights.items(), key=lambda item: item[1])
        if largest > COLLAPSED:
            signs.append(f"the gate of {task} has collapsed: {name} has a mean weight of {largest:.3f}")
    flat = [
        task
        for task, weights in record.gate_weights.items()
        if len(weights) > 1 and max(weights.values()) - min(weights.values()) < UNIFORM
    ]
    if flat:
        signs.append(f"the gates of {', '.join(flat)} stayed uniform: the modules were averaged, not selected")
    return signs
