"""``data validate`` on small files: every kind of fault with its line, in one block and in many."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.config.settings import Settings
from recbole_dtn.data import atomic
from recbole_dtn.inspect.validate import find_faults, grouped, validate

HEADER = "user:token\twords:token_seq\tscores:float_seq\tprice:float\tclick:float\tbuy:float\ttime:float\n"
GOOD = "u1\ta b\t1 2\t0.5\t1\t0\t3\n"
BLANK = "a blank line is not a row, here and in stock RecBole"
EMPTY_KEY = (
    "user is empty: no interaction reads the row; stock RecBole drops it, or in given parts joins it to those without "
    "user"
)
YAML = """\
fields:
- {name: user}
- {name: words, type: token_seq, weights: scores}
- {name: price, type: float}
- {name: age}
tasks:
- {name: click, label: click}
- {name: buy, label: buy, observed_when: click == 1}
split: time
time_field: time
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "toy"
    made.mkdir()
    (made / "toy.yaml").write_text(YAML)
    (made / "toy.user").write_text("user:token\tage:token\tvip:float\nu1\told\t1\nu2\tyoung\t0\n")
    return made


def write(folder: Path, text: str | bytes, name: str = "toy.inter") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def settings_of(folder: Path, *words: str) -> Settings:
    return resolve(["--dataset=toy", f"--data_path={folder.parent}", *words]).settings


def found(folder: Path, *words: str, plain: bool = False) -> list[tuple[str, int, str]]:
    faults = validate(folder, None if plain else settings_of(folder, *words))
    return [
        (Path(fault.file).name, fault.line, ("" if fault.fatal else "warning: ") + fault.reason) for fault in faults
    ]


@pytest.fixture(params=[1 << 24, 64], ids=["one block", "many blocks"], autouse=True)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "BLOCK_BYTES", request.param)


def test_good_files_have_no_fault_with_unix_and_windows_line_ends(folder: Path) -> None:
    write(folder, HEADER + GOOD * 20)
    assert found(folder) == []
    write(folder, (HEADER + GOOD * 20).replace("\n", "\r\n"))
    assert found(folder) == []
    write(folder, HEADER + GOOD + GOOD.rstrip("\n"))
    assert found(folder) == []


def test_lines_are_counted_past_blank_and_broken_ones(folder: Path) -> None:
    rows = [GOOD, "\n", GOOD, "u1\ta\n", "\r\n", GOOD.replace("u1", "\xe9\xff"), "u9\ta\t1\tx\t1\t0\t3\n"]
    write(folder, (HEADER + "".join(rows * 2)).encode("latin-1"))
    expected: list[tuple[str, int, str]] = []
    for first in (2, 2 + len(rows)):
        expected += [
            ("toy.inter", first + 1, f"warning: {BLANK}"),
            ("toy.inter", first + 3, "a short row: expected 7 columns as in the header, found 2"),
            ("toy.inter", first + 4, f"warning: {BLANK}"),
            ("toy.inter", first + 5, "not UTF-8 at byte 0 of the line; convert the file to UTF-8"),
            ("toy.inter", first + 6, "column 'price': expected a finite number, found 'x'"),
            ("toy.inter", first + 6, "warning: user 'u9' is not in toy.user; its fields are absent there"),
        ]
    assert found(folder, plain=True) == sorted(expected)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\xef\xbb\xbfuser:token\n", "starts with a byte order mark; save the file as UTF-8 without one"),
        (b"user:tokn\n", "column 'user:tokn': unknown type 'tokn' (did you mean 'token' or 'token_seq'? "),
        (b"user\n", "column 'user' has no type; expected name:type with token, token_seq, float, float_seq"),
        (b"user:token\tuser:float\n", "column 'user' is there twice; remove one"),
        (b"user:token\rprice:float\n", "a carriage return without a line feed; convert the line ends to \\n"),
        (b"\xff:token\n", "not UTF-8 at byte 0; convert the file to UTF-8"),
    ],
)
def test_a_header_that_cannot_be_read_is_one_fault_and_the_other_files_are_still_checked(
    folder: Path, header: bytes, reason: str
) -> None:
    write(folder, header + b"x\n")
    write(folder, "user:token\tage:token\nu1\tNA\n", "toy.user")
    first, second = found(folder)
    assert first[:2] == ("toy.inter", 1)
    assert first[2].startswith(reason)
    assert second == ("toy.user", 2, "warning: column 'age': 'NA' stock RecBole reads it as missing")


def test_numbers_that_are_not_finite(folder: Path) -> None:
    rows = ["u1\ta\t1\tinf\t1\t0\t3\n", "u1\ta\t-inf\t1\t1\t0\t3\n", "u1\ta\t1\t1e39\t1\t0\t3\n"]
    write(folder, HEADER + "".join(rows))
    assert found(folder) == [
        ("toy.inter", 2, "column 'price': expected a finite number, found 'inf'"),
        ("toy.inter", 3, "column 'scores': expected finite numbers with a space between, found '-inf'"),
        ("toy.inter", 4, "column 'price': expected a number that float32 can hold, found '1e39'"),
    ]
    assert len(found(folder, plain=True)) == 2


def test_labels_are_checked_where_they_are_observed(folder: Path) -> None:
    rows = [
        "u1\ta\t1\t1\t1\t2\t3\n",  # bought twice
        "u1\ta\t1\t1\t0\t2\t3\n",  # the same, where nothing is observed
        "u1\ta\t1\t1\t0.5\t0\t3\n",
        "u1\ta\t1\t1\t\t0\t3\n",
        "u1\ta\t1\t1\tx\t7\t3\n",
    ]
    write(folder, HEADER + "".join(rows))
    missing = "warning: column 'click': a missing number; stock RecBole puts the column's mean there"
    assert found(folder) == [
        ("toy.inter", 2, "the label of task 'buy' must be 0 or 1, found buy = 2.0, click = 1.0"),
        ("toy.inter", 4, "the label of task 'click' must be 0 or 1, found click = 0.5"),
        ("toy.inter", 5, missing),
        ("toy.inter", 5, "the label of task 'click' must be 0 or 1, found click = missing"),
        ("toy.inter", 6, "column 'click': expected a finite number, found 'x'"),
    ]
    assert [line for _, line, _ in found(folder, plain=True)] == [5, 6]


def test_conditions_may_read_side_files_and_must_be_decided(folder: Path) -> None:
    tasks = "--tasks=[{name: liked, label: price, condition: price >= 1, observed_when: vip == 1}]"
    rows = ["u1\ta\t1\t\t1\t0\t3\n", "u2\ta\t1\t\t1\t0\t3\n", "u9\ta\t1\t\t1\t0\t3\n", GOOD]
    write(folder, HEADER + "".join(rows))
    faults = [fault for fault in found(folder, tasks, "--fields=[{name: user}]") if "warning" not in fault[2]]
    reason = "the label of task 'liked' (price >= 1) is undecided, found price = missing, vip = 1.0"
    assert faults == [("toy.inter", 2, reason)]


def test_a_condition_on_the_wrong_type_is_told_once(folder: Path) -> None:
    tasks = "--tasks=[{name: liked, label: price, condition: \"price == 'much'\"}]"
    write(folder, HEADER + GOOD * 9)
    assert found(folder, tasks, "--fields=[{name: user}]") == [
        ("toy", 0, "task 'liked': condition: column 'price' holds numbers; it cannot equal the text 'much'")
    ]


def test_a_regression_label_is_any_finite_number(folder: Path) -> None:
    write(folder, HEADER + GOOD + "u1\ta\t1\t\t1\t0\t3\n")
    words = ("--tasks=[{name: cost, label: price, kind: regression}]", "--fields=[{name: user}]")
    fatal = [fault for fault in found(folder, *words, "--valid_metric=cost_rmse") if "warning" not in fault[2]]
    assert fatal == [("toy.inter", 3, "the label of task 'cost' must be a finite number, found price = missing")]


def test_lists_and_their_weights_are_of_one_length(folder: Path) -> None:
    rows = [
        GOOD,
        "u1\ta b\t1\t1\t1\t0\t3\n",
        "u1\t\t1\t1\t1\t0\t3\n",
        "u1\t a  b \t1 2\t1\t1\t0\t3\n",
        "u1\t\t\t1\t1\t0\t3\n",
    ]
    write(folder, HEADER + "".join(rows))
    assert [fault for fault in found(folder) if "warning" not in fault[2]] == [
        ("toy.inter", 3, "'words' has 2 values, its weights 'scores' have 1"),
        ("toy.inter", 4, "'words' has 0 values, its weights 'scores' have 1"),
    ]


def test_columns_that_the_settings_need(folder: Path) -> None:
    write(
        folder,
        "user:token\twords:token\tscores:float\tprice:token\tclick:float\ttime:token_seq\n" + "u1\ta\t1\t1\t1\t3\n",
    )
    assert found(folder) == [
        (
            "toy",
            0,
            "no file has the column 'buy' (task 'buy'); known: age, click, price, scores, time, user, vip, words",
        ),
        ("toy.inter", 1, "column 'price' is of type token; the data set's field says float"),
        ("toy.inter", 1, "column 'scores' is of type float; weights of 'words' must be float_seq"),
        ("toy.inter", 1, "column 'time' is of type token_seq; time_field must be token or float"),
        ("toy.inter", 1, "column 'words' is of type token; the data set's field says token_seq"),
    ]


def test_times_weights_and_domains(folder: Path) -> None:
    write(folder, HEADER + GOOD + "u1\ta\t1\t1\t1\t0\t\n" + "\ta\t1\t-1\t1\t0\t3\n")
    words = ("--weight_field=price", "--domain_field=user", "--fields=[{name: age}]")
    mean = "warning: column 'time': a missing number; stock RecBole puts the column's mean there"
    assert found(folder, *words) == [
        ("toy.inter", 3, mean),
        ("toy.inter", 3, "time_field 'time': expected a number, which orders the rows, found a missing value"),
        ("toy.inter", 4, "domain_field 'user' is missing"),
        ("toy.inter", 4, "weight_field 'price': expected a number from 0 up, found -1.0"),
    ]
    assert [fault[2] for fault in found(folder, "--split=random", "--fields=[{name: age}]")] == [mean]


def test_keys_of_side_files(folder: Path) -> None:
    write(folder, HEADER + GOOD + GOOD.replace("u1", "u7") * 2)
    write(folder, "user:token\tage:token\nu1\ta\n\nu2\tb\nu1\tc\n\t\n\t\n", "toy.user")
    missing = "warning: user 'u7' is not in toy.user; its fields are absent there"
    assert found(folder) == [
        ("toy.inter", 3, missing),
        ("toy.inter", 4, missing),
        ("toy.user", 3, f"warning: {BLANK}"),
        ("toy.user", 5, "user 'u1' is there twice (first on line 2)"),
        ("toy.user", 6, f"warning: {EMPTY_KEY}"),
        ("toy.user", 7, "user (empty) is there twice (first on line 6)"),
    ]


def test_parts_must_be_whole_and_alike(folder: Path) -> None:
    for part in ("train", "valid"):
        write(folder, HEADER + GOOD, f"toy.{part}.inter")
    ((name, line, reason),) = found(folder, "--split=given")
    assert (name, line) == ("toy", 0)
    assert "expected toy.test.inter" in reason
    write(folder, HEADER.replace("price", "cost") + GOOD, "toy.test.inter")
    ((name, line, reason),) = found(folder, "--split=given")
    assert (name, line) == ("toy.test.inter", 1)
    assert reason.startswith("its columns differ from those of toy.train.inter")


def test_a_file_of_one_column_may_hold_blank_lines(folder: Path) -> None:
    (folder / "toy.user").unlink()
    write(folder, "user:token\nu1\n\nu2\n")
    assert found(folder, plain=True) == [("toy.inter", 3, f"warning: {BLANK}")]


def test_a_label_without_a_condition_is_a_float(folder: Path) -> None:
    write(folder, HEADER.replace("click:float", "click:token") + GOOD * 3)
    reason = (
        "column 'click' is of type token; the label of task 'click' must be :float: stock RecBole renumbers a :token "
        "label, and makes a second one an input (or give the task a condition)"
    )
    assert found(folder) == [("toy.inter", 1, reason)]
    assert found(folder, plain=True) == []
    conditions = "--tasks=[{name: click, label: click, condition: \"click == '1'\"}, {name: buy, label: buy}]"
    assert found(folder, conditions) == []


def test_an_empty_key_of_a_side_file(folder: Path) -> None:
    write(folder, HEADER + GOOD)
    write(folder, "user:token\tage:token\nu1\ta\n\tb\n", "toy.user")
    warning = f"warning: {EMPTY_KEY}"
    assert found(folder) == found(folder, plain=True) == [("toy.user", 3, warning)]


@pytest.mark.parametrize("rest", ["", "\n", "\r\n\n"])
def test_a_file_of_interactions_without_rows(folder: Path, rest: str) -> None:
    write(folder, HEADER + rest)
    expected = ("toy.inter", 1, "no rows: only a header; expected interactions")
    assert [fault for fault in found(folder) if "blank" not in fault[2]] == [expected]
    assert [fault for fault in found(folder, plain=True) if "blank" not in fault[2]] == [expected]
    write(folder, HEADER + "u1\ta\n")  # a row, if a faulty one
    assert [fault[2] for fault in found(folder)] == ["a short row: expected 7 columns as in the header, found 2"]


def test_a_side_file_may_have_no_rows(folder: Path) -> None:
    write(folder, "user:token\tage:token\n", "toy.user")
    write(folder, HEADER + GOOD)
    assert [fault[0] for fault in found(folder)] == ["toy.inter"]


def test_spaces_and_null_bytes_in_tokens_are_told_once_per_column(folder: Path) -> None:
    rows = [" u1\ta  b\t1 2\t1\t1\t0\t3\n", "u1 \t a\t1\t1\t1\t0\t3\n", "u1\ta b \t1 2\t1\t1\t0\t3\n"]
    write(folder, HEADER + GOOD + "".join(rows) * 4 + "u\x001\ta\x00 b\t1 2\t1\t1\t0\t3\n" * 2)
    tokens = "begins or ends with a space, which makes it another token, here and in stock RecBole"
    empty = "has empty values between its spaces, which are left out, here and in stock RecBole"
    null = "holds a null byte, where other programs may end the text"
    assert [fault for fault in found(folder) if "toy.user" not in fault[2]] == [
        ("toy.inter", 3, f"warning: column 'user': ' u1' {tokens} (reported once)"),
        ("toy.inter", 3, f"warning: column 'words': 'a  b' {empty} (reported once)"),
        ("toy.inter", 15, f"warning: column 'user': 'u\\x001' {null} (reported once)"),
        ("toy.inter", 15, f"warning: column 'words': 'a\\x00 b' {null} (reported once)"),
    ]
    write(folder, HEADER + GOOD.replace("a b", "a"))
    write(folder, "user:token\tage:token\nu1\told \nu2\tnew \n", "toy.user")
    assert ("toy.user", 2, f"warning: column 'age': 'old ' {tokens} (reported once)") in found(folder)


def test_groups_keep_a_count_and_three_lines(folder: Path) -> None:
    write(folder, HEADER + GOOD + "u1\ta\t1\tx\t1\t0\t3\n" * 7 + "u1\n")
    first, second = grouped(find_faults(folder, settings_of(folder)))
    assert (first.count, first.lines) == (7, [3, 4, 5])
    assert (first.first.line, first.first.kind) == (3, "column 'price': expected a finite number")
    assert (second.count, second.lines) == (1, [10])


def test_the_meter_counts_the_bytes_of_each_file(folder: Path) -> None:
    path = write(folder, HEADER + GOOD * 9)
    seen: dict[str, tuple[int, int]] = {}
    list(find_faults(folder, meter=lambda stage, done, total: seen.__setitem__(stage, (done, total))))
    size = path.stat().st_size
    assert seen["checking toy.inter"] == (size, size)
    assert set(seen) == {"checking toy.inter", "checking toy.user"}
