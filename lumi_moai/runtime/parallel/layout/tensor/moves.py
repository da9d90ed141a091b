"""How numbers travel between the ranks of one tp group, in forward and, the other way, in backward.

    copy     whole -> whole on every rank;  backward: the sum of what each rank's part of the work gives
    total    a summand each -> the sum;     backward: the same gradient for every summand
    part     whole -> this rank's part;     backward: the parts put together
    joined   parts -> whole;                backward: this rank's part

What is whole is the same on all ranks of the group, gradients too.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

_MESH: list[DeviceMesh] = []


def use(mesh: DeviceMesh) -> None:
    """From now on the group is that of *mesh*, which has one axis."""
    _MESH[:] = [mesh]


def ranks() -> int:
    """How many ranks the group has."""
    return _MESH[0].size()


def rank() -> int:
    """Which of them this one is."""
    return _MESH[0].get_local_rank()


def group() -> Any:
    """The group, for torch.distributed."""
    return _MESH[0].get_group()


def mine(parameter: Any) -> Any:
    """This rank's numbers, whose gradient goes to the spread parameter; others, and None, as they are."""
    if not isinstance(parameter, DTensor):
        return parameter
    with torch._C.DisableTorchFunctionSubclass():
        return parameter.to_local()


def copy(whole: torch.Tensor) -> torch.Tensor:
    """*whole*, of which each rank uses a part."""
    return _Copy.apply(whole) if whole.requires_grad and torch.is_grad_enabled() else whole


def total(summand: torch.Tensor) -> torch.Tensor:
    """The sum over the group."""
    return _Total.apply(summand)


def part(whole: torch.Tensor, axis: int) -> torch.Tensor:
    """This rank's part of *whole* along *axis*, whose size the number of ranks divides."""
    return _Part.apply(whole, axis)


def joined(mine: torch.Tensor, axis: int) -> torch.Tensor:
    """The parts of all ranks along *axis*."""
    return _Joined.apply(mine, axis)


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor) -> torch.Tensor:
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _sum(gradient)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, summand: torch.Tensor) -> torch.Tensor:
        return _sum(summand)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, axis: int) -> torch.Tensor:
        ctx.axis = axis
        return _cut(whole, axis)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _join(gradient, ctx.axis), None


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, axis: int) -> torch.Tensor:
        ctx.axis = axis
        return _join(mine, axis)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _cut(gradient, ctx.axis), None


def _sum(summand: torch.Tensor) -> torch.Tensor:
    added = summand.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(added, group=group())
    return added


def _cut(whole: torch.Tensor, axis: int) -> torch.Tensor:
    return whole.chunk(ranks(), axis)[rank()].contiguous()


def _join(mine: torch.Tensor, axis: int) -> torch.Tensor:
    sent = mine.contiguous()
    parts = [torch.empty_like(sent) for _ in range(ranks())]
    dist.all_gather(parts, sent, group=group())
    return torch.cat(parts, axis)
