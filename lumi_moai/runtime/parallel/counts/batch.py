"""The tensors of a batch of which each rank has its rows, and what the script makes of them."""

import functools
import math
import re
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from ....errors import RequestError
from ..share import Share
from . import (
    by_place,
    constants,
    helped,
    logged,
    of_graphs,
    picking,
    pieces,
    reducing,
    rows,
    said,
    states,
    steps,
    users,
    writing,
)
from .felt import felt_by_all
from .names import ADDED, AS_ONE, CROSSED, EACH, LIKE, PAIRED, PRODUCTS, READS, SORTED_IN, VIEW
from .places import FIRST, PICKED, Part, after_each, after_einsum, after_product, after_view, check_alike, squeezed
from .size import Rows, Shape
from .users import Asker
from .whole import OfAll, OfModel, copied, counted, kinds, name_of, note_written, of_all

_GRAPH = re.compile(r", (?:grad_fn=<\w+>|requires_grad=True)\)$")
"""What torch shows of a tensor behind its numbers."""


class OfBatch(Part):
    """A tensor whose elements are this rank's part of what one device would have."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Do *func*; what the script does with it alone is followed, libraries and models get plain tensors."""
        types = kinds(func, types, args)
        if any(each not in _OURS for each in types):
            return NotImplemented  # the other class decides, and comes back without itself
        kwargs = kwargs or {}
        asks = users.asker(sys._getframe(1))
        is_scripts = asks is Asker.script or (asks is Asker.notation and name_of(func) in ADDED | AS_ONE)
        if not is_scripts or (len(types) == 1 and func is _GRAD_FN):
            with torch._C.DisableTorchFunctionSubclass():
                result = func(*args, **kwargs)
                helps = asks in (Asker.helper, Asker.notation)
                return helped.passed_on(name_of(func), args, kwargs, result) if helps else result
        if OfModel in types:  # beside rows it is a number like any other
            args, kwargs = tree_map(lambda leaf: plain(leaf) if type(leaf) is OfModel else leaf, (args, kwargs))
        if OfAll in types:
            args, kwargs = pieces.beside(name_of(func), args, kwargs)
        parts = _parts(args) or _parts(tree_leaves((args, kwargs)))
        args, kwargs = counted(func, args, kwargs)
        if OfAll in types:
            args = tuple(felt_by_all(each, parts[0].share) if type(each) is OfAll else each for each in args)
        result = _followed(func, parts, args, kwargs)
        if args and (write := getattr(args[0], "write_back", None)) is not None:
            note_written(func, args[0], write, result)
        return result

    def rows_along(self, dim: int) -> int | Rows:
        """The size of dimension *dim*."""
        with torch._C.DisableTorchFunctionSubclass():
            return _rows(self, self.dim(), dim, self.size(dim))

    def __format__(self, spec: str) -> str:
        # Torch's takes its own class only.
        return plain(self).__format__(spec) if spec or not self.dim() else repr(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return become(copied(self, memo), self.share, self.at)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        # A library may show it on one rank only.
        frame = sys._getframe(1)
        frame = frame.f_back if frame.f_code.co_name == "__format__" and frame.f_back is not None else frame
        if not users.is_scripts(frame) or not _is_kept(self):
            return plain(self).__repr__(tensor_contents=tensor_contents)
        with torch._C.DisableTorchFunctionSubclass():
            text, own = repr(rows.whole(self).detach()), _GRAPH.search(plain(self).__repr__())
        return text[:-1] + own[0] if own else text


_NOT_OF_ALL = ADDED | EACH | VIEW | AS_ONE | PRODUCTS | picking.MIXES | {"getitem", "einsum", "select", "grad"}
_OURS = (OfBatch, OfAll, OfModel, torch.Tensor, torch.nn.Parameter)
_MOVES = {"to", "cpu", "cuda", "long", "int"}
"""What leaves the numbers of a table what they are, such as those of an order."""
_GRAD_FN = torch.Tensor.grad_fn.__get__
KINDS = (torch.Tensor, OfBatch, OfAll)
"""The classes of a plain tensor."""


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """*tensor* without its class; the same numbers."""
    return tensor.as_subclass(torch.Tensor)


def are_of_all(arguments: Any) -> bool:
    """Whether *arguments* have rows that all ranks have, and none of which each has its part."""
    leaves = [leaf for leaf in tree_leaves(arguments) if type(leaf) in (OfBatch, OfAll)]
    return any(leaf.dim() for leaf in leaves) and not any(type(leaf) is OfBatch for leaf in leaves)


def are_picked(words: Any) -> bool:
    """Whether some of *words* are rows that each rank has picked."""
    return any(each.at == PICKED for each in _parts(words))


def like_rows(result: Any, words: Any) -> Any:
    """*result*, one number for each row of some of *words*, as a part of their batch."""
    aside = steps.like([*_parts(words)], result) if type(result) is torch.Tensor and result.dim() else None
    if aside is not None:
        return become(result, aside.share, aside.at)
    for part in _parts(words):
        is_as_long = type(result) is torch.Tensor and result.dim() > 0 and result.shape[:1] == part.shape[:1]
        if is_as_long and part.at in (*FIRST, PICKED) and part.graph not in of_graphs.HELD_ASIDE:
            return become(result, part.share, part.at)
    return result


def part_of(result: torch.Tensor, tensor: torch.Tensor, at: int | None) -> torch.Tensor:
    """*result* as a part of the batch of *tensor*, if that is one, with its rows in the dimension *at*."""
    return become(result, tensor.share, at) if type(tensor) is OfBatch else result


def rows_like(size: Any, result: torch.Tensor) -> torch.Tensor:
    """*result*, of as many rows as *size* says, as a part of the batch that it is a number of rows of."""
    share = size.share if isinstance(size, Rows) else None
    # By the numbers of all ranks: this one's may be a multiple of its rows by chance.
    if share is not None and type(result) is torch.Tensor and (size.is_picked or size.whole % share.total == 0):
        rows.ask_gradient(become(result, share, PICKED if size.is_picked else 0))
    return result


def share_of(words: Any) -> Share | None:
    """How the batch was cut that some of *words* are parts of."""
    return next((part.share for part in _parts(words)), None)


def whole(value: Any) -> Any:
    """*value*, a container or a tensor, with the rows of all ranks in the place of this rank's; all come together."""
    return tree_map(_gathered, value) if any(map(_can_travel, tree_leaves(value))) else value


def _can_travel(leaf: Any) -> bool:
    return type(leaf) is OfBatch and rows.can_travel(leaf)


def _gathered(leaf: Any) -> Any:
    with torch.no_grad():
        return rows.whole(leaf) if _can_travel(leaf) else leaf


def keeping(own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, which makes a `Variable` of a tensor, as one of the same class."""

    @functools.wraps(own)
    def new(kind: type, *args: Any, **kwargs: Any) -> Any:
        made, of = own(kind, *args, **kwargs), args[0] if args else kwargs.get("data")
        if type(of) is OfBatch:
            return become(made, of.share, of.at)
        return of_all(made) if type(of) is OfAll else made

    return new


def refusing(own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, which makes a `Parameter` of a tensor, and of rows none."""

    @functools.wraps(own)
    def new(kind: type, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        if type(data) is OfBatch:
            raise RequestError(
                "nn.Parameter of a batch's rows would be another weight on each rank; make it of a tensor for all rows"
                " of the data, or take x.clone().requires_grad_(), whose gradient is that of one device"
            )
        return own(kind, plain(data) if type(data) is OfAll else data, *args, **kwargs)

    return new


def has(part: Any, dim: int, rows: int) -> bool:
    """Whether *part* is a plain tensor whose dimension *dim* has as many as *rows*."""
    return type(part) is torch.Tensor and part.dim() > dim and part.shape[dim] == rows


def fitting(first: Any, second: Any) -> tuple[Any, Any]:
    """Both, of which one is a part of a batch and the other may have the rows of all of it: of that, this rank's."""
    if type(first) is OfBatch and first.at == 0 and type(second) in (torch.Tensor, OfAll):
        return first, constants.rows_of(second, 0, first)
    if type(second) is OfBatch and second.at == 0 and type(first) in (torch.Tensor, OfAll):
        return constants.rows_of(first, 0, second), second
    return first, second


def become(tensor: Any, share: Share, at: int | None) -> Any:
    """*tensor*, from now on a part of the batch that was cut as *share* says, with its rows in the dimension *at*."""
    tensor.__class__ = OfBatch
    tensor.share, tensor.at = share, at
    return tensor


def _parts(args: Any) -> list[OfBatch]:
    return [each for each in args if type(each) is OfBatch]


def _rows(tensor: OfBatch, dims: int, dim: int, size: int) -> int | Rows:
    share, mine = tensor.share, max(tensor.share.rows, 1)
    if tensor.at == PICKED and dim % dims == 0:
        return rows.picked_rows(size, share)
    if tensor.at is None or dim % dims != max(tensor.at, 0) or size % mine:
        return size
    return Rows.of(size, size // mine * share.total, share)


def _followed(func: Any, parts: list[OfBatch], args: tuple, kwargs: dict[str, Any]) -> Any:
    """What the script gets for *func*, which it calls with *parts* of a batch among *args* and *kwargs*."""
    name, tensor = name_of(func), parts[0]
    steps.check(name, args[0] if args else None, args)
    fills = by_place.fills(func, args)
    args = args if fills else constants.of_rank(name, tensor, args, (torch.Tensor, OfAll))
    with torch._C.DisableTorchFunctionSubclass():
        if any(each.graph for each in parts) and (found := of_graphs.followed(name, func, args, kwargs)) is not None:
            return found
        args = by_place.filled(func, args) if fills else args
        if name == "setitem" and args[0] is tensor:
            args = (tensor, *writing.placed(tensor, *args[1:]))
        args = squeezed(tensor, args, kwargs) if name == "squeeze" else args
        whole = _of_all_rows(name, func, tensor, args, kwargs)
        if whole is not None:
            return whole
        result = func(*args, **kwargs)
        if name in ("size", "shape", "numel"):
            return _sized(name, tensor, result, args, kwargs)
        if _is_one_of_unknown(name, tensor, result):
            return _as_one(name, func, tensor, args, kwargs)
        made = _result(name, parts, result, args, kwargs)
        if tensor.of_table is not None and name in _MOVES and type(made) is OfBatch:
            made.of_table = func(tensor.of_table, *args[1:], **kwargs)
        rows.ask_gradient(made if type(made) is OfBatch else tensor)
        return made


def _is_one_of_unknown(name: str, tensor: OfBatch, result: Any) -> bool:
    """Whether *result* is a single number that *name*, of which nothing is known, made of all of *tensor*: `dot`."""
    is_number = type(result) is torch.Tensor and result.dim() == 0 and tensor.at is not None
    return is_number and name not in _NOT_OF_ALL and tensor.dim() > 0


def _of_all_rows(name: str, func: Any, tensor: OfBatch, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What *func* gives for the rows of all ranks, if it needs them; else None."""
    if name in by_place.TAKES:
        return _taken(name, func, tensor, args, kwargs)
    if name in SORTED_IN:
        return reducing.sorted_in(name, func, args, kwargs)
    if name in by_place.PIECES:
        return by_place.apart(name, func, args, kwargs)
    if name in READS:
        steps.check_read(name, tensor)
    is_of_rows = name in READS and (name != "unbind" or (tensor.at == 0 and args[1:] in ((), (0,))))
    gives_places = name in picking.PLACES or (name == "where" and len(args) == 1 and not kwargs)
    is_kept = (is_of_rows or (name in READS and name != "unbind")) and _is_kept(tensor)
    if is_kept or ((name in READS or gives_places) and rows.is_read_whole(tensor)):
        found = rows.whole(tensor)
        found = func(found if is_kept and name == "unbind" else found.detach(), *args[1:], **kwargs)
        return tree_map(of_all, found) if gives_places else found
    if is_of_rows and tensor.at == 0 and not tensor.share.went_back and (name != "tolist" or logged.in_loop()):
        said.say(*said.READ[name])
    if name in AS_ONE and reducing.goes_over_rows(name, tensor, args, kwargs):
        return _as_one(name, func, tensor, args, kwargs)
    return of_all(_joined(name, args, kwargs)) if name in (*picking.JOINS, "hstack") else None


def _is_kept(tensor: OfBatch) -> bool:
    """Whether the script reads all rows of *tensor* for what it keeps or prints, ahead of its backward."""
    return tensor.dim() > 0 and tensor.at in (0, PICKED) and rows.can_travel(tensor) and logged.is_for_log()


def _taken(name: str, func: Any, tensor: OfBatch, args: tuple, kwargs: dict[str, Any]) -> Any:
    found = picking.reordered(args) if name == "getitem" else None
    if found is not None:
        return become(found, tensor.share, 0)
    taken = of_all(by_place.taken(name, func, args, kwargs))
    if name == "getitem" and isinstance(args[1][0] if type(args[1]) is tuple and args[1] else args[1], slice):
        pieces.note(taken, tensor)
    return taken if taken is None or name != "getitem" else writing.noted(taken, *args)


def _joined(name: str, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    parts = args[0] if args else kwargs["tensors"]
    if name in ("vstack", "hstack") and any(each.dim() < 2 for each in parts) != (name == "hstack"):
        return None  # which makes rows of them, or puts them side by side
    kept = rows.joined(args, kwargs)
    return by_place.together(args, kwargs) if kept is None else kept


def _result(name: str, parts: list[OfBatch], result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    tensor = parts[0]
    if isinstance(result, (tuple, list)):
        for place, each in enumerate(result):
            if place and name in states.LAYERS:
                become(each, tensor.share, 1)
            else:
                _place(name, parts, each, args, kwargs)
        return result
    if type(result) is not torch.Tensor or any(result is each for each in args):  # a ghost; what is added to in place
        return result
    if name in ADDED:
        found, at = reducing.added(name, tensor, result, args, kwargs)
        is_flat = at is None is tensor.at and found.shape[:1] == tensor.shape[:1]
        if at is reducing.ALL:
            return of_all(found)
        return become(found, tensor.share, at) if at is not None or is_flat else found
    return _place(name, parts, result, args, kwargs)


def _place(name: str, parts: list[OfBatch], result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """*result* as a part of the batch, if it has its rows."""
    tensor = parts[0]
    if type(result) is not torch.Tensor or result.dim() == 0:
        return result
    if name in PRODUCTS and of_graphs.are_picked(args):
        return become(result, tensor.share, PICKED)
    if name in PRODUCTS or name == "einsum":
        at = after_product(name, args) if name != "einsum" else after_einsum(args)
        return of_all(reducing.total(tensor.share, result)) if at == PICKED else become(result, tensor.share, at)
    is_part, at = _where(name, parts, result, args, kwargs)
    return of_graphs.told(name, parts, become(result, tensor.share, at)) if is_part else result


def _where(
    name: str, parts: list[OfBatch], result: torch.Tensor, args: tuple, kwargs: dict[str, Any]
) -> tuple[bool, int | None]:
    """Whether *result* is a part of the batch, and in which dimension its rows are."""
    tensor = parts[0]
    if name == "getitem":
        return picking.taken(args, tensor, result)
    if name in EACH:
        return True, after_each(parts, result)
    if name in VIEW:
        like = parts[1:] if name in LIKE else []
        return True, like[0].at if like else after_view(name, tensor, result, args, kwargs)
    if name in PAIRED or name in CROSSED:
        check_alike(parts, is_crossed=name in CROSSED)
    if name in picking.PICKS:
        return True, PICKED if tensor.at in (0, PICKED) else None
    is_kept = name in AS_ONE and steps.is_aside(tensor.at)
    at = (reducing.kept if is_kept else picking.aside)(name, parts, result, args, kwargs)
    return picking.left(name, parts, result, args, kwargs) if at is None else (True, at)


def _as_one(name: str, func: Any, tensor: OfBatch, args: tuple, kwargs: dict[str, Any]) -> Any:
    """*func* of the rows of all ranks."""
    result, is_kept = reducing.as_one(name, func, tensor, args, kwargs)
    return become(result, tensor.share, tensor.at) if is_kept else result


def _sized(name: str, tensor: OfBatch, result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    dims = tensor.dim()
    if name == "numel":
        if tensor.at == PICKED and dims > 1:
            return _rows(tensor, 1, 0, len(tensor)) * math.prod(tensor.shape[1:])
        if tensor.at in (*FIRST, PICKED):
            return _rows(tensor, 1, 0, result)
        if tensor.at is None or tensor.at >= dims or not result:
            return result
        along = tensor.shape[tensor.at]
        return _rows(tensor, dims, tensor.at, along) * (result // along)
    if isinstance(result, int):
        return _rows(tensor, dims, args[1] if len(args) > 1 else kwargs["dim"], result)
    return Shape(_rows(tensor, dims, dim, size) for dim, size in enumerate(result))
