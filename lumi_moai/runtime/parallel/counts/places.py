"""Where the rows of a batch are in a tensor that the script makes of others."""

from collections.abc import Sequence
from typing import Any

import torch

from ....errors import RequestError
from ..share import Share
from .names import SWAPS, TURNS
from .ranged import Own
from .size import Rows

PICKED = -1
"""The first dimension has some of the rows, as many as each rank picks, in their order."""
JOINED = -2
"""The first dimension has the rows several times, all of one tensor after all of another: `cat([a, b])`."""
MANY = (PICKED, JOINED)
FIRST = (0, JOINED)
"""Where the first dimension has all rows, once or several times."""


class Part(torch.Tensor):
    """A part of a batch."""

    share: Share
    at: int | None
    """The dimension of the rows; PICKED; JOINED; None if it is not known: `mask.t()[ids]` has its part too."""
    of_table: torch.Tensor | None = None
    """Of rows that the script took of its own table: those of all ranks, which each of them has."""
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
    if JOINED in (each.at for each in parts):
        return _joined_each(parts, result)
    found = {each.at + result.dim() - each.dim() for each in parts if each.at is not None}
    if len(found) > 1 and len({each.share for each in parts}) == 1:
        raise _across()
    return min(found, default=None)


def _joined_each(parts: Sequence[Part], result: torch.Tensor) -> int | None:
    many = result.shape[0] > 1
    if many and any(each.at is None and each.dim() == result.dim() and each.shape[0] == 1 for each in parts):
        raise _across()  # `z.unsqueeze(1) == z.unsqueeze(0)`
    in_front = [each for each in parts if each.at == JOINED and each.dim() == result.dim()]
    return JOINED if any(len(each) == len(result) for each in in_front) else None


def joined(parts: Sequence[Any], dim: int) -> int | None:
    """Where the rows are after `cat` of *parts* in dimension *dim*: one after the other, or some of several batches."""
    if dim or not all(isinstance(each, Part) and each.at in (0, *MANY) for each in parts):
        return None
    mine = max(parts[0].share.rows, 1)
    is_of_one = len({id(each.share) for each in parts}) == 1 and all(_times(each, mine) for each in parts)
    return JOINED if is_of_one else PICKED


def _times(part: Part, mine: int) -> bool:
    return part.at != PICKED and (len(part) == mine or (part.at == JOINED and len(part) % mine == 0))


def times(tensor: Part) -> int:
    """How often the joined *tensor* has the rows of the batch."""
    return len(tensor) // max(tensor.share.rows, 1)


def seams(first: Any, tensor: Part) -> slice | None:
    """The slice *first* of the joined *tensor* as one of this rank's rows; None where its ends are no seams.

    What is a seam on one rank is one on all.
    """
    if not isinstance(first, slice) or first.step not in (None, 1):
        return None
    whole = [each.whole if isinstance(each, Rows) else each for each in (first.start, first.stop)]
    total, mine = tensor.share.total, max(tensor.share.rows, 1)
    start, stop, _ = slice(*whole).indices(times(tensor) * total)
    is_seam = start < stop and not start % total and not stop % total
    return slice(Own(start // total * mine), Own(stop // total * mine)) if is_seam else None


def after_seams(tensor: Part, result: torch.Tensor) -> int:
    """Where the rows are in *result*, some of what was joined in *tensor*."""
    return 0 if len(result) == max(tensor.share.rows, 1) else JOINED


def check_alike(parts: Sequence[Part], *, is_crossed: bool = False) -> None:
    """Raise RequestError when rows meet other rows in a number for each pair, such as a cosine.

    *is_crossed*: all rows of the *parts* do.
    """
    if any(each.at == JOINED for each in parts) and any(each.at is None for each in parts):
        raise _across()
    known = [each for each in parts if each.at not in (None, PICKED, JOINED)]
    if is_crossed and len(parts) > 1:
        raise _across()
    if len({each.dim() for each in known}) == 1 < len({each.at for each in known}):
        raise _across()


def squeezed(tensor: Part, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """*args* of `tensor.squeeze()`, which lets go no dimension of rows because this rank has one row only."""
    if len(args) > 1 or kwargs or tensor.at is None or tensor.share.total == 1:
        return args
    return tensor, tuple(dim for dim in range(tensor.dim()) if dim != max(tensor.at, 0))


def after_view(name: str, tensor: Part, result: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> int | None:
    """Where they are after a view; None if it cannot be told."""
    dims, at, given = tensor.dim(), tensor.at, (*args[1:], *kwargs.values())
    if at in (PICKED, JOINED):
        is_as_long = result.dim() > 0 and result.shape[0] == tensor.shape[0]
        return _joined_view(name, tensor, result, given) if at == JOINED else at if is_as_long else None
    if at is None:
        return _told(tensor, given, result)
    words = [each for each in given if isinstance(each, int)]
    if name == "unsqueeze":
        return at + (words[0] % (dims + 1) <= at)
    if name in TURNS | SWAPS:
        first, second = (each % dims for each in (words if name in SWAPS else (-2, -1) if dims > 1 else (0, 0)))
        return {first: second, second: first}.get(at, at)
    if name in ("permute", "movedim", "moveaxis"):
        own = torch.empty(tuple(range(dims)), device="meta")  # whose sizes tell its dimensions from each other
        return getattr(own, name)(*given).shape.index(at)
    return _after_squeeze(tensor, words) if name == "squeeze" and at > 0 else _reshaped(tensor, result, given)


def _joined_view(name: str, tensor: Part, result: torch.Tensor, given: tuple) -> int | None:
    words = [each for each in given if isinstance(each, int)]
    if name == "permute":
        order: Any = words or next(each for each in given if isinstance(each, (tuple, list)))
        return JOINED if order[0] == 0 else None
    dims = [each % tensor.dim() for each in words]
    is_moved = name in ("movedim", "moveaxis")
    if is_moved or (name in TURNS and tensor.dim() < 3) or (name in SWAPS and 0 in dims):
        return None
    first: Any = next(iter(given[0] if given and isinstance(given[0], (tuple, list)) else given), -1)
    if name in ("view", "reshape") and not isinstance(first, Rows) and first != -1:
        is_apart = first == times(tensor) and result.dim() > 1 and result.shape[1] == max(tensor.share.rows, 1)
        return 1 if is_apart else None
    return JOINED if result.dim() and len(result) == len(tensor) else None


def _reshaped(tensor: Part, result: torch.Tensor, given: tuple) -> int | None:
    dims, at = tensor.dim(), tensor.at or 0
    if at > 0:
        if result.shape[: at + 1] == tensor.shape[: at + 1]:
            return at
        told = _told(tensor, given, result)
        return JOINED if told is None and _is_step_after_step(tensor, result) else told
    if dims == 1 and result.shape[-1] == tensor.shape[0] and _is_one(given):
        return result.dim() - 1
    # In the first dimension if they were, and it still counts whole rows, or parts of them.
    of_row, of_each = tensor.numel() // max(tensor.share.rows, 1), result.numel() // max(result.shape[0], 1)
    return 0 if result.shape[0] and of_row % max(of_each, 1) == 0 else None


def _is_step_after_step(tensor: Part, result: torch.Tensor) -> bool:
    """Whether *result* has all rows of the first step ahead of all of the second: `y.T.reshape(-1)`."""
    is_alike = tensor.at == 1 and not tensor.share.steps  # time first of its own: each rank may have other steps
    return is_alike and result.dim() > 0 and result.shape[0] == tensor.shape[0] * tensor.shape[1]


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
    if JOINED in (mine, others):
        return _joined_product(name, first, second)
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


def _joined_product(name: str, first: torch.Tensor, second: torch.Tensor) -> int | None:
    if isinstance(first, Part) and isinstance(second, Part):
        raise _across()
    if name in ("cdist", "pdist"):
        return JOINED if isinstance(first, Part) else None
    is_over = isinstance(second, Part) or first.dim() == 1
    return PICKED if is_over else JOINED


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
    pairs = [(words, each) for words, each in zip(given.split(","), tensors, strict=True) if isinstance(each, Part)]
    found = {words[max(each.at, 0)] for words, each in pairs if each.at not in (None, PICKED)}
    if len(found) > 1:
        raise _across()
    if not found or not made:
        return None
    rows = found.pop()
    is_joined = any(each.at == JOINED for _, each in pairs)
    if rows not in made:
        return PICKED
    return (None if made.index(rows) else JOINED) if is_joined else made.index(rows)


def _across() -> RequestError:
    return RequestError(
        "the script compares the rows of a batch with each other (contrastive), and each rank has some of them only;"
        " run it on one device"
    )
