"""Defaults that bound what grows with the square of the number of fields."""

from typing import Any

import pytest
import torch

from recbole_dtn.interaction.base import FeatureInteraction, FieldShape
from recbole_dtn.interaction.bounds import bounded_defaults
from recbole_dtn.registry import INTERACTIONS, MODELS
from recbole_dtn.schema import DataSchema, FieldSpec, TaskSpec
from recbole_dtn.testing.data import make_settings
from recbole_dtn.training.build import choices_by_data

OUTPUT = 8


def shape(fields: int, sizes: tuple[int, ...] | None = None) -> FieldShape:
    return FieldShape(fields, 16, tuple(range(fields)), sizes or (10,) * fields)


def made(name: str, fields: int, **options: Any) -> FeatureInteraction:
    with torch.device("meta"):
        module: FeatureInteraction = INTERACTIONS.load(name)(shape(fields), OUTPUT, **options)
    return module


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_beyond_the_width_by_hand() -> None:
    width = 33 * 16
    assert width > 512
    head = width * OUTPUT + OUTPUT
    assert count(made("gdcn", 33)) == 2 * (2 * 2 * width * 64 + width) + head
    block = width * 256 + 256 + 256 * width + width + width * 64 + 2 * 64
    assert count(made("masknet", 33)) == 2 * width + 2 * block + 128 * OUTPUT + OUTPUT
    half = width // 2
    cross = width * 64 + 64 * half + width + 2 * half
    assert count(made("dcnv3", 33)) == 8 * cross + 2 * width * OUTPUT + OUTPUT
    pairs = 32 * 31 // 2
    assert count(made("fmfm", 33)) == pairs * 16 * 16 + pairs * OUTPUT + OUTPUT
    assert count(made("fwfm", 33)) == pairs + 33 * 16 + (pairs + 33) * OUTPUT + OUTPUT


FULL = {
    "gdcn": {"low_rank": None},
    "dcnv2": {"low_rank": None},
    "dcnv3": {"low_rank": None},
    "masknet": {"reduction": 2.0},
    "fmfm": {"top_fields": None},
    "fwfm": {"top_fields": None},
    "fibinet": {"top_fields": None},
}


@pytest.mark.parametrize("name", list(FULL))
def test_up_to_the_width_a_method_is_the_papers(name: str) -> None:
    auto, full = made(name, 32), made(name, 32, **FULL[name])
    assert {key: value.shape for key, value in auto.state_dict().items()} == {
        key: value.shape for key, value in full.state_dict().items()
    }
    assert auto.bounded == full.bounded == ""
    wide = made(name, 40)
    assert count(wide) < count(made(name, 40, **FULL[name]))
    assert wide.bounded.startswith(f"{name}: ")
    assert made(name, 40, **FULL[name]).bounded == ""


@pytest.mark.parametrize("name", [name for name in INTERACTIONS.names() if name != "cin"])
def test_no_default_grows_with_the_square_of_the_fields(name: str) -> None:
    """Twice the fields have at most about twice the parameters; CIN's first layer alone has F^2 maps of one number."""
    if INTERACTIONS.entry(name).origin == "built-in":
        assert count(made(name, 256)) < 2.5 * count(made(name, 128))


@pytest.mark.parametrize(("name", "options"), [("fmfm", {}), ("fwfm", {"linear": "none"})])
def test_pairs_are_those_of_the_fields_with_most_ids(name: str, options: dict[str, Any]) -> None:
    """The same as the method over those fields alone."""
    sizes = (3, *(10,) * 20, 4, *(12,) * 12)  # fields 0 and 21 have the fewest ids of 34
    kept = [field for field in range(34) if field not in (0, 21)]
    torch.manual_seed(0)
    wide = INTERACTIONS.load(name)(shape(34, sizes), OUTPUT, **options)
    alone = INTERACTIONS.load(name)(shape(32), OUTPUT, **options)
    alone.load_state_dict(wide.state_dict())
    embeddings, ids = torch.randn(5, 34, 16), torch.zeros(5, 34, dtype=torch.int64)
    torch.testing.assert_close(wide(embeddings, ids), alone(embeddings[:, kept], ids[:, kept]))


def test_a_wide_model_says_what_was_bounded_once_for_all_owners() -> None:
    fields = tuple(FieldSpec(f"f{i}", "token", 20, 20 * i) for i in range(50))
    tasks = (TaskSpec("click", "binary", "click"), TaskSpec("buy", "binary", "buy", after=("click",)))
    with torch.device("meta"):
        model = MODELS.load("DTN")(make_settings("DTN"), DataSchema(fields, tasks))
    assert model.count_parameters()["dense"] < 5_000_000  # 24 million with full matrices
    told = bounded_defaults(model)
    assert told == [
        "gdcn: low_rank is 64, as the width F*D is 800 and above 512 (low_rank: null keeps full matrices)",
        "masknet: the hidden width of a mask is 256, as the width F*D is 800 and above 512 (reduction: 2 makes it "
        "1,600)",
    ]
    paired, *others = choices_by_data(model)
    assert paired.startswith("memonet: top_fields=8 leaves ")
    assert others == told
