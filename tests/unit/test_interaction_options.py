"""Options of the interactions, and the modules that the setting ``interactions`` makes of them."""

import inspect
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from torch import nn

from recbole_dtn.config.properties import properties_folder
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.build import build_interactions, interaction_names
from recbole_dtn.interaction.gdcn import GDCN
from recbole_dtn.interaction.masknet import MaskNet
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.registry import INTERACTIONS

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 6, 7))
BUILT_IN = [name for name in INTERACTIONS.names() if INTERACTIONS.entry(name).origin == "built-in"]


def signature(name: str) -> dict[str, Any]:
    parameters = inspect.signature(INTERACTIONS.load(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", BUILT_IN)
def test_defaults_of_the_signature_are_those_of_the_yaml(name: str) -> None:
    written = yaml.safe_load((properties_folder() / "interaction" / f"{name}.yaml").read_text(encoding="utf-8"))
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in signature(name).items()}
    assert defaults == written
    assert {key: type(value) for key, value in defaults.items()} == {key: type(value) for key, value in written.items()}


@pytest.mark.parametrize("name", BUILT_IN)
def test_options_class_has_the_keys_and_choices_of_the_signature(name: str) -> None:
    options = INTERACTIONS.options(name)
    assert set(options.model_fields) == set(signature(name))
    hints = get_type_hints(INTERACTIONS.load(name).__init__)
    for key, hint in hints.items():
        if get_origin(hint) is Literal:
            assert set(get_args(hint)) == set(get_args(options.model_fields[key].annotation)), key


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_default_has_a_comment(name: str) -> None:
    lines = (properties_folder() / "interaction" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert all("#" in line for line in lines if line.strip())


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["gdcn"], ["gdcn"]),
        (["gdcn", "masknet", "memonet"], ["gdcn", "masknet", "memonet"]),
        (["gdcn", {"name": "masknet", "blocks": 3}, "gdcn"], ["gdcn#1", "masknet", "gdcn#2"]),
        ([{"name": "gdcn"}, "gdcn", {"name": "gdcn", "layers": 1}], ["gdcn#1", "gdcn#2", "gdcn#3"]),
        ([], []),
    ],
)
def test_names_keep_the_order_and_number_every_repeat(specs: list[Any], names: list[str]) -> None:
    assert interaction_names(specs) == names
    modules = build_interactions(specs, SHAPE, 6)
    assert isinstance(modules, nn.ModuleDict)
    assert list(modules) == names


def test_options_reach_their_own_module_only() -> None:
    modules = build_interactions(
        ["gdcn", {"name": "masknet", "blocks": 3, "structure": "serial"}, {"name": "gdcn", "layers": 1, "hidden": [9]},
         {"name": "memonet", "codes": 20, "code_dim": 5, "top_fields": None}],
        SHAPE, 6,
    )  # fmt: skip
    first, masknet, second, memonet = modules.values()
    assert isinstance(first, GDCN)
    assert (len(first.crosses), len(second.crosses)) == (2, 1)
    assert (first.mlp.output_dim, second.mlp.output_dim) == (12, 9)
    assert isinstance(masknet, MaskNet)
    assert (len(masknet.blocks), masknet.structure, masknet.mlp.output_dim) == (3, "serial", 64)
    assert isinstance(memonet, MemoNet)
    assert tuple(memonet.codebook.weight.shape) == (20, 5)
    assert memonet.top_fields is None
    assert {module.output_dim for module in modules.values()} == {6}


def test_specs_are_left_as_they_were() -> None:
    specs = [{"name": "gdcn", "layers": 1}]
    build_interactions(specs, SHAPE, 6)
    assert specs == [{"name": "gdcn", "layers": 1}]


def test_owners_share_no_parameter() -> None:
    one, other = (build_interactions(["gdcn", "masknet", "memonet"], SHAPE, 6) for _ in range(2))
    assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in other.parameters()}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gdnc", "unknown interaction 'gdnc': did you mean 'gdcn'"),
        ({"name": "maskent"}, "unknown interaction 'maskent': did you mean 'masknet'"),
        ({"layers": 3}, r"neither a name, such as gdcn, nor a map with a name.*gdcn, masknet, memonet"),
        (3, "3 is neither a name"),
        ({"name": "gdcn", "layer": 3}, "did you mean 'layers'"),
        ({"name": "gdcn", "layers": 0}, "layers"),
        ({"name": "gdcn", "structure": "deep"}, "stacked, parallel"),
        ({"name": "masknet", "reduction": 0.0}, "reduction"),
        ({"name": "memonet", "restore": "lrm"}, "lmr"),
        ({"name": "memonet", "top_fields": 1}, "at least 2"),
    ],
)
def test_a_wrong_entry_is_one_message(spec: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_interactions([spec], SHAPE, 6)


def test_memonet_without_pairs_says_what_to_do() -> None:
    shape = FieldShape(num_fields=2, embedding_dim=4, id_fields=(1,), field_sizes=(2, 7))
    with pytest.raises(UsageError, match="leave 'memonet' out of 'interactions'"):
        build_interactions(["gdcn", "memonet"], shape, 6)
