"""Batches of graphs, as torch_geometric makes them: the nodes of all graphs one below the other, and so the edges.

They are known by what they can do, not by their class, which is made anew for each kind of graph and may not be there.
A row of such a batch is a graph. What it holds has a row for each graph (`y`), or one for each node or edge.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Held:
    """A tensor that a batch of graphs holds."""

    path: Path
    tensor: torch.Tensor
    slices: Any = None
    """Where the part of each graph begins, and the end; None for what the batch itself adds."""

    @property
    def name(self) -> str:
        """That of the attribute."""
        return self.path[-1]

    @property
    def end(self) -> int:
        """How many nodes, edges or other rows there are; -1 where that is not known."""
        is_known = isinstance(self.slices, torch.Tensor) and self.slices.dim() == 1 and len(self.slices) > 0
        return int(self.slices[-1].numpy()) if is_known else -1

    @property
    def has_graphs(self) -> bool:
        """Whether there is one row for each graph, here at least: a rank may have graphs of one node only."""
        steps = self.slices if isinstance(self.slices, torch.Tensor) and self.slices.dim() == 1 else None
        if steps is None or len(steps) < 2 or self.tensor.dim() == 0 or len(self.tensor) != len(steps) - 1:
            return False
        return self.end == len(steps) - 1 and steps.numpy().tolist() == list(range(len(steps)))

    @property
    def is_lying(self) -> bool:
        """Whether the nodes or edges are in the last dimension, as those of `edge_index` are."""
        if self.end < 0 or self.tensor.dim() < 2:
            return False
        is_named = "index" in self.name or self.name == "face"
        return self.tensor.shape[-1] == self.end and (is_named or len(self.tensor) != self.end)

    @property
    def is_numbers(self) -> bool:
        """Whether it has numbers of nodes or graphs, which count from the first of this rank."""
        return self.slices is None or "index" in self.name or self.name == "face"


def are_graphs(batch: Any) -> bool:
    """Whether *batch* was put together of graphs, and can be taken apart again."""
    return hasattr(type(batch), "to_data_list") and getattr(batch, "_slice_dict", None) is not None


def is_one_graph(batch: Any) -> bool:
    """Whether *batch* is a graph that is no batch of graphs, such as the neighbours of some nodes."""
    return hasattr(type(batch), "__cat_dim__") and not are_graphs(batch) and not are_stacked(batch)


def are_stacked(batch: Any) -> bool:
    """Whether *batch* has graphs of one size, each tensor with a row for each of them."""
    return hasattr(type(batch), "to_data_list") and not are_graphs(batch)


def is_list_of_graphs(batch: Any) -> bool:
    """Whether *batch* is a list of graphs, one for each row, which the script puts together itself."""
    return isinstance(batch, (list, tuple)) and bool(batch) and all(map(is_one_graph, batch))


def within(batch: Any, place: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The graphs in *batch*, which may be a container of other things, each with its place."""
    if are_graphs(batch) or are_stacked(batch) or is_one_graph(batch):
        yield place, batch
    elif isinstance(batch, (Mapping, list, tuple)) and not is_list_of_graphs(batch):
        parts = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
        for key, part in parts:
            yield from within(part, (*place, str(key)))


def held(batch: Any, place: Path = ()) -> Iterator[Held]:
    """The tensors of the graphs *batch*."""
    every = getattr(batch, "_slice_dict", {})
    for store in batch.stores:
        key = getattr(store, "_key", None)
        slices = every if key is None else every.get(key, {})
        kind = () if key is None else (str(key),)
        for name in list(store.keys()):
            yield from _inside(store[name], slices.get(name), (*place, *kind, str(name)))


def _inside(value: Any, slices: Any, path: Path) -> Iterator[Held]:
    if isinstance(value, torch.Tensor):
        yield Held(path=path, tensor=value, slices=slices)
    elif isinstance(value, (Mapping, list)):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            of_part = slices[key] if isinstance(slices, (Mapping, list)) else None
            yield from _inside(part, of_part, (*path, str(key)))


def lists(batch: Any) -> Iterator[list]:
    """The lists of the graphs *batch*, such as their names."""
    for store in batch.stores:
        yield from (value for value in store.values() if isinstance(value, list))


def is_known(batch: Any) -> bool:
    """Whether *batch* is a graph, or a batch of graphs of either kind."""
    return hasattr(type(batch), "__cat_dim__")


def some(batch: Any, start: int, end: int) -> Any:
    """The graphs of *batch* from *start* to *end*."""
    if are_stacked(batch):
        return _stacked(batch, lambda every: every[0][start:end], [batch])
    return _batched(batch, batch.to_data_list()[start:end])


def joined(batches: Sequence[Any]) -> Any:
    """The graphs of all *batches*."""
    if are_stacked(batches[0]):
        return _stacked(batches[0], torch.cat, batches)
    return _batched(batches[0], [graph for batch in batches for graph in batch.to_data_list()])


def _stacked(like: Any, change: Callable[[list[torch.Tensor]], torch.Tensor], batches: Sequence[Any]) -> Any:
    made = copy.copy(like)
    for store, *others in zip(made.stores, *(batch.stores for batch in batches), strict=True):
        for name, value in list(store.items()):
            if isinstance(value, torch.Tensor):
                store[name] = change([other[name] for other in others])
    return made


def _batched(like: Any, graphs: list[Any]) -> Any:
    names = {each.name for each in held(like)}
    follow = [name.removesuffix("_ptr") for name in names if name.endswith("_ptr")]
    # Of the class that all kinds of batches are made from: one of a batch's own would make a kind of that.
    maker = next(kind for kind in type(like).__mro__ if "from_data_list" in vars(kind))
    return maker.from_data_list(graphs, follow_batch=follow)  # type: ignore[attr-defined]


def places(batch: Any) -> dict[Path, set[int]]:
    """Which of what the graphs in *batch* hold has a row for each graph: {0} for these, nothing for the others."""
    found = [each for place, graph in within(batch) if are_graphs(graph) for each in held(graph, place)]
    return {each.path: {0} if each.has_graphs else set() for each in found}
