"""A few rows put together anew from their samples, as one device would: padded to the longest of all ranks."""

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ....errors import RequestError
from .. import graphs
from ..fetching import fetching
from ..own_chance import Fetching, OwnChance
from ..parts import leaves
from ..share import Origin, Share
from .body import Unfit
from .rows import Few, changed, fresh, length, of_each, share_of, tensors
from .snapshot import Snapshot

_LOOKED_AT = 64
"""Samples of a rank among which the longest, or the shortest, are looked for."""
Turned = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """Of the samples of a rank that were looked at."""

    sizes: list[int]
    """How large each is by itself, the shortest first."""
    shortest: list[bytes]
    longest: list[bytes]


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """What came of something that a script's own code does."""

    found: Any = None
    fault: str = ""
    """Why there is nothing."""
    draws: bool = False
    """Whether random numbers were drawn."""


def anew(batch: Any, share: Share, rank: int, data_group: Any, turned: Turned | None) -> Few:
    """The longest rows of one rank and the shortest of the others: as long as the longest of all, and a rank's own.

    So they differ also where the first batch happens to be of one width on all ranks. *turned* brings the rows of a
    batch into the first dimension; None where parts of it have no rows, such as the boxes of all pictures. Raises
    Unfit, on all ranks alike, where that cannot be made, or all rows are of one width; nothing that was fetched or
    drawn for it stays.
    """
    each, origin = of_each(share), share.origin
    mine = tried(origin, rank, lambda of: _ends(of, each))
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, mine, group=data_group)
    both = _put_together(origin, every, rank, may_be_alike=turned is None)
    fault = both.fault
    if not fault:
        fault = _fault(both.found[0], both.found[1], batch, share_of(each, share.ranks), turned)
    _agree_on(fault)
    whole, part = (changed(one, _beside(batch)) for one in both.found)
    is_drawn = any(one.draws for one in every)
    return Few(whole=whole, mine=part, share=share_of(each, share.ranks), is_drawn=is_drawn)


def _put_together(origin: Origin | None, every: Sequence[_Tried], rank: int, *, may_be_alike: bool) -> _Tried:
    """The batch of all samples, and that of this rank's own; *may_be_alike*: in width."""
    if faults := [each.fault for each in every if each.fault]:
        return _Tried(fault=faults[0])
    chosen = _chosen([each.found for each in every], may_be_alike=may_be_alike)
    if not chosen:
        return _Tried(fault="all of them have one width by themselves")
    both = tried(origin, rank, lambda of: _both(of, chosen, rank))
    return _Tried(fault="the collate function draws random numbers") if both.draws else both


def tried(origin: Origin | None, rank: int, work: Callable[[Origin], Any]) -> _Tried:
    """What *work* gives for *origin*, or why it gives nothing."""
    if origin is None:
        return _Tried(fault="their samples cannot be fetched again")
    before = Snapshot(list(origin.owners), [])
    doing = Fetching(work, OwnChance(rank), *origin.owners)
    try:
        try:
            with fetching():
                found = doing(origin)
        finally:
            before.put_back()
    except Exception as error:  # BLE001, on purpose: the script's own code may raise anything
        return _Tried(fault=f"their samples cannot be put together anew ({type(error).__name__}: {error})")
    return _Tried(found=found, draws=doing.draws)


def _ends(origin: Origin, each: int) -> _Ends:
    """*each* of the longest samples of this rank, and of its shortest."""
    # As bytes, since a collate function may take a sample apart.
    samples = [pickle.dumps(fresh(sample)) for sample in origin.samples(list(origin.keys)[:_LOOKED_AT])]
    sizes = [_size(origin.collate([pickle.loads(sample)])) for sample in samples]  # noqa: S301, our own
    by_size = [samples[place] for place in sorted(range(len(samples)), key=sizes.__getitem__)]
    return _Ends(sizes=sorted(sizes), shortest=by_size[:each], longest=by_size[-each:])


def _chosen(every: Sequence[_Ends], *, may_be_alike: bool) -> list[list[bytes]]:
    """Of each rank the shortest samples, but of one the longest, so that they differ most.

    Empty if none differ and they may not be alike.
    """

    def gain(rank: int) -> int:
        others = [ends.sizes[0] for other, ends in enumerate(every) if other != rank]
        return every[rank].sizes[-1] - min(others, default=every[rank].sizes[-1])

    longest = max(range(len(every)), key=gain)
    if gain(longest) <= 0:
        return [ends.shortest for ends in every] if may_be_alike else []
    most = every[longest].sizes[-1]
    # A second one that is as long as the longest of all would hide that the first is shorter.
    short = [
        ends.shortest if ends.sizes[len(ends.shortest) - 1] < most else ends.shortest[:1] * len(ends.shortest)
        for ends in every
    ]
    return [every[longest].longest if rank == longest else each for rank, each in enumerate(short)]


def _size(batch: Any) -> int:
    return sum(part.nelement() for part in tensors(batch))


def _both(origin: Origin, every: Sequence[Sequence[bytes]], rank: int) -> tuple[Any, Any]:
    """The batch of all samples, and that of this rank's own.

    Raises ValueError where a second time gives another batch.
    """
    mine, again = (_collated(origin, [every[rank]]) for _ in range(2))
    if not _same(mine, again):
        raise ValueError("the collate function gives another batch each time")
    return _collated(origin, every), mine


def _collated(origin: Origin, samples: Iterable[Any]) -> Any:
    return origin.collate([pickle.loads(sample) for of_rank in samples for sample in of_rank])  # noqa: S301, our own


def _same(mine: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(mine), tensors(other), strict=True))


def _fault(whole: Any, mine: Any, batch: Any, share: Share, turned: Turned | None) -> str:
    """What is unlike the *batch* that the script is handed."""
    try:
        if turned and (length(turned(whole)), length(turned(mine))) != (share.total, share.rows):
            return "the collate function does not give one row for each sample"
        kinds = [_kinds(each) if turned is None else _kinds(turned(each)) for each in (whole, mine, batch)]
    except (Unfit, RequestError) as reason:
        return str(reason)
    if turned is None:  # of which there are as many as samples
        kinds = [sorted(map(str, set(each))) for each in kinds]
    is_alike = kinds[0] == kinds[1] == kinds[2]
    return "" if is_alike else "the loop gets other batches than the collate function gives"


def _kinds(batch: Any) -> list[Any]:
    others = [type(part) for part in leaves(batch) if not isinstance(part, torch.Tensor)]
    return [*others, *((part.dtype, part.dim()) for part in tensors(batch))]


def _beside(batch: Any) -> Callable[[Any], Any]:
    """What brings a part to the device where the tensors of *batch* are."""
    devices = [each.device for each in tensors(batch)]
    return lambda part: part.to(devices[0]) if isinstance(part, torch.Tensor) or graphs.is_known(part) else part


def _agree_on(reason: str) -> None:
    reasons: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, reason)
    if any(reasons):
        raise Unfit(next(filter(None, reasons)))
