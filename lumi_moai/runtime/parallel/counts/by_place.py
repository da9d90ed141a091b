"""Rows that the script takes by their place: `x[4:]`, `x[n // 2:]`, `out.chunk(2)`, `out[0]`.

Places count among the rows of the whole batch, as on one device. Only these rows travel, and all ranks have them then.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ....errors import RequestError
from ... import group
from ..share import Share, bounds
from . import of_graphs, pieces, rows
from .felt import felt_by_all
from .places import JOINED, MANY, PICKED, Part, times
from .ranged import Computed, OfWhole, Own, Places
from .size import Rows, of_all_ranks
from .whole import OfAll, of_all

PIECES = {"chunk": "chunks", "split": "split_size", "tensor_split": "indices_or_sections"}
"""What takes a tensor apart by place, and how its second argument is called."""
TAKES = {"getitem", "index_select", "gather"}
"""What takes some rows; the numbers are the second argument of the first, else the third, after the dimension."""


def taken(name: str, func: Any, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Rows of the whole batch, `tensor[4:]`, alike on all ranks; None if *func* is asked for something else."""
    if name != "getitem":
        return _selected(func, args, kwargs)
    tensor, index = args[0], args[1]
    first, *rest = index if isinstance(index, tuple) and index else (index,)
    if not has_places(tensor):
        return _of_many(tensor, first, rest) if isinstance(tensor, Part) and tensor.at in MANY else None
    if are_places(first):
        return _every(tensor)[(numbers(first), *rest)]
    if isinstance(first, slice):
        wanted = _sliced(first, tensor)
        return None if wanted is None else _some(tensor, wanted)[(slice(None), *rest)]
    if isinstance(first, int) and not isinstance(first, (bool, Own)):
        wanted = _single(first, tensor)
        return None if wanted is None else _some(tensor, wanted)[(0, *rest)]
    return None


def _of_many(tensor: Part, first: Any, rest: list[Any]) -> torch.Tensor | None:
    """Rows by their place among those that the ranks have picked, or that were joined."""
    return (_of_picked if tensor.at == PICKED else _of_joined)(tensor, first, rest)


def _of_picked(tensor: Part, first: Any, rest: list[Any]) -> torch.Tensor | None:
    """Rows by their place among those that the ranks have picked; None where all of them are meant, or this rank's.

    Raises RequestError for what `cat` made of several.
    """
    if not _is_place(first) or _are_of_one(tensor, first):
        return None
    if tensor.graph:
        what = (
            "rows of several batches" if tensor.graph == of_graphs.SEVERAL else f"{tensor.graph} of a batch of graphs"
        )
        raise RequestError(
            f"the script takes rows by their place out of {what}, and these have others on each rank; take them before"
            " they are joined, or run it on one device"
        )
    return wholly(tensor)[(_of_whole(first), *rest)]


def _are_of_one(tensor: Part, first: Any) -> bool:
    """Whether *first* is a slice by numbers of rows, which takes one batch's rows out of those of several."""
    ends = [first.start, first.stop, first.step] if isinstance(first, slice) else [first]
    given = [each for each in ends if each is not None]
    is_joined = tensor.graph == of_graphs.SEVERAL
    return all(isinstance(each, Rows) and (is_joined or not each.is_picked) for each in given)


def _is_place(first: Any) -> bool:
    """Whether *first* is a place, or a slice, of the whole batch and no seam, whose ends are this rank's by now."""
    if isinstance(first, slice):
        ends = (first.start, first.stop, first.step)
        are_numbers = all(each is None or isinstance(each, (int, Rows)) for each in ends)
        return are_numbers and not any(isinstance(each, Own) for each in ends) and first != slice(None)
    return isinstance(first, int) and not isinstance(first, (bool, Own))


def _of_joined(tensor: Part, first: Any, rest: list[Any]) -> torch.Tensor | None:
    is_whole = are_places(first) or _is_place(first)
    return wholly(tensor)[(_of_whole(first), *rest)] if is_whole else None


def _of_whole(first: Any) -> Any:
    """The slice *first*, whose numbers of rows are those of all ranks; any other index as it is."""
    if not isinstance(first, slice):
        return numbers(first) if are_places(first) else first
    return slice(*(each.whole if isinstance(each, Rows) else each for each in (first.start, first.stop, first.step)))


def _selected(func: Any, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What *func* takes by numbers of rows that all ranks have, those of `topk` or `argsort`; None by others."""
    dim, index = (args[1] if len(args) > 1 else kwargs.get("dim")), args[2] if len(args) > 2 else kwargs.get("index")
    if not args or not has_places(args[0]) or not isinstance(dim, int) or dim % args[0].dim() or not are_places(index):
        return None
    return func(_every(args[0]), dim, index)


def numbers(places: Any) -> torch.Tensor:
    """*places* in the whole batch, as a tensor."""
    return places if isinstance(places, torch.Tensor) else torch.as_tensor(np.asarray(places))


def are_places(index: Any) -> bool:
    """Whether *index* has places among the rows of the whole batch."""
    if type(index) is list:
        return bool(index) and all(type(each) is OfWhole for each in index)
    if isinstance(index, Places):
        return index.ndim > 0
    return type(index) is OfAll and not index.dtype.is_floating_point and index.dtype != torch.bool


def _every(tensor: Part) -> torch.Tensor:
    return _some(tensor, range(_all(tensor)))


def apart(name: str, func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...] | None:
    """What *func*, called *name*, makes of the rows of the whole batch; None if it takes them apart otherwise."""
    tensor = args[0]
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    is_joined = isinstance(tensor, Part) and tensor.at == JOINED
    if name not in PIECES or not (is_joined or has_places(tensor)) or dim % tensor.dim():
        return None
    given = [kwargs[each] for each in kwargs if each.startswith(PIECES[name])]
    size = args[1] if len(args) > 1 else given[0]
    if is_joined and _at_seams(name, size, tensor):
        return None
    whole = wholly(tensor) if is_joined else _some(tensor, range(_all(tensor)))
    return tuple(pieces.note(of_all(part), tensor) for part in func(whole, _all_of(size)))


def _at_seams(name: str, size: Any, tensor: Part) -> bool:
    if name == "chunk":
        return isinstance(size, int) and times(tensor) % size == 0
    return name == "split" and isinstance(size, Rows) and size.whole % tensor.share.total == 0


def _all_of(size: Any) -> Any:
    """*size* of a piece, or the sizes of pieces, of which a number of rows is the whole batch's."""
    if isinstance(size, (tuple, list)):
        return [_all_of(each) for each in size]
    return size.whole if isinstance(size, Rows) else size


def together(args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """What `cat` makes of rows that all ranks have and rows of the batch: all of them, on all ranks; else None."""
    parts = args[0] if args else kwargs["tensors"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    rows = [each for each in parts if isinstance(each, Part)]
    if dim != 0 or not all(map(has_places, rows)):
        return None
    # A table of the script's own that grows; what a loss joins with its rows may be this rank's, and has a gradient.
    grows = not any(each.requires_grad for each in parts) and len(rows) < len(parts)
    if not grows and not any(type(each) is OfAll for each in parts):
        return None
    return torch.cat([_some(each, range(_all(each))) if isinstance(each, Part) else each for each in parts])


def wholly(tensor: Part) -> torch.Tensor:
    """*tensor* with the rows of all ranks, alike on all of them, with its gradient.

    Raises RequestError where it is not known which of its dimension the rows are.
    """
    if tensor.at is None:
        raise RequestError(
            "a function that measures a batch was given a part of it, and which rows these are cannot be told; give it"
            " a tensor whose first dimension are the rows"
        )
    with torch._C.DisableTorchFunctionSubclass():
        return of_all(felt_by_all(rows.whole(tensor), tensor.share))


_ADDS = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "add_", "sub_", "mul_", "div_")
_FILLS = {"__setitem__": 2, "copy_": 1, **dict.fromkeys(_ADDS, 1)}
"""What writes into a tensor, and where among its arguments the numbers are."""


def fills(func: Any, args: tuple) -> bool:
    """Whether *func* writes into what is none of a batch's: `queue[:n] = keys`, `queue[:n] += keys`."""
    name = getattr(func, "__name__", "")
    if name not in _FILLS or len(args) <= _FILLS[name] or isinstance(args[0], Part):
        return False
    # What is added to by itself, `logits += model(x)`, is rows of the batch from then on.
    is_kept = args[0]._is_view() and not getattr(args[1], "requires_grad", False)
    return name not in _ADDS or is_kept


def filled(func: Any, args: tuple) -> tuple:
    """*args* of a write of a batch's rows into what is none of the batch, a queue or a table: of all rows.

    A queue has room for as many as the whole batch (`queue[at : at + n]`), a table an entry for each row that it knows
    by number (`table[index]`); all ranks have both.
    """
    target, value = args[0], args[_FILLS[func.__name__]]
    is_placed = func.__name__ == "__setitem__"
    index: Any = of_all_ranks(args[1]) if is_placed else None
    by_number = has_places(index) and not index.dtype.is_floating_point and index.dtype != torch.bool
    if by_number and not _is_of_a_rank(target, index.share):
        index = rows.gathered(index, index.share)
    elif not _has_rows(value) or not _has_room(target[index] if is_placed else target, value):
        return (target, index, value) if is_placed else args
    value = rows.whole(value) if _has_rows(value) else value
    return (target, index, value) if is_placed else (target, value, *args[2:])


def _is_of_a_rank(target: torch.Tensor, share: Share) -> bool:
    """Whether *target* may have been made for a rank's rows; all ranks find the same, whichever have one more."""
    return len(target) in {max(share.total // share.ranks, 1), -(-share.total // share.ranks)}


def _has_rows(value: Any) -> bool:
    """Whether *value* has rows of a batch in one of its dimensions, such as `keys.T` for a queue of columns."""
    return has_places(value) or (isinstance(value, Part) and value.at not in (None, PICKED) and rows.can_travel(value))


def _has_room(place: torch.Tensor, value: Part) -> bool:
    at, share = max(value.at or 0, 0), value.share
    mine = value.shape[at]
    every = mine // max(share.rows, 1) * share.total
    return place.dim() == value.dim() and place.shape[at] == every != mine


def has_places(tensor: Any) -> bool:
    """Whether the rows of *tensor* are those of a batch, in order."""
    return isinstance(tensor, Part) and tensor.at == 0 and tensor.share.ranks > 1


def _all(tensor: Part) -> int:
    return len(tensor) // max(tensor.share.rows, 1) * tensor.share.total


def _sliced(wanted: slice, tensor: Part) -> range | None:
    """The places of *wanted* among all rows; None where the slice is of this rank's, or is all of them."""
    words = (wanted.start, wanted.stop, wanted.step)
    if not all(isinstance(each, (int, Rows, type(None))) for each in words) or _is_own(wanted.stop, tensor):
        return None
    if any(isinstance(each, Own) for each in words) and not _may_be_own(wanted.stop, tensor):
        return None
    start, stop, step = (each.whole if isinstance(each, Rows) else each for each in words)
    found = range(*slice(start, stop, step).indices(_all(tensor)))
    return None if len(found) == _all(tensor) else found


def _single(wanted: int, tensor: Part) -> range | None:
    """The place of row *wanted*; None where it is this rank's.

    Raises RequestError for one that the script computed while it went through the rows of this rank.
    """
    if isinstance(wanted, Computed):
        raise RequestError(
            "the script goes through a batch row by row and takes other rows by a remainder of the place, x[i % n],"
            " which may be another rank's; make rows = x[:n] ahead, which all ranks have, and take rows[i % n], or run"
            " it on one device"
        )
    if isinstance(wanted, Own) or (wanted == 0 and not isinstance(wanted, OfWhole) and not tensor.is_floating_point()):
        return None  # a collate function that sorts by length has the longest of a rank's rows in front
    place = wanted + _all(tensor) if wanted < 0 else wanted
    if not 0 <= place < _all(tensor):
        raise IndexError(f"index {wanted} is out of bounds for dimension 0 with size {_all(tensor)}")
    return range(place, place + 1)


def _is_own(stop: Any, tensor: Part) -> bool:
    """Whether *stop* is this rank's number of rows, and of no other's, where some ranks have a row more."""
    return _may_be_own(stop, tensor) and len(set(rows.lengths(stop))) > 1


def _may_be_own(stop: Any, tensor: Part) -> bool:
    """Whether the ranks have to ask each other; all find the same."""
    share = tensor.share
    least, rest = divmod(share.total, share.ranks)
    each = len(tensor) // max(share.rows, 1)
    return bool(rest) and isinstance(stop, int) and stop in (max(least, 1) * each, (least + 1) * each)


def places_of(tensor: Part, first: Any) -> tuple[range, int, int, int] | None:
    """The places that *first* means in the whole batch, and what `_bounds` says of them; None if it means others."""
    if isinstance(first, slice):
        wanted = _sliced(first, tensor)
    elif isinstance(first, int) and not isinstance(first, (bool, Own)):
        wanted = _single(OfWhole(first), tensor)
    else:
        return None
    return None if wanted is None else (wanted, *_bounds(tensor, wanted))


def _bounds(tensor: Part, wanted: range) -> tuple[int, int, int]:
    """The first row of *tensor* among all, and from where to where the rows at the places *wanted* are this rank's."""
    share = tensor.share
    each = len(tensor) // max(share.rows, 1)
    start, end, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    low, high = start * each, (end if share.rows else start) * each
    before, until = (len(range(wanted.start, min(edge, wanted.stop), wanted.step)) for edge in (low, high))
    return low, before, until


def _some(tensor: Part, wanted: range) -> torch.Tensor:
    """The rows at the places *wanted*, in their order, on every rank."""
    low, before, until = _bounds(tensor, wanted)
    inside = wanted[before:until]
    with torch._C.DisableTorchFunctionSubclass():
        own = tensor.as_subclass(torch.Tensor)
        own = own[inside.start - low : inside.stop - low : inside.step] if inside else own[:0]
        found = felt_by_all(rows.gathered(own, tensor.share), tensor.share)
        return of_all(found.clone() if found.requires_grad else found)  # which the script may write into
