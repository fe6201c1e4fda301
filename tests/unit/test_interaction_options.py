"""Options of the interactions, and the modules that the setting ``interactions`` makes of them."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from recbole_dtn.config.choice import choose
from recbole_dtn.config.load import resolve
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.build import build_interactions, module_names
from recbole_dtn.interaction.gdcn import GDCN
from recbole_dtn.interaction.masknet import MaskNet
from recbole_dtn.interaction.memonet import MemoNet
from recbole_dtn.registry import INTERACTIONS

SHAPE = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 6, 7))


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
    assert module_names([choose(INTERACTIONS, spec) for spec in specs]) == names
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


@pytest.mark.parametrize(
    ("written", "meant"), [("128", 128), ("[128]", [128]), ("[128, 64]", [128, 64]), ("'128,64'", [128, 64])]
)
def test_a_number_or_a_list_is_read_as_it_is_written(written: str, meant: Any, tmp_path: Path) -> None:
    """One number is no list of one: MaskNet's ``block_dim`` means another thing by each."""
    words = f"[{{name: masknet, block_dim: {written}}}]"
    (tmp_path / "mine.yaml").write_text(f"interactions: {words}\n", encoding="utf-8")
    for given in ([f"--interactions={words}"], [f"--config_files={tmp_path}/mine.yaml"]):
        (choice,) = resolve(["--model=DTN", *given]).settings.interactions  # type: ignore[attr-defined]
        assert choice.options["block_dim"] == meant
    assert resolve(["--model=DTN"]).settings.interactions[1].options["block_dim"] == 64  # type: ignore[attr-defined]


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
        (
            {"layers": 3},
            r"expected a name, or a map with a name such as {name: masknet, blocks: 3}; found {'layers': 3}",
        ),
        (3, "expected a name, or a map with a name .*; found 3"),
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


def test_what_is_prepared_is_shared_by_modules_of_equal_options_only() -> None:
    modules = build_interactions(["gdcn", {"name": "gdcn", "layers": 3}, {"name": "gdcn", "layers": 2}], SHAPE, 6)
    first, other, same = (module.share_key() for module in modules.values())
    assert first == same != other
