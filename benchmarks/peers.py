"""Environments of the peers, since their pins conflict: ``python -m benchmarks.peers FOLDER``.

Makes ``FOLDER/fuxictr`` and ``FOLDER/rechub`` (torch-rechub and DeepCTR-Torch), each a virtual environment with the
versions below. Install a CPU build of torch first where the index serves one (``--torch=2.13.0``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    "fuxictr": ["fuxictr==2.3.10", "polars<2"],  # its own reading of CSV fails with Polars 2
    "rechub": ["torch-rechub==0.9.0", "deepctr-torch==0.3.0", "requests"],  # deepctr-torch forgets requests
}


def interpreter(peers: Path, name: str) -> str | None:
    """The Python of a peer's environment, or None where it was not made."""
    found = peers / name / "bin" / "python"
    return str(found) if found.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch", default="2.13.0", help="version of torch for all sides")
    arguments = parser.parse_args()
    for name, packages in REQUIREMENTS.items():
        folder = arguments.folder / name
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"torch=={arguments.torch}"], check=True)
        subprocess.run([*pip, *packages], check=True)
        print(f"made {folder}")


if __name__ == "__main__":
    main()
