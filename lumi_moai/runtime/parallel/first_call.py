"""The call of a model with which training begins in a script that has no loop over a DataLoader.

Only until it has come: afterwards a call of a module costs nothing more than torch's own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_OWN = nn.Module.__call__


def await_one(begins: Callable[[], None]) -> None:
    """Call *begins* ahead of the next call of a module that has weights to train; each time until `stop`."""

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # A model that torch.compile was given meanwhile is called through this for good.
        if torch.compiler.is_dynamo_compiling():
            return _OWN(module, *args, **kwargs)
        if not torch.is_grad_enabled() or torch.jit.is_tracing() or not _is_trained(module):
            return _OWN(module, *args, **kwargs)
        begins()
        # By its name once more, because its class may have changed; to wait for the next call is up to *begins*.
        return _OWN(module, *args, **kwargs) if nn.Module.__call__ is call else module(*args, **kwargs)

    nn.Module.__call__ = call


def _is_trained(module: nn.Module) -> bool:
    return any(each.requires_grad for each in module.parameters())


def stop() -> None:
    """Wait no longer."""
    nn.Module.__call__ = _OWN
