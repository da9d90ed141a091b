"""Tensors that the script made of a batch and still holds at a checkpoint: each rank has some rows, which go together.

`outputs` after `optimizer.step()` is the commonest: who counts right answers there needs its own rows after a restart.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist

from ....errors import RequestError
from ..share import Share, bounds

Tensors = Mapping[str, torch.Tensor]


def together(
    mine: Tensors, names: Sequence[str], share: Share | None, place: int, group: Any
) -> dict[str, torch.Tensor]:
    """Those of *names* whose rows differ between the ranks, with the rows of all; *place*: which data rank this is.

    What is the same on all ranks, though it has as many rows, is no part of a batch.
    """
    if share is None:
        return {}
    sums = {name: _sum(mine[name]) for name in names if _has(mine[name], max(share.rows, 1))}
    all_sums: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(all_sums, sums, group=group)
    unlike = [name for name in sums if len({each.get(name) for each in all_sums}) > 1]
    unlike = [name for name in unlike if all(name in each for each in all_sums)]
    parts: list[Any] = [None] * len(all_sums)
    part = {name: mine[name].detach().cpu()[: share.rows].as_subclass(torch.Tensor).clone() for name in unlike}
    dist.all_gather_object(parts, (place, part), group=group)
    of_place = dict(parts)
    return {name: _joined([of_place[each][name] for each in sorted(of_place)]) for name in unlike}


def own(stored: torch.Tensor, held: torch.Tensor, share: Share | None, place: int) -> torch.Tensor:
    """The rows of *stored* that belong into *held* on the data rank *place*; all if it is no part of a batch."""
    if share is None or stored.dim() == 0 or stored.shape == held.shape or len(stored) != share.total:
        return stored
    start, end, _ = bounds(share.total, place, share.ranks)
    rows = stored[start:end]
    if rows.dim() != held.dim():
        return rows
    return rows[tuple(slice(0, min(size, most)) for size, most in zip(held.shape, rows.shape, strict=True))]


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of all *parts*, whose ranks may have filled them up to sizes of their own."""
    if len({part.dim() for part in parts}) > 1:
        raise RequestError(
            f"the script holds a tensor of {parts[0].dim()} dimensions on one rank and of others on another, which no"
            " checkpoint can keep; delete it ahead of optimizer.step(), or submit with --checkpoint off"
        )
    most = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    result = parts[0].new_zeros((sum(map(len, parts)), *most))
    for part, start in zip(parts, accumulate((len(part) for part in parts), initial=0), strict=False):
        result[(slice(start, start + len(part)), *map(slice, part.shape[1:]))] = part
    return result


def _has(tensor: torch.Tensor, rows: int) -> bool:
    return type(tensor) is not torch.nn.Parameter and tensor.dim() > 0 and tensor.shape[0] == rows


def _sum(tensor: torch.Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().as_subclass(torch.Tensor).view(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()
