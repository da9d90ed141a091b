"""What the script has, so that a check leaves nothing behind: its containers, objects, tensors and random numbers."""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ....errors import RequestError
from ..counts import KINDS
from ..micro import state
from .body import is_library

_FEW = 2**20
_ROWS = 2**16
"""Entries of a list or a dictionary: in a longer one are the rows of a data set, which are not looked into."""
_NUMBERS = (int, float, bool)
_CODE = (ModuleType, FunctionType, MethodType)
_HELD = frozenset(("_parameters", "_buffers", "_modules"))


class Snapshot:
    """Everything that can be reached from *names* through containers and objects of the script's own classes."""

    def __init__(self, names: Iterable[Any], models: Iterable[nn.Module], *, copied: float = _FEW) -> None:
        self._copied = copied
        """Elements of a tensor that is copied."""
        self._back: list[Callable[[], Any]] = []
        self._tensors: dict[int, tuple[torch.Tensor, int, torch.Tensor | None]] = {}
        self._seen: set[int] = set()
        self._chance = state.chance()
        self._python = random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
        waiting = list(names)
        for model in models:
            waiting += model.modules()
        while waiting:
            waiting += self._keep(waiting.pop())

    def draws(self) -> bool:
        """Whether random numbers of torch were drawn since."""
        return any(
            now is not None and not torch.equal(now, then)
            for now, then in zip(state.chance(), self._chance, strict=True)
        )

    def put_back(self) -> None:
        """Let everything be as it was.

        Raises RequestError for a large tensor that was changed.
        """
        with torch.no_grad():
            for back in self._back:
                back()
            for tensor, version, copy in self._tensors.values():
                # Not by the version: torch's own BatchNorm changes its statistics without a new one.
                if copy is not None and not torch.equal(tensor, copy):
                    tensor.copy_(copy)
                elif copy is None and tensor._version != version:
                    raise RequestError(
                        "the self-check changed a large tensor that the script changes before backward; submit with"
                        " --self-check off"
                    )
        state.put_back(self._chance)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)

    def _keep(self, value: Any) -> list[Any]:
        """Note *value*, and return what it leads to."""
        if id(value) in self._seen:
            return []
        self._seen.add(id(value))
        holders: list[tuple[Any, Callable[[Any], list[Any]]]] = [
            ((list, deque), self._keep_sequence),
            (dict, self._keep_dict),
            (tuple, list),
            (FunctionType, self._keep_function),
            (MethodType, lambda method: [method.__self__, method.__func__]),
        ]
        for kinds, keep in holders:
            if isinstance(value, kinds):
                return keep(value)
        if isinstance(value, torch.Tensor):
            self._keep_tensor(value)
        elif (back := self._back_of(value)) is not None:
            self._back.append(back)
        elif isinstance(value, (type, nn.Module)) or _is_own(value):
            return self._keep_class(value) if isinstance(value, type) else self._keep_object(value)
        elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, _CODE):
            self._keep_numbers(value)
        return []

    def _back_of(self, value: Any) -> Callable[[], Any] | None:
        """What puts back *value*, which leads to nothing else; None for anything else, and for a large array."""
        if isinstance(value, set):
            return partial(_refill, value, set(value))
        if _is_array(value) and value.size <= self._copied and value.flags.writeable:
            return partial(value.__setitem__, ..., value.copy())  # `bins += np.bincount(said)`
        return _chance_of(value)

    def _keep_tensor(self, tensor: torch.Tensor) -> None:
        if not tensor.requires_grad and type(tensor) in KINDS and not tensor.is_meta:
            copy = tensor.clone() if tensor.numel() <= self._copied else None
            self._tensors[id(tensor)] = (tensor, tensor._version, copy)
        elif type(tensor) in (*KINDS, nn.Parameter) and tensor.is_leaf:
            self._keep_weight(tensor)

    def _keep_weight(self, leaf: torch.Tensor) -> None:
        """A forward may change it. Of one that is trained there will be gradients, so there is room for a copy."""
        if leaf.numel() <= _FEW:
            self._keep_gradient(leaf)
        if (leaf.requires_grad or leaf.numel() <= _FEW) and not leaf.is_meta and not is_lazy(leaf):
            self._tensors[id(leaf)] = (leaf, leaf._version, leaf.detach().clone())

    def _keep_gradient(self, leaf: torch.Tensor) -> None:
        grad = leaf.grad
        copy = None if grad is None else grad.clone()

        def back() -> None:
            leaf.grad = grad if grad is None or copy is None else grad.copy_(copy)

        self._back.append(back)

    def _keep_sequence(self, value: Any) -> list[Any]:
        copy = list(value)

        def back() -> None:
            value.clear()
            value.extend(copy)

        self._back.append(back)
        return _leading(copy) if len(copy) <= _ROWS else []

    def _keep_dict(self, value: dict) -> list[Any]:
        copy = _held(value)

        def back() -> None:
            now = _held(value)
            if not _same(now, copy):
                # What torch.compile put beside the script's own names is called by the code that it made.
                compiled = {key: each for key, each in now.items() if key not in copy and str(key).startswith("__")}
                value.clear()
                value.update({**copy, **compiled})

        self._back.append(back)
        return _leading(list(copy.values())) if len(copy) <= _ROWS else []

    def _keep_class(self, kind: type) -> list[Any]:
        """What objects of *kind* share, if that is a class of the script's, but for its methods."""
        if not _is_of_script(kind):
            return []
        own = {key: each for key, each in vars(kind).items() if _is_shared(key, each)}

        def back() -> None:
            for key, each in list(vars(kind).items()):
                if key in own and each is not own[key]:
                    setattr(kind, key, own[key])
                elif key not in own and _is_shared(key, each):
                    delattr(kind, key)

        self._back.append(back)
        return _leading(list(own.values()))

    def _keep_function(self, function: FunctionType) -> list[Any]:
        """What a function of the script's shares with the one that made it, `nonlocal steps`, and its attributes."""
        if is_library(function.__code__.co_filename):
            return []
        cells = [(cell, cell.cell_contents) for cell in function.__closure__ or () if _is_filled(cell)]

        def back() -> None:
            for cell, held in cells:
                cell.cell_contents = held

        self._back.append(back)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return [vars(function), *_leading([*defaults, *(held for _, held in cells)])]

    def _keep_object(self, value: Any) -> list[Any]:
        own = {key: each for key, each in vars(value).items() if key not in _HELD}

        def back() -> None:
            for key in [key for key in vars(value) if key not in own and key not in _HELD]:
                del vars(value)[key]
            vars(value).update(own)

        self._back.append(back)
        parameters = self._keep_parameters(value._parameters) if isinstance(value, nn.Module) else []
        kept = self._keep_buffers(value) if isinstance(value, nn.Module) else []
        return [type(value), *_leading(list(own.values())), *kept, *parameters]

    def _keep_buffers(self, module: nn.Module) -> list[Any]:
        """Those of all its parts: a teacher that the script copied is no model of ours, and its BatchNorm counts."""
        found = [each._buffers for each in module.modules()]
        # Those of a scripted module stay where they are.
        kept = [self._keep_dict(each) if isinstance(each, dict) else each.values() for each in found]
        return [buffer for each in kept for buffer in each]

    def _keep_parameters(self, held: Any) -> list[Any]:
        """Which they are: a forward may put others in their place, and so does what gathers weights in parts."""
        plain = {key: each for key, each in held.items() if type(each) is nn.Parameter}

        def back() -> None:
            held.update({key: each for key, each in plain.items() if type(held.get(key)) is nn.Parameter})

        if isinstance(held, dict):  # those of a scripted module stay where they are
            self._back.append(back)
        return list(plain.values())

    def _keep_numbers(self, value: Any) -> None:
        """Of a library's object what it counts: steps that it accumulates (accelerate), a running mean (timm)."""
        held = vars(value)
        numbers = {key: each for key, each in held.items() if type(each) in _NUMBERS}

        def back() -> None:
            held.update({key: each for key, each in numbers.items() if type(held.get(key)) in _NUMBERS})

        self._back.append(back)


def single_numbers() -> tuple[Any, ...]:
    """What `random` and numpy will draw next."""
    of_numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
    return random.getstate(), of_numpy and (of_numpy[1].tobytes(), *of_numpy[2:])


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # its variable has no value as yet
        return False


def _chance_of(value: Any) -> Callable[[], Any] | None:
    """What puts back the random numbers of *value*, a generator of the script's own; None for anything else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if not type(value).__module__.startswith("numpy.random"):
        return None
    bits = getattr(value, "bit_generator", None) or getattr(value, "_bit_generator", None)
    return None if bits is None else partial(setattr, bits, "state", bits.state)


def _held(value: dict) -> dict:
    """What *value* holds; one with a `__getitem__` of its own may make more (transformers imports models)."""
    return dict(value) if type(value).__getitem__ is dict.__getitem__ else dict(dict.items(value))


def _same(now: dict, then: dict) -> bool:
    return list(now) == list(then) and all(now[key] is then[key] for key in then)


def _leading(values: list[Any]) -> list[Any]:
    """Those of *values* that may hold something that changes; of a long list of one kind, such as numbers, none."""
    plain = (int, float, str, bytes, bool, type(None))
    return [each for each in values if not isinstance(each, plain)]


def _refill(held: set, kept: set) -> None:
    held.clear()
    held.update(kept)


def _is_array(value: Any) -> bool:
    return "numpy" in sys.modules and type(value) is sys.modules["numpy"].ndarray


def _is_shared(key: str, value: Any) -> bool:
    """Whether *value*, of a class, is no part of its code."""
    is_code = callable(value) or hasattr(value, "__get__") or isinstance(value, _CODE)
    return not is_code and not (key.startswith("__") and key.endswith("__"))


def _is_own(value: Any) -> bool:
    """Whether *value* is of a class of the script's own."""
    return not isinstance(value, type) and hasattr(value, "__dict__") and _is_of_script(type(value))


def _is_of_script(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is not None and not is_library(getattr(module, "__file__", None) or "<none>")
