"""A few rows put together anew from their samples, as one device would: padded to the longest of all ranks."""

import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ..fetching import fetching
from ..own_chance import Fetching, OwnChance
from ..parts import leaves
from ..share import Origin, Share
from .body import Unfit
from .rows import Few, changed, fresh, length, of_each, share_of
from .snapshot import Snapshot

_LOOKED_AT = 64
"""Samples of a rank among which the longest, or the shortest, are looked for."""
Found = tuple[list[bytes], set[int]]
"""Samples, and how large all that were looked at are by themselves."""


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """What came of something that a script's own code does."""

    found: Any = None
    fault: str = ""
    """Why there is nothing."""
    draws: bool = False
    """Whether random numbers were drawn."""


def anew(batch: Any, share: Share, rank: int, data_group: Any, turned: Callable[[Any], Any]) -> Few:
    """The longest rows of rank 0 and the shortest of the others: as long as the longest of all, and a rank's own.

    So they differ also where the first batch happens to be of one width. *turned* brings the rows of a batch into the
    first dimension. Raises Unfit, on all ranks alike, where that cannot be made, or all rows are of one width; nothing
    that was fetched or drawn for it stays.
    """
    each, origin = of_each(share), share.origin
    mine = _tried(origin, rank, lambda of: _chosen(of, each, longest=rank == 0))
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, mine, group=data_group)
    both = _put_together(origin, every, rank)
    fault = both.fault
    if not fault:
        fault = _fault(turned(both.found[0]), turned(both.found[1]), turned(batch), share_of(each, share.ranks))
    _agree_on(fault)
    whole, part = (changed(one, _beside(batch)) for one in both.found)
    is_drawn = any(one.draws for one in every)
    return Few(whole=whole, mine=part, share=share_of(each, share.ranks), is_drawn=is_drawn)


def _put_together(origin: Origin | None, every: Sequence[_Tried], rank: int) -> _Tried:
    """The batch of all samples, and that of this rank's own."""
    if faults := [each.fault for each in every if each.fault]:
        return _Tried(fault=faults[0])
    found: list[Found] = [each.found for each in every]
    if len(set().union(*(sizes for _, sizes in found))) == 1:
        return _Tried(fault="all of them have one width by themselves")
    both = _tried(origin, rank, lambda of: _both(of, [samples for samples, _ in found], rank))
    return _Tried(fault="the collate function draws random numbers") if both.draws else both


def _tried(origin: Origin | None, rank: int, work: Callable[[Origin], Any]) -> _Tried:
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


def _chosen(origin: Origin, each: int, *, longest: bool) -> Found:
    """The longest samples of this rank, or its shortest, in their order."""
    # As bytes, since a collate function may take a sample apart.
    samples = [pickle.dumps(fresh(sample)) for sample in origin.samples(list(origin.keys)[:_LOOKED_AT])]
    sizes = [_size(origin.collate([pickle.loads(sample)])) for sample in samples]  # noqa: S301, our own
    by_size = sorted(range(len(samples)), key=sizes.__getitem__, reverse=longest)
    return [samples[place] for place in sorted(by_size[:each])], set(sizes)


def _size(batch: Any) -> int:
    return sum(part.nelement() for part in leaves(batch) if isinstance(part, torch.Tensor))


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
    pairs = zip(leaves(mine), leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor))


def _fault(whole: Any, mine: Any, batch: Any, share: Share) -> str:
    """What is unlike the *batch* that the script is handed."""
    try:
        if (length(whole), length(mine)) != (share.total, share.rows):
            return "the collate function does not give one row for each sample"
    except Unfit as reason:
        return str(reason)
    return (
        ""
        if _kinds(whole) == _kinds(mine) == _kinds(batch)
        else "the loop gets other batches than the collate function gives"
    )


def _kinds(batch: Any) -> list[Any]:
    return [(part.dtype, part.dim()) if isinstance(part, torch.Tensor) else type(part) for part in leaves(batch)]


def _beside(batch: Any) -> Callable[[Any], Any]:
    """What brings a part to the device where the tensors of *batch* are."""
    devices = [each.device for each in leaves(batch) if isinstance(each, torch.Tensor)]
    return lambda part: part.to(devices[0]) if isinstance(part, torch.Tensor) else part


def _agree_on(reason: str) -> None:
    reasons: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, reason)
    if any(reasons):
        raise Unfit(next(filter(None, reasons)))
