"""The tensors of a batch of which each rank has its rows, and what the script makes of them without its model."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ... import group
from .. import marks
from ..share import Share
from . import users
from .size import Rows


class OfBatch(torch.Tensor):
    """A tensor whose elements are this rank's part of what one device would have."""

    share: Share
    at: int | None
    """The dimension of the rows, if it is known: `mask.t()[ids]` has its part too."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Do *func*; what the script does with it alone is followed, libraries and models get plain tensors."""
        if any(each not in _PLAIN for each in types):
            return NotImplemented  # the other class decides, and comes back without itself
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        return _followed(func, result, args, kwargs) if users.asks(sys._getframe(1)) else result

    def rows_along(self, dim: int) -> int | Rows:
        """The size of dimension *dim*."""
        with torch._C.DisableTorchFunctionSubclass():
            return _rows(self, self.dim(), dim, self.size(dim))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return plain(self).__repr__(tensor_contents=tensor_contents)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """*tensor* without its class; the same numbers."""
    return tensor.as_subclass(torch.Tensor)


_PLAIN = (OfBatch, torch.Tensor, torch.nn.Parameter)


def mark(batch: Any, share: Share) -> None:
    """The tensors of *batch*, which was cut as *share* says, are this rank's part from now on."""
    for leaf in tree_leaves(batch):
        parts = [leaf] if torch.is_tensor(leaf) else vars(leaf).values() if hasattr(leaf, "__dict__") else ()
        for part in parts:
            if type(part) is torch.Tensor and part.dim() > 0 and len(part) == max(share.rows, 1):
                _become(part, share, 0)


@contextmanager
def plainly(arguments: Any) -> Iterator[None]:
    """Within this the tensors of *arguments*, a model's, are plain ones: it computes with them as fast as ever."""
    marked = [leaf for leaf in tree_leaves(arguments) if type(leaf) is OfBatch]
    for tensor in marked:
        tensor.__class__ = torch.Tensor
    try:
        yield
    finally:
        for tensor in marked:
            tensor.__class__ = OfBatch


def _become(tensor: torch.Tensor, share: Share, at: int | None) -> torch.Tensor:
    tensor.__class__ = OfBatch
    tensor.share, tensor.at = share, at
    return tensor


def _rows(tensor: OfBatch, dims: int, dim: int, size: int) -> int | Rows:
    share, mine = tensor.share, max(tensor.share.rows, 1)
    if tensor.at is None or dim % dims != tensor.at or size % mine:
        return size
    return Rows.of(size, size // mine * share.total)


def _followed(func: Any, result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    name = _name(func)
    tensor = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OfBatch))
    if name in ("size", "shape", "numel"):
        return _sized(name, tensor, result, args, kwargs)
    if type(result) is not torch.Tensor or any(result is each for each in args):  # a ghost; what is added to in place
        return result
    if name in _REDUCE:
        return _reduced(name, tensor, result, args, kwargs)
    if name == "getitem":
        return _taken(tensor, result, args[1])
    if result.dim() > 0 and name in _EACH | _VIEW:
        return _become(result, tensor.share, (_at_after if name in _VIEW else _at_each)(tensor, result))
    return result


def _name(func: Any) -> str:
    """`eq` for `torch.eq`, `Tensor.eq` and `==`, `shape` for reading that attribute."""
    name = getattr(func, "__name__", "")
    return (func.__self__.__name__ if name == "__get__" else name).strip("_")


def _at_each(tensor: OfBatch, result: torch.Tensor) -> int | None:
    """Where the rows are after work on each element, whose dimensions count from the last."""
    return None if tensor.at is None else tensor.at + result.dim() - _dim(tensor)


def _dim(tensor: torch.Tensor) -> int:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.dim()


def _sized(name: str, tensor: OfBatch, result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    dims = _dim(tensor)
    if name == "numel":
        return _rows(tensor, 1, 0, result) if tensor.at == 0 else result
    if isinstance(result, int):
        return _rows(tensor, dims, args[1] if len(args) > 1 else kwargs["dim"], result)
    return torch.Size([_rows(tensor, dims, dim, size) for dim, size in enumerate(result)])


def _at_after(tensor: OfBatch, result: torch.Tensor) -> int | None:
    """Where the rows are after a view: in the first dimension if they were, and it still counts whole rows."""
    with torch._C.DisableTorchFunctionSubclass():
        if tensor.at == 0 and tensor.dim() == 1 and result.shape[-1] == tensor.shape[0] and result.shape[0] == 1:
            return result.dim() - 1
        is_first = tensor.at == 0 and result.shape[0] % tensor.shape[0] == 0
    return 0 if is_first else None


def _taken(tensor: OfBatch, result: torch.Tensor, index: Any) -> torch.Tensor:
    """`tensor[index]`: no longer a part of the batch when it takes single rows, which are others on each rank."""
    first = index[0] if isinstance(index, tuple) and index else index
    if result.dim() == 0 or (tensor.at == 0 and (isinstance(first, int) or _is_cut(first))):
        return result
    keeps = tensor.at == 0 and (first is Ellipsis or isinstance(first, slice))
    is_aside = tensor.at not in (None, 0) and isinstance(first, slice) and not isinstance(index, tuple)
    return _become(result, tensor.share, tensor.at if keeps or is_aside else None)


def _is_cut(index: Any) -> bool:
    return isinstance(index, slice) and index != slice(None)


def _reduced(name: str, tensor: OfBatch, result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
    if result.requires_grad:  # the loss of a batch has ways of its own
        return result
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    dims = _dim(tensor)
    over = range(dims) if dim is None else [each % dims for each in (dim if isinstance(dim, (tuple, list)) else [dim])]
    if len(over) == dims or tensor.at in over:
        return marks.mark(_REDUCE[name](tensor.share, result, _elements(tensor) / max(result.numel(), 1)))
    return (
        result if tensor.at is None or min(over, default=dims) < tensor.at else _become(result, tensor.share, tensor.at)
    )


def _elements(tensor: torch.Tensor) -> int:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.numel()


def _sum(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    return group.total(result if share.rows else torch.zeros_like(result))


def _mean(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    weight = count if share.rows else 0
    # Not times 0: a mean of nothing is no number.
    own = result.double() * weight if weight else torch.zeros_like(result, dtype=torch.float64)
    sums = group.total(torch.stack([own, torch.full_like(own, weight)]))
    return (sums[0] / sums[1]).to(result.dtype)


def _any(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    return _sum(share, result.long(), count) > 0


def _all(share: Share, result: torch.Tensor, count: float) -> torch.Tensor:
    return _sum(share, (~result.bool()).long(), count) == 0


_REDUCE: dict[str, Callable[[Share, torch.Tensor, float], torch.Tensor]] = {
    "sum": _sum,
    "nansum": _sum,
    "count_nonzero": _sum,
    "mean": _mean,
    "any": _any,
    "all": _all,
}
_ORDER = {"eq", "ne", "lt", "le", "gt", "ge", "not_equal", "greater", "less", "isin", "isnan", "isinf", "isfinite"}
_ARITHMETIC = {
    "add",
    "sub",
    "mul",
    "div",
    "truediv",
    "pow",
    "neg",
    "abs",
    "square",
    "sqrt",
    "exp",
    "log",
    "sign",
    "round",
}
_LOGIC = {
    "and",
    "or",
    "xor",
    "invert",
    "logical_and",
    "logical_or",
    "logical_not",
    "logical_xor",
    "where",
    "masked_fill",
}
_KIND = {"to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "short", "bool"}
_PLACE = {"cpu", "cuda", "clone", "detach", "data", "contiguous", "expand", "expand_as"}
_EACH = _ORDER | _ARITHMETIC | {f"r{name}" for name in _ARITHMETIC} | _LOGIC | _KIND | _PLACE
"""What works on each element for itself."""
_VIEW = {"view", "reshape", "flatten", "unsqueeze", "squeeze", "ravel", "t", "T", "transpose", "permute"}
