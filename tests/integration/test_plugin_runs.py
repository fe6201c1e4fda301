"""A finished run whose plug-in file nobody named on this command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_dtn import load
from recbole_dtn.cli import main
from recbole_dtn.errors import UsageError
from recbole_dtn.plugins import PluginChangedWarning
from recbole_dtn.training.fit import Run
from tests.integration.plugin_text import PLUGIN

Fit = Callable[..., Run]


def test_a_foreign_runs_plugin_is_run_only_if_it_is_named(
    small_fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(name="three", fault=""))
    run = small_fit("DTN", interactions=["first_field_three"], plugins=[str(file)], epochs=1)
    # The line of a comment: another digest, as another process would find it.
    file.write_text(f"{file.read_text()}# changed\n")
    commands: list[list[str]] = [["test", "--json"], ["evaluate", "--json", "--draws=0"]]
    for command in commands:
        assert main([*command, f"--run={run.folder}"]) == 2
        assert f"{run.folder} names the plug-in file {file}, and plug-ins" in (told := capsys.readouterr().err)
        assert f"add --plugins={file} (" in told
        for word in (f"--plugins={file}", "--trust"):
            assert main([*command, f"--run={run.folder}", word]) == 0
            assert f"warning: the plug-in {file} has changed since {run.folder} used it" in capsys.readouterr().err
        file.write_text(f"{file.read_text()}# changed again\n")
    with pytest.raises(UsageError, match="names the plug-in file"):
        load(run.folder)
    with pytest.warns(PluginChangedWarning):
        assert load(run.folder, plugins=[str(file)]).settings.plugins == [str(file)]
    assert main(["--dry_run", f"--config_files={run.folder}/settings.yaml", "--quiet"]) == 0
    file.unlink()
    for word in ("--trust", "--json"):
        assert main(["test", f"--run={run.folder}", word]) == 2
        assert f"{run.folder} needs the plug-in file {file}, which is missing" in capsys.readouterr().err
