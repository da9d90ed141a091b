"""A number of rows: this rank's where it is a size, all ranks' where it is a number."""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..share import Share


class Rows(np.int64):
    """As a size, an index or an argument of torch this is the rank's own number, which `int64` is.

    Printed, compared, divided, added up or multiplied by a float it is `whole`, that of the global batch. Products with
    whole numbers, such as `B * T`, are both again. A subclass of `int` would not do: `0.5 * rows` would not ask it.
    """

    whole: int
    share: Share | None
    """How their batch was cut, where that is known."""
    is_picked: bool
    """Whether they are some that each rank has picked, or nodes of graphs: no rank knows how many another one has."""

    @classmethod
    def of(cls, mine: int, whole: int, share: Share | None = None, *, is_picked: bool = False) -> "Rows":
        """*mine* of *whole* rows."""
        made = cls(mine)
        made.whole, made.share, made.is_picked = whole, share, is_picked
        return made

    def __eq__(self, other: object) -> Any:
        # `x.size(0) == batch_size` means the global batch; `out.size(0) == len(x)` compares sizes of this rank.
        if isinstance(other, Rows):
            return self.whole == other.whole
        return other in (_mine(self), self.whole) if isinstance(other, (int, float)) else NotImplemented

    def __ne__(self, other: object) -> Any:
        found = self == other
        return found if found is NotImplemented else not found

    def __hash__(self) -> int:
        return hash(_mine(self))

    def __bool__(self) -> bool:
        return self.whole != 0

    def __int__(self) -> int:
        return self.whole

    def __float__(self) -> float:
        return float(self.whole)

    def __str__(self) -> str:
        return str(self.whole)

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(self.whole, spec)

    def __round__(self, digits: Any = None) -> Any:
        return round(self.whole, digits)

    def __reduce__(self) -> tuple:
        return int, (self.whole,)


class Shape(tuple):
    """A `torch.Size` with numbers of rows, printed as that of the global batch; of torch's own none can be derived."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return torch.Size

    def numel(self) -> Any:
        """The elements of a tensor of this shape."""
        return math.prod(self)

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return Shape(found) if isinstance(place, slice) else found

    def __add__(self, other: Any) -> Any:
        return Shape((*self, *other)) if isinstance(other, tuple) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return Shape((*other, *self)) if isinstance(other, tuple) else NotImplemented

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __reduce__(self) -> tuple:
        return torch.Size, ([int(each) for each in self],)


_Work = Callable[[Any, Any], Any]
_NUMBERS = (int, float, Rows)


def _number(value: Any) -> Any:
    return value.whole if isinstance(value, Rows) else value


def _mine(value: Any) -> Any:
    return operator.index(value) if isinstance(value, Rows) else value


def _as_size(work: _Work) -> _Work:
    """*work* of two whole numbers, for the rank's as for all."""

    def both(first: Any, second: Any) -> Any:
        if not isinstance(first, (int, Rows)) or not isinstance(second, (int, Rows)):
            return _whole(work, first, second)
        given = [each for each in (first, second) if isinstance(each, Rows)]
        is_picked = any(each.is_picked for each in given)
        mine, whole = work(_mine(first), _mine(second)), _whole(work, first, second)
        return Rows.of(mine, whole, given[0].share, is_picked=is_picked)

    return both


def _as_number(work: _Work) -> _Work:
    """*work* of two numbers, for all ranks'."""
    return lambda first, second: _whole(work, first, second)


def _added(first: Any, second: Any) -> Any:
    """`total += rows` is a number from then on."""
    return _as_size(operator.add)(first, second) if isinstance(second, Rows) else _whole(operator.add, first, second)


def _whole(work: _Work, first: Any, second: Any) -> Any:
    if isinstance(first, _NUMBERS) and isinstance(second, _NUMBERS):
        return work(_number(first), _number(second))
    return NotImplemented


def _turned(work: _Work) -> _Work:
    return lambda first, second: work(second, first)


def _operators() -> None:
    for name in ("sub", "mul", "floordiv", "mod"):
        work = getattr(operator, name)
        setattr(Rows, f"__{name}__", _as_size(work))
        setattr(Rows, f"__r{name}__", _as_size(_turned(work)))
    for name in ("truediv", "pow"):
        work = getattr(operator, name)
        setattr(Rows, f"__{name}__", _as_number(work))
        setattr(Rows, f"__r{name}__", _as_number(_turned(work)))
    for name in ("lt", "le", "gt", "ge"):
        setattr(Rows, f"__{name}__", _as_number(getattr(operator, name)))
    Rows.__add__ = Rows.__radd__ = _added  # type: ignore[method-assign]


_operators()
