"""Values that each rank computed from its rows, put together as one device would have computed them."""

import pickle
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from ....errors import RequestError
from ... import group
from .. import counts
from ..counts import lists
from ..share import Share, bounds

if TYPE_CHECKING:
    from ..engine import Engine


def rows(engine: "Engine", tensor: torch.Tensor, share: Share) -> torch.Tensor:
    """The rows of *tensor* of all ranks, one below the other in their order; all ranks come here together.

    Raises RequestError when the ranks' tensors differ in anything but their number of rows.
    """
    place = engine.settle()
    mine = tensor.detach() if share.rows else tensor.detach()[:0]
    shapes = torch.zeros(place.data_ranks, tensor.dim(), dtype=torch.int64)
    shapes[place.data_rank] = torch.tensor(mine.shape)
    shapes = group.total(shapes)
    if len({tuple(shape[1:]) for shape in shapes.tolist()}) != 1:
        sizes = ", ".join(str(tuple(shape)) for shape in shapes.tolist())
        raise RequestError(
            f"tensors of shapes {sizes} on the ranks cannot become one; pad all batches to one length, as the"
            " collator's padding='max_length' does"
        )
    counts = shapes[:, 0].tolist()
    start = sum(counts[: place.data_rank])
    kind = torch.uint8 if tensor.dtype == torch.bool else tensor.dtype
    every = mine.new_zeros((sum(counts), *tensor.shape[1:]), dtype=kind)
    every[start : start + len(mine)] = mine
    return group.total(every).to(tensor.dtype)


def scalar(engine: "Engine", tensor: torch.Tensor, share: Share) -> torch.Tensor:
    """A number of the global batch: the sum of whole numbers, which count something; of others the mean over rows."""
    if tensor.requires_grad:
        return engine.number(tensor)
    if tensor.dtype.is_floating_point:
        value = tensor.double() * share.weight if share.rows else torch.zeros_like(tensor, dtype=torch.float64)
        return group.total(value).to(tensor.dtype)
    return group.total(tensor.to(torch.int64) if share.rows else torch.zeros_like(tensor, dtype=torch.int64))


class EachRank(torch.Tensor):
    """A number of each rank's rows; their mean weighs each rank by its rows, as the mean over all rows does."""

    weights: torch.Tensor

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A plain tensor in files."""
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        """A copy of the values; of the weights there is one."""
        return _weighing(self.as_subclass(torch.Tensor).clone(), self.weights)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Weigh a mean, and keep the weights with what is still one number of each rank."""
        known = next((each for each in (*args, *(kwargs or {}).values()) if isinstance(each, cls)), None)
        with torch._C.DisableTorchFunctionSubclass():
            if known is not None and func in _MEANS:
                return _weighed(known, known.weights, skips=func in _MEANS[2:])
            found = func(*args, **(kwargs or {}))
            if known is not None and type(found) is torch.Tensor and found.shape == known.weights.shape:
                return _weighing(found, known.weights)
        return found


_MEANS = (torch.Tensor.mean, torch.mean, torch.Tensor.nanmean, torch.nanmean)


def _weighed(values: torch.Tensor, weights: torch.Tensor, *, skips: bool) -> torch.Tensor:
    weights = weights.to(values.device)  # which may have gone to the host since
    if skips:
        weights = weights * values.isnan().logical_not()
        values = values.nan_to_num()
    return (values.double() * weights).sum().div(weights.sum()).to(values.dtype)


def _weighing(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    found = values.as_subclass(EachRank)
    found.weights = weights
    return found


def each_rank(engine: "Engine", tensor: torch.Tensor, share: Share) -> torch.Tensor:
    """The number *tensor* of each rank that has rows."""
    found = rows(engine, tensor.reshape(1), share)
    if not share.uneven:
        return found
    every = [bounds(share.total, rank, share.ranks)[2].rows for rank in range(share.ranks)]
    return _weighing(found, torch.tensor([each for each in every if each], dtype=torch.float64, device=found.device))


def whole(engine: "Engine", value: Any, share: Share) -> Any:
    """What *value* of this rank's rows, a tensor or a container of such, is for the global batch."""
    if isinstance(value, counts.OfAll):
        return value
    if isinstance(value, counts.Rows):
        return value.whole
    if isinstance(value, torch.Tensor):
        return rows(engine, value, share) if value.dim() else scalar(engine, value, share)
    if isinstance(value, dict):
        return {key: whole(engine, part, share) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(engine, part, share) for part in value)
    return value


def measured(words: dict[Any, Any], share: Share, of_rows: Set[Any]) -> dict[Any, Any]:
    """*words*, given to a function that measures a batch, with the rows of all ranks; all ranks come here together.

    *of_rows*: which of them have an entry for each row where they are lists or arrays.
    """
    found = {name: _measured(value) for name, value in words.items()}
    return {**found, **_entries({name: each for name, each in words.items() if _has_entries(each)}, share, of_rows)}


def _measured(value: Any) -> Any:
    if isinstance(value, counts.Rows):
        return value.whole
    if _are_fields(value):
        return [counts.wholly(each) for each in value]
    return counts.wholly(value) if type(value) is counts.OfBatch else value


def _are_fields(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is counts.OfBatch for each in value)


def _has_entries(value: Any) -> bool:
    if isinstance(value, (list, np.ndarray)):
        return not _are_fields(value)
    return isinstance(value, tuple) and lists.share_of(value) is not None


def _entries(given: dict[Any, Any], share: Share, of_rows: Set[Any]) -> dict[Any, Any]:
    """*given* lists and arrays in which each rank has what is of its rows, with what all ranks have.

    What is of all rows already is alike on all ranks; parts may be so by chance, but not all of them at once.
    """
    if not given:
        return {}
    every: list[dict[Any, Any]] = [{} for _ in range(share.ranks)]
    dist.all_gather_object(every, tree_map(_sent, given), group=group.data_group())
    rows = [bounds(share.total, rank, share.ranks)[2].rows for rank in range(share.ranks)]
    unlike = {name for name in given if len({_bytes(each[name]) for each in every}) > 1}
    parts = unlike and unlike | {
        name for name in of_rows & given.keys() if [len(each[name]) for each in every] == [max(n, 1) for n in rows]
    }
    real = [each for each, n in zip(every, rows, strict=True) if n]
    return {name: _joined([each[name] for each in real], given[name]) for name in parts}


def is_alike(tensor: torch.Tensor, share: Share) -> bool:
    """Whether *tensor* is the same on all ranks; all ranks come here together."""
    every: list[Any] = [None] * share.ranks
    dist.all_gather_object(every, _bytes([tuple(tensor.shape), _sent(tensor)]), group=group.data_group())
    return len(set(every)) == 1


def _sent(value: Any) -> Any:
    with torch.no_grad():
        return value.clone().cpu() if isinstance(value, torch.Tensor) else value


def _bytes(value: Any) -> tuple[bytes, ...]:
    """Of each part for itself: which of them are one object is not the same on all ranks."""
    leaves, kind = tree_flatten(value)
    return (repr(kind).encode(), *(pickle.dumps(_numbers(leaf)) for leaf in leaves))


def _numbers(leaf: Any) -> Any:
    """*leaf*; of a tensor its numbers, as two pickles of one tensor are not alike."""
    return leaf.reshape(-1).view(torch.uint8).numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf


def _joined(every: list[Any], own: Any) -> Any:
    if isinstance(own, np.ndarray):
        return np.concatenate(every)
    here = next((leaf.device for leaf in tree_leaves(own) if isinstance(leaf, torch.Tensor)), None)
    return tree_map(lambda leaf: leaf.to(here) if isinstance(leaf, torch.Tensor) else leaf, sum(every[1:], every[0]))
