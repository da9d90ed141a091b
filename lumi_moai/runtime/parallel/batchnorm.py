"""BatchNorm in training takes the statistics of the global batch, on every rank.

At the level of `F.batch_norm`, so that no module changes its class and checkpoints stay what they are. Means and
variances are those of all rows of all ranks, each row counted once, however unevenly the rows are shared out.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from .. import group
from . import compiled, counts
from .share import Share

ShareOf = Callable[[Share | None], Share | None]
"""How the rows at hand were cut, given what they themselves tell; None while every rank has all of them."""
_SUMMED = torch.float64
"""Sums travel in double, so that a variance is not lost in the square of a large mean."""


class _Normalised(torch.autograd.Function):
    """The normalised rows of this rank; the backward adds up over ranks what the forward did."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: Any, *shared: torch.Tensor) -> torch.Tensor:
        """*rows* less the mean, times the scale, both per channel.

        *shared* is these two, the global count, 1, or 0 for a stand-in row, which is in none of them, and in compiled
        code whether ranks share them.
        """
        mean, scale, n, counts, *is_shared = shared
        even = (rows.to(mean.dtype) - _across(mean, rows)) * _across(scale, rows)
        ctx.save_for_backward(even, weight, scale * counts, n, *is_shared)
        ctx.kind = rows.dtype
        return even if weight is None else even * _across(weight, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """The gradient of the rows, which runs through the shared mean and variance as well, and of the weight."""
        even, weight, scale, n, *is_shared = ctx.saved_tensors
        gradient = gradient.to(even.dtype)
        dims = _other_dims(even)
        of_even = gradient if weight is None else gradient * _across(weight, even)
        sums = torch.stack([of_even.sum(dims), (of_even * even).sum(dims)]).to(_SUMMED)
        first, second = (_total(sums, *is_shared) / n).to(even.dtype)
        of_rows = (of_even - _across(first, even) - even * _across(second, even)) * _across(scale, even)
        of_weight = None if weight is None else (gradient * even).sum(dims).to(weight.dtype)
        return of_rows.to(ctx.kind), of_weight, *[None] * (4 + len(is_shared))


def _total(sums: torch.Tensor, is_shared: torch.Tensor | None = None) -> torch.Tensor:
    return group.total(sums) if is_shared is None else compiled.total(sums, is_shared)


def install(share_of: ShareOf, said: Callable[[], None]) -> None:
    """Put ours in the place of torch's `F.batch_norm`; *said* is called whenever statistics were shared."""
    own = F.batch_norm

    def when_run(rows: torch.Tensor) -> compiled.Moments:
        mine = share_of(None)
        if mine is not None:
            said()
        return (
            *_statistics(rows, mine),
            torch.full((), float(mine is None or mine.rows > 0), device=rows.device),
            torch.tensor(mine is not None),
        )

    compiled.MOMENTS[:] = [when_run]

    @functools.wraps(own)
    def batch_norm(  # noqa: PLR0917  # torch's order
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if training and torch.compiler.is_compiling():
            running, affine = (running_mean, running_var), (weight, bias)
            return _over_ranks(input, running, affine, momentum, eps, shared=compiled.moments(input))
        mine = share_of(counts.share_of((input,))) if training else None
        if mine is None:
            return own(input, running_mean, running_var, weight, bias, training, momentum, eps)
        said()
        running, affine = (running_mean, running_var), (weight, bias)
        result = _over_ranks(input, running, affine, momentum, eps, shared=_shared(input, mine))
        return counts.part_of(
            result, input, getattr(input, "at", None)
        )  # where the script calls a layer without weights by itself

    F.batch_norm = batch_norm


def _over_ranks(
    rows: torch.Tensor,
    running: tuple[torch.Tensor | None, torch.Tensor | None],
    affine: tuple[torch.Tensor | None, torch.Tensor | None],
    momentum: float,
    eps: float,
    *,
    shared: Sequence[torch.Tensor],
) -> torch.Tensor:
    """*rows* normalised with what is *shared*: count, mean and variance, and the rest that `_Normalised` takes."""
    weight, bias = affine
    n, mean, variance, counts, *is_shared = shared
    _remember(running, momentum, mean, variance * (n / (n - 1)))
    kind = torch.promote_types(rows.dtype, torch.float32)
    scale = (variance + eps).rsqrt().to(kind)
    if weight is not None:
        weight = weight.reshape(-1)  # which gathers one that is spread, as a function of our own would not
    out = _Normalised.apply(rows, weight, mean.to(kind), scale, n, counts.to(kind), *is_shared)
    return (out if bias is None else out + _across(bias, rows)).to(rows.dtype)


def _shared(rows: torch.Tensor, share: Share) -> tuple[torch.Tensor, ...]:
    return *_statistics(rows, share), torch.full((), float(share.rows > 0), device=rows.device)


def _statistics(rows: torch.Tensor, share: Share | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of all ranks together: how many numbers a channel has, their mean and their variance (divided by that count).

    Without a *share*, of this rank alone. Raises ValueError, as torch does, for a channel with one number only.
    """
    with torch.no_grad():
        spread, centre = torch.var_mean(
            rows.to(torch.promote_types(rows.dtype, torch.float32)), _other_dims(rows), correction=0
        )
        centre, spread = centre.to(_SUMMED), spread.to(_SUMMED)
        count = torch.full_like(centre, rows.numel() / rows.shape[1])
        mine = torch.stack([count, count * centre, count * (spread + centre**2)])
        # A stand-in row counts for nothing.
        if share is not None:
            mine = group.total(mine if share.rows else torch.zeros_like(mine))
        n, total, squares = mine
        if n[0] <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {rows.size()}")
        mean = total / n
        return n, mean, (squares / n - mean**2).clamp_min(0)


def _remember(running: tuple[Any, Any], momentum: float, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Move the *running* statistics of the module towards those of the batch."""
    with torch.no_grad():
        for kept, new in zip(running, (mean, variance), strict=True):
            if kept is not None:
                kept.mul_(1 - momentum).add_(new.to(kept.dtype), alpha=momentum)


def _other_dims(rows: torch.Tensor) -> list[int]:
    return [dim for dim in range(rows.dim()) if dim != 1]


def _across(per_channel: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """One number per channel, in the shape that spreads over *rows*."""
    return per_channel.reshape(1, -1, *[1] * (rows.dim() - 2))
