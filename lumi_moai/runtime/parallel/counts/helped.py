"""Where the rows are in what a library makes of them for the script: einops, turned pictures, noise that is added.

Within the library they are plain rows, of which sizes and sums are this rank's; the script gets rows back to count.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ....errors import RequestError
from . import of_graphs, reducing
from .names import ADDED, AS_ONE, EACH, PRODUCTS, VIEW
from .places import Part, after_each, after_einsum, after_product, after_view, as_rows

_ALONG = {"chunk": 2, "split": 2, "tensor_split": 2, "unbind": 1, "cat": 1, "concat": 1, "stack": 1}
"""What takes tensors apart or joins them along a dimension, and where that stands among the arguments."""
_OTHERS = {"narrow", "select", "index_select", "masked_select", "take", "nonzero", "outer", "repeat_interleave", "tile"}
"""What gives other rows, or another number of them."""
_WRITTEN = {"scatter", "copy"}
"""What a library writes rows with into a tensor that it made as large: one-hot labels."""
_IN_FRONT = {"cosine_similarity", "pairwise_distance", "cross_entropy", "kl_div", "one_hot", "embedding"}
"""What gives a number or a line for each row, of fewer or more dimensions."""


def passed_on(name: str, args: tuple, kwargs: dict[str, Any], result: Any) -> Any:
    """*result*, which a library made by *name* of rows, and which the script may get back: as rows, if it has them."""
    parts = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Part)]
    if args and of_graphs.kind_of(args[0]) and type(result) is torch.Tensor:
        result = of_graphs.as_before(name, args[0], result)
    for each in result if isinstance(result, (tuple, list)) else [result]:
        is_given = any(each is given for given in (args[1:] if name in _WRITTEN else args))
        if type(each) is torch.Tensor and each.dim() and not is_given:
            at = _rows_at(name, [part for part in parts if part.at is not None], each, args, kwargs)
            if at is not None:
                as_rows(each, parts[0], at).graph = parts[0].graph if name in EACH | VIEW else ""
    return of_graphs.sorted_by(name, result, args, kwargs) if any(part.graph for part in parts) else result


def _rows_at(name: str, parts: Sequence[Part], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Where the rows are, by what *name* does and never by a size alone, which may fit by chance on one rank."""
    if not parts or name.startswith("new_") or name in _OTHERS:
        return None
    try:
        found = _told(name, parts, result, args, kwargs)
    except RequestError:  # rows that meet other rows are the library's affair
        return None
    at = parts[0].at
    if found is None or found < 0 or at is None or at < 0:
        return found if name in EACH | VIEW else None
    is_in_steps = name in VIEW and at == found == 0 and result.shape[0] % max(parts[0].share.rows, 1) == 0
    is_as_long = found < result.dim() and (is_in_steps or result.shape[found] == parts[0].shape[at])
    return found if is_as_long else None


def _told(name: str, parts: Sequence[Part], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    part, at = parts[0], parts[0].at or 0
    if name in EACH | VIEW:
        return after_each(parts, result) if name in EACH else after_view(name, part, result, args, kwargs)
    if name in PRODUCTS or name == "einsum":
        return after_einsum(args) if name == "einsum" else after_product(name, args)
    if name in ADDED | AS_ONE:
        return None if at or reducing.goes_over_rows(name, part, args, kwargs) else 0
    if name == "scatter" and (kwargs["dim"] if "dim" in kwargs else args[1]) % result.dim() == at:
        return None
    if name == "getitem" or name in _ALONG:
        return _after_index(args[1], at) if name == "getitem" else _after_parts(name, part, args, kwargs)
    keeps = result.dim() == part.dim() or name in _IN_FRONT or name.endswith("_loss")
    return at if keeps else None


def _after_index(index: Any, at: int) -> int | None:
    """The rows stay in front where all of them are taken: `x[:, 3]`, `x[..., 2:]`."""
    first = index[0] if isinstance(index, tuple) and index else index
    takes_all = first is Ellipsis or (isinstance(first, slice) and first == slice(None))
    return 0 if at == 0 and takes_all else None


def _after_parts(name: str, part: Part, args: tuple, kwargs: dict[str, Any]) -> int | None:
    at, place = part.at or 0, _ALONG[name]
    dim = kwargs.get("dim", args[place] if len(args) > place else 0) % (part.dim() + (name == "stack"))
    if name == "stack":
        return at + (dim <= at)
    return None if dim == at else at - (name == "unbind" and dim < at)
