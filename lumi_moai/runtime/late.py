"""Run something right after a module is imported by somebody else.

The script imports torch when it likes, or never; importing it here for every script would cost each rank seconds.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Call = Callable[[], None]


class _ThenLoader(Loader):
    """The module's own loader, and then what waits for the module."""

    def __init__(self, loader: Loader, finder: "_Finder") -> None:
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader does, then the calls that wait, in the order in which they came."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader
        name = module.__name__
        self.finder.running.add(name)
        try:
            with self.finder.around.get(name, nullcontext)():
                self.loader.exec_module(module)
        finally:
            self.finder.running.discard(name)
        for call in self.finder.waiting.pop(name, []):
            call()


class _Finder(MetaPathFinder):
    """Finds the modules that somebody waits for, wherever the other finders have them.

    A module stays awaited until it has been run: libraries ask for the spec of one another just to see what is there.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[Call]] = {}
        self.packages: set[str] = set()
        """Whose modules somebody may wait for while they are being imported."""
        self.running: set[str] = set()
        """The modules of these that are being imported now."""
        self.around: dict[str, Callable[[], AbstractContextManager[None]]] = {}
        """Within what a module is run that is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of an awaited module, with our calls behind its loader; None for any other module."""
        if name not in self.waiting and name not in self.around and name.partition(".")[0] not in self.packages:
            return None
        found = (other.find_spec(name, path, target) for other in sys.meta_path if other is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenLoader(spec.loader, self)
        return spec


_FINDER = _Finder()


def after_import(name: str, call: Call) -> None:
    """Run *call* right after the module *name* was imported; at once if it already is.

    Several calls for one name run in the order in which they came.
    """
    if name in sys.modules and name not in _FINDER.waiting and name not in _FINDER.running:
        call()
        return
    _look()
    _FINDER.waiting.setdefault(name, []).append(call)


def within(name: str, around: Callable[[], AbstractContextManager[None]]) -> None:
    """Run the module *name* within *around()* when somebody imports it."""
    _look()
    _FINDER.around[name] = around


def expect(*packages: str) -> None:
    """Notice from now on when a module of *packages* is being imported.

    Such a library may import torch in the middle of its own module; what then waits for that module runs at its end.
    """
    _look()
    _FINDER.packages |= set(packages)


def _look() -> None:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
