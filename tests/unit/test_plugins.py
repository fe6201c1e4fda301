"""Plug-in files: which may be run, and what is told of those that changed or are missing."""

from __future__ import annotations

import hashlib
import inspect
import py_compile
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recbole_dtn import registry
from recbole_dtn.bridge.config import RecBoleConfig
from recbole_dtn.bridge.trainer import FORMAT, load_data_and_model
from recbole_dtn.bridge.translate import _settings_of
from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError
from recbole_dtn.plugins import PluginChangedWarning, PluginState, check_named, load_recorded, plugin_states
from recbole_dtn.registry import LOSSES, MODELS, load_plugins
from recbole_dtn.training.quick_start import run_recbole

SOURCE = """
from pathlib import Path
from recbole_dtn.registry import LOSSES
Path(__file__).with_suffix(".ran").touch()
@LOSSES.register("{stem}")
class Mine:
    "A loss."
    task_kind = "binary"
"""


def write(file: Path, end: str = "") -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(SOURCE.format(stem=file.stem) + end)
    return file


def ran(file: Path) -> bool:
    return file.with_suffix(".ran").exists()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "mine.py")


@pytest.fixture
def settings_file(tmp_path: Path, file: Path) -> Path:
    """A file of settings, as a run's folder has one, that names a plug-in."""
    made = tmp_path / "foreign.yaml"
    made.write_text(f"epochs: 2\nplugins: [{file}]\n")
    return made


COMMANDS: list[list[str]] = [
    ["train"],
    ["train", "--dry_run"],
    ["train", "--split_seeds=2"],
    ["data", "info"],
    ["data", "validate"],
    ["data", "split", "--name=new"],
    ["data", "split", "--export=rows"],
    ["leaderboard", "run", "--models=MMoE", "--datasets=ml-100k"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_settings_file_runs_no_code(
    command: list[str], settings_file: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, f"--config_files={settings_file}"]) == 2
    told = capsys.readouterr().err
    assert (
        f"plugins: {settings_file}:2 names the plug-in file {file}, and plug-ins are run only if you name them" in told
    )
    assert f"add --plugins={file} (" in told
    assert "--trust" in told
    assert not ran(file)


@pytest.mark.parametrize("word", ["--trust", "--trust=true", "--plugins=mine.py"])
def test_naming_the_file_or_trust_runs_it(word: str, settings_file: Path, file: Path) -> None:
    resolved = resolve([f"--config_files={settings_file}", word])
    assert resolved.settings.plugins == [str(file)]
    assert resolved.settings.epochs == 2
    assert ran(file)


def test_naming_one_file_trusts_no_other(settings_file: Path, file: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.py")
    assert resolve([f"--config_files={settings_file}", f"--plugins={other}"]).settings.plugins == [str(other)]
    assert ran(other)
    assert not ran(file)
    with pytest.raises(UsageError, match=r"foreign.yaml:2 names the plug-in file"):
        resolve([f"--config_files={settings_file}", "--trust=false"])


def test_trust_is_for_the_command_line_alone(settings_file: Path, file: Path) -> None:
    settings_file.write_text(settings_file.read_text() + "trust: true\n")
    with pytest.raises(UsageError, match="names the plug-in file"):
        resolve([f"--config_files={settings_file}"])
    with pytest.raises(UsageError, match=r"trust: is no setting: .* takes it on its command line"):
        resolve([f"--config_files={settings_file}", "--trust"])
    with pytest.raises(UsageError, match=r"trust: expected true or false; found 'maybe' \(command line\)"):
        resolve(["--trust=maybe"])


BOARDS = [
    "models: [MMoE]\nsettings: {{plugins: [{file}]}}",
    "models: [{{model: MMoE, plugins: [{file}]}}]",
    "models: [{{model: MMoE, 'plugins=[{file}],x': 1}}]",
    "models: [{{model: MMoE, '--plugins': [{file}]}}]",
    "models: [{{model: MMoE, config_files: foreign.yaml, trust: true}}]",
    "models: [MMoE]\nsettings: {{config_files: foreign.yaml, trust: true}}",
]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("words", [[], ["--plugins=other.py"], ["--trust"]])
def test_settings_of_a_leaderboards_file_run_no_code(
    board: str, words: list[str], settings_file: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Path("other.py"))
    Path("board.yaml").write_text(f"datasets: [unknown-set]\n{board.format(file=file)}\n")
    assert main(["leaderboard", "run", "board.yaml", *words]) == 2
    assert "board.yaml: " in (told := capsys.readouterr().err)
    assert "plugins: a leaderboard's file names them under its own key" in told or "trust: only the command" in told
    assert not ran(file)


def test_from_python(settings_file: Path, file: Path) -> None:
    with pytest.raises(UsageError, match="names the plug-in file"):
        resolve({"model": "MMoE"}, config_files=[settings_file])
    with pytest.raises(UsageError, match=r'in Python plugins=\["/.*mine.py"\]'):
        run_recbole("MMoE", "ml-100k", config_file_list=[settings_file])
    assert not ran(file)
    assert resolve({"model": "MMoE"}, config_files=[settings_file], trust=True).settings.plugins == [str(file)]
    assert ran(file)
    # It has run: naming it again would protect from nothing.
    resolve({"model": "MMoE"}, config_files=[settings_file])
    write(file, "# another file now")
    with pytest.raises(UsageError, match="names the plug-in file"):
        resolve({"model": "MMoE"}, config_files=[settings_file])


@pytest.mark.parametrize(
    "more", ["trust: true\n", "trust: true\nconfig_files: foreign.yaml\n", "config_files: foreign.yaml\n"]
)
def test_a_file_of_run_recbole_trusts_nothing(more: str, settings_file: Path, file: Path) -> None:
    Path("first.yaml").write_text(more)
    with pytest.raises(UsageError, match=r"(trust|config_files): is no setting of a file") as error:
        run_recbole("MMoE", "ml-100k", config_file_list=["first.yaml"])
    assert "(first.yaml)" in str(error.value)
    assert not ran(file)


def test_run_recbole_runs_what_config_dict_names(settings_file: Path, file: Path) -> None:
    with pytest.raises(UsageError, match="epochs"):  # past the plug-ins
        run_recbole("MMoE", "ml-100k", [settings_file], {"plugins": str(file), "epochs": "many"})
    assert ran(file)


def test_the_line_to_add_is_quoted_for_the_shell(tmp_path: Path) -> None:
    files = [write(tmp_path / "my files" / name) for name in ("a.py", "b.py")]
    with pytest.raises(UsageError) as error:
        check_named([str(file) for file in files], "x.yaml:1")
    line = str(error.value).partition("add ")[2].partition(" (in Python")[0]
    assert shlex.split(line) == [f"--plugins={files[0]},{files[1]}"]


def test_recboles_config_files_run_no_code(settings_file: Path, file: Path) -> None:
    settings_file.write_text(f"plugins: [{file}]\n")
    config = RecBoleConfig(MODELS.load("MMoE"), "ml-100k", config_file_list=[str(settings_file)])
    with pytest.raises(UsageError, match="the Config's file names the plug-in file"):
        _settings_of(MODELS.load("MMoE"), config, None)  # type: ignore[arg-type]
    assert not ran(file)


def test_a_checkpoint_of_recboles_trainer_runs_no_code(file: Path, tmp_path: Path) -> None:
    states: list[list[dict[str, str]]] = [[], [{"path": str(file), "sha256": "0" * 64}]]
    for plugins in states:
        content = {"format": FORMAT, "config": {"settings": {"plugins": [str(file)]}}, "plugins": plugins}
        torch.save(content, tmp_path / "foreign.pth")
        with pytest.raises(
            UsageError, match=r"foreign.pth names the plug-in file .*mine.py, and plug-ins are run only"
        ):
            load_data_and_model(tmp_path / "foreign.pth")
        assert not ran(file)
    with pytest.warns(PluginChangedWarning), pytest.raises(KeyError):  # the rest of this Config is missing
        load_data_and_model(tmp_path / "foreign.pth", plugins=[str(file)])
    assert ran(file)


def test_bytecode_beside_a_file_is_not_run(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("from pathlib import Path\nPath(__file__).with_suffix('.other').touch()\n")
    # Python itself would take this for mine.py, whatever that holds.
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), cfile=cache_from_source(str(file)), invalidation_mode=unchecked)
    load_plugins([str(file)])
    assert ran(file)
    assert not file.with_suffix(".other").exists()
    assert "A loss." in inspect.getsource(LOSSES.load("mine"))


# ---- a finished run -------------------------------------------------------------------------------------------------


def state(file: Path) -> PluginState:
    return PluginState(str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def test_a_runs_own_plugin_is_not_run_either(file: Path) -> None:
    with pytest.raises(UsageError, match=r"plugins: runs/x names the plug-in file .*mine.py, .* add --plugins=/"):
        load_recorded([state(file)], "runs/x")
    assert not ran(file)
    assert load_recorded([state(file)], "runs/x", named=["mine.py"]) == [str(file)]
    assert ran(file)


def test_the_line_to_add_has_every_file_that_is_needed(file: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.py")
    both = [state(file), state(other)]
    with pytest.raises(
        UsageError, match=f"names the plug-in files {file}, {other}, and .* add --plugins={file},{other} "
    ):
        load_recorded(both, "runs/x")
    with pytest.raises(UsageError, match=f"names the plug-in file {other}, and .* add --plugins={file},{other} "):
        load_recorded(both, "runs/x", named=["mine.py"])
    assert load_recorded(both, "runs/x", named=["other.py", "mine.py"]) == [str(file), str(other)]


def test_it_is_run_where_the_folder_is_trusted(file: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert load_recorded([state(file)], "runs/x", trust=True) == [str(file)]
    assert LOSSES.load("mine").__doc__ == "A loss."
    assert not [each for each in recwarn if each.category is PluginChangedWarning]


def test_a_plugin_that_changed_is_told(file: Path) -> None:
    before = state(file)
    write(file, "# longer")
    told = rf"the plug-in .*mine.py has changed since runs/x used it \(SHA-256 .*, recorded {before.sha256[:12]}\)"
    with pytest.warns(PluginChangedWarning, match=told):
        load_recorded([before], "runs/x", named=[str(file)])


def test_a_plugin_that_is_missing_is_an_error(file: Path) -> None:
    before = state(file)
    load_plugins([str(file)])  # that this process has run it does not bring it back
    file.unlink()
    for given in ({}, {"trust": True}, {"named": [str(file)]}):
        with pytest.raises(UsageError, match=r"runs/x needs the plug-in file .*mine.py, which is missing: put it"):
            load_recorded([before], "runs/x", **given)  # type: ignore[arg-type]


def test_a_plugin_that_moved_is_found_by_its_content_or_its_name(file: Path, tmp_path: Path) -> None:
    before = state(file)
    moved = tmp_path / "renamed.py"
    file.rename(moved)
    assert load_recorded([before], "runs/x", named=[str(moved)]) == [str(moved)]
    write(moved, "# renamed and changed: the only file that is named, for the only one that is missing")
    with pytest.warns(PluginChangedWarning, match="renamed.py has changed"):
        assert load_recorded([before], "runs/x", named=[str(moved)]) == [str(moved)]
    other = write(tmp_path / "now" / "mine.py", "# changed, too")
    with pytest.warns(PluginChangedWarning, match="now/mine.py has changed"):
        assert load_recorded([before], "runs/x", named=[str(moved), str(other)]) == [str(other), str(moved)]


def test_a_record_without_digests_still_needs_its_files_named(file: Path) -> None:
    old = [PluginState(str(file), None)]
    with pytest.raises(UsageError, match="names the plug-in file"):
        load_recorded(old, "runs/x")
    assert load_recorded(old, "runs/x", named=[str(file)]) == [str(file)]


def test_the_digest_is_that_of_the_code_that_ran(file: Path) -> None:
    ran_as = state(file)
    settings = resolve(["--plugins=mine.py"]).settings
    write(file, "# edited while the run was training")
    assert plugin_states(settings) == [ran_as]


# ---- installed packages ---------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with an entry point, as pip would have installed it."""
    file = write(tmp_path / "site" / "shop_losses.py")
    monkeypatch.syspath_prepend(str(file.parent))
    point = EntryPoint("shop_losses", "shop_losses:Mine", LOSSES.group)
    points = [SimpleNamespace(name=point.name, value=point.value, dist=SimpleNamespace(name="shop"))]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == LOSSES.group else [])
    monkeypatch.setattr(LOSSES, "_entries", {})
    monkeypatch.setattr(LOSSES, "_scanned", False)
    yield file
    sys.modules.pop("shop_losses", None)


def test_an_installed_package_is_trusted_and_recorded(package: Path) -> None:
    settings = resolve({"tasks": {"like": {"loss": "shop_losses"}}}).settings
    (found,) = plugin_states(settings)
    expected = PluginState(str(package), state(package).sha256, "shop", "shop_losses")
    assert found == expected
    assert plugin_states(resolve({}).settings) == [], "installed, but not used"
    assert load_recorded([found], "runs/x") == []


def test_a_package_that_changed_or_is_missing(package: Path) -> None:
    settings = resolve({"tasks": {"like": {"loss": "shop_losses"}}}).settings
    (before,) = plugin_states(settings)
    write(package, "# another version")
    with pytest.warns(PluginChangedWarning, match="the plug-in shop_losses of shop has changed since runs/x used it"):
        load_recorded([before], "runs/x")
    gone = PluginState("/elsewhere/a.py", before.sha256, "shop-models 1.2", "shop_models.a")
    with pytest.raises(UsageError, match=r"needs the module shop_models.a of the installed package shop-models 1.2, "):
        load_recorded([gone], "runs/x")


def test_a_record_cannot_name_a_module_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "evil.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="needs the module evil"):
        load_recorded([PluginState(str(file), None, "evil 1", "evil")], "runs/x", trust=True)
    assert not ran(file)
