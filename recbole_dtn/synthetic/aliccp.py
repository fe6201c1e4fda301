"""Synthetic Ali-CCP: ``sample_skeleton_{train,test}.csv`` and ``common_features_{train,test}.csv``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_dtn.data.hashing import Floats, Ints, Keys, mix, rng, text_key
from recbole_dtn.errors import UsageError
from recbole_dtn.synthetic.aliccp_draw import VALUES_OF_INTENTIONS, Common, Tokens, common_rows, impressions
from recbole_dtn.synthetic.aliccp_world import PROFILE, World
from recbole_dtn.synthetic.faults import LineFile, spoil
from recbole_dtn.synthetic.layout import BLOCK_ROWS, DrawnBlock, Part, Place, Plan, SyntheticLayout, check_rates
from recbole_dtn.synthetic.packing import Group, feature_lists, hex_slots, number_slots, slots, small_slots
from recbole_dtn.synthetic.planted import Field, Goal, Labels
from recbole_dtn.synthetic.scores import pooled_effect, token_effect

__all__ = ["AliCCP"]

TEST_SHARE = 0.5042  # 43,016,840 of 85,316,975
CLICK_RATE = 0.0405
BUY_RATE = 0.0002
# Fewer purchases than this say little about a model.
WANTED_BUYS = 100
# Largest count whose value has a text; histories end at 1,001.
MOST_COUNT = 1100
# Orders of the fields in a row that occur.
ORDERS = 16
USER = ("101", *PROFILE)
HISTORY = ("109_14", "110_14", "127_14", "150_14")
ITEM = ("205", "206", "207", "216", "301", "508", "509", "702")
ITEM_LISTS = ("210", "853")
FAULTS = {
    "skeleton": ("fields", "separator", "label", "orphan", "overflow", "text", "utf8", "blank", "feature_num"),
    "common": ("fields", "separator", "overflow", "text", "utf8", "blank", "feature_num"),
}


def _value_slots() -> Keys:
    """Words of the values by code, the negative codes at the end."""
    # [0]: 1.0; [c]: ln(1 + c); [-j]: the j-th value of an intention, which a negative code reads from the end.
    counts = [f"{math.log1p(c):.5f}".rstrip("0") for c in range(1, MOST_COUNT + 1)]
    intentions = [f"{math.log1p(j / 12):.5f}".rstrip("0") for j in range(5, 5 + VALUES_OF_INTENTIONS)]
    return slots([b"\x03" + text.encode() for text in ("1.0", *counts, *reversed(intentions))])


class AliCCP(SyntheticLayout):
    """Click, then purchase, in Ali-CCP's four files.

    Args:
        plan: rows, seed and the like. test_share: of the impressions. click_rate: P(click).
        buy_rate: P(buy); by default .0002, as in the real set, and more where that makes fewer than 100 purchases
            (at most a quarter of the clicks). per_user: impressions per common row, on average.
    """

    name = "aliccp"
    unit = "impressions"

    def __init__(
        self,
        plan: Plan,
        *,
        test_share: float = TEST_SHARE,
        click_rate: float = CLICK_RATE,
        buy_rate: float | None = None,
        per_user: float = 58.0,
    ) -> None:
        check_rates(test_share=test_share, click_rate=click_rate)
        if buy_rate is None:
            buy_rate = max(BUY_RATE, min(WANTED_BUYS / plan.rows, click_rate / 4))
        if not 0 < buy_rate < click_rate:
            raise UsageError(
                f"--buy_rate: expected a number between 0 and the click rate {click_rate}; found {buy_rate}"
            )
        if not 1 <= per_user <= 1000:
            raise UsageError(f"--per_user: expected a number from 1 to 1000; found {per_user}")
        self.test_rows = min(max(round(plan.rows * test_share), 1), plan.rows - 1)
        self.click_rate, self.buy_rate, self.per_user = click_rate, buy_rate, per_user
        super().__init__(plan)
        self.world = World(plan.rows, plan.seed)
        self.values = _value_slots()
        self.orders = {kind: self._orders(kind, count) for kind, count in (("user", 13), ("item", 11))}
        self.files: dict[str, LineFile] = {}

    def _orders(self, kind: str, count: int) -> Ints:
        drawn = rng(self.plan.seed, f"order of {kind} fields", 0).random((ORDERS, count))
        return np.argsort(drawn, axis=1, kind="stable")

    def goals(self) -> tuple[Goal, ...]:
        click = ("206", "301", "121", ("210",), "125", "508", "122")
        buy = ("129", "216", ("109_14",), ("853",), "127", "126", "128", "124")
        return (
            Goal("click", self.click_rate, _fields(click)),
            Goal("buy", self.buy_rate / self.click_rate, _fields((*buy, *click)), after="click"),
        )

    def parts(self) -> list[Part]:
        rows = {"train": self.plan.rows - self.test_rows, "test": self.test_rows}
        return [Part(name, count, name) for name, count in rows.items()]

    def stray(self) -> float:
        return min(max(2e-6, 4 / self.plan.rows), 0.01)

    def notes(self) -> list[str]:
        world = self.world
        return [
            f"P(buy) is {self.buy_rate:.6g} (the real set's is {BUY_RATE}); see buy_rate",
            "a few rows have click=0 and buy=1 whatever their inputs, as in the real set: their share is 'stray'",
            f"sizes: {', '.join(f'{name} {size:,}' for name, size in world.sizes.items())}, item {world.items:,}",
            "keys of the planted effects are feature ids; values of features have no effect",
        ]

    def draw(self, part: Part, block: int, rows: int, needed: Sequence[tuple[str, Field]]) -> DrawnBlock:
        random = rng(self.plan.seed, f"rows|{part.name}", block)
        # Impressions per user, about exponential with that mean; as many users as fill the block.
        per_row = np.clip(-self.per_user * np.log1p(-random.random(rows)), 1, 1000).astype(np.int64)
        ends = np.cumsum(per_row)
        count = int(np.searchsorted(ends, rows)) + 1
        owner = np.repeat(np.arange(count), per_row[:count])[:rows]
        common = common_rows(self.world, count, random)
        shown = impressions(self.world, common, owner, random)
        found = {(task, one.name): self._effect(task, one.name, common, shown) for task, one in needed}
        orders = (random.random(count), random.random(rows))
        return DrawnBlock(part, block, rows, found, {"common": common, "shown": shown, "orders": orders})

    def _effect(self, task: str, name: str, common: Common, shown: Any) -> Floats:
        ids, seed = self.world.ranges[name].ids, self.plan.seed
        if name in common.single:
            return _rows(token_effect(seed, task, name, ids(common.single[name])), shown.owner)
        if name in shown.single:
            return token_effect(seed, task, name, ids(shown.single[name]))
        if name in common.lists:
            tokens = common.lists[name]
            return _rows(pooled_effect(seed, task, name, ids(tokens.rank), tokens.row, common.count), shown.owner)
        tokens = shown.lists[name]
        return pooled_effect(seed, task, name, ids(tokens.rank), tokens.row, len(shown.owner))

    def open(self, place: Place) -> None:
        for part in ("train", "test"):
            for kind, file in (("skeleton", "sample_skeleton"), ("common", "common_features")):
                self.files[f"{kind}|{part}"] = place.open(f"{file}_{part}.csv", FAULTS[kind], _spoil)
        self.sample_id = {"train": 1, "test": 1}

    def write(self, block: DrawnBlock, labels: Labels) -> None:
        common, shown, name = block.data["common"], block.data["shown"], block.part.name
        # Every block has numbers of its own, and both parts the same: an index means nothing outside its file.
        number = np.arange(common.count, dtype=np.uint64) + np.uint64(block.number * BLOCK_ROWS)
        index = hex_slots(mix(number ^ np.uint64(text_key(f"{self.plan.seed}|index"))))
        users = self._common_text(common, index, block.data["orders"][0])
        self.files[f"common|{name}"].write(users, common.count)
        first = self.sample_id[name]
        self.sample_id[name] = first + block.rows
        sample_id = np.arange(first, first + block.rows)
        text = self._skeleton_text(shown, index, sample_id, labels, block.data["orders"][1])
        self.files[f"skeleton|{name}"].write(text, block.rows)

    def _common_text(self, common: Common, index: Keys, u: Floats) -> bytes:
        groups = [self._single(name, common.single[name]) for name in USER]
        groups += [self._list(name, common.lists[name]) for name in HISTORY]
        counts = _counts(groups, common.count)
        head = np.empty((common.count, 4), dtype=np.uint64)
        # Words in front of the list: line feed, index (two), number of features between commas.
        head[:, 0] = slots([b"\n"])[0]
        head[:, 1:3] = index
        head[:, 3] = _between_commas(counts.sum(1))
        # Each row begins with the end of the row before; the file's first row has none.
        return feature_lists(head, groups, counts, u, self.orders["user"])[1:] + b"\n"

    def _skeleton_text(self, shown: Any, index: Keys, sample_id: Ints, labels: Labels, u: Floats) -> bytes:
        n = len(sample_id)
        groups = [self._single(name, shown.single[name], shown.values.get(name)) for name in ITEM]
        groups += [self._list("853", shown.lists["853"])]
        groups += [self._list("210", tokens) for tokens in _halves(shown.lists["210"], n)]
        counts = _counts(groups, n)
        head = np.empty((n, 6), dtype=np.uint64)
        high = sample_id // 100_000_000
        # Ids of nine digits and more (sets beyond the real one): the part above 10^8 goes into the first word.
        head[:, 0] = slots([b"\n", *(b"\n%d" % k for k in range(1, int(high[-1]) + 1))])[high]
        low = number_slots(sample_id % 100_000_000)
        if high[-1]:
            padded = np.array([b"%08d" % k for k in (sample_id % 100_000_000).tolist()]).view(np.uint64)
            low = np.where(high > 0, padded, low)
        head[:, 1] = low
        # Words of a skeleton row: line feed and sample id (two), labels, index (two), number of features.
        pair = (2 * labels.label["click"] + labels.label["buy"]).astype(np.int64)
        head[:, 2] = slots([b",0,0,", b",0,1,", b",1,0,", b",1,1,"])[pair]
        head[:, 3:5] = index[shown.owner]
        head[:, 5] = _between_commas(counts.sum(1))
        return feature_lists(head, groups, counts, u, self.orders["item"])[1:] + b"\n"

    def _single(self, name: str, rank: Ints, value: Ints | None = None) -> Group:
        row = np.flatnonzero(rank >= 0)
        code = np.zeros_like(row) if value is None else value[row]
        return self._list(name, Tokens(row, rank[row], code))

    def _list(self, name: str, tokens: Tokens) -> Group:
        prefix = slots([b"\x01%s\x02" % name.encode()])[0]
        return Group(prefix, tokens.row, self.world.ranges[name].ids(tokens.rank), self.values[tokens.value])


def _rows(of_users: Floats, owner: Ints) -> Floats:
    found: Floats = of_users[owner]
    return found


def _fields(names: Sequence[str | tuple[str]]) -> tuple[Field, ...]:
    return tuple(Field(name) if isinstance(name, str) else Field(name[0], "tokens") for name in names)


def _counts(groups: Sequence[Group], rows: int) -> Ints:
    return np.stack([np.bincount(group.row, minlength=rows) for group in groups], axis=1)


def _between_commas(numbers: Ints) -> Keys:
    return small_slots(b",", numbers, b",", int(numbers.max(initial=0)))


def _halves(tokens: Tokens, rows: int) -> tuple[Tokens, Tokens]:
    """A repeated field stands in two places of a row, as in real rows."""
    count = np.bincount(tokens.row, minlength=rows)
    nth = np.arange(len(tokens.row)) - (np.cumsum(count) - count)[tokens.row]
    early = nth < count[tokens.row] // 2
    return tuple(Tokens(tokens.row[one], tokens.rank[one], tokens.value[one]) for one in (early, ~early))  # type: ignore[return-value]


def _spoil(kind: str, line: bytes) -> bytes:
    columns = line.split(b",")
    lists, skeleton = len(columns) - 1, len(columns) == 6
    if kind in ("overflow", "text"):  # of a feature id
        field, _, rest = columns[lists].partition(b"\x02")
        number, _, value = rest.partition(b"\x03")
        bad = b"99999999999999999999" if kind == "overflow" else number[:1] + b"x" + number[1:]
        columns[lists] = field + b"\x02" + bad + b"\x03" + value
        return b",".join(columns)
    if kind == "separator":
        columns[lists] = columns[lists].replace(b"\x02", b":", 1)
        return b",".join(columns)
    if kind == "feature_num":
        columns[lists - 1] = b"%d" % (int(columns[lists - 1]) + 1)
        return b",".join(columns)
    return spoil(kind, line, number=0 if skeleton else 1, label=1, key=3)
