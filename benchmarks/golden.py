"""Golden runs: what two checkouts compute from the same inputs has to be equal, bit by bit, on the same machine.

``python -m benchmarks.golden run CHECKOUT OUT.json [--raw=FOLDER]`` runs a checkout by its command line and keeps the
loss of every epoch, the metrics, and digests of parameters, predictions and files. Raw sets come from FOLDER, which
the checkout fills where it is empty: give the same folder to both checkouts.
``python -m benchmarks.golden compare OLD.json NEW.json`` lists what differs, and fails if anything does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUNS = {
    "DTN": ["--model=DTN"],
    "DTN-released": ["--model=DTN", "--variant=released"],
    **{name: [f"--model={name}"] for name in ("MMoE", "PLE", "STEM", "ESMM", "SingleTask", "Logistic")},
    "PEPNet": ["--model=PEPNet", "--domain_field=gender"],
    **{f"MMoE-{name}": ["--model=MMoE", f"--balancer={name}"] for name in ("pcgrad", "gradnorm", "famo")},
}
TRAINING = ["--dataset=ml-100k", "--epochs=2", "--limit_rows=20000", "--threads=1", "--accelerator=cpu"]
RAW_SETS = {"aliccp": "aliccp", "aliexpress": "aliexpress", "kuairand": "kuairand", "census-income": "census-income"}
RAW_OPTIONS = {"aliexpress": ["--countries=NL"], "kuairand": ["--version=1k"]}
HEADER = "user,item,price,click,buy\n"
MESSY = {
    "plain": HEADER + "".join(f"u{i % 37},i{i % 11},{i / 7},{i % 2},{i % 6 // 5}\n" for i in range(400)),
    "quoted": HEADER
    + "".join(f'"u,{i % 37}"," i""{i % 11} ",{i if i % 9 else ""},{i % 2},{i % 6 // 5}\n' for i in range(400)),
    "faulty": HEADER
    + "".join(f"u{i},é{i % 3},{'1e3' if i % 5 else ''},{i % 2},{i % 6 // 5}\r\n" for i in range(2000))
    + "short,row\nu,i,nan,2,0\n",
}
SPEC = """
fields:
  - {name: user}
  - {name: item}
  - {name: price, type: float, missing: keep}
tasks:
  - {name: click, label: click}
  - {name: buy, label: buy}
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def parameters(file: Path) -> str:
    """Digest of all tensors of a checkpoint, by their names."""
    import torch

    found = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(name.encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                add(f"{name}.{key}", value[key])

    add("", torch.load(file, weights_only=True)["state_dict"])
    return found.hexdigest()[:16]


class Checkout:
    """The command line of a checkout, run in a folder of its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root.resolve(), folder

    def __call__(self, *words: str) -> None:
        command = [sys.executable, str(self.root / "run_recbole_dtn.py"), *words]
        ended = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(self.root)}
        )
        if ended.returncode:
            raise SystemExit(f"{' '.join(words)}: exit code {ended.returncode}\n{ended.stderr[-2000:]}")

    def trained(self, name: str, words: list[str]) -> dict[str, Any]:
        self("train", *words, *TRAINING, f"--output_dir=runs/{name}")
        record_file = next((self.folder / "runs" / name).rglob("record.json"))
        record = json.loads(record_file.read_text())
        scores = self.folder / f"{name}.csv"
        result = {key: record[key] for key in ("history", "valid", "test", "best_epoch", "gate_weights")}
        for epoch in result["history"]:
            for key in [key for key in epoch if "second" in key or "bytes" in key]:
                del epoch[key]
        checkpoint = record_file.parent / "checkpoint.ckpt"
        if checkpoint.is_file():
            result["parameters"] = parameters(checkpoint)
        self("predict", f"--run={record_file.parent}", "--input=rows/test.parquet", f"--output={scores}")
        return {**result, "predictions": digest(scores.read_bytes())}

    def files(self, name: str) -> dict[str, str]:
        """Digests of the atomic files of a data set that was preprocessed."""
        folder = self.folder / "dataset" / name
        kept = [file for file in folder.iterdir() if file.suffix in (".inter", ".user", ".item", ".tsv")]
        return {file.name: digest(file.read_bytes()) for file in sorted(kept)}


def run(root: Path, raw: Path) -> dict[str, Any]:
    """Everything that is compared, of one checkout."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(root, Path(folder))
        checkout("data", "split", "--dataset=ml-100k", "--limit_rows=20000", "--export=rows")
        for name, words in RUNS.items():
            print(name, flush=True)
            found[name] = checkout.trained(name, words)
        for name, like in RAW_SETS.items():
            print(name, flush=True)
            if not (raw / name).is_dir():
                checkout("preprocess", "synthetic", f"--like={like}", "--rows=3000", f"--output={raw / name}")
            options = RAW_OPTIONS.get(name, [])
            checkout("preprocess", name, f"--raw={raw / name}", f"--name={name}", *options)
            found[name] = checkout.files(name)
        (Path(folder) / "spec.yaml").write_text(SPEC)
        for name, text in MESSY.items():
            print(name, flush=True)
            (Path(folder) / f"{name}.csv").write_bytes(text.encode())
            checkout(
                "preprocess",
                "table",
                f"--input={name}.csv",
                "--spec=spec.yaml",
                f"--name=t-{name}",
                "--max_rejected=0.01",
            )
            found[name] = checkout.files(f"t-{name}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("checkout", type=Path)
    running.add_argument("out", type=Path)
    running.add_argument("--raw", type=Path, required=True)
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        given.raw.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(run(given.checkout, given.raw.resolve()), indent=1, sort_keys=True))
        return 0
    old, new = (json.loads(file.read_text()) for file in (given.old, given.new))
    different = [
        f"{name}: {key}"
        for name in sorted(old.keys() | new.keys())
        for key in sorted(old.get(name, {}).keys() | new.get(name, {}).keys())
        if old.get(name, {}).get(key) != new.get(name, {}).get(key)
    ]
    print("\n".join(different) or f"{len(old)} golden results are equal")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
