"""The setting ``compile``: the same numbers, the same names, and errors before any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from recbole_dtn import fit, load
from recbole_dtn.config.load import resolve, settings_digest
from recbole_dtn.data.features import Features
from recbole_dtn.errors import UsageError
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.record.checkpoint import read_weights
from recbole_dtn.registry import MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.training import compiled
from recbole_dtn.training.compiled import CompiledForward, check_compiler
from recbole_dtn.training.fit import Run
from recbole_dtn.training.module import TrainingModule

ROWS = 40
INTERACTIONS = ["gdcn", "masknet", {"name": "memonet", "codes": 40}]
OPTIONS: dict[str, dict[str, Any]] = {
    "DTN": {"interactions": INTERACTIONS, "dropout": 0.3},
    "MMoE": {"expert_hidden": [6, 5], "dropout": 0.3},
    "PLE": {"levels": 2},
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """A backend that runs each graph as it was traced, and the graphs so far."""
    found: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(compiled, "BACKEND", backend)
    return found


def build(name: str, *, mode: str = "none", **settings: Any) -> TrainingModule:
    torch.manual_seed(1)
    shared = {"embedding_size": 4, "embedding_std": 0.5, "embedding_l2": 0.1, "codebook_l2": 0.1}
    given = make_settings(name, **shared, train_batch_size=ROWS, compile=mode, **OPTIONS.get(name, {}), **settings)
    model: MultiTaskRecommender = MODELS.load(name)(given, tiny_schema(domains=3))
    return TrainingModule(model, given).train()


def step(module: TrainingModule, features: Features, *, mixed: bool = False) -> dict[str, Tensor]:
    """Losses, penalties and gradients; the same seed drops the same units."""
    torch.manual_seed(9)
    module.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False, enabled=mixed):
        output = module(features)
    losses = module.model.task_losses(features, output)
    penalties = module.model.penalties()
    (losses.sum() + sum(penalties.values())).backward()
    found = {"losses": losses, **penalties, **{f"gate {name}": gate for name, gate in output.gates.items()}}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.to_dense()
        assert parameter.grad.is_sparse == name.endswith(("table.weight", "codebook.weight"))
    return {name: value.detach() for name, value in found.items()}


def check_equal(plain: TrainingModule, other: TrainingModule, seed: int) -> None:
    features = tiny_features(plain.model.schema, ROWS, seed=seed, masked=True)
    expected, found = step(plain, features), step(other, features)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 1e-5, key


@dataclass
class Traced:
    """A model and the same one compiled, traced once for the tests of its graphs."""

    name: str
    plain: TrainingModule
    compiled: TrainingModule
    graphs: list[torch.fx.GraphModule]


@pytest.fixture(
    scope="module", params=[name for name in MODELS.names() if not MODELS.attributes(name)["fits_directly"]]
)
def traced(request: pytest.FixtureRequest) -> Traced:
    found = Traced(request.param, build(request.param), build(request.param), [])

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        found.graphs.append(graph)
        forward: Callable[..., Any] = aot_eager(graph, inputs)  # traces the backward too
        return forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "BACKEND", backend)
        found.compiled = build(request.param, mode="default")
    return found


def test_one_set_of_graphs_serves_every_full_batch(traced: Traced) -> None:
    """The traced losses, penalties, gates and gradients are the eager ones, for batches with lists of any length."""
    check_equal(traced.plain, traced.compiled, seed=0)
    first = len(traced.graphs)
    broken = {
        "DTN": "MemoNet's look-ups",
        "PEPNet": "the embedding of domains, which EPNet's gate reads",
        "STAR": "rows sorted by domain, and the moments of its norm",
    }
    assert first == 1 or (traced.name in broken and first > 1), f"only these break the graph again: {broken}"
    for seed in range(1, 4):
        check_equal(traced.plain, traced.compiled, seed)
    module, schema = traced.compiled, traced.compiled.model.schema
    step(module, tiny_features(schema, ROWS - 7))  # an epoch's last batch
    module.eval()
    with torch.no_grad():
        module(tiny_features(schema, ROWS))
    assert len(traced.graphs) == first


def test_tables_are_in_no_graph(traced: Traced) -> None:
    if not traced.graphs:
        step(traced.compiled.train(), tiny_features(traced.compiled.model.schema, ROWS))
    shapes = {tuple(table.weight.shape) for table in traced.compiled.model.tables()}
    assert traced.graphs
    for graph in traced.graphs:
        for node in graph.graph.nodes:
            value = node.meta.get("example_value")
            assert not (isinstance(value, Tensor) and tuple(value.shape) in shapes), node
            assert "embedding" not in str(node.target).split(".")[-1] or node.op == "placeholder", node


def test_the_names_of_the_weights_do_not_change(traced: Traced) -> None:
    plain, other = traced.plain, traced.compiled
    assert list(other.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in other.named_modules()] == [name for name, _ in plain.named_modules()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MMoE", "DTN"])
def test_compiled_losses_and_gradients_are_the_eager_ones(name: str) -> None:
    plain, other = build(name), build(name, mode="default")
    for seed in range(3):
        check_equal(plain, other, seed)


def test_more_kinds_of_interactions_than_torch_recompiles_by_itself(graphs: list[torch.fx.GraphModule]) -> None:
    many = [{"name": "gdcn", "layers": layers} for layers in range(1, 5)]
    settings = make_settings("DTN", embedding_size=4, interactions=[*many, "memonet"])
    model = MODELS.load("DTN")(settings, tiny_schema()).train()
    with torch._dynamo.config.patch(recompile_limit=2):  # 8 by default
        CompiledForward(model, "default", ROWS)(tiny_features(model.schema, ROWS))
    crosses = [sum("crosses" in str(node.target) for node in graph.graph.nodes if node.op == "placeholder")
               for graph in graphs]  # fmt: skip
    assert sum(count > 0 for count in crosses) >= len(many)


def test_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    for name in ("MMoE", "DTN"):
        plain, other = build(name), build(name, mode="default")
        features = tiny_features(plain.model.schema, ROWS)
        expected, found = step(plain, features, mixed=True), step(other, features, mixed=True)
        for key, value in expected.items():
            assert torch.allclose(found[key].float(), value.float(), rtol=0.05, atol=0.02), (name, key)


# ---- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_fit(tmp_path: Path) -> Callable[..., Run]:
    """A run on forty rows of a table with two labels."""
    folder = tmp_path / "dataset" / "toy"
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    lines = ["a:token\tb:token_seq\tclick:float\tbuy:float"]
    for row in range(400):
        values = torch.randint(5, (4,), generator=draw).tolist()
        lines.append(f"u{values[0]}\t{' '.join(f'v{v}' for v in values[: row % 4])}\t{values[2] % 2}\t{values[3] % 2}")
    (folder / "toy.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(model: str = "MMoE", **overrides: Any) -> Run:
        given = {
            "data_path": str(tmp_path / "dataset"),
            "output_dir": str(tmp_path / "runs"),
            "fields": [{"name": "a"}, {"name": "b", "type": "token_seq"}],
            "tasks": [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy"}],
            "epochs": 2,
            "train_batch_size": 50,
            "embedding_size": 4,
            "accelerator": "cpu",
            **overrides,
        }
        return fit(model, "toy", given, quiet=True)

    return run


@pytest.mark.parametrize("profile", [False, True])
def test_a_compiled_run_ends_where_a_plain_one_does(
    small_fit: Callable[..., Run], profile: bool, graphs: list[torch.fx.GraphModule]
) -> None:
    plain, run = small_fit(dropout=0.2), small_fit(dropout=0.2, compile="default", profile=profile)
    assert graphs
    expected, found = read_weights(plain.folder), read_weights(run.folder)
    assert list(expected) == list(found)
    assert all((found[name] - value).abs().max() < 1e-5 for name, value in expected.items())
    assert run.record.settings_digest == plain.record.settings_digest
    assert run.test is not None
    traced = len(graphs)
    again = load(run.folder).test()
    assert len(graphs) == traced, "a loaded run is not compiled"
    for task, values in run.test.items():
        assert again[task] == pytest.approx(values, abs=1e-6)
    assert (run.folder / "stages.tsv").exists() == profile
    if profile:
        assert "\tforward\t" in (run.folder / "stages.tsv").read_text()


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_the_digest_leaves_it_out() -> None:
    given = {"model": "MMoE", "dataset": "ml-100k"}
    assert resolve(given).settings.compile == "none"
    modes = ("none", "default", "reduce-overhead", "max-autotune")
    assert len({settings_digest(resolve({**given, "compile": mode}).settings) for mode in modes}) == 1


def test_a_missing_compiler_is_told_before_the_data_is_read(
    small_fit: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"compile=default: expected a C\+\+ compiler.*install it .*compile=none"):
        small_fit(compile="default")
    assert not (tmp_path / "dataset" / "toy" / ".cache").exists()


def test_a_compiler_that_fails_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        raise RuntimeError("fatal error: Python.h: No such file")

    monkeypatch.setattr(compiled, "BACKEND", backend)
    with pytest.raises(UsageError, match=r"(?s)Python\.h.*python3-dev.*compile=none"):
        check_compiler(make_settings("MMoE", compile="default", accelerator="cpu"))


def test_cuda_graphs_are_refused_on_a_cpu() -> None:
    with pytest.raises(UsageError, match=r"CUDA graphs.*accelerator=cpu.*compile=default"):
        check_compiler(make_settings("MMoE", compile="reduce-overhead", accelerator="cpu"))
