"""Lay a model out over the ranks, in place: the script's `model` and `optimizer` stay the script's.

What is here:

blocks     the layers that repeat
tensor/    matrix products spread over ranks
pipeline/  blocks in stages
recompute  blocks computed again in backward
precision  bfloat16, and compiled blocks
shard      one copy spread over ranks (FSDP2)
sight      what the script sees between forward and backward
repoint    what the script holds from before leads to the spread parameters
born       parameters that are cut as soon as a module gets them
spread     how a parameter in parts answers the script
updates    steps of optimizers on the parts
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ....errors import RequestError
from ....plan import Plan
from ...here import is_in_thread
from ..place import Place
from . import blocks, born, pipeline, precision, recompute, repoint, shard, tensor, updates
from .born import give_memory_back
from .born import mesh as ranks_of_birth
from .pipeline import Calls
from .repoint import now
from .spread import Spread, whole

__all__ = [
    "Calls",
    "Spread",
    "apply",
    "callers",
    "check_backward",
    "full_state",
    "give_memory_back",
    "idle",
    "kept_whole",
    "now",
    "ranks_of_birth",
    "rest",
    "steppers",
    "whole",
    "without_blocks",
]

Step = Callable[[nn.Module, Sequence[Sequence[nn.Module]], Place], Any]
_STEPS: tuple[Step, ...] = (
    lambda root, lists, place: recompute.apply(lists, place.plan),
    lambda root, lists, place: precision.compiled(lists, place.plan),
    pipeline.apply,
    tensor.apply,
    lambda root, lists, place: born.settle(root.modules(), place),
    shard.apply,
)
"""What is done to a model, in this order."""


def apply(root: nn.Module, place: Place, optimizers: Iterable[Optimizer] = ()) -> None:
    """Lay *root* out as the plan says, and give *optimizers* the parameters that it has now.

    Raises RequestError for a model that cannot be laid out so.
    """
    if place.data_ranks > 1:
        _check_max_norm(root)
    lists = blocks.find(root)
    before = dict(root.named_parameters(remove_duplicate=False))
    for step in _STEPS:
        step(root, lists, place)
    after = dict(root.named_parameters(remove_duplicate=False))
    moves = {id(old): (old, after[name]) for name, old in before.items() if old is not after[name]}
    repoint.lead(moves.values())
    repoint.optimizers(optimizers)


def rest(modules: Iterable[nn.Module], place: Place, optimizers: Iterable[Optimizer]) -> None:
    """Lay out the parameters of *modules* that still wait in parts, as no model's layout needs them: whole, or cut."""
    moves = born.settle(modules, place)
    repoint.lead(moves)
    if moves:
        repoint.optimizers(optimizers)


@contextmanager
def kept_whole(module: nn.Module) -> Iterator[None]:
    """Within this *module* has whole what waited in parts for a layout that keeps it whole or spreads its products."""
    with born.halted(module) as moves:
        repoint.lead(moves)
        yield


def _check_max_norm(root: nn.Module) -> None:
    for name, module in root.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
            raise RequestError(
                f"{name or type(root).__name__} edits its weight in forward (max_norm), on each rank for the words of"
                " its own rows, so the ranks' weights would part; leave max_norm out, or run it on one device"
            )


def idle(root: nn.Module, plan: Plan) -> str | None:
    """The sentence that says what of *plan* leaves *root* as it is; None when nothing does."""
    if (plan.recompute == "none" and not plan.compile) or blocks.find(root):
        return None
    name = type(root).__name__
    return f"{name} has no list of like blocks, so recompute and compile leave it as it is"


def without_blocks(plan: Plan) -> Plan:
    """What *plan* does where no model has blocks."""
    return replace(plan, recompute="none", compile=False)


def full_state(tensor: torch.Tensor) -> torch.Tensor:
    """All of *tensor* without its graph, on this rank's device; a plain one as it is. All ranks call this together.

    Raises RequestError in a thread beside the script's, which the ranks do not run at the same moment.
    """
    spread = now(tensor)
    if isinstance(spread, DTensor) and is_in_thread():
        raise RequestError(
            "a thread saves weights that are spread over ranks, which all ranks must put together at the same moment;"
            " save without a thread, or use --layout replicate"
        )
    with torch.no_grad():
        return whole(spread)


def callers(place: Place) -> list[Callable[..., Any]]:
    """Who takes part in a call of a model, the outermost first."""
    bf16 = [precision.in_bfloat16] if place.plan.precision == "bf16" else []
    spread = [shard.after_call] if place.plan.dp_shard > 1 else []
    return [*spread, *bf16]


def check_backward(place: Place, inputs: Any, *, create_graph: bool) -> None:
    """Refuse a backward, or a `torch.autograd.grad`, that would go wrong in this layout.

    Raises RequestError.
    """
    if place.plan.dp_shard * place.plan.tp * place.plan.pp > 1:
        shard.check_backward(inputs, create_graph=create_graph)


def steppers(place: Place) -> list[Callable[..., Any]]:
    """Who takes part in a step of an optimizer, the outermost first."""
    return [updates.step] if place.plan.dp_shard * place.plan.tp * place.plan.pp > 1 else []
