"""All of a tensor of which this rank has a part, or of which another stage of a pipeline has all."""

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from ... import accelerator

STAGE = ("pp",)
"""How the mesh of a tensor is called that one stage holds; it has one rank."""
_GROUP: list[Any] = []


def use(group: Any) -> None:
    """From now on the stages of one pipeline are the ranks of *group*."""
    _GROUP[:] = [group]


def owner_of(tensor: DTensor) -> int:
    """The rank that holds *tensor*, of which one stage has all."""
    rank: int = tensor._spec.mesh.mesh.tolist()[0]  # int() of an element would pass for a number that the script reads
    return rank


def full(tensor: DTensor) -> torch.Tensor:
    """All of *tensor*; all ranks that hold parts of it, or stages of its pipeline, call this together."""
    if tensor._spec.mesh.mesh_dim_names != STAGE:
        return _trimmed(tensor.full_tensor())
    owner, local = owner_of(tensor), tensor._local_tensor.detach()
    sent = local.contiguous() if owner == dist.get_rank() else local.new_empty(tensor.shape)
    dist.broadcast(sent, owner, group=_GROUP[0])
    return sent


def _trimmed(whole: torch.Tensor) -> torch.Tensor:
    """*whole* without the room behind it, which parts of unequal size leave and a file would store."""
    return whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()


def local(leaf: Any) -> Any:
    """This rank's part of a spread tensor; anything else as it is."""
    return leaf._local_tensor if isinstance(leaf, DTensor) else leaf


def unscaled(func: Callable[..., Any], gradients: Any, infinite: torch.Tensor, factor: torch.Tensor) -> None:
    """A GradScaler's *func* on gradients of which some are spread; one infinite number on any rank counts on all."""
    func([local(each) for each in gradients], local(infinite), local(factor))
    found = local(infinite).to(accelerator.device(), copy=True)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    local(infinite).copy_(found)


def is_scarce(tensor: torch.Tensor) -> bool:
    """Whether *tensor* asks for a gradient and some rank has no part of it: torch's ranks do unlike things then."""
    if not isinstance(tensor, DTensor) or not tensor.dim() or not tensor.requires_grad:
        return False
    ranks = tensor._spec.mesh.size()
    return -(-tensor.shape[0] // ranks) * (ranks - 1) >= tensor.shape[0]


def explain(error: Exception) -> None:
    """Say in *error* what may be wrong where torch could not compute with parts of weights."""
    if re.search(r"Sharding propagation failed|\bDTensor\b", str(error)):
        error.add_note(
            "lumi-moai: the weights of this model are spread over ranks, and what the script computes with them by hand"
            " here cannot be done in parts; use --layout replicate"
        )
