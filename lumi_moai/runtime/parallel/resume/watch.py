"""Where torch tells us what the script does: reads, gradients asked for by hand, scaled steps."""

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.amp import GradScaler
from torch.utils._pytree import tree_leaves

from . import reads
from .ghosts import is_ghost

if TYPE_CHECKING:
    from ..seen import Seen


def install(seen: "Seen") -> None:
    """Replace torch's functions, for good; without a running engine each does what torch's own does."""

    def current() -> Any:
        return seen.engine.resume if seen.engine else None

    for name in reads.NAMES:
        setattr(torch.Tensor, name, reads.watched(name, getattr(torch.Tensor, name), current))
    FakeTensor.tolist = reads.watched("tolist", FakeTensor.tolist, current)  # it has one of its own
    for name in ("__getitem__", "__setitem__"):
        setattr(torch.Tensor, name, reads.placed(getattr(torch.Tensor, name), current))
    torch.Tensor.__format__ = reads.formatted(torch.Tensor.__format__, current)
    torch.load = _loading(torch.load, current)
    torch.autograd.grad = _asking(torch.autograd.grad, seen)
    GradScaler.__init__ = _making(GradScaler.__init__, seen)
    GradScaler.step = _scaled_step(GradScaler.step, current)
    GradScaler.get_scale = _told(GradScaler.get_scale, current)
    for name in ("update", "unscale_"):
        setattr(GradScaler, name, _when_real(getattr(GradScaler, name), current))


def _loading(own: Callable[..., Any], current: Callable[[], Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        resume = current()
        if resume is not None and isinstance(f, (str, os.PathLike)) and os.path.isfile(f):
            resume.loads(os.path.abspath(f))
        return own(f, *args, **kwargs)

    return load


def _asking(own: Callable[..., Any], seen: "Seen") -> Callable[..., Any]:
    @functools.wraps(own)
    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        ghost = next((leaf for leaf in tree_leaves(outputs) if is_ghost(leaf)), None)
        if ghost is None or ghost.fake_mode.is_over:
            return own(outputs, inputs, *args, **kwargs)
        asked = (inputs,) if torch.is_tensor(inputs) else tuple(inputs)
        if seen.engine and any(isinstance(each, torch.nn.Parameter) for each in asked):
            seen.engine.repeat_backward()
        return tuple(ghost.fake_mode.of(tensor) for tensor in asked)

    return grad


def _making(own: Callable[..., None], seen: "Seen") -> Callable[..., None]:
    @functools.wraps(own)
    def make(scaler: GradScaler, *args: Any, **kwargs: Any) -> None:
        own(scaler, *args, **kwargs)
        seen.note_scaler(scaler)

    return make


def _told(own: Callable[..., float], current: Callable[[], Any]) -> Callable[..., float]:
    @functools.wraps(own)
    def get_scale(scaler: GradScaler) -> float:
        resume = current()
        # The scaler asks itself when it is saved.
        is_asked = resume is not None and not resume.is_paused and reads.is_scripts(sys._getframe(1).f_code)
        if not is_asked or not scaler.is_enabled():
            return own(scaler)
        return resume.value("scale of a GradScaler", functools.partial(own, scaler))

    return get_scale


def _when_real(own: Callable[..., Any], current: Callable[[], Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def work(scaler: GradScaler, *args: Any, **kwargs: Any) -> Any:
        resume = current()
        return None if resume is not None and resume.is_repeating_scaled() else own(scaler, *args, **kwargs)

    return work


def _scaled_step(own: Callable[..., Any], current: Callable[[], Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def step(scaler: GradScaler, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        resume = current()
        if resume is None or not scaler.is_enabled():
            return own(scaler, optimizer, *args, **kwargs)
        return resume.scaled_step(functools.partial(own, scaler), optimizer, args, kwargs)

    return step
