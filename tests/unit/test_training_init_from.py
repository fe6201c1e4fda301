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
from recbole_dtn.data.schemas import make_schema
from recbole_dtn.data.vocabulary import Vocabularies
from recbole_dtn.errors import UsageError
from recbole_dtn.layers.compression import Compression, row_blocks
from recbole_dtn.layers.towers import Towers
from recbole_dtn.model.base import ModelOutput, MultiTaskRecommender
from recbole_dtn.model.shared_bottom import SharedBottom
from recbole_dtn.record.checkpoint import initialise_from, write_checkpoint
from recbole_dtn.schema import DataSchema
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


class Towered(MultiTaskRecommender):
    """Two tables: a wide one of all fields, a narrow one of cities alone."""

    def build(self, settings: Any, schema: DataSchema) -> None:
        self.embedding = self.new_embedding()
        self.narrow = self.new_embedding(dim=2, fields=self.field_positions(["city"], setting="narrow_fields"))
        self.towers = Towers(self.flat_dim + self.narrow.output_dim, [], count=schema.num_tasks)

    def forward(self, features: Features) -> ModelOutput:
        x = torch.cat([self.embedding(features).flatten(1), self.narrow(features).flatten(1)], dim=1)
        return ModelOutput(self.towers(x.unsqueeze(1).expand(-1, self.schema.num_tasks, -1)))


def towered(cities: Sequence[str], items: Sequence[str], seed: int) -> tuple[MultiTaskRecommender, Vocabularies]:
    like, vocabularies = built(NONE, items=items, cities=cities)
    torch.manual_seed(seed)
    return Towered(make_settings(Towered, embedding_size=4), like.schema), vocabularies


def test_every_table_is_matched_over_its_own_fields(tmp_path: Path) -> None:
    old, vocabularies = towered(CITIES, ITEMS, 0)
    write_checkpoint(tmp_path / "checkpoint.ckpt", old, vocabularies, epoch=1)
    new, here = towered(["s", "q", "p"], ITEMS[3:], 1)
    fresh = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    assert initialise_from(new, here, tmp_path) == (19 + 4) + 4
    before, after = old.state_dict(), new.state_dict()
    torch.testing.assert_close(after["towers.towers.0.logit.weight"], before["towers.towers.0.logit.weight"])
    narrow = "narrow.table.weight"
    assert after[narrow].shape == (5, 2)
    assert torch.equal(after[narrow][[0, 1, 3, 4]], before[narrow][[0, 1, 3, 2]])
    assert torch.equal(after[narrow][2], fresh[narrow][2]), "s is new"
    whole = "embedding.table.weight"
    assert torch.equal(after[whole][2:19], before[whole][5:22]), "items"
    assert torch.equal(after[whole][[19, 20, 22, 23]], before[whole][[22, 23, 25, 24]]), "cities"
    assert torch.equal(after[whole][21], fresh[whole][21])


def test_a_table_of_another_width_is_refused(tmp_path: Path) -> None:
    old, vocabularies = towered(CITIES, ITEMS, 0)
    old.narrow = old.new_embedding(dim=3, fields=[1])
    write_checkpoint(tmp_path / "checkpoint.ckpt", old, vocabularies, epoch=1)
    new, here = towered(CITIES, ITEMS, 1)
    with pytest.raises(UsageError, match=r"narrow\.table\.weight: rows of 3 numbers there, of 2 here"):
        initialise_from(new, here, tmp_path)


def test_a_field_that_the_data_lack_is_refused() -> None:
    model, _ = towered(CITIES, ITEMS, 0)
    with pytest.raises(UsageError, match=r"gate_fields: 'cty' is not a field of the data set; .*'?city"):
        model.field_positions(["item", "cty"], setting="gate_fields")
