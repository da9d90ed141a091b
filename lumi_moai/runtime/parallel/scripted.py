"""What `torch.jit.script` compiles calls torch's own functions, not those that stand in their place.

It reads the source of each function that a script names, and the ones here follow rows in ways that it cannot compile.
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.jit import _builtins, _recursive

from ...errors import RequestError

_HERE = __name__.partition(".parallel")[0]


_COMPILED: WeakSet[torch.jit.ScriptModule] = WeakSet()
"""The models that have a BatchNorm which a script compiled."""


def install() -> None:
    """Have the compiler find the functions of torch, and know the models that it made."""
    find, compiled = _builtins._find_builtin, _recursive.try_compile_fn
    _builtins._find_builtin = lambda function: find(_own(function))
    _recursive.try_compile_fn = lambda function, place: compiled(_own(function), place)
    # Not `torch.jit.script` itself, which looks up names in the frame that calls it.
    for owner, name in ((_recursive, "create_script_module"), (torch.jit, "trace"), (torch.jit, "load")):
        setattr(owner, name, _noted(getattr(owner, name)))


def _own(function: Any) -> Any:
    """Torch's function that *function* stands for; any other function itself."""
    while isinstance(function, FunctionType) and function.__globals__.get("__name__", "").startswith(_HERE):
        function = getattr(function, "__wrapped__", None)
    return function


def _noted(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def made(*args: Any, **kwargs: Any) -> Any:
        found = own(*args, **kwargs)
        if isinstance(found, torch.jit.ScriptModule) and any(map(_is_norm, found.modules())):
            _COMPILED.add(found)
        return found

    return made


def _is_norm(part: nn.Module) -> bool:
    return getattr(part, "original_name", "").startswith("BatchNorm")


def check() -> None:
    """Raise RequestError for a compiled BatchNorm in training, which no rank could share with the others."""
    for model in list(_COMPILED):
        if any(_is_norm(part) and part.training for part in model.modules()):
            raise RequestError(
                f"{model.original_name} has a BatchNorm that torch.jit compiled, which takes the mean of each rank's"
                " rows and not of the batch; leave torch.jit out, or train on one device"
            )
