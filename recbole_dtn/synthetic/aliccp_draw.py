"""The rows of a block of synthetic Ali-CCP: users with their histories, and the impressions shown to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recbole_dtn.data.hashing import Floats, Ints, uniform
from recbole_dtn.synthetic.aliccp_world import OUTSIDE, PROFILE, World
from recbole_dtn.synthetic.zipf import Zipf

__all__ = ["Tokens", "common_rows", "impressions"]

# Mean and largest length of the histories.
VISITS, MOST_VISITS = 185, 1001
INTENTIONS, MOST_INTENTIONS = 135, 335
ACTIVITY = 0.5
"""Standard deviation of the logarithm of a user's activity."""
RETURN = 0.285
"""Share of impressions that show an item which the user visited."""
SHOP_EXPONENT = 0.8
POSITIONS = np.cumsum([0.4, 0.3, 0.2])
VALUES_OF_INTENTIONS = 596
"""ln(1 + j / 12) for j = 5 .. 600."""
# Share of rows (or users, or impressions) in which a field is absent.
ABSENT = {"101": 0.003, "profile": 0.13, "126": 0.59, "129": 0.37, "item": 3e-6, "210": 266e-6}


@dataclass
class Tokens:
    """Features of a field in a block: ``row`` ascending, ``rank`` within the field, ``value`` as a code.

    A value code is 0 for 1.0, c for ln(1 + c), and -j for the j-th value of an intention.
    """

    row: Ints
    rank: Ints
    value: Ints


@dataclass
class Common:
    """Common rows of a block."""

    count: int
    single: dict[str, Ints] = field(default_factory=dict)  # rank, or -1
    lists: dict[str, Tokens] = field(default_factory=dict)
    visited: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    first_visit: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def common_rows(world: World, count: int, random: np.random.Generator) -> Common:
    """Draw ``count`` users with profiles and histories."""
    common = Common(count)
    users = Zipf(world.sizes["user"], 0.4).ranks(random.random(count))
    _profile(world, common, users, random)
    # A sum of four uniforms with mean 0 and variance 1 in place of a normal number: only random() is drawn (see
    # `hashing.rng`).
    activity = np.exp(ACTIVITY * 3**0.5 * (random.random((4, count)).sum(0) - 2))
    length = np.clip(VISITS * activity, 20, MOST_VISITS).astype(np.int64)
    row = np.repeat(np.arange(count), length)
    # Histories reach shops that show no items; shops of small rank show some.
    shop = Zipf(world.sizes["shop"] * OUTSIDE, SHOP_EXPONENT).ranks(random.random(len(row)))
    place = (random.random(len(row)) * (world.items // world.sizes["shop"])).astype(np.int64)
    item = (shop + world.sizes["shop"] * place) % world.items
    # -1 for visits to shops without items on show.
    common.visited = np.where(shop < world.sizes["shop"], item, -1)
    # User u visited visited[first_visit[u]] to visited[first_visit[u + 1] - 1].
    common.first_visit = np.concatenate([[0], np.cumsum(length)])
    common.lists["110_14"] = _counted(row, shop, world.sizes["shop"] * OUTSIDE)
    common.lists["109_14"] = _counted(row, world.category[item].astype(np.int64), world.sizes["category"])
    brand = world.brand[item].astype(np.int64)
    common.lists["127_14"] = _counted(row[brand >= 0], brand[brand >= 0], world.sizes["brand"])
    common.lists["150_14"] = _intentions(world, activity, random)
    return common


def _profile(world: World, common: Common, users: Ints, random: np.random.Generator) -> None:
    anonymous = random.random(common.count) < ABSENT["101"]
    common.single["101"] = np.where(anonymous, -1, users)
    without = uniform(f"{world.seed}|profile", users) < ABSENT["profile"]
    for name, size in PROFILE.items():
        # Hashed by the user's rank, not drawn: a user has the same profile in every row.
        ranks = Zipf(size, 0.5).ranks(uniform(f"{world.seed}|{name}", users))
        absent = without
        if name in ABSENT:  # absent in more rows than the rest of the profile
            more = (ABSENT[name] - ABSENT["profile"]) / (1 - ABSENT["profile"])
            absent = without | (uniform(f"{world.seed}|no {name}", users) < more)
        common.single[name] = np.where(absent, -1, ranks)


def _counted(row: Ints, rank: Ints, size: int) -> Tokens:
    # One number per (row, rank), sorted: rows ascend, and repeated visits become a count.
    keys, counts = np.unique(row * size + rank, return_counts=True)
    return Tokens(keys // size, keys % size, counts.astype(np.int64))


def _intentions(world: World, activity: Floats, random: np.random.Generator) -> Tokens:
    size = world.sizes["intention"]
    length = np.clip(INTENTIONS * activity, 20, MOST_INTENTIONS).astype(np.int64)
    row = np.repeat(np.arange(len(activity)), length)
    keys = np.unique(row * size + Zipf(size, 0.9).ranks(random.random(len(row))))
    # Small values more often.
    code = 1 + (random.random(len(keys)) ** 2 * VALUES_OF_INTENTIONS).astype(np.int64)
    return Tokens(keys // size, keys % size, -code)


@dataclass
class Shown:
    """Impressions of a block: ``owner`` is the common row of each."""

    owner: Ints
    single: dict[str, Ints]
    values: dict[str, Ints]  # value codes of the combination fields
    lists: dict[str, Tokens]


def impressions(world: World, common: Common, owner: Ints, random: np.random.Generator) -> Shown:
    """Draw what is shown to the ``owner`` of each impression, and combine it with that user's history."""
    n = len(owner)
    shop = Zipf(world.sizes["shop"], SHOP_EXPONENT).ranks(random.random(n))
    place = (random.random(n) * (world.items // world.sizes["shop"])).astype(np.int64)
    item = shop + world.sizes["shop"] * place
    first, last = common.first_visit[owner], common.first_visit[owner + 1]
    # A visit of the owner, drawn evenly.
    earlier = common.visited[first + (random.random(n) * (last - first)).astype(np.int64)]
    item = np.where((random.random(n) < RETURN) & (earlier >= 0), earlier, item)
    missing = random.random(n) < ABSENT["item"]
    single = {
        "205": np.where(missing, -1, item),
        "206": np.where(missing, -1, world.category[item]),
        "207": np.where(missing, -1, world.shop(item)),
        "216": np.where(missing, -1, world.brand[item]).astype(np.int64),
        "301": np.searchsorted(POSITIONS, random.random(n), side="right"),
    }
    values = {}
    for name, history, of, size in (
        ("508", "109_14", "206", world.sizes["category"]),
        ("509", "110_14", "207", world.sizes["shop"] * OUTSIDE),
        ("702", "127_14", "216", world.sizes["brand"]),
    ):
        found, value = _look_up(common.lists[history], size, owner, single[of])
        single[name] = np.where(found, single[of], -1)
        values[name] = value
    lists = _item_intentions(world, common, owner, np.where(random.random(n) < ABSENT["210"], -1, single["205"]))
    return Shown(owner, single, values, lists)


def _look_up(history: Tokens, size: int, owner: Ints, rank: Ints) -> tuple[Ints, Ints]:
    """Whether the history of ``owner`` holds ``rank``, and the value code it has there."""
    keys = history.row * size + history.rank
    # ``keys`` ascends, as rows ascend and ranks ascend within a row.
    wanted = owner * size + rank
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return (keys[at] == wanted) & (rank >= 0), history.value[at]


def _item_intentions(world: World, common: Common, owner: Ints, item: Ints) -> dict[str, Tokens]:
    start = world.intention_start[np.maximum(item, 0)]
    length = np.where(item >= 0, world.intention_start[np.maximum(item, 0) + 1] - start, 0)
    # The nth intention of the item of each impression.
    row = np.repeat(np.arange(len(item)), length)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    rank = world.intentions[start[row] + nth].astype(np.int64)
    found, value = _look_up(common.lists["150_14"], world.sizes["intention"], owner[row], rank)
    return {
        "210": Tokens(row, rank, np.zeros_like(row)),
        "853": Tokens(row[found], rank[found], value[found]),
    }
