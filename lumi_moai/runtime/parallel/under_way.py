"""A loss whose sum over the ranks is still under way while the script goes on to backward.

To wait for that sum between forward and backward would make the ranks meet once more in every step. So the loss is a
`Pending` tensor at first. Whatever asks for its value waits for the sum, and the tensor is a plain one from then on.
Only a backward that starts straight from it need not wait: it begins with the count of an earlier batch in place of
the true one, a factor that all ranks know, and the gradients are multiplied by `earlier / true count` at the end. The
sum then travels with the first gradients: one meeting of the ranks less, for which a step of a small model waits long.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import ReferenceType

import torch
from torch.utils.weak import WeakIdRef

from .. import group
from . import alike
from .counts import OfAll, Rows
from .divided import Divisor
from .share import Share, weight_in_backward

_MOST = 8
"""Losses under way at a time; a script that makes more of them without a backward waits."""
_WAITING: list["Sums"] = []


class Counts:
    """The count that one loss function was divided by last; the same on all ranks."""

    def __init__(self) -> None:
        self.last: torch.Tensor | None = None


class Sums:
    """The sums over all ranks of a loss and of what it is divided by, which nobody has asked for yet."""

    def __init__(self, mine: torch.Tensor, share: Share, counts: Counts | None) -> None:
        self.share = share
        self.counts = counts
        """None for a sum, which is divided by nothing."""
        self.earlier = mine.new_ones(()) if counts is None else counts.last
        self.is_early = False
        """Whether backward is to compute with `earlier`."""
        self.divisor: Divisor | None = None
        """For a sum: what the script may divide it by."""
        self._mine = mine
        self._carried: Callable[[], torch.Tensor] | None = None
        """Gives the sums, which travel with gradients."""
        self._sums: torch.Tensor | None = None
        self._losses: list[ReferenceType[Pending]] = []

    def promise(self, loss: torch.Tensor, value: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """*loss* as a pending tensor, which will be *value* of the global loss."""
        pending = loss.as_subclass(Pending)
        pending.sums, pending.of = self, value
        self._losses.append(WeakIdRef(pending))
        return pending

    def board(self, dtype: torch.dtype, carried: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """What travels with numbers of *dtype*, to be had of *carried* later; None if it must or does travel alone."""
        if self._sums is not None or self._carried is not None or dtype not in (torch.float32, torch.float64):
            return None
        self._carried = carried
        return self._mine

    def arrive(self) -> None:
        """Wait for the sums, and make the losses what they are."""
        if self._sums is not None:
            return
        sums = group.total(self._mine) if self._carried is None else self._carried()
        self._sums, self._carried = sums.to(self._mine.device), None
        if self.counts is not None:
            self.counts.last = torch.where(self._sums[1] == 0, 1.0, self._sums[1])
        value = self._sums[0] / self._true()
        for loss in [reference() for reference in self._losses]:
            if loss is None:
                continue
            of = loss.of
            del loss.sums, loss.of
            loss.__class__ = torch.Tensor
            with torch.no_grad():
                loss.data.copy_(of(value))
            loss.__class__ = OfAll

    def factor(self) -> torch.Tensor:
        """What the gradient of this rank's own sum is multiplied by; waits unless this is early."""
        if not self.is_early:
            self.arrive()
        divisor = self.earlier if self.is_early and self.earlier is not None else self._true()
        return torch.zeros_like(divisor) if self.share.rows == 0 else 1 / (divisor * weight_in_backward(self.share))

    def correction(self) -> torch.Tensor | None:
        """What gradients that were computed early are multiplied by; None for nothing."""
        self.arrive()
        if self.counts is None or self.earlier is None:
            return None
        # Without a single counted element all gradients are 0, whatever they are multiplied by.
        return torch.where(self._true() == 0, 1.0, self.earlier / self._true())

    def _true(self) -> torch.Tensor:
        sums = self._mine if self._sums is None else self._sums
        return torch.ones_like(sums[1]) if self.counts is None else sums[1]


class Pending(torch.Tensor):
    """A loss that becomes a plain tensor as soon as anything asks for its value."""

    sums: Sums
    of: Callable[[torch.Tensor], torch.Tensor]
    """This loss, given the one that the ranks add up."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Do *func*, having waited for the value if it needs one."""
        words = kwargs or {}
        if func is torch.Tensor.backward:
            return _backward(*args, **words)
        if func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **words)
        if func in _NEGATES:
            return _multiplied(torch.mul, args[0], -1)
        if func in _MULTIPLIES and not words and isinstance(args[1], Rows):
            if func in _DIVIDES:
                args[0].sums.divisor = None  # it is a mean now, which may be divided by anything
            return _multiplied(func, args[0], args[1].whole)
        if func in _MULTIPLIES and not words and _is_constant(args):
            if func in _DIVIDES and args[0].sums.divisor is not None:
                args[0].sums.divisor.check(args[1])
            return _multiplied(func, *args)
        if _WAITING:
            alike.check(_WAITING[0].share, alike.Doing.value)
        arrive()
        return func(*args, **words)


_FACTS = {
    *(getattr(torch.Tensor, name).__get__ for name in ("dtype", "device", "shape", "layout", "ndim", "requires_grad")),
    *(getattr(torch.Tensor, name).__get__ for name in ("grad_fn", "is_leaf", "is_sparse", "is_cuda", "is_meta")),
    *(getattr(torch.Tensor, name) for name in ("dim", "size", "numel", "is_floating_point", "is_complex")),
}
"""What is known of a tensor without its value."""
_DIVIDES = {
    *(getattr(torch.Tensor, name) for name in ("div", "true_divide", "divide", "__truediv__")),
    *(torch.div, torch.true_divide, torch.divide),
}
_NEGATES = {torch.neg, *(getattr(torch.Tensor, name) for name in ("neg", "__neg__"))}
_MULTIPLIES = {
    *(getattr(torch.Tensor, name) for name in ("mul", "multiply", "__mul__", "__rmul__")),
    *(torch.mul, torch.multiply),
    *_DIVIDES,
}
"""What leaves a loss pending: its gradient does not depend on its value."""


def _is_constant(args: tuple) -> bool:
    """Whether a pending loss is multiplied, or divided, by something that does not depend on the model."""
    loss, other = args
    if not isinstance(loss, Pending) or isinstance(other, Pending):
        return False
    if torch.is_tensor(other):
        return type(other) in (torch.Tensor, OfAll) and other.dim() == 0 and not other.requires_grad
    return isinstance(other, (int, float))


def _multiplied(func: Any, loss: Pending, other: Any) -> torch.Tensor:
    before = loss.of
    kept = other.clone() if torch.is_tensor(other) else other  # the script may edit it meanwhile
    with torch._C.DisableTorchFunctionSubclass():
        product = func(loss, kept)
    return loss.sums.promise(product, lambda value: func(before(value), kept))


def _backward(loss: torch.Tensor, gradient: Any = None, retain_graph: Any = None, create_graph: bool = False,
              inputs: Any = None) -> None:  # fmt: skip
    # As Tensor.backward, which would look at the loss first.
    torch.autograd.backward(loss, gradient, retain_graph, create_graph, inputs=inputs)


class _UnderWay(torch.autograd.Function):
    """A value that comes later, whose gradient goes to this rank's own sum."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor, sums: Sums) -> torch.Tensor:
        """Not a number, until the *sums* are there."""
        ctx.sums = sums
        return own.new_full((), torch.nan)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of the rank's sum."""
        return gradient * ctx.sums.factor().to(gradient.dtype), None


def note_sum(loss: Pending, divisor: Divisor) -> None:
    """*loss* is a sum, which the script may divide by what *divisor* allows."""
    loss.sums.divisor = divisor


def begin(own: torch.Tensor, mine: torch.Tensor, share: Share, counts: Counts | None) -> torch.Tensor:
    """The pending loss of all ranks, given *own*, this rank's sum, and *mine*, that and its count as numbers."""
    if len(_WAITING) >= _MOST:
        arrive()
    sums = Sums(mine, share, counts)
    _WAITING.append(sums)
    return sums.promise(_UnderWay.apply(own, sums), lambda value: value)


def arrive() -> None:
    """Wait for all sums that are under way."""
    for sums in _WAITING:
        sums.arrive()
    _WAITING.clear()


def only(roots: Sequence[torch.Tensor], seeds: Any, args: tuple, kwargs: Mapping[str, Any]) -> Sums | None:
    """The sums of the one loss that a plain backward starts from; None unless it is such a loss and such a backward.

    *args*, *kwargs*: those of `torch.autograd.backward` from `retain_graph` on.
    """
    others = [*args[1:], *(value for name, value in kwargs.items() if name != "retain_graph")]
    if len(roots) != 1 or not isinstance(roots[0], Pending) or seeds is not None or any(others):
        return None
    sums = roots[0].sums
    return sums if sums.earlier is not None else None


def plain(root: torch.Tensor) -> torch.Tensor:
    """*root* as torch's backward wants it; whether its value is there or not."""
    if type(root) is torch.Tensor:
        return root
    with torch._C.DisableTorchFunctionSubclass():
        return root.as_subclass(torch.Tensor)
