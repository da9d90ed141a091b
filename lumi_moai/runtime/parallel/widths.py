"""Rows that a collate function has filled up to the longest of a rank's, filled up to the longest of the global batch.

On one device all rows of a batch have one width. Each rank is given its own rows only, and fills them up to a width of
its own; what the script makes of that width, or of what stands beyond it, would be another number on each rank. So the
ranks agree on the width of each batch, and each fills its rows up to it, with what the collate function fills in. That
costs one small exchange a batch: the rank with the longest rows, for which the others wait, computes no more for it.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from .. import group
from . import fills, graphs, time_first
from .counts import states
from .fills import Fill, Place, UnlikeError
from .parts import is_nested, is_single, leaves, made_of, parts
from .selfcheck import rows, samples
from .share import Origin, Share, bounds

if TYPE_CHECKING:
    from .engine import Engine

_SIZES = 64
"""Of the tensors of a batch that are agreed on; one with more is left as it is."""
_LOOKS = 4
"""Batches of a stream that keep their samples, for what is filled in to show."""
_Fills = dict[Place, Fill]


@dataclass(frozen=True, kw_only=True)
class _Learnt:
    """What a rank found out about a collate function."""

    may_be: Mapping[Place, frozenset[Fill]]
    """What it fills in, as far as that shows in one batch."""
    fault: str = ""
    """Why that is not all that it does to a longer batch."""
    has_rows: bool = False
    """Whether a rank can take its rows from a whole batch."""


class Widths:
    """What collate functions of the script's own fill in."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self._fills: WeakKeyDictionary[DataLoader, _Fills] = WeakKeyDictionary()
        self._whole: WeakSet[DataLoader] = WeakSet()
        """Those whose batches can only be put together whole."""
        self._own: WeakSet[DataLoader] = WeakSet()
        """Those whose rows stay as wide as a rank has made them."""
        self._looks: WeakKeyDictionary[DataLoader, int] = WeakKeyDictionary()

    def is_curious(self, loader: DataLoader) -> bool:
        """Whether samples of *loader*, a stream's, may be asked for again, to see what is filled in."""
        return self._looks.get(loader, 0) < _LOOKS

    def filled(self, loader: DataLoader, batch: Any, share: Share) -> Any:
        """*batch* of *loader*, of which this rank has *share*, as wide as the global batch; all ranks come together."""
        if share.is_whole or share.ranks == 1 or loader in self._own or any(True for _ in graphs.within(batch)):
            return batch
        if loader in self._whole:
            return self.engine.cutter.as_one_device(loader, batch, share)
        self._looks[loader] = self._looks.get(loader, 0) + 1
        places = self.engine.time_first.of(loader)
        mine = _sizes(batch, places)
        most = _agreed(mine)
        if not most:
            return batch
        found = self._known(loader, most, share, places)
        if found is None:
            return self.engine.cutter.as_one_device(loader, batch, share) if loader in self._whole else batch
        wanted = {place: size for place, size in most.items() if mine[place] < size}
        states.note_widths((mine[place], size) for place, size in wanted.items())
        return _changed(batch, lambda place, tensor: fills.filled(tensor, place, wanted, found))

    def of_few(self, few: rows.Few, places: time_first.Places) -> rows.Few:
        """The *few* rows with the rank's own as wide as those of all ranks, where they are unlike in nothing else."""
        if few.share is None or any(True for _ in graphs.within(few.whole)):
            return few
        every: list[Any] = [None] * few.share.ranks
        dist.all_gather_object(every, _compared(few.whole, few.mine, places), group=group.data_group())
        try:
            found = _common(every)
        except UnlikeError:
            return few
        mine = _sizes(few.mine, places)
        wanted = {place: size for place, size in _sizes(few.whole, places).items() if mine[place] < size}
        states.note_widths((mine[place], size) for place, size in wanted.items())
        return replace(few, mine=_changed(few.mine, lambda place, part: fills.filled(part, place, wanted, found)))

    def _known(
        self, loader: DataLoader, most: Mapping[Place, int], share: Share, places: time_first.Places
    ) -> _Fills | None:
        """What to fill in where the ranks are of unlike widths, which is at *most*; None where that is not known."""
        known = self._fills.setdefault(loader, {})
        if most.keys() <= known.keys():
            return known
        rank = self.engine.settle().data_rank
        with self.engine.unjournaled():
            tried = samples.tried(share.origin, rank, lambda origin: _learnt(origin, share, rank, places))
        every: list[Any] = [None] * share.ranks
        dist.all_gather_object(every, tried, group=group.data_group())
        try:
            if faults := [each.fault for each in every if each.fault]:
                raise UnlikeError(faults[0])
            found = {**_common([each.found for each in every]), **known}
            if not most.keys() <= found.keys():
                raise UnlikeError("it does not show what is filled in")
        except UnlikeError as reason:
            self._give_up(loader, every, str(reason))
            return None
        known.update({place: fill for place, fill in found.items() if fill.is_certain})
        return found

    def _give_up(self, loader: DataLoader, every: list[Any], reason: str) -> None:
        if all(each.found and each.found.has_rows and not each.draws for each in every):
            self._whole.add(loader)
            self.engine.say_once(
                "whole widths",
                f"rows are filled up to the longest of a batch, and {reason}, so each rank puts whole batches together,"
                " as one device does, which reads all samples on every rank; to pad all batches to one length spares"
                " that",
            )
            return
        self._own.add(loader)
        self.engine.say_once(
            "own widths",
            f"each rank fills its rows up to the longest of its own, since {reason}: what the script makes of their"
            " width (x.shape[1], x.numel()), or of what is filled in, is a rank's; pad all batches to one length to"
            " have one device's",
        )


def _learnt(origin: Origin, share: Share, rank: int, places: time_first.Places) -> _Learnt:
    """What the collate function makes of the whole batch, beside what it makes of this rank's rows."""
    # As bytes, since a collate function may take a sample apart.
    every = [pickle.dumps(rows.fresh(sample)) for sample in origin.samples(list(origin.every))]
    start, end, _ = bounds(share.total, rank, share.ranks)
    whole, mine, again = (_collated(origin, some) for some in (every, every[start:end], every[start:end]))
    has_rows = _has_rows(time_first.turned(whole, places), share.total)
    twice = [dict(_tensors(each, places)).values() for each in (mine, again)]
    is_steady = all(map(fills.is_same, *twice))
    return replace(_compared(whole, mine, places, None if is_steady else slice(start, end)), has_rows=has_rows)


def _compared(whole: Any, mine: Any, places: time_first.Places, own: slice | None = None) -> _Learnt:
    try:
        if dict(_singles(whole)) != dict(_singles(mine)):
            raise UnlikeError("the collate function gives a number that is another one for more rows")
        of_whole, of_mine = (dict(_tensors(each, places)) for each in (whole, mine))
        return _Learnt(may_be=fills.of_batches(of_whole, of_mine, places, own))
    except UnlikeError as reason:
        return _Learnt(may_be={}, fault=str(reason))


def _collated(origin: Origin, some: list[bytes]) -> Any:
    return origin.collate([pickle.loads(sample) for sample in some])  # noqa: S301, our own


def _has_rows(batch: Any, total: int) -> bool:
    return {len(part) for part in leaves(batch)} == {total}


def _common(every: list[_Learnt]) -> _Fills:
    """What all ranks, which *every* found something, agree is filled in.

    Raises UnlikeError where one knows better.
    """
    if faults := [each.fault for each in every if each.fault]:
        raise UnlikeError(faults[0])
    seen = {place for each in every for place in each.may_be}
    return {place: fills.likeliest([each.may_be[place] for each in every if place in each.may_be]) for place in seen}


def _agreed(mine: Mapping[Place, int]) -> Mapping[Place, int]:
    """The most that a rank has, in those of the sizes *mine* that are not alike on all ranks."""
    if len(mine) > _SIZES:
        mine = {}
    # As long on all ranks, whatever they have: a batch may have a part on one of them only.
    kind = sum(map(ord, repr(list(mine))))
    told = [kind, *mine.values(), *[0] * (_SIZES - len(mine))]
    found = group.most([*told, *(-each for each in told)])
    most, least = found[: len(told)], [-each for each in found[len(told) :]]
    if most[0] != least[0]:
        return {}
    return {place: most[k] for k, place in enumerate(mine, 1) if most[k] != least[k]}


def _sizes(batch: Any, places: time_first.Places) -> dict[Place, int]:
    """Of the tensors of *batch*, but for how many rows they have."""
    return {
        (place, dim): size
        for place, tensor in _tensors(batch, places)
        for dim, size in enumerate(tensor.shape)
        if dim != (places.get(place) or 0)
    }


def _tensors(batch: Any, places: time_first.Places) -> Iterator[tuple[time_first.Path, torch.Tensor]]:
    """Those of *batch* that have rows, each with its place; entries of a list of rows are as wide as they are."""
    without = {place for place, dim in places.items() if dim is None}
    for place, tensor in time_first.tensors(batch):
        if not time_first.is_within(place, without) and place not in without:
            yield place, tensor


def _singles(batch: Any, place: time_first.Path = ()) -> Iterator[tuple[time_first.Path, Any]]:
    if is_single(batch) and not isinstance(batch, torch.Tensor):
        yield place, batch
    elif not isinstance(batch, torch.Tensor) and is_nested(batch):
        for key, part in parts(batch).items():
            yield from _singles(part, (*place, str(key)))


def _changed(
    batch: Any, change: Callable[[time_first.Path, torch.Tensor], torch.Tensor], place: time_first.Path = ()
) -> Any:
    """*batch* with a *change* of its tensors; an object of another kind stays itself."""
    if isinstance(batch, torch.Tensor):
        return change(place, batch)
    inside = time_first.within(batch)
    made = {key: _changed(part, change, (*place, str(key))) for key, part in inside.items()}
    if all(made[key] is part for key, part in inside.items()):
        return batch
    if is_nested(batch):
        return made_of(batch, made)
    for key, part in made.items():
        setattr(batch, key, part)
    return batch
