"""Which blocks a stage holds. Their weights are parameters of one stage, and answer as whole ones on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate

from .....errors import RequestError
from .... import accelerator
from ...place import Place
from .. import born, parts
from ..shard import is_here
from . import passage
from .passage import Span

_MESHES: dict[int, DeviceMesh] = {}
_SPANS: WeakKeyDictionary[nn.Module, "Stages"] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Of one model."""

    span: Span
    """The blocks of this rank."""
    ranks: tuple[int, ...]
    """Of the job, by stage."""
    group: Any


def of(root: nn.Module) -> Stages | None:
    """The stages of *root*; None for a model that every rank has whole."""
    return _SPANS.get(root)


def apply(root: nn.Module, lists: Sequence[Sequence[nn.Module]], place: Place) -> bool:
    """Keep of *root*'s blocks those of this stage; True if that was done.

    Raises RequestError for a model that cannot be had in stages.
    """
    plan = place.plan
    if plan.pp == 1 or not is_here(root, place) or not any(each.requires_grad for each in root.parameters()):
        return False
    blocks = max(lists, key=len, default=[])
    _check(root, blocks, place)
    group = place.mesh["pp"].get_group()
    parts.use(group)
    bounds = [len(blocks) * stage // plan.pp for stage in range(plan.pp + 1)]
    ranks, mine = tuple(dist.get_process_group_ranks(group)), place.mesh.get_local_rank("pp")
    for stage, number in _in_turn(bounds):
        _give(blocks[number], ranks[stage])
        passage.mark(blocks[number], number)
    span = Span(stage=mine, stages=plan.pp, first=bounds[mine], end=bounds[mine + 1], blocks=len(blocks))
    _SPANS[root] = Stages(span=span, ranks=ranks, group=group)
    return True


def _in_turn(bounds: Sequence[int]) -> list[tuple[int, int]]:
    """Each block's stage and number: a block for each stage, then the next ones.

    So a rank that gets a block has given away its parts of as many others.
    """
    every = [(stage, number) for stage, end in enumerate(bounds[1:]) for number in range(bounds[stage], end)]
    return sorted(every, key=lambda each: (each[1] - bounds[each[0]], each[0]))


def _check(root: nn.Module, blocks: Sequence[nn.Module], place: Place) -> None:
    name, stages = type(root).__name__, place.plan.pp
    if len(blocks) < stages:
        raise RequestError(
            f"{name} has {len(blocks) or 'no'} blocks that could be {stages} pipeline stages: a block is one of several"
            " layers of one class that are most of a ModuleList or Sequential, with no weight that is used elsewhere as"
            " well; use --layout fsdp or tp=2"
        )
    if place.plan.compile:
        raise RequestError("compile does not go together with pp yet; leave one of both out of --layout")
    for where, module in root.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise RequestError(
                f"{name} cannot be had in pipeline stages: {where} is a {type(module).__name__}, which needs all rows"
                " at once; use --layout replicate or fsdp"
            )
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            raise RequestError(f"{where} has sparse gradients, which stages cannot add up; write sparse=False")


def _give(block: nn.Module, owner: int) -> None:
    """Let the rank *owner* have the weights of *block*."""
    made: dict[int, nn.Parameter] = {}
    for module in block.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and born.can_spread(parameter):
                if id(parameter) not in made:
                    made[id(parameter)] = born.lay_out(parameter, partial(held_by, owner=owner))
                module._parameters[name] = made[id(parameter)]


def held_by(full: torch.Tensor, owner: int) -> DTensor:
    """*full*, of which the rank *owner* has all and the others nothing."""
    nothing = torch.empty(0, dtype=full.dtype, device=accelerator.device())
    kept = full.contiguous() if owner == dist.get_rank() else nothing
    stride = torch.empty(full.shape, device="meta").stride()
    return DTensor.from_local(kept, _mesh(owner), [Replicate()], run_check=False, shape=full.shape, stride=stride)


def _mesh(owner: int) -> DeviceMesh:
    """One rank; the ranks never speak within it, so that it needs no group of its own."""
    if owner not in _MESHES:
        kind = accelerator.device().type
        _MESHES[owner] = DeviceMesh(kind, torch.tensor([owner]), mesh_dim_names=parts.STAGE, _init_backend=False)
    return _MESHES[owner]
