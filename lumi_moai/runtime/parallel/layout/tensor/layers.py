"""Layers of which each rank has the weights of a part of the outputs, or of the inputs.

Which of both is a matter of speed only, so the field's names decide it: first layers of a pair have their outputs
spread and second layers their inputs, so that what is between stays where it is. Other layers in blocks have their
outputs spread and put together at once.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.distributed.tensor import DTensor, Shard

from .....errors import RequestError
from ...place import Place
from .. import born
from ..shard import is_here
from . import attention, columns, moves, rules


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FIRST = _words(
    "q k v q_proj k_proj v_proj query key value query_key_value qkv qkv_proj Wqkv wq wk wv q_lin k_lin v_lin c_attn"
    " in_proj gate up gate_proj up_proj gate_up_proj c_fc fc1 w1 w3 wi wi_0 wi_1 linear1 lin1 fc_in dense_h_to_4h"
    " intermediate.dense to_q to_k to_v to_qkv to_kv kv kv_proj q_attn Wi"
)
"""Layers that open a pair."""
_SECOND = _words(
    "o o_proj out_proj c_proj proj out_lin wo w2 down down_proj fc2 linear2 lin2 fc_out dense_4h_to_h output.dense"
    " attention.dense to_out Wo"
)
"""Layers that close a pair."""
_ON_EACH = frozenset(("torch.nn.modules.activation", "torch.nn.modules.dropout"))
"""Where torch has its layers that work on each number."""
_CLASSES: dict[tuple[type, str], type] = {}


class Split(nn.Module):
    """A layer of which this rank has a part; it is stored, and made again, as what it was."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(vars(self), memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, made_of, *rest = super().__reduce_ex__(protocol)
        own = next(own for (own, _), made in _CLASSES.items() if made is type(self))
        return (make, tuple(own if part is type(self) else part for part in made_of), *rest)


def apply(root: nn.Module, lists: Sequence[Sequence[nn.Module]], place: Place) -> bool:
    """Spread the layers of *root* over the ranks of tp; True if that was done.

    Raises RequestError for a model in which nothing can be spread.
    """
    tp = place.plan.tp
    if tp == 1 or not is_here(root, place):
        return False
    if place.plan.compile:
        raise RequestError("compile does not go together with tp yet; leave one of both out of --layout")
    moves.use(place.mesh["tp"])
    columns.use(rules.TABLE)
    columns.guard()
    within = {id(module) for blocks in lists for block in blocks for module in block.modules()}
    pairs = _pairs(root, within, tp)
    kinds = (
        (module, pairs.get(id(module)) or _kind(name, module, within, tp)) for name, module in root.named_modules()
    )
    found = [(module, kind) for module, kind in kinds if kind]
    if not found:
        raise RequestError(
            f"{type(root).__name__} has no layers that tp={tp} can spread: Linear layers in repeated blocks, or with"
            f" names such as q_proj, c_fc or fc1, whose sizes {tp} divides, or torch's attention with such a number of"
            " heads; use --layout replicate or fsdp"
        )
    shared = _shared(root)
    for module, kind in found:
        if not any(id(parameter) in shared for parameter in module.parameters()):
            _split(module, kind, place)
    return True


def _shared(root: nn.Module) -> set[int]:
    """Parameters that stand in more than one place: what is tied stays in one piece."""
    times: dict[int, int] = {}
    for _, parameter in root.named_parameters(remove_duplicate=False):
        times[id(parameter)] = times.get(id(parameter), 0) + 1
    return {key for key, count in times.items() if count > 1}


def _pairs(root: nn.Module, within: set[int], tp: int) -> dict[int, str]:
    """Layers of blocks that stand in one Sequential, with nothing between but what works on each number: pairs."""
    kinds: dict[int, str] = {}
    for holder in root.modules():
        opened = None
        for module in holder if type(holder) is nn.Sequential else ():
            size = _sizes(module) if id(module) in within else None
            if size is None:
                opened = opened if type(module).__module__ in _ON_EACH else None
            elif opened is not None and size[0] % tp == 0:
                kinds |= {id(opened): "first", id(module): "second"}
                opened = None
            else:
                opened = module if size[1] % tp == 0 else None
    return kinds


def _kind(name: str, module: nn.Module, within: set[int], tp: int) -> str | None:
    """What to do with *module*: `first`, `second`, `alone`, `attention`, or None."""
    if attention.can_spread(module, tp):
        return "attention"
    size = _sizes(module)
    if size is None:
        return None
    words = name.split(".")
    words = words[:-1] if words[-1].isdigit() else words  # the layer of a Sequential that has the name
    ends = {".".join(words[-count:]) for count in (1, 2)}
    # A name of two words says more than its last word alone.
    if ends & _SECOND and size[0] % tp == 0:
        return "second"
    if size[1] % tp:
        return None
    return "first" if ends & _FIRST else "alone" if id(module) in within else None


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a layer that can be spread; None for anything else."""
    if "weight" not in module._parameters or module.weight is None or module.weight.dim() != 2:
        return None
    if type(module) is nn.Linear:
        return module.in_features, module.out_features
    if _is_transposed(module):
        return module.weight.shape[0], module.weight.shape[1]
    return None


def _is_transposed(module: nn.Module) -> bool:
    """Whether this is the layer of GPT-2 in transformers, whose weight is the other way round."""
    return any(
        (each.__module__, each.__name__) == ("transformers.pytorch_utils", "Conv1D") for each in type(module).__mro__
    )


def _split(module: nn.Module, kind: str, place: Place) -> None:
    for name, holder, axis in _parts_of(module, kind):
        _spread(holder, name, axis, place)
    own = type(module)
    if (own, kind) not in _CLASSES:
        body = {"forward": _FORWARDS[kind], "__module__": own.__module__, "__qualname__": own.__qualname__}
        _CLASSES[own, kind] = type(own.__name__, (Split, own), body)
    module.__class__ = _CLASSES[own, kind]


def _parts_of(module: nn.Module, kind: str) -> Iterator[tuple[str, nn.Module, int]]:
    """Name of each parameter that is spread, the module that has it, and the axis."""
    if kind == "attention":
        yield from attention.parts_of(module)
        return
    yield "weight", module, int((kind == "second") != _is_transposed(module))
    if kind != "second" and module.bias is not None:
        yield "bias", module, 0


def _spread(module: nn.Module, name: str, axis: int, place: Place) -> None:
    mesh, parameter = place.mesh["tp"], getattr(module, name)
    if isinstance(parameter, DTensor) and place.plan.dp_shard > 1:
        born.cut_across(parameter, axis, place)
        return

    def mine(full: torch.Tensor) -> DTensor:
        part = full.chunk(mesh.size(), axis)[mesh.get_local_rank()].clone(memory_format=torch.contiguous_format)
        return DTensor.from_local(part, mesh, [Shard(axis)], run_check=False)

    module._parameters[name] = born.lay_out(parameter, mine)


def _weight(module: nn.Module) -> torch.Tensor:
    mine: torch.Tensor = moves.mine(module.weight)
    return mine.t() if _is_transposed(module) else mine


def _first(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    whole = moves.copy(columns.together(x))
    y = F.linear(whole, _weight(module), moves.mine(module.bias))
    return columns.mark(y, y.dim() - 1)


def _alone(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return columns.together(_first(module, x))


def _second(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    weight = _weight(module)
    y = moves.total(F.linear(columns.aligned(x, weight.shape[1] * moves.ranks()), weight))
    bias = moves.mine(module.bias)
    return y if bias is None else y + bias.to(y.dtype)


_FORWARDS: Mapping[str, Callable[..., Any]] = {
    "first": _first,
    "second": _second,
    "alone": _alone,
    "attention": attention.forward,
}
