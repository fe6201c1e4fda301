"""Commands, exit codes and messages; what a command calls is tested with its package."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import recbole_dtn
from recbole_dtn.config.settings import Settings
from recbole_dtn.errors import DataError, RecBoleDTNError, TooManyRejectedError, UsageError
from recbole_dtn.report.console import make_console, say
from recbole_dtn.report.tables import show_table

Shown = Callable[..., tuple[int, str, str]]


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **attributes: Any) -> None:
    """Put a module of these attributes in the place of a heavy one, for the length of a test."""
    fake = types.ModuleType(module)
    fake.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, module, fake)


# ---- help and names -------------------------------------------------------------------------------------------------


def test_version(shown: Shown) -> None:
    assert shown("--version") == (0, f"recbole_dtn {recbole_dtn.__version__}\n", "")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_fits_two_screens_and_names_every_setting_by_section(shown: Shown, flag: str) -> None:
    code, out, err = shown(flag)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 100, "two screens of 50 lines"
    assert max(len(line) for line in lines) <= 100
    listed = out[out.index("all settings by section") :]
    assert [name for name in Settings.model_fields if not re.search(rf"\b{name}\b", listed)] == []
    assert "  --epochs=10                     an integer >= 1: maximum number of epochs" in lines
    assert "  --model=DTN                     model to train; see `list models`" in lines
    for word in ("train", "preprocess", "data", "list", "test", "leaderboard", "--dry_run", "--model=PLE"):
        assert word in out
    assert "module_dim" not in out


def test_help_of_everything_has_every_setting_with_type_default_and_comment(shown: Shown) -> None:
    code, out, err = shown("--help=all")
    assert (code, err) == (0, "")
    missing = [name for name in Settings.model_fields if f"--{name}=" not in out and f"--{name}." not in out]
    assert missing == []
    assert "  --split_seed=2020               an integer >= 0 and < 9223372036854775808: seed of the random" in out
    sections = [line for line in out.splitlines() if line.startswith("  -- ")]
    assert sections[:3] == ["  -- what", "  -- where", "  -- data"]
    assert "settings of PLE (" in out
    assert "options of the interaction masknet (" in out


@pytest.mark.parametrize(
    ("topic", "there", "elsewhere"),
    [
        ("optim", ["--optimizer.lr=", "--scheduler.gamma=", "--embedding_optimizer.name="], "--epochs="),
        ("training", ["--epochs=10", "--seed="], "--optimizer.lr="),
        ("scheduler", ["--scheduler.gamma=0.9", "--scheduler.name="], "--optimizer.lr="),
        ("epochs", ["an integer >= 1: maximum number of epochs"], "--seed="),
        ("masknet", ["options of the interaction masknet (", "  blocks: 2                       an integer"], "--"),
        ("PLE", ["settings of PLE (", "--levels=1"], "--epochs="),
    ],
)
def test_help_of_one_thing(shown: Shown, topic: str, there: list[str], elsewhere: str) -> None:
    code, out, err = shown(f"--help={topic}")
    assert (code, err) == (0, "")
    assert [text for text in there if text not in out] == []
    assert elsewhere not in out


def test_help_of_an_unknown_thing_names_the_nearest(shown: Shown) -> None:
    code, out, err = shown("--help=optm")
    assert (code, out) == (2, "")
    assert "no section, setting or method is called 'optm'; did you mean 'optim'" in err
    assert shown("data", "--help=info")[1].startswith("python run_recbole_dtn.py data info ")


@pytest.mark.parametrize(("columns", "width"), [(80, 80), (60, 80), (96, 96), (200, 110)])
def test_help_fills_the_terminal_and_no_more(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, columns: int, width: int
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in (["--help"], ["--help=all"]):
        lengths = [len(line) for line in shown(*words)[1].splitlines()]
        assert width - 5 < max(lengths) <= width
    for command in ("list", "test", "leaderboard"):
        assert max(len(line) for line in shown(command, "--help")[1].splitlines()) <= width


def test_help_of_a_model_is_its_own_settings(shown: Shown) -> None:
    _, out, _ = shown("--model=DTN", "--help")
    assert out.startswith("settings of DTN (")
    assert "  --module_dim=64                 an integer >= 1: common output width O of the modules" in out
    assert "--help=gdcn" in out
    assert "--dataset=" not in out
    _, out, _ = shown("--help", "--model", "PLE")
    assert "--levels=1" in out
    assert "--help=gdcn" not in out


def test_help_of_an_unknown_model(shown: Shown) -> None:
    code, _, err = shown("--model=PEL", "--help")
    assert code == 2
    assert "unknown model 'PEL': did you mean 'PLE'?" in err


@pytest.mark.parametrize("command", ["preprocess", "data", "list", "test", "leaderboard", "train"])
def test_every_command_has_a_help(shown: Shown, command: str) -> None:
    code, out, err = shown(command, "--help")
    assert (code, err) == (0, "")
    assert command in out.splitlines()[0] or out.startswith("recbole_dtn: ")


def test_a_commands_command_has_a_help_of_its_own(shown: Shown) -> None:
    parent, own = shown("leaderboard", "--help")[1], shown("leaderboard", "run", "--help")[1]
    assert own.startswith("python run_recbole_dtn.py leaderboard run --models=")
    assert "--split_seeds=N " in own
    assert "  run     train and test" in parent
    assert "  run     train and test" not in own
    code, _, err = shown("leaderboard", "rnu", "--help")
    assert (code, "did you mean 'run'?" in err) == (2, True)
    assert "\nThe registered models" in shown("list", "models", "--help")[1]
    assert "folders under data_path" in shown("list", "datasets", "--help")[1]
    assert shown("list", "model", "--help")[0] == 2


def test_the_package_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["recbole_dtn", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("recbole_dtn", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().out) == (0, f"recbole_dtn {recbole_dtn.__version__}\n")


def test_an_unknown_command_names_the_nearest(shown: Shown) -> None:
    code, out, err = shown("leaderbord", "--models=DTN")
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown command 'leaderbord'; did you mean 'leaderboard'?")


# ---- errors and exit codes ------------------------------------------------------------------------------------------


def test_wrong_settings_are_one_block_without_a_traceback(shown: Shown) -> None:
    code, out, err = shown("--model=DTN", "--epoch=3", "--dropout=2")
    assert (code, out) == (2, "")
    assert err.startswith("error: 2 settings are wrong:\n  ")
    assert err.count("\n") == 3
    assert "Traceback" not in err


def test_debug_shows_the_traceback_before_the_message(shown: Shown) -> None:
    code, _, err = shown("--epoch=3", "--debug")
    assert code == 2
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: epoch: unknown setting")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("no"), 2, "error: no\n"),
        (DataError("a.inter, line 3: no"), 2, "error: a.inter, line 3: no\n"),
        (TooManyRejectedError("12 rows"), 3, "error: 12 rows\n"),
        (RecBoleDTNError("failed"), 1, "error: failed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    stand_in(monkeypatch, "recbole_dtn.training.fit", fit_settings=fail)
    assert shown("--model=DTN") == (code, "", message)


def test_a_bug_is_called_one_and_says_where(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    stand_in(monkeypatch, "recbole_dtn.training.fit", fit_settings=fail)
    code, out, err = shown()
    assert (code, out) == (1, "")
    assert err.startswith("error: this is a bug: ZeroDivisionError: by zero (train.py:")
    assert err.endswith("; --debug shows the traceback\n")
    assert err.count("\n") == 1
    _, _, err = shown("--debug")
    assert "ZeroDivisionError: by\nzero" in err


# ---- train ----------------------------------------------------------------------------------------------------------


def test_train_hands_the_resolved_settings_over(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def fit_settings(resolved: Any, *, console: Any, resume: Any) -> Any:
        seen.append((resolved.settings, console.quiet))
        assert resume is None
        return types.SimpleNamespace(folder=Path("runs/x"), status="finished")

    stand_in(monkeypatch, "recbole_dtn.training.fit", fit_settings=fit_settings)
    assert shown("--model", "PLE", "--epochs", "3") == (0, "", "")
    assert shown("train", "--model=PLE", "--quiet") == (0, "runs/x\n", ""), "quiet: the last line alone"
    assert [(settings.model, settings.epochs, quiet) for settings, quiet in seen] == [
        ("PLE", 3, False),
        ("PLE", 10, True),
    ]


@pytest.mark.parametrize(("status", "code"), [("interrupted", 130), ("preempted", 75)])
def test_a_run_that_was_stopped_exits_with_a_code_of_its_own(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    ended = types.SimpleNamespace(folder=Path("runs/x"), status=status)
    stand_in(monkeypatch, "recbole_dtn.training.fit", fit_settings=lambda resolved, *, console, resume: ended)
    assert shown()[0] == code


def test_dry_run_shows_each_setting_with_its_source_and_trains_nothing(shown: Shown) -> None:
    code, out, err = shown("--dry_run", "--optimizer.lr=0.5", "--interactions=[gdcn, {name: masknet, blocks: 3}]")
    assert (code, err) == (0, "")
    rows = [line.split("  ") for line in out.splitlines()]
    table = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows if len(row) > 2}
    assert table["optimizer.lr"] == ["0.5", "command line"]
    assert table["optimizer.eps"] == ["1.0e-08", "overall.yaml"]
    assert table["module_dim"] == ["64", "model/DTN.yaml"]
    assert table["fields[7]"] == ["{name: genres, type: token_seq}", "dataset/ml-100k.yaml"]
    assert table["interactions"] == ["[gdcn, {name: masknet, blocks: 3}]", "command line"]
    assert (
        "there are no atomic files in dataset/ml-100k-mt yet: a run would first make them by `preprocess ml-100k`"
        in out
    )
    assert not Path("dataset").exists()
    assert "\x1b[" not in out


def test_a_long_value_pushes_no_other_row_aside(shown: Shown) -> None:
    modules = ", ".join(["gdcn"] * 40)
    lines = shown("--dry_run", f"--interactions=[{modules}]", "--seed=7")[1].splitlines()
    (seed,) = [line for line in lines if line.startswith("seed ")]
    (long,) = [line for line in lines if line.startswith("interactions ")]
    assert seed.endswith("  command line")
    assert len(seed) < 110
    assert len(long) > 250, "not folded where it is no terminal"


@pytest.mark.parametrize("terminal", [True, False])
def test_text_between_colons_is_no_emoji(terminal: bool) -> None:
    """rich takes ``:train:`` for a picture of a train."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, no_color=True)
    say(console, "NL:train:81")
    show_table(console, ("a:train:1", "b"), [("NL:train:81", "x:train:")])
    words = [word for word in re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).split() if set(word) != {"─"}]
    assert words == ["NL:train:81", "a:train:1", "b", "NL:train:81", "x:train:"]


def test_the_console_of_a_command_knows_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("NL:train:81")
    assert capsys.readouterr().out == "NL:train:81\n"


@pytest.mark.parametrize("width", [80, 200])
def test_on_a_terminal_a_long_value_folds_in_its_own_cell(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, no_color=True)
    long = "y" * 100 + "x" * 70
    show_table(console, ("setting", "value", "source"), [("a_setting", long, "s"), ("b", "[red]", "s")], longest=60)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in file.getvalue().splitlines()]
    assert max(len(line) for line in lines) <= min(width, 83)  # 9 + 60 + 6, and what parts them
    cells = [line.split() for line in lines]
    assert "".join(cell for row in cells for cell in row if set(cell) <= {"x", "y"}) == long
    assert cells[-1] == ["b", "[red]", "s"]


def test_a_dry_run_that_is_neither_true_nor_false_is_refused(shown: Shown) -> None:
    code, _, err = shown("--dry_run=maybe", "--model=PLE")
    assert code == 2
    assert "dry_run: expected true or false; found 'maybe'" in err
    assert shown("--dry_run=true", "--seed=x")[0] == 2


def test_dry_run_tells_the_size_where_the_files_are(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dataset/ml-100k-mt").mkdir(parents=True)
    (tmp_path / "dataset/ml-100k-mt/ml-100k-mt.inter").write_text("user_id:token\n")
    stand_in(monkeypatch, "recbole_dtn.training.project", project=lambda settings: f"{settings.model}: 12 parameters")
    assert shown("--dry_run", "--model=PLE")[1].endswith("PLE: 12 parameters\n")


# ---- the other commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("models", "PLE", ["Tang et al., RecSys 2020", "built-in"]),
        ("interactions", "gdcn", ["Wang et al., CIKM 2023", "gated deep cross network", "built-in"]),
        ("metrics", "auc", ["area under the ROC curve"]),
        ("balancers", "fixed", ["sum of the task losses"]),
        ("losses", "bce", ["binary cross-entropy"]),
        ("preprocessors", "kuairand", ["Gao et al., CIKM 2022", "KuaiRand 1K, Pure or 27K"]),
        ("datasets", "ml-100k", ["made at first use", "like, love"]),
    ],
)
def test_list(shown: Shown, kind: str, name: str, words: list[str]) -> None:
    code, out, err = shown("list", kind)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    assert [word for word in words if word.lower() not in line.lower()] == []


def test_list_shows_a_plugins_file(shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_dtn.registry import BALANCERS

    BALANCERS.names()
    monkeypatch.setattr(BALANCERS, "_entries", dict(BALANCERS._entries))
    text = "from recbole_dtn.registry import BALANCERS\n@BALANCERS.register('mine')\nclass Mine:\n    'Mine.'\n"
    (tmp_path / "plug.py").write_text(text)
    _, out, _ = shown("list", "balancers", "--plugins=plug.py")
    (line,) = [line for line in out.splitlines() if line.startswith("mine ")]
    assert "  Mine  " in line
    assert "plug" in line


def test_list_datasets_says_which_are_prepared(shown: Shown, tmp_path: Path) -> None:
    for name in ("ml-100k-mt", "bare"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / f"{name}.inter").write_text("a:token\n")
    _, out, _ = shown("list", "datasets", "--data_path=d")
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "  prepared  " in lines["ml-100k"]
    assert "atomic files, no YAML" in lines["bare"]
    assert "ml-100k-mt" not in lines, "the folder of ml-100k, no data set of its own"
    assert ", selected on the test set  " in lines["aliexpress-nl-mtreclib"]
    assert "selected on" not in lines["aliexpress-nl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "list: name one of balancers, datasets, interactions, losses, metrics, models, preprocessors"),
        (["list", "model"], "list: unknown kind 'model'; did you mean 'models'?"),
        (["list", "models", "--plugin=x"], "unknown option --plugin; did you mean '--plugins'?"),
        (["test"], "--run is needed"),
        (["test", "runs/x"], "unexpected word 'runs/x'; the folder goes in --run=FOLDER"),
        (["test", "--run"], "--run needs a value"),
        (["test", "--run=gone"], "no run record at gone: expected a run folder"),
        (["leaderboard", "--models=DTN"], "--datasets is needed"),
        (["leaderboard", "rnu", "--models=DTN", "--datasets=ml-100k"], "unknown word 'rnu'; did you mean 'run'?"),
        (["leaderboard", "--models=DTN", "--datasets=ml-100k", "--floors=Logistik"], "did you mean 'Logistic'"),
        (["leaderboard", "--models=DTN,PLEE", "--datasets=ml-100k"], "unknown model 'PLEE': did you mean 'PLE'"),
    ],
)
def test_a_command_called_wrongly(shown: Shown, words: list[str], message: str) -> None:
    code, out, err = shown(*words)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_test_prints_the_metrics_as_a_table_or_as_json(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    seen: list[Any] = []

    def load(folder: str, **moved: str) -> Any:
        seen.append((folder, moved))
        metrics = {"like": {"auc": 0.12345678, "ne": None}, "love": {"auc": 0.5, "ne": 1.0}}
        record = types.SimpleNamespace(status=status, interrupted_at="epoch 3, step 7", selected_on_test=False)
        found = types.SimpleNamespace(tasks=metrics, factors={}, details={})
        return types.SimpleNamespace(record=record, evaluate=lambda: found)

    stand_in(monkeypatch, "recbole_dtn.serving.load", load=load)
    monkeypatch.setattr("recbole_dtn.record.record.read_record", lambda folder: None)
    _, out, err = shown("test", "--run=runs/x", "--data_path=d")
    assert out.splitlines() == ["test of runs/x", "task  AUC     NE", "like  0.1235  –", "love  0.5000  1.0000"]
    said = "this run was interrupted at epoch 3, step 7: no test of it was finished before this one\n"
    assert err == (said if status == "interrupted" else "")
    _, out, _ = shown("test", "--run", "runs/x", "--json")
    assert json.loads(out) == {
        "run": "runs/x",
        "test": {"like": {"auc": 0.12345678, "ne": None}, "love": {"auc": 0.5, "ne": 1.0}},
    }
    none_named = {"plugins": [], "trust": False}
    assert seen == [("runs/x", {**none_named, "data_path": "d"}), ("runs/x", none_named)]


@pytest.mark.parametrize("command", ["preprocess", "predict", "export", "data"])
def test_sigterm_before_a_command_has_begun_its_work_ends_it_with_75(
    monkeypatch: pytest.MonkeyPatch, shown: Shown, command: str
) -> None:
    removed = []

    def run(words: list[str]) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not disturb what is removed
            removed.append(command)
        return 0

    stand_in(monkeypatch, f"recbole_dtn.cli.{command}", run=run)
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    code, _, error = shown(command, "--a=b")
    assert (code, error, removed) == (75, "ended by SIGTERM: what was not finished is not written\n", [command])
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("start", [["leaderboard", "run"], ["leaderboard"]])
def test_leaderboard_passes_its_cells_and_settings_on(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, start: list[str]
) -> None:
    seen: list[Any] = []

    def run_board(*args: Any, split_seeds: list[int] | None, floors: list[str], **more: Any) -> None:
        assert isinstance(args[0], list)
        names = [entry.name for entry in args[0]]
        seen.append((names, [entry.name for entry in args[1]], *args[2:5], split_seeds, floors, more["workers"]))

    stand_in(monkeypatch, "recbole_dtn.leaderboard.run", run_board=run_board)
    words = ["--models=DTN, MMoE", "--datasets", "ml-100k", "--seeds=2", "--epochs=1", "--dropout", "0.1", "--output=o"]
    assert shown(*start, *words) == (0, "", "")
    given, floors = ["--epochs=1", "--dropout=0.1"], ["Logistic", "Boosting"]
    assert shown(*start, *words[:-4], *words[-3:], "--folds=5", "--split_seeds=7,9", "--floors=none") == (0, "", "")
    assert seen == [
        (["DTN", "MMoE"], ["ml-100k"], [2020, 2021], given, Path("o"), None, floors, 1),
        (["DTN", "MMoE"], ["ml-100k"], [2020, 2021], ["--dropout=0.1", "--folds=5"], Path("o"), [7, 9], [], 1),
    ]


# ---- what it costs --------------------------------------------------------------------------------------------------


def test_help_lists_and_wrong_settings_load_no_heavy_library(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from recbole_dtn.cli import main\n"
        "codes = [main(words.split()) for words in sys.argv[1:]]\n"
        "heavy = {'torch', 'recbole', 'pytorch_lightning', 'polars', 'pandas', 'numpy'} & set(sys.modules)\n"
        "print('RESULT', codes, sorted(heavy))\n"
    )
    calls = [
        *("--help", "--model=DTN --help", "--epoch=1", "--dataset=nothing", "--dry_run", "list interactions"),
        *("list datasets", "preprocess --help", "data --help", "preprocess nothing", "test", "leaderboard"),
        *("list models", "data cache list", "--help=all", "--help=optm", "list losses", "list preprocessors"),
        *("test --rnu=x", "data validate --alll", "leaderboard --help"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, *calls],
        capture_output=True, text=True, cwd=tmp_path, check=True, timeout=120,
        env={"PYTHONPATH": str(Path(recbole_dtn.__file__).parents[1]), "PATH": ""},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "RESULT [0, 0, 2, 2, 0, 0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 2, 0, 0, 2, 2, 0] []"


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from recbole_dtn.cli import main; sys.exit(main(['--help']))"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env={"PYTHONPATH": str(Path(recbole_dtn.__file__).parents[1])},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=120) == 0


# ---- plug-ins -------------------------------------------------------------------------------------------------------

BROKEN = """\
from recbole_dtn.preprocess.base import Preprocessor
from recbole_dtn.registry import PREPROCESSORS

@PREPROCESSORS.register("broken")
class Broken(Preprocessor):
    '''Raises.'''
    default_name = "broken"
    source = "nowhere"
    def write(self, work):
        return {} + 1
"""


def test_a_fault_in_a_plugin_names_its_file_and_is_no_bug(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_dtn.registry import PREPROCESSORS

    PREPROCESSORS.names()
    monkeypatch.setattr(PREPROCESSORS, "_entries", dict(PREPROCESSORS._entries))
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "raw").mkdir()
    code, _, err = shown("preprocess", "broken", "--plugins=broken.py", "--raw=raw")
    assert code == 1
    assert err.startswith(f"error: plug-in {tmp_path}/broken.py:10 raised TypeError: unsupported operand")
    assert "this is a bug" not in err


def test_settings_name_their_plugins_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    from recbole_dtn.config.load import resolve, settings_yaml

    (tmp_path / "plug.py").write_text("")
    monkeypatch.chdir(tmp_path)
    resolved = resolve(["--plugins=plug.py"])
    assert yaml.safe_load(settings_yaml(resolved))["plugins"] == [str(tmp_path / "plug.py")]
    monkeypatch.chdir("/")
    assert resolve(config_files=[write(tmp_path, settings_yaml(resolved))]).settings.dump() == resolved.settings.dump()


def write(folder: Path, text: str) -> Path:
    (folder / "settings.yaml").write_text(text)
    return folder / "settings.yaml"
