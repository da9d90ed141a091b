"""Places of rows that a script counts through: `for i in range(len(x))`.

Before backward these are the rank's own, after it those of the whole batch, as for lists of rows.
"""

import builtins
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .size import Rows


class Own(int):
    """A place among this rank's rows, or a number of them."""

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
        return kind(work(int(first), operator.index(second) if kind is Own or type(second) is int else int(second)))

    return both


def _turned(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda second, first: work(first, second)


def _operators() -> None:
    for kind in (Own, OfWhole):
        for name in ("add", "sub", "mul", "floordiv", "mod"):
            work = getattr(operator, name)
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
        turned = operator.index if kind is Own else int
        return [kind(each) for each in builtins.range(*map(turned, words))]


class Range(metaclass=_Range):
    """`range` for the script, which of a number of rows gives places of rows."""


def kind_of(number: Any) -> type | None:
    """Which places *number*, of rows, counts; None if it is no number of rows."""
    if isinstance(number, (Own, OfWhole)):
        return type(number)
    if not isinstance(number, Rows):
        return None
    return OfWhole if number.share is not None and number.share.went_back else Own
