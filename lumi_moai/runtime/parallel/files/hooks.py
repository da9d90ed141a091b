"""Where torch and its relatives call this folder."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    torch.nn.Module.__setstate__ = _copied(torch.nn.Module.__setstate__, seen)


def _born(seen: "Seen", module: torch.nn.Module, parameter: torch.Tensor | None) -> torch.Tensor | None:
    """What *module* gets in the place of *parameter*; None for *parameter* itself."""
    if seen.engine is None or parameter is None or module in seen.laid_out:
        return None
    ranks = None if born.is_halted() else seen.engine.birth.ranks()
    return None if ranks is None else born.spread(parameter, ranks)


def _copied(own: Callable[..., None], seen: "Seen") -> Callable[..., None]:
    """`Module.__setstate__`, by which `copy.deepcopy` makes a module that nobody registers."""

    @functools.wraps(own)
    def setstate(module: torch.nn.Module, state: Any) -> None:
        own(module, state)
        if seen.engine and any(born.is_waiting(each) for each in module._parameters.values()):
            seen.note_copy(module)

    return setstate
