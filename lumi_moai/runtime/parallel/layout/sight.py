"""What the script sees of a model between forward and backward: its weights in parts, as at any other time.

FSDP2 leaves gathered weights in their modules until backward, those of the model itself and with `zero2` all. A script
that clears gradients just before backward with `model.zero_grad()` would clear none, and they would add up. And memory
that it takes for them in `torch.inference_mode()`, where a teacher is called, could not be written to outside of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def keep(module: nn.Module) -> None:
    """Put the parts back after each forward of *module*, which FSDP has spread; what is gathered, before it is used."""
    for group in _groups(module):
        group.post_forward = _then(group.post_forward, functools.partial(_show, group, gathered=False))
        # Asked before each forward and each backward, also where nothing is left to gather.
        group.wait_for_unshard = _then(_outside(group.wait_for_unshard), functools.partial(_show, group, gathered=True))
        group.unshard = _outside(group.unshard)


def _show(group: Any, *, gathered: bool) -> None:
    if group.is_unsharded:
        for each in group.fsdp_params:
            each._setattr_on_modules(each.unsharded_param if gathered else each.sharded_param)


def _then(own: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(own)
    def both(*args: Any, **kwargs: Any) -> Any:
        result = own(*args, **kwargs)
        act()
        return result

    return both


def _outside(own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, outside of `torch.inference_mode()`."""

    @functools.wraps(own)
    def ordinarily(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return own(*args, **kwargs)
        with torch.inference_mode(mode=False), torch.no_grad():
            return own(*args, **kwargs)

    return ordinarily


def _groups(module: nn.Module) -> list[Any]:
    state: Any = module._get_fsdp_state()
    several = getattr(state, "_fsdp_param_groups", None)  # in newer torch
    return [*several] if several is not None else [each for each in (state._fsdp_param_group,) if each is not None]
