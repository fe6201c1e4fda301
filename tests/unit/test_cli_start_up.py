"""What must answer at once costs no heavy import."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = "{'torch', 'recbole', 'pytorch_lightning', 'torchmetrics', 'polars', 'pandas'}"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("words", [["data", "cache", "list"], ["list", "models"], ["list", "datasets"], ["--help"]])
def test_light_commands_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from recbole_dtn.cli import main\n"
        f"code = main({words!r})\n"
        f"sys.exit(code or ', '.join({HEAVY} & set(sys.modules)) or 0)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
