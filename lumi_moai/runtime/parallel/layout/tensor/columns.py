"""A tensor of which this rank has a part along one axis, and which answers the script as the whole one would.

It comes out of a layer whose columns are spread. What can be computed on the part alone is: operations on each number,
on other axes, per head. Everything else gets the whole, put together from all ranks, and goes on with it. So a model
may do with such a tensor whatever it likes; what is known here is only faster.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .....errors import RequestError
from .. import operations
from . import moves

Function = Callable[..., Any]
Rule = Callable[[Function, tuple, dict[str, Any]], Any]
"""Computes a function on parts; `NotImplemented` when that cannot be."""
_RULES: dict[str, Rule] = {}
"""The rule of each function that can be computed on parts, by its name."""
_GUARDED: list[Function] = []
"""torch's own `Function.apply`, once it is replaced."""
_REFUSED = frozenset(
    ("data_ptr", "untyped_storage", "storage", "retain_grad", "__cuda_array_interface__", "__dlpack__")
)
"""What a copy that is put together cannot stand in for."""


class Columns(torch.Tensor):
    """The data is this rank's part; shape and results are those of the whole."""

    _axis: int
    _size: int

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """The answer of the whole tensor to *func*."""
        return _answer(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """As torch prints the whole tensor."""
        return repr(together(self))

    def __format__(self, spec: str) -> str:
        """As torch formats the whole tensor."""
        return format(together(self), spec)


def mark(part: torch.Tensor, axis: int) -> Columns:
    """*part*, known to be this rank's along *axis*; the ranks' parts are of one size."""
    made: Any = part
    made.__class__ = Columns
    with torch._C.DisableTorchFunctionSubclass():
        made._axis, made._size = axis, part.size(axis) * moves.ranks()
    return made


def together(value: Any) -> Any:
    """The whole of *value*, plain; all ranks of the group must call this together."""
    return moves.joined(plain(value), value._axis) if isinstance(value, Columns) else value


def use(rules: Mapping[str, Rule]) -> None:
    """From now on these *rules* say what can be computed on parts, and how."""
    _RULES.update(rules)


def guard() -> None:
    """From now on an autograd function of somebody else gets whole tensors: torch tells nobody that it is called."""
    if not _GUARDED:
        _GUARDED.append(torch.autograd.Function.apply.__func__)
        torch.autograd.Function.apply = classmethod(_apply)


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    return _GUARDED[0](cls, *tree_map(together, args), **tree_map(together, kwargs))


def aligned(value: torch.Tensor, last: int) -> torch.Tensor:
    """This rank's part of *value*, plain or spread, along its last axis of *last* numbers.

    Raises RequestError when the last axis is a part, though nobody said so.
    """
    if isinstance(value, Columns):
        if value._axis == value.dim() - 1 and value._size == last:
            return plain(value)
        value = together(value)
    if value.shape[-1] * moves.ranks() == last:
        raise RequestError(
            f"a layer of {last} inputs got {value.shape[-1]} with tp={moves.ranks()}: the model computes with code"
            " outside of torch, such as flash_attn, between layers; take torch's own attention (sdpa), or --layout fsdp"
        )
    # A wrong size is torch's to tell.
    return moves.part(value, value.dim() - 1) if value.shape[-1] == last else value


def plain(value: Columns) -> torch.Tensor:
    """This rank's part, as torch's own kind."""
    with torch._C.DisableTorchFunctionSubclass():
        return value.view_as(value)


def _answer(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    name, _ = operations.name_of(func)
    if isinstance(func, torch._ops.OpOverload) and torch._C._current_autograd_node() is not None:
        with torch._C.DisableTorchFunctionSubclass():  # a mode, such as FlopCounterMode, looks at torch's own backward
            return func(*args, **kwargs)
    rule = _RULES.get(name.strip("_")) or (native if name.startswith("is_") else None)
    if rule is not None and "out" not in kwargs:
        with torch._C.DisableTorchFunctionSubclass():
            result = rule(func, args, kwargs)
        if result is not NotImplemented:
            return result
    if name in _REFUSED:
        raise RequestError(
            f"the model asks a tensor for its {name} that is spread over tp={moves.ranks()} ranks; use --layout fsdp"
        )
    if isinstance(args[0], Columns) and (operations.is_in_place(name) or name.startswith(("__set", "_set_"))):
        raise RequestError(
            f"the model edits a tensor in place ({name}) that is spread over tp={moves.ranks()} ranks;"
            " write it without the edit, or use --layout fsdp"
        )
    return func(*tree_map(together, args), **tree_map(together, kwargs))


def shape_of(value: torch.Tensor) -> torch.Size:
    """The shape of the whole; called where torch answers for the part."""
    shape = list(value.shape)
    if isinstance(value, Columns):
        shape[value._axis] = value._size
    return torch.Size(shape)


def native(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What torch answers for the part."""
    return func(*args, **kwargs)
