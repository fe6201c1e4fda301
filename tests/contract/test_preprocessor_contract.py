"""Every registered preprocessor passes the shipped checks, on synthetic raw files or files of its layout made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_dtn.config.datasets import dataset_values, protocols
from recbole_dtn.config.preprocess import preprocess_options
from recbole_dtn.config.properties import shipped_names
from recbole_dtn.preprocess.base import Preprocessor
from recbole_dtn.preprocess.movielens.preprocessor import MovieLens100K
from recbole_dtn.preprocess.raw_set import RawSet
from recbole_dtn.preprocess.table.preprocessor import Table
from recbole_dtn.registry import PREPROCESSORS
from recbole_dtn.synthetic.generate import generate
from recbole_dtn.testing.preprocess import check_preprocessor

LIKE: dict[str, dict[str, Any]] = {
    "aliccp": {},
    "aliexpress": {"countries": "NL"},
    "kuairand": {"version": "1k"},
    "census-income": {},
}


def movielens_1m(folder: Path) -> None:
    folder.mkdir(parents=True)
    ratings = [
        f"{u}::{m}::{1 + (u * m) % 5}::{978300000 + 3600 * (u + 7 * m)}" for u in range(1, 9) for m in range(1, 6)
    ]
    (folder / "ratings.dat").write_text("\n".join(ratings) + "\n", encoding="latin-1")
    users = [f"{u}::{'FM'[u % 2]}::{18 + u}::{u}::0{u}067" for u in range(1, 9)]
    (folder / "users.dat").write_text("\n".join(users) + "\n", encoding="latin-1")
    movies = [f"{m}::Café {m} (199{m})::Comedy|Drama" for m in range(1, 6)]
    (folder / "movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    base = tmp_path_factory.mktemp("raw")

    def of(name: str) -> Path:
        folder = base / name
        if not folder.exists():
            if name == "ml-1m":
                movielens_1m(folder)
            else:
                generate(name, 600, 3, folder, **LIKE[name])
        return folder

    return of


def maker(name: str, raw: Path, **given: Any) -> Callable[[Path], Preprocessor]:
    kind: type[RawSet] = PREPROCESSORS.load(name)
    base = dataset_values(next(iter(protocols(name).values())), None)
    options = preprocess_options(name, {**(base.get("preprocess") or {}), **given})
    return lambda data_path: kind(raw, data_path, options=options, base=base)


@pytest.mark.parametrize("name", sorted(set(PREPROCESSORS.names()) - {"ml-100k", "table"}))
def test_a_public_set(name: str, raw: Callable[[str], Path]) -> None:
    given = {"countries": ["NL"]} if name == "aliexpress" else {}
    check_preprocessor(maker(name, raw(name), **given))


def test_movielens_100k() -> None:
    check_preprocessor(lambda data_path: MovieLens100K(None, data_path))


def test_a_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n" + "".join(f"u{i},NA {i % 3},{i % 2}\n" for i in range(30)))
    (tmp_path / "s.yaml").write_text("fields: [{name: a}, {name: b}]\ntasks: [{name: y, label: y}]\n")
    check_preprocessor(
        lambda path: Table(None, path, name="mine", input=str(tmp_path / "t.csv"), spec=tmp_path / "s.yaml")
    )


# `preprocess synthetic` makes it.
@pytest.mark.parametrize("dataset", [name for name in shipped_names("dataset") if name != "planted"])
def test_each_shipped_data_set_says_how_it_is_made(dataset: str) -> None:
    values = dataset_values(dataset, None)
    preprocess_options(values["preprocessor"], values.get("preprocess") or {})
    maker_class = PREPROCESSORS.load(values["preprocessor"])
    assert maker_class.source != Preprocessor.source


class Forgetful(Preprocessor):
    """Writes something else at each run."""

    default_name = "forgetful"
    runs = 0

    def write(self, work: Any) -> dict[str, int]:
        Forgetful.runs += 1
        (work.folder / "forgetful.inter").write_text(f"a:token\ty:float\n{Forgetful.runs}\t1\n")
        return {"forgetful.inter": 1}


def test_the_checks_can_fail() -> None:
    with pytest.raises(AssertionError, match="a second run gave other files"):
        check_preprocessor(lambda data_path: Forgetful(None, data_path))
