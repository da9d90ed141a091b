"""Rows that the script takes of a table of its own, as many as its batch has: `noise[:len(x)]`, `labels[:n, 0]`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ... import group
from ..share import Share, bounds
from . import rows
from .batch import become
from .places import Part
from .size import Rows, of_all_ranks
from .whole import OfAll


def taken(own: Callable[..., Any], table: torch.Tensor, index: Any) -> Part | None:
    """This rank's rows of `table[index]`, if *index* is as many rows in front as a batch has; None for anything else.

    What the script writes into them goes to the table on every rank.
    """
    first, *aside = index if isinstance(index, tuple) and index else (index,)
    share, rest = _share(first), of_all_ranks(tuple(aside))
    if share is None or type(table) not in (torch.Tensor, torch.nn.Parameter, OfAll) or len(table) < share.total:
        return None
    if not all(each is None or each is ... or isinstance(each, (int, slice)) for each in rest):
        return None
    start, end, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    with torch._C.DisableTorchFunctionSubclass():
        plain = table.as_subclass(torch.Tensor)
        part = become(own(plain, (slice(start, end), *rest)), share, 0)
        part.of_table = every = own(plain, (slice(share.total), *rest))

    def write(_: Any) -> None:
        with torch.no_grad():
            every.copy_(rows.whole(part))

    part.write_back = write
    return part


def _share(first: Any) -> Share | None:
    """How the batch was cut whose rows *first* counts, a slice from the front; None if it is none."""
    if type(first) is not slice or type(first.stop) is not Rows or first.step is not None:
        return None
    found, share = first.stop, first.stop.share
    is_front = first.start is None or (type(first.start) is int and first.start == 0)
    is_batch = share is not None and not found.is_picked and found.whole == share.total != max(share.rows, 1)
    return share if is_front and is_batch else None
