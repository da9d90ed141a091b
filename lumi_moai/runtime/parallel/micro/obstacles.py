"""Models that cannot be computed in pieces, found at their first call."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from .. import by_model
from . import tree

_HARMLESS = frozenset(("torch", "transformers", "lumi_moai", "accelerate", "peft", "lightning", "wandb"))
"""Libraries whose hooks on a module's forward do not take its results into a loss."""
_HELD = frozenset(("_parameters", "_buffers", "_modules"))


class Looking:
    """The first call of *root*, piece by piece; looks what a piece leaves behind."""

    def __init__(self, root: nn.Module, call: Callable[..., Any], *, with_graph: bool) -> None:
        self.root = root
        self.call = call
        self.with_graph = with_graph
        self._pieces = 0
        self._buffers: dict[str, tuple[int, int]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of one piece.

        Raises RequestError when the model is no sum of its rows.
        """
        self._pieces += 1
        if self._pieces == 1:
            return self._first(*args, **kwargs)
        output = self.call(*args, **kwargs)
        if self._pieces == 2:
            self._compare()
        return output

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        name = type(self.root).__name__
        for reason in reasons(self.root):
            raise tree.refusal(name, reason)
        before = {id(value) for _, value in attributes(self.root)}
        with torch.set_grad_enabled(self.with_graph):  # what needs a gradient shows only so
            look = by_model.Look()
            output = (look.at(self.call) if by_model.is_users(self.root) else self.call)(*args, **kwargs)
        if look.is_unequal:
            raise tree.refusal(
                name, "it adds up a number of the batch by hand, and a piece of it may have fewer to count"
            )
        for place, value in attributes(self.root):
            if id(value) not in before and value.requires_grad:
                raise tree.refusal(name, f"{place} keeps a result of forward, return it from forward instead")
        self._buffers = versions(self.root)
        return output

    def _compare(self) -> None:
        for place, version in versions(self.root).items():
            if self._buffers.get(place) != version:
                raise tree.refusal(type(self.root).__name__, f"its forward changes the buffer {place} with each batch")


def reasons(root: nn.Module) -> Iterator[str]:
    """What stands against it before anything is computed."""
    for place, module in root.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            yield f"{place or 'it'} is a {type(module).__name__}, which needs all rows at once"
        for hook in [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]:
            owner = getattr(hook, "__module__", None) or type(hook).__module__
            if owner.partition(".")[0] not in _HARMLESS:
                yield f"{place or 'it'} has a hook on its forward, which would see pieces without a gradient"


def attributes(root: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that the modules keep beside parameters and buffers."""
    for place, module in root.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules") or not isinstance(
                value, (torch.Tensor, list, dict, tuple)
            ):
                continue
            for leaf in tree_leaves(value):
                if isinstance(leaf, torch.Tensor):
                    yield f"{place}.{key}".lstrip("."), leaf


def versions(root: nn.Module) -> dict[str, tuple[int, int]]:
    """Each buffer, and how often it was edited."""
    return {place: (id(buffer), buffer._version) for place, buffer in root.named_buffers()}
