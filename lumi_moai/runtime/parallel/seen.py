"""What the script made, before its one line as well as after it."""

import gc
from typing import TYPE_CHECKING, TypeVar
from weakref import ReferenceType, WeakSet, ref

import torch
from torch.optim import Optimizer
from torch.utils.weak import WeakIdRef

from .training import TrainingModes

if TYPE_CHECKING:
    from .engine import Engine


class Seen:
    """Optimizers and parameters in the order of their birth, which is the same on all ranks."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        """Set by the script's one line."""
        self.modes = TrainingModes()
        self.laid_out: WeakSet[torch.nn.Module] = WeakSet()
        """Modules whose weights come and go with each call: these are no new parameters."""
        self._optimizers: list[ReferenceType[Optimizer]] = []
        self._parameters: list[ReferenceType[torch.Tensor]] = []
        self._modules: dict[int, ReferenceType[torch.nn.Module]] = {}
        self._copies: list[ReferenceType[torch.nn.Module]] = []
        self._returned = 0
        self.has_new_modules = False
        """Since the engine laid models out."""
        self._scalers: list[ReferenceType[torch.amp.GradScaler]] = []

    @property
    def optimizers(self) -> int:
        """How many groups of parameters the script has given to optimizers so far."""
        return len(self._optimizers)

    def note_optimizer(self, optimizer: Optimizer) -> None:
        """*optimizer* got another group of parameters."""
        self._optimizers.append(ref(optimizer))

    def note_scaler(self, scaler: torch.amp.GradScaler) -> None:
        """The script made *scaler*."""
        self._scalers.append(ref(scaler))

    def scalers(self) -> list[torch.amp.GradScaler]:
        """The gradient scalers that are alive and at work, in the order of their birth."""
        alive = (reference() for reference in self._scalers)
        return [scaler for scaler in alive if scaler is not None and scaler.is_enabled()]

    def note_parameter(self, module: torch.nn.Module, parameter: torch.Tensor | None) -> None:
        """*module* got *parameter*."""
        self.note_module(module)
        if parameter is not None and module not in self.laid_out:
            self._parameters.append(WeakIdRef(parameter))

    def note_module(self, module: torch.nn.Module) -> None:
        """*module* got a part."""
        known = self._modules.get(id(module))
        if known is None or known() is not module:
            self._modules.pop(id(module), None)
            self._modules[id(module)] = ref(module)
            self.has_new_modules = True
            if self.engine:
                self.engine.await_call()

    def modules(self) -> list[torch.nn.Module]:
        """The modules that have a parameter or a part of their own, in the order of their birth."""
        found = (reference() for reference in list(self._modules.values()))
        return [module for module in found if module is not None]

    def note_copy(self, module: torch.nn.Module) -> None:
        """The script copied *module*, with parameters that wait in parts for a layout."""
        self._copies.append(ref(module))
        self.has_new_modules = True
        if self.engine:
            self.engine.await_call()

    def copies(self) -> list[torch.nn.Module]:
        """The copies made since this was asked, in their order."""
        references, self._copies = self._copies, []
        if references:
            gc.collect()  # what the script has let go of must be gone on all ranks
        return _alive(references)

    def note_whole(self) -> None:
        """Note the parameters that became whole when they were laid out; they are others than those registered."""
        known = {id(each) for each in self.registered()}
        for module in self.modules():
            for each in module._parameters.values():
                if type(each) is torch.nn.Parameter and id(each) not in known:
                    self._parameters.append(WeakIdRef(each))

    def living_optimizers(self) -> list[Optimizer]:
        """The optimizers of the script, in the order of their birth."""
        found = {id(optimizer): optimizer for reference in self._optimizers if (optimizer := reference()) is not None}
        return list(found.values())

    def trained(self) -> list[torch.Tensor]:
        """The parameters of the script's optimizers; some may come twice."""
        optimizers = (reference() for reference in self._optimizers)
        entries = [entry for optimizer in optimizers if optimizer is not None for entry in optimizer.param_groups]
        return [parameter for entry in entries for parameter in entry["params"]]

    def registered(self) -> list[torch.Tensor]:
        """The parameters of all modules; some may come twice."""
        return _alive(self._parameters)

    def newly_registered(self) -> list[torch.Tensor]:
        """Those among them that were not returned here before."""
        new, self._returned = self._parameters[self._returned :], len(self._parameters)
        return _alive(new)


_Made = TypeVar("_Made", torch.Tensor, torch.nn.Module)


def _alive(references: list[ReferenceType[_Made]]) -> list[_Made]:
    found = (reference() for reference in references)
    return [each for each in found if each is not None]
