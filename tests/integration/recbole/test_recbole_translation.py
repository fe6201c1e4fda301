"""RecBole's ids, sequences and floats in our terms, against counts made from the raw rows; and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data import create_dataset
from recbole.data.interaction import Interaction

from recbole_dtn.config.load import resolve
from recbole_dtn.data.loader import BatchLoader
from recbole_dtn.errors import UsageError
from recbole_dtn.model.mmoe import MMoE
from recbole_dtn.preprocess.prepare import prepare


def vocabulary(rows: list[dict[str, str]], name: str, min_count: int = 1) -> list[str]:
    counts = Counter(token for row in rows for token in row[name].split() if token)
    kept = [token for token, count in counts.items() if count >= min_count]
    return sorted(kept, key=lambda token: (-counts[token], token.encode()))


def test_batches_are_encoded_with_the_training_vocabulary(toy: Any) -> None:
    _, model, (_, _, test) = toy.built(valid_metric="mean_auc")
    train, expected_rows = toy.rows["train"], toy.rows["test"]
    words = {"user": vocabulary(train, "user"), "item": vocabulary(train, "item", 8), "tags": vocabulary(train, "tags")}
    assert 0 < len(words["item"]) < 40  # some items are rare
    for name, tokens in words.items():
        assert model.translator.vocabularies.tokens(name) == tokens
    offset = {spec.name: spec.offset for spec in model.schema.fields}
    prices = np.array([float(row["price"]) for row in train])
    ages = np.array([float(row["age"]) for row in train])
    edges = np.unique(np.quantile(ages, [0.25, 0.5, 0.75]))

    def local(name: str, token: str) -> int:
        return offset[name] + (2 + words[name].index(token) if token in words[name] else 1)

    features = model.translator.features(next(iter(test))[0])
    unknown = 0
    for position, row in enumerate(expected_rows):
        many = features.multi[2]
        assert features.ids[position].tolist() == [
            local("user", row["user"]),
            local("item", row["item"]),
            -1,
            offset["age"] + 2 + int(sum(float(row["age"]) >= edge for edge in edges)),
            -1,
        ]
        values = many.values[many.offsets[position] : many.offsets[position + 1]].tolist()
        assert values == [local("tags", tag) for tag in row["tags"].split()]
        expected = (float(row["price"]) - prices.mean()) / prices.std()
        assert features.dense[position, 0].item() == pytest.approx(expected, abs=1e-5)
        assert features.labels[position].tolist() == [float(row["click"]), float(row["buy"])]
        unknown += row["item"] not in words["item"]
    assert unknown > 0
    assert bool(features.observed.all())


def test_a_regression_is_predicted_in_its_own_units(toy: Any) -> None:
    fields = [{"name": "user"}, {"name": "item"}]
    tasks = [{"name": "click", "label": "click"}, {"name": "price", "label": "price", "kind": "regression"}]
    _, model, (_, _, test) = toy.built(fields=fields, tasks=tasks, valid_metric="mean_auc", split="given")
    prices = np.array([float(row["price"]) for row in toy.rows["train"]])
    task = model.schema.tasks[1]
    assert (task.mean, task.std) == pytest.approx((prices.mean(), prices.std()), rel=1e-6)
    batch = next(iter(test))[0]
    model.eval().evaluated_task = "price"
    with torch.no_grad():
        found, raw = model.predict(batch), model(model.translator.features(batch)).logits[:, 1]
    assert found.numpy() == pytest.approx(task.mean + task.std * raw.numpy(), rel=1e-5)
    ours = prepare(model.settings).schema.tasks[1]
    assert (ours.mean, ours.std) == pytest.approx((task.mean, task.std), rel=1e-6)


def test_our_reader_encodes_the_same_files_alike(toy: Any) -> None:
    _, model, (_, valid, _) = toy.built(split="given")
    prepared = prepare(model.settings)
    assert prepared.schema == model.schema
    assert prepared.vocabularies.to_dict() == model.vocabularies
    ours = next(iter(BatchLoader(prepared.splits["valid"], 80, shuffle=False, seed=0)))
    theirs = model.translator.features(next(iter(valid))[0])
    for name in ("ids", "dense", "labels", "observed"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.multi[2].values, theirs.multi[2].values)
    assert torch.equal(ours.multi[2].offsets, theirs.multi[2].offsets)


def test_user_and_item_files_are_joined_and_counted_over_interactions(toy: Any) -> None:
    folder = toy.data_path / "toy"
    users = sorted({row["user"] for rows in toy.rows.values() for row in rows})
    region = {user: f"r{number % 3}" for number, user in enumerate(users)}
    (folder / "toy.user").write_text("\n".join(["user:token\tregion:token", *(f"{u}\t{region[u]}" for u in users)]))
    with (folder / "toy.user").open("a") as file:
        file.write("\n")
    fields = [*toy.settings["fields"], {"name": "region"}]
    _, model, (_, _, test) = toy.built(fields=fields, USER_ID_FIELD="user", ITEM_ID_FIELD="item")
    counts = Counter(region[row["user"]] for row in toy.rows["train"])
    expected = sorted(counts, key=lambda token: (-counts[token], token))
    assert model.translator.vocabularies.tokens("region") == expected
    features = model.translator.features(next(iter(test))[0])
    offset = model.schema.fields[-1].offset
    assert features.ids[:, -1].tolist() == [
        offset + 2 + expected.index(region[row["user"]]) for row in toy.rows["test"]
    ]


def test_weights_follow_their_values(toy: Any) -> None:
    for rows in toy.rows.values():
        for row in rows:
            row["tags_value"] = " ".join(f"{0.5 + int(tag[1:])}" for tag in row["tags"].split())
    toy.write(types={"user": "token", "tags": "token_seq", "tags_value": "float_seq", "click": "float"})
    fields = [{"name": "user"}, {"name": "tags", "type": "token_seq", "weights": "tags_value"}]
    _, model, (_, _, test) = toy.built(fields=fields, tasks=[{"name": "click", "label": "click"}])
    many = model.translator.features(next(iter(test))[0]).multi[1]
    expected = [0.5 + int(tag[1:]) for row in toy.rows["test"] for tag in row["tags"].split()]
    assert many.weights is not None
    assert many.weights.tolist() == expected


def test_a_label_is_observed_where_its_condition_holds(toy: Any) -> None:
    tasks = [{"name": "click", "label": "click"}, {"name": "buy", "label": "buy", "observed_when": "click == 1"}]
    _, model, (_, _, test) = toy.built(tasks=tasks)
    features = model.translator.features(next(iter(test))[0])
    assert features.observed.tolist() == [[True, row["click"] == "1"] for row in toy.rows["test"]]
    tasks[1]["observed_when"] = "item == 1"
    with pytest.raises(UsageError, match="observed_when 'item == 1' reads 'item', which is not a :float column"):
        toy.built(tasks=tasks, fields=[{"name": "user"}])


def with_tabs(toy: Any) -> list[str]:
    """Write the set with a column ``tab``; its tokens are not in the order of their bytes, and test has one more."""
    names = ["b", "10", "9"]
    for rows in toy.rows.values():
        for number, row in enumerate(rows):
            row["tab"] = names[number % 3]
    toy.rows["test"][0]["tab"] = "é"
    toy.write(types={"user": "token", "item": "token", "tab": "token", "price": "float", "click": "float"})
    return ["10", "9", "b", "é"]


TABS = {
    "fields": [{"name": "user"}, {"name": "item"}, {"name": "price", "type": "float"}],
    "tasks": [{"name": "click", "label": "click"}], "domain_field": "tab", "group_field": "user",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["ours", "stock"])
def test_domain_and_group_are_numbered_as_our_reader_does(toy: Any, kind: str) -> None:
    domains = with_tabs(toy)
    if kind == "ours":
        _, model, loaders = toy.built(**TABS)
    else:
        config = toy.stock_config(MMoE, **TABS | {"numerical_features": ["price"]})
        loaders = toy.loaders(config)
        model = MMoE(config, loaders[0].dataset)
    assert model.schema.num_domains == 4
    assert model.translator.vocabularies.domains == tuple(domains)
    features = model.translator.features(next(iter(loaders[2]))[0])
    assert features.domain.tolist() == [domains.index(row["tab"]) for row in toy.rows["test"]]
    users = sorted({row["user"] for rows in toy.rows.values() for row in rows})
    assert features.group.tolist() == [users.index(row["user"]) for row in toy.rows["test"]]
    given = {**TABS, "model": "MMoE", "dataset": "toy", "data_path": str(toy.data_path), "split": "given"}
    ours = prepare(resolve(given).settings)
    mine = next(iter(BatchLoader(ours.splits["test"], 80, shuffle=False, seed=0)))
    assert ours.vocabularies.domains == tuple(domains)
    assert torch.equal(mine.domain, features.domain)
    assert torch.equal(mine.group, features.group)


def test_a_row_without_a_domain_and_an_unloaded_domain_are_refused(toy: Any) -> None:
    with_tabs(toy)
    with pytest.raises(UsageError, match=r"domain_field 'tab': RecBole's Dataset has no such column.*load_col"):
        toy.built(**TABS, unload_col={"inter": ["tab"]})
    toy.rows["test"][3]["tab"] = ""
    toy.write(types={"user": "token", "item": "token", "tab": "token", "price": "float", "click": "float"})
    _, model, (_, _, test) = toy.built(**TABS)
    with pytest.raises(UsageError, match="domain_field 'tab': expected one of 10, 9, b, é in every row; found a row"):
        model.translator.features(next(iter(test))[0])
    _, model, (_, _, test) = toy.built(**{**TABS, "domain_field": None, "group_field": "tab"})
    group = model.translator.features(next(iter(test))[0]).group
    assert group[3].item() == 4 == group.max().item()  # absent values come last
    with pytest.raises(UsageError, match=r"domain_field 'price': expected a column of type token, found :float"):
        toy.built(**{**TABS, "domain_field": "price"})


def test_a_checkpoint_of_other_domains_is_refused(toy: Any) -> None:
    with_tabs(toy)
    _, model, _ = toy.built(**TABS)
    toy.rows["test"][0]["tab"] = "b"
    toy.write(types={"user": "token", "item": "token", "tab": "token", "price": "float", "click": "float"})
    _, other, _ = toy.built(**TABS)
    with pytest.raises(UsageError, match=r"the saved model has the domains 10, 9, b, é, this data set 10, 9, b$"):
        other.load_other_parameter(model.other_parameter())


def test_scoring_needs_no_labels(toy: Any) -> None:
    _, model, (_, _, test) = toy.built()
    batch = next(iter(test))[0]
    bare = Interaction({name: batch[name] for name in ("user", "item", "tags", "age", "price")})
    assert torch.equal(model.predict(bare), model.predict(batch))
    assert model.translator.features(bare).labels.shape == (80, 0)
    with pytest.raises(UsageError, match="the batch has no column 'age'"):
        model.predict(Interaction({name: batch[name] for name in ("user", "item", "tags", "price")}))


# ---- refusals -------------------------------------------------------------------------------------------------------


def refused(toy: Any, message: str, **values: Any) -> None:
    with pytest.raises(UsageError, match=message):
        toy.built(**values)


def retype(toy: Any, **types: str) -> None:
    plain = {"user": "token", "item": "token", "tags": "token_seq", "age": "float", "price": "float"}
    toy.write(types={**plain, "click": "float", "buy": "float", **types})


def test_a_label_typed_token_is_refused(toy: Any) -> None:
    retype(toy, buy="token")
    refused(toy, "label 'buy' of task 'buy' is typed :token; RecBole would make it an input")


def test_a_label_among_the_inputs_is_refused(toy: Any) -> None:
    refused(toy, "label 'buy' of task 'buy' is among the inputs", numerical_features=["age", "price", "buy"])
    fields = [*toy.settings["fields"], {"name": "buy", "type": "float"}]
    refused(toy, "'buy'", fields=fields)


def test_changed_values_are_refused(toy: Any) -> None:
    refused(toy, "normalize_all changes", normalize_all=True)
    refused(toy, "normalize_field changes 'price'", normalize_field=["price"])
    refused(toy, "normalize_field changes 'click'", normalize_field=["click"])
    refused(toy, "discretization changes 'price'", discretization={"price": {"method": "ED", "bucket": 3}})


def test_a_missing_column_is_named(toy: Any) -> None:
    refused(toy, "field 'item': RecBole's Dataset has no such column", unload_col={"inter": ["item"]})
    refused(toy, "task 'buy': RecBole's data has no label column", unload_col={"inter": ["buy"]})


def test_a_label_outside_the_interactions_is_refused(toy: Any) -> None:
    users = sorted({row["user"] for rows in toy.rows.values() for row in rows})
    lines = ["user:token\tbuy:float", *(f"{user}\t1" for user in users)]
    (toy.data_path / "toy" / "toy.user").write_text("\n".join(lines) + "\n")
    toy.write(types=dict.fromkeys(("user", "item"), "token") | {"click": "float"})
    config = toy.stock_config(MMoE, fields=[{"name": "user"}], tasks=toy.settings["tasks"], numerical_features=[],
                              USER_ID_FIELD="user", ITEM_ID_FIELD="item")  # fmt: skip
    train, _, _ = toy.loaders(config)
    with pytest.raises(UsageError, match="label 'buy' of task 'buy' must be in the interactions"):
        MMoE(config, train.dataset)


def test_a_column_of_another_type_is_refused(toy: Any) -> None:
    retype(toy, age="token")
    refused(toy, "field 'age': the settings say float, the atomic files :token", numerical_features=["price"])


def test_a_missing_label_which_recbole_makes_up_is_refused(toy: Any) -> None:
    toy.rows["train"][5]["click"] = ""
    toy.write()
    refused(toy, r"label 'click' of task 'click' must be 0 or 1; found 0\.\d+ \(RecBole replaces a missing label")


def test_the_whole_dataset_is_not_the_training_split(toy: Any) -> None:
    config, _, (train, _, _) = toy.built()
    whole = create_dataset(config)
    with pytest.raises(UsageError, match="expected the training Dataset"):
        MMoE(config, whole)
    whole.build()
    with pytest.raises(UsageError, match="expected the training Dataset"):
        MMoE(config, whole)
    with pytest.raises(UsageError, match=r"is built from \(Settings, DataSchema\) or RecBole's"):
        MMoE({}, train.dataset)


def test_a_config_for_another_model_is_refused(toy: Any) -> None:
    config, _, (train, _, _) = toy.built("PLE")
    with pytest.raises(UsageError, match="the config was made for PLE, not for MMoE"):
        MMoE(config, train.dataset)
