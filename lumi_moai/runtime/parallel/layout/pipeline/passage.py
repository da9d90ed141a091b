"""One piece of a batch on its way through the blocks of this stage, while the model's own forward runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .....errors import RequestError
from .. import recompute
from . import elsewhere
from .travel import Received

_CLASSES: dict[type, type] = {}
_NUMBERS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_UNDER_WAY: list["Passage"] = []
_ALONE: list[bool] = []


class PassedOn(BaseException):
    """This stage has done its blocks; no model catches it by accident."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The blocks of one stage."""

    stage: int
    stages: int
    first: int
    end: int
    blocks: int
    """Of the model."""

    @property
    def is_last(self) -> bool:
        """Whether the rest of the model's forward is computed here."""
        return self.stage == self.stages - 1


class Passage:
    """What the blocks of a model give while one piece is at this stage."""

    def __init__(self, span: Span, received: Received | None, seed: int | None) -> None:
        self.span = span
        self.received = received
        """What the last block of the stage before gave; the blocks before it gave something of the same form."""
        self.seed = seed
        """Of the random numbers that the blocks of this stage draw; None where they draw none."""
        self.left: Any = None
        """What the last block of this stage returned."""
        self._next = 0
        self.has_begun = False
        """Whether it has come to a block of this stage."""

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Within this, calls of the blocks are of this piece; the block that is the stage's last one ends it."""
        _UNDER_WAY.append(self)
        try:
            yield
        except PassedOn:
            pass
        else:
            self._check_end()
        finally:
            _UNDER_WAY.pop()

    def through(self, number: int, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """What the block with *number* gives."""
        if number != self._next:
            raise elsewhere.refusal(f"its forward calls block {number} where block {self._next} follows")
        self._next += 1
        if self.received is not None and number < self.span.first:
            is_at_border = number == self.span.first - 1
            return self.received.value if is_at_border else self.received.form.elsewhere()
        self.has_begun = True
        if elsewhere.holds((args, kwargs)):
            raise elsewhere.refusal(f"block {number} uses a result of a block before the last one, a skip connection")
        if number == self.span.first and self.seed is not None:
            torch.manual_seed(self.seed)
        result = call(*args, **kwargs)
        if number == self.span.end - 1 and not self.span.is_last:
            self.left = result
            raise PassedOn
        return result

    def _check_end(self) -> None:
        if self._next < self.span.end:
            raise elsewhere.refusal(f"its forward ends ahead of block {self._next} of {self.span.blocks}")


class Staged(nn.Module):
    """A block of a model in stages."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        raise RequestError(
            f"copy.deepcopy of {type(self).__name__}, a block of a model that is in pipeline stages since training"
            " began, is not possible; make the copy before training, copy model.state_dict(), or use --layout replicate"
        )


@contextmanager
def alone() -> Iterator[None]:
    """Within this a call of a block is no part of a passage: each rank computes all of them."""
    _ALONE.append(True)
    try:
        yield
    finally:
        _ALONE.pop()


def is_alone() -> bool:
    """Whether this rank computes all blocks."""
    return bool(_ALONE)


def has_begun() -> bool:
    """Whether the piece under way has come to a block of this stage."""
    return bool(_UNDER_WAY) and _UNDER_WAY[-1].has_begun


def mark(block: nn.Module, number: int) -> None:
    """From now on a call of *block*, the model's *number*-th, is one of the passage under way."""
    _NUMBERS[block] = number
    own = type(block)
    if own not in _CLASSES:
        body = {"__call__": _called(own), "__module__": own.__module__, "__qualname__": own.__qualname__}
        _CLASSES[own] = type(own.__name__, (Staged, own), body)
    block.__class__ = _CLASSES[own]


def _called(own: Any) -> Callable[..., Any]:
    def plainly(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return own.__call__(block, *args, **kwargs)

    # A graph would keep the weights of other stages, which were fetched for it: in the end all of the model.
    apart = recompute.again(plainly, own)

    def call(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if is_alone():
            return apart(block, *args, **kwargs)
        if not _UNDER_WAY:
            raise elsewhere.refusal("the script calls a block by itself; call the whole model")
        return _UNDER_WAY[-1].through(_NUMBERS[block], partial(own.__call__, block), args, kwargs)

    return call
