"""What a model changes with each batch: a running mean, a codebook, a center, a queue, in buffers or in parameters.

Each rank would change them with its own rows. Where the forward is the script's own its lines are followed, so that
they are of all rows. Where it is a library's, or lines cannot be followed, the ranks' numbers must be alike after the
first call. Those of torch's BatchNorm are made alike anyway.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import RequestError
from .. import group
from .by_model import is_users

Before = dict[str, tuple[int, int, tuple[float, float]]]
_ROUNDING = 1e-4
_LARGE = 1 << 22
_PLAIN = (torch.Tensor, nn.Parameter)  # weights in parts are another class, and change theirs within a forward


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A tensor that a model keeps from batch to batch."""

    place: str
    owner: nn.Module
    tensor: torch.Tensor

    @property
    def now(self) -> tuple[int, int, tuple[float, float]]:
        """Which tensor it is, how often it was edited, and its numbers: an edit of `.data` is not counted."""
        return id(self.tensor), self.tensor._version, _sums(self.tensor)


def of(model: nn.Module) -> Before:
    """What *model* keeps, as it is now."""
    return {each.place: each.now for each in _every(model)}


def is_of_rows(model: nn.Module, before: Before) -> bool:
    """Whether the script's own code changed *model* with rows since it was as *before*; all ranks come here together.

    A buffer is changed for that. A layer of torch's changes no parameter by itself, and what a script makes of
    parameters alone (a norm of 1, an average of weights) is alike on all ranks.
    """
    changed = list(_changed(model, before))
    parameters = [isinstance(each.tensor, nn.Parameter) for each in changed]
    buffers = [is_users(each.owner) for each, is_one in zip(changed, parameters, strict=True) if not is_one]
    by_users, weights = group.total(torch.tensor([float(any(buffers)), float(any(parameters))])).tolist()
    return bool(by_users or (weights and _unlike(model)))


def check_alike(model: nn.Module, before: Before) -> None:
    """Raise RequestError, on all ranks alike, when a call of *model* left other numbers in it on each rank."""
    if not group.total(torch.tensor(float(any(True for _ in _changed(model, before))))):
        return
    for each in _unlike(model):
        kind = "parameter" if isinstance(each.tensor, nn.Parameter) else "buffer"
        raise RequestError(
            f"the forward of {type(model).__name__} changes its {kind} {each.place} with the rows of each rank, and its"
            " lines are not followed; run it on one device, or change it outside of the model, from what it returns"
        )


@contextmanager
def weights_in_parts_unchanged(model: nn.Module) -> Iterator[None]:
    """Within this a forward of the script's own may not change a parameter of *model*, if its weights are in parts.

    What is gathered of them for a forward is let go behind it, and a change with it.
    """
    is_whole = all(type(each) in _PLAIN for each in model.parameters())
    own = [] if is_whole else [each for each in model.modules() if is_users(each)]
    before = [vars(each).get("forward") for each in own]
    for each in own:
        vars(each)["forward"] = _watched(each, each.forward)
    try:
        yield
    finally:
        for each, was in zip(own, before, strict=True):
            vars(each).pop("forward")
            vars(each).update({} if was is None else {"forward": was})


def _watched(module: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        before = of(module)
        result = own(*args, **kwargs)
        changed = [each.place for each in _changed(module, before) if isinstance(each.tensor, nn.Parameter)]
        if group.total(torch.tensor(float(bool(changed)))):
            raise RequestError(
                f"the forward of {type(module).__name__} changes {changed[0] if changed else 'a parameter'}, a"
                " parameter, whose parts the ranks gather for it and let go behind it; make it a buffer"
                " (register_buffer), or submit with --layout replicate"
            )
        return result

    return forward


def _unlike(model: nn.Module) -> list[_Kept]:
    """What has other numbers on each rank."""
    every = list(_every(model))
    mine = torch.tensor([_sums(each.tensor) for each in every])
    theirs = group.agree(mine)
    unlike = ((mine - theirs).abs() > _ROUNDING * theirs.abs().clamp(min=1e-6)).any(1)
    found = group.total(unlike.float()).tolist()
    return [each for each, ranks in zip(every, found, strict=True) if ranks]


def _sums(tensor: torch.Tensor) -> tuple[float, float]:
    with torch.no_grad():
        plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        if plain.is_meta or not plain.numel():
            return 0.0, 0.0
        kind = torch.float64 if plain.numel() <= _LARGE else torch.float32  # of which torch makes no copy
        numbers = plain if plain.is_floating_point() else plain.to(kind)
        return float(plain.sum(dtype=kind)), float(torch.linalg.vector_norm(numbers, 1, dtype=kind))


def _every(model: nn.Module) -> Iterator[_Kept]:
    for place, owner in model.named_modules():
        if isinstance(owner, _BatchNorm):
            continue
        for name, tensor in (*owner.named_buffers(recurse=False), *owner.named_parameters(recurse=False)):
            if type(tensor) in _PLAIN:
                yield _Kept(place=f"{place}.{name}".lstrip("."), owner=owner, tensor=tensor)


def _changed(model: nn.Module, before: Before) -> Iterator[_Kept]:
    for each in _every(model):
        was, now = before.get(each.place), each.now
        is_new = was is None and not isinstance(each.tensor, nn.Parameter)
        if is_new or (was is not None and was != now and not _is_no_number(was, now)):
            yield each


def _is_no_number(was: tuple, now: tuple) -> bool:
    """Whether only numbers that are none, which are never equal, tell the two apart."""
    return was[:2] == now[:2] and not all(map(math.isfinite, (*was[2], *now[2])))
