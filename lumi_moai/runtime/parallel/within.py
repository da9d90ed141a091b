"""Within a model that makes a number of the batch by hand, the rows are followed as they are in the script.

A model computes with plain tensors, as fast as ever. So `(nll * mask).sum() / mask.sum()` in its `forward` would be of
this rank's rows. The first call of each kind is looked at (see `by_model`, and `kept` for what it changes with each
batch); of a model that adds up by hand only its
parts are computed with plain tensors from then on, and its own lines like those of the script.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules.loss import _Loss

from ...errors import RequestError
from . import counts, kept, roots
from .by_model import Look, is_users
from .selfcheck.snapshot import Snapshot

if TYPE_CHECKING:
    from .engine import Engine

Compute = Callable[[roots.Call], Any]
_MOST = 16
"""Kinds of calls of one model that are looked at; the others are computed as plainly as ever."""


@dataclass(frozen=True, kw_only=True)
class _Called:
    """A call of a model, or of a part of one."""

    module: nn.Module
    own: roots.Call
    given: counts.Given
    kind: tuple
    compute: Compute
    """Computes the call by way of what it is given in the place of `own`."""
    alone: Compute
    """The same in one piece, which nobody computes again."""


class Within:
    """The models, and parts of them, that make numbers of the batch by hand."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self._known: WeakKeyDictionary[nn.Module, dict[tuple, bool]] = WeakKeyDictionary()
        self._following = False

    def call(self, root: nn.Module, own: roots.Call, args: tuple, kwargs: dict[str, Any], given: counts.Given) -> Any:
        """A call of a model of the script, which was *given* rows of the batch."""
        callers = self.engine.callers

        def alone(call: roots.Call) -> Any:
            others = [each for each in callers if each != self.engine.micro.caller]
            return roots.through(others, root, call, args, kwargs)

        compute = functools.partial(_through, callers, root, args, kwargs)
        kind = _kind(args, kwargs)
        return self._call(_Called(module=root, own=own, given=given, kind=kind, compute=compute, alone=alone))

    def keeping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """*function*, a part of a model that backward computes again: with plain tensors, then as now."""
        return functools.partial(_plain, function) if self._following else function

    def _call(self, called: _Called) -> Any:
        if not self._may_follow(called):
            return self._compare(called)
        known = self._known.setdefault(called.module, {})
        if called.kind not in known and len(known) < _MOST:
            look, before = Look(), Snapshot([], [called.module], copied=math.inf)
            tensors = kept.of(called.module)
            with kept.weights_in_parts_unchanged(called.module):
                result = called.compute(look.at(called.own))
            known[called.kind] = look.is_by_hand or kept.is_of_rows(called.module, tensors)
            if not known[called.kind]:
                kept.check_alike(called.module, tensors)
                return result
            del result
            before.put_back()
            self.engine.micro.memory.forget()
            return self._first(called)
        return self._follow(called) if known.get(called.kind) else called.compute(called.own)

    def _compare(self, called: _Called) -> Any:
        """A call whose lines are not followed; the first of each kind must leave the same buffers on all ranks."""
        known = self._known.setdefault(called.module, {})
        if is_users(called.module) or called.kind in known or len(known) >= _MOST or not self._has_rows(called):
            return called.compute(called.own)
        known[called.kind] = False
        tensors = kept.of(called.module)
        result = called.compute(called.own)
        kept.check_alike(called.module, tensors)
        return result

    def _has_rows(self, called: _Called) -> bool:
        """Whether each rank has its rows in *called*; also of a training batch under `no_grad`, a teacher's say."""
        engine = self.engine
        if not called.given.parts or engine.share is None or engine.in_backward:
            return False
        return engine.place is not None and engine.place.plan.pp == 1 and not torch.compiler.is_compiling()

    def _may_follow(self, called: _Called) -> bool:
        return self._has_rows(called) and is_users(called.module) and self._is_in_one_piece(called)

    def _is_in_one_piece(self, called: _Called) -> bool:
        if self.engine.micro.memory.pieces == 1:
            return True
        if any(self._known.get(called.module, {}).values()):
            raise RequestError(
                f"the forward of {type(called.module).__name__} makes a number of the batch by hand, which its rows in"
                " micro-batches would not give; take a loss of torch's in there, or the loss outside of the model"
            )
        return False

    def _first(self, called: _Called) -> Any:
        """A call that could be computed with plain tensors, now followed."""
        tensors = kept.of(called.module)
        try:
            result = self._follow(called)
            kept.check_alike(called.module, tensors)
            return result
        except RequestError as error:
            raise RequestError(
                f"the forward of {type(called.module).__name__} makes a number or a buffer of the batch by hand, of all"
                f" rows therefore, and {error}"
            ) from None

    def _follow(self, called: _Called) -> Any:
        def followed(*args: Any, **kwargs: Any) -> Any:
            with counts.followed(called.given), self._parts():
                return called.own(*args, **kwargs)

        return self.engine.micro.memory.whole(type(called.module).__name__, lambda: called.alone(followed))

    @contextmanager
    def _parts(self) -> Iterator[None]:
        """Within this the parts that a model calls are computed with plain tensors, unless they add up by hand."""
        own, before = nn.Module.__call__, self._following

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            nn.Module.__call__, self._following = own, False
            try:
                return self._part(module, functools.partial(own, module), args, kwargs)
            finally:
                nn.Module.__call__, self._following = call, True

        nn.Module.__call__, self._following = call, True
        try:
            yield
        finally:
            nn.Module.__call__, self._following = own, before

    def _part(self, module: nn.Module, own: roots.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        if isinstance(module, _Loss):  # of whose numbers for each row the model makes one
            return own(*args, **kwargs)
        with counts.plainly((args, kwargs)) as given:

            def compute(call: roots.Call) -> Any:
                return call(*args, **kwargs)

            kind = _kind(args, kwargs)
            called = _Called(module=module, own=own, given=given, kind=kind, compute=compute, alone=compute)
            return counts.mark_outputs(self._call(called), given)


def _through(callers: Any, root: nn.Module, args: tuple, kwargs: dict[str, Any], call: roots.Call) -> Any:
    return roots.through(callers, root, call, args, kwargs)


def _plain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with counts.plainly((args, kwargs)) as given:
        return counts.mark_outputs(function(*args, **kwargs), given)


def _kind(args: tuple, kwargs: dict[str, Any]) -> tuple:
    """What tells calls of a model apart that may return something else."""
    named = sorted((name, type(each)) for name, each in kwargs.items() if each is not None)
    return torch.is_grad_enabled(), tuple(map(type, args)), tuple((name, kind.__name__) for name, kind in named)
