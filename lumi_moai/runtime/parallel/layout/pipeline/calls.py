"""A call of a model in stages: its pieces through all of them forward, and once more, with gradients, in backward.

The script computes its loss from the whole output, which is there when all pieces are through; then all go back. To
keep the activations of all pieces until then would take as much memory as no pieces at all. So the first pass keeps
none, and backward is a pass forward and back by torch's schedule, with activations of a few pieces at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_unflatten

from ...micro import rerun, tree
from ...micro.sums import Sums
from .. import repoint
from . import elsewhere, owned, passage
from .homes import Homes
from .kinds import Kinds
from .looks import Looks
from .passes import Course
from .plain import Plain

if TYPE_CHECKING:
    from ...engine import Engine

_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class Calls:
    """The calls of the script's models that go through stages."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self._known: WeakKeyDictionary[nn.Module, tuple[Kinds, Plain, Looks, Homes]] = WeakKeyDictionary()
        self._depth = 0

    @contextmanager
    def apart(self, *, alone: bool) -> Iterator[None]:
        """Within this, calls leave nothing behind that is known of a model; *alone*, each rank computes all blocks.

        It fetches the weights of other stages as they are used.
        """
        before, self._known = self._known, WeakKeyDictionary()
        try:
            with passage.alone() if alone else nullcontext():
                yield
        finally:
            self._known = before

    def caller(self, root: nn.Module, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """A call of a model of the script."""
        stages = owned.of(root)
        if stages is None or self._depth or passage.is_alone():
            return call(*args, **kwargs)
        if root not in self._known:
            plain = Plain(root)
            self._known[root] = (Kinds(root, stages), plain, Looks(root), Homes(root, plain, stages))
        self._depth += 1
        try:
            return self._compute(root, call, args, kwargs)
        finally:
            self._depth -= 1

    def stepper(self, optimizer: Optimizer, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """A step of an optimizer of the script; ahead of it, weights that one stage alone needs become that stage's.

        With a closure behind it, which may go back through a forward that used these weights as they were.
        """
        has_closure = (args[0] if args else kwargs.get("closure")) is not None
        if not has_closure:
            self._settle(optimizer)
        result = call(*args, **kwargs)
        if has_closure:
            self._settle(optimizer)
        return result

    def _settle(self, optimizer: Optimizer) -> None:
        mine = {id(repoint.now(each)) for entry in optimizer.param_groups for each in entry["params"]}
        for root, (_, plain, _, homes) in list(self._known.items()):
            if any(id(each) in mine for each in root.parameters()) and (moves := homes.settle()):
                repoint.lead(moves)
                repoint.optimizers(self.engine.seen.living_optimizers())
                self.engine.gradients.refresh(again=True)
                for old, _ in moves:
                    plain.forget(old)

    def _compute(self, root: nn.Module, call: rerun.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        _, plain, _, _ = self._known[root]
        course = Course(*self._known[root])
        work = self._work(root, call, course, *rerun.flattened(args, rerun.without_cache(root, kwargs)))
        if work.is_training:
            plain.trains()
            output = rerun.compute(work)
        else:
            leaves, spec, _ = course.forward(work)
            output = tree_unflatten(leaves, spec)
        if course.has_loss:
            self.engine.at_hand.loss_share = self.engine.share
        return output

    def _work(self, root: nn.Module, call: rerun.Call, course: Course, leaves: tuple, spec: Any) -> rerun.Work:
        trains, name = torch.is_grad_enabled(), type(root).__name__
        _check(name, leaves)
        micro = self.engine.micro
        rows = tree.rows_of(leaves, micro.rows if trains else None)
        if rows is None and micro.memory.pieces > 1:
            raise tree.refusal(name, "none of its tensors has the rows of this rank's batch as its first dimension")
        micro.memory.rows = micro.least(rows or 1)
        pieces = min(micro.memory.pieces, micro.memory.rows)
        return rerun.Work(
            name=name,
            call=call,
            leaves=leaves,
            spec=spec,
            rows=rows or 1,
            pieces=tree.ranges(rows or 1, pieces),
            sums=Sums(self.engine.share, is_whole=pieces == 1),
            trained=lambda: [each for each in root.parameters() if each.requires_grad],
            inside=partial(micro.inside, in_piece=pieces > 1),
            nested=None,
            on_full=_full,
            staged=course,
            is_training=trains,
        )


def _full(error: torch.OutOfMemoryError) -> None:
    raise error


def _check(name: str, leaves: Sequence[Any]) -> None:
    for leaf in leaves:
        if not isinstance(leaf, (torch.Tensor, *_PLAIN)):
            raise elsewhere.refusal(
                f"{name} gets a {type(leaf).__name__}, of which each stage would change its own; to generate text, say"
                " use_cache=False"
            )
