"""A tensor of which this rank has a part along one axis, and which answers the script as the whole one would.

It comes out of a layer whose columns are spread. What can be computed on the part alone is: operations on each number,
on other axes, per head. Everything else gets the whole, put together from all ranks, and goes on with it. So a model
may do with such a tensor whatever it likes; what is known here is only faster.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_flatten, tree_map

from .....errors import RequestError
from .. import operations
from ..spread import whole
from . import moves

Function = Callable[..., Any]
Rule = Callable[[Function, tuple, dict[str, Any]], Any]
"""Computes a function on parts; `NotImplemented` when that cannot be."""
_GUARDED: list[Function] = []
"""torch's own `Function.apply`, once it is replaced."""
_REFUSED = frozenset(
    ("data_ptr", "untyped_storage", "storage", "retain_grad", "__cuda_array_interface__", "__dlpack__")
)
"""What a copy that is put together cannot stand in for."""
_AXIS_STRIDE = 999983
"""A prime, so that no view of another axis has the same."""


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
    return moves.joined(_plain(value), value._axis) if isinstance(value, Columns) else value


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
            return _plain(value)
        value = together(value)
    if value.shape[-1] * moves.ranks() == last:
        raise RequestError(
            f"a layer of {last} inputs got {value.shape[-1]} with tp={moves.ranks()}: the model computes with code"
            " outside of torch, such as flash_attn, between layers; take torch's own attention (sdpa), or --layout fsdp"
        )
    # A wrong size is torch's to tell.
    return moves.part(value, value.dim() - 1) if value.shape[-1] == last else value


def _plain(value: Columns) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return value.view_as(value)


def _answer(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    name, _ = operations.name_of(func)
    rule = _RULES.get(name.strip("_")) or (_native if name.startswith("is_") else None)
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


def _shape(value: torch.Tensor) -> torch.Size:
    """The shape of the whole; called where torch answers for the part."""
    shape = list(value.shape)
    if isinstance(value, Columns):
        shape[value._axis] = value._size
    return torch.Size(shape)


def _native(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _size_of(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """size(), shape, numel(), len()"""
    return func(torch.empty(_shape(args[0]), device="meta"), *args[1:], **kwargs)


def _same(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Another type or copy of the first argument."""
    if not isinstance(args[0], Columns):
        return NotImplemented
    return _mark_all(func(*args, **kwargs), args[0]._axis)


def _mark_all(result: Any, axis: int) -> Any:
    return mark(result, axis) if isinstance(result, torch.Tensor) else result


def _each(func: Function, args: tuple, kwargs: dict[str, Any], *, least: int = 1) -> Any:
    """An operation on each number, or on each matrix when *least* is 3: axes count from the last one, as they meet."""
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
    found = {(leaf.dim() - leaf._axis, leaf._size) for leaf in leaves if isinstance(leaf, Columns)}
    if len(found) != 1:
        return NotImplemented
    ((back, size),) = found
    if back < least or not all(_meets(leaf, back, size) for leaf in leaves):
        return NotImplemented
    own = tree_map(lambda leaf: _matched(leaf, back), (args, kwargs))
    if operations.is_in_place(operations.name_of(func)[0]) and not isinstance(args[0], Columns):
        return NotImplemented
    result = func(*own[0], **own[1])
    return _mark_all(result, result.dim() - back)


def _meets(leaf: torch.Tensor, back: int, size: int) -> bool:
    return isinstance(leaf, Columns) or leaf.dim() < back or leaf.shape[-back] in (1, size)


def _matched(leaf: Any, back: int) -> Any:
    """What of a plain tensor meets this rank's part of a spread one."""
    if not isinstance(leaf, torch.Tensor) or isinstance(leaf, Columns):
        return leaf
    full = whole(leaf) if isinstance(leaf, DTensor) else leaf
    if full.dim() < back or full.shape[-back] == 1:
        return moves.copy(full)
    return moves.part(full, full.dim() - back)


def _product(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    return _each(func, args, kwargs, least=3)


_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def _attention(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Scaled dot products, by heads; where keys have fewer heads than queries the parts still belong together."""
    words = dict(zip(_ATTENTION, args, strict=False)) | kwargs
    query, heads = words["query"], [words["query"], words["key"], words["value"]]
    if not all(isinstance(each, Columns) and each.dim() - each._axis == 3 for each in heads) or words.get("dropout_p"):
        return NotImplemented
    mask = words.get("attn_mask")
    if mask is not None:
        if not _meets(mask, 3, query._size):
            return NotImplemented
        words["attn_mask"] = _matched(mask, 3)
    return mark(func(**words), query._axis)


def _axis_of(given: Any, value: torch.Tensor) -> int | None:
    return given % value.dim() if isinstance(given, int) and not isinstance(given, bool) else None


def _along(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operation along one other axis that keeps the shape."""
    value = args[0] if args else None
    if not isinstance(value, Columns):
        return NotImplemented
    axis = _axis_of(kwargs.get("dim", args[1] if len(args) > 1 else None), value)
    return NotImplemented if axis in (None, value._axis) else mark(func(*args, **kwargs), value._axis)


def _reduced(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A sum or mean along one other axis."""
    value = args[0]
    given = kwargs.get("dim", args[1] if len(args) > 1 else None)
    axis = _axis_of(given[0] if isinstance(given, (tuple, list)) and len(given) == 1 else given, value)
    if axis is None or axis == value._axis:
        return NotImplemented
    kept = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
    return mark(func(*args, **kwargs), value._axis - (axis < value._axis and not kept))


def _normed(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A norm over the last axes, when the parts are along an earlier one."""
    value = args[0]
    over = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
    if not isinstance(value, Columns) or value._axis >= value.dim() - len(over):
        return NotImplemented
    own = tree_map(_copied, (args[1:], kwargs))
    return mark(func(value, *own[0], **own[1]), value._axis)


def _linear(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A layer that is whole, when the parts are not along its inputs."""
    value = args[0]
    if not isinstance(value, Columns) or value._axis == value.dim() - 1:
        return NotImplemented
    own = tree_map(_copied, (args[1:], kwargs))
    return mark(func(value, *own[0], **own[1]), value._axis)


def _copied(leaf: Any) -> Any:
    full = whole(leaf) if isinstance(leaf, DTensor) else leaf
    return moves.copy(full) if isinstance(full, torch.Tensor) else full


def _reshaped(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The same numbers in another shape, in which an axis begins where the one of the parts begins."""
    value = args[0]
    if not isinstance(value, Columns) or any(isinstance(each, (torch.dtype, torch.Tensor)) for each in args[1:]):
        return NotImplemented
    old = _shape(value)
    new = list(func(torch.empty(old, device="meta"), *args[1:], **kwargs).shape)
    ahead = math.prod(old[: value._axis])
    for axis, size in enumerate(new):
        if math.prod(new[:axis]) == ahead and size % moves.ranks() == 0:
            new[axis] = size // moves.ranks()
            return mark(value.view(new) if func.__name__ == "view" else value.reshape(new), axis)
    return NotImplemented


def _viewed(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Views that leave the axis of the parts as it is; where it is then, a view of a tensor without numbers tells."""
    value = args[0]
    if not isinstance(value, Columns) or _has_tensors((args[1:], kwargs)):
        return NotImplemented
    strides = [2 ** (place + 1) for place in range(value.dim())]
    strides[value._axis] = _AXIS_STRIDE
    views = func(torch.empty_strided(_shape(value), strides, device="meta"), *args[1:], **kwargs)
    outputs = views if isinstance(views, (tuple, list)) else [views]
    axes = [axis for view in outputs if (axis := _axis_in(view, value._size)) is not None]
    if len(axes) < len(outputs):
        return NotImplemented
    if func.__name__ == "expand":
        given = list(args[1] if isinstance(args[1], (tuple, list)) else args[1:])
        given[axes[0]] = -1
        args = (value, given)
    parts = func(*args, **kwargs)
    if isinstance(parts, torch.Tensor):
        return mark(parts, axes[0])
    return type(parts)(mark(each, axis) for each, axis in zip(parts, axes, strict=True))


def _has_tensors(tree: Any) -> bool:
    return any(not isinstance(leaf, (int, slice, type(None), type(...))) for leaf in tree_flatten(tree)[0])


def _axis_in(view: torch.Tensor, size: int) -> int | None:
    found = [axis for axis, stride in enumerate(view.stride()) if stride == _AXIS_STRIDE]
    return found[0] if found and view.shape[found[0]] == size else None


def _glued(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """`cat` and `stack` along another axis."""
    # An empty tensor without axes is what caches of keys begin with; torch leaves it out as well.
    parts = [each for each in (args[0] if args else kwargs["tensors"]) if each.dim() != 1 or each.numel()]
    first = next(each for each in parts if isinstance(each, Columns))
    if not all(isinstance(each, Columns) and (each._axis, each._size) == (first._axis, first._size) for each in parts):
        return NotImplemented
    given = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    is_new = func.__name__ == "stack"
    axis = given % (first.dim() + is_new)
    if axis == first._axis and not is_new:
        return NotImplemented
    return mark(func(parts, dim=axis), first._axis + (is_new and axis <= first._axis))


def _dropout(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Every rank draws for the whole, as one device would, and takes its part."""
    words = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    value = words["input"]
    if "train" in words:
        return NotImplemented
    if not words.get("training", True) or words.get("p", 0.5) == 0:
        return value
    drawn = func(torch.ones(_shape(value), dtype=value.dtype, device=value.device), words.get("p", 0.5), True)
    mine = moves.part(drawn, value._axis)
    return mark(value.mul_(mine) if words.get("inplace") else value * mine, value._axis)


def _hooked(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A hook on the gradient, which gets it as what it is: a part that answers as the whole."""
    value, hook = (*args, *kwargs.values())
    axis = value._axis

    def part(gradient: torch.Tensor) -> Any:
        changed = hook(mark(gradient.view_as(gradient), axis))
        return (
            None
            if changed is None
            else _plain(changed)
            if _is_along(changed, axis)
            else moves.part(together(changed), axis)
        )

    return func(value, part)


def _is_along(value: torch.Tensor, axis: int) -> bool:
    return isinstance(value, Columns) and value._axis == axis


def _table(*entries: tuple[Rule, str]) -> Mapping[str, Rule]:
    return {name: rule for rule, names in entries for name in names.split()}


_RULES = _table(
    (_size_of, "shape size numel nelement len"),
    (_native, "dim ndim dtype device layout requires_grad grad_fn get_device"),
    (_same, "to type_as type float half bfloat16 double clone contiguous detach data"),
    (
        _each,
        "abs neg add radd iadd sub subtract rsub isub mul multiply rmul imul div divide truediv rtruediv itruediv"
        " true_divide pow rpow square sqrt rsqrt reciprocal exp expm1 log log1p sigmoid tanh sin cos relu relu6 gelu"
        " silu mish elu leaky_relu softplus hardtanh hardswish clamp clip clamp_min clamp_max erf where masked_fill"
        " maximum minimum eq ne lt le gt ge isnan isinf isfinite logical_not",
    ),
    (_product, "matmul"),
    (_attention, "scaled_dot_product_attention"),
    (_along, "softmax log_softmax cumsum"),
    (_reduced, "mean sum amax"),
    (_normed, "layer_norm rms_norm"),
    (_linear, "linear"),
    (_reshaped, "view reshape flatten unflatten"),
    (
        _viewed,
        "transpose permute swapaxes swapdims movedim moveaxis mT getitem select narrow unbind split chunk"
        " expand squeeze unsqueeze",
    ),
    (_glued, "cat concat stack"),
    (_dropout, "dropout"),
    (_hooked, "register_hook"),
)
