"""In which dimension the tensors of a batch have its rows: in the first, or in the second, with time in the first.

`pad_sequence` without `batch_first`, and collate functions that transpose, give (time, rows). All ranks find the same,
once for each loader, whatever sizes are alike by chance on some of them.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from .. import group
from . import graphs
from .fetching import fetching
from .own_chance import untouched
from .parts import are_fields, is_nested, made_of, parts
from .share import Share

if TYPE_CHECKING:
    from .engine import Engine

Path = tuple[str, ...]
Places = Mapping[Path, int | None]
"""The dimension of the rows of the tensor at each place of a batch; None where no dimension has them on all ranks.

None as well for a list whose entries are the rows, such as pictures, which have as many channels as a rank has rows;
0 for one of names.
"""
_Votes = dict[Path, set[str]]
_ENTRIES, _FIELDS = "entries", "fields"
Twice = Callable[[], tuple[int, Any, Any] | None]
"""Gives some rows of a loader: how many, a batch of them, and one with each of them twice."""
_TRIED = 3
_FLAT = (
    "part {} of a batch has the entries of all rows one after the other, as many as these happen to have: what the"
    " script itself counts, adds up or averages of them is of this rank's rows, and so are its sizes; count by a part"
    " that has one number for each row (lengths.sum())"
)


class TimeFirst:
    """What the ranks have agreed on for each loader."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.places: Places = {}
        """Of the batch that a loader hands out."""
        self._of: WeakKeyDictionary[DataLoader, Places] = WeakKeyDictionary()

    def look(self, loader: DataLoader | None, batch: Any, share: Share | None) -> None:
        """*loader* hands out *batch*, of which this rank has *share*; all ranks come here together."""
        engine = self.engine
        self.places = {}
        is_idle = engine.is_repeating and not engine.whole_batches.may_change(loader) and not _has_lists(batch)
        if loader is None or share is None or share.ranks == 1 or is_idle:
            return
        if loader not in self._of:
            keys = engine.cutter.keys(loader)
            with engine.unjournaled():
                self._of[loader] = agreed(batch, share, lambda: _twice(loader, keys))
                self._tell_flat(batch, self._of[loader], lambda: _twice(loader, keys))
        self.places = self._of[loader]

    def of(self, loader: DataLoader) -> Places:
        """What they have agreed on for *loader*."""
        return self._of.get(loader, {})

    def _tell_flat(self, batch: Any, places: Places, twice: Twice) -> None:
        """Say which parts have the entries of all rows one after the other: these are counted by no rank for all."""
        none = {place for place, dim in places.items() if dim is None} if self.engine.rank == 0 else set()
        within = {place for place, _ in tensors(batch)} & none
        tried = None if not within or any(True for _ in graphs.within(batch)) else twice()
        if tried is None:
            return
        once, both = (dict(tensors(each)) for each in tried[1:])
        for place in sorted(within):
            if 0 < _size(once.get(place), 0) * 2 == _size(both.get(place), 0):
                name = ".".join(place)
                self.engine.say_once(f"flat {name}", _FLAT.format(name))

    def turned(self, loader: DataLoader, batch: Any) -> Any:
        """A *batch* of *loader* with rows first in place of time, and the other way round."""
        return turned(batch, self.of(loader))


def agreed(batch: Any, share: Share, twice: Twice) -> Places:
    """Where the rows of *batch* are, of which this rank has *share*; empty if all are in the first dimension.

    All ranks come here together.
    """
    rows = max(share.rows, 1)
    mine = _votes(batch, rows, twice)
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, (_found(batch, rows, twice), *mine), group=group.data_group())
    entries = _entries([votes for _, votes, _ in every])
    # Words that are alike on all ranks, where no rows could be put together twice, are rather names of classes.
    entries -= {place for place, word in mine[1].items() if all(each.get(place) == word for *_, each in every)}
    every = [{place: dims for place, dims in each.items() if not is_within(place, entries)} for each, *_ in every]
    places = {place for each in every for place in each}
    common = {place: set.intersection(*(each[place] for each in every if place in each)) for place in places}
    found = {place: min(dims, default=None) for place, dims in common.items()}
    words = {place for place, part in _lists(batch) if not is_nested(part)} & entries
    found |= dict.fromkeys(entries - words) | dict.fromkeys(words, 0)
    return found if words or any(found.values()) or None in found.values() else {}


def _found(batch: Any, rows: int, twice: Twice) -> dict[Path, set[int]]:
    found = {place: {dim for dim in (0, 1) if _size(part, dim) == rows} for place, part in tensors(batch)}
    found |= graphs.places(batch)
    # As many in the second dimension may be features, or steps: only rows are twice as many of each row twice.
    tried = twice() if any(1 in dims for dims in found.values()) else None
    if tried is None:
        return found
    count, *batches = tried
    once, both = (dict(tensors(each)) for each in batches)
    for place in [place for place, dims in found.items() if 1 in dims]:
        of_one, of_both = once.get(place), both.get(place)
        found[place] = {dim for dim in found[place] if (_size(of_one, dim), _size(of_both, dim)) == (count, 2 * count)}
    return found


def _entries(every: list[_Votes]) -> set[Path]:
    """The lists whose entries are rows: as many as there are rows on all ranks, and no tensors with rows on one."""
    votes: _Votes = {}
    for each in every:
        for place, said in each.items():
            votes.setdefault(place, set()).update(said)
    found = {place for place, said in votes.items() if said == {_ENTRIES}}
    return {place for place in found if not is_within(place, found)}


def _votes(batch: Any, rows: int, twice: Twice) -> tuple[_Votes, dict[Path, str]]:
    """What the lists in *batch* have: entries for each row, or fields with rows; nothing if it may be both.

    Then some rows are put together once and twice, which makes entries twice as many. Where that cannot be, the words
    of each list of words are given as well.
    """
    found = {place: _vote(part, rows) for place, part in _lists(batch)}
    # Fields may be as many as rows by chance, and one of them flat: `labels, words, offsets`.
    unsure = [place for place, said in found.items() if said != {_FIELDS}]
    tried = twice() if unsure else None
    if tried is None:
        return found, {place: repr([*part]) for place, part in _lists(batch) if not is_nested(part)}
    count, *batches = tried
    once, both = (dict(_lists(each)) for each in batches)
    for place in unsure:
        grows = (len(once.get(place, ())), len(both.get(place, ()))) == (count, 2 * count)
        found[place] = {_ENTRIES if grows else _FIELDS}
    return found, {}


def _vote(part: Any, rows: int) -> set[str]:
    if len(part) != rows or are_fields(part):
        return {_FIELDS}
    return set() if all(_may_have_rows(each, rows) for each in part) else {_ENTRIES}


def _has_lists(batch: Any) -> bool:
    """Whether something in *batch* beside itself is a list, or its entries are words."""
    return any(place or not is_nested(part) for place, part in _lists(batch))


def _may_have_rows(part: Any, rows: int) -> bool:
    if isinstance(part, Mapping):
        return bool(part) and all(_may_have_rows(each, rows) for each in part.values())
    if isinstance(part, (list, tuple)):
        return len(part) == rows
    return isinstance(part, torch.Tensor) and _size(part, 0) == rows


def _lists(batch: Any, place: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The lists in *batch*, each with its place."""
    if isinstance(batch, (list, tuple)):
        yield place, batch
    if isinstance(batch, Mapping) or (is_nested(batch) and not isinstance(batch, type)):
        for key, part in parts(batch).items():
            yield from _lists(part, (*place, str(key)))


def is_within(place: Path, entries: Collection[Path]) -> bool:
    """Whether *place* is that of an entry of a list whose entries are rows."""
    return any(place[:end] in entries for end in range(len(place)))


def lists_of_rows(batch: Any, places: Places, *, of_words: bool = False) -> list[Any]:
    """The lists in *batch* whose entries are rows, by what the ranks have agreed on; *of_words*: these too."""
    dims = (None, 0) if of_words else (None,)
    return [part for place, part in _lists(batch) if places.get(place, 1) in dims]


def _size(part: torch.Tensor | None, dim: int) -> int:
    return part.shape[dim] if part is not None and part.dim() > dim else -1


def tensors(batch: Any, place: Path = ()) -> Iterator[tuple[Path, torch.Tensor]]:
    """The tensors of *batch*, each with its place."""
    if isinstance(batch, torch.Tensor):
        yield place, batch
    for key, part in within(batch).items():
        yield from tensors(part, (*place, str(key)))


def within(batch: Any) -> Mapping[Any, Any]:
    """What *batch* holds, by key, field, place or attribute; of an object of another kind its tensors."""
    if isinstance(batch, (Mapping, list, tuple)) or (dataclasses.is_dataclass(batch) and not isinstance(batch, type)):
        return parts(batch)
    if isinstance(batch, (torch.Tensor, type)):
        return {}
    fields = getattr(batch, "__dict__", {})  # of an object, which may lead back to itself
    return {key: each for key, each in fields.items() if isinstance(each, torch.Tensor)}


def turned(batch: Any, places: Places, place: Path = ()) -> Any:
    """*batch* with rows first in place of time, and the other way round."""
    if 1 not in places.values():
        return batch
    if isinstance(batch, torch.Tensor):
        return batch.transpose(0, 1).contiguous() if places.get(place) == 1 and batch.dim() > 1 else batch
    if not isinstance(batch, (Mapping, list, tuple)) and not dataclasses.is_dataclass(batch):
        return batch
    return made_of(batch, {key: turned(part, places, (*place, str(key))) for key, part in parts(batch).items()})


def _twice(loader: DataLoader, keys: Any) -> tuple[int, Any, Any] | None:
    """Some rows of *loader*, those of *keys*, as `Twice` says; None where they cannot be had."""
    if not keys or loader.collate_fn is None:
        return None
    with contextlib.suppress(Exception), fetching(), untouched(loader.dataset, loader.collate_fn):
        rows = [loader.dataset[key] for key in list(keys)[:_TRIED]]
        once, both = (loader.collate_fn(copy.deepcopy(rows) * times) for times in (1, 2))
        return len(rows), once, both
    return None
