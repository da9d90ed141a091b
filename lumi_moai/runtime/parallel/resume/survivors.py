"""The tensors that a script holds at a step besides its models and optimizers: running sums, averages of weights.

They are found from the script's own frames: variables, and what lists, dicts and objects in them hold. The name of a
tensor is the way to it, which is the same when a restarted script stands at the same line.
"""

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from ..layout import now

_DEEPEST = 4
_LONGEST = 4096
_OF_MODULES = frozenset(vars(nn.Module()))
_NOT_INTO = (ModuleType, type, Optimizer, DataLoader, Dataset, str, bytes, int, float)


def find(is_scripts: Any, known: set[int]) -> dict[str, torch.Tensor]:
    """The tensors in the frames whose code *is_scripts*, by the way to each; not those whose id is *known*."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for place, frame in enumerate(_frames(is_scripts)):
        for name, value in list(frame.f_locals.items()):
            if not name.startswith("__"):
                for way, tensor in _walk(value, f"{place}.{frame.f_code.co_name}.{name}", 0, seen):
                    if id(tensor) not in known:
                        found.setdefault(way, tensor)
    return found


def _frames(is_scripts: Any) -> list[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    found = []
    while frame is not None:
        if is_scripts(frame.f_code):
            found.append(frame)
        frame = frame.f_back
    return found[::-1]


def _walk(thing: Any, way: str, depth: int, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(thing, torch.Tensor):
        yield way, now(thing)
        return
    if thing is None or isinstance(thing, _NOT_INTO) or depth > _DEEPEST or id(thing) in seen:
        return
    seen.add(id(thing))
    for name, part in _parts(thing):
        yield from _walk(part, f"{way}.{name}", depth + 1, seen)


def _parts(thing: Any) -> Sequence[tuple[object, Any]]:
    if isinstance(thing, nn.Module):
        return [*thing.named_parameters(), *thing.named_buffers(), *_attributes(thing)]
    if isinstance(thing, dict):
        return list(dict.items(thing))[:_LONGEST]
    if isinstance(thing, (list, tuple, deque)):
        return list(enumerate(thing))[:_LONGEST]
    is_code = isinstance(thing, (Mapping, FunctionType, MethodType, partial))
    return list(vars(thing).items()) if hasattr(thing, "__dict__") and not is_code else []


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What *module* and its parts have beside weights and buffers: the sums of a metric, what a step keeps."""
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if key not in _OF_MODULES and isinstance(value, (torch.Tensor, list, dict)):
                yield f"{name}.{key}", value
