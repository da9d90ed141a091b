"""A few rows of the first batch: all of them on every rank, and this rank's own."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ... import group
from .. import graphs
from ..parts import is_nested, is_single, leaves, made_of, parts, some_rows
from ..share import Share, bounds
from .body import Unfit

_ROWS = 2
"""Of each rank."""


@dataclass(frozen=True, kw_only=True)
class Few:
    """A few rows."""

    whole: Any
    """Of all ranks."""
    mine: Any
    share: Share | None = None
    is_drawn: bool = False
    """Whether their samples are other ones each time, since random numbers are drawn for them."""
    alone: int = 0
    """How many they are, where the ranks do not share them out."""

    @property
    def sizes(self) -> tuple[int, int]:
        """How many rows `whole` has, and `mine`."""
        return (self.share.total, self.share.rows) if self.share else (self.alone, self.alone)


class WidthsError(Exception):
    """The ranks' rows have different widths: each has padded its own to the longest of them."""


def few(batch: Any, share: Share | None, rank: int, data_group: Any) -> Few:
    """The rows of all ranks and those of this one; without a *share*, the first rows of *batch* twice.

    Raises Unfit for a batch whose rows cannot be told, and WidthsError, on all ranks alike.
    """
    if share is None:
        alone = min(length(batch), 2 * _ROWS)
        part = taken(batch, 0, alone)
        return Few(whole=part, mine=part, alone=alone)
    each = of_each(share)
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, _first(batch, each), group=data_group)
    if faults := [part for part in every if isinstance(part, Unfit)]:
        raise faults[0]
    try:
        return Few(whole=_like(batch, joined(every)), mine=_like(batch, every[rank]), share=share_of(each, share.ranks))
    except (RuntimeError, ValueError) as error:
        raise WidthsError from error


def _first(batch: Any, each: int) -> Any:
    """The first rows of *batch*, or why there are none: on another rank its parts may be alike in length by chance."""
    try:
        length(batch)
    except Unfit as reason:
        return reason
    return _bare(taken(batch, 0, each))


def _bare(batch: Any) -> Any:
    """*batch* in plain dictionaries: a class that a function made cannot travel."""
    return {key: _bare(part) for key, part in parts(batch).items()} if _holds(batch) else batch


def _like(batch: Any, bare: Any) -> Any:
    """What `_bare` made of some rows, in containers as *batch* has them."""
    if not _holds(batch):
        return bare
    return made_of(batch, {key: _like(part, bare[key]) for key, part in parts(batch).items()})


def _holds(batch: Any) -> bool:
    return not is_single(batch) and is_nested(batch)


def of_rank_0(batch: Any, share: Share, rank: int) -> Few:
    """Rank 0's rows only, all of one width.

    Raises Unfit where they are fewer than the ranks.
    """
    whole = _like(batch, group.agree(_bare(taken(batch, 0, of_each(share) * share.ranks))))
    start, end, part_share = bounds(length(whole), rank, share.ranks)
    if part_share.total < share.ranks:
        raise Unfit("the ranks' rows have different shapes")
    return Few(whole=whole, mine=taken(whole, start, end), share=part_share)


def of_each(share: Share) -> int:
    """How many rows of each rank are looked at.

    Raises Unfit when a rank has none.
    """
    each = min(_ROWS, share.total // share.ranks)
    if each == 0:
        raise Unfit(f"the first batch has {share.total} rows, fewer than the ranks")
    return each


def share_of(each: int, ranks: int) -> Share:
    """That of a rank where every rank has *each* rows."""
    return Share(rows=each, total=each * ranks, ranks=ranks)


def can_be_told(batch: Any) -> bool:
    """Whether all parts of *batch* have as many entries: its rows."""
    try:
        return length(batch) >= 0
    except Unfit:
        return False


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

    def cut(part: Any) -> Any:
        rows = some_rows(part, start, end)
        return rows.clone() if isinstance(rows, torch.Tensor) else rows

    return changed(batch, cut)


def changed(batch: Any, change: Callable[[Any], Any]) -> Any:
    """*batch* with a *change* of each of its parts that have rows."""
    if is_single(batch):
        return batch
    if is_nested(batch):
        return made_of(batch, {key: changed(part, change) for key, part in parts(batch).items()})
    return change(batch)


def joined(batches: Sequence[Any]) -> Any:
    """The *batches* in one.

    Raises RuntimeError or ValueError when their shapes differ.
    """
    first = batches[0]
    if is_single(first):
        if any(each != first for each in batches):
            raise ValueError("batches of unlike parts")
        return first
    if is_nested(first):
        every = [parts(batch) for batch in batches]
        if len({len(each) for each in every}) > 1:
            raise ValueError("batches of unlike parts")
        return made_of(first, {key: joined([each[key] for each in every]) for key in every[0]})
    if graphs.is_known(first):
        return graphs.joined(batches)
    if isinstance(first, torch.Tensor):
        return torch.cat(list(batches))
    return type(first)(each for batch in batches for each in batch)


def fresh(batch: Any) -> Any:
    """*batch* with tensors of its own, which the script may write to."""
    if dataclasses.is_dataclass(batch):
        return made_of(batch, {key: fresh(part) for key, part in parts(batch).items()})
    return tree_map(
        lambda each: each.clone() if isinstance(each, torch.Tensor) or graphs.is_known(each) else each, batch
    )


def tensors(batch: Any) -> Iterator[torch.Tensor]:
    """The tensors that have rows of *batch*."""
    for part in leaves(batch):
        if graphs.are_graphs(part):
            yield from (each.tensor for each in graphs.held(part))
        elif isinstance(part, torch.Tensor):
            yield part
