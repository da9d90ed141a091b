"""Where torch and its relatives call this folder."""

import sys
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.optim import Optimizer

from ... import late
from ..layout import born
from . import loading, pretrained, saving

if TYPE_CHECKING:
    from ..seen import Seen


def install(seen: "Seen") -> None:
    """Replace torch's functions now, those of libraries when they are imported."""
    torch.save = saving.torch_save(torch.save, seen)
    torch.load = loading.torch_load(torch.load, seen)
    torch.nn.Module.load_state_dict = loading.module_state(torch.nn.Module.load_state_dict)
    Optimizer.load_state_dict = loading.optimizer_state(Optimizer.load_state_dict)
    late.after_import("safetensors.torch", lambda: saving.safetensors_save(sys.modules["safetensors.torch"], seen))
    pretrained.install(seen)
    register_module_parameter_registration_hook(lambda module, _, parameter: _born(seen, module, parameter))
    torch.nn.Module._apply = born.converting(torch.nn.Module._apply)


def _born(seen: "Seen", module: torch.nn.Module, parameter: torch.Tensor | None) -> torch.Tensor | None:
    """What *module* gets in the place of *parameter*; None for *parameter* itself."""
    if seen.engine is None or parameter is None or module in seen.laid_out:
        return None
    place = seen.engine.place_of_birth()
    return None if place is None else born.spread(parameter, place)
