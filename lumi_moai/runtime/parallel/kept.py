"""Buffers that a model changes with each batch: a running mean, a codebook, a center, a queue.

Each rank would change them with its own rows. Where the forward is the script's own its lines are followed, so that
they are of all rows. Where it is a library's, or lines cannot be followed, the ranks' buffers must be alike after the
first call. Those of torch's BatchNorm are made alike anyway.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import RequestError
from .. import group
from .by_model import is_users

Versions = dict[str, tuple[int, int]]
_ROUNDING = 1e-4


def versions(model: nn.Module) -> Versions:
    """Each buffer of *model*, and how often it was edited."""
    return {place: (id(buffer), buffer._version) for place, _, buffer in _buffers(model)}


def changed_by_users(model: nn.Module, before: Versions) -> bool:
    """Whether a part of *model* that is the script's own changed a buffer since it had those of *before*."""
    return any(is_users(owner) for _, owner, _ in _changed(model, before))


def check_alike(model: nn.Module, before: Versions) -> None:
    """Raise RequestError, on all ranks alike, when a call of *model* left other numbers in a buffer on each rank."""
    changed = {place for place, _, _ in _changed(model, before)}
    if not group.total(torch.tensor(float(bool(changed)))):
        return
    mine = torch.tensor([_sums(buffer) for _, _, buffer in _buffers(model)])
    theirs = group.agree(mine)
    unlike = ((mine - theirs).abs() > _ROUNDING * theirs.abs().clamp(min=1e-6)).any(1)
    for (place, _, _), ranks in zip(_buffers(model), group.total(unlike.float()).tolist(), strict=True):
        if ranks:
            raise RequestError(
                f"the forward of {type(model).__name__} changes its buffer {place} with the rows of each rank, and its"
                " lines are not followed; run it on one device, or change it outside of the model, from what it returns"
            )


def _sums(buffer: torch.Tensor) -> list[float]:
    with torch.no_grad():
        return [float(buffer.double().sum()), float(buffer.double().abs().sum())]


def _buffers(model: nn.Module) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    for place, owner in model.named_modules():
        if not isinstance(owner, _BatchNorm):
            for name, buffer in owner.named_buffers(recurse=False):
                yield f"{place}.{name}".lstrip("."), owner, buffer


def _changed(model: nn.Module, before: Versions) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    for place, owner, buffer in _buffers(model):
        if before.get(place) != (id(buffer), buffer._version):
            yield place, owner, buffer
