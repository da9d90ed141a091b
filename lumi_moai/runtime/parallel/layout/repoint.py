"""The parameters that a script holds from before its model was laid out: lists of them go on to work."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from ....errors import RequestError
from ..hooked import hooks_of, is_scripts
from .spread import Spread, part_of, whole

_NOW = "_lumi_moai_spread"
"""Attribute of a parameter from before: the one of now."""
_IDENTITY = frozenset(("__hash__",))


class Leading:
    """Whatever is done to a parameter from before is done to the one that it has become."""

    __slots__ = ()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """What the parameter of now answers."""
        if func.__name__ in _IDENTITY:
            return object.__hash__(args[0])
        args, kwargs = tree_map(now, (args, kwargs or {}))
        return func(*args, **kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """As torch prints the whole parameter."""
        return repr(now(self))

    def __format__(self, spec: str) -> str:
        """As torch formats the whole parameter."""
        return format(now(self), spec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return now(self).__reduce_ex__(protocol)


class Moved(Leading, nn.Parameter):
    """A parameter that was whole."""


class MovedPart(Leading, torch.Tensor):
    """A parameter that was in parts from its birth. It is no DTensor: nobody shall take its parts for those of now."""

    __slots__ = DTensor.__slots__


def now(value: Any) -> Any:
    """The parameter that *value* has become, if it is one from before; else *value*."""
    return vars(value)[_NOW] if isinstance(value, Leading) else value


def lead(moves: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Let each old parameter lead to its new one, and give it what the old one had.

    Raises RequestError for an old one that has a hook on its gradient.
    """
    for old, new in moves:
        if any(map(is_scripts, hooks_of(old))):
            raise RequestError(
                "a parameter has a hook on its gradient, which would see a part of it when the model is spread over"
                " ranks; use --layout replicate"
            )
        new.__dict__.update({name: each for name, each in vars(old).items() if name != "_is_param"})
        if isinstance(new, DTensor):
            new.__class__ = Spread
        if old.grad is not None:
            full = whole(old.grad)
            new.grad = part_of(full, new) if isinstance(new, DTensor) else full
            old.grad = None
        with torch._C.DisableTorchFunctionSubclass():
            _poison(old)
            if not isinstance(old, DTensor):
                old.data = old.data.new_empty(0)
        setattr(old, _NOW, new)
        old.__class__ = MovedPart if isinstance(old, DTensor) else Moved


def _poison(old: torch.Tensor) -> None:
    """Let a backward through a graph from before fail, rather than lose its gradient."""
    if old.requires_grad:
        torch.autograd.graph.get_gradient_edge(old).node.register_prehook(_too_old)


def _too_old(_: Any) -> None:
    raise RequestError(
        "a loss was computed before training began and its backward comes after; compute it again after the first step"
    )


def optimizers(found: Iterable[Optimizer]) -> None:
    """Give the optimizers *found* the new parameters for the old ones: same order, same groups, same states."""
    for optimizer in found:
        for entry in optimizer.param_groups:
            # In the list itself, which L-BFGS keeps beside, and under whose first parameter it looks for its state.
            entry["params"][:] = [now(parameter) for parameter in entry["params"]]
        for old in [key for key in optimizer.state if now(key) is not key or isinstance(key, DTensor)]:
            new = now(old)
            optimizer.state[new] = _spread_state(optimizer.state.pop(old), new)


def _spread_state(state: Any, like: torch.Tensor) -> Any:
    if not isinstance(state, Mapping):
        return state
    return {name: _spread_value(value, like) for name, value in state.items()}


def _spread_value(value: Any, like: torch.Tensor) -> Any:
    if not isinstance(value, torch.Tensor) or value.shape != like.shape:
        return value
    if not isinstance(like, DTensor):
        return whole(value)
    if isinstance(value, DTensor) and value._spec.mesh == like._spec.mesh:
        return value
    return part_of(whole(value), like)
