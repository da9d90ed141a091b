"""Weights outside of the blocks that one stage alone needs: of an embedding at the first one, of a head at the last.

All stages have them until the first step of training. In its forward each stage looks which weights its part of the
model uses. A weight that it uses only ahead of its blocks may have no effect there: an embedding, of which a later
stage needs the shape at most. So the piece is computed once more without these; when nothing is missing they are not
needed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .....errors import RequestError
from .... import accelerator
from .. import born, operations
from . import elsewhere, passage
from .owned import Stages, held_by
from .plain import Plain


class Homes:
    """Of the weights of one model."""

    def __init__(self, root: nn.Module, plain: Plain, stages: Stages) -> None:
        self._root = ref(root)
        self._plain = plain
        self._stages = stages
        self._shared: list[nn.Parameter] | None = None
        """The weights in question, while the stages look at them."""
        self._needed: set[int] = set()
        """Of these, by number, what this stage cannot be without."""
        self._owners: dict[int, int] = {}
        """The rank that keeps a weight, by the weight's id, until the others let go of it."""

    def begin(self) -> bool:
        """A training call of the model begins; whether it is the first one."""
        if self._shared is not None:
            return False
        every = self._root().parameters()  # type: ignore[union-attr]  # it is being called
        self._shared = [each for each in every if not isinstance(each, DTensor) and born.can_spread(each)]
        return True

    def look(self, compute: Callable[[], Any], attempt: Callable[[], Any]) -> Any:
        """What *compute* gives of a piece; *attempt* computes it again, and raises or gives what is elsewhere."""
        with _Watch({id(self._plain.of(each)): place for place, each in enumerate(self._shared or ())}) as watch:
            result = compute()
        self._needed = watch.early | watch.late
        spared = watch.early - watch.late
        if spared and self._stages.span.stage:
            with self._without(spared):
                self._needed -= spared if _succeeds(attempt) else set()
        return result

    def agree(self) -> None:
        """Let all stages know who needs what; they call this together."""
        shared = self._shared or []
        mine = torch.tensor([place in self._needed for place in range(len(shared))], device=accelerator.device())
        needs = [torch.empty_like(mine) for _ in self._stages.ranks]
        dist.all_gather(needs, mine, group=self._stages.group)
        for place, (each, *wanted) in enumerate(zip(shared, *(need.tolist() for need in needs), strict=True)):
            if sum(wanted) == 1 and not each._backward_hooks:
                self._owners[id(shared[place])] = self._stages.ranks[wanted.index(True)]

    def settle(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Leave each weight to the one stage that needs it; the old parameters and the new ones."""
        made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        for module in self._root().modules() if self._owners else ():  # type: ignore[union-attr]
            for name, old in module._parameters.items():
                if old is not None and id(old) in self._owners:
                    if id(old) not in made:
                        held = held_by(old.data, self._owners[id(old)])
                        made[id(old)] = (old, nn.Parameter(held, old.requires_grad))
                    module._parameters[name] = made[id(old)][1]
        self._owners, self._shared = {}, []
        return list(made.values())

    @contextmanager
    def _without(self, places: set[int]) -> Iterator[None]:
        """Within this the weights at *places* have shapes, but no numbers."""
        with self._plain.hidden([each for place, each in enumerate(self._shared or ()) if place in places]):
            yield


class _Watch(TorchFunctionMode):
    """Sees which weights are computed with, ahead of this stage's blocks and from there on."""

    def __init__(self, places: dict[int, int]) -> None:
        super().__init__()
        self._places = places
        self.early: set[int] = set()
        self.late: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """What *func* gives."""
        if not operations.name_of(func)[1]:
            used = {self._places[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self._places}
            (self.late if passage.has_begun() else self.early).update(used)
        return func(*args, **(kwargs or {}))


def _succeeds(attempt: Callable[[], Any]) -> bool:
    try:
        return not elsewhere.holds(attempt())
    except RequestError:
        return False
    except Exception:  # BLE001, on purpose: the model's own code may raise anything
        return False
