"""Where the rows of a batch are in a tensor that the script makes of others."""

from collections.abc import Sequence
from typing import Any

import torch

from ....errors import RequestError
from ..share import Share
from .size import Rows

PICKED = -1
"""The first dimension has some of the rows, as many as each rank picks, in their order."""


class Part(torch.Tensor):
    """A part of a batch."""

    share: Share
    at: int | None
    """The dimension of the rows; PICKED; None if it is not known: `mask.t()[ids]` has its part too."""
    graph: str = ""
    """Of a batch of graphs: which of its numbers these are (see `of_graphs`)."""


def as_rows(tensor: torch.Tensor, like: Part, at: int) -> torch.Tensor:
    """*tensor*, whose dimension *at* has the rows that *like* has too."""
    tensor.__class__ = type(like)
    part: Any = tensor
    part.share, part.at = like.share, at
    return part


def after_each(parts: Sequence[Part], result: torch.Tensor) -> int | None:
    """Where they are after work on each element, whose dimensions count from the last.

    Raises RequestError when rows meet other rows.
    """
    if PICKED in (each.at for each in parts):
        return PICKED
    found = {each.at + result.dim() - each.dim() for each in parts if each.at is not None}
    if len(found) > 1 and len({each.share for each in parts}) == 1:
        raise _across()
    return min(found, default=None)


def check_alike(parts: Sequence[Part], *, is_crossed: bool = False) -> None:
    """Raise RequestError when rows meet other rows in a number for each pair, such as a cosine.

    *is_crossed*: all rows of the *parts* do.
    """
    known = [each for each in parts if each.at not in (None, PICKED)]
    if is_crossed and len(parts) > 1:
        raise _across()
    if len({each.dim() for each in known}) == 1 < len({each.at for each in known}):
        raise _across()


def after_view(name: str, tensor: Part, result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Where they are after a view; None if it cannot be told."""
    dims, at, given = tensor.dim(), tensor.at, (*args[1:], *kwargs.values())
    if at == PICKED:
        return at if result.shape[0] == tensor.shape[0] else None
    if at is None:
        return _told(tensor, given, result)
    words = [each for each in given if isinstance(each, int)]
    if name == "unsqueeze":
        return at + (words[0] % (dims + 1) <= at)
    if name in ("t", "T", "mT", "transpose"):
        first, second = (each % dims for each in (words if name == "transpose" else (-2, -1) if dims > 1 else (0, 0)))
        return {first: second, second: first}.get(at, at)
    if name == "permute":
        order: Any = words or next(each for each in (*args[1:], *kwargs.values()) if isinstance(each, (tuple, list)))
        return [each % dims for each in order].index(at)
    return _after_squeeze(tensor, words) if name == "squeeze" and at > 0 else _reshaped(tensor, result, given)


def _reshaped(tensor: Part, result: torch.Tensor, given: tuple) -> int | None:
    dims, at = tensor.dim(), tensor.at or 0
    if at > 0:
        return at if result.shape[: at + 1] == tensor.shape[: at + 1] else _told(tensor, given, result)
    if dims == 1 and result.shape[-1] == tensor.shape[0] and _is_one(given):
        return result.dim() - 1
    # In the first dimension if they were, and it still counts whole rows.
    return 0 if result.shape[0] % max(tensor.shape[0], 1) == 0 else None


def _told(tensor: Part, sizes: tuple, result: torch.Tensor) -> int | None:
    """The dimension whose size the script has given as a number of rows."""
    words = sizes[0] if sizes and isinstance(sizes[0], (tuple, list)) else sizes
    found = [place for place, each in enumerate(words) if isinstance(each, Rows) and place < result.dim()]
    return next((place for place in found if result.shape[place] == max(tensor.share.rows, 1)), None)


def _after_squeeze(tensor: Part, words: list[int]) -> int | None:
    dims, at = [each % tensor.dim() for each in words] or list(range(tensor.dim())), tensor.at or 0
    gone = [dim for dim in dims if tensor.shape[dim] == 1]
    return None if at in gone else at - sum(dim < at for dim in gone)


def _is_one(sizes: tuple) -> bool:
    """Whether the first of *sizes* is 1, as the script says it: the rows of a rank that has one only are no 1."""
    first = sizes[0] if sizes else None
    first = first[0] if isinstance(first, (tuple, list)) and first else first
    return isinstance(first, int) and first == 1


def after_product(name: str, args: tuple) -> int | None:
    """Where they are after a product of matrices; PICKED if it adds up over them.

    Raises RequestError when rows meet other rows.
    """
    first, second = args[0], args[1] if len(args) > 1 else args[0]
    if name == "rmatmul":
        first, second = second, first
    mine, others = (each.at if isinstance(each, Part) else None for each in (first, second))
    over = max(second.dim() - 2, 0)
    if isinstance(first, Part) and isinstance(second, Part) and None in (mine, others) and second.dim() == 2:
        raise _across()
    if name in ("cdist", "pdist"):
        is_within = name == "cdist" and mine == others != max(first.dim(), second.dim()) - 2  # points of each row
        if mine is not None and others is not None and not is_within:
            raise _across()
        return mine
    if mine is not None and others is not None and mine < first.dim() - 1 and others > over:
        raise _across()
    if (mine is not None and mine == first.dim() - 1) or (others is not None and others == over and second.dim() < 3):
        return PICKED
    return mine if mine is not None else others


def after_einsum(args: tuple) -> int | None:
    """Where they are after `einsum(equation, ...)`; PICKED if it adds up over them; None if that cannot be told.

    Raises RequestError when rows meet other rows.
    """
    equation, *given_tensors = args
    is_list = len(given_tensors) == 1 and isinstance(given_tensors[0], (tuple, list))
    tensors = given_tensors[0] if is_list else given_tensors
    if not isinstance(equation, str) or "." in equation:
        return None
    given, _, made = equation.replace(" ", "").partition("->")
    found = {
        words[each.at]
        for words, each in zip(given.split(","), tensors, strict=True)
        if isinstance(each, Part) and each.at not in (None, PICKED)
    }
    if len(found) > 1:
        raise _across()
    if not found or not made:
        return None
    rows = found.pop()
    return made.index(rows) if rows in made else PICKED


def _across() -> RequestError:
    return RequestError(
        "the script compares the rows of a batch with each other (contrastive), and each rank has some of them only;"
        " run it on one device"
    )
