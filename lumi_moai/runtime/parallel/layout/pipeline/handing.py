"""What the stages of one pipeline tell each other at the ends of a call: outputs to all, gradients added up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from .... import accelerator
from ..parts import owner_of
from . import travel
from .owned import Stages, held_by
from .plain import Plain

if TYPE_CHECKING:
    from ...micro.rerun import Outputs, Work


def told(value: Any, stage: int, stages: Stages) -> Any:
    """*value* of one *stage*, on all of them."""
    box = [value]
    dist.broadcast_object_list(box, stages.ranks[stage], group=stages.group, device=accelerator.device())
    return box[0]


def shown(tensor: torch.Tensor | None, shape: travel.Shape, stage: int, stages: Stages) -> torch.Tensor:
    """The *tensor* of one *stage*, of a known *shape*, on all of them."""
    if tensor is None or stages.span.stage != stage:
        tensor = torch.empty(shape.size, dtype=shape.dtype, device=accelerator.device())
    sent = tensor.detach().contiguous()
    dist.broadcast(sent, stages.ranks[stage], group=stages.group)
    return sent


def row(value: Any, form: travel.Form, stage: int, stages: Stages) -> torch.Tensor:
    """*value*, of a known *form*, of one *stage*, as a row of numbers on all of them."""
    mine = travel.row(value, form, form.numbers) if stages.span.stage == stage else None
    return shown(mine, travel.Shape(size=torch.Size([form.numbers]), dtype=form.dtype), stage, stages)


def over(outputs: "Outputs | None", has_loss: bool, stages: Stages) -> "tuple[Outputs, bool]":
    """The *outputs* of the last stage, None on the others, and whether a loss is in them; on all stages."""
    last = stages.span.stages - 1
    leaves, spec, marked = outputs or ((), None, ())
    mine = travel.Form(spec=spec, leaves=tuple(map(travel.shape_of, leaves))) if outputs else None
    form, marked, has_loss = told((mine, marked, has_loss), last, stages)
    handed = [
        shown(leaves[place] if leaves else None, each, last, stages) if isinstance(each, travel.Shape) else each
        for place, each in enumerate(form.leaves)
    ]
    return (handed, form.spec, marked), has_loss


def gradients(
    work: "Work", plain: Plain, of_inputs: Sequence[torch.Tensor | None], stages: Stages
) -> tuple[list[Any], list[Any]]:
    """What all stages found for the parameters and the arguments of *work*: sums, or what the one holder has."""
    mine = [plain.gradient(parameter) for parameter in work.parameters]
    found = [*mine, *of_inputs]
    reached = torch.tensor([each is not None for each in found], dtype=torch.int32, device=accelerator.device())
    dist.all_reduce(reached, dist.ReduceOp.MAX, group=stages.group)
    is_reached = reached.tolist()
    shared = [
        (place, like)
        for place, like in enumerate([*work.parameters, *work.inputs()])
        if is_reached[place] and not isinstance(like, DTensor)
    ]
    _add_up(found, shared, stages)
    for place, parameter in enumerate(work.parameters):
        if is_reached[place] and isinstance(parameter, DTensor):
            found[place] = _of_owner(found[place], parameter)
    return found[: len(mine)], found[len(mine) :]


def _add_up(found: list[Any], shared: Sequence[tuple[int, torch.Tensor]], stages: Stages) -> None:
    """Put the sums over all stages in the place of what this one *found*, in one exchange for each type."""
    for kind in dict.fromkeys(like.dtype for _, like in shared):
        same = [(place, like) for place, like in shared if like.dtype == kind]
        flat = torch.cat([_numbers(found[place], like) for place, like in same])
        dist.all_reduce(flat, group=stages.group)
        for (place, like), part in zip(same, flat.split([like.numel() for _, like in same]), strict=True):
            found[place] = part.view(like.shape).clone()  # a view would keep all of them


def _numbers(gradient: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    if gradient is None:
        return torch.zeros(like.numel(), dtype=like.dtype, device=accelerator.device())
    return gradient.to(like.dtype).reshape(-1)


def _of_owner(gradient: torch.Tensor | None, parameter: DTensor) -> DTensor:
    mine = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta") if gradient is None else gradient
    return held_by(mine, owner_of(parameter))
