"""What the script's modules get for Python's: `len`, `sum`, `max`, `range` and `enumerate` that know rows, and JSON."""

import functools
import json
import operator
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensor

from ... import group
from .. import graphs
from ..share import Share
from . import entries, lists, logged, reducing, said, tables, users
from .batch import become
from .ranged import Own, Range, first_of, kind_of, own
from .size import Rows

_AT_HAND: list[Callable[[], Share | None]] = []
"""Tells how the batch at hand was cut."""


def length(thing: Any) -> int | Rows:
    """`len()` for the script, which of a part of a batch is a number of rows too; Python's own allows a plain one."""
    rows = getattr(type(thing), "rows_along", None)
    if rows is not None:
        return rows(thing, 0)
    found = len(thing)
    if graphs.are_graphs(thing):
        return thing.num_graphs
    if type(thing) not in entries.KINDS:
        return thing.size(0) if type(thing) is FakeTensor else found  # in a step that a restart repeats
    share = lists.share_of(thing)
    if share is not None:
        return Rows.of(found, share.total, share)
    return Own(found) if _may_be_rows(found) else found


def added(things: Any, *start: Any) -> Any:
    """`sum()` for the script, which of a list with a number for each row of a batch is that of all ranks."""
    share = lists.share_of(things) if type(things) in entries.KINDS and not start else None
    found = sum(entries.own(things), *start)
    if share is None or type(found) not in (int, float):
        return found
    whole = reducing.total(share, torch.tensor(float(found), dtype=torch.float64, device="cpu")).item()
    return Rows.of(found, int(whole), share) if type(found) is int else whole


def _extreme(own: Callable[..., Any], sign: int) -> Callable[..., Any]:
    """`max()`, or `min()`, for the script, which of a list with a number for each row is that of all rows."""

    @functools.wraps(own)
    def extreme(*things: Any, **words: Any) -> Any:
        share = lists.share_of(things[0]) if len(things) == 1 and type(things[0]) in entries.KINDS else None
        if share is None:
            return own(*things, **words)
        found = own(entries.own(things[0]), **words)
        if words or type(found) is not int:
            return own(entries.meant(things[0], sys._getframe(1)), **words)
        return sign * group.most([sign * found])[0]

    return extreme


_MAX, _MIN = _extreme(max, 1), _extreme(min, -1)


def _may_be_rows(number: int) -> bool:
    """Whether a list of *number* may have come with the batch at hand; all ranks find the same of lists that did."""
    share = _AT_HAND[0]() if _AT_HAND else None
    if share is None:
        return False
    least, rest = divmod(share.total, share.ranks)
    return number in (max(least, 1), least + bool(rest))


class _Enumerate(type):
    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, enumerate)

    def __call__(cls, iterable: Any, start: Any = 0) -> Iterator[tuple[int, Any]]:
        first = None
        is_known = isinstance(iterable, entries.Entries)
        if is_known or getattr(type(iterable), "rows_along", None):
            number = length(iterable)
            kind, first = kind_of(number), first_of(number)
        else:
            is_list = type(iterable) in (list, tuple) and _may_be_rows(len(iterable))
            share = _AT_HAND[0]() if _AT_HAND and type(iterable) is zip else None
            is_own = share is not None and not share.went_back and not logged.is_for_log()
            kind = Own if is_list or is_own else None
        pairs = enumerate(entries.meant(iterable, sys._getframe(1)) if is_known else iterable, start)
        if kind is Own:
            return ((own(place, first), each) for place, each in pairs)
        return pairs if kind is None else ((kind(place), each) for place, each in pairs)


class Enumerate(metaclass=_Enumerate):
    """`enumerate` for the script, which of what may be rows gives places of rows."""


def teach(at_hand: Callable[[], Share | None] = lambda: None, say: Callable[[str, str], None] | None = None) -> None:
    """Give the script's modules `len`, `sum` and the like of ours; *at_hand* tells how its batch was cut.

    *say*: a sentence, on the rank that talks and once for each topic.
    """
    _AT_HAND[:], said.SAY[:] = [at_hand], [say] if say else []
    if not hasattr(json.JSONEncoder.default, "__wrapped__"):
        json.JSONEncoder.default = _written(json.JSONEncoder.default)  # type: ignore[method-assign,assignment]
    if not hasattr(torch.Tensor.split, "__wrapped__"):
        torch.Tensor.split = _split(torch.Tensor.split)
        torch.Tensor.narrow, torch.narrow = _narrow(torch.Tensor.narrow), _narrow(torch.narrow)
        for name in ("repeat", "tile"):
            setattr(numpy, name, _repeat(getattr(numpy, name)))
        for name in ("__iadd__", "add_"):
            setattr(torch.Tensor, name, _adding(getattr(torch.Tensor, name)))
        torch.stack = _of_entries(torch.stack)
        for name in ("tensor", "as_tensor"):
            setattr(torch, name, _of_numbers(getattr(torch, name)))
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue  # some packages put an object in the place of their module
        if users.is_users(getattr(module, "__file__", None) or "", module.__name__):
            vars(module).setdefault("len", length)
            vars(module).setdefault("sum", added)
            vars(module).setdefault("max", _MAX)
            vars(module).setdefault("min", _MIN)
            vars(module).setdefault("range", Range)
            vars(module).setdefault("enumerate", Enumerate)


def _written(own: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    @functools.wraps(own)
    def default(encoder: json.JSONEncoder, thing: Any) -> Any:
        return thing.whole if isinstance(thing, Rows) else own(encoder, thing)

    return default


def _split(own: Callable[..., Any]) -> Callable[..., Any]:
    """`Tensor.split`, which takes a number of rows, no `int`, for a list."""

    @functools.wraps(own)
    def split(tensor: torch.Tensor, size: Any, *args: Any, **kwargs: Any) -> Any:
        is_at_work = type(tensor) is torch.Tensor or not torch._C._is_torch_function_enabled()
        is_rows = isinstance(size, Rows) and is_at_work
        return own(tensor, operator.index(size) if is_rows else size, *args, **kwargs)

    return split


def _narrow(own: Callable[..., Any]) -> Callable[..., Any]:
    """`narrow`, which of the first rows of the script's own tensor takes those that go with the batch's: `t[:n]`."""

    @functools.wraps(own)
    def narrow(input: torch.Tensor, dim: int, start: Any, length: Any) -> Any:
        is_front = isinstance(length, Rows) and dim == 0 and type(start) is int and start == 0
        found = tables.taken(torch.Tensor.__getitem__, input, slice(length)) if is_front else None
        return own(input, dim, start, length) if found is None else found

    return narrow


def _repeat(own: Callable[..., Any]) -> Callable[..., Any]:
    """numpy's, which reads a number of rows as a number: this rank's, but where the script only keeps what it makes."""

    @functools.wraps(own)
    def repeat(a: Any, repeats: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(repeats, Rows):
            repeats = repeats.whole if logged.is_for_log() else operator.index(repeats)
        return own(a, repeats, *args, **kwargs)

    return repeat


def _of_entries(own: Callable[..., Any]) -> Callable[..., Any]:
    """`stack`, which makes a plain tensor of the rows that a batch has in a list: a sentence says so.

    The script may pick rows of it by places that count its own list, so it is not followed as the rows of a batch are.
    """

    @functools.wraps(own)
    def stack(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        share = _AT_HAND[0]() if _AT_HAND and type(tensors) in entries.KINDS else None
        is_asked = share is not None and not share.went_back and users.asks_in_loop(sys._getframe(1))
        if is_asked and lists.share_of_entries(tensors) is share:
            said.say("stacked", said.STACKED)
        return own(tensors, *args, **kwargs)

    return stack


def _of_numbers(own: Callable[..., Any]) -> Callable[..., Any]:
    """`tensor`, which of a list with a number for each row of a batch gives its rows, and of all of them all."""

    @functools.wraps(own)
    def tensor(things: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(things, entries.Entries):
            return own(things, *args, **kwargs)
        numbers, share = entries.meant(things, sys._getframe(1)), things.share
        made = own(numbers, *args, **kwargs)
        if share is None or share.went_back or len(numbers) != max(share.rows, 1) or not users.asks(sys._getframe(1)):
            return made
        return become(made, share, 0) if made.dim() else made

    return tensor


def _adding(own: Callable[..., Any]) -> Callable[..., Any]:
    """`counter += x.size(0)`: a single number to which rows are added is that of all ranks."""

    @functools.wraps(own)
    def add(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args and type(args[0]) is Rows and tensor.numel() == 1:
            args = (args[0].whole, *args[1:])
        return own(tensor, *args, **kwargs)

    return add
