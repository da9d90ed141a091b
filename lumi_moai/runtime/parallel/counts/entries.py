"""Lists of a batch with an entry for each row, as the script gets them: names, texts, dictionaries of one sample.

A rank has the entries of its rows, and goes through these for its model and its loss. The script gets those of the
whole batch where it means all rows: behind `backward()`, by a place (`names[-1]`, `names[:5]`), and where it only
keeps, counts or prints them. Libraries, and models within their forward, find a rank's.
"""

import copy
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import is_dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import register_pytree_node, tree_map

from ... import group
from ..parts import made_of, parts
from ..share import Share
from . import logged, said, users
from .ranged import Own
from .source import line_that_asks_for_kinds

_PASSED = {"collections", "csv", "json", "random", "statistics", "numpy", "pandas"}
"""Packages that go through a list for the script that called them."""


class Entries:
    """What lists and tuples of a batch have in common."""

    share: Share | None = None
    """How their batch was cut; None for what somebody else made of the class."""
    kind: Any
    _every: Any = None

    def __iter__(self) -> Iterator[Any]:
        return iter(meant(self, sys._getframe(1)))

    def __reversed__(self) -> Iterator[Any]:
        return reversed(meant(self, sys._getframe(1)))

    def __contains__(self, thing: Any) -> bool:
        return thing in meant(self, sys._getframe(1))

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, Own):
            return self.kind.__getitem__(self, place)
        return meant(self, sys._getframe(1), by_place=True)[place]

    def __repr__(self) -> str:
        return repr(meant(self, sys._getframe(1)))

    def __add__(self, others: Any) -> Any:
        return meant(self, sys._getframe(1)) + others

    def __radd__(self, others: Any) -> Any:
        return others + meant(self, sys._getframe(1)) if isinstance(others, self.kind) else NotImplemented

    def index(self, thing: Any, *places: Any) -> int:
        """As of a list."""
        return meant(self, sys._getframe(1)).index(thing, *places)

    def count(self, thing: Any) -> int:
        """As of a list."""
        return meant(self, sys._getframe(1)).count(thing)

    def copy(self) -> Any:
        """As of a list."""
        return _of(copy.copy(own(self)), self.share)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _of(copy.deepcopy(own(self), memo), self.share)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.kind, ([*own(self)],)  # one rank alone may write it to a file


class ListOfRows(Entries, list):
    """A list."""

    kind = list


class TupleOfRows(Entries, tuple):
    """A tuple."""

    kind = tuple


_OF: dict[type, type] = {list: ListOfRows, tuple: TupleOfRows}
KINDS = (*_OF, *_OF.values())
for _kind in _OF.values():
    register_pytree_node(_kind, lambda found: ([*own(found)], type(found)), lambda entries, kind: kind.kind(entries))


def own(entries: Any) -> Any:
    """This rank's of *entries*, in a plain list or tuple."""
    return entries.kind(entries.kind.__iter__(entries)) if isinstance(entries, Entries) else entries


def meant(entries: Any, frame: FrameType | None, *, by_place: bool = False) -> Any:
    """What the script means by *entries*, which it asks for in *frame*, in a plain list or tuple.

    Where it means those of all ranks, all ranks come here together.
    """
    mine = own(entries)
    share = entries.share if isinstance(entries, Entries) else None
    if share is None or len(mine) != max(share.rows, 1) or not _asks(frame):
        return mine
    if not (share.went_back or by_place or logged.is_for_log()):
        said.say("one by one", said.ONE_BY_ONE)
        return mine
    if entries._every is None:
        entries._every = entries.kind(_of_all(mine, share))
    return entries._every


def _asks(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        frame = frame.f_back
    return frame is not None and users.is_scripts(frame) and users.asks_in_loop(frame)


def _of_all(mine: Any, share: Share) -> Iterator[Any]:
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, tree_map(_sent, [*mine]) if share.rows else [], group=group.data_group())
    if share.rows:
        every[dist.get_rank(group.data_group())] = mine
    return (each for entries in every for each in entries)


def _sent(leaf: Any) -> Any:
    return leaf.detach().cpu() if isinstance(leaf, torch.Tensor) else leaf


def given(batch: Any, share: Share, found: Collection[Any]) -> Any:
    """*batch*, which was cut as *share* says, with those of its lists that are *found* to have entries for rows."""
    # One without a share is what a library made of one of ours, on its way to the device.
    of_rows = {id(each) for each in found if type(each) in KINDS and getattr(each, "share", None) is None}
    return _given(batch, share, of_rows) if of_rows and share.ranks > 1 and not _must_be_plain() else batch


def _must_be_plain() -> bool:
    for module in users.modules():
        path = str(module.__file__)
        if line := line_that_asks_for_kinds(path):
            said.say("kinds", said.KINDS.format(line=line, file=os.path.basename(path)))
            return True
    return False


def _given(batch: Any, share: Share, of_rows: Collection[int]) -> Any:
    if id(batch) in of_rows:
        return _of(batch, share)
    if not isinstance(batch, (Mapping, list, tuple)) and not is_dataclass(batch):
        return batch
    held = parts(batch)
    others = {key: _given(part, share, of_rows) for key, part in held.items()}
    return made_of(batch, others) if any(others[key] is not part for key, part in held.items()) else batch


def _of(entries: Any, share: Share | None) -> Any:
    made = _OF.get(type(entries), type(entries))(entries)
    made.share = share
    return made
