"""A batch that no DataLoader gave: each rank computes its rows of it, where the model keeps rows apart.

A script that takes its batches by hand (`torch.randint` into an array of tokens) has the whole batch on every rank. So
the ranks share out the call of a model alone: each computes the model for its rows, and what comes out is put together
again. All that the script does outside of its models every rank does for the whole batch, as one device would.

arguments  what a call is given, and this rank's part of it
gathered   from whole tensors to rows and back, with gradients
outputs    how what the ranks compute goes together
probe      whether a model keeps rows apart
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ... import accelerator, group
from ...here import is_in_thread
from .. import roots
from ..place import Place
from ..share import Share, bounds
from ..transforming import is_transforming
from . import arguments, outputs, probe
from .arguments import Given
from .gathered import Cut, Waiting, arrived

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["Undivided", "Waiting", "arrived"]

_MOST = 16
"""Kinds of calls of one model that are looked at; the others stay whole."""

Compute = Callable[[tuple, dict[str, Any]], Any]


class Undivided:
    """The calls of the script's models with whole batches."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.share: Share | None = None
        """Of the last call that was cut; None as long as none was."""
        self._known: WeakKeyDictionary[nn.Module, dict[tuple, outputs.Form | None]] = WeakKeyDictionary()
        self._chance: torch.Tensor | None = None
        """What this rank's device draws within models next."""

    def call(self, root: nn.Module, own: roots.Call, args: tuple, kwargs: dict[str, Any], compute: Compute) -> Any:
        """A call of *root*, which *compute* computes as it is; *own* is the script's."""
        given = self._read(root, args, kwargs) if self._may_cut(root) else None
        if given is None:
            return compute(*arrived((args, kwargs)))
        cut = Cut(total=given.rows, ranks=self._place.data_ranks, rank=self._place.data_rank)
        known, kind = self._known.setdefault(root, {}), (*given.kind, given.rows < 2 * cut.ranks)
        if kind not in known and len(known) < _MOST:
            known[kind] = self._look(root, own, given, cut)
        form = known.get(kind)
        is_fit, result = self._cut(given, cut, form, compute) if form else (False, None)
        if is_fit:
            return result
        if form is not None:
            known[kind] = None
            self._say_whole(root, "it returns something else than before")
        return compute(*given.each_as(lambda tensor: tensor))

    @property
    def _place(self) -> Place:
        return self.engine.place or self.engine.settle()

    def _read(self, root: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Given | None:
        found = arguments.read(args, kwargs, self._place.data_ranks)
        if isinstance(found, Given):
            return found
        self._say_whole(root, found)
        return None

    def _may_cut(self, root: nn.Module) -> bool:
        engine = self.engine
        if not root.training or not torch.is_grad_enabled() or engine.is_repeating or engine.share is not None:
            return False
        if engine.in_backward or engine.self_check.is_running or is_in_thread() or is_transforming():
            return False
        place = engine.place
        return place is not None and place.data_ranks > 1 and place.plan.pp == 1 and not torch.compiler.is_compiling()

    def _look(self, root: nn.Module, own: roots.Call, given: Given, cut: Cut) -> outputs.Form | None:
        found = probe.form_of(self.engine, root, own, given, cut)
        if isinstance(found, str):
            self._say_whole(root, found)
            return None
        return found

    def _say_whole(self, root: nn.Module, reason: str) -> None:
        sentence = f"{type(root).__name__} is computed whole by every rank, right but no faster: {reason}"
        self.engine.say_once(sentence, sentence)

    def _cut(self, given: Given, cut: Cut, form: outputs.Form, compute: Compute) -> tuple[bool, Any]:
        self.share = share = self.share_of(cut)
        before = torch.get_rng_state()
        with self.inside(share), self._own_chance():
            result = compute(*given.part(cut))
        if share.uneven and not torch.equal(torch.get_rng_state(), before):
            torch.set_rng_state(group.agree(torch.get_rng_state()))
        return outputs.joined(result, form, cut, share, waits=given.has_gradient)

    def share_of(self, cut: Cut) -> Share:
        """How a batch is cut of which this rank has the rows of *cut*."""
        return bounds(cut.total, cut.rank, cut.ranks)[2]

    @contextmanager
    def inside(self, share: Share | None) -> Iterator[None]:
        """Within this a model computes rows of a batch that was cut as *share* says."""
        at_hand = self.engine.at_hand
        before, at_hand.inside, loss_share = at_hand.inside, share, at_hand.loss_share
        try:
            yield
        finally:
            at_hand.inside, at_hand.loss_share = before, loss_share

    @contextmanager
    def _own_chance(self) -> Iterator[None]:
        """Rows on different ranks get different dropout, and what the script draws outside stays alike."""
        if not accelerator.is_gpu():  # where draws are those of the whole batch
            yield
            return
        shared = torch.cuda.get_rng_state()
        if self._chance is None:
            torch.cuda.manual_seed(torch.cuda.initial_seed() + 1 + self._place.data_rank)
        else:
            torch.cuda.set_rng_state(self._chance)
        try:
            yield
        finally:
            self._chance = torch.cuda.get_rng_state()
            torch.cuda.set_rng_state(shared)

    def keeping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """*function*, a part of a model, such that backward computes it again for the rows that it is computed for."""
        share = self.engine.at_hand.inside
        if share is None:
            return function

        @wraps(function)
        def again(*args: Any, **kwargs: Any) -> Any:
            with self.inside(share):
                return function(*args, **kwargs)

        return again
