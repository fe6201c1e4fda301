"""MemoNet against its equations, in plain numpy, one row and one pair at a time; its hash in Python integers."""

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FieldShape
from recbole_dtn.interaction.memonet import MemoNet, hash_pairs
from recbole_dtn.testing.interactions import check_equation

# Fields 1 (multi-valued) and 4 (continuous) have no single id. Sizes of the id fields 0, 2, 3, 5: 9, 20, 4, 9.
SHAPE = FieldShape(num_fields=6, embedding_dim=3, id_fields=(0, 2, 3, 5), field_sizes=(9, 6, 20, 4, 2, 9))
TWO = FieldShape(num_fields=2, embedding_dim=3, id_fields=(0, 1), field_sizes=(5, 5))
BITS = 2**64


def splitmix(x: int) -> int:
    """One step of splitmix64 in unbounded Python integers."""
    x = (x + 0x9E3779B97F4A7C15) % BITS
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % BITS
    return x ^ (x >> 31)


def address(i: int, v_i: int, j: int, v_j: int, k: int, codes: int) -> int:
    first = splitmix(splitmix(splitmix(k) ^ i) ^ v_i)
    second = splitmix(splitmix(j) ^ v_j)
    return splitmix(first ^ second) % 2**63 % codes


def inputs(shape: FieldShape, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    embeddings = 0.5 * torch.randn(rows, shape.num_fields, 3, dtype=torch.float64, generator=generator)
    ids = torch.full((rows, shape.num_fields), -1)
    for field in shape.id_fields:
        offset = sum(shape.field_sizes[:field])
        ids[:, field] = torch.randint(offset, offset + shape.field_sizes[field], (rows,), generator=generator)
    return embeddings, ids


def memonet(fields: list[int], codes: int, hashes: int, restore: str, shrink: str, hidden: int) -> Callable[..., Any]:
    """The equations over the pairs of ``fields``."""

    def restored(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray, i: int, j: int) -> np.ndarray:
        book = w["codebook.weight"]
        words = [book[address(i, int(ids[i]), j, int(ids[j]), k, codes)] for k in range(hashes)]
        c = np.concatenate(words)
        if restore == "amr":
            pair = np.concatenate([e[i], e[j]])
            c = c * (w["code_mask.2.weight"] @ np.maximum(0.0, w["code_mask.0.weight"] @ pair))
        return w["restorer.weight"] @ c

    def memory(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> list[np.ndarray]:
        pairs = list(combinations(fields, 2))
        r = {(i, j): restored(w, e, ids, i, j) for i, j in pairs}
        if shrink == "none":
            return [r[pair] for pair in pairs]
        a = dict.fromkeys(pairs, 1.0)
        if shrink == "attentive":
            attended = w["attention.2.weight"] @ np.maximum(0.0, w["attention.0.weight"] @ np.concatenate(list(e)))
            a = dict(zip(pairs, attended, strict=True))
        return [sum(a[pair] * r[pair] for pair in pairs if field in pair) for field in fields]

    def equation(w: Mapping[str, np.ndarray], e: np.ndarray, ids: np.ndarray) -> np.ndarray:
        rows = []
        for b in range(len(e)):
            x = np.concatenate([*e[b], *memory(w, e[b], ids[b])])
            for depth in range(hidden):
                x = np.maximum(0.0, w[f"mlp.layers.{2 * depth}.weight"] @ x + w[f"mlp.layers.{2 * depth}.bias"])
            rows.append(w["head.weight"] @ x + w["head.bias"])
        return np.array(rows)

    return equation


@pytest.mark.parametrize("hidden", [[], [6, 4]])
@pytest.mark.parametrize(
    ("top_fields", "fields"), [(None, [0, 2, 3, 5]), (9, [0, 2, 3, 5]), (3, [0, 2, 5]), (2, [0, 2])]
)
@pytest.mark.parametrize("shrink", ["attentive", "sum", "none"])
@pytest.mark.parametrize("restore", ["lmr", "amr"])
def test_memonet_is_its_equations(
    restore: Any, shrink: Any, top_fields: int | None, fields: list[int], hidden: list[int]
) -> None:
    """``top_fields`` takes the largest fields: 2 (20 ids), then 0 before 5 (9 each), then 3."""
    module = MemoNet(
        SHAPE, 5, codes=11, code_dim=2, hashes=2, restore=restore, shrink=shrink, attention_dim=4, hidden=hidden,
        top_fields=top_fields,
    )  # fmt: skip
    check_equation(module, memonet(fields, 11, 2, restore, shrink, len(hidden)), *inputs(SHAPE, 4))


@pytest.mark.parametrize("hashes", [1, 3])
@pytest.mark.parametrize("shrink", ["attentive", "sum", "none"])
@pytest.mark.parametrize("restore", ["lmr", "amr"])
@pytest.mark.parametrize("shape", [SHAPE, TWO])
def test_one_row_one_pair_other_numbers_of_hashes(shape: FieldShape, restore: Any, shrink: Any, hashes: int) -> None:
    module = MemoNet(
        shape, 5, codes=7, hashes=hashes, restore=restore, shrink=shrink, attention_dim=8, top_fields=None
    )  # fmt: skip
    equation = memonet(list(shape.id_fields), 7, hashes, restore, shrink, 0)
    check_equation(module, equation, *inputs(shape, 1))


def test_sparse_codebook_gradients_are_the_same_numbers() -> None:
    module = MemoNet(SHAPE, 5, codes=11, code_dim=2, attention_dim=4)
    module.codebook.sparse = True
    check_equation(module, memonet([0, 2, 3, 5], 11, 2, "lmr", "attentive", 0), *inputs(SHAPE, 4))
    module(*(part.float() if part.is_floating_point() else part for part in inputs(SHAPE, 4))).sum().backward()
    assert module.codebook.weight.grad is not None
    assert module.codebook.weight.grad.is_sparse


def test_the_codebook_penalty_counts_look_ups_per_row() -> None:
    """l2 / 2 * sum of squares over B rows x 6 pairs x 2 hashes, each codeword (3, 4): 25; over B."""
    module = MemoNet(SHAPE, 5, codes=11, code_dim=2, top_fields=None)
    with torch.no_grad():
        module.codebook.weight.copy_(torch.tensor([3.0, 4.0]).expand(11, 2))
    module.codebook.l2 = 0.1
    embeddings, ids = inputs(SHAPE, 4)
    module(embeddings.float(), ids)
    assert module.codebook.penalty is not None
    assert module.codebook.penalty.item() == pytest.approx(0.1 / 2 * 6 * 2 * 25)
    assert module.codebook.kind == "codebook"


def test_given_indices_can_be_fed_through_the_hash() -> None:
    """With hash -> codeword 1 for the one pair and hash, r = W_r codebook[1]; nothing else reads the ids."""
    module = MemoNet(TWO, 2, codes=3, code_dim=1, hashes=1, shrink="sum").double()
    module.hash_pairs = lambda ids, left, right, hashes, codes: torch.ones(len(ids), 1, 1, dtype=torch.long)
    with torch.no_grad():
        module.codebook.weight.copy_(torch.tensor([[5.0], [7.0], [9.0]]))
        module.restorer.weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
        module.head.weight.fill_(0.0)
        module.head.weight[0, 6:9] = torch.tensor([1.0, 1.0, 2.0]).double()  # z of field 0: (7, 0, -7)
        module.head.weight[1, 9] = 1.0  # first number of z of field 1
        module.head.bias.fill_(0.5)
    output = module(torch.zeros(2, 2, 3).double(), torch.tensor([[0, 5], [4, 9]]))
    assert output.tolist() == [[-6.5, 7.5], [-6.5, 7.5]]


# ---- the hash -------------------------------------------------------------------------------------------------------


def test_splitmix_is_the_published_one() -> None:
    """First outputs of the reference generator for seed 1234567."""
    state, found = 1234567, []
    for _ in range(3):
        found.append(splitmix(state))
        state = (state + 0x9E3779B97F4A7C15) % BITS
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("codes", [1, 2, 97, 100_000, 2**31])
def test_hash_equals_python_integers(codes: int) -> None:
    """Ids up to 2^40 and fields without an id (-1) beside them."""
    ids = torch.tensor([[0, 1, -1, 5], [2**40, 7, -1, 2**31 - 1], [123_456_789, 0, -1, 3]])
    fields = list(combinations([0, 1, 3], 2))
    left, right = torch.tensor([i for i, _ in fields]), torch.tensor([j for _, j in fields])
    found = hash_pairs(ids, left, right, 3, codes)
    expected = [
        [[address(i, row[i], j, row[j], k, codes) for k in range(3)] for i, j in fields] for row in ids.tolist()
    ]
    assert found.tolist() == expected


def test_pinned_codewords() -> None:
    """A change of these numbers would silently change what every saved model has memorised."""
    found = hash_pairs(torch.tensor([[3, 1000, 42]]), torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), 2, 10_000)
    assert found.tolist() == [[[8109, 6905], [5292, 7177], [4100, 2809]]]


def test_every_input_counts_and_the_functions_differ() -> None:
    """(i, v_i, j, v_j, k): changing any one of them, or swapping the values, gives another codeword."""
    base = (1, 10, 2, 20, 0)
    others = [(3, 10, 2, 20, 0), (1, 11, 2, 20, 0), (1, 10, 4, 20, 0), (1, 10, 2, 21, 0), (1, 10, 2, 20, 1),
              (1, 20, 2, 10, 0)]  # fmt: skip

    def codeword(i: int, v_i: int, j: int, v_j: int, k: int) -> int:
        ids = torch.full((1, 5), 999)
        ids[0, i], ids[0, j] = v_i, v_j
        return int(hash_pairs(ids, torch.tensor([i]), torch.tensor([j]), 2, 2**62)[0, 0, k])

    assert len({codeword(*key) for key in [base, *others]}) == 7


def test_fields_outside_a_pair_do_not_count() -> None:
    ids = torch.tensor([[1, 2, 3], [1, 2, 77]])
    first, second = hash_pairs(ids, torch.tensor([0]), torch.tensor([1]), 2, 10**9)
    assert torch.equal(first, second)


def test_codewords_are_spread_evenly() -> None:
    """200 x 200 neighbouring ids into 100 codes: chi-square with 99 degrees, mean 99, sd 14; pairs of hashes too."""
    grid = torch.cartesian_prod(torch.arange(200), torch.arange(200, 400))
    found = hash_pairs(grid, torch.tensor([0]), torch.tensor([1]), 2, 100)[:, 0]
    assert int(found.min()) >= 0
    assert int(found.max()) < 100
    for k in range(2):
        counts = np.bincount(found[:, k].numpy(), minlength=100)
        assert ((counts - 400) ** 2 / 400).sum() < 99 + 5 * 14.1
    joint = np.bincount((found[:, 0] % 10 * 10 + found[:, 1] % 10).numpy(), minlength=100)
    assert ((joint - 400) ** 2 / 400).sum() < 99 + 5 * 14.1


# ---- what it shares and refuses -------------------------------------------------------------------------------------


def test_indices_are_shared_between_equal_hashes_only() -> None:
    first, second = MemoNet(SHAPE, 5, codes=50), MemoNet(SHAPE, 5, codes=50, restore="amr", shrink="none")
    assert first.share_key() == second.share_key()
    for options in ({"codes": 51}, {"hashes": 3}, {"top_fields": 3}):
        assert MemoNet(SHAPE, 5, **{"codes": 50, **options}).share_key() != first.share_key()
    assert first.prepare(inputs(SHAPE, 4)[1]).indices.shape == (4, 6, 2)


@pytest.mark.parametrize("id_fields", [(), (1,)])
def test_fewer_than_two_id_fields_are_refused(id_fields: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=rf"needs at least 2, but the data has {len(id_fields)} among 3 fields"):
        MemoNet(FieldShape(3, 4, id_fields, (5, 5, 5)), 5)


def test_top_fields_of_one_is_refused() -> None:
    with pytest.raises(UsageError, match="'top_fields' is 1; it must be at least 2"):
        MemoNet(SHAPE, 5, top_fields=1)


def test_the_authors_sizes_can_be_asked_for() -> None:
    """17 single-valued fields of 23, 136 pairs, no shrinking: [X; all pairs] -> 256; codebook 100 k x 64."""
    shape = FieldShape(23, 64, tuple(range(17)), (10,) * 23)
    with torch.device("meta"):
        module = MemoNet(shape, 256, codes=100_000, code_dim=64, hashes=2, shrink="none", top_fields=None)
    assert tuple(module.codebook.weight.shape) == (100_000, 64)
    assert tuple(module.restorer.weight.shape) == (64, 128)
    assert tuple(module.head.weight.shape) == (256, (23 + 136) * 64)
