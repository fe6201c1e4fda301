"""Every registered interaction keeps the contract, a plug-in file is as good as a built-in, and the checks can fail."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape, WithAuxiliary
from recbole_dtn.interaction.build import build_interactions
from recbole_dtn.registry import INTERACTIONS, load_plugins
from recbole_dtn.testing.interactions import check_equation, check_interaction
from recbole_dtn.testing.xor import check_learns_xor

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "gdcn": [{"structure": "parallel", "hidden": [5]}, {"low_rank": 2, "layers": 3}],
    "masknet": [{"structure": "serial", "blocks": 3}, {"embedding_norm": False, "hidden": [7]},
                {"output_activation": "relu"}],
    "finalmlp": [{"context1": [0], "context2": [0, 1], "dropout": 0.2, "hidden2": [8]}],
    "finalnet": [{"batch_norm": False, "combine": "sum", "dropout": 0.2, "hidden": [5, 3], "activation": "relu"}],
    "eulernet": [{"layer_norm": True, "vectors": [4, 2], "read_out": "sum", "limit": None, "dropout_explicit": 0.1}],
    "dcnv3": [{"heads": 2, "exponential_layers": 1, "linear_layers": 1, "batch_norm": True, "layer_norm": False}],
    "wukong": [{"fm_outputs": 3, "linear_outputs": 2, "rank": 2, "hidden": [], "attentive": True, "layers": 1}],
    "rankmixer": [{"experts": 3, "tokens": 3, "width": 6, "layers": 1}],
    "memonet": [
        {"restore": restore, "shrink": shrink, "top_fields": top, "codes": 50, "code_dim": 3, "hidden": hidden}
        for restore in ("lmr", "amr")
        for shrink, top, hidden in (("attentive", None, []), ("sum", 2, [5]), ("none", 3, []))
    ],
    "dcnv2": [{"structure": "cross", "low_rank": 2}, {"structure": "stacked", "hidden": [5]},
              {"low_rank": 3, "experts": 2, "shared_gates": True}, {"low_rank": 2, "experts": 1}],
    "fm": [{"hidden": [5]}],
    "fwfm": [{"linear": "none"}, {"linear": "weights"}, {"linear": "feature_vectors"}],
    "fmfm": [{"weight": "vector"}],
    "fibinet": [{"bilinear": "all", "reduction": 1}, {"bilinear": "each", "hidden": [5]}],
    "cin": [{"layers": [4, 3], "half_split": True, "activation": "relu"}, {"layers": [5]}],
    "autoint": [{"layers": 1, "heads": 3, "head_dim": 2, "scale": True, "residual": False}],
    "mlp": [{"hidden": []}, {"hidden": [5, 3]}],
}  # fmt: skip


@pytest.mark.parametrize("name", INTERACTIONS.names())
def test_every_registered_interaction_by_its_defaults(name: str) -> None:
    check_interaction(name)


@pytest.mark.parametrize(("name", "options"), [(name, given) for name, many in OPTIONS.items() for given in many])
def test_built_ins_with_options(name: str, options: dict[str, Any]) -> None:
    check_interaction(name, **options)


@pytest.mark.parametrize("name", INTERACTIONS.names())
def test_every_registered_interaction_learns_xor(name: str) -> None:
    check_learns_xor(name)


@pytest.mark.parametrize("name", INTERACTIONS.names())
def test_its_docstring_says_what_a_list_prints(name: str) -> None:
    entry, method = INTERACTIONS.entry(name), INTERACTIONS.load(name)
    assert entry.summary
    assert "=" in (method.__doc__ or ""), "the class docstring holds the equation"


# ---- a plug-in in one file ------------------------------------------------------------------------------------------

PLUGIN = '''
    """An interaction of one's own."""

    import torch
    from torch import Tensor, nn

    from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
    from recbole_dtn.registry import INTERACTIONS


    @INTERACTIONS.register("contract-bilinear", paper="nobody, 2024")
    class Bilinear(FeatureInteraction):
        """Products of neighbouring fields.

        output = W [e_f * e_{f+1} for f] * scale
        """

        def __init__(self, shape: FieldShape, output_dim: int, *, scale: float = 2.0) -> None:
            super().__init__(shape, output_dim)
            self.scale = scale
            self.head = nn.Linear(shape.flat_dim, output_dim)

        def forward(self, embeddings: Tensor, ids: Tensor, shared: object = None) -> Tensor:
            return self.scale * self.head((embeddings * embeddings.roll(1, dims=1)).flatten(1))
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "my_interaction.py"
    path.write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    load_plugins([str(path)])
    yield "contract-bilinear"
    INTERACTIONS._entries.pop("contract-bilinear")


def test_a_plugin_file_is_registered_built_and_checked(plugin: str) -> None:
    shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1), field_sizes=(5, 6, 7))
    modules = build_interactions([plugin, "gdcn", {"name": plugin, "scale": 3}], shape, 6)
    assert list(modules) == ["contract-bilinear#1", "gdcn", "contract-bilinear#2"]
    assert [modules[name].scale for name in ("contract-bilinear#1", "contract-bilinear#2")] == [2.0, 3.0]
    with pytest.raises(UsageError, match="did you mean 'scale'"):
        build_interactions([{"name": plugin, "scael": 3}], shape, 6)
    with pytest.raises(UsageError, match="scale: expected a number"):
        build_interactions([{"name": plugin, "scale": "much"}], shape, 6)
    assert INTERACTIONS.entry(plugin).summary == "Products of neighbouring fields"
    check_interaction(plugin)
    check_interaction(plugin, scale=0.5)


@pytest.mark.parametrize("name", ["a.b", "keys"])
def test_a_name_that_torch_cannot_hold_is_refused(name: str) -> None:
    try:
        INTERACTIONS.register(name)(Right)
        with pytest.raises(UsageError, match=f"'{name}' cannot name a module"):
            build_interactions([name], FieldShape(1, 2, (), (3,)), 4)
    finally:
        INTERACTIONS._entries.pop(name)


# ---- the checks can fail --------------------------------------------------------------------------------------------


class Right(FeatureInteraction):
    """A plain linear map; each class below breaks one clause of the contract."""

    def __init__(self, shape: FieldShape, output_dim: int, *, wide: bool = True) -> None:
        super().__init__(shape, output_dim)
        self.head = nn.Linear(shape.flat_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return self.head(embeddings.flatten(1))


class Auxiliary(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        output = super().forward(embeddings, ids)
        return WithAuxiliary(output, output.square().mean())


class ZeroStart(Right):
    """A weight that starts at zero, as a low-rank update does."""

    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.scale = nn.Parameter(torch.zeros(output_dim))

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return self.scale * super().forward(embeddings, ids)


class EmptyParameter(Right):
    """A parameter without entries, as a linear map of no inputs has."""

    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.none = nn.Parameter(torch.empty(output_dim, 0))

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + self.none.sum(1)


class CountsRows(Right):
    """An operation whose result has a size that depends on the data: it cannot run on the meta device."""

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + 0.0 * len((embeddings.sum((1, 2)) > 0).nonzero())


class Refuses(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        if len(shape.id_fields) < 2:
            raise UsageError("needs two id fields")


@pytest.mark.parametrize("method", [Right, Auxiliary, ZeroStart, EmptyParameter, CountsRows, Refuses])
def test_what_is_right_passes(method: type[FeatureInteraction]) -> None:
    check_interaction(method)


class Positional(Right):
    def __init__(self, shape: FieldShape, output_dim: int, layers: int = 2) -> None:
        super().__init__(shape, output_dim)


class NoDefault(Right):
    def __init__(self, shape: FieldShape, output_dim: int, *, layers: int) -> None:
        super().__init__(shape, output_dim)


class NoHint(Right):
    def __init__(self, shape: FieldShape, output_dim: int, *, layers=None) -> None:
        super().__init__(shape, output_dim)


class AlwaysRefuses(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        raise UsageError("never")


class NeedsFourFields(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.last = shape.field_sizes[3]


class Double(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.double()


class Squeezes(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids).squeeze()


class KeepsFields(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.head = nn.Linear(shape.embedding_dim, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return self.head(embeddings)


class Infinite(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) / 0.0


class AlwaysDrops(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return nn.functional.dropout(super().forward(embeddings, ids), 0.5)


class ChangesEmbeddings(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        with torch.no_grad():
            embeddings.relu_()
        return super().forward(embeddings, ids)


class ChangesIds(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        ids.clamp_(min=0)
        return super().forward(embeddings, ids)


class Leaks(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings - embeddings.mean(dim=0), ids)


class ReadsIdsInSecret(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + 1e-6 * ids.sum(dim=1, keepdim=True)


class NeedsShared(Right):
    reads_ids = True

    def prepare(self, ids: Tensor) -> Any:
        return ids.sum(dim=1, keepdim=True)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + (0 if shared is None else shared)


class SharesWhatIsItsOwn(Right):
    reads_ids = True

    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.register_buffer("salt", torch.rand(1))

    def prepare(self, ids: Tensor) -> Any:
        return ids.sum(dim=1, keepdim=True) * self.salt

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + (self.prepare(ids) if shared is None else shared)


class NoHashableKey(Right):
    def share_key(self) -> Any:
        return [1]


class Unused(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.spare = nn.Linear(2, 2)


class Dead(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.dead = nn.Parameter(torch.ones(output_dim))

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + 0.0 * self.dead


class Detaches(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings.detach(), ids)


class VectorLoss(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        output = super().forward(embeddings, ids)
        return WithAuxiliary(output, output.mean(dim=1))


class Unsaved(Right):
    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.register_buffer("random", torch.rand(output_dim), persistent=False)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) * self.random


class Uncopied(Right):
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class MakesOnTheCpu(Right):
    """What every operation of forward makes must be on the device of the embeddings."""

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) @ torch.eye(self.output_dim, dtype=embeddings.dtype)


class AddsInPlaceOnTheCpu(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        output = super().forward(embeddings, ids)
        output += torch.zeros(len(ids), self.output_dim)
        return output


class FusedIsAnotherFormula(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) * (1.001 if self.fused else 1.0)


class DividesByTheNorm(Right):
    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings / embeddings.norm(dim=2, keepdim=True), ids)


class HasNoGradientAtZero(Right):
    """The output is finite everywhere, the derivative of the square root is not."""

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) + embeddings.square().sum((1, 2)).sqrt().unsqueeze(1)


class MixesTypes(Right):
    """Under autocast the output of a linear map is bfloat16."""

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        output = super().forward(embeddings, ids)
        return embeddings.new_zeros(output.shape).index_add_(1, torch.arange(6, device=output.device), output)


class SaysItIgnoresTheOrder(Right):
    ignores_field_order = True


class KeepsATensorOffTheModule(Right):
    """Neither a parameter nor a buffer, so that ``module.to(device)`` leaves it where it is."""

    def __init__(self, shape: FieldShape, output_dim: int) -> None:
        super().__init__(shape, output_dim)
        self.ones = [torch.ones(output_dim)]

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Any:
        return super().forward(embeddings, ids) * self.ones[0].to(embeddings.dtype)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (Positional, "option 'layers' must be keyword-only"),
        (NoDefault, "option 'layers' has no default"),
        (NoHint, "option 'layers' has no type hint"),
        (AlwaysRefuses, "building it from a FieldShape failed: UsageError: never"),
        (NeedsFourFields, "on two id fields: building it from a FieldShape failed: IndexError"),
        (Double, "parameters must be float32 when built"),
        (Squeezes, r"the output for B=1 is \(6,\), not \(1, 6\)"),
        (KeepsFields, r"the output for B=1 is \(1, 4, 6\), not \(1, 6\)"),
        (Infinite, "not finite"),
        (AlwaysDrops, "two forward passes in eval mode differ"),
        (ChangesEmbeddings, "forward changes the embeddings in place"),
        (ChangesIds, "forward changes the ids in place"),
        (Leaks, "the output of row 0 changes with the other rows"),
        (ReadsIdsInSecret, "depends on the ids, but reads_ids is False"),
        (NeedsShared, r"with shared=prepare\(ids\) differs"),
        (SharesWhatIsItsOwn, r"equal share_key\(\), but one cannot use"),
        (NoHashableKey, r"hash\(share_key\(\)\), failed: TypeError"),
        (Unused, "no gradient reaches spare.weight"),
        (Dead, "the gradient of dead is zero everywhere"),
        (Detaches, r"no gradient reaches \(the embeddings\)"),
        (VectorLoss, r"the auxiliary loss has shape \(64,\)"),
        (Unsaved, "something it depends on is not saved"),
        (Uncopied, "a deep copy shares parameters"),
        (DividesByTheNorm, "the output is not finite for zero embeddings"),
        (HasNoGradientAtZero, "the gradient of the embeddings is not finite for zero embeddings"),
        (MixesTypes, "forward and backward under autocast to bfloat16 failed: RuntimeError"),
        (SaysItIgnoresTheOrder, "changes with the order of the fields, but ignores_field_order is True"),
        (FusedIsAnotherFormula, "with fused: false the output differs"),
        (MakesOnTheCpu, "forward: mm reads tensors on cpu and meta"),
        (AddsInPlaceOnTheCpu, "forward: add_ reads tensors on cpu and meta"),
        (KeepsATensorOffTheModule, "forward: mul reads tensors on cpu and meta"),
        (nn.Linear, "is not a subclass of FeatureInteraction"),
    ],
)
def test_what_is_wrong_is_said(method: Any, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_interaction(method)


def test_an_unknown_option_is_said() -> None:
    with pytest.raises(AssertionError, match="has no option narrow"):
        check_interaction(Right, narrow=True)


def test_a_linear_map_does_not_learn_xor() -> None:
    with pytest.raises(AssertionError, match=r"Right: after 200 steps of Adam the loss of a row of XOR is still 0\.69"):
        check_learns_xor(Right)


def test_the_checks_leave_the_random_state_alone() -> None:
    torch.manual_seed(3)
    check_interaction(Right)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)


def linear(w: Any, e: Any, ids: Any) -> Any:
    return e.reshape(len(e), -1) @ w["head.weight"].T + w["head.bias"]


def test_check_equation_finds_a_wrong_output_and_a_wrong_gradient() -> None:
    shape = FieldShape(2, 3, (0, 1), (4, 4))
    batch = torch.rand(4, 2, 3), torch.zeros(4, 2, dtype=torch.long)
    check_equation(Right(shape, 5), linear, *batch)
    with pytest.raises(AssertionError, match="the output in float64 is off by"):
        check_equation(Right(shape, 5), lambda w, e, ids: linear(w, e, ids) + 1e-9, *batch)
    with pytest.raises(AssertionError, match=r"has shape \(4, 5\); the equation gives \(5, 4\)"):
        check_equation(Right(shape, 5), lambda w, e, ids: linear(w, e, ids).T, *batch)
    with pytest.raises(AssertionError, match=r"the gradient of \(the embeddings\), entry \d+, is off by"):
        check_equation(Detaches(shape, 5), linear, *batch)
