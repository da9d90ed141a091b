"""Parameters of which each rank holds a part from their birth, where the user asked for a layout that spreads them.

As soon as a module gets a parameter, the rank keeps its part and lets the rest go: no rank ever holds a whole model.
Numbers that a script draws for it (`normal_`) are drawn whole on every rank, one parameter after the other, and cut, so
they are those of one device. Weights that a library reads from files arrive the same way.

Where FSDP spreads a model, the parts of birth are its parts. Otherwise all ranks of the job have a part each until
training begins; then each rank takes what the layout gives it, one parameter after the other.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from ... import accelerator
from ..place import Place
from . import parts
from .spread import BIRTHPLACE, Spread

_M_MMAP_THRESHOLD = -3
"""glibc's number for: from how many bytes on an allocation is a mapping of its own. 2**25 is its own upper bound."""
_M_TRIM_THRESHOLD = -1
"""glibc's number for: how many free bytes at the end of the heap go back to the system. Once the other is set, glibc no
longer raises this one to twice its value by itself, and each step's activations would be mapped anew."""
_NOW = "_lumi_moai_converted"
_ALL = ("all",)
"""How the mesh of all ranks is called, among which parts of birth wait for a layout that is not FSDP's."""
_MESH: list[DeviceMesh] = []
_HALTED: list[bool] = []
Taken = list[tuple[nn.Module, str, nn.Parameter]]
Become = Callable[[torch.Tensor], torch.Tensor]
"""What a rank keeps of a whole parameter."""


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


def mesh(place: Place) -> DeviceMesh | None:
    """The ranks among which new parameters are cut; None if the layout leaves them whole."""
    plan = place.plan
    if plan.dp_shard > 1:
        return place.spread_mesh
    if plan.tp * plan.pp == 1:
        return None
    if not _MESH:
        _MESH.append(DeviceMesh.from_group(dist.group.WORLD, accelerator.device().type, mesh_dim_names=_ALL))
    return _MESH[0]


def spread(parameter: torch.Tensor, ranks: DeviceMesh) -> nn.Parameter | None:
    """The part of *parameter* that this one of *ranks* holds in its stead; None if it stays as it is."""
    usual = type(parameter) is nn.Parameter and not parameter.is_meta
    if not usual or not can_spread(parameter) or parameter.grad_fn is not None:
        return None
    BIRTHPLACE[0] = parameter.device
    with torch.no_grad():
        made = nn.Parameter(_cut(parameter.data, ranks), parameter.requires_grad)
    made.__dict__.update(vars(parameter))
    made.__class__ = Spread
    return made


@contextmanager
def halted(module: nn.Module) -> Iterator[list[tuple[nn.Parameter, nn.Parameter]]]:
    """Within this *module* has whole the parameters that waited in parts, and new ones stay whole.

    Gives the parameters that became others, and these.
    """
    made: list[tuple[nn.Parameter, nn.Parameter]] = []
    for name, parameter in module._parameters.items():
        if is_waiting(parameter):
            made.append((parameter, lay_out(parameter, _as_it_is)))
            module._parameters[name] = made[-1][1]
    _HALTED.append(True)
    try:
        yield made
    finally:
        _HALTED.pop()


def is_halted() -> bool:
    """Whether new parameters stay whole for now."""
    return bool(_HALTED)


def is_waiting(parameter: Any) -> bool:
    """Whether all ranks have a part of *parameter* each, until it is laid out."""
    return isinstance(parameter, DTensor) and parameter._spec.mesh.mesh_dim_names == _ALL


def device_of(parameter: Any) -> torch.device:
    """Where *parameter* is; one that waits in parts, where the script has put it."""
    return parameter._local_tensor.device if is_waiting(parameter) else parameter.device


def lay_out(parameter: Any, become: Become) -> nn.Parameter:
    """What *parameter*, waiting in parts or plain, becomes by *become*; all ranks call this together.

    A part is let go of at once, so that of a whole model there is never more than one parameter on a rank.
    """
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        made = nn.Parameter(become(_whole(parameter).to(device_of(parameter))), parameter.requires_grad)
        if isinstance(parameter, DTensor):  # of which the shape is still asked for
            local = parameter._local_tensor
            parameter._local_tensor = local.new_empty([1] * local.dim()).expand(local.shape)
    return made


def settle(modules: Iterable[nn.Module], place: Place) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Lay out what still waits in *modules*: cut for FSDP, or whole; the parameters that became others, and these."""
    made: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
    for module in modules:
        for name, parameter in module._parameters.items():
            if not is_waiting(parameter):
                continue
            if place.plan.dp_shard > 1:
                _cut_again(parameter, place)
                continue
            if id(parameter) not in made:
                made[id(parameter)] = (parameter, lay_out(parameter, _as_it_is))
            module._parameters[name] = made[id(parameter)][1]
    return list(made.values())


def _as_it_is(full: torch.Tensor) -> torch.Tensor:
    return full


def _whole(parameter: Any) -> torch.Tensor:
    if not isinstance(parameter, DTensor):
        return parameter.data
    local = parameter._local_tensor.data.to(accelerator.device())
    spec = parameter._spec
    words = {"run_check": False, "shape": spec.shape, "stride": spec.stride}
    return parts.full(DTensor.from_local(local, spec.mesh, spec.placements, **words))


def _cut_again(parameter: Any, place: Place) -> None:
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        made = _cut(_whole(parameter), place.spread_mesh)
    parameter._local_tensor, parameter._spec = made._local_tensor, made._spec


def cut_across(parameter: Any, axis: int, place: Place) -> None:
    """Cut *parameter*, in parts from its birth, along *axis* over the ranks of tp too; all ranks call this together."""
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        full, across = _whole(parameter), place.mesh["tp"]
        mine = full.chunk(across.size(), axis)[across.get_local_rank()]
        made = _cut(mine, place.spread_mesh, (place, axis), full.shape)
    parameter._local_tensor, parameter._spec = made._local_tensor, made._spec


def _cut(
    full: torch.Tensor,
    ranks: DeviceMesh,
    across: tuple[Place, int] | None = None,
    size: torch.Size | None = None,
) -> DTensor:
    """This rank's part of *full* along the last axis of *ranks*.

    *full* itself is a part, *across* the ranks of tp along an axis, of something of *size* if these are given.
    """
    pieces, mine = full.contiguous().chunk(ranks.size(ranks.ndim - 1)), ranks.get_local_rank(ranks.ndim - 1)
    part = pieces[mine].clone() if mine < len(pieces) else full.new_empty((0, *full.shape[1:]))
    placements: list[Any] = [*[Replicate()] * (ranks.ndim - 1), Shard(0)]
    if across is not None:
        place, axis = across
        ranks = place.mesh[(*(ranks.mesh_dim_names or ()), "tp")]
        strided = _StridedShard(0, split_factor=place.plan.tp)
        placements = [*placements[:-1], strided if axis == 0 else Shard(0), Shard(axis)]
    shape = size or full.shape
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(part, ranks, placements, run_check=False, shape=shape, stride=stride)


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
        if name in getattr(module, "_flat_weights_names", ()):  # a recurrent layer has a list of them, too
            setattr(module, name, parameter)


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
