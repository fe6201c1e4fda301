"""Starting from a run whose tokens share rows, or did not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_dtn.config.settings import FieldSettings
from recbole_dtn.data.features import Features
from recbole_dtn.data.vocabulary import Vocabularies, make_schema
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.compression import Compression, row_blocks
from recbole_dtn.model.base import MultiTaskRecommender
from recbole_dtn.model.shared_bottom import SharedBottom
from recbole_dtn.record.checkpoint import initialise_from, write_checkpoint
from recbole_dtn.testing.data import make_settings

ITEMS = [f"i{number:02}" for number in range(20)]
CITIES = ["p", "q", "r"]
PAIRS = {"method": "quotient_remainder", "above": 8, "collisions": 4, "keep": 0, "operation": "product"}
NONE = {**PAIRS, "method": "none"}


def built(
    compression: dict[str, Any], *, items: Sequence[str] = ITEMS, cities: Sequence[str] = CITIES, seed: int = 0
) -> tuple[MultiTaskRecommender, Vocabularies]:
    """A model over two fields; tokens are ranked in the order given."""
    fields = [FieldSettings(name="item"), FieldSettings(name="city")]
    counts = {
        name: {token: 99 - rank for rank, token in enumerate(tokens)}
        for name, tokens in (("item", items), ("city", cities))
    }
    vocabularies = Vocabularies.from_counts(fields, counts, {}, min_count=1)
    settings = make_settings("SharedBottom", embedding_size=4, embedding_compression=compression)
    torch.manual_seed(seed)
    return SharedBottom(settings, make_schema(fields, settings.tasks, vocabularies, settings)), vocabularies


def vectors(model: MultiTaskRecommender) -> dict[str, Tensor]:
    """Per field, the vectors of all its ids, (size, D)."""
    item, city = model.schema.fields
    found = {}
    for column, spec in enumerate((item, city)):
        ids = torch.zeros(spec.size, 2, dtype=torch.int64)
        ids[:, 1] = city.offset
        ids[:, column] = spec.offset + torch.arange(spec.size)
        with torch.no_grad():
            found[spec.name] = model.get_submodule("embedding")(Features(ids=ids))[:, column]
    return found


@pytest.mark.parametrize(
    "compression", [NONE, PAIRS, {**PAIRS, "method": "hash", "keep": 3}], ids=["none", "pairs", "hash"]
)
def test_the_same_vocabulary_starts_where_the_run_ended(tmp_path: Path, compression: dict[str, Any]) -> None:
    old, vocabularies = built(compression)
    write_checkpoint(tmp_path / "checkpoint.ckpt", old, vocabularies, epoch=1)
    new, _ = built(compression, seed=1)
    taken = initialise_from(new, vocabularies, tmp_path)
    assert taken == sum(block.size for block in row_blocks(new.schema, Compression.of(compression)))
    for name, found in vectors(new).items():
        assert torch.equal(found, vectors(old)[name])


def test_fields_that_are_not_compressed_are_matched_by_token_beside_one_that_is(tmp_path: Path) -> None:
    old, vocabularies = built(PAIRS)
    write_checkpoint(tmp_path / "checkpoint.ckpt", old, vocabularies, epoch=1)
    new, here = built(PAIRS, cities=["s", "q", "p"], seed=1)
    fresh = vectors(new)
    initialise_from(new, here, tmp_path)
    before, after = vectors(old), vectors(new)
    assert torch.equal(after["item"], before["item"])
    assert torch.equal(after["city"][[0, 1, 3, 4]], before["city"][[0, 1, 3, 2]])
    assert torch.equal(after["city"][2], fresh["city"][2]), "s is new"


@pytest.mark.parametrize(
    ("there", "here", "items", "message"),
    [
        (PAIRS, PAIRS, [*ITEMS[1:], "new"], "item: 2 rows and 20 tokens that share 9 (quotient_remainder, product) th"),
        (NONE, PAIRS, ITEMS, "item: 22 rows, none shared there, 2 rows and 20 tokens that share 9 (quotient_remainder"),
        (PAIRS, NONE, ITEMS, "that share 9 (quotient_remainder, product) there, 22 rows, none shared here"),
        (PAIRS, {**PAIRS, "operation": "sum"}, ITEMS, "product) there, 2 rows and 20 tokens that share 9 (quotient"),
        (PAIRS, {**PAIRS, "method": "hash"}, ITEMS, "product) there, 2 rows and 20 tokens that share 5 (hash) here"),
    ],
    ids=["tokens", "from none", "to none", "operation", "method"],
)  # fmt: skip
def test_rows_shared_by_other_tokens_are_refused(
    tmp_path: Path, there: dict[str, Any], here: dict[str, Any], items: list[str], message: str
) -> None:
    old, vocabularies = built(there)
    write_checkpoint(tmp_path / "checkpoint.ckpt", old, vocabularies, epoch=1)
    new, vocabularies = built(here, items=items)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    with pytest.raises(UsageError) as error:
        initialise_from(new, vocabularies, tmp_path)
    assert message in str(error.value)
    assert "\n  city" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items()), "nothing was written"
