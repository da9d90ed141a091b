"""Rows of a batch that a script takes in pieces and puts together again: `cat([net(x[:4]), net(x[4:])])`.

All ranks have all of them. Where they meet rows of which each rank has its part, in what goes along the rows and is no
product, they are this rank's part as well.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.utils._pytree import tree_leaves, tree_map

from ... import group
from ..share import bounds
from .felt import felt_by_all
from .names import PAIRED
from .places import Part, as_rows
from .ranged import Own

JOINS = {"cat", "concat", "concatenate"}
_BESIDE = {"getitem", "gather", "take_along_dim", "stack", "hstack", "column_stack", "dstack"} | JOINS | PAIRED
"""What puts row beside row."""


def source_of(tensor: Any) -> Part | None:
    """The rows of a batch of which *tensor* has some, by their place."""
    return getattr(tensor, "taken_from", None) if isinstance(tensor, torch.Tensor) and tensor.dim() else None


def note(result: Any, source: Part | None) -> Any:
    """*result*, which has rows of *source* that all ranks have."""
    if source is not None and isinstance(result, torch.Tensor) and result.dim():
        result.taken_from = source
    return result


def pass_on(name: str, args: tuple, result: Any) -> None:
    """What *name* has made of *args*, if it has their rows, has the same."""
    given = [each for each in tree_leaves(args) if isinstance(each, torch.Tensor)]
    sources = [source_of(each) for each in given]
    if name in JOINS:
        shares = {id(each.share) if each is not None else None for each in sources}
        note(result, sources[0] if len(shares) == 1 else None)
        return
    for tensor, source in zip(given, sources, strict=True):
        for each in tree_leaves(result) if source is not None else ():
            if isinstance(each, torch.Tensor) and each.dim() and len(each) == len(tensor):
                note(each, source)


def beside(name: str, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """*args* of *name*, some of which are parts of a batch, with this rank's rows of what has all of them."""
    if name not in _BESIDE or (name in JOINS and not _dim(args, kwargs)):
        return args, kwargs
    if name == "getitem":
        return (_own(args[0]) if _goes_along(args[1]) else args[0], *args[1:]), kwargs
    return tree_map(_own, (args, kwargs))


def own_row(args: tuple) -> Any:
    """What the place of a row of this rank's takes out of what has all of a batch's; None for other places."""
    tensor, index = args
    first = index[0] if isinstance(index, tuple) and index else index
    own = _own(tensor) if isinstance(first, Own) else tensor
    return None if own is tensor else own[index]


def _dim(args: tuple, kwargs: dict[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))


def _goes_along(index: Any) -> bool:
    """Whether *index* has something for each row: a mask, or labels beside the rows' own numbers."""
    first = index[0] if isinstance(index, tuple) and index else index
    if isinstance(first, Own):  # in a loop over this rank's rows
        return True
    if isinstance(first, Part):
        return first.dtype == torch.bool
    return isinstance(index, tuple) and isinstance(first, torch.Tensor) and first.dim() > 0


def _own(tensor: Any) -> Any:
    """This rank's rows of *tensor*, if it has all of a batch's."""
    source = source_of(tensor)
    if source is None or isinstance(tensor, Part):
        return tensor
    share, mine = source.share, max(source.share.rows, 1)
    each, rest = divmod(len(source), mine)
    if rest or len(tensor) != each * share.total or share.total == mine:
        return tensor
    start, end, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    with torch._C.DisableTorchFunctionSubclass():
        felt = felt_by_all(tensor.as_subclass(torch.Tensor), share)
        return as_rows(felt.narrow(0, start * each, (end - start) * each), source, 0)
