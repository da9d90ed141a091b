"""Numbers of a tensor of which this rank has a part: operations on each of them, or along other axes."""

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_flatten, tree_map

from .. import operations
from ..spread import whole
from . import columns, moves
from .columns import Function


def same(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Another type or copy of the first argument."""
    if not isinstance(args[0], columns.Columns):
        return NotImplemented
    return _mark_all(func(*args, **kwargs), args[0]._axis)


def _mark_all(result: Any, axis: int) -> Any:
    return columns.mark(result, axis) if isinstance(result, torch.Tensor) else result


def each(func: Function, args: tuple, kwargs: dict[str, Any], *, least: int = 1) -> Any:
    """An operation on each number, or on each matrix when *least* is 3: axes count from the last one, as they meet."""
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    found = {(leaf.dim() - leaf._axis, leaf._size) for leaf in leaves if isinstance(leaf, columns.Columns)}
    if len(found) != 1:
        return NotImplemented
    ((back, size),) = found
    if back < least or not all(meets(leaf, back, size) for leaf in leaves):
        return NotImplemented
    own = tree_map(lambda leaf: matched(leaf, back), (args, kwargs))
    if operations.is_in_place(operations.name_of(func)[0]) and not isinstance(args[0], columns.Columns):
        return NotImplemented
    result = func(*own[0], **own[1])
    return _mark_all(result, result.dim() - back)


def meets(leaf: torch.Tensor, back: int, size: int) -> bool:
    """Whether *leaf* fits to parts of an axis of *size*, the one that is *back* from the last."""
    return isinstance(leaf, columns.Columns) or leaf.dim() < back or leaf.shape[-back] in (1, size)


def matched(leaf: Any, back: int) -> Any:
    """What of a plain tensor meets this rank's part of a spread one."""
    if not isinstance(leaf, torch.Tensor) or isinstance(leaf, columns.Columns):
        return leaf
    full = whole(leaf) if isinstance(leaf, DTensor) else leaf
    if full.dim() < back or full.shape[-back] == 1:
        return moves.copy(full)
    return moves.part(full, full.dim() - back)


def product(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Products of matrices, when the parts are along an axis ahead of these."""
    return each(func, args, kwargs, least=3)


def _axis_of(given: Any, value: torch.Tensor) -> int | None:
    return given % value.dim() if isinstance(given, int) and not isinstance(given, bool) else None


def along(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operation along one other axis that keeps the shape."""
    value = args[0] if args else None
    if not isinstance(value, columns.Columns):
        return NotImplemented
    axis = _axis_of(kwargs.get("dim", args[1] if len(args) > 1 else None), value)
    return NotImplemented if axis in (None, value._axis) else columns.mark(func(*args, **kwargs), value._axis)


def reduced(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A sum or mean along one other axis."""
    value = args[0]
    given = kwargs.get("dim", args[1] if len(args) > 1 else None)
    axis = _axis_of(given[0] if isinstance(given, (tuple, list)) and len(given) == 1 else given, value)
    if axis is None or axis == value._axis:
        return NotImplemented
    kept = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
    return columns.mark(func(*args, **kwargs), value._axis - (axis < value._axis and not kept))


def normed(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A norm over the last axes, when the parts are along an earlier one."""
    value = args[0]
    over = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    if not isinstance(value, columns.Columns) or value._axis >= value.dim() - len(over):
        return NotImplemented
    own = tree_map(_copied, (args[1:], kwargs))
    return columns.mark(func(value, *own[0], **own[1]), value._axis)


def linear(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A layer that is whole, when the parts are not along its inputs."""
    value = args[0]
    if not isinstance(value, columns.Columns) or value._axis == value.dim() - 1:
        return NotImplemented
    own = tree_map(_copied, (args[1:], kwargs))
    return columns.mark(func(value, *own[0], **own[1]), value._axis)


def _copied(leaf: Any) -> Any:
    full = whole(leaf) if isinstance(leaf, DTensor) else leaf
    return moves.copy(full) if isinstance(full, torch.Tensor) else full


def dropout(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Every rank draws for the whole, as one device would, and takes its part."""
    words = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    value = words["input"]
    if "train" in words:
        return NotImplemented
    if not words.get("training", True) or words.get("p", 0.5) == 0:
        return value
    drawn = func(torch.ones(columns.shape_of(value), dtype=value.dtype, device=value.device), words.get("p", 0.5), True)
    mine = moves.part(drawn, value._axis)
    return columns.mark(value.mul_(mine) if words.get("inplace") else value * mine, value._axis)


def hooked(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A hook on the gradient, which gets it as what it is: a part that answers as the whole."""
    value, hook = (*args, *kwargs.values())
    axis = value._axis

    def part(gradient: torch.Tensor) -> Any:
        changed = hook(columns.mark(gradient.view_as(gradient), axis))
        return (
            None
            if changed is None
            else columns.plain(changed)
            if _is_along(changed, axis)
            else moves.part(columns.together(changed), axis)
        )

    return func(value, part)


def _is_along(value: torch.Tensor, axis: int) -> bool:
    return isinstance(value, columns.Columns) and value._axis == axis
