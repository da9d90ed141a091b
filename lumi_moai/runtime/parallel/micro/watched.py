"""A call of a model as it is, remembered so that its backward can be made in pieces should memory run out in it."""

from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch.utils._pytree import tree_unflatten

from .. import marks
from . import rerun, state


class _Kept:
    """An activation that can be let go of."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor: torch.Tensor | None = tensor


class Watched:
    """One call."""

    def __init__(self, work: rerun.Work) -> None:
        self.work = work
        self._kept: list[ReferenceType[_Kept]] = []
        self._taps: list[tuple[int, Any]] = []
        """Place among the output's tensors, and the node of the graph through which its gradient comes."""
        self._grads: dict[int, torch.Tensor] = {}
        self._outputs = 0

    def compute(self) -> Any:
        """The output of the model, with its graph."""
        self.work.chances.append(state.chance())
        with torch.autograd.graph.saved_tensors_hooks(self._keep, _given):
            leaves, spec = rerun.outputs(self.work, self.work.pieces[0], self.work.leaves)
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self._outputs = len(tensors)
        tapped = {id(leaf): self._tapped(place, leaf) for place, leaf in enumerate(tensors) if leaf.requires_grad}
        self.work.parameters[:] = self.work.trained()
        return tree_unflatten([tapped.get(id(leaf), leaf) for leaf in leaves], spec)

    def grads(self, roots: Sequence[torch.Tensor]) -> list[torch.Tensor | None] | None:
        """The gradients of the output's tensors in the backward from *roots*.

        None when one of them had not come yet, or when a gradient went past the model.
        """
        taps = {node: place for place, node in self._taps}
        waiting = [root.grad_fn for root in roots]
        seen: set[Any] = set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in taps:
                if taps[node] not in self._grads:
                    return None
            elif type(node).__name__ == "AccumulateGrad":
                return None
            else:
                waiting += [following for following, _ in node.next_functions]
        return [self._grads.get(place) for place in range(self._outputs)]

    def let_go(self) -> None:
        """Free the activations; the graph is of no use any more."""
        for kept in self._kept:
            if (holder := kept()) is not None:
                holder.tensor = None

    def _keep(self, tensor: torch.Tensor) -> _Kept:
        kept = _Kept(tensor)
        self._kept.append(ref(kept))
        return kept

    def _tapped(self, place: int, leaf: torch.Tensor) -> torch.Tensor:
        """*leaf* by another name: what comes back to it is what the script's own computation sends."""
        alias = leaf.view_as(leaf)
        self._taps.append((place, alias.grad_fn))
        grads = self._grads  # not self, which holds the graph that holds the hook
        alias.register_hook(lambda grad: grads.__setitem__(place, grad))
        return marks.mark(alias) if marks.is_marked(leaf) else alias


def _given(kept: _Kept) -> torch.Tensor:
    if kept.tensor is None:
        raise RuntimeError("a second backward through a step whose activations were let go when memory ran out")
    return kept.tensor
