"""The weights that this stage computes with: plain tensors with a gradient of their own, in the memory of the script's.

Torch's stages leave gradients at the weights, piece by piece. The script's parameters must get theirs once, when all
pieces and stages are done.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from . import elsewhere


class Plain:
    """Of one model."""

    def __init__(self, root: nn.Module) -> None:
        self._root = ref(root)
        self._made: dict[int, tuple[torch.Tensor, nn.Parameter]] = {}
        """By the script's parameter: that itself, and the plain one."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this the model has the plain weights, and shapes without numbers for those of other stages."""
        with self._swapped(self._standing_in):
            yield

    @contextmanager
    def _swapped(self, other: Callable[[Any], Any]) -> Iterator[None]:
        """Within this the model has what *other* gives for a weight, if it gives something."""
        before: list[tuple[dict[str, Any], str, Any]] = []
        for module in self._root().modules():  # type: ignore[union-attr]  # it is being called
            for name, parameter in module._parameters.items():
                if parameter is not None and (instead := other(parameter)) is not None:
                    before.append((module._parameters, name, parameter))
                    module._parameters[name] = instead
        try:
            yield
        finally:
            for where, name, parameter in before:
                where[name] = parameter

    def _standing_in(self, parameter: torch.Tensor) -> torch.Tensor:
        plain = self._plain(parameter)
        return elsewhere.like(parameter.shape, parameter.dtype) if plain is None else plain

    def of(self, parameter: torch.Tensor) -> nn.Parameter | None:
        """The plain weight of the script's *parameter*; None where another stage has it."""
        return self._plain(parameter)

    @contextmanager
    def hidden(self, parameters: Sequence[torch.Tensor]) -> Iterator[None]:
        """Within this, while the plain weights are in place, the model has shapes without numbers for *parameters*."""
        hidden = {id(self._plain(each)): elsewhere.like(each.shape, each.dtype) for each in parameters}
        with self._swapped(lambda each: hidden.get(id(each))):
            yield

    def forget(self, parameter: torch.Tensor) -> None:
        """The script's *parameter* has become another one."""
        self._made.pop(id(parameter), None)

    def trains(self) -> None:
        """Let the plain weights take a gradient where the script's do now."""
        for parameter, plain in self._made.values():
            plain.requires_grad_(parameter.requires_grad)

    def gradient(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """What arrived for *parameter* on this stage; it is taken away."""
        known = self._made.get(id(parameter))
        if known is None:
            return None
        gradient, known[1].grad = known[1].grad, None
        return gradient

    def _plain(self, parameter: torch.Tensor) -> nn.Parameter | None:
        local = parameter._local_tensor if isinstance(parameter, DTensor) else parameter.data
        if local.shape != parameter.shape:
            return None
        if id(parameter) not in self._made:
            self._made[id(parameter)] = (parameter, nn.Parameter(local, parameter.requires_grad))
        plain = self._made[id(parameter)][1]
        if plain.data_ptr() != local.data_ptr() or plain.dtype != local.dtype:
            plain.data = local
        return plain
