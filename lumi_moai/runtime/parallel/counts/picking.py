"""Rows that the script takes out of a batch."""

from typing import Any

import torch

from . import rows, steps
from .places import PICKED, Part
from .whole import felt_by_all

JOINS = {"cat", "concat", "concatenate", "vstack"}
ASIDE = {"cat": 1, "concat": 1, "concatenate": 1, "stack": 1, "chunk": 2, "split": 2, "tensor_split": 2, "unbind": 1}
"""What joins tensors or takes them apart, and where the dimension stands among the arguments."""
PICKS = {"masked_select", "nonzero", "argwhere"}
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


def reordered(args: tuple) -> torch.Tensor | None:
    """This rank's rows of `tensor[order]`, where *order* is of the rows of all ranks; None if it is not."""
    tensor, index = args[0], args[1]
    first, *rest = index if isinstance(index, tuple) and index else (index,)
    if not isinstance(tensor, Part) or tensor.at != 0 or isinstance(first, Part) or not _is_order(first, tensor):
        return None
    whole = felt_by_all(rows.gathered(tensor, tensor.share), tensor.share)
    start, end = rows.bounds_of(tensor, tensor.share)
    order = torch.as_tensor(first, device=whole.device)[start:end]
    return whole[(order, *rest)]


def _is_order(index: Any, tensor: Part) -> bool:
    share = tensor.share
    if isinstance(index, (bool, int, slice)) or index is None or index is Ellipsis or tensor.shape[0] == share.total:
        return False
    if getattr(index, "dtype", None) in (torch.bool, "bool") or getattr(index, "ndim", 1) != 1:
        return False
    return hasattr(index, "__len__") and len(index) == share.total


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
    if tensor.at == PICKED:
        is_some = isinstance(first, slice) or (isinstance(first, torch.Tensor) and first.dim() == 1)
        return True, PICKED if is_some else None
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


def aside(name: str, parts: list[Any], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Where the rows are after *name* joins *parts*, or takes one apart, in another dimension; None if it does not."""
    at, places = parts[0].at, {each.at for each in parts}
    if name not in ASIDE or None in places or len(places) > 1:
        return None
    dim = args[ASIDE[name]] if len(args) > ASIDE[name] else kwargs.get("dim", kwargs.get("axis", 0))
    rows = max(at, 0)
    dim %= result.dim() + (name == "unbind")
    if name == "stack":
        return None if at == PICKED else rows + (dim <= rows)
    if dim == rows:
        return None
    return at - (dim < rows) if name == "unbind" else at


def left(name: str, parts: list[Any], result: torch.Tensor) -> tuple[bool, int | None]:
    """The same for what *name*, of which nothing else is known, makes of *parts*: as many rows are the rows."""
    tensor = parts[0]
    if name in JOINS and all(each.at in (0, None) for each in parts):
        return True, None
    if tensor.at == PICKED:
        return (True, PICKED) if name in JOINS else (name not in MIXES and result.shape[:1] == tensor.shape[:1], PICKED)
    if tensor.at is None or steps.is_aside(tensor.at):
        is_part, at = steps.left(name, tensor, result)
        return (is_part and name not in MIXES) or result.shape == tensor.shape, at if is_part else None
    return tensor.at == 0 and name not in MIXES and result.shape[0] == tensor.shape[0], 0
