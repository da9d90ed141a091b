"""A few rows of the first batch: all of them on every rank, and this rank's own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import group
from ..parts import is_single, leaves, made_of, parts
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
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, taken(batch, 0, each), group=data_group)
    try:
        return joined(every), every[rank], Share(rows=each, total=each * share.ranks, ranks=share.ranks)
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
        lengths = set()
    if not lengths:
        raise Unfit(f"the first batch is a {type(batch).__name__}, whose rows cannot be told")
    if len(lengths) != 1:
        raise Unfit("the parts of the first batch have different lengths")
    return lengths.pop()


def taken(batch: Any, start: int, end: int) -> Any:
    """The rows of *batch* from *start* to *end*, copied."""
    if is_single(batch):
        return batch
    if _is_nested(batch):
        return made_of(batch, {key: taken(part, start, end) for key, part in parts(batch).items()})
    rows = batch[start:end]
    return rows.clone() if isinstance(rows, torch.Tensor) else rows


def joined(batches: Sequence[Any]) -> Any:
    """The *batches* in one.

    Raises RuntimeError or ValueError when their shapes differ.
    """
    first = batches[0]
    if is_single(first):
        if any(each != first for each in batches):
            raise ValueError("batches of unlike parts")
        return first
    if _is_nested(first):
        every = [parts(batch) for batch in batches]
        if len({len(each) for each in every}) > 1:
            raise ValueError("batches of unlike parts")
        return made_of(first, {key: joined([each[key] for each in every]) for key in every[0]})
    if isinstance(first, torch.Tensor):
        return torch.cat(list(batches))
    return type(first)(each for batch in batches for each in batch)


def fresh(batch: Any) -> Any:
    """*batch* with tensors of its own, which the script may write to."""
    if dataclasses.is_dataclass(batch):
        return made_of(batch, {key: fresh(part) for key, part in parts(batch).items()})
    return tree_map(lambda each: each.clone() if isinstance(each, torch.Tensor) else each, batch)


def _is_nested(batch: Any) -> bool:
    if isinstance(batch, (list, tuple)):
        return any(not isinstance(part, (str, int, float)) for part in batch)
    return isinstance(batch, Mapping) or dataclasses.is_dataclass(batch)
