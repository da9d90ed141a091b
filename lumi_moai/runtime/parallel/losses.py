"""Means and sums over the batch, in torch's loss functions, become those over the global batch.

With w the rank's weight and S its own sum, such a loss returns the value `sum of S over ranks / sum of counts` on every
rank, and its gradient is `dS / (sum of counts) / w`. The ranks' gradients are later averaged with their weights, so
that the w cancels: exact for any numbers of rows and of tokens that `ignore_index` leaves, and still right when the
script adds other terms to it, a function of the weights or another mean over rows.

In code that torch.compile makes, a graph runs for many batches, so nothing of the batch at hand may be written into it:
there the loss is an operator of ours, which asks whenever it runs how the batch was cut.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch.nn._reduction import legacy_get_string

from .. import group
from . import alike, compiled, under_way
from .by_model import note_sum
from .counts import are_of_all, are_picked, fitting, like_rows, of_all, share_of
from .divided import Divisor
from .marks import mark
from .share import Share, weight_in_backward
from .transforming import is_transforming

_REDUCING = ("mean", "sum", "batchmean")
CurrentShare = Callable[[Share | None], Share | None]


class Collector(Protocol):
    """Takes the losses of a model that is computed in pieces."""

    share: Share

    def __call__(self, own: torch.Tensor, count: Any) -> torch.Tensor:
        """The loss whose sum over this piece is *own*."""

    def value_and_factor(self, own: torch.Tensor, count: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The value of that loss, and what the gradient of *own* is multiplied by."""


_COLLECTORS: list[Collector] = []


@contextmanager
def collecting(collector: Collector) -> Iterator[None]:
    """Give the losses computed inside to *collector*."""
    _COLLECTORS.append(collector)
    try:
        yield
    finally:
        _COLLECTORS.pop()


class OfAllRanks(torch.autograd.Function):
    """A value that all ranks share, whose gradient goes to this rank's own sum."""

    @staticmethod
    def forward(
        ctx: Any, own: torch.Tensor, value: torch.Tensor, factor: torch.Tensor, share: Share | None = None
    ) -> torch.Tensor:
        """*value*; *own* is the rank's sum, whose gradient is multiplied by *factor* where *share* weighs the ranks."""
        ctx.save_for_backward(factor)
        ctx.share = share
        return value.to(own.dtype, copy=True)  # what a function returns as it came may not be edited in place

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The gradient of the rank's sum."""
        (factor,) = ctx.saved_tensors
        if ctx.share is not None and ctx.share.rows:
            factor = factor * (ctx.share.weight / weight_in_backward(ctx.share))
        return gradient * factor.to(gradient.dtype), None, None, None


def of_all_ranks(
    own: torch.Tensor, count: torch.Tensor | float | None, share: Share, before: under_way.Counts | None = None
) -> torch.Tensor:
    """The sum of *own* over ranks, over that of *count*; without a count, the sum.

    *before*, what this loss was divided by last, allows the loss to be under way for a while.
    """
    if _COLLECTORS:
        return _COLLECTORS[-1](own, count)
    mine = _mine(own, count, share)
    if before is not None and own.dim() == 0 and own.requires_grad and torch.is_grad_enabled():
        return mark(under_way.begin(own, mine, share, None if count is None else before))
    return of_all(mark(OfAllRanks.apply(own, *_totalled(mine, share, is_sum=count is None), share)))


def _mine(own: torch.Tensor, count: torch.Tensor | float | None, share: Share) -> torch.Tensor:
    """Sum and count of this rank as numbers."""
    alike.check(share, alike.Doing.loss)
    with torch.no_grad():  # not detach(), which is ours and would ask all ranks
        counts = own.new_ones(()) if count is None else torch.as_tensor(count, device=own.device)
        mine = torch.stack([own.double(), counts.double().expand_as(own)])
    return mine if share.rows else torch.zeros_like(mine)  # a stand-in row counts for nothing


def _when_run(own: torch.Tensor, count: torch.Tensor | None, share: Share | None) -> compiled.Loss:
    """Value and factor of a compiled loss, of a batch that was cut as *share* says."""
    if _COLLECTORS:
        return _COLLECTORS[-1].value_and_factor(own, count)
    if share is None:
        divisor = torch.ones_like(own, dtype=torch.float64) if count is None else count.double()
        return own.double() / divisor, 1 / divisor
    return _totalled(_mine(own, count, share), share, is_sum=count is None)


def _totalled(mine: torch.Tensor, share: Share, *, is_sum: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The value of the loss of which this rank has sum and count *mine*, and the factor of that sum's gradient."""
    sums, counted = group.total(mine)
    divisor = torch.ones_like(counted) if is_sum else counted
    return sums / divisor, torch.zeros_like(divisor) if share.rows == 0 else 1 / (divisor * share.weight)


_BY_HAND = under_way.Counts()


def by_hand(own: torch.Tensor, count: torch.Tensor | float | None, share: Share) -> torch.Tensor:
    """The same for a loss that the script writes as a sum or a mean."""
    return of_all_ranks(own, count, share, _BY_HAND)


def globalised(
    function: Callable[..., torch.Tensor],
    count: Callable[..., Any],
    share: CurrentShare,
    reductions: Sequence[str] = _REDUCING,
) -> Callable[..., Any]:
    """The loss *function* with one of *reductions*, over the global batch whenever the batch at hand was cut."""
    signature = inspect.signature(function)
    before = under_way.Counts()
    within: list[None] = []  # torch calls the loss by its name once more when a torch function mode is at work

    @functools.wraps(function)
    def over_ranks(*args: Any, **kwargs: Any) -> torch.Tensor:
        if within or is_transforming():
            return function(*args, **kwargs)
        is_traced = torch.compiler.is_compiling()
        mine = None if is_traced else _share_at_hand(share, (*args, *kwargs.values()))
        if mine is None and not is_traced:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        words = given.arguments
        if "input" in words and "target" in words:
            words["input"], words["target"] = fitting(words["input"], words["target"])
        if are_of_all(list(words.values())):
            return of_all(function(*given.args, **given.kwargs))  # each rank has all of these rows
        reduction = _reduction(words)
        is_of_picked = reduction == "mean" not in reductions and are_picked(words.values())
        is_of_rows = reduction not in reductions and not is_of_picked
        if not is_of_rows and "input" in words and words["input"].dtype == torch.float16:
            words["input"] = words["input"].float()  # whose sums overflow at 65504
        within.append(None)
        try:
            own = function(**{**words, "reduction": reduction if is_of_rows else "sum"})
            is_sum = reduction == "sum" or is_of_rows
            counted = None if is_sum else _numbers(function, words) if is_of_picked else count(words)
        finally:
            within.clear()
        if is_of_rows:
            return _of_rows(own, words, mine, before)
        if mine is None:
            return compiled.loss(own, counted)
        loss = of_all_ranks(own, counted, mine, before)
        if reduction == "sum" and not note_sum() and isinstance(loss, under_way.Pending):
            under_way.note_sum(loss, Divisor(words.values(), mine.rows))
        return loss

    return over_ranks


def _of_rows(own: torch.Tensor, words: dict[str, Any], mine: Share | None, before: under_way.Counts) -> Any:
    """A loss that gives each row a number, or the mean *own* of this rank's rows, which becomes that of all."""
    if words["reduction"] != "mean" or mine is None or _COLLECTORS:
        return like_rows(own, words.values())
    return of_all_ranks(own * mine.rows, mine.rows, mine, before)


def _share_at_hand(share: CurrentShare, given: Iterable[Any]) -> Share | None:
    return _COLLECTORS[-1].share if _COLLECTORS else share(share_of(given))


def _reduction(words: dict[str, Any]) -> str:
    """How a loss with *words* is reduced; what torch has named otherwise until 0.4 becomes that name in *words*."""
    older = [words.pop(name, None) for name in ("size_average", "reduce")]
    if any(each is not None for each in older):
        words["reduction"] = legacy_get_string(*older, emit_warning=False)
    return words["reduction"]


def _numbers(function: Callable[..., torch.Tensor], words: Mapping[str, Any]) -> int:
    """How many numbers the mean by *function* is of."""
    with torch.no_grad():
        return function(**{**words, "reduction": "none"}).as_subclass(torch.Tensor).numel()


def _elements(words: Mapping[str, Any]) -> float:
    if words["reduction"] == "batchmean":
        return words["input"].shape[0]
    return torch.broadcast_shapes(words["input"].shape, words["target"].shape).numel()


def _weighted_elements(words: Mapping[str, Any]) -> Any:
    weight = words.get("weight")
    return _elements(words) if weight is None else weight.sum()


def _tokens(words: Mapping[str, Any]) -> Any:
    """What torch divides a mean by: the targets that are not ignored, each with the weight of its class."""
    target, weight = words["target"], words["weight"]
    if target.dtype.is_floating_point:  # probabilities instead of classes: torch divides by the number of rows
        return target.numel() / target.shape[1 if target.dim() > 1 else 0]
    counted = target != words["ignore_index"]
    if weight is None:
        return counted.sum()
    return (weight[target.where(counted, 0)] * counted).sum()


_COUNTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "cross_entropy": _tokens,
    "nll_loss": _tokens,
    "mse_loss": _weighted_elements,
    "l1_loss": _weighted_elements,
    "smooth_l1_loss": _elements,
    "huber_loss": _elements,
    "kl_div": _elements,
    "binary_cross_entropy": _elements,
    "binary_cross_entropy_with_logits": _elements,
}
_MEANS_OF_ROWS = (
    *("cosine_embedding_loss", "ctc_loss", "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss"),
    *("multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "poisson_nll_loss"),
    *("soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss"),
)
"""Losses whose mean gives each row the same weight, as a mean by hand does: only their sum tells how much it is of.

But for rows that each rank has picked, such as the nodes of its graphs: their number is no rank's weight.
"""


def install(share: CurrentShare) -> None:
    """Put the global losses in the place of torch's own.

    *share* tells how the batch at hand was cut, given how the batch of the loss was.
    """
    compiled.LOSS[:] = [lambda own, count: _when_run(own, count, share(None))]
    for name, count in _COUNTS.items():
        setattr(F, name, globalised(getattr(F, name), count, share))
    for name in _MEANS_OF_ROWS:
        setattr(F, name, globalised(getattr(F, name), _elements, share, ("sum",)))
