"""One virtual environment for every packaging and plug-in test: the wheel is built and installed once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds our wheel; the packages it needs are those already here.

    A ``.pth`` file lends the present site-packages, so that no other torch is ever fetched.
    """
    # One for all processes of the test run, whose folders lie in a common one.
    several = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    work = (base.parent if several else base) / "packaging"
    with FileLock(f"{work}.lock"):
        if not (work / "installed").is_file():
            work.mkdir()
            _install(work)
            (work / "installed").touch()
    return work / "venv" / "bin" / "python"


def _install(work: Path) -> None:
    source = work / "source"
    source.mkdir()
    for name in ("recbole_dtn", "properties"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    wheels = work / "wheels"
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, source], work)
    environment = work / "venv"
    venv.create(environment)  # without a pip of its own, which takes seconds to install
    python = environment / "bin" / "python"
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], work).strip()
    # Our own editable install here must not shadow the wheel: only the plain site-packages folder is lent.
    (Path(site) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    wheel = next(wheels.glob("recbole_dtn-*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", python]
    run([*pip, "install", "-q", "--no-index", "--force-reinstall", "--no-deps", wheel], work)


def run(command: list[object], folder: Path) -> str:
    """Run a command in ``folder`` without this process's PYTHONPATH; its output, or a failure that shows it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def shell() -> Callable[[list[object], Path], str]:
    """:func:`run`, for the tests."""
    return run
