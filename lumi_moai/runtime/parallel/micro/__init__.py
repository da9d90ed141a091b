"""Micro-batches: a rank computes its rows of the batch in pieces, so that activations of one piece at a time are kept.

tree     arguments cut, outputs put together
state    random numbers and autocast of a piece
sums     losses inside the model, over all pieces
rerun    a piece computed again in backward
obstacles  models that cannot be cut
memory   how many pieces: halved when memory runs out in the first steps
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from ..share import Share
from . import obstacles, rerun, tree
from .memory import Memory
from .sums import Sums
from .watched import Watched

if TYPE_CHECKING:
    from ..engine import Engine

_COST = (
    "a rank computes its rows in {pieces} micro-batches, each once more in backward; that costs one more forward a step"
)


class Micro:
    """The calls of the script's models that are computed in pieces."""

    def __init__(self, engine: "Engine", pieces: int) -> None:
        self.engine = engine
        self.memory = Memory(engine, pieces)
        self.rows: int | None = None
        """Of this rank's part of the training batch; None before the first one, and where its tensors differ."""
        self._aside: int | None = None
        """Of the batch of an evaluation since; None where there was none, and where its tensors differ."""
        self.in_piece = False
        """Whether a part of this rank's rows is being computed."""
        self._depth = 0
        self._inner: WeakSet[nn.Module] = WeakSet()
        self._looked: WeakSet[nn.Module] = WeakSet()

    def begin_batch(self, batch: Any, share: Share | None, *, trains: bool) -> None:
        """The script gets *batch* in a loop that was begun to train or not."""
        sizes = {leaf.shape[0] for leaf in tree_leaves(batch) if tree.is_tensor(leaf)}
        rows = max(1, share.rows) if share else sizes.pop() if len(sizes) == 1 else None
        if not trains:  # perhaps between a training batch and its backward
            self._aside = rows
            return
        self.rows, self._aside = rows, None
        self.memory.forget()

    def went_back(self) -> None:
        """A backward of the script has ended."""
        self.memory.forget()

    def caller(self, root: nn.Module, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """A call of a model of the script."""
        if self._depth:
            self._inner.add(root)
            return call(*args, **kwargs)
        if not torch.is_grad_enabled() or self.engine.is_repeating:
            return call(*args, **kwargs)
        if self.engine.place is not None and self.engine.place.plan.pp > 1:
            return self.memory.attempt(lambda _: call(*args, **kwargs))  # the stages take the pieces themselves
        return self.memory.attempt(lambda pieces: self._compute(pieces, root, call, args, kwargs))

    def _compute(self, pieces: int, root: nn.Module, call: rerun.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        if pieces == 1 and not self.memory.watches:
            return call(*args, **kwargs)
        leaves, spec = rerun.flattened(args, rerun.without_cache(root, kwargs) if pieces > 1 else kwargs)
        goes_back = any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves)
        if not goes_back and not any(each.requires_grad for each in root.parameters()):
            return call(*args, **kwargs)
        rows = self._rows(leaves, pieces, root)
        self.memory.rows = self.least(rows)
        pieces = min(pieces, self.memory.rows)
        work = self._work(root, call, leaves, spec, tree.ranges(rows, pieces))
        if pieces > 1:
            self.engine.say_once("micro", _COST.format(pieces=pieces))
            return self._counted(rerun.compute(work), work)
        if not goes_back and self.memory.rows > 1 and not is_spread(root):  # alike on all ranks
            return self._counted(self.memory.watch(Watched(work)), work)
        return call(*args, **kwargs)

    def _rows(self, leaves: Sequence[Any], pieces: int, root: nn.Module) -> int:
        known = [self.rows]
        if self._aside is not None:
            known.insert(int(root.training), self._aside)
        rows = next((rows for each in known if (rows := tree.rows_of(leaves, each)) is not None), None)
        if rows is None and pieces > 1:
            wanted = "rows" if known[0] is None else f"the {known[0]} rows of this rank's batch"
            raise tree.refusal(type(root).__name__, f"none of its tensors has {wanted} as its first dimension")
        return rows or 1

    def _work(self, root: nn.Module, call: rerun.Call, leaves: Any, spec: Any, pieces: Any) -> rerun.Work:
        spread = is_spread(root)
        return rerun.Work(
            name=type(root).__name__,
            call=self._looking(root, call, with_graph=not spread) if len(pieces) > 1 else call,
            leaves=leaves,
            spec=spec,
            rows=pieces[-1][1],
            pieces=pieces,
            sums=Sums(self.engine.share, is_whole=len(pieces) == 1),
            trained=lambda: [] if spread else self._parameters(root),
            inside=partial(self.inside, in_piece=len(pieces) > 1),
            nested=self._nested if spread else None,
            on_full=self.memory.filled,
        )

    def _counted(self, output: Any, work: rerun.Work) -> Any:
        """*output* of a model, whose losses are of the batch at hand."""
        if work.sums.has_loss:
            self.engine.at_hand.loss_share = self.engine.share
        return output

    def _parameters(self, root: nn.Module) -> list[nn.Parameter]:
        """Those of *root* and of the models that a model called."""
        models = [root, *self._inner]
        every = {id(each): each for model in models for each in model.parameters() if each.requires_grad}
        return list(every.values())

    def least(self, rows: int) -> int:
        """The rows of the rank that has fewest: all ranks compute as many pieces."""
        share = self.engine.share
        return max(1, min(rows, share.total // share.ranks)) if share else rows

    def _looking(self, root: nn.Module, call: rerun.Call, *, with_graph: bool) -> rerun.Call:
        """*call*, looked at from piece to piece when it is the first of *root*."""
        if root in self._looked:
            return call
        self._looked.add(root)
        return obstacles.Looking(root, call, with_graph=with_graph)

    @contextmanager
    def inside(self, *, in_piece: bool) -> Iterator[None]:
        """Within this a model computes a call, or with *in_piece* a piece of one; models that it calls do not."""
        self._depth += 1
        share, self.in_piece = self.engine.at_hand.loss_share, in_piece
        try:
            yield
        finally:
            self._depth -= 1
            self.in_piece = False
            self.engine.at_hand.loss_share = share

    def _nested(self, outputs: Any, seeds: Any) -> None:
        """The backward of one piece where FSDP brings the gradients; part of the backward that is going on."""
        before, self.engine.in_backward = self.engine.in_backward, True
        try:
            torch.autograd.backward(outputs, seeds)
        finally:
            self.engine.in_backward = before


def is_spread(root: nn.Module) -> bool:
    """Whether *root* is not whole on this rank."""
    return any(isinstance(module, FSDPModule) for module in root.modules()) or any(
        isinstance(each, DTensor) for each in root.parameters()
    )
