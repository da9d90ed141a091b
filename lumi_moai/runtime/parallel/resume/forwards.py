"""The calls of models whose backward is still to come.

A restart does not compute again what the model gave before its checkpoint, so a checkpoint between such a call and its
backward would lose the gradients: a GAN's made picture is judged, the judge's optimizer steps, and only then does the
maker learn from it.
"""

from typing import Any
from weakref import ref

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves

_LONGEST = 16
"""Steps for which a checkpoint waits; a script may keep a graph for good, and never go back through it."""


class Forwards:
    """Which calls are open: some of their graph is alive, and no last backward has gone through it."""

    def __init__(self) -> None:
        self._calls: list[ref[_Call]] = []
        self._waited = 0

    def note(self, result: Any) -> None:
        """A model gave *result*."""
        nodes = {leaf.grad_fn for leaf in _tensors(result) if leaf.grad_fn is not None}
        if nodes:
            call = _Call()
            for node in nodes:
                node.register_prehook(call.reach)  # the graph alone keeps the call alive
            self._calls = [*self._open(), ref(call)]

    def must_wait(self, group: Any) -> bool:
        """Whether the script of any rank is between two steps of one batch; all ranks of *group* ask together."""
        are_open = torch.tensor([len(self._open())])
        dist.all_reduce(are_open, dist.ReduceOp.MAX, group=group)
        self._waited = self._waited + 1 if are_open.item() else 0
        return 0 < self._waited <= _LONGEST

    def _open(self) -> "list[ref[_Call]]":
        return [each for each in self._calls if (call := each()) is not None and call.is_open]


class _Call:
    def __init__(self) -> None:
        self.is_open = True

    def reach(self, grads: Any) -> None:
        # With retain_graph=True another backward will come.
        self.is_open = self.is_open and torch._C._autograd._get_current_graph_task_keep_graph()


def _tensors(result: Any) -> list[torch.Tensor]:
    leaves = tree_leaves(result)
    parts = [part for leaf in leaves if not torch.is_tensor(leaf) for part in getattr(leaf, "__dict__", {}).values()]
    return [leaf for leaf in (*leaves, *parts) if isinstance(leaf, torch.Tensor)]
