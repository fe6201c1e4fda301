"""Places that cannot be written, through the command line: found before any long work; a failure leaves nothing."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recbole_dtn.cli import main
from recbole_dtn.data import cache

Run = Callable[..., tuple[int, str]]
SPEC = "fields: [{name: user}, {name: item}]\ntasks: [{name: click, label: click}, {name: buy, label: buy}]\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command beside `dataset/mine`, a table `mine.csv` and the file `file`."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "dataset/mine"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(SPEC)
    rows = [[f"u{i % 700}", f"i{i % 999}", str(i % 2), str(int(i % 5 == 0))] for i in range(4000)]
    head = "user:token\titem:token\tclick:float\tbuy:float"
    (folder / "mine.inter").write_text("\n".join([head, *("\t".join(row) for row in rows)]) + "\n")
    lines = "\n".join(["user,item,click,buy", *(",".join(row) for row in rows)])
    (tmp_path / "mine.csv").write_text(lines + "\n")
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "file").touch()

    def command(*words: str) -> tuple[int, str]:
        code = main(list(words))
        return code, capsys.readouterr().err

    return command


BOARD = ["leaderboard", "run", "--models=MMoE", "--datasets=mine"]
TABLE = ["preprocess", "table", "--input=mine.csv", "--spec=spec.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset=mine", "--output_dir=file"], "output_dir=file: cannot be written (file is a file)"),
        (["--dataset=mine", "--output_dir=file/runs"], "output_dir=file/runs: cannot be written (file is a file)"),
        (["--dataset=mine", "--output_dir=/proc/runs"], "output_dir=/proc/runs: cannot be written (/proc: "),
        ([*BOARD, "--output=file/x"], "--output=file/x: cannot be written (file is a file)"),
        ([*BOARD, "--output_dir=file"], "output_dir=file: cannot be written (file is a file)"),
        (["leaderboard", "render", "--records=dataset", "--output=file"], "--output=file: cannot be written"),
        ([*TABLE, "--name=new", "--data_path=file"], "file/new: cannot be written (file is a file)"),
        ([*TABLE, "--name=file", "--data_path=."], "file: cannot be written (file is a file)"),
        (
            ["predict", "--run=runs/x", "--input=mine.csv", "--output=file/s.csv"],
            "--output=file/s.csv: cannot be written (file is a file)",
        ),
        (["predict", "--run=runs/x", "--input=mine.csv", "--output=dataset"], "(dataset is a folder)"),
        (
            ["export", "--run=runs/x", "--format=onnx", "--output=file/x"],
            "--output=file/x: cannot be written (file is a file)",
        ),
        (["data", "info", "--dataset=mine", "--html=/proc/x.html"], "--html=/proc/x.html: cannot be written (/proc: "),
        (["data", "split", "--dataset=mine", "--export=file/x"], "file/x: cannot be written (file is a file)"),
        (["data", "split", "--dataset=mine", "--export=/proc/x"], "/proc/x: cannot be written (/proc: "),
    ],
)
def test_it_is_found_before_anything_is_encoded(
    run: Run, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "encode", lambda *_: pytest.fail("encoded"))
    code, said = run(*words)
    assert code == 2
    assert message in said
    assert "choose another" in said
    assert sorted(path.name for path in Path().rglob(".*")) == []


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may be larger: writing fails half way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "words",
    [
        ["data", "info", "--dataset=mine", "--quick"],
        [*TABLE, "--name=new"],
        ["data", "split", "--dataset=mine", "--name=new"],
        ["data", "split", "--dataset=mine", "--export=new"],
        ["data", "split", "--dataset=mine", "--export=new", "--format=csv"],
        ["data", "info", "--dataset=mine", "--quick", "--html=page.html"],
    ],
    ids=" ".join,
)
def test_what_fails_half_way_leaves_nothing_and_works_afterwards(run: Run, words: list[str]) -> None:
    before = {path for path in Path().rglob("*") if ".cache" not in path.parts}
    if "info" not in words or "--html=page.html" in words:  # the cache is there, and the output is too large
        assert run("data", "info", "--dataset=mine", "--quick")[0] == 0
    with file_limit(1000):
        code, said = run(*words)
    assert code in (1, 2), said
    assert "File too large" in said
    left = {path for path in Path().rglob("*") if ".cache" not in path.parts} - before
    assert left == {Path("dataset/.mine.lock")} - before
    names = [path.name for path in Path().rglob("*")]
    assert not [name for name in names if name.startswith((".writing-", ".building-"))]
    assert run(*words)[0] == 0
