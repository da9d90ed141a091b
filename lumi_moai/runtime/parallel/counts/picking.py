"""Rows that the script takes out of a batch."""

from typing import Any

import torch

from . import rows, said, steps
from .felt import felt_by_all
from .names import AS_ONE
from .places import FIRST, JOINED, MANY, PICKED, Part, after_seams, joined

JOINS = {"cat", "concat", "concatenate", "vstack"}
ASIDE = {"cat": 1, "concat": 1, "concatenate": 1, "stack": 1, "chunk": 2, "split": 2, "tensor_split": 2, "unbind": 1}
"""What joins tensors or takes them apart, and where the dimension stands among the arguments."""
PLACES = {"nonzero", "argwhere"}
"""What gives places of rows."""
PICKS = PLACES | {"masked_select"}
REPEATS = {"repeat", "tile", "repeat_interleave"}
MIXES = {
    *("cat", "concat", "stack", "hstack", "vstack", "index_select", "take", "repeat_interleave", "repeat", "chunk"),
    *(
        "concatenate",
        "split",
        "unbind",
        "roll",
        "flip",
        "take_along_dim",
        "einsum",
        "meshgrid",
        "combinations",
        "cartesian_prod",
    ),
}
"""What may give other rows, though as many."""
_BY_DIM = {"take_along_dim": 2, "index_select": 1}
"""The same, but where their dimension, which stands there, is another one."""


def reordered(args: tuple) -> torch.Tensor | None:
    """This rank's rows of `tensor[order]`, where *order* is of the rows of all ranks; None if it is not."""
    tensor, index = args[0], args[1]
    first, *rest = index if isinstance(index, tuple) and index else (index,)
    order = _order(first, tensor) if isinstance(tensor, Part) and tensor.at == 0 else None
    if order is None:
        return None
    whole = felt_by_all(rows.gathered(tensor, tensor.share), tensor.share)
    start, end = rows.bounds_of(tensor, tensor.share)
    return whole[(torch.as_tensor(order, device=whole.device)[start:end], *rest)]


def _order(index: Any, tensor: Part) -> Any:
    """*index* as numbers of rows among all, if it has one for each of those; None if it has not."""
    if not isinstance(index, Part):
        return index if _is_order(index, tensor) else None
    is_number = index.of_table is not None and not index.dtype.is_floating_point and index.dtype != torch.bool
    return index.of_table if is_number else None


def _is_order(index: Any, tensor: Part) -> bool:
    share = tensor.share
    if isinstance(index, (bool, int, slice)) or index is None or index is Ellipsis or tensor.shape[0] == share.total:
        return False
    if getattr(index, "dtype", None) in (torch.bool, "bool") or getattr(index, "ndim", 1) != 1:
        return False
    if not hasattr(index, "__len__") or len(index) != share.total:
        return False
    # A rank's own places, of which there may be as many by chance, stay below the rows that a rank has at most.
    return int(torch.as_tensor(index).max()) >= -(-share.total // share.ranks)


def taken(args: tuple, part: Part, result: torch.Tensor) -> tuple[bool, int | None]:
    """Whether `tensor[index]` is a part of the batch, and where its rows are; single rows are others on each rank."""
    tensor, index = args[0], args[1]
    first = index[0] if isinstance(index, tuple) and index else index
    if not isinstance(tensor, Part):
        return True, _by_rows(part, is_only=first is part)
    if tensor.at == 0 and (isinstance(first, int) or (isinstance(first, slice) and len(result) != len(tensor))):
        return False, None
    if steps.is_aside(tensor.at):
        return True, steps.taken(tensor.at or 0, index, result, tensor.dim())
    if tensor.at in MANY:
        return True, _of_many(first, tensor, result)
    return True, _of_rows(index, first, tensor, result) if tensor.at == 0 else None


def _by_rows(part: Part, *, is_only: bool) -> int | None:
    """Where the rows are in what *part*, a mask or numbers, takes out of a tensor that is none of the batch."""
    if part.dtype == torch.bool:
        return PICKED if part.at in (0, PICKED) else None
    return part.at if is_only else None


def _of_rows(index: Any, first: Any, tensor: Part, result: torch.Tensor) -> int | None:
    """Where they are in `tensor[index]`, which has its rows in front."""
    if isinstance(first, torch.Tensor) and first.dtype == torch.bool:
        return PICKED
    if isinstance(first, Part) and first.at == PICKED:  # of each graph, for its nodes
        return PICKED
    if isinstance(index, tuple) and isinstance(first, torch.Tensor):
        return 0 if result.shape[0] == tensor.shape[0] else None
    return 0 if first is Ellipsis or isinstance(first, slice) else None


def _of_many(first: Any, tensor: Part, result: torch.Tensor) -> int | None:
    """Where they are in what *first* takes of rows that the ranks have picked, or that were joined."""
    if tensor.at == PICKED:
        is_some = isinstance(first, slice) or (isinstance(first, torch.Tensor) and first.dim() == 1)
        return PICKED if is_some else None
    if isinstance(first, torch.Tensor) and first.dtype == torch.bool:
        return PICKED
    if first is Ellipsis:
        return JOINED
    return after_seams(tensor, result) if isinstance(first, slice) else None  # others are of the whole batch


def aside(name: str, parts: list[Any], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Where the rows are after *name* joins *parts*, or takes one apart, in another dimension; None if it does not."""
    at, places = parts[0].at, {each.at for each in parts}
    if name not in ASIDE or None in places or len(places) > 1:
        return None
    dim = _dim(name, args, kwargs)
    rows = max(at, 0)
    dim %= result.dim() + (name == "unbind")
    if name == "stack":
        return None if at < 0 else rows + (dim <= rows)
    if dim == rows:
        is_apart = at in MANY and name in ("chunk", "split")
        return None if not is_apart else PICKED if at == PICKED else after_seams(parts[0], result)
    return at - (dim < rows) if name == "unbind" else at


def repeated(name: str, tensor: Part, result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Where the rows are in *result*, in which each comes several times; None if that cannot be told."""
    mine, is_one = max(tensor.share.rows, 1), result.dim() == tensor.dim()
    if tensor.at not in FIRST or not is_one or len(result) % mine:
        return None
    if name != "repeat_interleave":
        is_joined = tensor.at == JOINED or len(tensor) == mine
        return tensor.at if len(result) == len(tensor) else JOINED if is_joined else None
    times = args[1] if len(args) > 1 else kwargs.get("repeats")
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0 if tensor.dim() == 1 else None)
    if tensor.at != 0 or dim is None or (isinstance(times, torch.Tensor) and times.dim()):
        return None
    return 0


def _dim(name: str, args: tuple, kwargs: dict[str, Any]) -> int:
    return args[ASIDE[name]] if len(args) > ASIDE[name] else kwargs.get("dim", kwargs.get("axis", 0))


def _after_join(name: str, tensor: Part, result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    is_vector = tensor.dim() < 2
    if name == "vstack" and is_vector:  # vectors become rows
        return 1 if tensor.at == 0 else None
    if name == "hstack" and not is_vector:
        return tensor.at
    dim = 0 if name in ("vstack", "hstack") else _dim("cat", args, kwargs) % result.dim()
    return joined(args[0] if args else kwargs["tensors"], dim)


def _goes_aside(name: str, tensor: Part, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether *name* takes numbers by another dimension than that of the rows: `take_along_dim(out, y[:, None], 1)`."""
    if name not in _BY_DIM or tensor.at is None or tensor is not args[0]:
        return False
    dim = args[_BY_DIM[name]] if len(args) > _BY_DIM[name] else kwargs.get("dim")
    return isinstance(dim, int) and dim % tensor.dim() != max(tensor.at, 0)


def left(
    name: str, parts: list[Any], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]
) -> tuple[bool, int | None]:
    """The same for what *name*, of which nothing else is known, makes of *parts*: as many rows are the rows."""
    tensor = parts[0]
    mixes = name in MIXES - AS_ONE and not _goes_aside(name, tensor, args, kwargs)  # `x.flip(1)` mixes none
    if name in {*JOINS, "hstack"} and all(each.at in (0, None, *MANY) for each in parts):
        return True, _after_join(name, tensor, result, args, kwargs)
    if name in REPEATS:
        found = repeated(name, tensor, result, args, kwargs)
        return found is not None, found
    if tensor.at in MANY:
        return not mixes and result.shape[:1] == tensor.shape[:1], tensor.at
    if tensor.at is None or steps.is_aside(tensor.at):
        is_part, at = steps.left(name, tensor, result)
        return (is_part and not mixes) or result.shape == tensor.shape, at if is_part else None
    is_rows = tensor.at == 0 and not mixes and result.shape[0] == tensor.shape[0]
    if not is_rows and name not in ASIDE:
        said.say(f"unknown {name}", said.UNKNOWN.format(name=name))
    return is_rows, 0
