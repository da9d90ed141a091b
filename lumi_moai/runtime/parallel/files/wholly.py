"""An object as one device would store it: spread tensors in one piece, models under the script's own classes."""

import io
import pickle
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
from torch.distributed.tensor import DTensor

from .. import layout, roots

_MADE = ("lumi_moai.", "torch.distributed.")
"""Whose classes and hooks a model gets on its way, and leaves behind in a file."""
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")


def follow(obj: Any) -> None:
    """Take part in storing *obj*, which rank 0 writes: give it the parts that this rank holds."""
    _Following(io.BytesIO()).dump(obj)


def pickling(own: ModuleType) -> ModuleType:
    """The module *own* (pickle, or its kind) with a pickler that stores whole tensors."""
    made = ModuleType(own.__name__)
    made.__dict__.update(vars(own))
    made.Pickler = type("Pickler", (_Whole, own.Pickler), {})  # type: ignore[attr-defined]
    return made


class _Whole:
    """Part of a pickler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gathered: dict[tuple, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def reducer_override(self, obj: Any) -> Any:
        """How *obj* is stored; NotImplemented for most."""
        if isinstance(obj, torch.Tensor):
            spread = layout.now(obj)
            return self._store(self._whole(spread), obj) if isinstance(spread, DTensor) else self._plain(obj)
        if isinstance(obj, nn.Module):
            return _reduced(obj)
        return NotImplemented

    def _whole(self, spread: DTensor) -> torch.Tensor | None:
        """All of it, on the host; what shares memory in the parts shares it in the file."""
        part = spread._local_tensor
        key = (part.untyped_storage()._cdata, part.storage_offset(), tuple(spread.shape))
        if key not in self._gathered:
            self._gathered[key] = (part, self._keep(layout.full_state(spread)))
        return self._gathered[key][1]

    def _keep(self, whole: torch.Tensor) -> torch.Tensor | None:
        return whole.cpu()

    def _plain(self, tensor: torch.Tensor) -> Any:
        return NotImplemented

    def _store(self, whole: torch.Tensor | None, like: torch.Tensor) -> Any:
        if whole is None:
            return int, ()
        alike = nn.Parameter(whole, like.requires_grad) if isinstance(like, nn.Parameter) else whole.view(whole.shape)
        return alike.__reduce_ex__(2)


class _Following(_Whole, pickle.Pickler):
    """Walks through an object as rank 0's pickler does, and keeps nothing."""

    def persistent_id(self, obj: Any) -> Any:
        """Storages are not looked into."""
        return "storage" if torch.is_storage(obj) else None

    def _keep(self, whole: torch.Tensor) -> torch.Tensor | None:
        return None

    def _plain(self, tensor: torch.Tensor) -> Any:
        return int, ()


def _own_class(made: type) -> type:
    """The class that the script's file knows; *made* itself if that is one."""
    if _is_known(made):
        return made
    candidates = (each for each in made.__mro__ if _is_known(each) and not each.__module__.startswith(_MADE))
    own = next(candidates, made)
    return own if own.__name__ == made.__name__ else made


def _is_known(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def _reduced(module: nn.Module) -> tuple:
    own, reduced = _own_class(type(module)), module.__reduce_ex__(2)
    if own is not type(module):
        reduced = roots.as_class(own, reduced)
    if not isinstance(reduced, tuple) or len(reduced) < 3 or not isinstance(reduced[2], dict):
        return reduced
    return (*reduced[:2], _stripped(reduced[2]), *reduced[3:])


def _stripped(state: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a module without what spreading it has left there."""
    kept = {name: value for name, value in state.items() if name not in (STATE_KEY, REGISTRY_KEY)}
    foreign = {
        key
        for name, hooks in kept.items()
        if name.endswith(_HOOKS) and isinstance(hooks, dict)
        for key, hook in hooks.items()
        if _origin(hook).startswith(_MADE)
    }
    for name in [name for name in kept if name.endswith(_HOOKS) and isinstance(kept[name], dict)]:
        kept[name] = type(kept[name])((key, hook) for key, hook in kept[name].items() if key not in foreign)
    return kept


def _origin(hook: Any) -> str:
    bare = getattr(hook, "hook", hook)
    bare = getattr(bare, "func", bare)
    owner = getattr(bare, "__self__", None)
    return str(getattr(type(owner) if owner is not None else bare, "__module__", ""))
