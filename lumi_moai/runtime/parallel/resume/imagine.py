"""What a call of a model would return, without computing it: shapes are found once for each kind of arguments."""

import copy
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from ....errors import RequestError
from .. import graphs
from .ghosts import Ghosts, is_ghost

Call = Callable[..., Any]
_Shape = tuple[Any, list[Any]]


class Imagination:
    """Sketches of the script's models, and the shapes of what they return."""

    def __init__(self, ghosts: Ghosts) -> None:
        self.ghosts = ghosts
        self._sketches: WeakKeyDictionary[nn.Module, tuple[nn.Module, dict[Any, _Shape]]] = WeakKeyDictionary()
        """Of each model that the script still has: its sketch, and the shapes by kind of arguments."""
        self._with_numbers: WeakSet[nn.Module] = WeakSet()
        """Those whose results are as large as whole numbers say that they are given: nodes by their graphs."""

    def sketch(self, root: nn.Module) -> None:
        """Keep a copy of *root* as the script made it, before it is laid out over ranks; its weights are ghosts."""
        weights = [*root.parameters(), *root.buffers()]
        memo: dict[int, Any] = {id(weight): self.ghosts.of(weight) for weight in weights}
        # What keeps an entry of the memo alive; deepcopy itself does the same.
        memo[id(memo)] = weights
        self._sketches[root] = (copy.deepcopy(root, memo), {})

    def call(self, root: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What *root* would return, as ghosts."""
        sketch, shapes = self._sketches[root]
        key = self._key(root, args, kwargs)
        if key not in shapes:
            leaves, tree = tree_flatten(self._result(root, sketch, args, kwargs))
            key = self._key(root, args, kwargs)
            shapes[key] = tree, [_Form(leaf) if torch.is_tensor(leaf) else leaf for leaf in leaves]
        tree, leaves = shapes[key]
        with self.ghosts:
            made = [leaf.make() if isinstance(leaf, _Form) else leaf for leaf in leaves]
        return tree_unflatten(made, tree)

    def _key(self, root: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        numbers = [_numbers(leaf) for leaf in tree_leaves((args, kwargs))] if root in self._with_numbers else []
        return _signature(root, args, kwargs), tuple(numbers)

    def _result(self, root: nn.Module, sketch: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        leaves = tree_leaves((args, kwargs))
        if any(map(graphs.is_known, leaves)):
            self._with_numbers.add(root)
        if root not in self._with_numbers:
            try:
                return self._compute(root, sketch, args, kwargs)
            except RequestError:
                if not any(map(_numbers, leaves)):
                    raise
            self._with_numbers.add(root)
        self.ghosts.has_numbers = True
        try:
            return self._compute(root, sketch, args, kwargs)
        finally:
            self.ghosts.has_numbers = False

    def _compute(self, root: nn.Module, sketch: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        modes = {name: module.training for name, module in root.named_modules()}
        for name, module in sketch.named_modules():
            module.training = modes.get(name, root.training)
        ghostly = tree_map_only(torch.Tensor, self._as_ghost, (args, kwargs))
        try:
            with torch.compiler.set_stance("force_eager"), self.ghosts:
                return sketch(*ghostly[0], **ghostly[1])
        except RequestError:
            raise
        except RuntimeError as error:
            raise RequestError(
                f"the model {type(root).__name__} needs values in its forward ({str(error).splitlines()[0]}), which a"
                " restart does not compute again for the steps before its checkpoint; compute without .item() and"
                " choices by value there, or submit with --checkpoint off"
            ) from error

    def _as_ghost(self, tensor: torch.Tensor) -> torch.Tensor:
        is_kept = is_ghost(tensor) or (self.ghosts.has_numbers and _is_number(tensor))
        return tensor if is_kept else self.ghosts.of(tensor)


class _Form:
    """What a ghost is made of."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.size, self.stride = tuple(tensor.shape), tensor.stride()
        self.words = {"dtype": tensor.dtype, "device": tensor.device}
        self.has_gradient = tensor.requires_grad

    def make(self) -> torch.Tensor:
        made = torch.empty_strided(self.size, self.stride, **self.words)
        if not self.has_gradient or not torch.is_grad_enabled():
            return made
        result = made.requires_grad_().view_as(made).clone()  # no leaf, because scripts change results in place
        result.register_hook(_refuse)
        return result


def _refuse(grad: torch.Tensor) -> None:
    """No backward of a repeated step comes here, because none is computed."""
    raise RequestError(
        "a backward needs what the model computed before the checkpoint, which a restart does not compute again; let"
        " each batch end with its last optimizer step, or submit with --checkpoint off"
    )


def _signature(root: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
    leaves, tree = tree_flatten((args, kwargs))
    return (
        root.training,
        torch.is_grad_enabled(),
        torch.is_autocast_enabled(),
        str(tree),
        tuple(_leaf(leaf) for leaf in leaves),
    )


def _is_number(leaf: Any) -> bool:
    """Whether *leaf* is a tensor of whole numbers that is real."""
    return torch.is_tensor(leaf) and not is_ghost(leaf) and not leaf.dtype.is_floating_point


def _numbers(leaf: Any) -> Any:
    """What tells the whole numbers of *leaf* from others; nothing where it has none."""
    every = [each.tensor for each in graphs.held(leaf)] if graphs.is_known(leaf) else [leaf]
    with torch._C.DisableTorchFunctionSubclass():
        return tuple(
            (tuple(each.shape), hash(each.cpu().contiguous().as_subclass(torch.Tensor).numpy().tobytes()))
            for each in every
            if _is_number(each)
        )


def _leaf(leaf: Any) -> Any:
    if torch.is_tensor(leaf):
        return tuple(leaf.shape), leaf.dtype, leaf.device.type, leaf.requires_grad
    return leaf if isinstance(leaf, (str, int, float, bool, type(None))) else type(leaf)
