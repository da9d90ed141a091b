"""The process group of the ranks: made when the script's one line asks for it, left in order at the end."""

import functools
import os
from typing import Any

import torch
import torch.distributed as dist

from . import accelerator
from .meeting import await_rank_0

_JOINED: list[bool] = []
_DATA: list[Any] = [None]
"""The group of the ranks that share out a batch; None for all ranks."""
_TOTALS = [0]
_LEFT: list[Any] = []
"""Groups that were left: as one is freed, the CPU's library waits for threads that may wait for Python (torch 2.6)."""


def join() -> None:
    """Make the process group, unless the script has one already."""
    if dist.is_initialized():
        return
    await_rank_0(os.environ)
    if accelerator.is_gpu():
        # Naming the device lets the library connect at once, and keeps a rank from opening a context on device 0.
        # The CPU's library beside it, for checkpoints that are written while training goes on.
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=accelerator.device())
    else:
        dist.init_process_group("gloo")


def remember_joining() -> None:
    """Notice from now on when a process group is made, by us or by the script; torch forgets one that was left."""
    if not dist.is_available():
        return
    make = dist.init_process_group

    @functools.wraps(make)
    def noticed(*arguments: Any, **words: Any) -> Any:
        _JOINED.append(True)
        return make(*arguments, **words)

    dist.init_process_group = noticed


def was_joined() -> bool:
    """Whether this rank has had a process group."""
    return bool(_JOINED)


def leave(*, together: bool) -> None:
    """Part from the other ranks when the script went well; a script that left its group itself is done.

    *together*: wait for all ranks first, since rank 0 may still write what it alone writes.
    """
    if dist.is_available() and dist.is_initialized():
        if together:
            dist.barrier()
        _LEFT.extend(dist.distributed_c10d._world.pg_map)  # the process ends without freeing anything
        dist.destroy_process_group()


def share_among(data_group: Any) -> None:
    """From now on *data_group* shares out batches, None for all ranks."""
    _DATA[0] = data_group


def data_group() -> Any:
    """The group of the ranks that share out a batch; None for all ranks."""
    return _DATA[0]


def data_ranks() -> int:
    """How many ranks share out a batch."""
    return dist.get_world_size(_DATA[0])


def reachable(tensor: torch.Tensor) -> torch.Tensor:
    """*tensor* where the network reaches it."""
    return tensor.to(accelerator.device())


def exchanges() -> int:
    """How many sums over ranks this rank has waited for so far."""
    return _TOTALS[0]


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of *values* over the ranks that share out a batch."""
    _TOTALS[0] += 1
    travelling = values.to(accelerator.device(), copy=True)
    dist.all_reduce(travelling, group=_DATA[0])
    return travelling.to(values.device)


def gathered(number: float) -> list[float]:
    """The *number* of each of the ranks that share out a batch."""
    mine = torch.tensor([number], dtype=torch.float64, device=accelerator.device())
    every = [torch.empty_like(mine) for _ in range(data_ranks())]
    dist.all_gather(every, mine, group=_DATA[0])
    return [float(each) for each in torch.cat(every).numpy(force=True)]


def most(numbers: list[int]) -> list[int]:
    """The most of each of the *numbers* on one of the ranks that share out a batch."""
    found = torch.tensor(numbers, dtype=torch.int64, device=accelerator.device())
    dist.all_reduce(found, dist.ReduceOp.MAX, group=_DATA[0])
    return found.tolist()


def start_total(values: torch.Tensor) -> dist.Work:
    """Start to add up *values*, in place, over the ranks that share out a batch."""
    return dist.all_reduce(values, group=_DATA[0], async_op=True)


def start_average(values: torch.Tensor) -> tuple[dist.Work, int]:
    """Start to average *values* over the ranks that share out a batch, in place.

    Wait for the work that is returned, and divide by the number: gloo cannot average, so it leaves the sum.
    """
    if accelerator.is_gpu():
        return dist.all_reduce(values, dist.ReduceOp.AVG, group=_DATA[0], async_op=True), 1
    return start_total(values), data_ranks()


def agree(value: object) -> Any:
    """Rank 0's *value*, on every rank."""
    box = [value]
    with torch.no_grad():  # where a number that torch reads is none of the script's
        dist.broadcast_object_list(box, src=0, device=accelerator.device())
    return box[0]


def from_rank_0(tensor: torch.Tensor) -> torch.Tensor:
    """Rank 0's *tensor*, in place where the network reaches it; shape and type must be the same on all ranks."""
    here = accelerator.device()
    if tensor.device == here:
        dist.broadcast(tensor, src=0)
        return tensor
    travelling = tensor.to(here)
    dist.broadcast(travelling, src=0)
    return tensor.copy_(travelling)
