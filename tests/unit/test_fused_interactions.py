"""The fused way of every interaction against the plain one: outputs, gradients, penalties, at odd sizes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.kernels import memory_chunks as memory
from recbole_dtn.kernels import products as product
from recbole_dtn.kernels.choice import set_fused
from recbole_dtn.registry import INTERACTIONS

WIDE = FieldShape(5, 4, (0, 2, 3), (9, 30, 50, 4, 2))
TWO = FieldShape(2, 3, (0, 1), (5, 6))
CASES: list[tuple[str, dict[str, Any]]] = [
    *(
        ("gdcn", {"structure": structure, "hidden": hidden, "low_rank": rank, "layers": layers})
        for structure in ("stacked", "parallel")
        for hidden, layers in (([], 1), ([5, 3], 3))
        for rank in (None, 2)
    ),
    *(
        ("masknet", {"structure": structure, "hidden": hidden, "embedding_norm": norm, "output_activation": last})
        for structure in ("serial", "parallel")
        for hidden, last in (([], "relu"), ([7], "none"))
        for norm in (True, False)
    ),
    *(
        ("memonet", {"restore": restore, "shrink": shrink, "codes": 3, "hashes": hashes, "hidden": hidden, **more})
        for restore in ("lmr", "amr")
        for shrink in ("attentive", "sum", "none")
        for hashes, hidden, more in ((1, [], {"code_dim": 2}), (2, [5, 6], {"top_fields": 2}), (3, [], {"codes": 17}))
    ),
    *(("cin", {"layers": layers, "half_split": split}) for layers, split in (([3], False), ([4, 2, 3], True))),
]


@pytest.fixture(params=["onednn", "torch"])
def _routine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both routines for every product in float32, however small it is."""
    if request.param == "onednn" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(product, "prefers_onednn", lambda: request.param == "onednn")
    monkeypatch.setattr(product, "LEAST_WORK", 0)
    monkeypatch.setattr(product, "LEAST_COLUMNS", 1)
    monkeypatch.setattr(memory, "CHUNK", 50)  # several chunks, the last one shorter


def build(name: str, shape: FieldShape, options: dict[str, Any], dtype: torch.dtype) -> FeatureInteraction:
    torch.manual_seed(3)
    module: FeatureInteraction = INTERACTIONS.load(name)(shape, 6, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.to(dtype)


def batch(shape: FieldShape, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    embeddings = 0.5 * torch.randn(rows, shape.num_fields, shape.embedding_dim, dtype=torch.float64)
    ids = torch.full((rows, shape.num_fields), -1)
    for field in shape.id_fields:
        ids[:, field] = torch.randint(100 * field, 100 * field + shape.field_sizes[field], (rows,))
    return embeddings.to(dtype), ids


def results(module: FeatureInteraction, embeddings: Tensor, ids: Tensor, *, sparse: bool) -> dict[str, Tensor]:
    """Output, penalty, and all gradients of a random combination of both."""
    module.zero_grad()
    given = embeddings.clone().requires_grad_()
    table = getattr(module, "codebook", None)
    if table is not None:
        table.sparse, table.l2 = sparse, 0.7
    output = module(given, ids)
    generator = torch.Generator().manual_seed(11)
    loss = (output * torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output.dtype)).sum()
    found = {"output": output}
    if table is not None:
        assert table.penalty is not None
        found["penalty"], loss = table.penalty, loss + table.penalty
    loss.backward()
    for name, leaf in (("embeddings", given), *module.named_parameters()):
        assert leaf.grad is not None, name
        assert leaf.grad.is_sparse == (sparse and name == "codebook.weight")
        found[f"gradient of {name}"] = leaf.grad.to_dense() if leaf.grad.is_sparse else leaf.grad
    return {name: value.detach().double().clone() for name, value in found.items()}


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Largest error of every result, over its largest value above 1."""
    return {
        name: float((found[name] - value).abs().max() / value.abs().max().clamp_min(1.0))
        for name, value in exact.items()
    }


LAYOUTS = [(WIDE, 13, True), (WIDE, 1, False), (TWO, 7, False)]


@pytest.mark.usefixtures("_routine")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_fused_is_plain_in_float64(name: str, options: dict[str, Any]) -> None:
    for shape, rows, sparse in LAYOUTS:
        module = build(name, shape, options, torch.float64)
        given = batch(shape, rows, torch.float64)
        found = results(module, *given, sparse=sparse)
        expected = results(set_fused(module, False), *given, sparse=sparse)
        for what, error in errors(found, expected).items():
            # The penalty is a float32 in every precision, and the codebook's gradient has a part in it.
            assert error <= (1e-6 if what in {"penalty", "gradient of codebook.weight"} else 1e-10), what
        with torch.no_grad():
            plain = module.eval()(*given)
            for other in (set_fused(module, True), copy.deepcopy(module)):
                torch.testing.assert_close(other(*given), plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("restore", ["lmr", "amr"])
def test_the_codebook_gradient_without_a_penalty_in_float64(restore: str) -> None:
    module = build("memonet", WIDE, {"restore": restore, "codes": 3}, torch.float64)
    gradients = []
    for fused in (True, False):
        set_fused(module, fused)(*batch(WIDE, 13, torch.float64)).square().sum().backward()
        gradients.append(module.codebook.weight.grad)
        module.zero_grad()
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("_routine")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_fused_is_plain_in_float32(name: str, options: dict[str, Any]) -> None:
    """To 1e-6 of the exact result, or as near to it as the plain way where a layer norm magnifies rounding."""
    for shape, rows, sparse in LAYOUTS:
        module = build(name, shape, options, torch.float32)
        given = batch(shape, rows, torch.float32)
        found = results(module, *given, sparse=sparse)
        plain = results(set_fused(module, False), *given, sparse=sparse)
        embeddings, ids = given
        exact = results(module.double(), embeddings.double(), ids, sparse=sparse)
        worst = max(errors(plain, exact).values())
        for what, error in errors(found, exact).items():
            assert error <= max(1e-6, 4 * worst), f"{what} is off by {error:.2g}, the plain way at most by {worst:.2g}"


@pytest.mark.usefixtures("_routine")
@pytest.mark.parametrize("restore", ["lmr", "amr"])
def test_only_touched_codewords_have_a_sparse_gradient(restore: str) -> None:
    """Also those whose gradient is zero, as a lazy optimiser counts them; each of them once, in order."""
    module = build("memonet", TWO, {"restore": restore, "codes": 8, "hashes": 1}, torch.float32)
    embeddings, ids = batch(TWO, 8, torch.float32)
    chosen = torch.tensor([5, 1, 5, 5, 1, 1, 2, 5])
    module.hash_pairs = lambda ids, left, right, hashes, codes: chosen.view(-1, 1, 1)
    module.codebook.sparse = True
    (0.0 * module(embeddings, ids)).sum().backward()
    gradient = module.codebook.weight.grad
    assert gradient is not None
    assert gradient._indices().tolist() == [[1, 2, 5]]


def test_a_large_codebook_is_not_passed_over_for_a_small_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pairs a row: 4 rows are 12 pairs, fewer than 13 codewords."""
    seen = []
    real = memory.recall
    monkeypatch.setattr(
        "recbole_dtn.kernels.memory.recall", lambda *given, **more: seen.append(1) or real(*given, **more)
    )
    for codes, fused in ((12, 1), (13, 0)):
        seen.clear()
        build("memonet", WIDE, {"codes": codes}, torch.float32)(*batch(WIDE, 4, torch.float32))
        assert len(seen) == fused


@pytest.mark.parametrize(("name", "options"), CASES[::3])
def test_under_autocast_fused_and_plain_are_as_near_as_bfloat16_allows(name: str, options: dict[str, Any]) -> None:
    module = build(name, WIDE, options, torch.float32)
    embeddings, ids = batch(WIDE, 13, torch.float32)
    outputs = []
    for fused in (True, False):
        given = embeddings.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = set_fused(module, fused)(given, ids)
        output.float().square().sum().backward()
        assert given.grad is not None
        assert given.grad.isfinite().all()
        outputs.append(output.detach().float())
    scale = outputs[1].abs().max()
    assert (outputs[0] - outputs[1]).abs().max() <= 0.04 * scale


def test_backward_twice_over_a_kept_graph_gives_the_same_numbers() -> None:
    """A gradient-surgery balancer asks for each task's gradients in turn; nothing kept may be overwritten."""
    for name, options in (("gdcn", {}), ("masknet", {}), ("memonet", {"codes": 3}), ("memonet", {"shrink": "none"})):
        module = build(name, WIDE, options, torch.float32)
        embeddings, ids = batch(WIDE, 13, torch.float32)
        output = module(embeddings.requires_grad_(), ids).sum()
        leaves = [embeddings, *module.parameters()]
        first = torch.autograd.grad(output, leaves, retain_graph=True)
        second = torch.autograd.grad(output, leaves)
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other)
