"""What a script made for as many rows as its batch has, where it meets this rank's: `x.view(batch_size, -1)`.

`torch.ones(batch_size, 1)` is whole on every rank, which takes its rows of it. On one device both fit as they are, and
with this rank's rows neither does, so there is nothing else that they could mean.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from ... import group
from ..share import bounds
from .names import EACH
from .places import JOINED, PICKED, Part, as_rows, seams
from .whole import OfAll

_WHOLE = (torch.Tensor, OfAll)


def of_rank(name: str, tensor: Part, args: tuple, kinds: Sequence[type]) -> tuple:
    """*args* of *name*, as this rank needs them to go with *tensor*; *kinds*: of the tensors that are no parts."""
    if name == "getitem" and args[0] is tensor and tensor.at == JOINED:
        first, *rest = args[1] if isinstance(args[1], tuple) and args[1] else (args[1],)
        own = seams(first, tensor)
        return args if own is None else (tensor, (own, *rest))
    if tensor.at in (None, PICKED, JOINED) or tensor.share.total == max(tensor.share.rows, 1):
        return args
    if name in ("view", "reshape") and args[0] is tensor and tensor.at == 0:
        return (tensor, *_size(args[1:], tensor))
    if name in EACH and name != "isin" and len(args) > 1:
        return tuple(_elementwise(each, tensor) if type(each) in kinds else each for each in args)
    return args


def _size(given: tuple, tensor: Part) -> tuple:
    if given and isinstance(given[0], (tuple, list)):
        return (_size(tuple(given[0]), tensor), *given[1:])
    share = tensor.share
    first = given[0] if given else 0
    if not isinstance(first, int) or first <= 0 or first % share.total:
        return given
    return (first // share.total * max(share.rows, 1), *given[1:])


def _elementwise(other: torch.Tensor, tensor: Part) -> torch.Tensor:
    return rows_of(other, other.dim() - tensor.dim() + (tensor.at or 0), tensor)


def rows_of(other: torch.Tensor, dim: int, tensor: Part) -> torch.Tensor:
    """This rank's rows of *other*, if its *dim* has those of the whole batch of which *tensor* has the rank's."""
    share, mine = tensor.share, max(tensor.share.rows, 1)
    each, rest = divmod(tensor.shape[tensor.at or 0], mine)
    if rest or not 0 <= dim < other.dim() or other.shape[dim] != each * share.total or share.total == mine:
        return other
    start, end, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    with torch._C.DisableTorchFunctionSubclass():
        return other.narrow(dim, start * each, (end - start) * each)


def own_rows(other: Any, like: Part) -> Any:
    """This rank's rows of *other*, if it is a tensor with those of the whole batch, as rows that *like* has too."""
    if type(other) not in _WHOLE or other.dim() == 0:
        return other
    own = rows_of(other, 0, like)
    return other if own is other else as_rows(own.as_subclass(torch.Tensor), like, 0)
