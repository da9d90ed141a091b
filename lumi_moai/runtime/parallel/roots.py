"""The models of the script: modules that belong to no other module, and what happens when the script calls one.

A root gets a class of its own, of the same name, made from the script's; an instance attribute would travel with
`copy.deepcopy` and `torch.save`, and a hook cannot take the place of a forward.
"""

import copyreg
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

from torch import nn

from ..here import is_in_thread

Call = Callable[..., Any]
Caller = Callable[[nn.Module, Call, tuple, dict[str, Any]], Any]
"""Takes part in a call of a root: given the root, what to call, and its arguments."""
_CLASSES: dict[type, type] = {}
_ADOPTED: WeakSet[nn.Module] = WeakSet()


def adopt(root: nn.Module, caller: Caller) -> None:
    """From now on a call of *root* goes through *caller*; a second time changes nothing."""
    if isinstance(root, Adopted):
        return
    own = type(root)
    if own not in _CLASSES:
        body = {"__call__": _called(caller, own), "__module__": own.__module__, "__qualname__": own.__qualname__}
        _CLASSES[own] = type(own.__name__, (Adopted, own), body)
    _become(root, _CLASSES[own])
    _ADOPTED.add(root)


def _become(root: nn.Module, kind: type) -> None:
    object.__setattr__(root, "__class__", kind)  # a wrapper such as Fabric's passes on what is set to what it wraps


@contextmanager
def as_made() -> Iterator[None]:
    """Within this the roots have the classes that the script gave them: a file must hold nothing of ours.

    A root has one class for all threads, so a thread beside the script's changes none: the script may call a model
    meanwhile. Such a file says it in `Adopted`'s words.
    """
    roots = [] if is_in_thread() else [root for root in _ADOPTED if type(root) in _CLASSES.values()]
    swapped = [(root, type(root)) for root in roots]
    for root, adopted in swapped:
        _become(root, _own_class(adopted))
    try:
        yield
    finally:
        for root, adopted in swapped:
            _become(root, adopted)


class Adopted(nn.Module):
    """A root; it is stored, and made again, as what it was."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return as_class(_own_class(type(self)), super().__reduce_ex__(protocol))


def as_class(own: type, reduced: Any) -> tuple:
    """*reduced*, what `__reduce_ex__` says of a module, as it would be for a module of the class *own*."""
    make, made_of, *rest = reduced
    if make is copyreg.__newobj__:  # type: ignore[attr-defined]  # pickle refuses it for any class but the module's
        return (copyreg._reconstructor, (own, object, None), *rest)  # type: ignore[attr-defined]
    return (make, tuple(own if isinstance(each, type) and issubclass(each, own) else each for each in made_of), *rest)


def _own_class(adopted: type) -> type:
    return next(own for own, made in _CLASSES.items() if made is adopted)


def _called(caller: Caller, own: type[nn.Module]) -> Call:
    def call(root: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return caller(root, partial(own.__call__, root), args, kwargs)

    return call


def through(callers: Sequence[Callable], thing: Any, call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call *call*, which belongs to *thing*, through all *callers*, the first one outermost."""
    for caller in reversed(callers):
        call = _around(caller, thing, call)
    return call(*args, **kwargs)


def _around(caller: Callable, thing: Any, inner: Call) -> Call:
    return lambda *args, **kwargs: caller(thing, inner, args, kwargs)


def find(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those of *modules* that no other of them holds, and that have parameters; in the same order."""
    alive = list(modules)
    held = {id(child) for module in alive for child in module.children()}
    return [module for module in alive if id(module) not in held and any(True for _ in module.parameters())]
