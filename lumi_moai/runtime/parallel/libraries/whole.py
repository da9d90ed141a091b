"""Values that each rank computed from its rows, put together as one device would have computed them."""

from typing import TYPE_CHECKING, Any

import torch

from ....errors import RequestError
from ... import group
from ..share import Share

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


def whole(engine: "Engine", value: Any, share: Share) -> Any:
    """What *value* of this rank's rows, a tensor or a container of such, is for the global batch."""
    if isinstance(value, torch.Tensor):
        return rows(engine, value, share) if value.dim() else scalar(engine, value, share)
    if isinstance(value, dict):
        return {key: whole(engine, part, share) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(engine, part, share) for part in value)
    return value
