"""The state of a training as named tensors that do not depend on how it is laid out over ranks.

model.0.layers.3.weight      parameters and buffers of the script's models, in the order of their birth
optim.0.7.exp_avg            of an optimizer, by the number of the parameter in it
optim.0.0.old_dirs#3         an entry of a list that an optimizer keeps
grad.0.layers.3.weight       only of scripts that keep gradients from one step to the next
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ....errors import RequestError
from ..layout.spread import native
from . import sharded

_WRAPPINGS = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.")
Tensors = dict[str, torch.Tensor]


def weights(roots: Sequence[nn.Module]) -> Tensors:
    """Parameters and buffers of *roots* by name."""
    found: Tensors = {}
    for number, root in enumerate(roots):
        for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
            found[f"model.{number}.{_plain(name)}"] = tensor
    return found


def _plain(name: str) -> str:
    for wrapping in _WRAPPINGS:
        name = name.replace(wrapping, "")
    return name


def describe(roots: Sequence[nn.Module]) -> dict[str, list[int]]:
    """The whole shape of each weight of *roots* by name."""
    return {name: list(tensor.shape) for name, tensor in weights(roots).items()}


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """All parameters of *optimizer*, in order."""
    return [parameter for entry in optimizer.param_groups for parameter in entry["params"]]


def optimizer_states(optimizers: Sequence[Optimizer]) -> tuple[Tensors, dict[str, Any]]:
    """The states of *optimizers*: the tensors, and the rest, each by name.

    Raises RequestError for a state that is neither a tensor nor a plain value.
    """
    tensors: Tensors = {}
    rest: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for place, parameter in enumerate(parameters_of(optimizer)):
            for key, value in _entries(optimizer.state.get(parameter, {})):
                name = f"optim.{number}.{place}.{key}"
                if torch.is_tensor(value):
                    tensors[name] = value
                elif value is None or isinstance(value, (bool, int, float, str)):
                    rest[name] = value
                else:
                    raise RequestError(
                        f"the optimizer {type(optimizer).__name__} keeps a {type(value).__name__} ({key}), which a"
                        " checkpoint cannot hold; use torch's own optimizers, or submit with --checkpoint off"
                    )
    return tensors, rest


def _entries(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What *state* holds; a list, such as the directions of L-BFGS, as its length and each of its entries."""
    for key, value in state.items():
        if isinstance(value, list):
            yield f"{key}#", len(value)
            yield from _entries({f"{key}#{at}": each for at, each in enumerate(value)})
        else:
            yield key, value


def _state(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The state of which `_entries` gave *entries*."""
    keys = dict.fromkeys(name.partition("#")[0] for name in entries)
    return {key: _entry(key, entries) for key in keys}


def _entry(key: str, entries: Mapping[str, Any]) -> Any:
    count = entries.get(f"{key}#")
    return entries[key] if count is None else [_entry(f"{key}#{at}", entries) for at in range(count)]


def gradients(roots: Sequence[nn.Module]) -> Tensors:
    """The gradients that the parameters of *roots* have."""
    found = {name.replace("model", "grad", 1): tensor for name, tensor in weights(roots).items()}
    return {name: tensor.grad for name, tensor in found.items() if tensor.is_leaf and tensor.grad is not None}


def groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of the groups of *optimizer*, as far as JSON holds them."""
    return [
        {key: value for key, value in entry.items() if key != "params" and _is_plain(value)}
        for entry in optimizer.param_groups
    ]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))


def load(path: Path, roots: Sequence[nn.Module], optimizers: Sequence[Optimizer], facts: Any, group: Any) -> None:
    """Fill *roots* and *optimizers* from the checkpoint at *path*; all ranks must call this together."""
    stored = sharded.kinds(path)
    states = _targets_of_states(stored, optimizers)
    grads = _targets_of_gradients(stored, roots)
    targets = {name: bare(tensor) for name, tensor in {**weights(roots), **states, **grads}.items()}
    sharded.read(path, targets, group)
    for number, optimizer in enumerate(optimizers):
        _give(optimizer, number, states | facts["optimizer_rest"], facts["optimizer_groups"][number])
    for name, parameter in weights(roots).items():
        if isinstance(parameter, nn.Parameter):
            parameter.grad = grads.get(name.replace("model", "grad", 1))


def bare(tensor: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor] = lambda local: local) -> torch.Tensor:
    """*tensor* as torch's own kind, without its graph; *change* is done to what this rank has of it."""
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        if not isinstance(tensor, DTensor):
            return change(tensor.data)
        spec, local = tensor._spec, change(tensor._local_tensor.data)
        return DTensor.from_local(
            local, spec.mesh, spec.placements, run_check=False, shape=spec.shape, stride=spec.stride
        )


def _targets_of_states(stored: Any, optimizers: Sequence[Optimizer]) -> Tensors:
    targets = {}
    for name, facts in stored.items():
        kind, *rest = name.split(".", 3)
        if kind != "optim":
            continue
        parameter = parameters_of(optimizers[int(rest[0])])[int(rest[1])]
        targets[name] = _like(name, facts, parameter)
    return targets


def _like(name: str, facts: Any, parameter: torch.Tensor) -> torch.Tensor:
    """Room for a state: laid out as its parameter where it has the same shape, else whole on this rank."""
    size, dtype = facts.size, facts.properties.dtype
    if tuple(size) == tuple(parameter.shape) and parameter.dim() > 0:
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
    if isinstance(parameter, DTensor) and size.numel() > 1:
        raise RequestError(
            f"the optimizer's state {name} has another shape than its parameter, so it cannot be laid out over ranks"
            " anew; resume with --layout replicate"
        )
    return torch.zeros(size, dtype=dtype)


def _targets_of_gradients(stored: Any, roots: Sequence[nn.Module]) -> Tensors:
    named = weights(roots)
    return {
        name: torch.zeros_like(named[name.replace("grad", "model", 1)], requires_grad=False)
        for name in stored
        if name.startswith("grad.")
    }


def _give(optimizer: Optimizer, number: int, states: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Put what was loaded into *optimizer*, through its own `load_state_dict`, which knows what lives where."""
    own = optimizer.state_dict()
    own["state"] = {}
    for name, value in states.items():
        kind, which, *rest = name.split(".", 3)
        if kind == "optim" and int(which) == number:
            own["state"].setdefault(int(rest[0]), {})[rest[1]] = value
    own["state"] = {place: _state(entries) for place, entries in own["state"].items()}
    own["param_groups"] = [
        {**mine, **{key: _as(mine.get(key), value) for key, value in stored.items()}}
        for mine, stored in zip(own["param_groups"], groups, strict=True)
    ]
    with native():
        optimizer.load_state_dict(own)


def _as(mine: Any, stored: Any) -> Any:
    return tuple(stored) if isinstance(mine, tuple) else stored
