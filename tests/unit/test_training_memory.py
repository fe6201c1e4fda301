"""The estimate of a run's memory before it is built, and its refusal."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.cli.app import main
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.optim.build import build_optimizer
from recbole_dtn.registry import INTERACTIONS, MODELS
from recbole_dtn.schema import DataSchema
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.training import fit, project, room
from recbole_dtn.training.footprint import Footprint, LiveBytes, estimate, parameter_bytes, state_bytes
from recbole_dtn.training.free_memory import cgroup_free
from recbole_dtn.training.room import check_memory
from recbole_dtn.training.warn import large_model

GIB = 2**30


class Rows:
    """A split of made-up rows."""

    def __init__(self, schema: DataSchema, rows: int) -> None:
        self.schema, self.rows = schema, rows

    def batch(self, indices: np.ndarray) -> Features:
        return tiny_features(self.schema, len(indices))


def prepared(schema: DataSchema, rows: int = 64) -> Any:
    splits = {name: Rows(schema, rows) for name in ("train", "valid", "test")}
    return SimpleNamespace(schema=schema, splits=splits)


# ---- counting -------------------------------------------------------------------------------------------------------


def test_live_bytes_count_storages_that_are_held() -> None:
    with LiveBytes() as memory:
        x = torch.empty(10, 4, device="meta")  # 160 bytes
        view = x.t()
        assert memory.live == 160
        y = x + 1  # 160 more
        y.mul_(2)
        assert (memory.live, memory.peak) == (320, 320)
        del y
        assert (memory.live, memory.peak) == (160, 320)
        del x
        assert memory.live == 160  # the view holds it
        del view
    assert (memory.live, memory.peak) == (0, 320)


def test_live_bytes_of_a_backward_pass() -> None:
    """A linear map and a ReLU: the output and the input are held for the backward pass, and gradients come."""
    weight = torch.empty(8, 4, device="meta", requires_grad=True)
    x = torch.empty(100, 4, device="meta")
    with LiveBytes([weight]) as memory:
        out = torch.relu(x @ weight.t())  # (100, 8): the product is given up, the ReLU keeps its output
        assert (memory.live, memory.peak) == (3200, 6400)
        out.sum().backward()
        del out
        assert memory.live == 8 * 4 * 4  # the gradient of the weight


@pytest.mark.parametrize("tables", ["adam", "lazy_adam", "rowwise_adagrad", "adagrad", "sgd"])
@pytest.mark.parametrize("dense", ["adam", "adagrad", "sgd"])
def test_state_bytes_are_those_of_the_optimisers(tables: str, dense: str) -> None:
    schema = tiny_schema()
    settings = make_settings(
        "SharedBottom",
        embedding_size=4,
        optimizer={"name": dense, "lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8},
        embedding_optimizer={"name": tables, "lr": None},
    )
    model = MODELS.load("SharedBottom")(settings, schema)
    optimizer = build_optimizer(model, settings)
    batch = tiny_features(schema, 8)
    model.task_losses(batch, model(batch)).sum().backward()
    optimizer.step()
    held = {
        id(value): value.numel() * value.element_size()
        for part in optimizer.parts
        for state in part.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.dim() > 0  # the number of steps aside
    }
    assert state_bytes(model, settings) == sum(held.values())


def test_the_estimate_has_the_parameters_of_the_model() -> None:
    schema = tiny_schema()
    settings = make_settings("DTN", embedding_size=4)
    found = estimate(settings, prepared(schema))
    model = MODELS.load("DTN")(settings, schema)
    counts = model.count_parameters()
    assert found is not None
    assert found.activations is not None
    assert found.tables == 4 * (counts["embedding"] + counts["codebook"])
    assert found.tables + found.dense == parameter_bytes(model)
    assert list(found.modules) == ["gdcn", "masknet", "memonet"]
    assert found.states == 2 * 4 * sum(counts.values())
    # An index and a vector for each look-up of 64 rows: of ids and numbers, of multi-valued fields, and in each of
    # three codebooks of two hashes of three pairs.
    multi = sum(many.values.numel() for many in tiny_features(schema, 64).multi.values())
    assert found.gradients == 4 * counts["dense"] + (64 * 4 + multi + 3 * 64 * 2 * 3) * (8 + 4 * 4)


def test_activations_grow_with_the_batch_and_with_the_tasks_gradients() -> None:
    schema = tiny_schema()

    def found(**options: Any) -> Footprint:
        made = estimate(make_settings("MMoE", embedding_size=8, **options), prepared(schema, 1 << 20))
        assert made is not None
        return made

    small, large = found(train_batch_size=8192, eval_batch_size=1), found(train_batch_size=1 << 20, eval_batch_size=1)
    assert large.activations == pytest.approx(128 * small.activations, rel=0.01)
    parts = found(train_batch_size=1 << 20, eval_batch_size=1, batch_parts=16)
    assert parts.activations == pytest.approx(8 * small.activations, rel=0.01)
    dense = MODELS.load("MMoE")(make_settings("MMoE", embedding_size=8), schema).count_parameters()["dense"]
    # A gradient of each of the two tasks beside the one that is applied.
    assert found(balancer={"name": "pcgrad"}).gradients == found().gradients + 2 * 4 * dense


@pytest.mark.parametrize("name", ["HoME", "PLE", "STAR", "STEM"])
def test_models_can_be_estimated(name: str) -> None:
    schema = tiny_schema(tokens=2, multi=("sum",), domains=3)
    found = estimate(make_settings(name, embedding_size=4), prepared(schema, 8))
    assert found is not None
    assert found.activations is not None
    assert found.activations > 0


def test_every_interaction_can_be_estimated() -> None:
    every = [name for name in INTERACTIONS.names() if INTERACTIONS.entry(name).origin == "built-in"]
    settings = make_settings("DTN", embedding_size=4, interactions=every, use_shared=False)
    found = estimate(settings, prepared(tiny_schema(tokens=4, tasks=1), 8))
    assert found is not None
    assert found.activations is not None
    assert list(found.modules) == every


def test_a_model_that_reads_values_has_an_estimate_without_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, features: Features) -> Any:
        raise AssertionError(float(features.labels.sum()))

    monkeypatch.setattr(MODELS.load("SharedBottom"), "forward", forward)
    found = estimate(make_settings("SharedBottom", embedding_size=4), prepared(tiny_schema()))
    assert found is not None
    assert found.activations is None
    assert found.total > found.model > found.states > 0


def test_a_model_that_is_fitted_directly_has_none() -> None:
    assert estimate(make_settings("Boosting"), prepared(tiny_schema())) is None


# ---- what is free ---------------------------------------------------------------------------------------------------


def write(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_limits_of_control_groups_version_2(tmp_path: Path) -> None:
    """Each group on the way up limits the process; pages of files are given up."""
    write(tmp_path, groups="0::/slice/run")
    root = tmp_path / "fs"
    write(root / "slice", memory__max=1000, memory__current=700)
    write(root / "slice/run", memory__max="max", memory__current=600)
    assert list(cgroup_free(root, tmp_path / "groups")) == [300]
    write(root / "slice/run", memory__max=800, memory__stat="anon 500\ninactive_file 100\nactive_file 50")
    assert list(cgroup_free(root, tmp_path / "groups")) == [300, 300]
    # In a container: a path of the host that is not there, and the limit at the root.
    write(tmp_path, groups="0::/host/only")
    write(root, memory__max=500, memory__current=600)
    assert list(cgroup_free(root, tmp_path / "groups")) == [0]


def test_limits_of_control_groups_version_1(tmp_path: Path) -> None:
    write(tmp_path, groups="11:cpu,cpuacct:/x\n5:memory:/docker/y")
    folder = tmp_path / "fs" / "memory" / "docker" / "y"
    write(folder, memory__limit_in_bytes=1000, memory__usage_in_bytes=900, memory__stat="total_inactive_file 50")
    assert list(cgroup_free(tmp_path / "fs", tmp_path / "groups")) == [150]
    assert list(cgroup_free(tmp_path / "fs", tmp_path / "missing")) == []


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def to(size: int) -> None:
        monkeypatch.setattr(room, "free_memory", lambda: size)

    return to


def test_a_run_that_cannot_fit_is_refused_with_what_is_large(free: Any) -> None:
    schema = tiny_schema(tokens=40, vocabulary=50)
    settings = make_settings("DTN", embedding_size=64, train_batch_size=4096)
    free(GIB // 8)
    with pytest.raises(UsageError) as told:
        check_memory(settings, prepared(schema, 4096))
    text = str(told.value)
    for words in (
        "the run does not fit: it takes about",
        "GiB of memory (",
        "free: 0.1 GiB",
        "activations of 4,096 rows",
        "of parameters: smaller options low_rank, hidden, layers of gdcn",
        "a larger batch_parts (1)",
        "a smaller train_batch_size (4,096)",
        "check_memory=false",
    ):
        assert words in text


def test_between_the_limits_it_is_a_warning(free: Any) -> None:
    schema, settings = tiny_schema(), make_settings("SharedBottom", embedding_size=4)
    free(GIB)
    rooms, near = check_memory(settings, prepared(schema))
    assert near == []
    assert len(rooms) == 1
    free(rooms[0].needed)
    (sentence,) = check_memory(settings, prepared(schema))[1]
    assert sentence.startswith(f"the run may not fit: it takes about {room.gib(rooms[0].needed)} of memory (")
    free(rooms[0].needed // 2)
    with pytest.raises(UsageError):
        check_memory(settings, prepared(schema))
    allowed = make_settings("SharedBottom", embedding_size=4, check_memory=False)
    assert len(check_memory(allowed, prepared(schema))[1]) == 1


@pytest.mark.parametrize("words", [["--dry_run"], []])
def test_a_run_is_refused_before_anything_is_built(
    words: list[str], free: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run too; 150 fields."""
    folder = tmp_path / "wide"
    folder.mkdir()
    names = [f"f{i}" for i in range(150)]
    rows = ["\t".join([*(str((i + row) % 3) for i in range(150)), str(row % 2)]) for row in range(60)]
    header = "\t".join([*(f"{name}:token" for name in names), "click:float"])
    (folder / "wide.inter").write_text("\n".join([header, *rows]) + "\n")
    listed = ", ".join(f"{{name: {name}}}" for name in names)
    (folder / "wide.yaml").write_text(f"fields: [{listed}]\ntasks: [{{name: click, label: click}}]\n")
    free(GIB)
    for module in (fit, project):
        monkeypatch.setattr(module, "build_model", lambda *_: pytest.fail("built"))
    interactions = "--interactions=[{name: gdcn, low_rank: null}, {name: masknet, reduction: 2}]"
    paths = [f"--data_path={tmp_path}", f"--output_dir={tmp_path}/runs", "--accelerator=cpu"]
    assert main(["--dataset=wide", interactions, *paths, *words]) == 2
    told = capsys.readouterr().err
    assert "error: the run does not fit: it takes about" in told
    assert "optimiser states" in told
    assert re.search(
        r"masknet has \d+\.\d GiB of parameters: smaller options reduction, hidden, blocks of masknet", told
    )
    assert not (tmp_path / "runs").exists()


def test_processes_on_one_machine_share_its_memory(free: Any) -> None:
    schema = tiny_schema()
    free(GIB)
    sized = {"embedding_size": 4, "accelerator": "cpu"}
    one, three = (
        check_memory(make_settings("SharedBottom", devices=count, **sized), prepared(schema))[0][0] for count in (1, 3)
    )
    assert three.needed == 3 * one.needed
    assert "in each of 3 processes" in str(three)


def test_a_model_that_is_large_for_its_data() -> None:
    assert large_model(1_000_001, 20_000) == []
    (sentence,) = large_model(2_000_001, 20_000)
    assert sentence.startswith("the model has 2,000,001 dense parameters for 20,000 training rows, 100 for each")
