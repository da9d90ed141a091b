"""Tensors that the script trains by hand: `w -= 0.1 * w.grad`, of a `w` that is in no optimizer and no module.

Nobody tells of them, so the graph of a loss is looked through: in the first backwards of each loop over a loader, and
then ever more seldom.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from ...errors import RequestError
from .. import group
from .counts import OfBatch
from .layout import now
from .share import Share

_FIRST = 2
"""Backwards of a loop whose graph is looked through; later those whose number is a power of two."""


class ByHand:
    """The tensors found so far."""

    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []
        self._backwards = 0

    def begin_loop(self) -> None:
        """A loop over a loader begins."""
        self._backwards = 0

    def look(
        self, roots: Iterable[torch.Tensor], known: Callable[[], Iterable[torch.Tensor]], share: Share, *, whole: bool
    ) -> bool:
        """Whether the graph of *roots* leads to new ones, beside the *known*; all ranks look together.

        *whole*: no weight is in parts. Raises RequestError when the ranks find unequal numbers of them.
        """
        self._backwards += 1
        if self._backwards > _FIRST and self._backwards & (self._backwards - 1):
            return False
        passed = {id(now(each)) for each in (*known(), *self.found)}
        found = [each for each in _leaves(roots) if id(each) not in passed and _may_be_weight(each, whole=whole)]
        if len(set(group.gathered(len(found)))) > 1:
            raise RequestError(
                "the ranks' losses reach different tensors that no optimizer has, so their gradients cannot be"
                " averaged; give them to an optimizer"
            )
        # What is as long as the rows on one rank only is so by chance: `torch.eye(3, requires_grad=True)`.
        new = [each for each in found if not all(group.gathered(_is_as_long(each, share)))]
        self.found += new
        return bool(new)


def _is_as_long(leaf: torch.Tensor, share: Share) -> bool:
    return bool(leaf.dim()) and len(leaf) == max(share.rows, 1)


def _may_be_weight(leaf: torch.Tensor, *, whole: bool) -> bool:
    if type(leaf) is OfBatch or not leaf.dtype.is_floating_point:
        return False  # rows of the batch
    # Weights that are in parts are whole for a while, and those are others' to average.
    return type(leaf) is torch.Tensor or (whole and type(leaf) is torch.nn.Parameter)


def _leaves(roots: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """What the graph of *roots* begins with, in the order in which it is found."""
    waiting: list[Any] = [root.grad_fn for root in roots]
    seen: set[Any] = set()
    found = []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.append(leaf)
        waiting += [each for each, _ in node.next_functions]
    return found
