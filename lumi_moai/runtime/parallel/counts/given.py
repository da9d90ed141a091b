"""Which tensors of a batch have its rows, as a loader hands it out, and as a model is given them and gives others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from ....errors import RequestError
from ... import group
from .. import graphs
from ..known import Known
from ..share import Share
from ..time_first import Places, is_within, lists_of_rows
from ..time_first import tensors as placed
from . import drawn, lists, of_graphs, pieces, said, states, steps
from . import entries as entries_of_rows
from .batch import OfBatch, are_of_all, become, has
from .entries import Entries
from .places import JOINED, PICKED
from .size import Rows
from .whole import OfAll, of_all, of_model

_PLAIN = Known()
"""Arguments of models that are no rows of a batch."""


def mark(batch: Any, share: Share, places: Places | None = None) -> Any:
    """The tensors of *batch*, which was cut as *share* says, are this rank's part from now on, and so are its lists.

    *places*: where all ranks have found the rows; in the first dimension of what they do not name. It gives the batch
    for the script.
    """
    batch = entries_of_rows.given(batch, share, lists_of_rows(batch, places or {}, of_words=True))
    entries = lists_of_rows(batch, places or {})
    lists.note(batch, share, entries)
    mark_graphs(batch, share, places or {})
    within = [place for place, dim in places.items() if dim is None] if entries and places else []
    at = (
        {id(part): None if is_within(place, within) else (places or {}).get(place, 0) for place, part in placed(batch)}
        if places
        else {}
    )
    for part in _tensors(batch):
        dim = at.get(id(part), 0)
        if dim is not None and has(part, dim, max(share.rows, 1)):
            become(part, share, dim)
    if 1 in at.values() and not share.steps:
        share.steps.append(False)
    return batch


def mark_graphs(batch: Any, share: Share, places: Mapping[graphs.Path, int | None]) -> None:
    """What the graphs in *batch* hold is this rank's part; *places*: which of it all ranks found to be for each graph.

    Raises RequestError for a graph that was made of several samples.
    """
    for place, found in graphs.within(batch):
        if graphs.are_graphs(found):
            found._num_graphs = Rows.of(int(found.num_graphs), share.total, share)
            for each in graphs.held(found, place):
                _mark(each, share, places)
        elif graphs.are_stacked(found):
            for each in graphs.held(found, place):
                if has(each.tensor, 0, max(share.rows, 1)):
                    become(each.tensor, share, 0)
        elif share.total > 1:
            raise RequestError(
                f"a DataLoader gave a {type(found).__name__} that is one graph made of {share.total} samples"
                " (neighbours, clusters), and each rank would make one of its own; give batch_size=1, a loader of"
                " whole graphs (torch_geometric.loader.DataLoader), or run it on one device"
            )
        else:
            for each in graphs.held(found, place):
                _mark_one(each, share)


def _mark(each: graphs.Held, share: Share, places: Mapping[graphs.Path, int | None]) -> None:
    if type(each.tensor) is not torch.Tensor or each.tensor.dim() == 0:
        return
    kind = _kind(each)
    is_of_graphs = each.has_graphs if each.path not in places else places[each.path] == 0
    if is_of_graphs and not each.has_graphs:
        raise RequestError(
            f"{each.name} has one row for each graph in the first batch, and {tuple(each.tensor.shape)} numbers for"
            f" {len(each.slices) - 1} graphs in this one; give it one row for each node, or for each graph, in all of"
            " them"
        )
    at = 0 if is_of_graphs else None if kind in (of_graphs.ENDS, of_graphs.STARTS) else PICKED
    become(each.tensor, share, at if kind or at == 0 or len(each.tensor) == each.end else None).graph = kind


def _kind(each: graphs.Held) -> str:
    if each.slices is None:
        added = {"ptr": of_graphs.STARTS, "batch": of_graphs.OWNERS}
        return added.get(each.name.rpartition("_")[2], "")
    return of_graphs.ENDS if each.is_lying else of_graphs.NUMBERS if each.is_numbers else ""


def _mark_one(each: graphs.Held, share: Share) -> None:
    """What is held by a graph that one rank has and the others only compute."""
    tensor = each.tensor
    if type(tensor) is torch.Tensor and tensor.dim():
        is_lying = each.name in ("edge_index", "edge_label_index") and tensor.dim() == 2
        become(tensor, share, None if is_lying else PICKED).graph = of_graphs.ENDS if is_lying else ""


def mark_whole(batch: Any) -> None:
    """All ranks have the whole *batch*, and not the one at hand, of which each has its rows."""
    for part in _tensors(batch):
        if type(part) is torch.Tensor and part.dim() > 0:
            of_all(part)


@dataclass(frozen=True)
class Given:
    """What a model was given."""

    parts: list[OfBatch]
    of_all: list[torch.Tensor]
    """Rows that all ranks have, if it is nothing but these."""


def mark_outputs(result: Any, given: Given) -> Any:
    """*result*, which a model made of what was *given*, is this rank's part as well, as far as it has its rows."""
    if given.of_all:
        tree_map(of_all, result)
        pieces.pass_on("", (given.of_all,), result)
    inputs = given.parts
    if not inputs:
        return result
    for part in states.packed(result):
        become(part, inputs[0].share, None)
    for part in _tensors(result):
        at = _at(part, inputs)
        if at is not None or (type(part) is torch.Tensor and steps.is_flat(part, [*inputs])):
            become(part, inputs[0].share, at)
            if at == PICKED:  # what was joined stays known for that
                part.graph = of_graphs.SEVERAL if of_graphs.SEVERAL in map(of_graphs.kind_of, inputs) else ""
        elif type(part) is torch.Tensor and (part.dim() == 0 or inputs[0].share.total // inputs[0].share.ranks > 1):
            of_model(part)  # of shape (1,) it may be a row where a rank has one
    return result


def _at(part: Any, inputs: list[OfBatch]) -> int | None:
    """Where *part*, which a model made of *inputs*, has the rows of the batch; None if it has not."""
    is_of_graphs = any(map(of_graphs.kind_of, inputs))
    # Of the rows that each rank picked, so many are these.
    if not is_of_graphs and not any(each.at == 0 for each in inputs):
        found = next((each.at for each in inputs if each.at in (PICKED, JOINED) and has(part, 0, len(each))), None)
        if found is not None:
            return found
    if not torch.is_tensor(part):
        return None
    if states.is_state(part, max(inputs[0].share.rows, 1)):
        return 1
    found = next((dim for dim in steps.of_model(part, [*inputs]) if has(part, dim, max(inputs[0].share.rows, 1))), None)
    # Rows times positions, as a flat tensor has them.
    is_flat = found is None and any(each.at == 0 and has(part, 0, len(each)) for each in inputs)
    if found is None and is_of_graphs and _is_of_nodes(part, inputs):
        return PICKED
    return 0 if is_flat else found


def _is_of_nodes(part: torch.Tensor, inputs: list[OfBatch]) -> bool:
    """Whether *part*, which a model made of graphs, has a row for each of their nodes, or for each edge."""
    return any(has(part, 0, of_graphs.count(each)) for each in inputs if each.at == PICKED or of_graphs.kind_of(each))


def find_rows(arguments: Any, share: Share | None) -> None:
    """The plain tensors among *arguments*, a model's, that the script made of the texts of its rows are its part too.

    *share*: how the batch at hand was cut. All ranks come here together, and find the same: one number for each row on
    all of them, and not the same numbers.
    """
    if share is None or share.ranks == 1 or not any(isinstance(each, Entries) for each in share.lists):
        return
    found = [
        leaf for leaf in tree_leaves(arguments) if type(leaf) is torch.Tensor and leaf.dim() and leaf not in _PLAIN
    ]
    if not found:
        return
    sums = [_digest(leaf) for leaf in found]
    fits = [has(leaf, 0, max(share.rows, 1)) for leaf in found]
    most = group.most([*sums, *(-each for each in sums), *(not each for each in fits)])
    count = len(found)
    for leaf, high, low, is_unfit in zip(found, most[:count], most[count:-count], most[-count:], strict=True):
        if is_unfit or high == -low:
            _PLAIN.add(leaf)
        else:
            become(leaf, share, 0)


def _digest(tensor: torch.Tensor) -> int:
    """A number that tells *tensor* from others, the same on all ranks."""
    flat = tensor.detach().double().flatten()
    places = torch.arange(1, len(flat) + 1, device=flat.device)
    return hash((tuple(tensor.shape), flat.sum().item(), (flat * places).sum().item())) % (1 << 60)


@contextmanager
def plainly(arguments: Any) -> Iterator[Given]:
    """Within this the tensors of *arguments*, a model's, are plain ones: it computes with them as fast as ever."""
    for leaf in tree_leaves(arguments):
        if type(leaf) is torch.Tensor and leaf.dim() and (share := drawn.share_of(leaf)) is not None:
            become(leaf, share, 0)
    every = [leaf for leaf in tree_leaves(arguments) if type(leaf) is OfAll] if are_of_all(arguments) else []
    marked = [(leaf, type(leaf)) for leaf in _leaves(arguments) if type(leaf) in (OfBatch, OfAll)]
    for tensor, _ in marked:
        tensor.__class__ = torch.Tensor
    parts = [tensor for tensor, kind in marked if kind is OfBatch]
    try:
        yield Given(parts, every)
    except RuntimeError as error:
        said.explain(error, parts[0].share if parts else None)
        raise
    finally:
        states.forget()
        for tensor, kind in marked:
            tensor.__class__ = kind


@contextmanager
def followed(given: Given) -> Iterator[None]:
    """Within this the rows that a model was *given* are followed, as they are in the script."""
    for tensor in given.parts:
        tensor.__class__ = OfBatch
    try:
        yield
    finally:
        for tensor in given.parts:
            tensor.__class__ = torch.Tensor


def _leaves(arguments: Any) -> Iterator[Any]:
    """Those of *arguments*, and the tensors of the graphs among them."""
    for leaf in tree_leaves(arguments):
        yield leaf
        if graphs.is_known(leaf):
            yield from (each.tensor for each in graphs.held(leaf))


def _tensors(batch: Any) -> Iterator[Any]:
    for leaf in tree_leaves(batch):
        yield from [leaf] if torch.is_tensor(leaf) else vars(leaf).values() if hasattr(leaf, "__dict__") else ()
