"""MMoE, PLE, CGC and SingleTask over interaction modules against numpy; DTN's controls as settings."""

import numpy as np
import pytest

from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, WithAuxiliary
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.layers.linear import Linear
from recbole_dtn.registry import INTERACTIONS, MODELS
from recbole_dtn.testing.data import make_settings, tiny_features, tiny_schema
from recbole_dtn.testing.numeric import (
    assert_close,
    check_reference,
    embed,
    experts_of,
    gate_of,
    parameters_of,
    redraw,
    sigmoid,
    tower_of,
)

MODULES = ["dcn", {"name": "gdcn", "layers": 1}]


def dcn(p, prefix, x):
    """x_{l+1} = x_0 (w . x_l) + b + x_l, then a linear head."""
    current = x
    for layer in range(3):
        w, b = p[f"{prefix}.crosses.{layer}.weight"][0], p[f"{prefix}.biases.{layer}"]
        current = np.stack([x[row] * (w @ current[row]) + b + current[row] for row in range(len(x))])
    return current @ p[f"{prefix}.head.weight"].T + p[f"{prefix}.head.bias"]


def gdcn(p, prefix, x):
    """One layer: x * (W_c x + b) * sigmoid(W_g x) + x, then a linear head."""
    cross = x @ p[f"{prefix}.crosses.0.weight"].T + p[f"{prefix}.crosses.0.bias"]
    c = x * cross * sigmoid(x @ p[f"{prefix}.gates.0.weight"].T) + x
    return c @ p[f"{prefix}.head.weight"].T + p[f"{prefix}.head.bias"]


def flat(p, schema, features, table="embedding"):
    return embed(p[f"{table}.table.weight"], schema, features).reshape(len(features), -1)


def mix(gate, outputs):
    assert gate.shape[1] == len(outputs)
    return sum(gate[:, k, None] * output for k, output in enumerate(outputs))


def mmoe(p, schema, features, sets):
    x = flat(p, schema, features)
    outputs = []
    for number in range(1, sets + 1):
        mark = f"#{number}" if sets > 1 else ""
        outputs += [dcn(p, f"experts.0.dcn{mark}", x), gdcn(p, f"experts.0.gdcn{mark}", x)]
    tasks = range(schema.num_tasks)
    mixed = [mix(gate_of(p, f"gates.gates.{t}", x), outputs) for t in tasks]
    return np.stack([tower_of(p, f"towers.towers.{t}", mixed[t]) for t in tasks], 1)


def ple(p, schema, features, levels):
    x = flat(p, schema, features)
    tasks = schema.num_tasks
    h = [x] * (tasks + 1)
    for level in range(levels):
        at = f"levels.{level}"
        if level == 0:
            experts = [[dcn(p, f"{at}.experts.{o}.dcn", x), gdcn(p, f"{at}.experts.{o}.gdcn", x)]
                       for o in range(tasks + 1)]  # fmt: skip
        else:
            experts = [experts_of(p, f"{at}.experts.{o}", h[o]) for o in range(tasks + 1)]
        mixed = [mix(gate_of(p, f"{at}.gates.{t}", h[t]), experts[t] + experts[tasks]) for t in range(tasks)]
        if level < levels - 1:
            mixed.append(mix(gate_of(p, f"{at}.shared_gate", h[tasks]), [e for owned in experts for e in owned]))
        h = mixed
    return np.stack([tower_of(p, f"towers.towers.{t}", h[t]) for t in range(tasks)], 1)


def single_task(p, schema, features, fusion):
    logits = []
    for t in range(schema.num_tasks):
        x = flat(p, schema, features, f"embeddings.{t}")
        outputs = [dcn(p, f"experts.{t}.dcn", x), gdcn(p, f"experts.{t}.gdcn", x)]
        joined = np.concatenate(outputs, 1) if fusion == "concat" else outputs[0] + outputs[1]
        logits.append(tower_of(p, f"networks.towers.{t}", joined))
    return np.stack(logits, 1)


def build(name, schema, **settings):
    small = {"embedding_size": 2, "module_dim": 3, "experts": MODULES}
    small |= {"hidden": [4]} if name == "SingleTask" else {"tower_hidden": [4]}
    model = MODELS.load(name)(make_settings(name, **{**small, **settings}), schema)
    redraw(model)
    return model


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("tasks", "given", "sets"), [(2, None, 3), (3, 1, 1), (1, 2, 2)])
def test_mmoe_equals_numpy(rows, tasks, given, sets):
    """Without ``expert_sets`` there is a set per task and one more, as in DTN."""
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build("MMoE", schema, expert_sets=given)
    check_reference(
        model, lambda m: m(features).logits, lambda p: mmoe(p, schema, features, sets), entries=2 if rows > 1 else 0
    )


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("name", "tasks", "levels"), [("CGC", 3, 1), ("PLE", 2, 3), ("PLE", 1, 2)])
def test_ple_equals_numpy(rows, name, tasks, levels):
    schema = tiny_schema(tasks=tasks)
    features = tiny_features(schema, rows)
    model = build(name, schema, levels=levels, expert_hidden=[5], task_experts=1)
    check_reference(
        model, lambda m: m(features).logits, lambda p: ple(p, schema, features, levels), entries=2 if rows > 1 else 0
    )


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_single_task_equals_numpy(rows, fusion):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, rows)
    model = build("SingleTask", schema, fusion=fusion)
    check_reference(
        model,
        lambda m: m(features).logits,
        lambda p: single_task(p, schema, features, fusion),
        entries=2 if rows > 1 else 0,
    )


def test_gates_name_every_module():
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 5)
    mmoe_model, ple_model = build("MMoE", schema, expert_sets=2), build("PLE", schema)
    shared = ("shared/dcn#1", "shared/gdcn#1", "shared/dcn#2", "shared/gdcn#2")
    assert mmoe_model.gate_names == {"click": shared, "cart": shared}
    assert ple_model.gate_names == {
        task: (f"{task}/dcn", f"{task}/gdcn", "shared/dcn", "shared/gdcn") for task in ("click", "cart")
    }
    p = parameters_of(ple_model.double())
    for t, gate in enumerate(ple_model(features).gates.values()):
        assert_close(gate, gate_of(p, f"levels.0.gates.{t}", flat(p, schema, features)), 1e-12, "gate")


@pytest.mark.parametrize("name", ["MMoE", "PLE", "SingleTask"])
def test_ids_are_prepared_once_a_batch_and_method(name, monkeypatch):
    calls = []
    prepare = MemoNet.prepare
    monkeypatch.setattr(MemoNet, "prepare", lambda self, ids: calls.append(self.codes) or prepare(self, ids))
    schema = tiny_schema(tasks=2)
    model = build(name, schema, experts=["gdcn", "memonet", {"name": "memonet", "codes": 7}, "memonet"])
    features = tiny_features(schema, 5)
    model(features)
    assert sorted(calls) == [7, 10_000]


@pytest.fixture
def _with_loss():
    """An interaction with a loss of its own, for this test only."""

    @INTERACTIONS.register("with_loss")
    class WithLoss(FeatureInteraction):
        """A linear map whose loss is the mean square of its output."""

        def __init__(self, shape, output_dim):
            super().__init__(shape, output_dim)
            self.head = Linear(shape.flat_dim, output_dim)

        def forward(self, embeddings, ids, shared=None):
            output = self.head(embeddings.flatten(1))
            return WithAuxiliary(output, output.square().mean())

    yield
    INTERACTIONS.forget(__name__)


@pytest.mark.usefixtures("_with_loss")
@pytest.mark.parametrize(("name", "modules"), [("MMoE", 6), ("PLE", 6), ("SingleTask", 4)])
def test_losses_of_the_modules_are_auxiliary(name, modules):
    schema = tiny_schema(tasks=2)
    features = tiny_features(schema, 5)
    model = build(name, schema, experts=["with_loss", "dcn", "with_loss"], aux_weight=0.5).double()
    p = parameters_of(model)
    heads = [key.removesuffix(".weight") for key in p if "with_loss" in key and key.endswith(".weight")]
    assert len(heads) == modules
    squares = 0.0
    for head in heads:
        table = f"embeddings.{head.split('.')[1]}" if name == "SingleTask" else "embedding"
        x = flat(p, schema, features, table)
        squares += np.mean((x @ p[f"{head}.weight"].T + p[f"{head}.bias"]) ** 2)
    assert model(features).auxiliary["interactions"].item() == pytest.approx(0.5 * squares, rel=1e-12)
    without = build(name, schema, experts=["with_loss"], aux_weight=0.0)
    assert without(features).auxiliary == {}


@pytest.mark.parametrize("name", ["MMoE", "PLE", "CGC", "SingleTask"])
def test_a_shared_interaction_beside_interaction_experts_is_refused(name):
    with pytest.raises(UsageError, match=f"shared_interaction: the experts of this {name} are interactions"):
        build(name, tiny_schema(), shared_interaction={"name": "gdcn"})


def test_expert_sets_without_interactions_is_refused():
    with pytest.raises(UsageError, match=r"expert_sets: it repeats interaction modules, but experts=3 are MLPs"):
        build("MMoE", tiny_schema(), experts=3, expert_sets=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=MMoE", "--experts=many"], "experts: expected an integer >= 1 or a list of interactions, such as"),
        (["--model=MMoE", "--experts=[]"], "experts: expected an integer >= 1 or a list of interactions"),
        (["--model=MMoE", "--experts=[gdnc]"], r"experts\[0\]: unknown interaction 'gdnc': did you mean 'gdcn'"),
        (["--model=PLE", "--experts=[{name: gdcn, layer: 2}]"], r"experts\[0\]\.layer: gdcn has no such option"),
        (["--model=SingleTask", "--experts=[gdnc]"], r"experts\[0\]: unknown interaction 'gdnc'"),
        (["--model=CGC", "--levels=2"], "levels: expected one of 1; found '2'"),
    ],
)
def test_a_wrong_expert_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        resolve(words)


CONTROLS = {
    "MMoE over DTN's modules": "--model=MMoE --experts=[gdcn,masknet,memonet]",
    "PLE over DTN's modules": "--model=PLE --experts=[gdcn,masknet,memonet]",
    "SingleTask with all modules": "--model=SingleTask --experts=[gdcn,masknet,memonet]",
    "one shared GDCN before PLE": "--model=PLE --shared_interaction=gdcn",
    "one shared set": "--model=MMoE --experts=[gdcn,masknet,memonet] --expert_sets=1",
    "SharedBottom of width D (T + 1)": "--model=SharedBottom --embedding_size=12",
}


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_of_dtn_are_settings(control):
    """Every control has a run of its own; those over DTN's modules hold the same modules as DTN."""
    schema = tiny_schema(tasks=2)
    words = ["--module_dim=3"] if "--experts" in CONTROLS[control] else []
    settings = resolve([*CONTROLS[control].split(), "--dropout=0", *words]).settings
    if "SharedBottom" not in control:
        settings = type(settings).model_validate({**settings.model_dump(), "embedding_size": 4})
    model = MODELS.load(settings.model)(settings, schema)
    assert model(tiny_features(schema, 3)).logits.shape == (3, 2)
    dtn = MODELS.load("DTN")(make_settings("DTN", embedding_size=4, module_dim=3), schema)

    def modules(one):
        found = [module for module in one.modules() if isinstance(module, FeatureInteraction)]
        return len(found), sum(p.numel() for module in found for p in module.parameters())

    count, size = modules(dtn)
    assert count == 9
    if "DTN's modules" in control:
        assert modules(model) == (count, size)
    elif "SingleTask" in control:
        assert modules(model) == (count * 2 // 3, size * 2 // 3)
    elif control == "one shared set":
        assert modules(model) == (count // 3, size // 3)
    elif "SharedBottom" in control:
        assert model.flat_dim == 3 * dtn.flat_dim


def test_yaml_and_records_may_name_interactions(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: MMoE\nexperts: [gdcn, {name: masknet, blocks: 1}]\n", encoding="utf-8")
    settings = resolve([f"--config_files={file}"]).settings
    assert [choice.name for choice in settings.experts] == ["gdcn", "masknet"]
    assert settings.experts[1].options["blocks"] == 1
    again = type(settings).model_validate(settings.dump())
    assert again == settings
    assert resolve(["--model=MMoE", "--experts=6"]).settings.experts == 6
    built = build("MMoE", tiny_schema(), experts=settings.dump()["experts"])
    assert built.experts.names[:3] == ("gdcn#1", "masknet#1", "gdcn#2")
