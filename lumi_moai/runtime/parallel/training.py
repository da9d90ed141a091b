"""Whether the script is training or evaluating: what `model.train()` and `model.eval()` said last."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch


class TrainingModes:
    """The modules on which the script called `train()` or `eval()` itself."""

    def __init__(self) -> None:
        self._spoken: WeakKeyDictionary[torch.nn.Module, None] = WeakKeyDictionary()
        self._depth = 0

    @contextmanager
    def spoken(self, module: torch.nn.Module) -> Iterator[None]:
        """Note *module* while its `train()` runs; the calls on its children within do not count."""
        if self._depth == 0:
            self._spoken[module] = None
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def trains(self, parameters: Iterable[torch.Tensor]) -> bool:
        """Whether a module that holds any of *parameters* is in training mode.

        A frozen teacher in evaluation mode does not count. True as long as the script has not said anything.
        """
        trained = {id(parameter) for parameter in parameters}
        ours = [
            module
            for module in list(self._spoken)
            if not trained or any(id(parameter) in trained for parameter in module.parameters())
        ]
        return not ours or any(module.training for module in ours)
