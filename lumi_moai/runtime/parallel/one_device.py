"""On a node whose devices are all visible, the device that a script numbers is the rank's own.

A script for one device says `cuda:0`, `.to(0)` or `.cuda(0)`; on every rank that means the device of this rank. Only
calls that name a device are replaced, so that all others cost what they did. Where the CPU stands in nothing is to do.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from .. import accelerator

IsOn = Callable[[], bool]
_MAKING = (
    *("tensor", "as_tensor", "asarray", "frombuffer", "empty", "zeros", "ones", "full", "eye", "arange", "linspace"),
    *(
        "logspace",
        "rand",
        "randn",
        "randint",
        "randperm",
        "normal",
        "empty_like",
        "zeros_like",
        "ones_like",
        "full_like",
    ),
    *("rand_like", "randn_like", "randint_like", "empty_strided", "tril_indices", "triu_indices"),
    *("set_default_device", "load"),
)
_MOVING = ("to", "cuda", "new_tensor", "new_empty", "new_zeros", "new_ones", "new_full")
_IN_CUDA = (
    *("set_device", "synchronize", "get_device_name", "get_device_capability", "get_device_properties", "mem_get_info"),
    *("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "memory_stats"),
    *("memory_summary", "reset_peak_memory_stats", "utilization", "temperature", "power_draw"),
    *("current_stream", "default_stream", "get_rng_state", "set_rng_state"),
)
_WORDS = ("device", "map_location")


def install(is_on: IsOn) -> None:
    """Replace the calls that name a device, if several are visible; *is_on*: whether the ranks are one device."""
    data_parallel: Any = sys.modules["torch.nn.parallel.data_parallel"]  # a function of torch has that name too
    data_parallel._get_available_device_type = _no_device(data_parallel._get_available_device_type, is_on)
    if not accelerator.is_gpu() or torch.cuda.device_count() == 1:
        return
    own = torch.cuda.current_device()
    for name in _MAKING:
        setattr(torch, name, named(getattr(torch, name), own, is_on))
    for name in _MOVING:
        setattr(torch.Tensor, name, named(getattr(torch.Tensor, name), own, is_on, first=name in ("to", "cuda")))
    for name in ("to", "cuda"):
        setattr(torch.nn.Module, name, named(getattr(torch.nn.Module, name), own, is_on, first=True))
    for name in _IN_CUDA:
        setattr(torch.cuda, name, named(getattr(torch.cuda, name), own, is_on, first=True))
    torch.cuda.device.__init__ = named(torch.cuda.device.__init__, own, is_on, first=True)
    torch.cuda.device_count = _one(torch.cuda.device_count, is_on)


def named(own_call: Callable[..., Any], own: int, is_on: IsOn, *, first: bool = False) -> Callable[..., Any]:
    """*own_call*, with device *own* for any number that it is given; *first*: a bare number is a device as well."""

    @functools.wraps(own_call)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_on():
            args = tuple(meant(value, own, numbers=first) for value in args)
            kwargs = {
                name: meant(value, own, numbers=True) if name in _WORDS else value for name, value in kwargs.items()
            }
        return own_call(*args, **kwargs)

    return call


def meant(value: Any, own: int, *, numbers: bool) -> Any:
    """What *value* means on the rank whose device is *own*; *numbers*: a bare number is a device."""
    if isinstance(value, str):
        return f"cuda:{own}" if value.startswith("cuda:") else value
    if isinstance(value, torch.device):
        return torch.device("cuda", own) if value.type == "cuda" and value.index is not None else value
    if numbers and isinstance(value, int) and not isinstance(value, bool):
        return own
    return value


def _no_device(own_call: Callable[[], Any], is_on: IsOn) -> Callable[[], Any]:
    """So that torch's `DataParallel`, which looks for several devices, calls the model as it is."""

    @functools.wraps(own_call)
    def device_type() -> Any:
        return None if is_on() else own_call()

    return device_type


def _one(own_call: Callable[[], int], is_on: IsOn) -> Callable[[], int]:
    @functools.wraps(own_call)
    def device_count() -> int:
        return 1 if is_on() else own_call()

    return device_count
