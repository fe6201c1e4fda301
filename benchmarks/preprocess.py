"""Raw ids to training-ready ids: ours beside pandas, FuxiCTR, RecBole and the barest Polars script.

    python -m benchmarks.peers peers            # once: the peers' environments
    python -m benchmarks.preprocess --peers=peers --rows=2000000 --rounds=5

The data: 23 single-valued fields of Zipf-distributed ids, 999,986 ids in all, two labels; one CSV and the same rows as
an atomic file. Every side starts as a new process; its imports are not counted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from benchmarks.harness import Side, compare, markdown, median, ratio, save
from benchmarks.peers import interpreter

FIELDS, IDS, EXPONENT = 23, 999_995, 1.05
SIDES = Path(__file__).parent / "sides"


def field_sizes() -> np.ndarray:
    """Distinct ids of each field, from about ten to a third of all."""
    sizes = np.geomspace(10, 330_000, FIELDS)
    return (sizes * IDS / sizes.sum()).astype(int)


def make_data(folder: Path, rows: int) -> None:
    """data.csv, spec.yaml, and atomic/atomic.inter with its YAML."""
    random = np.random.default_rng(0)
    columns = {}
    for position, size in enumerate(field_sizes()):
        shares = np.cumsum(np.arange(1, size + 1) ** -EXPONENT)
        ids = random.permutation(3 * size)[:size]
        columns[f"c{position}"] = ids[np.searchsorted(shares / shares[-1], random.random(rows))]
    columns["click"] = (random.random(rows) < 0.3).astype(int)
    columns["buy"] = columns["click"] * (random.random(rows) < 0.2)
    frame = pl.DataFrame(columns)
    names = [name for name in columns if name.startswith("c") and name != "click"]
    meaning = {
        "fields": [{"name": name} for name in names],
        "tasks": [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy"}],
    }
    (folder / "atomic").mkdir(parents=True, exist_ok=True)
    frame.write_csv(folder / "data.csv")
    (folder / "spec.yaml").write_text(yaml.safe_dump(meaning), encoding="utf-8")
    (folder / "atomic" / "atomic.yaml").write_text(yaml.safe_dump(meaning), encoding="utf-8")
    header = "\t".join([*(f"{name}:token" for name in names), "click:float", "buy:float"])
    with (folder / "atomic" / "atomic.inter").open("wb") as file:
        file.write(f"{header}\n".encode())
        frame.write_csv(file, include_header=False, separator="\t")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder that benchmarks.peers made")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"), help="gets the data (about 0.6 GB)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preprocess.json"))
    parser.add_argument("--leave_out", default="", help="sides to leave out, with commas")
    arguments = parser.parse_args()
    data = arguments.folder / f"{arguments.rows}"
    if not (data / "atomic" / "atomic.inter").is_file():
        make_data(data, arguments.rows)
    samples = compare(_sides(arguments, data), arguments.rounds)
    save(
        arguments.output,
        "preprocess",
        {"rows": arguments.rows, "fields": FIELDS, "ids": int(field_sizes().sum())},
        samples,
    )
    print(report(samples, arguments.rows))


def _sides(arguments: argparse.Namespace, data: Path) -> list[Side]:
    output = arguments.folder / "out"

    def fresh() -> None:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)

    def side(name: str, python: str, script: str, word: str) -> Side:
        environment = {"PYTHONPATH": str(Path.cwd())}
        return Side(name, [python, str(SIDES / script), word, str(data), str(output)], environment, fresh)

    sides = [side(f"ours, {word}", sys.executable, "preprocess_ours.py", word) for word in ("atomic", "table")]
    for name in ("barest-integers", "barest-text", "pandas-integers", "pandas-text", "recbole"):
        sides.append(side(name, sys.executable, "preprocess_peers.py", name))
    fuxictr = interpreter(arguments.peers, "fuxictr")
    if fuxictr is None:
        print(f"FuxiCTR is left out: no environment in {arguments.peers}; python -m benchmarks.peers {arguments.peers}")
    else:
        sides.append(side("fuxictr", fuxictr, "preprocess_peers.py", "fuxictr"))
    left_out = {name.strip() for name in arguments.leave_out.split(",")}
    return [side for side in sides if side.name not in left_out]


def report(samples, rows: int) -> str:  # type: ignore[no-untyped-def]
    """The table of docs/benchmarks.md."""
    table = []
    for name, runs in samples.items():
        cells = [name, f"{rows / median(runs, lambda run: run.seconds):,.0f}"]
        cells += [f"{median(runs, lambda run: run.peak_mib):,.0f}", f"{median(runs, lambda run: run.cpu):.1f}"]
        for ours in ("ours, atomic", "ours, table"):
            middle, least, largest = ratio(samples, ours, name)
            cells.append("–" if name == ours else f"{middle:.2f} ({least:.2f}–{largest:.2f})")
        cells.append(f"{median(runs, lambda run: run.others):.2f}")
        table.append(cells)
    columns = ("side", "rows/s", "peak MiB", "CPU s", "ours, atomic, is × faster", "ours, table, is × faster")
    return markdown([*columns, "other processes, cores"], table)


if __name__ == "__main__":
    main()
