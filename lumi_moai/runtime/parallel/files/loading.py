"""`torch.load` on every rank, and plain states into spread models and their optimizers."""

import functools
import os
from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from ... import accelerator
from .. import layout
from ..layout.spread import part_of
from .writing import DESK

if TYPE_CHECKING:
    from ..seen import Seen


def torch_load(own: Callable[..., Any], seen: "Seen") -> Callable[..., Any]:
    """Each rank reads; where models are spread, without a copy of the file in memory if the file allows it."""

    @functools.wraps(own)
    def load(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        if seen.engine is None:
            return own(f, map_location, *args, **kwargs)
        if map_location is None and accelerator.is_gpu():
            map_location = _to_own_device
        if isinstance(f, (str, os.PathLike)):
            f = DESK.settled(f)
            if seen.engine.may_shard and kwargs.get("mmap") is None and _can_be_mapped(f):
                kwargs["mmap"] = True
        return own(f, map_location, *args, **kwargs)

    return load


def _to_own_device(storage: Any, place: str) -> Any:
    """What was saved on a GPU comes to the rank's own, not to the one of the same number."""
    if not place.startswith("cuda"):
        return storage
    return torch.serialization.default_restore_location(storage, str(accelerator.device()))


def _can_be_mapped(f: Any) -> bool:
    try:
        with open(f, "rb") as file:
            return torch.serialization._is_zipfile(file)
    except OSError:
        return False  # torch says best what is wrong with it


def module_state(own: Callable[..., Any]) -> Callable[..., Any]:
    """`Module.load_state_dict`: a spread parameter takes values in, it is not replaced."""

    @functools.wraps(own)
    def load_state_dict(module: torch.nn.Module, state: Any, strict: bool = True, assign: bool = False) -> Any:
        spread = assign and any(_is_spread(each) for each in module.parameters())
        return own(module, state, strict=strict, assign=assign and not spread)

    return load_state_dict


def optimizer_state(own: Callable[..., None]) -> Callable[..., None]:
    """`Optimizer.load_state_dict`: states of a spread parameter are spread as it is."""

    @functools.wraps(own)
    def load_state_dict(optimizer: Optimizer, state_dict: Any) -> None:
        own(optimizer, _spread(state_dict, optimizer))

    return load_state_dict


def _spread(state: Any, optimizer: Optimizer) -> Any:
    parameters = [layout.now(each) for entry in optimizer.param_groups for each in entry["params"]]
    if not any(_is_spread(each) for each in parameters):
        return state
    keys = list(chain.from_iterable(entry["params"] for entry in state["param_groups"]))
    if len(keys) != len(parameters):
        return state  # torch says best what is wrong with it
    of = dict(zip(keys, parameters, strict=True))
    return {**state, "state": {key: _part(values, of.get(key)) for key, values in state["state"].items()}}


def _part(values: Any, parameter: torch.Tensor | None) -> Any:
    if parameter is None or not _is_spread(parameter) or not isinstance(values, Mapping):
        return values
    return {name: part_of(value, parameter) if _is_whole(value, parameter) else value for name, value in values.items()}


def _is_whole(value: Any, parameter: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and not _is_spread(value) and value.shape == parameter.shape


def _is_spread(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.distributed.tensor.DTensor)
