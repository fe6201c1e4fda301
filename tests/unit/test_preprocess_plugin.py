"""A preprocessor of a user's own: typed options by command and by settings, the shipped checks, faults by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from recbole_dtn.cli import main
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import DataError, UsageError
from recbole_dtn.preprocess.base import Preprocessor, Work
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.registry import PREPROCESSORS
from recbole_dtn.testing import check_preprocessor

PLUGIN = '''
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from recbole_dtn.data.write import write_atomic
from recbole_dtn.preprocess.base import Preprocessor
from recbole_dtn.registry import PREPROCESSORS
import polars as pl


@PREPROCESSORS.register("{name}")
class Visits(Preprocessor):
    """Visits of a shop."""

    default_name = "{name}"
    source = "the shop's export"

    def __init__(
        self,
        raw: Path | None,
        data_path: Path,
        *,
        name: str | None = None,
        least: Annotated[int, Field(ge=1, description="fewest visits of a user")] = 1,
        separator: Annotated[Literal[",", ";"], Field(description="between the values")] = ",",
    ) -> None:
        super().__init__(raw, data_path, name=name)
        self.least, self.separator = least, separator

    def write(self, work):
        frame = pl.read_csv(self.raw / "visits.csv", separator=self.separator, schema_overrides={{"u": pl.String}})
        frame = frame.filter(pl.len().over("u") >= self.least)
        if frame.height < 3:
            1 / 0
        types = {{"u": "token", "y": "float"}}
        return {{f"{{self.name}}.inter": write_atomic(frame, work.folder / f"{{self.name}}.inter", types)}}

    def meaning(self):
        return {{"fields": [{{"name": "u"}}], "tasks": [{{"name": "y", "label": "y"}}]}}
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The name of a registered plug-in and its file; ``raw/visits.csv`` has users of 1, 6 and 12 visits."""
    monkeypatch.chdir(tmp_path)
    PREPROCESSORS.names()
    monkeypatch.setattr(PREPROCESSORS, "_entries", dict(PREPROCESSORS._entries))
    file = tmp_path / "visits.py"
    file.write_text(PLUGIN.format(name="visits"))
    rows = [f"{user};{row % 2}" for user, times in (("a", 1), ("b", 6), ("c", 12)) for row in range(times)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/visits.csv").write_text("\n".join(["u;y", *rows]) + "\n")
    return "visits", file


def data_rows(file: Path) -> int:
    return len(file.read_text().splitlines()) - 1


def test_options_by_command(plugin: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["preprocess", "visits", "--plugins=visits.py", "--raw=raw"]
    assert main([*words, "--separator=;", "--least=7"]) == 0
    assert data_rows(Path("dataset/visits/visits.inter")) == 12
    assert main([*words, "--separator=;", "--least=0"]) == 2
    assert "--least: expected an integer >= 1" in capsys.readouterr().err
    assert main([*words, "--leats=3"]) == 2
    assert "did you mean 'least'?" in capsys.readouterr().err


def test_options_by_the_settings_of_a_run(plugin: tuple[str, Path]) -> None:
    values: dict[str, Any] = {
        "model": "MMoE", "dataset": "mine", "plugins": ["visits.py"], "preprocessor": "visits", "raw": "raw",
        "fields": [{"name": "u"}], "tasks": [{"name": "y", "label": "y"}],
    }  # fmt: skip
    options = {"separator": ";", "least": 2}
    prepared = prepare(resolve({**values, "preprocess": options}).settings)
    assert prepared.vocabularies.tokens("u") == ["c", "b"]
    assert data_rows(Path("dataset/mine/mine.inter")) == 18
    with pytest.raises(UsageError, match=r"preprocess.leats.*did you mean 'least'\?"):
        resolve({**values, "preprocess": {"leats": 2}})
    with pytest.raises(UsageError, match=r"preprocess.least: expected an integer >= 1"):
        resolve({**values, "preprocess": {"least": 0}})
    unsaid = resolve({**values, "dataset": "other", "raw": None, "preprocess": options}).settings
    with pytest.raises(DataError, match=r"preprocess visits --raw=FOLDER --least=2 --separator=';' --data_path"):
        prepare(unsaid)


def test_a_fault_inside_names_the_plugins_file(plugin: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "visits", "--plugins=visits.py", "--raw=raw", "--separator=;", "--least=13"]) == 1
    told = capsys.readouterr().err
    assert f"{plugin[1]}" in told
    assert "this is a bug" not in told
    assert not (Path("dataset") / "visits" / "visits.inter").exists()


def test_the_shipped_checks_read_the_options(plugin: tuple[str, Path]) -> None:
    resolve({"plugins": ["visits.py"], "model": "MMoE", "dataset": "ml-100k"})
    kind = PREPROCESSORS.load("visits")
    check_preprocessor(lambda data_path: kind(Path("raw"), data_path, separator=";", least=6))


def maker(hint: Any, default: Any) -> Callable[[Path], Preprocessor]:
    class Bad(Preprocessor):
        """One option."""

        default_name = "bad"

        def __init__(
            self, raw: Path | None, data_path: Path, *, name: str | None = None, least: hint = default
        ) -> None:
            super().__init__(raw, data_path, name=name)

        def write(self, work: Work) -> dict[str, int]:
            raise NotImplementedError

    Bad.__init__.__annotations__["least"] = hint
    return lambda data_path: Bad(None, data_path)


@pytest.mark.parametrize(
    ("hint", "default", "message"),
    [
        (int, 1, r"option 'least' has no Field\(description=...\)"),
        (Annotated[int, Field(ge=1, description="least")], 0, "'least' is not a valid value: .*greater than"),
        (Annotated[int, Field(description="least")], "1", "default of 'least' is not a valid value: .*integer"),
    ],
)
def test_an_option_without_a_meaning_or_a_wrong_default_is_found(hint: Any, default: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_preprocessor(maker(hint, default))


@pytest.mark.parametrize("first", [True, False])
def test_help_has_the_sets_of_plugins(
    first: bool, plugin: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name, file = plugin
    words = [name, f"--plugins={file}"]
    assert main(["preprocess", *(words if first else words[::-1]), "--help"]) == 0
    told = capsys.readouterr().out
    assert "Visits of a shop." in told
    assert "Raw files: the shop's export." in told
