"""How the ranks of one tp group get other parts of a whole than they have, each sending what another one wants.

exchanged  parts of an axis -> other parts of it;      backward: the other way, nothing for what no rank wanted
turned     parts of one axis -> parts of another one;  backward: the other way
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from . import moves

Span = tuple[int, int]
"""First number of a piece along the axis, and how many."""
Spans = Sequence[Span]
"""What one rank has of the axis, in the order in which it has it."""


def own_spans(pieces: Spans, ranks: int) -> list[list[Span]]:
    """What each of *ranks* has, when each has its part of every one of *pieces*; *ranks* divides their sizes."""
    return [[(start + rank * (size // ranks), size // ranks) for start, size in pieces] for rank in range(ranks)]


def meeting(wanted: Spans, had: Spans) -> Iterator[tuple[int, int, int]]:
    """What is wanted of what is had: its place among the wanted numbers, its place among those had, how many."""
    for (to, (first, size)), (at, (start, count)) in itertools.product(_placed(wanted), _placed(had)):
        low, high = max(first, start), min(first + size, start + count)
        if low < high:
            yield to + low - first, at + low - start, high - low


def _placed(spans: Spans) -> list[tuple[int, Span]]:
    places = itertools.accumulate((size for _, size in spans), initial=0)
    return [*zip(places, spans, strict=False)]


def exchanged(mine: torch.Tensor, axis: int, had: Sequence[Spans], wanted: Sequence[Spans]) -> torch.Tensor:
    """What this rank wants along *axis*: of every rank is known what it had and what it wants; no number is two's."""
    return _Exchanged.apply(mine, axis, had, wanted)


def turned(mine: torch.Tensor, axis: int, to: int) -> torch.Tensor:
    """This rank's part along *to*, whose size the number of ranks divides, of what it has a part of along *axis*."""
    return _Turned.apply(mine, axis, to)


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, axis: int, had: Any, wanted: Any) -> torch.Tensor:
        ctx.way = axis, wanted, had
        return _exchange(mine, axis, had, wanted)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _exchange(gradient, *ctx.way), None, None, None


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, axis: int, to: int) -> torch.Tensor:
        ctx.way = to, axis
        return _turn(mine, axis, to)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _turn(gradient, *ctx.way), None, None


def _exchange(mine: torch.Tensor, axis: int, had: Sequence[Spans], wanted: Sequence[Spans]) -> torch.Tensor:
    me = moves.rank()
    size = list(mine.shape)
    size[axis] = sum(count for _, count in wanted[me])
    result = mine.new_zeros(size)
    for to, at, count in meeting(wanted[me], had[me]):
        result.narrow(axis, to, count).copy_(mine.narrow(axis, at, count))
    others = [rank for rank in range(moves.ranks()) if rank != me]
    sent = {rank: [mine.narrow(axis, at, count) for _, at, count in meeting(wanted[rank], had[me])] for rank in others}
    taken = {
        rank: [result.narrow(axis, to, count) for to, _, count in meeting(wanted[me], had[rank])] for rank in others
    }
    _pass_on(result, sent, taken)
    return result


def _turn(mine: torch.Tensor, axis: int, to: int) -> torch.Tensor:
    me, ranks = moves.rank(), moves.ranks()
    chunks = mine.chunk(ranks, to)
    size = list(chunks[0].shape)
    size[axis] *= ranks
    result = mine.new_empty(size)
    places = result.chunk(ranks, axis)
    places[me].copy_(chunks[me])
    others = [rank for rank in range(ranks) if rank != me]
    _pass_on(result, {rank: [chunks[rank]] for rank in others}, {rank: [places[rank]] for rank in others})
    return result


def _pass_on(like: torch.Tensor, sent: dict[int, list[torch.Tensor]], taken: dict[int, list[torch.Tensor]]) -> None:
    """Send each rank what is for it, and fill *taken* with what it sends; all is of the kind of *like*."""
    out, into = (_sizes(each) for each in (sent, taken))
    nothing = like.new_empty(0)
    numbers = torch.cat([nothing, *(each.reshape(-1) for rank in sorted(sent) for each in sent[rank])])
    arrived = like.new_empty(sum(into))
    dist.all_to_all_single(arrived, numbers, into, out, group=moves.group())
    places = [each for rank in sorted(taken) for each in taken[rank]]
    for place, flat in zip(places, arrived.split([each.numel() for each in places]), strict=True):
        place.copy_(flat.view(place.shape))


def _sizes(by_rank: dict[int, list[torch.Tensor]]) -> list[int]:
    return [sum(each.numel() for each in by_rank.get(rank, ())) for rank in range(moves.ranks())]
