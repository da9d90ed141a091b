"""A few rows of the first batch: all of them on every rank, and this rank's own."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import group
from ..loader import leaves
from ..share import Share, bounds
from .body import Unfit

_ROWS = 2
"""Of each rank."""


def few(batch: Any, share: Share | None, rank: int, data_group: Any) -> tuple[Any, Any, Share | None]:
    """The rows of all ranks, those of this one, and their share; without a *share*, the first rows of *batch* twice.

    Raises Unfit for a batch whose rows cannot be told.
    """
    mine = length(batch)
    if share is None:
        part = taken(batch, 0, min(mine, 2 * _ROWS))
        return part, part, None
    each = min(_ROWS, share.total // share.ranks)
    if each == 0:
        raise Unfit(f"the first batch has {share.total} rows, fewer than the ranks")
    parts: list[Any] = [None] * share.ranks
    dist.all_gather_object(parts, taken(batch, 0, each), group=data_group)
    try:
        return joined(parts), parts[rank], Share(rows=each, total=each * share.ranks, ranks=share.ranks)
    except (RuntimeError, ValueError):
        pass  # each rank has padded its rows to a length of its own
    whole = group.agree(taken(batch, 0, each * share.ranks))
    start, end, part_share = bounds(length(whole), rank, share.ranks)
    if part_share.total < share.ranks:
        raise Unfit("the ranks' rows have different shapes")
    return whole, taken(whole, start, end), part_share


def length(batch: Any) -> int:
    """The rows of *batch*."""
    try:
        lengths = {len(part) for part in leaves(batch)}
    except RequestError:
        raise Unfit(f"the first batch is a {type(batch).__name__}, whose rows cannot be told") from None
    if len(lengths) != 1:
        raise Unfit("the parts of the first batch have different lengths")
    return lengths.pop()


def taken(batch: Any, start: int, end: int) -> Any:
    """The rows of *batch* from *start* to *end*, copied."""
    if isinstance(batch, Mapping):
        return _mapping(batch, {key: taken(part, start, end) for key, part in batch.items()})
    if _is_nested(batch):
        return _sequence(batch, [taken(part, start, end) for part in batch])
    rows = batch[start:end]
    return rows.clone() if isinstance(rows, torch.Tensor) else rows


def joined(parts: Sequence[Any]) -> Any:
    """The batches *parts* in one.

    Raises RuntimeError or ValueError when their shapes differ.
    """
    first = parts[0]
    if isinstance(first, Mapping):
        return _mapping(first, {key: joined([part[key] for part in parts]) for key in first})
    if _is_nested(first):
        return _sequence(first, [joined(each) for each in zip(*parts, strict=True)])
    if isinstance(first, torch.Tensor):
        return torch.cat(list(parts))
    return type(first)(each for part in parts for each in part)


def fresh(batch: Any) -> Any:
    """*batch* with tensors of its own, which the script may write to."""
    return tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, batch)


def _is_nested(batch: Any) -> bool:
    return isinstance(batch, (list, tuple)) and any(not isinstance(part, (str, int, float)) for part in batch)


def _mapping(like: Any, parts: dict[Any, Any]) -> Any:
    made = copy.copy(like)
    for key, part in parts.items():
        made[key] = part
    return made


def _sequence(like: Any, parts: list[Any]) -> Any:
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)
