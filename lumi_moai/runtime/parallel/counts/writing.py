"""Rows of a batch that the script writes by their place: `x[:4] = 0`, `x[:n // 2] *= 0.5`, `x[picked] = noise`.

Places count among the rows of the whole batch, as they do in `x[:4]`. Each rank writes those that it has.
"""

from typing import Any

import torch
import torch.distributed as dist

from ... import group
from ..share import bounds
from .by_place import are_places, has_places, numbers, places_of
from .constants import own_rows
from .felt import felt_by_all
from .places import Part
from .whole import OfAll


def placed(target: Part, index: Any, value: Any) -> tuple[Any, Any]:
    """*index* and *value* of `target[index] = value` for the rows that this rank has, or as they are."""
    first, *rest = index if isinstance(index, tuple) and index else (index,)
    if not has_places(target):
        return index, value
    if are_places(first) and not isinstance(first, slice):
        wanted = numbers(first).as_subclass(torch.Tensor).to(target.device)
        own, mine = _own_numbers(target, wanted)
        return (own, *rest), _rows(value, mine, wanted.shape, target)
    found = places_of(target, first)
    if found is None:
        return index, own_rows(value, target) if isinstance(first, slice) else value
    places, low, before, until = found
    inside = places[before:until]
    own_places = slice(inside.start - low, inside.stop - low, inside.step) if inside else slice(0, 0)
    mine, shape = (slice(before, until), (len(places),)) if isinstance(first, slice) else (None, ())
    return (own_places, *rest), _rows(value, mine, shape, target)


def noted(taken: torch.Tensor, tensor: Any, index: Any) -> torch.Tensor:
    """*taken*, which is `tensor[index]` and on one device a view of it: what is written there goes to *tensor* too."""
    words = index if isinstance(index, tuple) else (index,)
    if has_places(tensor) and all(each is None or each is ... or isinstance(each, (int, slice)) for each in words):

        def write(value: torch.Tensor) -> None:
            own, mine = placed(tensor, index, value)
            tensor.as_subclass(torch.Tensor)[own] = mine

        taken.write_back = write
    return taken


def _own_numbers(target: Part, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where *wanted*, places in the whole batch, are among this rank's rows, and which of them are."""
    share = target.share
    each = len(target) // max(share.rows, 1)
    start, end, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    from_front = wanted % (share.total * each)
    mine = (from_front >= start * each) & (from_front < (end if share.rows else start) * each)
    return from_front[mine] - start * each, mine


def _rows(value: Any, mine: Any, shape: Any, target: Part) -> Any:
    """Of *value*, alike on all ranks, the rows for this rank's places, if it has one for each place."""
    if type(value) not in (torch.Tensor, OfAll):
        return value
    felt = felt_by_all(value, target.share).as_subclass(torch.Tensor)
    has_rows = mine is not None and value.shape[: len(shape)] == tuple(shape)
    return felt[mine] if has_rows else felt
