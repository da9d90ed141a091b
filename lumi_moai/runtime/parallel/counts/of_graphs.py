"""Batches of graphs: what they hold counts over all ranks, be it for each graph, each node or each edge.

Of nodes and edges a rank has as many as its graphs happen to have, so they are rows that each rank has picked: sums,
means and counts are of all of them. The numbers by which they name each other begin with 0 on each rank, though: they
pick and sort rows of this rank, and are nothing to count with.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ....errors import RequestError
from .names import ADDED, ARITHMETIC, AS_ONE, READS
from .picking import JOINS
from .places import PICKED, Part, as_rows
from .rows import picked_rows
from .size import Rows
from .whole import of_all

OWNERS = "batch"
"""The graph of each node, by its number."""
NUMBERS = "numbers"
"""Nodes by their numbers."""
ENDS = "edge_index"
"""The same for the edges, which are in the last dimension."""
STARTS = "ptr"
"""Where the nodes of each graph begin."""
SEVERAL = "several"
"""What `cat` made of several; the rows of the ranks are not in one device's order."""
HELD_ASIDE = (ENDS, STARTS)
"""What has no row for a node or a graph in its first dimension."""
_KEEPING = {
    *("to", "cpu", "cuda", "long", "int", "clone", "detach", "contiguous", "data", "view", "reshape", "unsqueeze"),
    *("expand", "expand_as", "squeeze", "flatten"),
}
_SORTING = {"index_add", "scatter_add", "scatter", "scatter_reduce", "index_reduce"}
_TURNS = {"t", "T", "mT", "transpose"}
_TAKING = {"iter", "unbind", "getitem"}
_SIZES = {"size", "shape", "numel"}
_READ = ADDED | AS_ONE | ARITHMETIC | READS | {"item"}
_COMPARING = {"eq", "ne", "lt", "le", "gt", "ge"}


def kind_of(tensor: Any) -> str:
    """What the numbers in *tensor* are, of a batch of graphs; nothing for any other."""
    return getattr(tensor, "graph", "")


def count(tensor: torch.Tensor) -> int:
    """How many nodes or edges *tensor* has."""
    return tensor.shape[-1 if kind_of(tensor) == ENDS else 0]


def are_picked(args: tuple) -> bool:
    """Whether *args* of a product of matrices are rows that each rank has picked, and a matrix that is none of them."""
    return len(args) > 1 and isinstance(args[0], Part) and args[0].at == PICKED and not isinstance(args[1], Part)


def told(name: str, parts: Sequence[Part], result: Part) -> Part:
    """*result*, which *name* made of *parts*; what `cat` has joined stays known for that."""
    is_joined = name in JOINS or any(each.graph == SEVERAL for each in parts)
    result.graph = SEVERAL if is_joined and result.at == PICKED else ""
    return result


def followed(name: str, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What the script gets for *func* of numbers of nodes or graphs; None where that is what it is for other rows.

    Raises RequestError where it would read the numbers themselves.
    """
    tensor = args[0] if args else None
    if isinstance(tensor, Part) and tensor.graph not in ("", SEVERAL):
        found = _of_numbers(name, tensor, func, args, kwargs)
        if found is not None:
            return found
        _check(name, tensor.graph, args)
    return sorted_by(name, func(*args, **kwargs), args, kwargs) if name in _SORTING else None


def _of_numbers(name: str, tensor: Part, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What *func* makes of *tensor*, which has numbers of nodes or graphs; None where nothing is known."""
    kind = tensor.graph
    if name in _KEEPING:
        return as_before(name, tensor, func(*args, **kwargs))
    if kind == ENDS:
        return _of_ends(name, tensor, func, args, kwargs)
    if kind == STARTS and name in _SIZES:
        return _starts(name, tensor, func(*args, **kwargs))
    if kind == OWNERS and name == "bincount":
        return _for_each(tensor, func(*args, **kwargs))
    if kind == OWNERS and name == "getitem" and isinstance(args[1], int) and args[1] == -1:
        return of_all(torch.full((), tensor.share.total - 1, dtype=tensor.dtype, device=tensor.device))
    return None


def as_before(name: str, tensor: Any, result: Any) -> Any:
    """*result*, which *name* made of *tensor*: the same numbers, if these are numbers of nodes or graphs."""
    is_whole = type(result) is torch.Tensor and isinstance(tensor, Part) and tensor.graph != ""
    if is_whole and name in _KEEPING and (result.shape == tensor.shape or tensor.at == PICKED):
        return _like(tensor, result)
    return result


def _of_ends(name: str, ends: Part, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What *func* makes of `edge_index`; None where nothing is known."""
    if name not in _TAKING | _SIZES | _TURNS:
        return None
    result = func(*args, **kwargs)
    if name in _SIZES:
        return _sized(ends, result, (*args[1:], *kwargs.values()))
    if name in ("iter", "unbind"):
        every = [_numbers(ends, each) for each in result]
        return iter(every) if name == "iter" else tuple(every)
    if name in _TURNS and ends.dim() == 2:
        return _numbers(ends, result)
    return _some_ends(ends, args[1], result) if name == "getitem" else None


def _some_ends(ends: Part, index: Any, result: torch.Tensor) -> torch.Tensor | None:
    """*result*, `edge_index[0]` or `edge_index[:, mask]`; None where it is another."""
    first = index[0] if isinstance(index, tuple) else index
    if isinstance(first, int) and result.dim() == 1:
        return _numbers(ends, result)
    is_whole = isinstance(first, slice) and first == slice(None)
    return _like(ends, result) if is_whole and isinstance(index, tuple) and torch.is_tensor(index[-1]) else None


def _like(tensor: Part, result: Any) -> Any:
    part: Any = as_rows(result, tensor, 0)
    part.at, part.graph = tensor.at, tensor.graph
    return part


def _sized(ends: Part, result: Any, dim: tuple) -> Any:
    """The size of `edge_index`, of its dimension *dim* or of all, of which the last counts over all ranks."""
    size = ends.shape[-1]
    whole = picked_rows(size, ends.share)
    if not isinstance(result, int):
        return torch.Size([*result[:-1], whole])
    if dim:
        return whole if dim[0] % ends.dim() == ends.dim() - 1 else result
    return whole * math.prod(ends.shape[:-1])


def _starts(name: str, starts: Part, result: Any) -> Any:
    """The size of `ptr`, which has one number more than there are graphs."""
    whole = Rows.of(starts.shape[0], starts.share.total + 1, starts.share, is_picked=True)
    return whole if name == "numel" or isinstance(result, int) else torch.Size([whole])


def _numbers(ends: Part, result: Any) -> Any:
    as_rows(result, ends, PICKED).graph = NUMBERS
    return result


def _for_each(owners: Part, result: torch.Tensor) -> torch.Tensor:
    """*result*, a number for each graph of this rank."""
    mine = max(owners.share.rows, 1)
    if len(result) < mine:  # the last graphs are empty
        result = torch.cat([result, result.new_zeros(mine - len(result))])
    return as_rows(result, owners, 0)


def sorted_by(name: str, result: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """*result* of a sum by graph or by node, `index_add_(0, batch, x)`: this rank's part as well."""
    index = next((each for each in (*args[1:], *kwargs.values()) if kind_of(each) in (OWNERS, NUMBERS)), None)
    if index is None or name not in _SORTING or type(result) is not torch.Tensor:
        return result
    if index.graph == NUMBERS:
        return as_rows(result, index, PICKED)
    return as_rows(result, index, 0) if len(result) == max(index.share.rows, 1) else result


def _check(name: str, kind: str, args: tuple) -> None:
    """Raise RequestError where *name* reads numbers of *kind*."""
    index = args[1] if name == "getitem" and len(args) > 1 else None
    first = index[0] if isinstance(index, tuple) and index else index
    is_by_place = isinstance(first, (int, slice)) and not isinstance(first, bool) and first != slice(None)
    is_among = name in _COMPARING and all(kind_of(each) == kind != STARTS for each in args)
    if is_among or not (name in _READ or is_by_place):
        return
    raise RequestError(
        f"the script reads {kind} of a batch of graphs ({name}), whose numbers count from the first node or graph of"
        " each rank; count with num_graphs, num_nodes and num_edges, hand it to the functions of the library, or run it"
        " on one device"
    )
