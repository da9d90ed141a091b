"""A number of rows: this rank's where it is a size, all ranks' where it is a number."""

import math
import opcode
import operator
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import torch

from ..share import Share
from . import logged
from .users import is_scripts


class Rows(np.int64):
    """As a size, an index or an argument of torch this is the rank's own number, which `int64` is.

    Printed, compared, divided, added up or multiplied by a float it is `whole`, that of the global batch. Products with
    whole numbers, such as `B * T`, are both again. A subclass of `int` would not do: `0.5 * rows` would not ask it.
    """

    whole: int
    share: Share | None
    """How their batch was cut, where that is known."""
    __array_priority__ = -1.0  # so that `np.mean(losses) * rows` asks us; arrays, of 0, take `int(rows)` themselves
    is_picked: bool
    """Whether they are some that each rank has picked, or nodes of graphs: no rank knows how many another one has."""

    @classmethod
    def of(cls, mine: int, whole: int, share: Share | None = None, *, is_picked: bool = False) -> "Rows":
        """*mine* of *whole* rows."""
        made = super().__new__(cls, mine)
        made.whole, made.share, made.is_picked = whole, share, is_picked
        return made

    def __new__(cls, value: Any) -> Any:
        """A number of no batch, such as `statistics.mean([rows, 3])` makes of its kind, is a plain one."""
        number = float(value)
        return int(number) if number.is_integer() else number

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return int if is_scripts(sys._getframe(1)) else Rows  # `isinstance(rows, int)` of the script

    def __eq__(self, other: object) -> Any:
        return _is_same(self, other, sys._getframe(1))

    def __ne__(self, other: object) -> Any:
        found = _is_same(self, other, sys._getframe(1))
        return found if found is NotImplemented else not found

    def __hash__(self) -> int:
        return hash(self.whole)

    @property
    def numerator(self) -> Any:
        """All of it, as `Fraction` asks."""
        return self.whole

    def __bool__(self) -> bool:
        return self.whole != 0

    def __index__(self) -> int:
        frame = sys._getframe(1)
        return self.whole if _is_operand(frame) or logged.means_all(frame) else _mine(self)

    def __int__(self) -> int:
        return self.whole

    def __float__(self) -> float:
        return float(self.whole)

    def __str__(self) -> str:
        return str(self.whole)

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(self.whole, spec)

    def __trunc__(self) -> int:
        return self.whole

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
_NUMBERS = (int, float, complex, np.generic)
_SIZES = (int, np.integer)


def _number(value: Any) -> Any:
    return value.whole if isinstance(value, Rows) else value


_INDEX = np.int64.__index__
_NAMES = ("BINARY_SUBSCR", "BINARY_SLICE", "STORE_SUBSCR", "STORE_SLICE", "DELETE_SUBSCR", "BINARY_OP", "COMPARE_OP")
_OF_OPERANDS = {opcode.opmap[name] for name in _NAMES if name in opcode.opmap}
_TENSOR = torch._tensor.__file__
"""Where torch has some operators of tensors: `1 - x`, `x ** 2`."""


def _is_operand(frame: FrameType | None) -> bool:
    """Whether the script, in *frame*, takes something out of a list, an array or a plain tensor, or counts with it.

    What is called, `torch.zeros(rows)`, takes a size. A tensor of a batch is asked before its rows are.
    """
    while frame is not None and frame.f_code.co_filename == _TENSOR:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_code[frame.f_lasti] in _OF_OPERANDS and is_scripts(frame)


def _mine(value: Any) -> Any:
    return _INDEX(value) if isinstance(value, Rows) else value


def of_all_ranks(index: Any) -> Any:
    """*index* of what all ranks have, with all ranks' rows in place of a rank's, and so a tuple of several."""
    if isinstance(index, tuple):
        return tuple(map(of_all_ranks, index))
    if isinstance(index, slice):
        return slice(*map(of_all_ranks, (index.start, index.stop, index.step)))
    return _number(index)


def _as_size(work: _Work) -> _Work:
    """*work* of two whole numbers, for the rank's as for all."""

    def both(first: Any, second: Any) -> Any:
        if isinstance(first, (list, tuple)) or isinstance(second, (list, tuple)):  # `[0] * rows`
            meant = _number if logged.is_for_log() else _mine
            return work(meant(first), meant(second))
        if not isinstance(first, _SIZES) or not isinstance(second, _SIZES):
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


def _is_same(rows: Rows, other: object, frame: FrameType) -> Any:
    """`x.size(0) == batch_size` means the global batch. What torch and we compare may be a size of this rank."""
    found = _whole(operator.eq, rows, other)
    is_whole = found is not False or isinstance(other, Rows) or is_scripts(frame)
    return found if is_whole else other == _mine(rows)


def _alone(work: Callable[[Any], Any]) -> Callable[[Rows], Rows]:
    """*work* of one number, for the rank's as for all."""
    return lambda rows: Rows.of(work(_mine(rows)), work(rows.whole), rows.share, is_picked=rows.is_picked)


def _turned(work: _Work) -> _Work:
    return lambda first, second: work(second, first)


def _operators() -> None:
    for name in ("neg", "pos", "abs", "invert"):
        setattr(Rows, f"__{name}__", _alone(getattr(operator, name)))
    for name in ("sub", "mul", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift"):
        work = getattr(operator, f"__{name}__")
        setattr(Rows, f"__{name}__", _as_size(work))
        setattr(Rows, f"__r{name}__", _as_size(_turned(work)))
    for name in ("truediv", "pow"):
        work = getattr(operator, name)
        setattr(Rows, f"__{name}__", _as_number(work))
        setattr(Rows, f"__r{name}__", _as_number(_turned(work)))
    for name in ("lt", "le", "gt", "ge"):
        setattr(Rows, f"__{name}__", _as_number(getattr(operator, name)))
    Rows.__divmod__ = lambda first, second: (first // second, first % second)  # type: ignore[method-assign]
    Rows.__rdivmod__ = lambda first, second: (second // first, second % first)  # type: ignore[method-assign]
    Rows.__add__ = Rows.__radd__ = _added  # type: ignore[method-assign]


_operators()
