"""A whole Ali-CCP, synthetic, from raw files to the first training steps: time, memory and disk of each stage.

    python -m benchmarks.pipeline --rows=10000000 --folder=pipeline

Every stage is a process of its own: raw files (streaming), atomic files, cache, DTN's first 200 steps. Two sizes show
what grows with the rows: ``--rows=5000000,10000000``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import Sample, Side, machine, markdown, measure

STAGES = Path(__file__).parent / "sides" / "pipeline_stages.py"
LAUNCH = (
    "import json, sys, time; start = time.perf_counter(); from recbole_dtn.cli import main; code = main(sys.argv[1:]);"
    "print(json.dumps({'seconds': time.perf_counter() - start})); sys.exit(code)"
)


def run(rows: int, folder: Path, steps: int, protocol: str) -> dict[str, Sample]:
    """All stages for one size; files stay in the folder."""
    raw, data, name = folder / f"raw-{rows}", folder / f"data-{rows}", f"aliccp-{protocol}-synthetic"
    command = [sys.executable, "-c", LAUNCH, "preprocess"]
    environment = {"PYTHONPATH": str(Path.cwd())}
    sides = []
    if not raw.is_dir():
        words = ["synthetic", "--like=aliccp", f"--rows={rows}", "--seed=1", f"--output={raw}"]
        sides.append(Side("raw files", [*command, *words], environment))
    words = ["aliccp", f"--protocol={protocol}", f"--raw={raw}", f"--name={name}", f"--data_path={data}", "--overwrite"]
    stage = [sys.executable, str(STAGES)]

    def fresh() -> None:
        shutil.rmtree(data / name / ".cache", ignore_errors=True)

    sides += [
        Side("atomic files", [*command, *words], environment),
        Side("cache", [*stage, "encode", str(data), name], environment, fresh),
        Side(f"first {steps} steps of DTN", [*stage, "steps", str(data), name, str(steps)], environment),
    ]
    samples = {}
    for side in sides:
        print(f"{time.strftime('%H:%M:%S')}  {rows:,} rows: {side.name} ...", flush=True)
        samples[side.name] = measure(side)
    return samples


def size_of(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000000", help="impressions, train and test together; several with commas")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data/pipeline"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--protocol", default="dtn23")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/pipeline.json"))
    arguments = parser.parse_args()
    table, everything = [], {}
    for rows in map(int, arguments.rows.split(",")):
        samples = run(rows, arguments.folder, arguments.steps, arguments.protocol)
        everything[rows] = {name: asdict(sample) for name, sample in samples.items()}
        data = arguments.folder / f"data-{rows}" / f"aliccp-{arguments.protocol}-synthetic"
        sizes = {
            "raw files": size_of(arguments.folder / f"raw-{rows}"),
            "atomic files": size_of(data),
            "cache": sum(size_of(entry) for entry in (data / ".cache").iterdir() if entry.is_dir()),
        }
        for name, sample in samples.items():
            speed = f"{rows / sample.seconds:,.0f} rows/s" if name in sizes else ""
            disk = f"{sizes[name] / 1e9:.2f} GB ({sizes[name] / rows:.0f} B/row)" if name in sizes else ""
            anonymous = ""
            if "anonymous_mib" in sample.found:
                anonymous = f"{sample.found['anonymous_mib']:,.0f} ({sample.found['table_mib']:,.0f})"
            table.append(
                [f"{rows:,}", name, f"{sample.seconds:.1f} s", speed, f"{sample.peak_mib:,.0f}", anonymous, disk,
                 f"{sample.others:.2f}"]
            )  # fmt: skip
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": "pipeline", "machine": machine(), "runs": everything}
    arguments.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    columns = (
        "rows",
        "stage",
        "time",
        "speed",
        "peak RSS, MiB",
        "largest RssAnon, MiB (parameters and optimiser)",
        "disk",
        "others, cores",
    )
    print(markdown(columns, table))


if __name__ == "__main__":
    main()
