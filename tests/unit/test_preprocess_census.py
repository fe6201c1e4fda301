"""Census-Income (KDD): every value against a plain parser, tasks, inputs, weight and the test file's halves."""

import gzip
import io
import json
import tarfile
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from recbole_dtn.cli import main
from recbole_dtn.config.datasets import dataset_values
from recbole_dtn.config.load import resolve
from recbole_dtn.config.preprocess import preprocess_options
from recbole_dtn.config.properties import properties_folder
from recbole_dtn.errors import DataError, TooManyRejectedError, UsageError
from recbole_dtn.inspect.validate import validate
from recbole_dtn.preprocess.census.preprocessor import COLUMNS, NUMERIC, CensusIncome
from recbole_dtn.preprocess.prepare import prepare
from recbole_dtn.synthetic.generate import generate

COLLEGE = {
    "Some college but no degree", "Associates degree-occup /vocational", "Associates degree-academic program",
    "Bachelors degree(BA AB BS)", "Masters degree(MA MS MEng MEd MSW MBA)", "Prof school degree (MD DDS DVM LLB JD)",
    "Doctorate degree(PhD EdD)",
}  # fmt: skip
ROW = (
    "38, Private, 6, 36, 1st 2nd 3rd or 4th grade, 0, Not in universe, Never married, Construction, Sales, White, "
    "All other, Female, Not in universe, Not in universe, Full-time schedules, 0, 0, 0, Nonfiler, Not in universe, ?, "
    "Householder, Householder, 1032.38, ?, ?, ?, Yes, ?, 4, Not in universe, Mexico, Mexico, ?, Native, 0, "
    "Not in universe, 2, 12, 95, - 50000."
)


def made(raw, data_path, name=None, **options):
    base = dataset_values("census-income", None)
    options = preprocess_options("census-income", {**base["preprocess"], **options})
    return CensusIncome(raw, data_path, options=options, base=base, name=name)


def plain(text):
    """The rows as they should be written, by hand: values, then the three labels."""
    rows = []
    for line in text.split("\n"):
        if not line:
            continue
        values = [value.strip() for value in line.split(",")]
        assert len(values) == 42
        one = dict(zip(COLUMNS, values, strict=True))
        labels = (
            one["income_50k"] == "50000+.", one["marital_stat"] == "Never married", one["education"] in COLLEGE
        )  # fmt: skip
        values = ["%4EA" if value == "NA" else value for value in values]  # NA, of hisp_origin, is no missing value
        rows.append("\t".join([*values, *(str(int(label)) for label in labels)]))
    return rows


def mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def in_first_half(line, seed=2020):
    key = int.from_bytes(blake2b(f"census-income|{seed}".encode(), digest_size=8).digest(), "little")
    return mix(key ^ mix((line + 0x9E3779B97F4A7C15) % 2**64)) < 2**63


def read(folder, part):
    header, *rows = (folder / f"{folder.name}.{part}.inter").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return header, rows


def check(folder, train, test):
    header, rows = read(folder, "train")
    kinds = {**dict.fromkeys(COLUMNS, "token"), **dict.fromkeys([*NUMERIC, "instance_weight"], "float")}
    labels = ["income_above_50k:float", "never_married:float", "college:float"]
    assert header.split("\t") == [*(f"{name}:{kind}" for name, kind in kinds.items()), *labels]
    assert rows == plain(train)
    expected = plain(test)
    half = [in_first_half(line) for line in range(1, len(expected) + 1)]
    assert read(folder, "valid")[1] == [row for row, first in zip(expected, half, strict=True) if first]
    assert read(folder, "test")[1] == [row for row, first in zip(expected, half, strict=True) if not first]


def test_every_value_of_the_real_rows(tmp_path, shared_data):
    source = shared_data / "census_income_kdd" / "census-income.test.gz"
    if not source.is_file():
        pytest.skip(f"not here: {source}")
    raw = tmp_path / "raw"
    raw.mkdir()
    text = gzip.decompress(source.read_bytes()).decode()
    (raw / "census-income.test.gz").write_bytes(source.read_bytes())
    (raw / "census-income.data").write_text(text)
    folder = made(raw, tmp_path / "data").run()
    check(folder, text, text)
    assert [len(read(folder, part)[1]) for part in ("train", "valid", "test")] == [99_762, 50_204, 49_558]
    rows = [row.split("\t") for row in read(folder, "train")[1]]
    assert [sum(row[at] == "1" for row in rows) for at in (-3, -2, -1)] == [6_186, 43_143, 33_410]
    assert len(rows) - len({tuple(row) for row in rows}) == 883  # persons with the same answers are several rows


def test_synthetic_rows_and_their_faults(tmp_path):
    raw = tmp_path / "raw"
    generate("census-income", 1000, 3, raw)
    folder = made(raw, tmp_path / "data").run()
    check(folder, *((raw / f"census-income.{part}").read_text() for part in ("data", "test")))
    assert validate(folder) == []
    again = made(raw, tmp_path / "again").run()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }
    generate("census-income", 1000, 3, tmp_path / "faulty", faults=1)
    with pytest.raises(TooManyRejectedError, match="rows are rejected"):
        made(tmp_path / "faulty", tmp_path / "data2").run(max_rejected=0.001)
    mended = made(tmp_path / "faulty", tmp_path / "data2").run(max_rejected=0.1)
    parts = [sorted(row for part in kinds for row in read(mended, part)[1]) for kinds in (["train"], ["valid", "test"])]
    clean = [sorted(plain((raw / f"census-income.{part}").read_text())) for part in ("data", "test")]
    assert parts == clean  # the faulty rows are left out, and no other
    record = json.loads((mended / "preprocess.json").read_text())
    counts = [len(rows) for rows in clean]
    assert [table["written"] for table in record["tables"].values()] == counts
    rejected = (mended / "rejected.tsv").read_text().splitlines()[1:]
    assert len(rejected) == sum(sum(table["rejected"].values()) for table in record["tables"].values()) > 0


def raw_of(folder, rows):
    folder.mkdir()
    for part in ("data", "test"):
        (folder / f"census-income.{part}").write_text("".join(f"{row}\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("- 50000.", "50000", "income_50k: expected '- 50000.' or '50000+.'"),
        ("Never married", "Single", "marital_stat: not one of its 7 values"),
        ("1st 2nd 3rd or 4th grade", "University", "education: not one of its 17 values"),
        ("38,", "?,", "age: expected a number from 0 to 1,000,000"),
        ("1032.38", "1e999", "instance_weight: expected a number from 0 to 1,000,000"),
        (", Mexico, Mexico", ", Mexico", "expected 42 columns, found 41"),
    ],
)
def test_a_faulty_row_is_rejected(tmp_path, old, new, reason):
    raw = raw_of(tmp_path / "raw", [ROW, ROW.replace(old, new), ROW])
    folder = made(raw, tmp_path / "data").run(max_rejected=0.5)
    assert read(folder, "train")[1] == plain(f"{ROW}\n{ROW}\n")
    listed = [row.split("\t") for row in (folder / "rejected.tsv").read_text().splitlines()[1:]]
    assert [row[:3] for row in listed] == [["census-income.data", "2", reason], ["census-income.test", "2", reason]]


@pytest.mark.parametrize("archive", [False, True])
def test_archives_and_missing_files(tmp_path, archive):
    raw = tmp_path / "raw"
    raw.mkdir()
    content = f"{ROW}\n".encode()
    if archive:
        with tarfile.open(raw / "census-income.tar.gz", "w:gz") as tar:
            for part in ("data", "test"):
                member = tarfile.TarInfo(f"census-income.{part}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    else:
        for part in ("data", "test"):
            (raw / f"census-income.{part}.gz").write_bytes(gzip.compress(content))
    assert read(made(raw, tmp_path / "data").run(), "train")[1] == plain(f"{ROW}\n")
    with pytest.raises(
        DataError, match=r"census-income\.data, census-income\.test are missing(.|\n)*UCI(.|\n)*--like="
    ):
        made(tmp_path / "none", tmp_path / "data2").run()


def varied(count=60):
    """Rows with every label of both kinds, in every part."""
    for i in range(count):
        row = ROW.replace("1032.38", f"{i}.5")
        row = row.replace("- 50000.", "50000+.") if i % 2 else row
        row = row.replace("Never married", "Widowed") if i % 3 == 0 else row
        yield row.replace("1st 2nd 3rd or 4th grade", "Doctorate degree(PhD EdD)") if i % 5 < 2 else row


INPUTS = [name for name in COLUMNS if name != "instance_weight"]


@pytest.mark.parametrize(
    ("tasks", "name", "taken"),
    [
        (["income", "marital"], "census-income", {"income_50k", "marital_stat"}),
        (["education", "marital"], "census-income-education", {"education", "marital_stat"}),
        (["income", "education"], "census-income-education-income", {"income_50k", "education"}),
        (["income", "marital", "education"], "census-income-education-income-marital",
         {"income_50k", "marital_stat", "education"}),
        (["marital"], "census-income-marital", {"marital_stat"}),
    ],
)  # fmt: skip
def test_what_a_task_is_made_of_is_no_input(tmp_path, tasks, name, taken):
    raw = raw_of(tmp_path / "raw", list(varied()))
    assert main(
        ["preprocess", "census-income", f"--raw={raw}", f"--data_path={tmp_path}", f"--tasks=[{','.join(tasks)}]"]
    ) == 0  # fmt: skip
    settings = resolve({"model": "MMoE", "dataset": name, "data_path": str(tmp_path)}).settings
    assert [field.name for field in settings.fields] == [column for column in INPUTS if column not in taken]
    assert [task.name for task in settings.tasks] == tasks
    assert settings.weight_field is None
    assert prepare(settings).schema.task_names == tuple(tasks)


def test_the_shipped_sets_say_what_the_options_make():
    for name in ("census-income", "census-income-education"):
        values = dataset_values(name, None)
        made_of = made(Path("raw"), Path("data"), name=name, **values["preprocess"])
        assert made_of.name_of(made_of.options) == name
        assert made_of.meaning() is None, name
    encodings = {field["name"]: field for field in dataset_values("census-income-education", None)["fields"]}
    for field in dataset_values("census-income", None)["fields"]:
        assert encodings.get(field["name"], field) == field


def test_weights_weigh_the_loss_and_are_no_input(tmp_path):
    raw = raw_of(tmp_path / "raw", list(varied()))
    folder = made(raw, tmp_path, weights=True).run()
    settings = resolve({"model": "MMoE", "dataset": folder.name, "data_path": str(tmp_path)}).settings
    assert settings.weight_field == "instance_weight"
    train = prepare(settings).splits["train"]
    assert train.batch(np.arange(60)).sample_weight.tolist() == [i + 0.5 for i in range(60)]


def test_a_wrong_option_is_named():
    for options, message in (
        ({"tasks": ["income", "income"]}, "each once"),
        ({"tasks": ["age"]}, "expected one of income, marital, education"),
        ({"protocol": "oficial"}, "official"),
    ):
        with pytest.raises(UsageError, match=message):
            preprocess_options("census-income", options)


def test_a_degree_can_be_asked_for(tmp_path):
    rows = [ROW.replace("1st 2nd 3rd or 4th grade", school) for school in sorted(COLLEGE)]
    folder = made(raw_of(tmp_path / "raw", rows), tmp_path, college="bachelor").run()
    degree = [row.split("\t")[-1] for row in read(folder, "train")[1]]
    assert dict(zip(sorted(COLLEGE), degree, strict=True)) == {
        school: str(int(school.startswith(("Bach", "Mast", "Prof", "Doct")))) for school in COLLEGE
    }
    assert (properties_folder() / "dataset/census-income.yaml").read_text().startswith("# Census-Income (KDD)")
