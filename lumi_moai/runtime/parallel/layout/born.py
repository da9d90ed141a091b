"""Parameters of which each rank holds a part from their birth, where the user asked for a layout that spreads them.

As soon as a module gets a parameter, the rank keeps its part and lets the rest go: no rank ever holds a whole model.
Numbers that a script draws for it (`normal_`) are drawn whole on every rank, one parameter after the other, and cut, so
they are those of one device. Weights that a library reads from files arrive the same way.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from ... import accelerator
from ..place import Place
from .spread import BIRTHPLACE, Spread, whole

_M_MMAP_THRESHOLD = -3
"""glibc's number for: from how many bytes on an allocation is a mapping of its own. 2**25 is its own upper bound."""
_M_TRIM_THRESHOLD = -1
"""glibc's number for: how many free bytes at the end of the heap go back to the system. Once the other is set, glibc no
longer raises this one to twice its value by itself, and each step's activations would be mapped anew."""
_NOW = "_lumi_moai_converted"
Taken = list[tuple[nn.Module, str, nn.Parameter]]


def give_memory_back(*, at_once: bool) -> None:
    """Let what tensors leave behind on the host go back to the system *at_once*, or when C's library thinks fit.

    Between the parts that stay, whole parameters come and go; C's library would keep the room of most of them. A
    training on the CPU wants the other: by itself, glibc gives a step's activations back or keeps them as chance has
    laid them out, and mapping them anew cost one run in two some five per cent of its time.
    """
    with suppress(AttributeError, OSError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 2**20 if at_once else 2**25)
        library.mallopt(_M_TRIM_THRESHOLD, 2**17 if at_once else 2**26)


def can_spread(parameter: torch.Tensor) -> bool:
    """A number by itself, and what is no number with a point, stays whole on every rank."""
    return parameter.dim() > 0 and parameter.numel() > 0 and parameter.is_floating_point()


def spread(parameter: torch.Tensor, place: Place) -> nn.Parameter | None:
    """The part of *parameter* that this rank holds in its stead; None if it stays as it is."""
    usual = type(parameter) is nn.Parameter and not parameter.is_meta
    if not usual or not can_spread(parameter) or parameter.grad_fn is not None:
        return None
    BIRTHPLACE[0] = parameter.device
    with torch.no_grad():
        made = nn.Parameter(_cut(parameter.data, place), parameter.requires_grad)
    made.__dict__.update(vars(parameter))
    made.__class__ = Spread
    return made


def cut_across(parameter: Any, axis: int, place: Place) -> None:
    """Cut *parameter*, in parts from its birth, along *axis* over the ranks of tp too; all ranks call this together."""
    with torch.no_grad():
        full, mesh = whole(parameter), place.mesh["tp"]
        made = _cut(full.chunk(mesh.size(), axis)[mesh.get_local_rank()], place, axis, full.shape)
    parameter._local_tensor, parameter._spec = made._local_tensor, made._spec


def _cut(full: torch.Tensor, place: Place, axis: int | None = None, size: torch.Size | None = None) -> DTensor:
    """This rank's part of *full*, which itself is a part along *axis* of something of *size* if there is an axis."""
    mesh, tp = place.spread_mesh, place.plan.tp
    parts, mine = full.contiguous().chunk(place.plan.dp_shard), mesh.get_local_rank("dp_shard")
    part = parts[mine].clone() if mine < len(parts) else full.new_empty((0, *full.shape[1:]))
    placements: list[Any] = [*[Replicate()] * (mesh.ndim - 1), Shard(0)]
    if axis is not None:
        mesh = place.mesh[(*(mesh.mesh_dim_names or ()), "tp")]
        placements = [*placements[:-1], _StridedShard(0, split_factor=tp) if axis == 0 else Shard(0), Shard(axis)]
    shape = size or full.shape
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=shape, stride=stride)


@contextmanager
def set_aside(root: nn.Module, *, on_host: bool) -> Iterator[None]:
    """Let FSDP see parameters without memory in the place of *root*'s parts, and give it the parts at the end.

    The script's parameters stay the same objects.
    """
    taken: Taken = []
    stand_ins: dict[int, nn.Parameter] = {}
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, DTensor) and parameter.device_mesh.mesh_dim_names != ("tp",):  # which FSDP adds to
                stand_in = stand_ins.setdefault(id(parameter), _without_numbers(parameter))
                taken.append((module, name, parameter))
                module._parameters[name] = stand_in
    yield
    for module, name, parameter in taken:
        laid_out: Any = module._parameters[name]
        if isinstance(laid_out, DTensor):
            parameter._spec = laid_out._spec
        local = parameter._local_tensor
        parameter._local_tensor = local.to("cpu" if on_host else accelerator.device())
        module._parameters[name] = parameter


def _without_numbers(parameter: DTensor) -> nn.Parameter:
    """What FSDP is to cut where *parameter* has been cut already: all of it, or the part of one rank of tp."""
    empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    mesh, placement = parameter.device_mesh, parameter.placements[-1]
    if "tp" in (mesh.mesh_dim_names or ()) and isinstance(placement, Shard):
        part = empty.chunk(mesh["tp"].size(), placement.dim)[0].contiguous()
        empty = DTensor.from_local(part, mesh["tp"], [placement], run_check=False)
    return nn.Parameter(empty, parameter.requires_grad)


def converting(own: Callable[..., Any]) -> Callable[..., Any]:
    """`Module._apply`, which is behind `.to()`, `.cuda()` and `.bfloat16()`: of parts, the parts are converted."""

    def apply(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        mine = {name: each for name, each in module._parameters.items() if isinstance(each, DTensor)}
        if not mine:
            return own(module, function, recurse)
        for name in mine:
            module._parameters[name] = None
        try:
            return own(module, function, recurse)
        finally:
            for name, each in mine.items():
                module._parameters[name] = _converted(each, function)

    return apply


def _converted(parameter: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    known = vars(parameter).get(_NOW)
    if known is not None:
        return known
    with torch.no_grad():
        local = function(parameter._local_tensor)
    if local.dtype == parameter.dtype:
        parameter._local_tensor = local
        return parameter
    spec = parameter._spec
    with torch.no_grad():
        made: Any = DTensor.from_local(
            local, spec.mesh, spec.placements, run_check=False, shape=parameter.shape, stride=spec.stride
        )
    made = nn.Parameter(made, parameter.requires_grad)
    made.__class__ = Spread
    made.__dict__.update(vars(parameter))
    vars(parameter)[_NOW] = made  # for a tied one, which comes again
    return made
