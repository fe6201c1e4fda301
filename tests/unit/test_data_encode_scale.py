"""Encoding in blocks: the same bytes whatever their size, nothing stored that need not be, no look beyond training."""

import itertools

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.data import atomic, columns, layout
from recbole_dtn.data import fields as field_encoding
from recbole_dtn.data.split import cut, random_split, time_split, user_time_split
from recbole_dtn.preprocess.prepare import prepare

INTER = "u:token\ti:token\ttags:token_seq\tw:float_seq\tx:float\tz:float\tt:float\td:token\ty:float"
USER = "u:token\tage:float\tcity:token\tlikes:token_seq\tlw:float_seq"
FIELDS = [
    {"name": "u"},
    {"name": "i", "min_count": 2},
    {"name": "tags", "type": "token_seq", "weights": "w", "min_count": 2},
    {"name": "x", "type": "float", "encoding": "standardise"},
    {"name": "z", "type": "float", "encoding": "bins", "bins": 5},
    {"name": "age", "type": "float", "encoding": "bins", "bins": 3},
    {"name": "city"},
    {"name": "likes", "type": "token_seq", "weights": "lw"},
]
TASKS = [{"name": "y", "label": "y"}, {"name": "seen", "label": "y", "observed_when": "t >= 60"}]
PARTS = ("train", "valid", "test")
SPLITS = {
    "random": {"split": "random"},
    "time": {"split": "time", "time_field": "t"},
    "user_time": {"split": "user_time", "time_field": "t", "user_field": "u"},
    "given": {"split": "given"},
}


def make_rows(count=240, users=30):
    """Interactions and users, as lists of cells; user 5 is in no row of the user table."""
    rng = np.random.default_rng(0)
    inter = []
    for row in range(count):
        length = int(rng.integers(0, 4))
        inter.append(
            [
                f"u{rng.integers(users)}",
                "" if rng.random() < 0.05 else f"i{min(int(rng.zipf(1.5)), 40)}",
                " ".join(f"t{rng.integers(12)}" for _ in range(length)),
                " ".join(str(int(rng.integers(1, 9)) / 2) for _ in range(length)),
                "" if rng.random() < 0.1 else str(int(rng.integers(-9, 30))),
                str(int(rng.integers(0, 50)) / 4),
                str((row * 89) % count),
                f"d{rng.integers(3)}",
                str(row % 2),
            ]
        )
    user = []
    for number in range(users):
        if number != 5:
            likes = [f"l{rng.integers(9)}" for _ in range(int(rng.integers(0, 5)))]
            age, city = "" if number % 7 == 3 else str(20 + number % 11), f"c{number % 4}"
            user.append([f"u{number}", age, city, " ".join(likes), " ".join("0.5" for _ in likes)])
    return inter, user


def plain_time_split(time, ratio=(0.8, 0.1, 0.1)):
    """By a stable sort of all rows."""
    parts = np.zeros(len(time), np.uint8)
    for end in cut(len(time), ratio):
        parts[np.argsort(time, kind="stable")[end:]] += 1
    return parts


def part_of(inter, split):
    """The split of each row, worked out from the rows and the functions that are tested by themselves."""
    time, user = np.array([float(row[6]) for row in inter]), np.array([row[0] for row in inter])
    ratio = (0.8, 0.1, 0.1)
    return {
        "random": lambda: random_split(len(inter), ratio, 2020),
        "time": lambda: plain_time_split(time),
        "user_time": lambda: user_time_split(user, time, ratio),
        "given": lambda: np.repeat([0, 1, 2], [180, 30, 30]),
    }[split]()


def write(folder, inter, user, split):
    folder.mkdir(parents=True, exist_ok=True)

    def put(name, header, rows):
        (folder / f"{folder.name}.{name}").write_text("\n".join([header, *("\t".join(row) for row in rows)]) + "\n")

    put("user", USER, user)
    if split != "given":
        put("inter", INTER, inter)
        return
    for part, rows in zip(PARTS, (inter[:180], inter[180:210], inter[210:]), strict=True):
        put(f"{part}.inter", INTER, rows)


def settings_of(folder, **change):
    values = {"fields": FIELDS, "tasks": TASKS, "domain_field": "d", "group_field": "u"}
    places = {"model": "MMoE", "dataset": folder.name, "data_path": str(folder.parent)}
    return resolve({**values, **places, **change}).settings


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.mark.parametrize("split", SPLITS)
def test_blocks_of_any_size_give_the_same_bytes(tmp_path, monkeypatch, split):
    folder = tmp_path / "toy"
    write(folder, *make_rows(), split)
    whole = prepare(settings_of(folder, **SPLITS[split]))
    for module in (layout, columns):
        monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    monkeypatch.setattr(field_encoding, "BLOCK_VALUES", 5)
    monkeypatch.setattr(atomic, "BLOCK_BYTES", 100)
    pieces = prepare(settings_of(folder, **SPLITS[split], cache_dir=str(tmp_path / "cache")))
    assert pieces.fingerprint == whole.fingerprint
    one, other = contents(whole.cache_folder), contents(pieces.cache_folder)
    # A mean over blocks may differ in its last digit, and so may what is standardised by it.
    for name in ("vocabularies.json", "f3.npy"):
        del one[name], other[name]
    assert one == other
    assert pieces.summary == whole.summary
    assert pieces.vocabularies.tokens("likes") == whole.vocabularies.tokens("likes")
    first, second = (prepared.schema.fields[3] for prepared in (whole, pieces))
    assert (second.mean, second.std) == (pytest.approx(first.mean, rel=1e-12), pytest.approx(first.std, rel=1e-12))


@pytest.mark.parametrize("rows", [1, 2, 9, 50, 1_000])
@pytest.mark.parametrize("distinct", [1, 3, 10**6])
def test_the_split_by_time_is_that_of_a_stable_sort(rows, distinct):
    rng = np.random.default_rng(rows)
    time = rng.integers(-distinct, distinct, rows) * 1e3 + rng.choice([0.0, -0.0, 1e-9, 1.7e9], rows)
    for ratio in ((0.8, 0.1, 0.1), (1, 1, 1), (5, 1, 3)):
        found = time_split(lambda: iter(np.array_split(time, 4)), rows, ratio)
        assert found.tolist() == plain_time_split(time, ratio).tolist()


def plain_vocabulary(values, min_count=1):
    counts = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    kept = sorted((token for token in counts if counts[token] >= min_count), key=lambda token: (-counts[token], token))
    return {token: 2 + number for number, token in enumerate(kept)}


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_of_field_against_plain_python(tmp_path, split):
    folder = tmp_path / "toy"
    inter, user = make_rows()
    write(folder, inter, user, split)
    prepared = prepare(settings_of(folder, **SPLITS[split]))
    parts = part_of(inter, split)
    of_user = {row[0]: row for row in user}
    absent = ["", "", "", "", ""]
    trained = [row for row, part in zip(inter, parts, strict=True) if part == 0]
    known = {
        "u": plain_vocabulary(row[0] for row in trained),
        "i": plain_vocabulary((row[1] for row in trained if row[1]), 2),
        "tags": plain_vocabulary((tag for row in trained for tag in row[2].split()), 2),
        "city": plain_vocabulary(of_user[row[0]][2] for row in trained if row[0] in of_user),
        "likes": plain_vocabulary(tag for row in trained for tag in of_user.get(row[0], absent)[3].split()),
    }
    for name, expected in known.items():
        assert prepared.vocabularies.tokens(name) == list(expected)
    offsets = {spec.name: spec.offset for spec in prepared.schema.fields}
    ages = [float(of_user[row[0]][1]) for row in trained if of_user.get(row[0], absent)[1]]
    edges = np.unique(np.quantile(np.float32(ages).astype(np.float64), [1 / 3, 2 / 3])).astype(np.float32)
    for part, name in enumerate(PARTS):
        rows = np.flatnonzero(parts == part)
        batch = prepared.splits[name].batch(np.arange(len(rows)))
        assert batch.row.tolist() == rows.tolist()
        assert prepared.splits[name].row_numbers().tolist() == rows.tolist()
        assert prepared.splits[name].row_numbers(1, 3).tolist() == rows[1:3].tolist()
        mine = [inter[row] for row in rows]
        theirs = [of_user.get(row[0], absent) for row in mine]
        assert (batch.ids[:, 0] - offsets["u"]).tolist() == [known["u"].get(row[0], 1) for row in mine]
        items = [known["i"].get(row[1], 1) if row[1] else 0 for row in mine]
        assert (batch.ids[:, 1] - offsets["i"]).tolist() == items
        binned = [2 + int((edges <= float(row[1])).sum()) if row[1] else 0 for row in theirs]
        assert (batch.ids[:, 5] - offsets["age"]).tolist() == binned
        cities = [known["city"].get(row[2], 1) if row[2] else 0 for row in theirs]
        assert (batch.ids[:, 6] - offsets["city"]).tolist() == cities
        for position, field, cells in ((2, "tags", [row[2:4] for row in mine]), (7, "likes", [r[3:5] for r in theirs])):
            many = batch.multi[position]
            bounds = list(itertools.pairwise(many.offsets.tolist()))
            found = [(many.values[a:b] - offsets[field]).tolist() for a, b in bounds]
            assert found == [[known[field].get(value, 1) for value in cell[0].split()] for cell in cells]
            assert [many.weights[a:b].tolist() for a, b in bounds] == [
                [float(value) for value in cell[1].split()] for cell in cells
            ]
        assert batch.labels[:, 0].tolist() == [float(row[8]) for row in mine]
        assert batch.observed[:, 0].all()
        assert batch.observed[:, 1].tolist() == [float(row[6]) >= 60 for row in mine]
        assert batch.domain.tolist() == [int(row[7][1:]) for row in mine]
        summary = {spec.name: spec for spec in prepared.summary.fields}
        assert summary["i"].missing[name] == items.count(0) / len(rows)
        assert summary["i"].coverage[name] == pytest.approx(1 - items.count(1) / (len(rows) - items.count(0)))
        assert summary["city"].missing[name] == cities.count(0) / len(rows)
        assert summary["x"].missing[name] == sum(row[4] == "" for row in mine) / len(rows)
        assert summary["likes"].missing[name] == sum(not row[3] for row in theirs) / len(rows)


def planted(inter, user, parts):
    """Copies in which every input cell of the rows beyond training says what their label is."""
    shown = {row[0] for row, part in zip(inter, parts, strict=True) if part == 0}
    inter, user = [list(row) for row in inter], [list(row) for row in user]
    told = set()
    for row, part in zip(inter, parts, strict=True):
        if part == 0:
            continue
        leak = f"leak{row[8]}"
        row[1] = leak
        row[2], row[3] = f"{leak} {leak}", "1000000 1"
        row[4] = row[5] = str(10**6 + int(row[8]))
        if row[0] not in shown:
            told.add(row[0])
    for row in user:
        if row[0] in told:
            row[1], row[2], row[3], row[4] = "1000000", "leak", "leak leak", "9 9"
    return inter, user, told


def training(prepared):
    """All that training learns from: every array of the batch of all its rows, and what shapes the model."""
    split = prepared.splits["train"]
    batch = split.batch(np.arange(split.rows))
    multi = {key: [value.values, value.offsets, value.weights] for key, value in batch.multi.items()}
    tensors = [batch.ids, batch.labels, batch.observed, batch.domain, batch.row, batch.dense.nan_to_num(-7)]
    tensors += [tensor for values in multi.values() for tensor in values]
    return [tensor.tolist() for tensor in tensors], prepared.vocabularies.to_dict(), prepared.schema.to_dict()


@pytest.mark.parametrize("split", SPLITS)
def test_nothing_that_training_sees_depends_on_other_rows(tmp_path, split):
    inter, user = make_rows()
    if split != "user_time":  # there every user is in training; here some are in validation or test alone
        for row, part in zip(inter, part_of(inter, split), strict=True):
            row[0] = f"u{25 + int(row[0][1:]) % 5 if part else int(row[0][1:]) % 25}"
    parts = part_of(inter, split)
    write(tmp_path / "plain" / "toy", inter, user, split)
    leaking, telling, told = planted(inter, user, parts)
    assert bool(told) == (split != "user_time")
    write(tmp_path / "planted" / "toy", leaking, telling, split)
    plain, other = (prepare(settings_of(tmp_path / name / "toy", **SPLITS[split])) for name in ("plain", "planted"))
    assert training(plain) == training(other)
    # The planted cells are there, and mean nothing: unknown tokens, the last bin, a clipped number.
    valid = other.splits["valid"]
    batch = valid.batch(np.arange(valid.rows))
    specs = other.schema.fields
    assert (batch.ids[:, 1] - specs[1].offset).tolist() == [1] * valid.rows
    assert (batch.multi[2].values - specs[2].offset).tolist() == [1, 1] * valid.rows
    assert (batch.ids[:, 4] - specs[4].offset).tolist() == [specs[4].size - 1] * valid.rows
    assert (batch.dense == 10).all()
    if told:
        assert (batch.ids[:, 6] - specs[6].offset).tolist() == [1] * valid.rows
    # The same cells in one training row do change what is learned: the comparison can fail.
    row = int(np.flatnonzero(parts == 0)[3])
    leaking[row][1:6] = ["leak", "leak leak", "1 1", "1000000", "1000000"]
    leaking[int(np.flatnonzero(parts == 0)[4])][1:3] = ["leak", "leak leak"]
    leaking[int(np.flatnonzero(parts == 0)[4])][3] = "1 1"
    write(tmp_path / "learned" / "toy", leaking, telling, split)
    learned = prepare(settings_of(tmp_path / "learned" / "toy", **SPLITS[split]))
    assert "leak" in learned.vocabularies.tokens("i")
    assert "leak" in learned.vocabularies.tokens("tags")
    assert learned.schema.fields[3].mean > plain.schema.fields[3].mean + 1_000


def test_progress_is_told_in_bytes_and_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "BLOCK_BYTES", 100)
    folder = tmp_path / "toy"
    write(folder, *make_rows(), "random")
    told = []
    prepare(settings_of(folder), meter=lambda *values: told.append(values))
    total = sum(path.stat().st_size for path in folder.glob("toy.*"))
    reading = [values for values in told if values[0].startswith("reading")]
    assert {values[0] for values in reading} == {"reading toy.inter", "reading toy.user"}
    assert [values[1] for values in reading] == sorted(values[1] for values in reading)
    assert reading[-1][1:] == (total, total)
    assert [values for values in told if values[0] == "encoding fields"] == [
        ("encoding fields", done, len(FIELDS)) for done in range(1, len(FIELDS) + 1)
    ]
    assert len(reading) + len(FIELDS) == len(told)
