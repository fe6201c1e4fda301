"""``data`` and ``preprocess`` on small files, through the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.cli import main
from recbole_dtn.data import cache, sums, verify
from recbole_dtn.registry import PREPROCESSORS, Entry

Shown = Callable[..., tuple[int, str, str]]
ROWS = 50


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Run a command beside `dataset/mine`, 50 rows of which every second is clicked and every fifth bought."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dataset/mine"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "fields: [{name: user}, {name: item}]\ntasks: [{name: click, label: click}, {name: buy, label: buy}]\n"
    )
    lines = [f"u{i % 4}\ti{i % 7}\t{float(i % 2 == 0)}\t{float(i % 5 == 0)}" for i in range(ROWS)]
    (folder / "mine.inter").write_text("\n".join(["user:token\titem:token\tclick:float\tbuy:float", *lines]) + "\n")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def table_of(out: str, title: str) -> list[list[str]]:
    """Cells of the table under a title, without its heading."""
    lines = out.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(title)) + 2
    stop = next((at for at in range(start, len(lines)) if not lines[at].strip()), len(lines))
    return [re.split(r" {2,}", line.strip()) for line in lines[start:stop]]


def test_info_counts_rows_positives_and_tokens(shown: Shown) -> None:
    code, out, err = shown("data", "info", "--dataset=mine")
    assert (code, err) == (0, "")
    assert [row[:2] for row in table_of(out, "splits")] == [["train", "40"], ["valid", "5"], ["test", "5"]]
    shared = table_of(out, "rows of one split in another")
    assert [row[:2] for row in shared] == [["valid", "train"], ["test", "train"], ["test", "valid"]]
    counted = json.loads(shown("data", "info", "--dataset=mine", "--json=-")[1])["duplicates"]["test"]
    cells = [str(counted["in_valid"]), f"{counted['in_valid_share']:.2%}", str(counted["in_valid_same"])]
    assert shared[2][2:] == cells
    tasks = table_of(out, "tasks (")
    assert [row[:3] for row in tasks] == [
        [task, split, count]
        for task in ("click", "buy")
        for split, count in (("train", "40"), ("valid", "5"), ("test", "5"))
    ]
    for task, positives in (("click", 25), ("buy", 10)):
        assert sum(int(row[3]) for row in tasks if row[0] == task) == positives
    assert [row[:4] for row in table_of(out, "fields (")] == [
        ["user", "token", "inter", "4"],
        ["item", "token", "inter", "7"],
    ]
    assert "50 rows; fingerprint" in out
    assert max(len(line) for line in out.splitlines()[2:] if not line.startswith("- ")) <= 100  # warnings are sentences


def test_a_table_too_wide_is_cut_and_keeps_its_first_column(shown: Shown, tmp_path: Path) -> None:
    names = [f"feedback{i:02}" for i in range(12)]
    tasks = ", ".join(f"{{name: {name}, label: click}}" for name in names)
    code, out, _ = shown("data", "info", "--dataset=mine", f"--tasks=[{tasks}]", "--quick")
    assert code == 0
    assert max(len(line) for line in out.splitlines()[2:] if not line.startswith("- ")) <= 100  # warnings are sentences
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("tasks together in train"))
    block = lines[start + 1 : lines.index("", start)]
    headings = [line for line in block if line.startswith(" ")]
    assert len(headings) == 2
    assert " ".join(headings).split() == names
    assert [line.split()[0] for line in block if not line.startswith(" ")] == names * 2
    assert all("100.0 (1.00)" in line for line in block if not line.startswith(" "))


def test_info_as_json_alone_is_nothing_but_json(shown: Shown, tmp_path: Path) -> None:
    code, out, err = shown("data", "info", "--dataset=mine", "--json=-", "--quick")
    assert (code, err.splitlines()) == (0, ["encoding dataset/mine"])
    found = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert found["rows"] == {"train": 40, "valid": 5, "test": 5}
    assert [field["name"] for field in found["fields"]] == ["user", "item"]
    assert (found["duplicates"], found["single_field_auc"]) == (None, None)
    code, out, _ = shown("data", "info", "--dataset=mine", "--json=x.json", "--html", "x.html")
    assert code == 0
    full = json.loads((tmp_path / "x.json").read_text())
    assert full["duplicates"]["train"]["rows"] == 40
    assert {key: full[key] for key in ("rows", "fields", "tasks", "pairs")} == {
        key: found[key] for key in ("rows", "fields", "tasks", "pairs")
    }
    assert out.splitlines()[-1] == "wrote x.html"
    assert (tmp_path / "x.html").read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "x.html", "x.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html=-"], "--html: expected the name of a file; found '-'"),
        (["--html=dataset"], "--html: expected the name of a file; found 'dataset'"),
        (["--json=no/x.json"], "--json: there is no folder no"),
        (["--json"], "--json needs a value"),
        (["mine"], "unexpected word 'mine'; the data set goes in --dataset=NAME"),
        (["--qick=true"], "qick"),
    ],
)
def test_info_called_wrongly_reads_nothing(shown: Shown, tmp_path: Path, words: list[str], message: str) -> None:
    code, out, err = shown("data", "info", "--dataset=mine", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "dataset/mine/.cache").exists()


def test_info_of_an_unknown_set(shown: Shown) -> None:
    code, out, err = shown("data", "info", "--dataset=mime")
    assert (code, out) == (2, "")
    assert "unknown data set 'mime'; did you mean 'mine'?" in err


def test_caches_are_listed_and_cleared_by_either_name(shown: Shown, tmp_path: Path) -> None:
    assert shown("data", "cache", "list")[1] == "found 0 cache entries, 0.0 MB\n"
    shown("data", "info", "--dataset=mine")
    out = shown("data", "cache", "list")[1]
    assert re.search(r"^mine +[0-9a-f]+ +50 +[0-9.]+ MB +complete$", out, re.MULTILINE)
    assert "found 1 cache entry, " in out
    assert shown("data", "cache", "clear", "--dataset=other")[1].startswith("removed 0")
    (tmp_path / "dataset/alias").mkdir()
    (tmp_path / "dataset/alias/alias.yaml").write_text("folder: mine\n")
    assert "removed 1 cache entry" in shown("data", "cache", "clear", "--dataset=alias")[1]
    assert shown("data", "cache", "list")[1].startswith("found 0")


def test_caches_are_verified_file_by_file(shown: Shown, tmp_path: Path) -> None:
    assert shown("data", "cache", "verify") == (0, "checked 0 cache entries, 0 files: no fault\n", "")
    shown("data", "info", "--dataset=mine", "--quick")
    (entry,) = (path for path in (tmp_path / "dataset/mine/.cache").iterdir() if path.is_dir())
    files = [*sorted(entry.iterdir()), entry.parent / "digests.json", tmp_path / "dataset/mine/mine.inter"]
    code, out, _ = shown("data", "cache", "verify", "--dataset=mine")
    assert code == 0
    assert f"checked 1 cache entry, {len(files)} files: no fault" in out
    rows = dict(re.split(r" {2,}", line) for line in out.splitlines()[1:-1])
    assert {Path(name).resolve(): state for name, state in rows.items()} == dict.fromkeys(files, "right")

    for path in files:  # checked.json comes first: a faulty array removes it
        data = path.read_bytes()
        changed = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes(changed)
        code, out, _ = shown("data", "cache", "verify", str(entry.parent.parent))
        state = next(line for line in out.splitlines() if path.name in line).split("  ")[-1].strip()
        if path.suffix == ".inter":  # what was written is not taken for a fault of the disk
            assert (code, state) == (
                0,
                "written since it was encoded: read again by the next run",
            )
        else:
            assert (code, state) == (1, "does not have its checksum"), path
            assert "1 faulty file\n" in out
            assert "The next run makes a faulty cache again" in out or path.name == "digests.json"
        path.write_bytes(data)
    (entry / "f0.npy").write_bytes(b"short")
    (entry / "f1.npy").unlink()
    code, out, _ = shown("data", "cache", "verify", str(entry))
    assert code == 1
    assert re.search(r"f0\.npy +has 5 bytes, expected \d+\n", out)
    assert re.search(r"f1\.npy +missing\n", out)
    assert shown("data", "info", "--dataset=mine", "--quick")[0] == 0  # made again
    assert shown("data", "cache", "verify", str(entry))[0] == 0


def test_an_atomic_file_that_changed_by_itself_is_found(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sums.identity
    for module in (cache, verify):  # of a faulty disk nothing but the content shows
        monkeypatch.setattr(module, "identity", lambda path: [real(path)[0], 0, 0, 0])
    shown("data", "info", "--dataset=mine", "--quick")
    path = Path("dataset/mine/mine.inter")
    path.write_text(path.read_text().replace("u3", "u2"))
    code, out, _ = shown("data", "cache", "verify", "--dataset=mine")
    assert code == 1
    assert re.search(r"mine\.inter +has another content than when it was encoded", out)
    assert "Restore faulty atomic files from a copy, or make them again by `preprocess ... --overwrite`" in out


def test_a_cache_of_an_earlier_version_is_no_fault(shown: Shown, tmp_path: Path) -> None:
    shown("data", "info", "--dataset=mine", "--quick")
    for path in (tmp_path / "dataset/mine/.cache").rglob("*.json"):
        content = json.loads(path.read_text())
        content.pop("sum", None)
        path.write_text(json.dumps(content))
    code, out, _ = shown("data", "cache", "verify")
    assert code == 0
    assert out.count("of an earlier version, without") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "data: name one of info, validate, split, cache"),
        (["data", "infos"], "data: unknown command 'infos'; did you mean 'info'?"),
        (["data", "cache"], "data cache: name list, clear or verify"),
        (["data", "cache", "verify", "nowhere"], "data cache verify: there is no folder nowhere"),
        (["data", "cache", "verify", "dataset/mine"], "dataset/mine holds no cache; expected a data set's folder, or"),
        (["data", "cache", "purge"], "data cache: name list, clear or verify; found 'purge'"),
        (["data", "validate", "nowhere"], "there is no folder nowhere"),
        (["data", "split", "--dataset=mine"], "expected --name=NEW (a data set) or --export=FOLDER"),
        (["data", "split", "--dataset=mine", "--export=x", "--format=tsv"], "--format: expected parquet or csv; found"),
        (["data", "split", "--dataset=mine", "--name=../x"], "--name: expected the name of a folder; found '../x'"),
        (["data", "split", "mine", "--name=x"], "unexpected word 'mine'; the data set goes in --dataset=NAME"),
        (
            ["preprocess"],
            "preprocess: name one of aliccp, aliexpress, census-income, kuairand, ml-100k, ml-1m, table, synthetic",
        ),
        (["preprocess", "ml-100"], "unknown preprocessor 'ml-100': did you mean 'ml-100k' or 'ml-1m'?"),
        (["preprocess", "ml-100k", "--rwa=x"], "--rwa: preprocess ml-100k has no such option; did you mean 'raw'"),
        (["preprocess", "ml-100k", "--name=a/b"], "--name: expected the name of a folder; found 'a/b'"),
    ],
)
def test_called_wrongly(shown: Shown, words: list[str], message: str) -> None:
    code, out, err = shown(*words)
    assert (code, out) == (2, "")
    assert message in err


def test_validate_reads_real_files(shown: Shown, tmp_path: Path) -> None:
    code, out, err = shown("data", "validate", "--dataset=mine")
    assert (code, out, err) == (0, "dataset/mine: no fault\n", "")
    with (tmp_path / "dataset/mine/mine.inter").open("a") as file:
        file.write("u1\ti1\tone\t0.0\n")
    code, out, _ = shown("data", "validate", "dataset/mine")
    assert code == 2
    assert out.startswith(f"dataset/mine/mine.inter, line {ROWS + 2}: ")


def test_split_writes_parts_that_are_a_data_set_of_their_own(shown: Shown, tmp_path: Path) -> None:
    code, out, err = shown("data", "split", "--dataset=mine", "--name=parts", "--split_ratio=[0.5, 0.3, 0.2]")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "next: python run_recbole_dtn.py --dataset=parts"
    lines = {
        part: (tmp_path / f"dataset/parts/parts.{part}.inter").read_text().splitlines()
        for part in ("train", "valid", "test")
    }
    assert [len(part) - 1 for part in lines.values()] == [25, 15, 10]
    written = sorted(line for part in lines.values() for line in part[1:])
    assert len(written) == ROWS
    assert lines["train"][0] == "user:token\titem:token\tclick:float\tbuy:float"
    _, info, _ = shown("data", "info", "--dataset=parts")
    assert [row[:2] for row in table_of(info, "splits")] == [["train", "25"], ["valid", "15"], ["test", "10"]]


def test_preprocess_makes_a_set_that_needs_no_download_and_says_what_comes_next(shown: Shown, tmp_path: Path) -> None:
    code, out, err = shown("preprocess", "ml-100k", "--data_path=d")
    assert (code, err) == (0, "")
    assert "wrote d/ml-100k-mt/ml-100k-mt.inter (100,000 rows)" in out
    assert out.splitlines()[-1] == "next: python run_recbole_dtn.py --dataset=ml-100k --data_path=d"
    assert (tmp_path / "d/ml-100k-mt/ml-100k-mt.item").is_file()


class Echo:
    """A preprocessor with options of its own."""

    seen: list[Any]

    def __init__(
        self, raw: Path | None, data_path: Path, *, name: str | None = None, rows: int, tag: str = "t"
    ) -> None:
        self.seen.append((raw, data_path, name, rows, tag))
        self.folder = data_path / (name or "echo")

    def run(self, log: Callable[[str], None], **options: Any) -> Path:
        log("made")
        return self.folder


def test_a_preprocessors_own_options_are_typed(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    PREPROCESSORS.names()
    monkeypatch.setattr(PREPROCESSORS, "_entries", {**PREPROCESSORS._entries, "echo": Entry("echo", Echo, "Echo.")})
    Echo.seen = []
    assert shown("preprocess", "echo", "--rows", "5", "--tag=007", "--raw=r", "--name=n")[:2] == (
        0,
        "made\nnext: python run_recbole_dtn.py --dataset=n\n",
    )
    assert Echo.seen == [(Path("r"), Path("dataset"), "n", 5, "007")]
    code, _, err = shown("preprocess", "echo", "--tgs=1")
    assert code == 2
    assert "--tgs: preprocess echo has no such option; did you mean 'tag'?" in err
    assert "--rows: preprocess echo needs this option" in err
    assert "--rows: expected an integer; found 'x'" in shown("preprocess", "echo", "--rows=x")[2]


def test_info_warns_of_a_set_that_is_selected_on_its_test_rows(shown: Shown) -> None:
    warning = "- selected_on_test: the validation rows are, or contain, rows of the test set"
    assert warning in shown("data", "info", "--dataset=mine", "--selected_on_test=true")[1]
    assert warning not in shown("data", "info", "--dataset=mine")[1]
    assert "selected_on_test: the validation" in shown("--dry_run", "--dataset=mine", "--selected_on_test=true")[1]


def test_validate_exits_2_for_a_fatal_fault_alone(shown: Shown, tmp_path: Path) -> None:
    file = tmp_path / "dataset/mine/mine.inter"
    whole = file.read_text()
    file.write_text(f"{whole}NA\ti1\t1.0\t0.0\nu1\ti1\n")
    code, out, _ = shown("data", "validate", "--dataset=mine")
    assert code == 2
    assert out.splitlines() == [
        "dataset/mine/mine.inter, line 52: warning: column 'user': 'NA' stock RecBole reads it as missing",
        "dataset/mine/mine.inter, line 53: a short row: expected 4 columns as in the header, found 2",
        "dataset/mine: 1 fault, 1 warning",
    ]
    file.write_text(f"{whole}NA\ti1\t1.0\t0.0\n")
    assert shown("data", "validate", "dataset/mine")[0] == 0
    file.write_text(f"{whole}u1\ti1\t2.0\t0.0\n")
    code, out, _ = shown("data", "validate", "--dataset=mine")
    assert code == 2
    assert out.startswith(
        "dataset/mine/mine.inter, line 52: the label of task 'click' must be 0 or 1, found click = 2.0"
    )
    ending = "dataset/mine: no fault; fields and labels are checked with --dataset=NAME"
    assert shown("data", "validate", str(tmp_path / "dataset/mine")) == (0, f"{tmp_path}/{ending}\n", "")


def test_dry_run_counts_the_parameters_of_the_prepared_data(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    words = ["--dataset=mine", "--model=SharedBottom", "--bottom_hidden=4", "--tower_hidden=[]", "--embedding_size=2"]
    code, out, err = shown("--dry_run", "--threads=3", *words)
    assert (code, err, threads) == (0, "", [3])
    # (2 + 4 users + 2 + 7 items) rows of 2; 4 x 4 + 4 of the bottom, 2 towers of 4 + 1
    assert "parameters: 60 (embedding 30, dense 30)" in out
    assert "projected: 1 steps" in out


def test_a_table_of_ones_own_becomes_a_data_set(shown: Shown, tmp_path: Path) -> None:
    rows = [f"u{i % 3},{i / 4},{'yes' if i % 4 == 0 else 'no'}" for i in range(40)]
    (tmp_path / "x.csv").write_text("\n".join(["user,price,bought", *rows]) + "\n")
    (tmp_path / "spec.yaml").write_text(
        "fields: [{name: user}, {name: price, type: float}]\n"
        "tasks: [{name: buy, label: bought, condition: bought == 'yes'}]\n"
    )
    code, _, err = shown("preprocess", "table")
    assert code == 2
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == ["--input", "--spec", "--name"]
    code, out, err = shown("preprocess", "table", "--input=x.csv", "--spec", "spec.yaml", "--name=own")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "next: python run_recbole_dtn.py --dataset=own"
    listed = {line.split()[0] for line in shown("list", "datasets")[1].splitlines()[1:] if line.strip()}
    assert {"mine", "ml-100k", "own"} <= listed
    tasks = table_of(shown("data", "info", "--dataset=own")[1], "tasks (")
    assert sum(int(row[3]) for row in tasks if row[0] == "buy") == 10
    (tmp_path / "spec.yaml").write_text("fields: [{name: user, tpye: float}]\n")
    code, _, err = shown("preprocess", "table", "--input=x.csv", "--spec=spec.yaml", "--name=own2")
    assert code == 2
    assert "fields[0].tpye: unknown key; did you mean 'type'?" in err
    assert "(spec.yaml:1)" in err


def test_a_split_is_not_written_over_another_data_set(shown: Shown, tmp_path: Path) -> None:
    other = tmp_path / "dataset/other"
    other.mkdir()
    (other / "other.user").write_text("mine")
    code, out, err = shown("data", "split", "--dataset=mine", "--name=other")
    assert (code, out) == (2, "")
    assert "dataset/other holds a data set already (other.user): choose another --name, or replace it with" in err
    assert [path.name for path in other.iterdir()] == ["other.user"]
    code, out, err = shown("data", "split", "--dataset=mine", "--name=other", "--overwrite")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "next: python run_recbole_dtn.py --dataset=other"
    names = [f"other.{part}" for part in ("test.inter", "train.inter", "valid.inter", "yaml")]
    assert sorted(path.name for path in other.iterdir()) == names


def test_a_table_is_not_written_over_another_data_set(shown: Shown, tmp_path: Path) -> None:
    before = {path.name: path.read_text() for path in (tmp_path / "dataset/mine").iterdir()}
    words = ["preprocess", "table", "--input=x.csv", "--spec=spec.yaml", "--name=mine"]
    code, out, err = shown(*words)
    assert (code, out) == (2, "")
    assert "dataset/mine holds a data set already (mine.inter, mine.yaml): choose another --name, or replace" in err
    (tmp_path / "x.csv").write_text("user,buy\na,x\n")
    (tmp_path / "spec.yaml").write_text("fields: [{name: user}]\ntasks: [{name: buy, label: buy}]\n")
    code, _, err = shown(*words, "--overwrite")
    assert code == 3
    assert "x.csv, line 2: the label of task 'buy'" in err
    kept = {path.name: path.read_text() for path in (tmp_path / "dataset/mine").iterdir()}
    assert kept == {**before, "rejected.failed.tsv": kept["rejected.failed.tsv"]}
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["mine"]
    (tmp_path / "x.csv").write_text("user,buy\na,1\n")
    assert shown(*words, "--overwrite")[0] == 0
    assert (tmp_path / "dataset/mine/mine.inter").read_text() == "user:token\tbuy:float\na\t1\n"


def test_validate_shows_faults_of_a_kind_together(shown: Shown, tmp_path: Path) -> None:
    with (tmp_path / "dataset/mine/mine.inter").open("a") as file:
        file.write("".join(f"u1\ti1\t{text}\t0.0\n" for text in ("a", "b", "c", "d", "")))
    code, out, _ = shown("data", "validate", "--dataset=mine")
    name = "dataset/mine/mine.inter"
    assert code == 2
    assert out.splitlines() == [
        f"{name}, 4 lines (52, 53, 54, ...): column 'click': expected a finite number",
        f"{name}, line 56: warning: column 'click': a missing number; stock RecBole puts the column's mean there",
        f"{name}, line 56: the label of task 'click' must be 0 or 1, found click = missing",
        "dataset/mine: 5 faults, 1 warning",
    ]
    code, out, _ = shown("data", "validate", "dataset/mine", "--all")
    assert code == 2
    assert out.splitlines()[:4] == [
        f"{name}, line {52 + i}: column 'click': expected a finite number, found '{text}'"
        for i, text in enumerate("abcd")
    ]
    assert len(out.splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["data", "info"], "shares of missing values"),
        (["data", "validate"], "--all  every fault on a line"),
        (["data", "split"], "--overwrite       replace a data set NEW"),
        (["data", "cache"], "data cache clear"),
        (["preprocess", "table"], "list_separator"),
    ],
)
def test_each_command_has_its_own_help(shown: Shown, words: list[str], own: str) -> None:
    code, out, err = shown(*words, "--help")
    assert (code, err) == (0, "")
    assert own in out
    assert out.startswith(f"python run_recbole_dtn.py {' '.join(words)} ")
    assert own not in shown(words[0], "--help")[1]
