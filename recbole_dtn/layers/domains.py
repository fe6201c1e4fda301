"""Parts of models whose parameters belong to a domain: only those of each row's own domain are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from recbole_dtn.kernels.products import linear
from recbole_dtn.layers.linear import Linear

__all__ = ["DomainEmbedding", "DomainRows", "PartitionedNorm", "SeenDomains", "StarLinear"]


@dataclass(frozen=True)
class DomainRows:
    """The rows of a batch, sorted by domain: one stretch of rows for each domain, which may be empty.

    Attributes:
        order: (B,) int64, the rows by domain, those of one domain in their order. inverse: its inverse. sizes: rows of
            each domain.

    >>> rows = DomainRows.of(torch.tensor([2, 0, 2]), domains=3)
    >>> [part.tolist() for part in rows.split(torch.tensor([5, 6, 7]))]
    [[6], [], [5, 7]]
    >>> rows.join(rows.split(torch.tensor([5, 6, 7]))).tolist()
    [5, 6, 7]
    """

    order: Tensor
    inverse: Tensor
    sizes: list[int]

    @classmethod
    def of(cls, domain: Tensor, domains: int) -> DomainRows:
        """From the domain (B,) of each row, and the number of domains.

        Where a program is exported, whose sizes cannot depend on values, every part has all rows, and each row of the
        batch is read from the part of its own domain.
        """
        if _exporting():
            rows = domain.shape[0]
            places = torch.arange(rows, device=domain.device)
            return cls(places.repeat(domains), domain * rows + places, [rows] * domains)
        order = torch.argsort(domain, stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        if domain.is_meta:  # no values: with any sizes the shapes of results are the same
            return cls(order, inverse, [len(domain), *[0] * (domains - 1)])
        return cls(order, inverse, torch.bincount(domain, minlength=domains).tolist())

    def split(self, x: Tensor) -> list[Tensor]:
        """(B, ...) -> (B_d, ...) for each domain d."""
        return list(x.index_select(0, self.order).split(self.sizes))  # type: ignore[no-untyped-call]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """(B_d, ...) of each domain -> (B, ...), in the order of the batch."""
        return torch.cat(list(parts)).index_select(0, self.inverse)


class SeenDomains(nn.Module):
    """Counts the training rows of each domain, so that a domain without any can be told in evaluation.

    Args:
        domains: N_d.
    """

    def __init__(self, domains: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(domains, dtype=torch.int64))
        self.rows: Tensor

    def forward(self, domain: Tensor) -> Tensor:
        """(B,) -> (N_d,), 1 for a domain with training rows and 0 for another; in training these rows count."""
        if self.training:
            counts = torch.zeros_like(self.rows).index_add_(0, domain, torch.ones_like(domain))
            if _processes() > 1:
                torch.distributed.all_reduce(counts)
            self.rows.add_(counts)
        return (self.rows > 0).float()


class DomainEmbedding(nn.Embedding):
    """A learned vector for each domain. In evaluation a domain without a training row has the mean of the others.

    Args:
        domains: N_d. width: of a vector. std: standard deviation of the initial vectors.

    >>> table = DomainEmbedding(3, 1, std=0.1)
    >>> _ = table.weight.data.copy_(torch.tensor([[1.0], [2.0], [50.0]]))
    >>> _ = table(torch.tensor([0, 1]))
    >>> table.eval()(torch.tensor([0, 1, 2])).flatten().tolist()
    [1.0, 2.0, 1.5]
    """

    def __init__(self, domains: int, width: int, *, std: float) -> None:
        super().__init__(domains, width)
        nn.init.normal_(self.weight, std=std)
        self.seen = SeenDomains(domains)

    def forward(self, input: Tensor) -> Tensor:
        """(B,) -> (B, width)."""
        known = self.seen(input).to(self.weight.dtype).unsqueeze(1)
        if self.training:
            return super().forward(input)
        mean = (known * self.weight).sum(0) / known.sum().clamp_min(1.0)
        vectors: Tensor = known * self.weight + (1.0 - known) * mean
        return vectors.index_select(0, input)


class StarLinear(Linear):
    """``x (W * W_d) + b + b_d`` for a row of domain d: what all domains share, times and plus what is the domain's.

    W starts as Xavier's and b as 0; W_d = 1 and b_d = 0, so that all domains start equal and at the scale of W. W_d is
    kept as ``1 + offset``, full or ``A_d B_d``. A domain without a training row has W_d = 1 and b_d = 0.

    Args:
        input_dim: n. output_dim: m. domains: N_d. low_rank: r of A_d (m, r) and B_d (r, n), whose product starts at
            a standard deviation of .01; None: (m, n) in full.
    """

    def __init__(self, input_dim: int, output_dim: int, domains: int, *, low_rank: int | None = None) -> None:
        super().__init__(input_dim, output_dim)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)
        self.low_rank = low_rank
        if low_rank is None:
            self.offsets = nn.Parameter(torch.zeros(domains, output_dim, input_dim))
        else:
            # Not 0: with one factor at 0 the other has no gradient.
            self.left = nn.Parameter(0.1 * torch.randn(domains, output_dim, low_rank))
            self.right = nn.Parameter(0.1 / low_rank**0.5 * torch.randn(domains, low_rank, input_dim))
        self.bias_offsets = nn.Parameter(torch.zeros(domains, output_dim))

    def of_domains(self, known: Tensor) -> list[tuple[Tensor, Tensor]]:
        """``W * W_d`` (m, n) and ``b + b_d`` (m,) of each domain; ``known`` is of :class:`SeenDomains`."""
        known = known.to(self.weight.dtype)
        offsets = self.offsets if self.low_rank is None else self.left @ self.right
        weights = self.weight * (1.0 + known[:, None, None] * offsets)
        biases = self.bias + known[:, None] * self.bias_offsets
        return list(zip(weights.unbind(0), biases.unbind(0), strict=True))

    def of_parts(self, parts: Sequence[Tensor], known: Tensor, *, activate: bool) -> list[Tensor]:
        """(B_d, n) of each domain -> (B_d, m), through a ReLU or without."""
        activation: Literal["relu", "none"] = "relu" if activate else "none"
        pairs = zip(parts, self.of_domains(known), strict=True)
        if self.fused:
            return [linear(part, weight, bias, activation) for part, (weight, bias) in pairs]
        mapped = [torch.nn.functional.linear(part, weight, bias) for part, (weight, bias) in pairs]
        return [torch.relu(part) for part in mapped] if activate else mapped


class PartitionedNorm(nn.Module):
    """Normalisation of each domain by its own moments.

    ``gamma gamma_d (x - mu_d) / sqrt(var_d + eps) + beta + beta_d``.

    In training mu_d and var_d (biased) are those of the domain's n_d rows in the batch, over all processes, drawn
    towards those of all rows: ``mu_d <- (n_d mu_d + shrinkage mu) / (n_d + shrinkage)``, second moments likewise. In
    evaluation they are moving averages, kept for each domain. A domain's average moves with the weight
    ``1 - (1 - momentum)^(N_d n_d / B)``, which is the momentum where n_d is an even share, so that rare domains neither
    lag nor jump; it starts from the average over all rows. A domain with fewer than ``min_rows`` rows in a training
    batch is normalised by its moving averages, which then stay; one that never had as many by those of all rows.

    gamma = gamma_d = 1 and beta = beta_d = 0 at first; gamma_d is kept as ``1 + offset``.

    Args:
        width: of x. domains: N_d. momentum, min_rows, shrinkage, eps: as above; min_rows is at least 2.
    """

    def __init__(
        self,
        width: int,
        domains: int,
        *,
        momentum: float = 0.1,
        min_rows: int = 2,
        shrinkage: float = 64.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.momentum, self.min_rows, self.shrinkage, self.eps = momentum, max(2, min_rows), shrinkage, eps
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))
        self.gamma_offsets = nn.Parameter(torch.zeros(domains, width))
        self.beta_offsets = nn.Parameter(torch.zeros(domains, width))
        self.register_buffer("mean", torch.zeros(domains, width))
        self.register_buffer("variance", torch.ones(domains, width))
        self.register_buffer("moved", torch.zeros(domains, dtype=torch.bool))
        self.register_buffer("shared_mean", torch.zeros(width))
        self.register_buffer("shared_variance", torch.ones(width))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.mean: Tensor
        self.variance: Tensor
        self.moved: Tensor
        self.shared_mean: Tensor
        self.shared_variance: Tensor
        self.started: Tensor

    def forward(self, x: Tensor, domain: Tensor, known: Tensor) -> Tensor:
        """(B, width), (B,), (N_d,) of :class:`SeenDomains` -> (B, width)."""
        # At least float32: a difference of sums would lose its digits in fewer bits.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance = self._of_batch(x, domain) if self.training else self._moving()
        known = known.to(x.dtype).unsqueeze(1)
        scale = self.gamma * (1.0 + known * self.gamma_offsets) * torch.rsqrt(variance + self.eps)
        shift = self.beta + known * self.beta_offsets
        centred = x - mean.index_select(0, domain)
        return centred * scale.index_select(0, domain) + shift.index_select(0, domain)

    def _moving(self) -> tuple[Tensor, Tensor]:
        """(N_d, width) each; copies, as autograd keeps them and a later forward changes the buffers in place."""
        own = self.moved.unsqueeze(1)
        return torch.where(own, self.mean, self.shared_mean), torch.where(own, self.variance, self.shared_variance)

    # Traced, its gradient would be wrong: the backward pass reads shared_mean, which is moved in place below.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _of_batch(self, x: Tensor, domain: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N_d, width) that a training batch is normalised by; the moving averages follow."""
        # Sums of differences from the moving mean, the same on every process: less cancels in the variance.
        origin = self.shared_mean.clone()
        centred = x - origin
        ones = x.new_ones(len(x), 1)
        sums = x.new_zeros(len(self.moved), 1 + 2 * x.shape[1])
        sums = _sum_of_processes(sums.index_add(0, domain, torch.cat([ones, centred, centred.square()], dim=1)))
        rows = sums[:, :1].detach()
        first, second = sums[:, 1:].chunk(2, dim=1)
        total = rows.sum()
        mean_of_all, square_of_all = first.sum(0) / total, second.sum(0) / total
        # At least 1: an absent domain would otherwise have moments 0 / 0, whose NaN reaches gradients.
        mass = (rows + self.shrinkage).clamp_min(1.0)
        mean = (first + self.shrinkage * mean_of_all) / mass
        variance = ((second + self.shrinkage * square_of_all) / mass - mean.square()).clamp_min(0.0)
        mean = mean + origin
        enough = rows >= self.min_rows
        with torch.no_grad():
            self._move_shared(mean_of_all + origin, (square_of_all - mean_of_all.square()).clamp_min(0.0), total)
            moving_mean, moving_variance = self._moving()
            weight = 1.0 - (1.0 - self.momentum) ** (len(rows) * rows / total)
            weight = torch.where(enough, weight, 0.0)
            self.mean.copy_(torch.lerp(moving_mean, mean, weight))
            self.variance.copy_(torch.lerp(moving_variance, variance, weight))
            self.moved.logical_or_(enough.squeeze(1))
        return torch.where(enough, mean, moving_mean), torch.where(enough, variance, moving_variance)

    def _move_shared(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        """The moving averages over all rows: the first batch's, then moved by the momentum; one row moves nothing."""
        weight = torch.where(self.started, mean.new_full((), self.momentum), 1.0) * (total > 1)
        self.shared_mean.lerp_(mean, weight)
        self.shared_variance.lerp_(variance, weight)
        self.started.logical_or_(total > 1)


def _exporting() -> bool:
    known = getattr(torch.compiler, "is_exporting", None)  # since torch 2.7
    return known is not None and bool(known())


def _processes() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def _sum_of_processes(value: Tensor) -> Tensor:
    """The sum over processes, with gradients."""
    if _processes() == 1:
        return value
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]
    return summed
