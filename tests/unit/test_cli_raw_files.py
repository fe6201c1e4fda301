"""What the data commands say about raw files, names and options: messages hold commands that work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import recbole_dtn
from recbole_dtn.config.preprocess import option_model

Shown = Callable[..., tuple[int, str, str]]
PROGRAM = "python run_recbole_dtn.py "
CSV = "user,time,buy\n" + "".join(f"u{i % 3},{i},{i % 2}\n" for i in range(40))
SPEC = "fields: [{name: user}]\ntasks: [{name: buy, label: buy}]\n"


def commands(text: str) -> list[list[str]]:
    """The words of the commands in a message, each on a line of its own."""
    return [shlex.split(line.strip()[len(PROGRAM) :]) for line in text.splitlines() if line.strip().startswith(PROGRAM)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["aliccp", "--protocol=aitm"], ["aliccp-synthetic", "aliccp-aitm-synthetic"]),
        (["kuairand", "--version=pure", "--tasks=is_click,is_like"], ["kuairand-pure-synthetic"] * 2),
        (["aliexpress", "--countries=NL,RU"], ["aliexpress-nl-ru-synthetic"] * 2),
        (["census-income", "--tasks=income,education"], ["census-income-synthetic"] * 2),
    ],
)
def test_the_commands_of_the_missing_files_message_make_that_set(
    shown: Shown, words: list[str], names: list[str]
) -> None:
    code, out, err = shown("preprocess", *words, "--data_path=d")
    assert (code, out) == (2, "")
    assert "are missing; there is no such folder." in err
    generate, make, train = commands(err)
    raw, name = names
    assert f"--output=d/{raw}/raw" in generate
    assert make[:3] == ["preprocess", words[0], f"--raw=d/{raw}/raw"]
    assert train == [f"--dataset={name}", "--data_path=d"]
    small = ["--rows=3000" if word.startswith("--rows=") else word for word in generate]
    assert shown(*small, "--quiet")[0] == 0
    code, _, err = shown(*train)
    assert (code, "holds synthetic raw files" in err) == (2, raw == name)
    assert shown(*make)[0] == 0
    options = yaml.safe_load(Path(f"d/{name}/{name}.yaml").read_text())["preprocess"]
    for word in words[1:]:
        key, _, value = word.removeprefix("--").partition("=")
        assert options[key] == (value.split(",") if "," in value else value)
    assert commands(shown("preprocess", *words, "--data_path=d")[2]) == [make, train], "the raw files are there now"


def test_a_set_without_a_synthetic_one_points_at_its_like(shown: Shown) -> None:
    code, out, err = shown("--dataset=ml-1m")
    assert (code, out) == (2, "")
    assert err.startswith("error: dataset/ml-1m/raw: the raw files ratings.dat, users.dat, movies.dat are missing; ")
    assert err.endswith("needs no download: python run_recbole_dtn.py --dataset=ml-100k\n")


def test_what_lies_in_the_folder_instead_is_named(shown: Shown) -> None:
    folder = Path("r")
    folder.mkdir()
    assert "are missing; the folder is empty." in shown("preprocess", "aliccp", "--raw=r")[2]
    for letter in "abcdefghi":
        (folder / letter).touch()
    assert "found there: a, b, c, d, e, f, g, h, ... (9 in all)." in shown("preprocess", "aliccp", "--raw=r")[2]
    assert "that is a file, expected a folder." in shown("preprocess", "aliccp", "--raw=r/a")[2]


def test_files_of_other_options_are_made_again_by_the_command_that_is_named(shown: Shown) -> None:
    shown("preprocess", "synthetic", "--like=kuairand", "--rows=3000", "--output=dataset/kuairand/raw")
    assert shown("preprocess", "kuairand", "--name=mine", "--tasks=is_click,is_like")[0] == 0
    code, out, err = shown("--dataset=mine", "--preprocess.train_until=2022-05-01")
    assert (code, out) == (2, "")
    assert 'train_until: "2022-05-06", not "2022-05-01"' in err
    (text,) = re.findall(f"`{PROGRAM}(.*?)`", err)
    assert text == ("preprocess kuairand --tasks=is_click,is_like --train_until=2022-05-01 --name=mine --overwrite")
    assert "the same command with --name=NAME" in err
    assert shown(*shlex.split(text))[0] == 0
    assert yaml.safe_load(Path("dataset/mine/mine.yaml").read_text())["preprocess"]["train_until"] == "2022-05-01"


def test_the_times_of_kuairand_get_a_weight(shown: Shown) -> None:
    shown("preprocess", "synthetic", "--like=kuairand", "--rows=3000", "--output=dataset/kuairand/raw")
    assert shown("preprocess", "kuairand", "--name=mine", "--tasks=is_click,play_time_ms,comment_stay_time")[0] == 0
    tasks = {task["name"]: task for task in yaml.safe_load(Path("dataset/mine/mine.yaml").read_text())["tasks"]}
    assert "weight" not in tasks["is_click"]
    assert tasks["play_time_ms"]["weight"] * 40_000**2 == pytest.approx(1)
    assert tasks["comment_stay_time"]["weight"] * 10_000**2 == pytest.approx(1)


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "--input=x.csv", "--spec=s.yaml", "--name=aliccp-full"], "the shipped data set 'aliccp-full'"),
        (["table", "--input=x.csv", "--spec=s.yaml", "--name=ml-100k-mt"], "the shipped data set 'ml-100k'"),
        (["kuairand", "--name=aliccp"], "the shipped data set 'aliccp' (made by preprocess aliccp)"),
        (["table", "--input=x.csv", "--spec=s.yaml", "--name=my set"], "not allowed; found 'my set'; try 'my_set'"),
    ],
)  # fmt: skip
def test_a_name_that_will_not_do(shown: Shown, words: list[str], message: str) -> None:
    code, out, err = shown("preprocess", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("dataset").exists()


def test_the_name_of_a_shipped_set_of_the_same_kind_is_fine(shown: Shown) -> None:
    shown("preprocess", "synthetic", "--like=aliccp", "--rows=3000", "--output=dataset/aliccp/raw")
    assert "raw files found, made at first use" in listed(shown)["aliccp"]
    assert shown("preprocess", "aliccp", "--protocol=full", "--name=aliccp-aitm")[0] == 0
    lines = listed(shown)
    assert "prepared, own YAML in place of the shipped one" in lines["aliccp-aitm"]
    assert "own YAML" not in lines["aliccp"]
    assert "raw files missing" in lines["kuairand-1k"]


def listed(shown: Shown) -> dict[str, str]:
    return {line.split()[0]: line for line in shown("list", "datasets")[1].splitlines() if line.strip()}


def test_an_unknown_set_is_answered_by_no_list_of_all(shown: Shown) -> None:
    err = shown("--dataset=zzz")[2]
    assert "`list datasets` shows all." in err
    assert "kuairand" not in err
    assert "did you mean 'aliccp' or " in shown("--dataset=alicp")[2]


# ---- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset=aliccp", "--min_occurrences=4"], "did you mean 'preprocess.min_occurrences'?"),
        (["preprocess", "synthetic", "--row=30"], "unknown option --row; did you mean '--rows'?"),
        (["preprocess", "synthetic", "--like=aliccp", "--row=30"], "unknown option --row; did you mean '--rows'?"),
        (["preprocess", "synthetic", "--click_rate=0.1"], "--like and --rows and --output are needed"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_known(shown: Shown, words: list[str], message: str) -> None:
    code, out, err = shown(*words)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("name", ["aliccp", "aliexpress", "census-income", "kuairand", "ml-1m"])
def test_the_help_of_a_set_says_what_each_option_means(shown: Shown, name: str) -> None:
    code, out, err = shown("preprocess", name, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 110
    model = option_model(name)
    text = " ".join(out.split())
    for option in model.model_fields:
        if option != "protocol":
            assert f"--{option}=" in text
            described = model.model_fields[option].description
            assert described
            assert described in text
    for switch in ("--raw=FOLDER", "--name=NAME", "--data_path=", "--max_rejected=", "--strict", "--overwrite"):
        assert switch in text
    page = re.findall(r"docs/datasets/[a-z-]+\.md", out)
    assert [(Path(recbole_dtn.__file__).parents[1] / path).is_file() for path in page] == [True]
    assert text.count("109_14, 110_14, 127_14") <= 1, "a long list of names is shown once"


# ---- specs of tables ------------------------------------------------------------------------------------------------


def table(shown: Shown, spec: str, csv: str = CSV, *more: str) -> tuple[int, str]:
    Path("x.csv").write_text(csv)
    Path("s.yaml").write_text(spec)
    code, _, err = shown("preprocess", "table", "--input=x.csv", "--spec=s.yaml", "--name=own", *more)
    return code, err


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("time", "split: time needs time_field; write time_field: COLUMN (s.yaml:3)"),
        ("user_time", "split: user_time needs time_field and user_field; write"),
        ("user_time\ntime_field: time", "split: user_time needs user_field; write user_field: COLUMN (s.yaml:3)"),
    ],
)
def test_a_split_without_its_columns_is_refused_before_the_first_row(shown: Shown, split: str, message: str) -> None:
    code, err = table(shown, f"{SPEC}split: {split}\n")
    assert code == 2
    assert message in err
    assert not Path("dataset").exists()


def test_a_split_with_its_columns_writes_them(shown: Shown) -> None:
    assert table(shown, f"{SPEC}split: user_time\ntime_field: time\nuser_field: user\n") == (0, "")
    assert Path("dataset/own/own.inter").read_text().splitlines()[0] == "user:token\tbuy:float\ttime:float"


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        (CSV.replace(",", ";"), 'if ";" parts its columns, write reader: {separator: ";"} in the spec'),
        (CSV.replace(",", "\t"), 'write reader: {separator: "\\t"} in the spec'),
        (CSV.partition("\n")[2], "the first line (u0, 0, 0) has numbers: if the file has no header, write"),
        (CSV.replace("user", "usr"), "did you mean 'usr'?"),
    ],
    ids=["semicolons", "tabs", "no header", "a misspelt column"],
)  # fmt: skip
def test_a_table_of_another_shape_gets_a_hint(shown: Shown, csv: str, message: str) -> None:
    code, err = table(shown, SPEC, csv)
    assert code == 2
    assert message in err


def test_the_hints_are_followed(shown: Shown) -> None:
    assert table(shown, f'{SPEC}reader: {{separator: ";"}}\n', CSV.replace(",", ";")) == (0, "")
    columns = f"{SPEC}reader: {{columns: [user, time, buy]}}\n"
    assert table(shown, columns, CSV.partition("\n")[2], "--overwrite") == (0, "")


def test_a_wrong_condition_is_found_in_its_spec(shown: Shown) -> None:
    code, err = table(shown, f"{SPEC}filter: time = 3\n")
    assert code == 2
    assert err.startswith("error: s.yaml: filter: condition 'time = 3', position 6: ")
    code, err = table(shown, "fields: [{name: user}]\ntasks: [{name: b, label: buy, condition: buy >}]\n")
    assert (code, "s.yaml: task 'b', condition: condition 'buy >'" in err) == (2, True)


@pytest.mark.parametrize("weight", ["-0.5", "inf", "-inf", "heavy", ""])
@pytest.mark.parametrize("plain", [True, False])
def test_a_weight_is_a_number_from_0_up(shown: Shown, weight: str, plain: bool) -> None:
    rows = [f"u{i % 3},{i % 2},{i % 4}.5" for i in range(40)]
    rows[7] = f"u1,1,{weight}"
    spec = f"{SPEC}weight_field: w\n" + ("" if plain else "filter: buy >= 0\n")
    csv = "\n".join(["user,buy,w", *rows]) + "\n"
    code, err = table(shown, spec, csv)
    assert code == 3
    found = "found a missing value" if not weight else f"expected a weight, a finite number from 0 up, found '{weight}'"
    assert f"x.csv, line 9: column 'w': {'expected a finite number, ' if not weight else ''}{found}" in err
    assert table(shown, spec, csv, "--max_rejected=0.1", "--overwrite")[0] == 0
    written = Path("dataset/own/own.inter").read_text().splitlines()[1:]
    assert len(written) == 39
    assert min(float(row.split("\t")[2]) for row in written) == 0.5


def test_a_weight_of_zero_and_a_negative_input_stay(shown: Shown) -> None:
    spec = "fields: [{name: user}, {name: x, type: float}]\ntasks: [{name: buy, label: buy}]\nweight_field: w\n"
    assert table(shown, spec, "user,x,buy,w\nu,-1,0,0\nv,-2.5,1,3\n") == (0, "")
    assert "fill puts a negative number" in table(shown, f"{spec}fill: {{w: -1}}\n", CSV, "--overwrite")[1]
