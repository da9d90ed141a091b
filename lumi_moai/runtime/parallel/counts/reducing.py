"""Sums, means and other numbers over the rows of a batch, which are those of all ranks."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import group
from .. import marks
from ..share import Share
from . import rows, steps
from .constants import own_rows
from .felt import felt_by_all
from .names import DIM_AT, LAST_DIM, OF_MATRIX, OVER_ALL, SECOND_DIM, SORTED_IN
from .places import FIRST, JOINED, PICKED, Part
from .whole import of_all

Loss = Callable[[torch.Tensor, torch.Tensor | float | None, Share], torch.Tensor]
LOSS: list[Loss] = []
"""Makes the sum over ranks, over that of the counts, of what depends on the model."""
ALL = object()
"""In the place of a dimension: the number is of all ranks."""
_KEEPING = {"softmax", "log_softmax", "softmin", "cumsum", "cumprod", "logcumsumexp", "roll", "flip", "normalize"}
"""What gives a number for each row, which depends on all rows."""


def goes_over_rows(name: str, tensor: Part, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether *name*, called with *args* and *kwargs*, needs the rows of all ranks."""
    over = _over(name, tensor, args, kwargs)
    return bool(over) and (
        len(over) == tensor.dim() or tensor.at in over or (tensor.at in (PICKED, JOINED) and 0 in over)
    )


def _over(name: str, tensor: Part, args: tuple, kwargs: dict[str, Any]) -> list[int]:
    """The dimensions that *name* goes over."""
    dims, at = tensor.dim(), DIM_AT.get(name, 1)
    if name in OVER_ALL:
        return list(range(dims))
    if name in OF_MATRIX:
        return list(range(dims))[-2:]
    dim = args[at] if len(args) > at else kwargs.get("dim", kwargs.get("axis"))
    if isinstance(dim, torch.Tensor) or isinstance(kwargs.get("other"), torch.Tensor):
        return []  # the larger of two tensors
    if dim is None or isinstance(dim, bool):
        return [dims - 1] if name in LAST_DIM else [1 % dims] if name in SECOND_DIM else list(range(dims))
    return [each % dims for each in (dim if isinstance(dim, (tuple, list)) else [dim])]


def added(
    name: str, tensor: Part, result: torch.Tensor, args: tuple, kwargs: dict[str, Any]
) -> tuple[torch.Tensor, Any]:
    """What *result*, of this rank, is over all ranks; and the dimension of the rows that are left, or ALL."""
    over, at = _over(name, tensor, args, kwargs), tensor.at
    if len(over) != tensor.dim() and at not in over and not (at in (PICKED, JOINED) and 0 in over):
        return result, None if at is None else at if at in (PICKED, JOINED) else steps.without(at, over, tensor, result)
    count = tensor.numel() / max(result.numel(), 1)
    if result.requires_grad:
        return _loss(name, tensor, result, count), ALL
    return marks.mark(_REDUCE[name](tensor.share, result, count)), ALL


def kept(name: str, parts: Sequence[Part], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int:
    """Where the rows are once *name* went over other dimensions of the first of *parts*."""
    tensor = parts[0]
    return steps.without(tensor.at or 0, _over(name, tensor, args, kwargs), tensor, result)


def _loss(name: str, tensor: Part, result: torch.Tensor, count: float) -> torch.Tensor:
    share = tensor.share
    if name != "mean":
        return LOSS[0](result, None, share)
    kind = torch.float32 if result.dtype == torch.float16 else result.dtype  # whose sums overflow at 65504
    own = result.to(kind) * count if count else tensor.as_subclass(torch.Tensor).sum()
    return LOSS[0](own, count, share)


def as_one(name: str, func: Any, tensor: Part, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, bool]:
    """*func* of the rows of all ranks, those of *tensor* and of what else it is given.

    And whether it has kept the rows, of which this rank's are given, where they were; else all ranks have the same.
    """
    words, named = tree_map(lambda each: _whole(name, each) if isinstance(each, Part) else each, (args, kwargs))
    result = func(*words, **named)
    if name in _KEEPING:
        share, at = tensor.share, max(tensor.at or 0, 0)
        start, end = rows.bounds_of(tensor.transpose(0, at), share)
        return felt_by_all(result, share).narrow(at, start, end - start), True
    for each in result if isinstance(result, (tuple, list)) else [result]:
        same(each)
        of_all(each)
    return result, False


def _whole(name: str, tensor: Part) -> torch.Tensor:
    if not rows.can_travel(tensor) or (tensor.at == JOINED and name in _KEEPING):
        raise RequestError(
            f"{name} goes over rows of a batch that each rank has a part of, and which rows these are cannot be told;"
            " take it of a tensor whose first dimension are the rows, or after the epoch under torch.no_grad()"
        )
    return rows.whole(tensor)


def sorted_in(name: str, func: Any, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What *func*, such as `index_add_`, makes of a tensor to which the rows of all ranks are added; else None."""
    into, index = args[0], args[SORTED_IN[name]] if len(args) > SORTED_IN[name] else kwargs.get("index")
    several = index if isinstance(index, (tuple, list)) and index else [index]
    first = next((each for each in several if isinstance(each, Part)), several[0])
    is_put = name == "index_put"
    if isinstance(into, Part) or not isinstance(first, Part) or first.at not in FIRST or into.requires_grad:
        return None
    if not (kwargs.get("accumulate", args[3:4] == (True,)) if is_put else args[1] == 0 or first.dim() == 1):
        return None
    given, words = tree_map(lambda each: own_rows(each, first), (args[1:], kwargs))  # of what all ranks have whole
    mine = func(torch.zeros_like(into), *given, **words)
    found = total(first.share, mine)
    return into.add_(found) if func.__name__.endswith("_") else into + found


def total(share: Share, result: torch.Tensor) -> torch.Tensor:
    """The sum of *result* over the ranks."""
    return LOSS[0](result, None, share) if result.requires_grad else marks.mark(_sum(share, result, 0))


def same(number: Any) -> None:
    """*number* was computed alike on all ranks."""
    if torch.is_tensor(number) and not number.requires_grad:
        marks.mark(number)


def _sum(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    return group.total(result if share.rows else torch.zeros_like(result))


def _mean(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    weight = count if share.rows else 0
    # Not times 0: a mean of nothing is no number.
    own = result.double() * weight if weight else torch.zeros_like(result, dtype=torch.float64)
    sums = group.total(torch.stack([own, torch.full_like(own, weight)]))
    return (sums[0] / sums[1]).to(result.dtype)


def _any(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    return _sum(share, result.long(), count) > 0


def _all(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    return _sum(share, (~result.bool()).long(), count) == 0


_REDUCE: dict[str, Callable[[Share, torch.Tensor, float], torch.Tensor]] = {
    "sum": _sum,
    "nansum": _sum,
    "count_nonzero": _sum,
    "mean": _mean,
    "any": _any,
    "all": _all,
}
