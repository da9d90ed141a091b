"""A step of an optimizer whose parameters are spread over ranks: each rank updates its parts.

Torch's own optimizers work on each number by itself. So a step gets plain tensors, the parts, in place of the spread
parameters, their gradients and states: torch can do all operations on these, several tensors at a time where it does so
by default, and looks at no layout. What the script holds stays spread.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim import optimizer as of_torch

from ....errors import RequestError
from .spread import Spread, edited, native

_ON_PARTS = frozenset(
    getattr(torch.optim, name, None)
    for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta", "ASGD")
)
"""Optimizers that update each number by itself."""


def step(optimizer: Optimizer, call: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A step of an optimizer; torch's own, which work on each number alone, get the parts as they are."""
    edited()
    closure = args[0] if args else kwargs.get("closure")
    if closure is not None or type(optimizer) not in _ON_PARTS:
        return call(*args, **kwargs)
    if not _has_hooks(optimizer) and all(_is_alike(each, optimizer.state.get(each)) for each in _parameters(optimizer)):
        with _of_parts(optimizer):
            return call(*args, **kwargs)
    if not all(isinstance(each, Spread) for each in _parameters(optimizer)):
        return call(*args, **kwargs)
    try:
        with native():
            return call(*args, **kwargs)
    except NotImplementedError as error:
        raise RequestError(
            f"{type(optimizer).__name__} uses an operation that torch cannot do on weights in parts"
            f" ({str(error).splitlines()[0]}); use --layout replicate"
        ) from error


def _parameters(optimizer: Optimizer) -> list[Any]:
    return [each for entry in optimizer.param_groups for each in entry["params"]]


def _has_hooks(optimizer: Optimizer) -> bool:
    """Whether somebody looks at the optimizer in its step, and must see what it has."""
    hooks: tuple[str, ...] = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
    own: tuple[str, ...] = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    return any(getattr(of_torch, name, None) for name in hooks) or any(getattr(optimizer, name, None) for name in own)


def _is_alike(parameter: Any, state: Any) -> bool:
    """Whether gradient and *state* of *parameter* are spread as it is itself."""
    with torch._C.DisableTorchFunctionSubclass():
        others = [parameter.grad, *(state or {}).values()]
    if not isinstance(parameter, DTensor):
        return not any(isinstance(each, DTensor) for each in others)
    tensors = [each for each in others if isinstance(each, DTensor) or (isinstance(each, torch.Tensor) and each.dim())]
    where = parameter._spec.placements
    return all(isinstance(each, DTensor) and each._spec.placements == where for each in tensors)


@contextmanager
def _of_parts(optimizer: Optimizer) -> Iterator[None]:
    """Within this *optimizer* has the parts of this rank."""
    spread, state = [entry["params"] for entry in optimizer.param_groups], optimizer.state
    parts = {each: _part(each) for each in _parameters(optimizer)}
    optimizer.state = defaultdict(dict)
    for parameter, part in parts.items():
        if parameter in state:
            optimizer.state[part] = {name: _plain(value) for name, value in state[parameter].items()}
    for entry in optimizer.param_groups:
        entry["params"] = [parts[each] for each in entry["params"]]
    try:
        yield
    finally:
        for entry, parameters in zip(optimizer.param_groups, spread, strict=True):
            entry["params"] = parameters
        now, optimizer.state = optimizer.state, state
        for parameter, part in parts.items():
            if part in now:
                _take_back(state[parameter], now[part], parameter)


def _part(parameter: Any) -> Any:
    """What this rank has of *parameter*, with its gradient; another tensor of the same memory."""
    if not isinstance(parameter, DTensor):
        return parameter
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        part = parameter._local_tensor.detach()
        part.grad = _plain(parameter.grad)
    return part


def _plain(value: Any) -> Any:
    return value._local_tensor if isinstance(value, DTensor) else value


def _take_back(state: dict[str, Any], now: dict[str, Any], parameter: Any) -> None:
    """Bring *state* of *parameter* to what it is *now*, that of its part."""
    for name, value in now.items():
        if _plain(state.get(name)) is value:
            continue
        is_spread = isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.dim() > 0
        state[name] = _spread(value, parameter) if is_spread else value


def _spread(part: torch.Tensor, parameter: DTensor) -> DTensor:
    """*part*, of this rank, as a tensor that is spread as *parameter* is."""
    spec = parameter._spec
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        made = DTensor.from_local(
            part, spec.mesh, spec.placements, run_check=False, shape=parameter.shape, stride=spec.stride
        )
    made.__class__ = Spread
    return made
