"""The run of DTN's authors as ``properties/model/DTN-released.yaml`` has it, against METHODS §1.2 in numpy.

Nothing of the package computes here: indices of the pairs are given, everything after the embeddings is written out.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.config.load import resolve
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.model.dtn import DTN, DTNSettings
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import tiny_features, tiny_schema
from recbole_dtn.testing.numeric import Array, check_reference, embed, redraw

RUN = resolve(["--model=DTN", "--dataset=aliccp", "--config_files=model/DTN-released.yaml"]).settings
SIZES = {
    "masknet": {"block_dim": 4, "hidden": [6], "reduction": 0.3},
    "memonet": {"codes": 11, "code_dim": 2},
}
OWNERS = ("click", "purchase", "shared")


def tiny_settings() -> DTNSettings:
    """The run with smaller sizes; every other option is the file's."""
    values = RUN.dump()
    values |= {"embedding_size": 3, "module_dim": 6, "tower_hidden": [5, 4]}
    values["interactions"] = [{**each, **SIZES.get(each["name"], {})} for each in values["interactions"]]
    return DTNSettings.model_validate(values)


def build(rows: int) -> tuple[DTN, DataSchema, Any, Array]:
    """A model with weights drawn anew, a batch, and the codewords (B, P, 2) of its pairs."""
    weights = {task.name: task.pos_weight for task in RUN.tasks}
    tasks = [
        TaskSpec("click", "binary", "click", pos_weight=weights["click"]),
        TaskSpec("purchase", "binary", "purchase", pos_weight=weights["purchase"], after=("click",)),
    ]
    schema = tiny_schema(tokens=3, multi=("sum",), dense=0, tasks=tasks)
    features = tiny_features(schema, rows)
    model = DTN(tiny_settings(), schema)
    redraw(model)
    codes = torch.randint(11, (rows, 3, 2), generator=torch.Generator().manual_seed(4))
    given = lambda ids, left, right, hashes, size: codes  # noqa: E731  (one callable: owners share what it returns)
    for module in model.modules():
        if isinstance(module, MemoNet):
            module.hash_pairs = given
    return model, schema, features, codes.numpy()


def relu(x: Array) -> Array:
    return np.where(x.real > 0, x, 0)


def linear(p: Any, name: str, x: Array) -> Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gdcn(p: Any, name: str, x: Array) -> Array:
    c = x
    for layer in range(2):
        gate = logistic(c @ p[f"{name}.gates.{layer}.weight"].T)
        c = x * linear(p, f"{name}.crosses.{layer}", c) * gate + c
    return linear(p, f"{name}.head", c)


def masknet(p: Any, name: str, x: Array) -> Array:
    blocks = []
    for number in range(2):
        block = f"{name}.blocks.{number}"
        mask = linear(p, f"{block}.mask.2", relu(linear(p, f"{block}.mask.0", x)))
        h = linear(p, f"{block}.project", mask * x)
        h = h - h.mean(1, keepdims=True)
        h = h / np.sqrt((h * h).mean(1, keepdims=True) + 1e-12)
        blocks.append(relu(h * p[f"{block}.norm.weight"] + p[f"{block}.norm.bias"]))
    return relu(linear(p, f"{name}.head", relu(linear(p, f"{name}.mlp.layers.0", np.concatenate(blocks, 1)))))


def memonet(p: Any, name: str, raw: Array, codes: Array) -> Array:
    codewords = p[f"{name}.codebook.weight"][codes]  # (B, pairs, 2, C), both hashes from one codebook
    pairs = codewords.reshape(*codes.shape[:2], -1) @ p[f"{name}.restorer.weight"].T
    return linear(p, f"{name}.head", np.concatenate([raw, pairs.reshape(len(raw), -1)], 1))


def group(p: Any, name: str, modules: list[Array]) -> Array:
    """A softmax over ReLU(w_k . F_k + b_k), one vector per consuming task and module."""
    logits = np.stack(
        [
            relu((module * p[f"{name}.gate.weight"][k]).sum(1) + p[f"{name}.gate.bias"][k])
            for k, module in enumerate(modules)
        ],
        axis=1,
    )
    powers = np.exp(logits)
    weights = powers / powers.sum(1, keepdims=True)
    return sum(weights[:, [k]] * module for k, module in enumerate(modules))


def released(p: Any, schema: DataSchema, features: Any, codes: Array) -> Array:
    """Logits (B, 2) of the released graph; the affine is gamma X + beta (theirs divides gamma by sqrt(1.001))."""
    raw = embed(p["embedding.table.weight"], schema, features).reshape(len(features), -1)
    x = raw * p["affine.gamma"] + p["affine.beta"]
    modules = {
        owner: [
            gdcn(p, f"interactions.{number}.gdcn", x),
            masknet(p, f"interactions.{number}.masknet", x),
            memonet(p, f"interactions.{number}.memonet", raw, codes),
        ]
        for number, owner in enumerate(OWNERS)
    }
    logits: list[Array] = []
    for number, task in enumerate(("click", "purchase")):
        if task == "click":
            others = modules["purchase"]
        else:  # the click's modules are scaled by its prediction, through which no gradient flows
            others = [module * logistic(logits[0].real)[:, None] for module in modules["click"]]
        h = group(p, f"selectors.{number}.own", modules[task])
        h = h + group(p, f"selectors.{number}.rest", [*others, *modules["shared"]])
        for layer in (0, 2):
            h = relu(linear(p, f"towers.{number}.hidden.layers.{layer}", h))
        logits.append(linear(p, f"towers.{number}.logit", h)[:, 0])
    return np.stack(logits, 1)


@pytest.mark.parametrize("rows", [1, 7])
def test_logits_and_gradients(rows: int) -> None:
    model, schema, features, codes = build(rows)
    check_reference(model, lambda m: m(features).logits, lambda p: released(p, schema, features, codes))


def test_the_loss_and_its_gradients() -> None:
    """``mean(-w y log p - (1 - y) log(1 - p))``, w 200 and 3000, summed over the tasks: no L2, no dropout."""
    model, schema, features, codes = build(9)
    y = features.labels.double().numpy()

    def loss(p: Any) -> Array:
        logits = released(p, schema, features, codes)
        weighted = np.array([200.0, 3000.0]) * y * np.log(1 + np.exp(-logits)) + (1 - y) * np.log(1 + np.exp(logits))
        return weighted.mean(0).sum(keepdims=True) / 3000

    def found(m: Any) -> torch.Tensor:
        losses = m.task_losses(features, m.train()(features))
        assert not m.penalties()
        return losses.sum().unsqueeze(0) / 3000

    assert set(y.ravel()) == {0.0, 1.0}
    check_reference(model, found, loss, entries=1)


def test_each_part_that_the_released_code_has_otherwise_shows() -> None:
    """Leaving one out moves the logits, so the tests above could not pass without it."""
    model, schema, features, codes = build(7)
    p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    expected = released(p, schema, features, codes)
    for part in ("project.bias", "affine.beta", "selectors.0.own.gate.bias", "restorer.weight"):
        wrong = {name: value * (0 if name.endswith(part) else 1) for name, value in p.items()}
        assert np.abs(released(wrong, schema, features, codes) - expected).max() > 1e-3, part


def test_sizes_of_the_run() -> None:
    """23 fields, 17 of one value (136 pairs), about 60 M parameters beside the embeddings (built without memory)."""
    specs = [
        FieldSpec(field.name, field.type, 10, 10 * position, pooling="sum" if field.type == "token_seq" else None)
        for position, field in enumerate(RUN.fields)
    ]
    tasks = [TaskSpec(task.name, "binary", task.label, after=tuple(task.after)) for task in RUN.tasks]
    schema = DataSchema(tuple(specs), tuple(tasks))
    with torch.device("meta"):
        model = DTN(RUN, schema)
    memonet = next(module for module in model.modules() if isinstance(module, MemoNet))
    assert len(list(combinations(memonet.paired_fields, 2))) == len(memonet.left) == 136
    assert memonet.codebook.weight.shape == (100_000, 64)
    counted = model.count_parameters()
    assert counted["codebook"] == 3 * 100_000 * 64
    assert 60e6 < counted["dense"] + counted["codebook"] < 61e6
    assert RUN.optimizer.lr == 1e-4
    assert (RUN.train_batch_size, RUN.epochs, RUN.dropout, RUN.embedding_l2, RUN.codebook_l2) == (1024, 10, 0, 0, 0)
    assert RUN.embedding_std == pytest.approx((2 / 512) ** 0.5)


def test_the_masks_have_the_authors_width() -> None:
    shape = FieldShape(23, 64, tuple(range(23)), (10,) * 23)
    (options,) = (each for each in RUN.dump()["interactions"] if each["name"] == "masknet")
    assert round(options["reduction"] * shape.flat_dim) == 256
