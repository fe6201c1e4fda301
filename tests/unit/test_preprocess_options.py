"""Options of the raw sets cost no heavy import, so that settings are checked and shown at once."""

import subprocess
import sys

import pytest

from recbole_dtn.registry import PREPROCESSORS

HEAVY = ("torch", "recbole", "polars", "pandas", "pytorch_lightning", "numpy")
MODULES = sorted(
    str(PREPROCESSORS.entry(name).options_class).partition(":")[0]
    for name in PREPROCESSORS.names()
    if PREPROCESSORS.entry(name).options_class is not None and PREPROCESSORS.entry(name).origin == "built-in"
)


def test_every_raw_set_declares_its_options_by_name():
    assert len(MODULES) == 5
    assert all(module.startswith("recbole_dtn.preprocess.") and module.endswith(".options") for module in MODULES)


@pytest.mark.parametrize("modules", [["recbole_dtn.config.load"], MODULES])
def test_options_and_settings_import_nothing_heavy(modules):
    code = f"import sys, {', '.join(modules)}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
