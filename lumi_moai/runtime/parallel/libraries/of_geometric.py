"""torch_geometric: what a batch of graphs says of itself counts the graphs, nodes and edges of all ranks."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from ....errors import RequestError
from ... import group
from ...late import after_import
from .. import counts, graphs
from ..counts import lists, users
from ..share import Share
from .around import around

if TYPE_CHECKING:
    from ..engine import Engine

_COUNTS = (
    ("torch_geometric.data.storage", ("NodeStorage", "EdgeStorage"), ("num_nodes", "num_edges")),
    ("torch_geometric.data.data", ("BaseData", "Data"), ("num_nodes", "num_edges")),
    ("torch_geometric.data.hetero_data", ("HeteroData",), ("num_nodes", "num_edges")),
)


def install(engine: Callable[[], "Engine | None"]) -> None:
    """Get ready for torch_geometric."""
    for module, kinds, names in _COUNTS:
        after_import(module, functools.partial(_teach, module, kinds, names))
    around("torch_geometric.data.data", "BaseData.apply", engine, _applied)
    around("torch_geometric.data.batch", "Batch.from_data_list", engine, _together)
    around("torch_geometric.data.batch", "Batch.to_data_list", engine, _apart)
    for name in ("get_example", "index_select", "__getitem__"):
        around("torch_geometric.data.batch", f"Batch.{name}", engine, _by_place)


def _applied(engine: "Engine", own: Callable[..., Any], batch: Any, *args: Any, **kwargs: Any) -> Any:
    """`batch.to(device)`, which makes all lists of a batch anew."""
    found, share = own(batch, *args, **kwargs), _share_of(batch)
    if share is not None and graphs.are_graphs(found):
        lists.note(found, share)
    return found


def _teach(module: str, kinds: tuple[str, ...], names: tuple[str, ...]) -> None:
    for kind in (getattr(sys.modules[module], each, None) for each in kinds):
        for name in names:
            own = vars(kind).get(name) if kind is not None else None
            if isinstance(own, property) and own.fget is not None:
                setattr(kind, name, property(_counted(own.fget), own.fset, own.fdel, own.__doc__))


def _counted(own: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """*own*, a number of nodes or edges, which for the script is that of all ranks too."""

    @functools.wraps(own)
    def number(batch: Any) -> Any:
        found = own(batch)
        share = _share_of(batch)
        if share is None or type(found) is not int or not users.asks(sys._getframe(1)):
            return found
        return counts.picked_rows(found, share)

    return number


def _share_of(batch: Any) -> Share | None:
    """How the *batch* of graphs was cut, or that of a store of it; None for a graph, and for a whole batch."""
    parent = vars(batch).get("_parent")
    batch = batch if parent is None else parent()
    return getattr(getattr(batch, "_num_graphs", None), "share", None)


def _together(engine: "Engine", own: Callable[..., Any], some: Any, *args: Any, **kwargs: Any) -> Any:
    """A batch that the script makes of a list of graphs that a loader gave: a part of the batch as that is."""
    found = own(some, *args, **kwargs)
    share = lists.share_of(some)
    if share is not None and engine.share is not None:
        counts.mark(found, share)
    return found


def _apart(engine: "Engine", own: Callable[..., Any], batch: Any, *args: Any, **kwargs: Any) -> Any:
    """The graphs of a batch: those of all ranks once the script is done with its loss, as a list of rows is."""
    found, share = own(batch, *args, **kwargs), _share_of(batch)
    if share is None or not users.asks(sys._getframe(2)):
        return found
    if not share.went_back:
        lists.note(found, share)
        return found
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, found if share.rows else [], group=group.data_group())
    return [graph for each in every for graph in each]


def _by_place(engine: "Engine", own: Callable[..., Any], batch: Any, index: Any) -> Any:
    """Raise RequestError where the script takes graphs by their place, which count from the first of this rank."""
    first = index[0] if isinstance(index, tuple) and index else index
    if not isinstance(first, str) and _share_of(batch) is not None and users.asks(sys._getframe(2)):
        raise RequestError(
            "the script takes graphs of a batch by their place, of which each rank has some only; take them from"
            " loader.dataset, or all of them by to_data_list()"
        )
    return own(batch, index)
