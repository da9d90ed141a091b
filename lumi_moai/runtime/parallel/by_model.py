"""Whether a model makes a number of the batch by hand: a loss of its own, a mean over unequal masks, a count.

That shows in the graph of what the model returns, whatever the batch at hand: a number that leads past other numbers to
a tensor, and not through a loss of torch's, was added up by the model itself.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from . import marks
from .counts import users

LOOKS: list["Look"] = []
"""The calls of models that are looked at now, the innermost last."""
_OF_ALL = ("OfAllRanksBackward", "_UnderWayBackward", "ScaledBackward", "_RerunBackward")
"""Of what the ranks have added up already."""
_COMPILED = "CompiledFunctionBackward"  # of which nothing is known


_LINEAR = ("AddBackward0", "SubBackward0", "MulBackward0", "DivBackward0", "NegBackward0", "ToCopyBackward0")
_PICKING = ("IndexBackward0", "MaskedSelectBackward0")
_ALONE = ("PowBackward0", "AbsBackward0", "MulBackward0")
"""What makes each number of a weight another one, for a penalty."""


class Look:
    """What the calls of one kind of a model make."""

    def __init__(self) -> None:
        self.is_by_hand = False
        self.is_unequal = False
        """Whether pieces of the rows would give another number than all of them."""

    def at(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """*own*, the model's call, looked at."""

        def looked(*args: Any, **kwargs: Any) -> Any:
            LOOKS.append(self)
            try:
                result = own(*args, **kwargs)
            finally:
                LOOKS.pop()
            leaves = tree_leaves(_held(result))
            self.is_unequal = self.is_by_hand or any(_is_unequal(leaf) for leaf in leaves)
            self.is_by_hand |= any(_is_by_hand(leaf) for leaf in leaves)
            return result

        return looked


def note_sum() -> bool:
    """A loss of torch's gave a sum, which a model divides by hand; False when no model is looked at."""
    if LOOKS:
        LOOKS[-1].is_by_hand = True
    return bool(LOOKS)


def is_users(module: nn.Module) -> bool:
    """Whether the forward of *module* is the user's own code, which alone is followed."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and users.is_users(code.co_filename, type(module).__module__)


def _held(result: Any) -> Any:
    """What an object that is no container of torch's holds, such as a dataclass of outputs."""
    is_plain = isinstance(result, (torch.Tensor, tuple, list, dict)) or not hasattr(result, "__dict__")
    return result if is_plain else vars(result)


def _is_by_hand(leaf: Any) -> bool:
    if not isinstance(leaf, torch.Tensor) or leaf.dim() or (leaf.is_leaf and leaf.requires_grad):
        return False
    if not leaf.requires_grad:
        return type(leaf) is torch.Tensor and not marks.is_marked(leaf)
    waiting: list[Any] = [leaf.grad_fn]
    while waiting:
        node = waiting.pop()
        if node.name() in _OF_ALL or node.name() == _COMPILED:
            continue
        for each, _ in node.next_functions:
            if each is None:
                continue
            if not _is_of_number(each):
                return True
            waiting.append(each)
    return False


def _is_unequal(leaf: Any) -> bool:
    """Whether *leaf*, a number, is neither made of means over rows nor of losses of torch's alone."""
    if not isinstance(leaf, torch.Tensor) or leaf.dim() or leaf.grad_fn is None:
        return False
    waiting: list[Any] = [leaf.grad_fn]
    while waiting:
        node = waiting.pop()
        name, after = node.name(), [each for each, _ in node.next_functions if each is not None]
        if name in _OF_ALL or name in ("torch::autograd::AccumulateGrad", _COMPILED) or _is_penalty(node):
            continue
        if name == "MeanBackward0" and after[0].name() not in _PICKING:
            continue
        is_product = name in ("MulBackward0", "DivBackward0")
        if name not in _LINEAR or (is_product and node.next_functions[-1][0] is not None and len(after) != 1):
            return True
        waiting += after
    return False


def _is_penalty(node: Any) -> bool:
    """Whether *node* adds up numbers of a weight."""
    while (after := [each for each, _ in node.next_functions if each is not None]) and len(set(after)) == 1:
        node = after[0]
        if node.name() not in _ALONE:
            break
    return hasattr(node, "variable")


def _is_of_number(node: Any) -> bool:
    """Whether *node* of a graph made a single number."""
    if (leaf := getattr(node, "variable", None)) is not None:
        return leaf.dim() == 0
    return all(tuple(each.shape) == () for each in node._input_metadata)
