"""One run of the script's loop on a small batch, up to the end of its first backward; then everything is put back."""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from ..share import Share
from .loop import CannotBeChecked, Loop

_DROPOUTS = ("dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout")


class Enough(BaseException):
    """The first backward has ended; nothing behind it is run. No Exception, so that no script catches it."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run of the loop came to."""

    loss: float
    norm: float
    drew: bool
    """Whether the script drew random numbers, which two runs with different rows cannot draw alike."""
    types: frozenset[torch.dtype]
    """In which the models computed and kept their weights."""


class Trial:
    """The run that is under way: what the loader gives, and how it was cut."""

    def __init__(self, loader: Any, batch: Any, share: Share | None) -> None:
        self.loader = loader
        self.batch = batch
        self.share = share
        self.loss: float | None = None
        self.types: set[torch.dtype] = set()
        """In which the script's models computed."""

    def note_call(self) -> None:
        """A model of the script is called."""
        for kind in ("cuda", "cpu"):
            if torch.is_autocast_enabled(kind):
                self.types.add(torch.get_autocast_dtype(kind))

    def batches(self, loader: Any, begin: Any) -> Iterator[Any]:
        """The one batch, for the loader that is tried.

        Raises CannotBeChecked for another loader.
        """
        if loader is not self.loader:
            raise CannotBeChecked("its loop runs over another DataLoader as well")
        begin(self.share)
        yield self.batch

    def went_back(self, root: torch.Tensor) -> None:
        """A backward has ended; *root* is what it began from."""
        with torch.no_grad():
            self.loss = float(root.clone().double().sum())
        raise Enough


def run(loop: Loop, trial: Trial, parameters: list[torch.Tensor], models: list[nn.Module]) -> Found:
    """What *loop* comes to in *trial*; everything is as before when this returns.

    Raises CannotBeChecked when the loop ends without a backward, or fails.
    """
    with ExitStack() as stack:
        stack.enter_context(_kept(loop, parameters, models))
        stack.enter_context(redirect_stdout(StringIO()))
        stack.enter_context(redirect_stderr(StringIO()))
        stack.enter_context(_without_dropout(models))
        before = _chance()
        try:
            loop.run()
        except Enough:
            pass
        except CannotBeChecked:
            raise
        except Exception as error:  # whatever the script's own code does with a batch of another size
            raise CannotBeChecked(f"its loop fails on a small batch ({type(error).__name__}: {error})") from None
        if trial.loss is None:
            raise CannotBeChecked("its loop went through without a backward()")
        return Found(
            loss=trial.loss,
            norm=_norm(parameters),
            drew=not _same_chance(before, _chance()),
            types=frozenset(trial.types | {parameter.dtype for parameter in parameters}),
        )


def _norm(parameters: list[torch.Tensor]) -> float:
    squares = 0.0
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None:
            whole = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
            squares += float(whole.double().pow(2).sum())
    return squares**0.5


@contextmanager
def _kept(loop: Loop, parameters: list[torch.Tensor], models: list[nn.Module]) -> Iterator[None]:
    """Gradients, buffers, random numbers and the attributes that the loop counts up, put back at the end."""
    grads = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    buffers = [buffer for model in models for buffer in model.buffers()]
    values = [buffer.clone() for buffer in buffers]
    attributes = [(thing, name, getattr(thing, name, None), hasattr(thing, name)) for thing, name in loop.restored]
    chance = _chance()
    try:
        yield
    finally:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        with torch.no_grad():
            for buffer, value in zip(buffers, values, strict=True):
                buffer.copy_(value)
        for thing, name, value, was_there in attributes:
            setattr(thing, name, value) if was_there else delattr(thing, name)
        _put_chance(chance)


def _chance() -> tuple[Any, ...]:
    numpy = sys.modules.get("numpy")
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return torch.get_rng_state(), random.getstate(), numpy.random.get_state() if numpy else None, device


def _put_chance(state: tuple[Any, ...]) -> None:
    of_torch, of_python, of_numpy, of_device = state
    torch.set_rng_state(of_torch)
    random.setstate(of_python)
    if of_numpy is not None:
        sys.modules["numpy"].random.set_state(of_numpy)
    if of_device is not None:
        torch.cuda.set_rng_state(of_device)


def _same_chance(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    torch_same = bool(torch.equal(before[0], after[0]))
    device_same = before[3] is None or bool(torch.equal(before[3], after[3]))
    numpy_same = before[2] is None or str(before[2]) == str(after[2])
    return torch_same and device_same and before[1] == after[1] and numpy_same


@contextmanager
def _without_dropout(models: list[nn.Module]) -> Iterator[None]:
    """No dropout: the rows of a rank would lose other activations than the same rows in the whole batch."""
    own = {name: getattr(F, name) for name in (*_DROPOUTS, "scaled_dot_product_attention")}
    recurrent = [part for model in models for part in model.modules() if isinstance(part, nn.RNNBase)]
    rates = [part.dropout for part in recurrent]
    for name in _DROPOUTS:
        setattr(F, name, lambda input, *_, **__: input)
    F.scaled_dot_product_attention = _attention(own["scaled_dot_product_attention"])
    for part in recurrent:
        part.dropout = 0.0
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(F, name, function)
        for part, rate in zip(recurrent, rates, strict=True):
            part.dropout = rate


def _attention(own: Any) -> Any:
    def attention(query: Any, key: Any, value: Any, mask: Any = None, dropout_p: float = 0.0, *a: Any, **k: Any) -> Any:
        return own(query, key, value, k.pop("attn_mask", mask), 0.0, *a, **k)

    return attention
