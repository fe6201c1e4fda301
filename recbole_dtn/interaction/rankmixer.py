"""RankMixer: tokens that exchange parts without parameters, and a feed-forward network for every token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as functional
from pydantic import Field
from torch import Tensor, nn

from recbole_dtn.config.settings import Count, NonNegative
from recbole_dtn.errors import UsageError
from recbole_dtn.interaction.base import FeatureInteraction, FieldShape, WithAuxiliary
from recbole_dtn.layers.linear import Linear
from recbole_dtn.registry import INTERACTIONS

__all__ = ["RankMixer", "TokenNetworks", "mix_tokens"]


def mix_tokens(tokens: Tensor) -> Tensor:
    """Token n of the output has the n-th of N equal parts of every token: (B, N, H) -> (B, N, H), N dividing H.

    Applied twice it is the identity.

    >>> mix_tokens(torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]])).tolist()
    [[[1, 2, 5, 6], [3, 4, 7, 8]]]
    """
    count = tokens.shape[1]
    parts: Tensor = tokens.unflatten(2, (count, -1))  # type: ignore[no-untyped-call]
    return parts.transpose(1, 2).flatten(2)


class TokenLinear(nn.Module):
    """One linear map for each token: ``y_n = W_n^T x_n + b_n``, all as one batched product.

    Drawn as ``nn.Linear`` draws each.

    Args:
        count: N. width_in, width_out: of every map.
    """

    def __init__(self, count: int, width_in: int, width_out: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(width_in)
        self.weight = nn.Parameter(torch.empty(count, width_in, width_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, width_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, width_in) -> (N, B, width_out)."""
        return torch.baddbmm(self.bias, x, self.weight)


class TokenNetworks(nn.Module):
    """``PFFN(s_n) = W_2 GELU(W_1 s_n + b_1) + b_2``, every token with its own parameters; or a mixture of such.

    With E > 1 experts for each token, expert e of token n has the weight ``ReLU(r_n)_e`` with r_n linear in s_n. In
    training it is the mean of that and of the softmax of a second router, so that every expert gets a gradient.

    Args:
        count: N. width: H. hidden: width of W_1's output. experts: E.
    """

    def __init__(self, count: int, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.experts = experts
        # The E experts of a token side by side: columns e * hidden ... of the first map, rows of the second.
        self.first = TokenLinear(count, width, experts * hidden)
        bound = 1.0 / math.sqrt(hidden)
        self.weight = nn.Parameter(torch.empty(count, experts * hidden, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, experts, width).uniform_(-bound, bound))
        self.router = self.dense_router = None
        if experts > 1:
            self.router, self.dense_router = (TokenLinear(count, width, experts) for _ in range(2))
            # All experts are open at first, and their weights add up to 1, as those of the softmax do.
            nn.init.zeros_(self.router.weight)
            nn.init.constant_(self.router.bias, 1.0 / experts)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, B, H) -> the same shape, and the ReLU router's weights (N, B, E), None for one expert."""
        hidden = functional.gelu(self.first(tokens))
        if self.router is None or self.dense_router is None:
            return torch.baddbmm(self.bias, hidden, self.weight), None
        routes = weights = torch.relu(self.router(tokens))
        if self.training:
            weights = 0.5 * (routes + torch.softmax(self.dense_router(tokens), dim=2))
        # sum_e g_e (W_2e h_e + b_2e): the weights scale the hidden units, then one product for all experts.
        scaled = (hidden.unflatten(2, (self.experts, -1)) * weights.unsqueeze(3)).flatten(2)  # type: ignore[no-untyped-call]
        return torch.bmm(scaled, self.weight) + torch.bmm(weights, self.bias), routes


class Block(nn.Module):
    """``S = LN(Mix(X) + X); X' = LN(PFFN(S) + S)``, the norms over H and the same for all tokens.

    Args:
        count: N. width: H. hidden, experts: of the :class:`TokenNetworks`.
    """

    def __init__(self, count: int, width: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.mix_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.networks = TokenNetworks(count, width, hidden, experts)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, N, H) -> the same shape, and the ReLU router's weights (N, B, E) or None."""
        mixed = self.mix_norm(mix_tokens(tokens) + tokens)
        changed, routes = self.networks(mixed.transpose(0, 1))
        return self.norm(changed.transpose(0, 1) + mixed), routes


class ChunkTokens(nn.Module):
    """x, padded with zeros to N chunks of equal width, through one linear map for all: (B, F, D) -> (B, N, H)."""

    def __init__(self, flat_dim: int, count: int, width: int) -> None:
        super().__init__()
        self.count = count
        chunk = -(-flat_dim // count)  # rounded up
        self.padding = count * chunk - flat_dim
        self.project = Linear(chunk, width)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, N, H)."""
        x = functional.pad(embeddings.flatten(1), (0, self.padding))
        tokens: Tensor = self.project(x.unflatten(1, (self.count, -1)))  # type: ignore[no-untyped-call]
        return tokens


class GroupTokens(nn.Module):
    """Token n is a linear map of its own of the fields of group n.

    The groups are padded to the largest one for one batched product; the parameters are not.
    """

    def __init__(self, groups: Sequence[Sequence[int]], embedding_dim: int, width: int) -> None:
        super().__init__()
        maps = [nn.Linear(len(group) * embedding_dim, width) for group in groups]
        self.weights = nn.ParameterList(each.weight.detach().t().contiguous() for each in maps)
        self.bias = nn.Parameter(torch.stack([each.bias.detach() for each in maps]).unsqueeze(1))
        most = max(map(len, groups))
        # The zero field is behind the last one.
        nothing = sum(map(len, groups))
        index = [[*group, *[nothing] * (most - len(group))] for group in groups]
        self.fields: Tensor
        self.register_buffer("fields", torch.tensor(index).flatten(), persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, N, H)."""
        weight = nn.utils.rnn.pad_sequence([*self.weights], batch_first=True)  # (N, widest group, H)
        padded = functional.pad(embeddings, (0, 0, 0, 1)).index_select(1, self.fields)
        padded = padded.view(len(embeddings), *weight.shape[:2])
        return torch.baddbmm(self.bias, padded.transpose(0, 1), weight).transpose(0, 1)


@INTERACTIONS.register("rankmixer", paper="Zhu et al., CIKM 2025")
class RankMixer(FeatureInteraction):
    """Tokens exchange their parts, then every token passes a feed-forward network of its own.

    RankMixer (Zhu et al., CIKM 2025, arXiv 2507.15551). With N tokens X (N, H) and L blocks::

        X_0    = W_p chunk_n(x) + b_p               (eq. 2: x in N equal chunks, one map for all)
        S      = LN(Mix(X) + X),   X' = LN(PFFN(S) + S)                     (eq. 1)
        PFFN_n(s) = W_2n GELU(W_1n s + b_1n) + b_2n
        output = W_o mean_n(X_L,n) + b_o

    Mix has no parameters: it views X as (N, N, H/N), swaps the two axes of length N and flattens, so that
    Mix(Mix(X)) = X. x = flat(embeddings), padded with zeros to N chunks; a chunk of zeros alone gives a token that is
    the same for all rows. With ``groups``, token n is a map of its own of the fields of group n. The order of the
    fields matters.

    With ``experts`` E > 1, a token has E networks (sparse mixture of experts, ReLU routing)::

        PFFN_n(s) = sum_e g_ne E_ne(s),   g = ReLU(R s + r)                  in evaluation
                                          g = 1/2 ReLU(R s + r) + 1/2 softmax(R' s + r')   in training
        loss      = router_l1 * mean over the rows of the sum over blocks, tokens and experts of ReLU(R s + r)

    The loss makes the routes sparse; the model adds it times its setting ``aux_weight``. The paper trains both routers
    and says not how their outputs join: the mean is as specified here, as is the start, R = 0 and r = 1/E.

    Args:
        shape: sizes of the input. output_dim: O.
        layers: L. tokens: N. width: H, a multiple of N. hidden_factor: hidden width of a network over H.
        groups: positions of each token's fields; their number is then N. None: equal chunks of x.
        experts: E. router_l1: of the loss; only with experts.

    Raises:
        UsageError: if N does not divide H, or the groups do not hold every field once.

    >>> shape = FieldShape(num_fields=3, embedding_dim=4, id_fields=(0, 1, 2), field_sizes=(5, 5, 5))
    >>> RankMixer(shape, 6)(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 6])
    """

    def __init__(
        self,
        shape: FieldShape,
        output_dim: int,
        *,
        layers: Annotated[Count, Field(description="blocks")] = 2,
        tokens: Annotated[Count, Field(description="tokens, equal chunks of the flat embeddings")] = 8,
        width: Annotated[Count, Field(description="width of a token, a multiple of the number of tokens")] = 32,
        hidden_factor: Annotated[Count, Field(description="hidden width of a token's network over its width")] = 4,
        groups: Annotated[
            Sequence[Sequence[Annotated[int, Field(ge=0)]]] | None,
            Field(description="positions of the fields of each token, every field once; null: equal chunks"),
        ] = None,
        experts: Annotated[Count, Field(description="networks of each token; 1: no router")] = 1,
        router_l1: Annotated[NonNegative, Field(description="factor of the router's L1 in the auxiliary loss")] = 1.0,
    ) -> None:
        super().__init__(shape, output_dim)
        count = tokens if groups is None else len(groups)
        if groups is not None:
            _check_groups(groups, shape.num_fields)
        _check_width(width, count)
        self.router_l1 = router_l1
        self.tokens = (
            ChunkTokens(shape.flat_dim, count, width)
            if groups is None
            else GroupTokens(groups, shape.embedding_dim, width)
        )
        self.blocks = nn.ModuleList(Block(count, width, hidden_factor * width, experts) for _ in range(layers))
        self.head = Linear(width, output_dim)

    def forward(self, embeddings: Tensor, ids: Tensor, shared: Any = None) -> Tensor | WithAuxiliary:
        """Embeddings (B, F, D) -> (B, O), with the router's loss if there are experts; no id is read."""
        tokens = self.tokens(embeddings)
        found: list[Tensor] = []
        for block in self.blocks:
            tokens, routes = block(tokens)
            if routes is not None:
                found.append(routes)
        output: Tensor = self.head(tokens.mean(1))
        if not found:
            return output
        # ReLU leaves no negative value: the L1 is the sum.
        return WithAuxiliary(output, self.router_l1 * torch.stack(found).sum() / max(1, len(embeddings)))


def _check_width(width: int, count: int) -> None:
    if width % count:
        below, above = width - width % count, width - width % count + count
        nearest = f"{below} or {above}" if below else f"{above}"
        raise UsageError(
            f"rankmixer: width: {width} is no multiple of the number of tokens ({count}), and every token gives each "
            f"token an equal part: choose {nearest}"
        )


def _check_groups(groups: Sequence[Sequence[int]], num_fields: int) -> None:
    found = sorted(position for group in groups for position in group)
    if found != list(range(num_fields)) or not all(groups):
        raise UsageError(
            f"rankmixer: groups: expected every position from 0 to {num_fields - 1} once, in groups of at least one "
            f"field; found {[list(group) for group in groups]}"
        )
