"""Places of rows that a script counts through: `for i in range(len(x))`.

Before backward these are the rank's own, after it those of the whole batch, as for lists of rows.
"""

import builtins
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch.distributed as dist

from ... import group
from ..share import bounds
from . import logged, said
from .size import Rows


class Own(int):
    """A place among this rank's rows, or a number of them.

    The script may compute something else of it as well: `i % 3`, `i / n` are of its place in the whole batch.
    """

    whole: int | None = None
    """The place in the whole batch; None where it is not known."""

    @classmethod
    def at(cls, place: int, whole: int | None) -> "Own":
        """*place* of this rank's rows, *whole* of all."""
        made = cls(place)
        made.whole = whole
        return made

    def __mod__(self, other: Any) -> Any:
        if self.whole is None or isinstance(other, bool) or type(other) is not int:
            return _OWN_MOD(self, other)
        return Computed(self.whole % other)

    def __truediv__(self, other: Any) -> Any:
        first = int(self) if self.whole is None else self.whole
        return first / other if isinstance(other, (int, float, Rows)) else NotImplemented

    def __reduce__(self) -> tuple:
        return int, (int(self),)


class Computed(int):
    """What a script computed of a row's place in the whole batch, and no place of a row: `i % 3`."""

    def __reduce__(self) -> tuple:
        return int, (int(self),)


class Places(np.ndarray):
    """Places among the rows of the whole batch, which numpy drew."""

    def __array_wrap__(self, array: Any, *how: Any) -> Any:
        """What numpy computed of this; a single number is one of numpy's."""
        return array[()] if array.ndim == 0 else super().__array_wrap__(array, *how)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()  # a file has nothing of ours


class OfWhole(int):
    """A place among the rows of the whole batch."""

    def __reduce__(self) -> tuple:
        return int, (int(self),)


def _kept(kind: type, work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def both(first: Any, second: Any) -> Any:
        if not isinstance(second, (int, Rows)) or isinstance(second, bool):
            return NotImplemented
        own = work(int(first), operator.index(second) if kind is Own or type(second) is int else int(second))
        return Own.at(own, _of_wholes(work, first, second)) if kind is Own else kind(own)

    return both


def _of_wholes(work: Callable[[Any, Any], Any], first: Own, second: Any) -> int | None:
    other = second.whole if isinstance(second, (Own, Rows)) else second
    return None if first.whole is None or other is None else work(first.whole, other)


_OWN_MOD = _kept(Own, operator.mod)


def _turned(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda second, first: work(first, second)


def _operators() -> None:
    for kind in (Own, OfWhole):
        for name in ("add", "sub", "mul", "floordiv", "mod"):
            work = getattr(operator, name)
            if f"__{name}__" not in vars(kind):
                setattr(kind, f"__{name}__", _kept(kind, work))
            setattr(kind, f"__r{name}__", _kept(kind, _turned(work)))


_operators()


class _Range(type):
    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, builtins.range)

    def __call__(cls, *words: Any) -> Any:
        kind = next((found for each in words if (found := kind_of(each)) is not None), None)
        if kind is None:
            return builtins.range(*words)
        if kind is Own and not _has_pieces(words):
            said.say("one by one", said.ONE_BY_ONE)
            first = first_of(words[-1]) if len(words) == 1 else None
            return [own(each, first) for each in builtins.range(*map(operator.index, words))]
        return [OfWhole(each) for each in builtins.range(*map(int, words))]


class Range(metaclass=_Range):
    """`range` for the script, which of a number of rows gives places of rows."""


def _has_pieces(words: tuple) -> bool:
    """Whether a range of *words* is of pieces of several rows, `x[i : i + 4]`: each of them is of the whole batch."""
    return len(words) > 2 and abs(int(words[2])) > 1


def kind_of(number: Any) -> type | None:
    """Which places *number*, of rows, counts; None if it is no number of rows."""
    if isinstance(number, (Own, OfWhole)):
        return type(number)
    if not isinstance(number, Rows):
        return None
    share = number.share
    return OfWhole if share is not None and (share.went_back or logged.is_for_log()) else Own


def first_of(number: Any) -> int | None:
    """The place in the whole batch of the first of this rank's rows, of which there are *number*; None if not known."""
    share = number.share if isinstance(number, Rows) and not number.is_picked else None
    if share is None or number.whole % share.total or dist.get_world_size(group.data_group()) != share.ranks:
        return None
    times = number.whole // share.total
    start, _, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    return start * times if operator.index(number) == max(share.rows, 1) * times else None


def own(place: int, first: int | None) -> Own:
    """*place* among this rank's rows, of which *first* is the place of the first one in the whole batch."""
    return Own.at(place, None if first is None else first + place)
