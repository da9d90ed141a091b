"""Values that each rank computed from its rows, put together as one device would have computed them."""

from typing import TYPE_CHECKING, Any

import torch

from ....errors import RequestError
from ... import group
from .. import counts
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
