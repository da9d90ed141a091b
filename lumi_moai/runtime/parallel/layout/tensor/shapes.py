"""Shapes of a tensor of which this rank has a part: views, reshapes, pieces, and what is put together from several."""

import math
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from . import columns, exchange, moves
from .columns import Function

_AXIS_STRIDE = 999983
"""A prime, so that no view of another axis has the same."""
_MOST_PIECES = 3
"""So many pieces the output of one layer has at most: queries, keys and values."""


def size_of(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """size(), shape, numel(), len()"""
    return func(torch.empty(columns.shape_of(args[0]), device="meta"), *args[1:], **kwargs)


def reshaped(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The same numbers in another shape, in which an axis begins where the one of the parts begins."""
    value = args[0]
    if not isinstance(value, columns.Columns) or any(
        isinstance(each, (torch.dtype, torch.Tensor)) for each in args[1:]
    ):
        return NotImplemented
    old = columns.shape_of(value)
    new = list(func(torch.empty(old, device="meta"), *args[1:], **kwargs).shape)
    ahead = math.prod(old[: value._axis])
    axis = next((axis for axis in range(len(new)) if math.prod(new[:axis]) == ahead and new[axis] > 1), len(new))
    if axis < len(new) and new[axis] % moves.ranks():
        axis, value = axis + 1, _interleaved(value, new[axis:])
    if axis == len(new) or value is None:
        return NotImplemented
    new[axis] //= moves.ranks()
    return columns.mark(value.view(new) if func.__name__ == "view" else value.reshape(new), axis)


def _interleaved(value: columns.Columns, sizes: list[int]) -> torch.Tensor | None:
    """This rank's part of each of the pieces that *value* consists of when its axis is seen in *sizes*.

    They are pieces, such as queries, keys and values, if there are few of them, and in each come heads, and the numbers
    of a head. None when they are not, or the heads cannot be shared out.
    """
    ranks, count = moves.ranks(), sizes[0]
    if count > _MOST_PIECES or len(sizes) < 3 or sizes[1] % ranks or value._size % (count * ranks):
        return None
    size = value._size // count
    return _pieces(value, [(place * size, size) for place in range(count)])


def _pieces(value: columns.Columns, spans: exchange.Spans) -> torch.Tensor:
    """This rank's part of each of the pieces *spans* of *value*, one after the other."""
    ranks = moves.ranks()
    had = exchange.own_spans([(0, value._size)], ranks)
    return exchange.exchanged(columns.plain(value), value._axis, had, exchange.own_spans(spans, ranks))


def viewed(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Views that leave the axis of the parts as it is; where it is then, a view of a tensor without numbers tells."""
    value = args[0]
    if not isinstance(value, columns.Columns) or _has_tensors((args[1:], kwargs)):
        return NotImplemented
    strides = [2 ** (place + 1) for place in range(value.dim())]
    strides[value._axis] = _AXIS_STRIDE
    views = _outputs(func(torch.empty_strided(columns.shape_of(value), strides, device="meta"), *args[1:], **kwargs))
    axes = [axis for view in views if (axis := _axis_in(view)) is not None]
    if not axes:
        return _picked(func, value, args, kwargs)
    if len(axes) < len(views) or any(view.shape[axis] != value._size for view, axis in zip(views, axes, strict=True)):
        return _cut(func, value, args, kwargs)
    if func.__name__ == "expand":
        given = list(args[1] if isinstance(args[1], (tuple, list)) else args[1:])
        given[axes[0]] = -1
        args = (value, given)
    parts = func(*args, **kwargs)
    if isinstance(parts, torch.Tensor):
        return columns.mark(parts, axes[0])
    return type(parts)(columns.mark(each, axis) for each, axis in zip(parts, axes, strict=True))


def _cut(func: Function, value: columns.Columns, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Pieces along the axis of the parts: each rank gets its part of every piece, as of queries, keys and values."""
    whole, axis = columns.shape_of(value), value._axis
    strides = [int(place == axis) for place in range(len(whole))]
    result = func(torch.empty_strided(whole, strides, device="meta"), *args[1:], **kwargs)
    spans = []
    for view in _outputs(result):
        size = view.shape[axis] if view.dim() == len(whole) else 0
        rest = [*whole[:axis], size, *whole[axis + 1 :]]
        if not size or size % moves.ranks() or list(view.shape) != rest or view.stride(axis) != 1:
            return NotImplemented
        spans.append((view.storage_offset(), size))
    mine = _pieces(value, spans)
    if isinstance(result, torch.Tensor):
        return columns.mark(mine, axis)
    sizes = [size // moves.ranks() for _, size in spans]
    return type(result)(columns.mark(each, axis) for each in mine.split(sizes, axis))


def _picked(func: Function, value: columns.Columns, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One of few along the axis of the parts, or each: keys are on one rank and values on another, so heads part."""
    axis, steps = value._axis, value.stride()
    inner = [to for to in range(value.dim()) if steps[to] < steps[axis] and value.shape[to] % moves.ranks() == 0]
    if value._size > _MOST_PIECES or len(inner) < 2:
        return NotImplemented
    to = max(inner, key=lambda place: steps[place])
    return viewed(func, (columns.mark(exchange.turned(columns.plain(value), axis, to), to), *args[1:]), kwargs)


def _outputs(result: Any) -> list[torch.Tensor]:
    return [*result] if isinstance(result, (tuple, list)) else [result]


def _has_tensors(tree: Any) -> bool:
    return any(not isinstance(leaf, (int, slice, type(None), type(...))) for leaf in tree_flatten(tree)[0])


def _axis_in(view: torch.Tensor) -> int | None:
    return next((axis for axis, stride in enumerate(view.stride()) if stride == _AXIS_STRIDE), None)


def glued(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """`cat` and `stack` along another axis."""
    # An empty tensor without axes is what caches of keys begin with; torch leaves it out as well.
    parts = [each for each in (args[0] if args else kwargs["tensors"]) if each.dim() != 1 or each.numel()]
    first = next(each for each in parts if isinstance(each, columns.Columns))
    if not all(
        isinstance(each, columns.Columns) and (each._axis, each._size) == (first._axis, first._size) for each in parts
    ):
        return NotImplemented
    given = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    is_new = func.__name__ == "stack"
    axis = given % (first.dim() + is_new)
    if axis == first._axis and not is_new:
        return NotImplemented
    return columns.mark(func(parts, dim=axis), first._axis + (is_new and axis <= first._axis))
