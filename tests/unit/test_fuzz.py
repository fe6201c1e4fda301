"""The fuzzer itself, and a few inputs of each of its targets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dtn.errors import DataError
from tests.fuzz.atomic_oracle import FormatError, parse
from tests.fuzz.command import main, targets
from tests.fuzz.csv_oracle import number, parse_table
from tests.fuzz.grammar_oracle import condition
from tests.fuzz.mutations import OP_BYTES, mutated
from tests.fuzz.runner import ChangedError, Finding, Target, check, file_name, fuzz

INPUTS = 25


class Planted(Target):
    """Reads bytes as a number of tens, with faults that the fuzzer must find."""

    name = "planted"
    seeds = (b"10", b"20", b"x0")

    def check(self, data: bytes) -> None:
        if b"x" in data:
            raise DataError("refused")
        if b"\0" in data:
            while True:
                pass
        if b"%" in data:
            raise MemoryError
        value = int(data)
        if value % 10:
            raise ChangedError("not of ten: read as another number")


def test_faults_are_found_made_small_kept_and_told_apart(tmp_path: Path) -> None:
    target = Planted(tmp_path)
    result = fuzz(target, seconds=60, inputs=300, output=tmp_path / "out")
    assert result.inputs == 300
    assert result.accepted > 0
    assert result.refused > 0
    places = {place: finding.kind for place, finding in result.findings.items()}
    assert places["ChangedError: not of ten"] == "change"
    assert {"crash", "memory"} <= set(places.values())
    for finding in result.findings.values():
        kept = (tmp_path / "out" / file_name(target.name, finding)).read_bytes()
        assert kept == finding.data
        again = check(target, kept)
        assert isinstance(again, Finding)
        assert (again.kind, again.place) == (finding.kind, finding.place)
    assert len(result.findings["ChangedError: not of ten"].data) == 1
    assert not list((tmp_path / "out").glob("trying-*"))


def test_an_endless_input_is_a_finding(tmp_path: Path) -> None:
    found = check(Planted(tmp_path), b"\0", seconds=0.05)
    assert isinstance(found, Finding)
    assert found.kind == "hang"


def test_an_input_that_is_slow_once_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def slow_once(target: Target, data: bytes) -> Finding | bool:
        tried.append(data)
        return Finding("hang", "once", data, "") if len(tried) == 1 else data in tried[:-1]

    monkeypatch.setattr("tests.fuzz.runner.check", slow_once)
    result = fuzz(Planted(tmp_path), seconds=60, inputs=2)
    assert (result.inputs, result.findings, len(tried)) == (2, {}, 3)
    assert tried[0] == tried[1] != tried[2]


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    class Noted(Target):
        name = "noted"
        seeds = (b"a,b\n1,2\n",)

        def check(self, data: bytes) -> None:
            seen.append(data)

    runs = []
    for seed in (1, 1, 2):
        seen: list[bytes] = []
        fuzz(Noted(tmp_path), seconds=60, inputs=20, seed=seed)
        runs.append(seen)
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) > 15


@given(st.binary(min_size=2, max_size=2 + 5 * OP_BYTES), st.lists(st.binary(max_size=40), min_size=1, max_size=3))
@settings(max_examples=100)
def test_any_plan_is_a_mutation(plan: bytes, seeds: list[bytes]) -> None:
    data = mutated(plan, seeds, [b"word"])
    assert data == mutated(plan, seeds, [b"word"])
    if len(plan) < 2 + OP_BYTES:
        assert data == seeds[plan[0] % len(seeds)]


@pytest.mark.parametrize("name", sorted(targets()))
def test_a_few_inputs_of_each_target(name: str, tmp_path: Path) -> None:
    target = targets()[name](tmp_path)
    for data in target.seeds:
        # Boards of data that is not here, and words and conditions that are wrong, are refused.
        assert check(target, data) is True or name in ("board", "cli", "condition"), data
    result = fuzz(target, seconds=20, inputs=INPUTS, seed=random.Random(name).randrange(1000))
    assert result.inputs > 0
    assert not result.findings, "\n".join(finding.text for finding in result.findings.values())


def test_the_command_counts_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--target=formula", "--memory_gb=0", f"--output={tmp_path / 'out'}"]
    assert main([*words, "--inputs=10", "--seconds=60"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[:2] == ["formula", "10"]
    assert table[-1] == "10 inputs"
    (tmp_path / "one").write_bytes(b"click * 2")
    assert main([*words, f"--replay={tmp_path / 'one'}"]) == 0
    assert capsys.readouterr().out.endswith("accepted\n")
    with pytest.raises(SystemExit):
        main(["--target=nothing"])


def test_the_oracle_of_atomic_files() -> None:
    found = parse(b"u:token\tx:float\ts:token_seq\tv:float_seq\r\n1\t 2.5 \ta  b\t.1\n\nNA\tnan\t\t\r\n")
    assert found.lines == [2, 4]
    assert found.columns == {
        "u": ["1", None],
        "x": [2.5, None],
        "s": [["a", "b"], []],
        "v": [[0.10000000149011612], []],
    }
    for data in (b"", b"u\n", b"u:token\nu\rv\n", b"u:token\n1\t2\n", b"u:float\n1_0\n", b"u:float\n \n",
                 b"u:token\n\xff\n",
                 b"u:token\tu:float\n", b"u:float_seq\n3.5e38\n", b"u:float\ninf\n", b"u:token\n1\r"):  # fmt: skip
        with pytest.raises(FormatError):
            parse(data)


def test_the_oracle_of_text_tables() -> None:
    assert parse_table(b'\xef\xbb\xbfa,b\r\n1,"x ""y"",\n z"\n,\n', ",") == [
        ["a", "b"],
        ["1", 'x "y",\n z'],
        [None, None],
    ]
    for data in (b'a\n"x', b'a\nx"y"\n', b'a\n"x"y\n', b"a\nx\ry\n", b"a\n\n", b"a,b\n1\n", b"a\n\xff\n"):
        with pytest.raises(FormatError):
            parse_table(data, ",")
    assert [number(text) for text in (None, " ", "nan", " 1e1 ")] == [None, None, None, 10.0]
    with pytest.raises(FormatError):
        number("inf")
    with pytest.raises(FormatError):
        number("\x1c")


def test_the_oracle_of_conditions() -> None:
    row = {"a": 1.0, "b": None, "c": "x", "d": " 2 "}
    answers = {"a == 1": True, "b == 1": None, "not b > 1": None, "a > 1 and b > 1": False, "a == 1 or b > 1": True,
               "c in ['x', 'y']": True, "a not in [2, 3]": True, "d >= 2": True, "not (a == 1)": False,
               "c == 1": None}  # fmt: skip
    assert {source: condition(source, row) for source in answers} == answers
