"""The rows of all ranks, one rank's after the other's, which is their order on one device."""

from typing import Any

import torch
import torch.distributed as dist

from ....errors import RequestError
from ... import group
from ..known import Known
from ..share import Share, weight_in_backward
from .places import FIRST, JOINED, PICKED, Part
from .size import Rows

LEAVES = Known()
"""Rows for which the script asks a gradient."""
_WIDTHS = 1 << 20
ASKED: list[None] = []
"""While the runtime itself sees to the gradient of rows."""


def lengths(mine: int) -> list[int]:
    """How many each of the ranks has."""
    return [round(each) for each in group.gathered(mine)]


def gathered(tensor: torch.Tensor, share: Share) -> torch.Tensor:
    """*tensor*, whose first dimension are this rank's rows, with those of all ranks; gradients find their way back."""
    with torch._C.DisableTorchFunctionSubclass():
        own = tensor.as_subclass(torch.Tensor)
        own = own if share.rows else own[:0]  # a stand-in row is none of the batch
        return _Gathered.apply(own, share)


def can_travel(tensor: Part) -> bool:
    """Whether the ranks can put the rows of *tensor* together: with time first they may have other numbers of steps."""
    return tensor.at is not None and not (tensor.at > 0 and tensor.share.steps)


def whole(tensor: Part) -> torch.Tensor:
    """*tensor* with the rows of all ranks, in the dimension in which it has its own."""
    with torch._C.DisableTorchFunctionSubclass():
        at = max(tensor.at or 0, 0)
        if tensor.at == JOINED:
            return _in_turn(tensor)
        return (
            gathered(tensor.transpose(0, at), tensor.share).transpose(0, at) if at else gathered(tensor, tensor.share)
        )


def _in_turn(tensor: Part) -> torch.Tensor:
    """All rows of the first of the tensors that were joined, then all of the next."""
    mine = max(tensor.share.rows, 1)
    apart = tensor.as_subclass(torch.Tensor).unflatten(0, (-1, mine)).transpose(0, 1)
    return gathered(apart, tensor.share).transpose(0, 1).flatten(0, 1)


def _alike(own: torch.Tensor) -> list[int]:
    """How many rows each rank has, as many as *own* has here.

    Raises RequestError, on all ranks alike, where the rows are of other widths.
    """
    found = [divmod(each, _WIDTHS) for each in lengths(len(own) * _WIDTHS + hash(tuple(own.shape[1:])) % _WIDTHS)]
    if len({width for count, width in found if count}) > 1:
        raise RequestError(
            "the script reads or orders the rows of all ranks, and these are of different widths, since each rank pads"
            ' its own to the longest of them; pad all batches to one length (padding="max_length", a fixed length in'
            " the collate function), or count on the tensors, as (pred == y).sum()"
        )
    return [count for count, _ in found]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, share: Share) -> torch.Tensor:
        counts = _alike(own)
        place = dist.get_rank(group.data_group())
        ctx.start, ctx.rows, ctx.share = sum(counts[:place]), len(own), share
        kind = own.dtype
        travelling = group.reachable(own.to(torch.uint8) if kind == torch.bool else own)
        padded = travelling.new_zeros((max(counts), *own.shape[1:]))
        padded[: len(own)] = travelling
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group.data_group())
        whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return whole.to(own.device, kind)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        # The ranks' gradients are averaged by their weights later, as for losses.
        mine = gradient[ctx.start : ctx.start + ctx.rows]
        return mine / weight_in_backward(ctx.share) if ctx.rows else mine, None


def bounds_of(tensor: torch.Tensor, share: Share) -> tuple[int, int]:
    """From where to where the rows of *tensor*, this rank's, are among those of all ranks.

    The first for one that computes a stand-in row.
    """
    counts = lengths(len(tensor) if share.rows else 0)
    place = dist.get_rank(group.data_group())
    return (sum(counts[:place]), sum(counts[: place + 1])) if share.rows else (0, 1)


def among_all(mine: int, share: Share) -> tuple[int, int, int]:
    """Of rows that each rank has picked, *mine* here: how many all have, which is the first of here, and *mine*."""
    counts = lengths(mine if share.rows else 0)
    return sum(counts), sum(counts[: dist.get_rank(group.data_group())]) if share.rows else 0, mine


def picked_rows(mine: int, share: Share) -> Rows:
    """The number of rows that the ranks have picked, *mine* here."""
    return Rows.of(mine, sum(lengths(mine if share.rows else 0)), share, is_picked=True)


def is_read_whole(tensor: Part) -> bool:
    """Whether the script means the rows of all ranks when it reads *tensor* as a list or an array.

    After its backward, when it keeps them for a metric, or of a table of its own; before, it may need them as they are
    for its loss.
    """
    is_meant = bool(tensor.share.went_back) or tensor.of_table is not None
    return tensor.dim() > 0 and can_travel(tensor) and is_meant


def joined(args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Rows of several batches, kept for a metric, in one, with what else is joined; None while one is still at hand."""
    parts = args[0] if args else kwargs["tensors"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    kept = [each for each in parts if isinstance(each, Part)]
    if dim != 0 or not all(is_read_whole(each) and each.at in (*FIRST, PICKED) for each in kept):
        return None
    if torch.is_grad_enabled() and any(each.requires_grad for each in parts):
        return None
    return torch.cat([whole(each) if isinstance(each, Part) else each for each in parts])


def ask_gradient(tensor: Part) -> None:
    """The script asks a gradient for the rows of *tensor*: that of the loss of the whole batch."""
    if not tensor.is_leaf or not tensor.requires_grad or tensor in LEAVES:
        return
    LEAVES.add(tensor)
    share = tensor.share
    # Backward begins with a factor that the average over ranks takes away, and rows have no average.
    tensor.register_hook(lambda gradient: None if ASKED else gradient / share.ranks)
