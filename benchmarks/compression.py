"""What compressed embeddings cost in accuracy: MMoE on ml-100k, users and items on fewer rows.

    python -m benchmarks.compression --seeds=5 --output=runs-compression

Every variant is trained with the same seeds (2020, 2021, ...) on one split, at the shipped settings. Printed: rows of
the table, mean validation and test AUC over the tasks with the standard deviation over seeds, and the mean paired
difference of the test AUC from the table without compression with its 95 % interval (Student's t). Each run is a line
of runs.jsonl in the output folder; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import markdown
from recbole_dtn import fit

ABOVE = 300
"""Of ml-100k's fields: user_id (943 tokens), item_id (1,652), zip_prefix (382)."""
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "hash, collisions 4": {"method": "hash", "collisions": 4},
    "hash, collisions 6, keep 100": {"method": "hash", "collisions": 6, "keep": 100},
    "quotient_remainder, product, collisions 4": {"method": "quotient_remainder", "collisions": 4},
    "quotient_remainder, sum, collisions 4": {"method": "quotient_remainder", "collisions": 4, "operation": "sum"},
}


def train(name: str, seed: int, output: Path, extra: dict[str, str]) -> dict[str, Any]:
    """One run as a line."""
    given = {f"embedding_compression.{key}": value for key, value in VARIANTS[name].items()}
    given = {"embedding_compression.above": ABOVE, **given, "seed": seed, "output_dir": str(output), **extra}
    record = fit("MMoE", "ml-100k", given, quiet=True).record
    assert record.valid is not None
    assert record.test is not None
    valid, test = ([task["auc"] or float("nan") for task in part.values()] for part in (record.valid, record.test))
    rows = record.parameters["embedding"] // record.settings["embedding_size"]
    return {"variant": name, "seed": seed, "rows": rows, "valid": float(np.mean(valid)), "test": float(np.mean(test))}


def summary(lines: Sequence[dict[str, Any]]) -> str:
    """The table, from every line there is."""
    by_seed = {name: {line["seed"]: line for line in lines if line["variant"] == name} for name in VARIANTS}
    rows = []
    for name, found in by_seed.items():
        if not found:
            continue
        shown = [
            f"{next(iter(found.values()))['rows']:,}",
            *(_spread([x[k] for x in found.values()]) for k in ("valid", "test")),
        ]
        common = sorted(found.keys() & by_seed["none"].keys())
        differences = [found[seed]["test"] - by_seed["none"][seed]["test"] for seed in common]
        rows.append([name, *shown, "–" if name == "none" else _interval(differences)])
    return markdown(["embedding_compression", "rows", "valid AUC", "test AUC", "test, from none"], rows)


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{deviation}"


def _interval(differences: Sequence[float]) -> str:
    if len(differences) < 2:
        return "–"
    half = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    mean = statistics.mean(differences)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs-compression"))
    chosen, rest = parser.parse_known_args(argv)
    extra = dict(part.removeprefix("--").split("=", 1) for part in rest)
    chosen.output.mkdir(parents=True, exist_ok=True)
    file = chosen.output / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    there = {(line["variant"], line["seed"]) for line in lines}
    for seed in range(2020, 2020 + chosen.seeds):
        for name in VARIANTS:
            if (name, seed) not in there:
                lines.append(train(name, seed, chosen.output, extra))
                with file.open("a") as out:
                    out.write(json.dumps(lines[-1]) + "\n")
    print(summary(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
