"""Running a board: the order of its cells, what it skips, what it does about faults. Nothing is trained here."""

import functools
import hashlib
import io
import os
import re
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from recbole_dtn.config.settings import Settings
from recbole_dtn.config.splits import SplitKey
from recbole_dtn.errors import DataError, Preempted, RecBoleDTNError, UsageError
from recbole_dtn.leaderboard.board import Entry
from recbole_dtn.leaderboard.cell_run import present_fingerprint
from recbole_dtn.leaderboard.cells import CellKey, parse_seeds, plan_cells, resolve_cell
from recbole_dtn.leaderboard.records import Recorded
from recbole_dtn.leaderboard.run import run_board
from recbole_dtn.plugins import plugin_states
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.record.record import RunRecord, read_record, write_record
from recbole_dtn.registry import load_plugins

OVERALL = Path(__file__).resolve().parents[2] / "properties" / "overall.yaml"
MODELS = ("DTN", "MMoE", "PLE")


@functools.cache
def defaults() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(OVERALL.read_text(encoding="utf-8"))
    return found


def resolver(output_dir: Path) -> Callable[[list[str]], tuple[Settings, str]]:
    """Stands in for resolving: `--key=value` over the defaults; the digest leaves seed, split and output_dir out."""

    def resolve(overrides: list[str]) -> tuple[Settings, str]:
        given: dict[str, Any] = {"output_dir": str(output_dir)}
        for override in overrides:
            key, _, text = override.removeprefix("--").partition("=")
            given[key] = yaml.safe_load(text)
        if given["model"] not in MODELS:
            raise UsageError(f"unknown model {given['model']!r}")
        settings = Settings.model_validate({**defaults(), **given})
        left_out = ("seed", "split_seed", "fold", "output_dir")
        counted = {key: value for key, value in settings.dump().items() if key not in left_out}
        return settings, hashlib.sha256(repr(counted).encode()).hexdigest()

    return resolve


class Trainer:
    """Makes a record per cell instead of training: AUC .7 + seed / 100,000. Keeps what it was asked for."""

    def __init__(self, output_dir: Path, *, fingerprint: str = "f" * 64) -> None:
        self.resolve = resolver(output_dir)
        self.fingerprint = fingerprint
        self.ran: list[Settings] = []
        self.faults: dict[tuple[str, int], BaseException] = {}
        self.status = "finished"
        self.code = ""

    def __call__(self, overrides: list[str]) -> RunRecord:
        settings, digest = self.resolve(overrides)
        self.ran.append(settings)
        fault = self.faults.get((settings.model, settings.seed))
        if fault is not None:
            raise fault
        auc = 0.7 + settings.seed / 100_000
        record = RunRecord.model_validate(
            {
                "run_id": f"{len(self.ran):03}",
                "status": self.status,
                "interrupted_at": "epoch 1, step 3" if self.status == "interrupted" else None,
                "model": settings.model,
                "dataset": settings.dataset,
                "seed": settings.seed,
                "split_seed": settings.split_seed,
                "settings": settings.dump(),
                "settings_digest": digest,
                "data_fingerprint": self.fingerprint,
                "selected_on_test": settings.selected_on_test,
                "code_version": "0.1.0",
                "tasks": [{"name": "like", "label": "rating", "after": []}],
                "valid": None,
                "test": {"like": {"auc": auc, "logloss": 0.5}},
                "best_epoch": 1,
                "epochs": 1,
                "parameters": {"embedding": 10, "codebook": 0, "dense": 5},
                "train_samples_per_second": 100.0,
                "peak_rss_bytes": 1,
                "peak_anon_bytes": None,
                "wall_seconds": {},
                "gate_weights": {},
                "versions": {"code": self.code} if self.code else {},
                "plugins": [asdict(state) for state in plugin_states(settings)],
            }
        )
        folder = Path(settings.output_dir) / settings.dataset / settings.model
        write_record(record, folder / f"20260101-{len(list(folder.glob('*'))):06}")
        return record

    @property
    def order(self) -> list[tuple[str, str, int]]:
        return [(settings.dataset, settings.model, settings.seed) for settings in self.ran]


class Board:
    """One folder of runs, and boards run over it."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        self.output = folder / "leaderboard"
        self.trainer = Trainer(self.runs)
        self.said = ""

    def run(
        self,
        models: str = "DTN,MMoE",
        datasets: str = "ml-100k",
        seeds: str = "2",
        overrides: tuple[str, ...] = (),
        **more: Any,
    ) -> Path:
        self.trainer.ran.clear()
        console = Console(file=io.StringIO(), width=60)
        try:
            return run_board(
                models.split(","), datasets.split(","), parse_seeds(seeds), overrides, self.output, console,
                **{"run_cell": self.trainer, "resolve": self.trainer.resolve, "fingerprint": lambda _: None, **more},
            )  # fmt: skip
        finally:
            self.said = console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


# ---- the cells ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", [2020]),
        ("3", [2020, 2021, 2022]),
        (" 2020, 2021 ", [2020, 2021]),
        ("[7, 11]", [7, 11]),
        ("[5]", [5]),
        ("5,3", [5, 3]),
        ("0,4294967295", [0, 4294967295]),
    ],
)
def test_seeds(text: str, expected: list[int]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found ''"),
        ("three", "found 'three'"),
        ("1.5", "found '1.5'"),
        ("-1,2", "found '-1,2'"),
        ("1,,2", "found '1,,2'"),
        ("٣", "found '٣'"),
        ("0", "1 to 100"),
        ("2020", r"for the seed 2020 itself write --seeds='\[2020\]'"),
        ("4,4", "'4' is named twice"),
        ("4,4294967296", "found 4294967296"),
    ],
)
def test_wrong_seeds_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_seeds(text)


def test_cells_go_by_dataset_then_model_then_seed(board: Board) -> None:
    board.run("PLE,DTN", "b,a", "[9,8]")
    assert board.trainer.order == [
        (dataset, model, seed) for dataset in ("b", "a") for model in ("PLE", "DTN") for seed in (9, 8)
    ]


def test_floors_come_last_once_each_without_the_settings_of_others() -> None:
    given: list[list[str]] = []

    def resolve(overrides: list[str]) -> tuple[Settings, str]:
        given.append(overrides)
        return resolve_cell(overrides)

    overrides = ["--epochs=1", "--experts=3", "--optimizer.lr=0.1", "--max_trees=7"]
    with pytest.raises(UsageError, match="max_trees: is a setting of Boosting"):
        plan_cells(["MMoE"], ["ml-100k"], [5, 6], overrides, floors=["Logistic", "Boosting"], resolve=resolve)
    cells = plan_cells(
        ["MMoE", "Logistic"], ["ml-100k"], [5, 6], overrides[:1], floors=["Logistic", "Boosting"], resolve=resolve
    )
    keys = [(cell.key.model, cell.key.seed) for cell in cells]
    assert keys == [("MMoE", 5), ("MMoE", 6), ("Logistic", 5), ("Boosting", 5)]
    cells = plan_cells(["MMoE"], ["ml-100k"], [5], overrides[:3], floors=["Boosting"], resolve=resolve)
    assert [word for word in given[-2] if "experts" in word] == ["--experts=3"]
    assert given[-1] == ["--epochs=1", "--optimizer.lr=0.1", "--model=Boosting", "--dataset=ml-100k", "--seed=5"]


def test_a_row_of_another_model_with_the_name_of_a_floor_is_refused() -> None:
    rows = [Entry("Logistic", "PLE")]
    with pytest.raises(UsageError, match="models: the row 'Logistic' is of PLE, and floors adds a row of that name"):
        plan_cells(rows, ["ml-100k"], [5], [], floors=["Logistic"])
    assert [cell.key.model for cell in plan_cells(rows, ["ml-100k"], [5], [])] == ["PLE"]
    own = [Entry("Logistic", "Logistic", ("--epochs=1",))]
    (cell,) = plan_cells(own, ["ml-100k"], [5], [], floors=["Logistic"])
    assert cell.settings.epochs == 1


def test_an_override_reaches_every_cell_and_the_split_stays(board: Board) -> None:
    board.run(overrides=("--epochs=1",))
    assert len(board.trainer.ran) == 4
    assert {settings.epochs for settings in board.trainer.ran} == {1}
    assert {settings.split_seed for settings in board.trainer.ran} == {2020}
    assert {settings.seed for settings in board.trainer.ran} == {2020, 2021}


def test_the_seeds_of_a_row_share_a_digest_and_settings_do_not(tmp_path: Path) -> None:
    resolve = resolver(tmp_path)
    long = plan_cells(["DTN"], ["a"], [1, 2], [], resolve=resolve)
    short = plan_cells(["DTN"], ["a"], [1, 2], ["--epochs=1"], resolve=resolve)
    digests = {cell.key.settings_digest for cell in long}
    assert len(digests) == 1
    assert digests.isdisjoint(cell.key.settings_digest for cell in short)
    assert long[1].key == CellKey("a", "DTN", digests.pop(), 2, SplitKey(2020))
    assert long[1].title == "DTN a seed 2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": "DTN,MMOE"}, "unknown model 'MMOE'"),
        ({"models": "DTN,DTN"}, "models: 'DTN' is named twice"),
        ({"models": "DTN,"}, "models: expected at least one"),
        ({"datasets": ""}, "datasets: expected at least one"),
        ({"overrides": ("--seed=7",)}, "seed: a leaderboard takes --seeds, found '--seed=7'"),
        ({"overrides": ("--model", "PLE")}, "model: a leaderboard takes --models"),
        ({"overrides": ("dataset=x",)}, "dataset: a leaderboard takes --datasets"),
        ({"overrides": ("--devices=2",)}, "devices=2, num_nodes=1: a leaderboard runs each cell on one device"),
        ({"overrides": ("--devices=auto",)}, "devices=auto"),
        ({"overrides": ("--num_nodes=2",)}, "num_nodes=2"),
    ],
)
def test_every_cell_is_validated_before_the_first_runs(board: Board, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        board.run(**changes)
    assert board.trainer.ran == []
    assert not board.output.exists()


def test_one_named_device_is_allowed(board: Board) -> None:
    board.run("DTN", seeds="1", overrides=('--devices="1,"',))
    assert [settings.devices for settings in board.trainer.ran] == ["1,"]


# ---- what is printed and written ------------------------------------------------------------------------------------


def test_a_line_per_cell_then_the_table_and_the_files(board: Board) -> None:
    path = board.run("DTN,PLE", seeds="2")
    lines = board.said.splitlines()
    assert re.fullmatch(r"\[1/4\] DTN ml-100k seed 2020 \.\.\. like \.7202 \(\d+ s\)", lines[0])
    assert re.fullmatch(r"\[4/4\] PLE ml-100k seed 2021 \.\.\. like \.7202 \(\d+ s\)", lines[3])
    assert lines[5] == "ml-100k"
    assert path == board.output / "ml-100k.md"
    # .72020 and .72021: mean .720205, sd .00001 / sqrt 2
    assert "| DTN | 2 | 0.7202 ± 0.0000 | 0.5000 ± 0.0000 | 10 | 0 | 5 | 15 | 100 |" in path.read_text()
    assert "ml-100k,DTN,DTN,like,auc,test,0.720205," in path.with_suffix(".csv").read_text()


def test_the_files_name(board: Board) -> None:
    assert board.run("DTN", "a,b", "1").name == "a+b.md"
    assert board.run("DTN", "a", "1", board="first").name == "first.md"


def test_a_cell_selected_on_the_test_set_is_marked_in_line_and_tables(board: Board) -> None:
    path = board.run("DTN", "ml-100k", "1", ("--selected_on_test=true",))
    assert "DTN ml-100k seed 2020 ... like .7202 (selected on the test set) (" in board.said
    assert "| DTN † | 1 |" in path.read_text()
    assert "† Selected on the test set: these numbers are optimistic" in board.said


# ---- records that are there -----------------------------------------------------------------------------------------


def test_recorded_cells_are_skipped(board: Board) -> None:
    board.run("DTN", seeds="1")
    board.run("DTN,MMoE", seeds="2")
    assert board.trainer.order == [("ml-100k", "DTN", 2021), ("ml-100k", "MMoE", 2020), ("ml-100k", "MMoE", 2021)]
    folder = board.runs / "ml-100k" / "DTN" / "20260101-000000"
    assert board.said.splitlines()[0] == f"[1/4] DTN ml-100k seed 2020 ... like .7202 (recorded in {folder})"
    first = board.said.split("\n\n")[1]
    path = board.run("DTN,MMoE", seeds="2")
    assert board.trainer.ran == []
    assert board.said.split("\n\n")[1] == first
    assert "| DTN | 2 | 0.7202 ± 0.0000 |" in path.read_text()


def test_other_settings_are_another_cell(board: Board) -> None:
    board.run("DTN", seeds="1")
    path = board.run("DTN", seeds="1", overrides=("--epochs=1",))
    assert len(board.trainer.ran) == 1
    assert path.read_text().count("| DTN | 1 | 0.") == 1, "a board shows its own cells, not all that is recorded"


def test_other_records_of_the_folder_stay_out_of_the_board(board: Board) -> None:
    board.run("DTN,PLE", seeds="[1,2,3]")
    path = board.run("PLE", seeds="[2]")
    assert "DTN" not in path.read_text()
    assert "| PLE | 1 |" in path.read_text()


def test_a_run_that_did_not_finish_fills_no_cell(board: Board) -> None:
    board.trainer.status = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        board.run("DTN", seeds="1")
    board.trainer.status = "finished"
    board.run("DTN", seeds="1")
    assert len(board.trainer.ran) == 1


def test_records_of_other_data_are_run_again_and_said(board: Board) -> None:
    board.run("DTN", seeds="1", fingerprint=lambda _: "f" * 64)
    board.trainer.fingerprint = "a" * 64
    path = board.run("DTN", seeds="1", fingerprint=lambda _: "a" * 64)
    assert len(board.trainer.ran) == 1
    assert "the data changed since" in board.said
    assert "(fingerprint ffffffffffff, now aaaaaaaaaaaa), run again ... like .7202" in board.said
    assert ",aaaaaaaaa" in path.with_suffix(".csv").read_text()
    board.run("DTN", seeds="1", fingerprint=lambda _: "a" * 64)
    assert board.trainer.ran == []
    board.run("DTN", seeds="1", fingerprint=lambda _: "f" * 64)
    assert board.trainer.ran == [], "the older record is of the data as it is again"


def test_unreadable_records_are_reported_and_left_out(board: Board) -> None:
    board.run("DTN", seeds="1")
    torn = board.runs / "ml-100k" / "DTN" / "20260101-000009" / "record.json"
    for content in (b'{"schema_version": 1,', b"\xff\xfe", b"{}", b"[1]"):
        torn.parent.mkdir(exist_ok=True)
        torn.write_bytes(content)
        board.run("DTN", seeds="1")
        assert board.trainer.ran == []
        assert board.said.startswith(f"left out: {torn}"), board.said


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_a_failed_cell_is_reported_and_the_others_go_on(board: Board) -> None:
    board.trainer.faults = {
        ("DTN", 2020): RecBoleDTNError("the training loss is nan [in epoch 1]"),
        ("MMoE", 2021): ValueError("shapes differ"),
    }
    with pytest.raises(RecBoleDTNError) as caught:
        board.run("DTN,MMoE", seeds="2")
    assert caught.value.exit_code == 1
    assert str(caught.value) == "2 of 4 cells failed: DTN ml-100k seed 2020; MMoE ml-100k seed 2021"
    lines = board.said.splitlines()
    assert lines[0] == "[1/4] DTN ml-100k seed 2020 ... failed: the training loss is nan [in epoch 1]"
    assert lines[3] == "[4/4] MMoE ml-100k seed 2021 ... failed: ValueError: shapes differ"
    assert len(board.trainer.ran) == 4
    text = (board.output / "ml-100k.md").read_text()
    assert "| DTN | 1 |" in text
    assert "| MMoE | 1 |" in text
    board.trainer.faults = {}
    board.run("DTN,MMoE", seeds="2")
    assert board.trainer.order == [("ml-100k", "DTN", 2020), ("ml-100k", "MMoE", 2021)]


def test_a_board_without_a_finished_cell_writes_the_failures_alone(board: Board) -> None:
    board.trainer.faults = {("DTN", 2020): RecBoleDTNError("no")}
    with pytest.raises(RecBoleDTNError, match="1 of 1 cells failed"):
        board.run("DTN", seeds="1")
    assert [path.name for path in board.output.iterdir()] == ["ml-100k.failures.csv"]


@pytest.mark.parametrize("name", ["speed.json", "statistics.json", "failures.csv"])
def test_a_damaged_file_beside_the_tables_is_refused_before_a_cell_runs(board: Board, name: str) -> None:
    board.output.mkdir()
    (board.output / f"ml-100k.{name}").write_text('"cut')
    with pytest.raises(DataError, match=f"ml-100k.{name}"):
        board.run("DTN", seeds="1")
    assert board.trainer.ran == []


def test_ctrl_c_between_batches_stops_with_the_table_of_what_is_there(board: Board) -> None:
    board.trainer.faults = {("MMoE", 2020): KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        board.run("DTN,MMoE", seeds="2")
    assert len(board.trainer.ran) == 3
    assert board.said.splitlines()[2] == "[3/4] MMoE ml-100k seed 2020 ... interrupted"
    text = (board.output / "ml-100k.md").read_text()
    assert "| DTN | 2 |" in text
    assert "| MMoE | 2020; 2021 | not run |" in text, "what is there is not taken for all"
    board.trainer.faults = {}
    board.run("DTN,MMoE", seeds="2")
    assert "not run" not in (board.output / "ml-100k.md").read_text()


@pytest.mark.parametrize("within_a_run", [True, False])
def test_sigterm_stops_the_board_after_its_table(board: Board, within_a_run: bool) -> None:
    """A run that gets the signal returns ``preempted``; elsewhere the signal comes to the board itself."""
    finished = board.trainer.__class__.__call__

    def run_cell(overrides: list[str]) -> RunRecord:
        if board.trainer.ran:
            if within_a_run:
                board.trainer.status = "preempted"
            else:
                os.kill(os.getpid(), signal.SIGTERM)
        return finished(board.trainer, overrides)

    with pytest.raises(Preempted, match="the same command goes on"):
        board.run(run_cell=run_cell)
    assert len(board.trainer.ran) == 1 + within_a_run, "the cells after it do not run"
    assert "leaderboard written to" in board.said
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_pass_that_is_stopped_early_keeps_what_is_recorded_and_known(board: Board) -> None:
    board.trainer.faults = {("MMoE", 2020): RecBoleDTNError("no memory")}
    with pytest.raises(RecBoleDTNError):
        board.run("MMoE,PLE", seeds="1")
    board.trainer.faults = {("DTN", 2020): KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        board.run("DTN,MMoE,PLE", seeds="1")
    text = (board.output / "ml-100k.md").read_text()
    assert "| PLE | 1 |" in text
    assert "| DTN | 2020 | not run |" in text
    assert "| MMoE | 2020 | no memory |" in text


def test_an_interrupted_run_stops_the_board(board: Board) -> None:
    board.run("DTN", seeds="1")
    board.trainer.status = "interrupted"
    with pytest.raises(KeyboardInterrupt):
        board.run("DTN,MMoE", seeds="2")
    assert len(board.trainer.ran) == 1
    assert "| DTN | 1 |" in (board.output / "ml-100k.md").read_text()


# ---- with the real settings -----------------------------------------------------------------------------------------


def test_the_key_of_a_planned_cell_is_the_key_its_record_will_have() -> None:
    cells = plan_cells(["DTN", "MMoE"], ["ml-100k"], [2020, 2021], ["--epochs=1", "--optimizer.lr", "0.01"])
    assert [(cell.key.model, cell.key.seed) for cell in cells] == [
        (model, seed) for model in ("DTN", "MMoE") for seed in (2020, 2021)
    ]
    assert len({cell.key.settings_digest for cell in cells}) == 2
    for cell in cells:
        assert (cell.settings.epochs, cell.settings.optimizer.lr, cell.settings.split_seed) == (1, 0.01, 2020)
        # `fit_argv` adds --quiet=true to the words it is given
        settings, digest = resolve_cell([*cell.overrides, "--quiet=true"])
        assert (digest, settings.seed, settings.quiet) == (cell.key.settings_digest, cell.key.seed, True)


def test_a_setting_of_one_model_alone_is_refused_for_the_board() -> None:
    with pytest.raises(UsageError, match="experts"):
        plan_cells(["MMoE", "DTN"], ["ml-100k"], [1], ["--experts=2"])


def test_the_present_fingerprint_follows_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [f"u{row % 5}\t{row % 2}" for row in range(40)]
    inter = folder / "mine.inter"
    inter.write_text("\n".join(["user_id:token\tclick:float", *rows, ""]))
    (folder / "mine.yaml").write_text("fields: [{name: user_id}]\ntasks: [{name: click, label: click}]\n")
    settings, _ = resolve_cell(["--model=SharedBottom", "--dataset=mine", f"--data_path={tmp_path}"])
    before = present_fingerprint(settings)
    assert before is not None
    assert before == prepare(settings).fingerprint, "what a run of these settings records"
    inter.write_text("\n".join(["user_id:token\tclick:float", *rows[:-1], ""]))
    assert present_fingerprint(settings) not in (None, before)
    inter.unlink()
    assert present_fingerprint(settings) is None


def test_a_record_of_another_version_or_of_several_processes_fills_no_cell(board: Board) -> None:
    board.run("DTN", seeds="1")
    path = next(board.runs.glob("*/*/*/record.json"))
    for now, then in (('"code_version": "0.1.0"', '"code_version": "0.0.9"'), ('"processes": 1', '"processes": 2')):
        text = path.read_text()
        assert now in text
        path.write_text(re.sub(r',\n  "sum": ".*"', "", text.replace(now, then)))
        read_record(path)
        board.run("DTN", seeds="1")
        assert len(board.trainer.ran) == 1
        for made in board.runs.glob("*/*/*/record.json"):
            if made != path:
                made.unlink()
        path.write_text(text)


def test_a_cell_whose_plugin_changed_is_run_again(board: Board, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for content in ("A = 1", "A = 2"):
        file.write_text(content)
        load_plugins([str(file)])
        board.run("DTN", seeds="1", overrides=(f"--plugins=[{file}]",))
        assert len(board.trainer.ran) == 1
        board.run("DTN", seeds="1", overrides=(f"--plugins=[{file}]",))
        assert board.trainer.ran == []
    file.write_text("A = 3")
    load_plugins([str(file)])
    board.run("DTN", seeds="1", overrides=(f"--plugins=[{file}]",))
    assert "the plug-in" in board.said
    assert "changed since" in board.said


def test_a_run_that_was_preempted_and_has_ended_since_fills_its_cell(board: Board) -> None:
    """Another leaderboard went on with it, in the folder where it began, while this one waited."""
    cell = plan_cells(["DTN"], ["ml-100k"], [2020], [], resolve=board.trainer.resolve)[0]
    record = board.trainer(list(cell.overrides))
    path = next(board.runs.glob("*/*/*"))
    recorded = Recorded()
    for number, status in enumerate(("preempted", "finished")):
        write_record(record.model_copy(update={"status": status}), path)
        os.utime(path / "record.json", ns=(number, number))
        recorded.read(cell.folder)
        assert (recorded.newest(cell.key, None) is not None) == (status == "finished")
    recorded.read(cell.folder)
    assert len(recorded.runs[cell.key]) == 1, "read once"


def test_runs_of_several_states_of_the_code_are_told(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for code, seeds in (("aaa", "1"), ("bbb", "2")):
        monkeypatch.setattr("recbole_dtn.leaderboard.session.code_digest", lambda code=code: code)
        board.trainer.code = code
        texts.append(board.run("DTN", seeds=seeds).read_text())
    assert "states of the code" not in texts[0]
    assert "made by 2 states of the code (aaa, bbb): to have one" in texts[1]
    assert " ".join(board.said.split()).count(", by other code)") == 1
