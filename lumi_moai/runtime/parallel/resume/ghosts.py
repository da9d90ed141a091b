"""Tensors without values, for the steps that a restarted script repeats.

What the model would compute is a ghost: torch's FakeTensor, which has a shape, a type and a device. What is computed
from ghosts is a ghost; the model's own parameters count as ghosts too, because their values are not those of that
step. A real tensor into which a ghost is written has a ghost as its twin from then on. When the checkpoint is loaded,
ghosts that the script still holds get their values, and all work on them is real again.
"""

import os
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.distributed.tensor import DTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ....errors import RequestError
from ..counts import KINDS, plainly
from ..layout import now
from .rowed import Rowed

_ON_THE_REAL = ("requires_grad_", "register_hook", "register_post_accumulate_grad_hook")
_REPLACING = tuple(
    os.path.join("runtime", *path)
    for path in (
        ("stand_in.py",),
        ("parallel", "replace.py"),
        ("parallel", "losses.py"),
        ("parallel", "counts", "taught.py"),
        ("parallel", "resume", "watch.py"),
        ("parallel", "resume", "reads.py"),
    )
)
_VALUE = "_lumi_moai_value"


def is_ghost(thing: object) -> bool:
    """Whether *thing* is a tensor without a value of its own; torch.compile has FakeTensors that are none of ours."""
    return isinstance(thing, FakeTensor) and isinstance(thing.fake_mode, Ghosts)


def value_of(ghost: torch.Tensor) -> torch.Tensor | None:
    """The value that *ghost* was given; None while it has none."""
    return getattr(ghost, _VALUE, None)


def set_value(ghost: torch.Tensor, value: torch.Tensor) -> None:
    """From now on *ghost* is *value*."""
    setattr(ghost, _VALUE, value)


class Ghosts(FakeTensorMode):
    """Computes shapes instead of values."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.is_over = False
        """Whether the checkpoint was reached: from then on ghosts are what they were given."""
        self.has_numbers = False
        """Whether a model computes with whole numbers that are real, of which it reads how many there are."""
        self.written: list[torch.Tensor] = []
        """Real tensors that the last calls wrote ghosts into."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Ghosts":
        return self  # a copy of a ghost is one of ours

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_over:
            return func(*tree_map_only(FakeTensor, _must_have, args), **tree_map_only(FakeTensor, _must_have, kwargs))
        if self.has_numbers and _are_real((args, kwargs)):
            return func(*args, **kwargs)
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.masked_select.default):
            func, args = _known_places(func, args)
        self._note_written(func, args, kwargs)
        try:
            with plainly((args, kwargs)):  # torch's mode leaves classes that it does not know alone
                known = tuple(each for each in types if each not in KINDS[1:])
                return super().__torch_dispatch__(func, known, args, kwargs)
        except DynamicOutputShapeException:
            raise RequestError(_by_value(func)) from None

    def _note_written(self, func: Any, args: Any, kwargs: Any) -> None:
        if not getattr(func, "_schema", None) or not func._schema.is_mutable:
            return
        if not any(is_ghost(leaf) for leaf in tree_leaves((args, kwargs))):
            return
        for argument, given in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.written += [leaf for leaf in tree_leaves(given) if _is_plain(leaf)]

    def scalar(self) -> torch.Tensor:
        """A ghost of one number."""
        with self:
            return torch.empty(())

    def plain(self, tensor: torch.Tensor) -> torch.Tensor:
        """A ghost like *tensor* that is no parameter and needs no gradient."""
        with self, torch.no_grad():
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A ghost like *tensor*, of its whole shape if it is spread over ranks."""
        made = self.plain(tensor)
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(made, requires_grad=tensor.requires_grad)
        return made.requires_grad_(tensor.requires_grad and tensor.is_leaf)


def _are_real(arguments: Any) -> bool:
    tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
    return bool(tensors) and not any(isinstance(each, FakeTensor) for each in tensors)


def _must_have(ghost: torch.Tensor) -> torch.Tensor:
    value = value_of(ghost)
    if value is None:
        raise RequestError(
            f"the script uses a tensor of shape {list(ghost.shape)} that the model computed before the checkpoint, and"
            " that lumi-moai could not find to save it; keep such tensors in variables, lists or attributes of the"
            " function that trains, or read their numbers with .item()"
        )
    return value


def _known_places(func: Any, args: Any) -> tuple[Any, Any]:
    """Boolean masks that are real, as places, whose number is known."""
    if func is torch.ops.aten.masked_select.default:
        if is_ghost(args[1]) or args[0].shape != args[1].shape:
            return func, args
        return torch.ops.aten.index.Tensor, (args[0], list(args[1].nonzero(as_tuple=True)))
    places: list[Any] = []
    for index in args[1]:
        is_mask = index is not None and not is_ghost(index) and index.dtype in (torch.bool, torch.uint8)
        places += index.nonzero(as_tuple=True) if is_mask else [index]
    return func, (args[0], places)


def _by_value(func: Any) -> str:
    return (
        f"the script selects by values that the model computes ({func}), so the number of results is not known when a"
        " restart repeats its steps; use torch.where or a product with the mask, or submit with --checkpoint off"
    )


class Twins(TorchFunctionMode):
    """Puts ghosts in the place of real tensors that depend on the model, wherever the script uses them."""

    def __init__(self, ghosts: Ghosts, ours: str) -> None:
        super().__init__()
        self.ghosts = ghosts
        self.ours = ours
        """Where our own code lies, which means the real ones."""
        self.twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.stained: dict[int, StorageWeakRef] = {}
        self.rowed = Rowed(value_of)

    def replace(self, reals: Iterable[torch.Tensor]) -> None:
        """From now on a ghost stands for each of *reals*."""
        for real in reals:
            if id(real) not in self.twins:
                self.twins[id(real)] = (real, self.ghosts.of(real))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # A model that is compiled behind the last repeated step has no ghosts.
        if torch.compiler.is_dynamo_compiling() or self._is_ours_alone(sys._getframe(1)):
            return func(*args, **kwargs)
        size = self.rowed.size(func, args, kwargs)
        if size is not None:
            return size
        if self.ghosts.is_over:
            args, kwargs = self.rowed.with_values((args, kwargs))
            return func(*args, **kwargs)
        if (rows := self.rowed.by_row(func, args)) is not None:
            return rows
        name = getattr(func, "__name__", "")
        if name in _ON_THE_REAL or (name == "__set__" and getattr(func.__self__, "__name__", "") == "requires_grad"):
            func(*args, **kwargs)
        args, kwargs = tree_map_only(torch.Tensor, self._twin, (args, kwargs))
        result = func(*args, **kwargs)
        self.rowed.note(result, (args, kwargs))
        while self.ghosts.written:
            self._stain(self.ghosts.written.pop())
        return tree_map_only(torch.Tensor, self._twin, result) if type(result) is torch.Tensor else result

    def _is_ours_alone(self, frame: FrameType | None) -> bool:
        """Whether the call is the runtime's own, and not one of the script's that goes through what we replaced."""
        while frame is not None and frame.f_code.co_filename.endswith(_REPLACING):
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename.startswith(self.ours)

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = now(tensor)
        found = self.twins.get(id(tensor))
        if found is not None and found[0] is tensor:
            return found[1]
        if isinstance(tensor, DTensor):  # what is spread over ranks is a weight, or made of weights
            self.replace([tensor])
            return self.twins[id(tensor)][1]
        if not self.stained or not self.is_stained(tensor):
            return tensor
        return self.ghosts.of(tensor)

    def _stain(self, real: torch.Tensor) -> None:
        storage = real.untyped_storage()
        self.stained[storage._cdata] = StorageWeakRef(storage)

    def clean(self, tensor: torch.Tensor) -> None:
        """*tensor* has its true values."""
        self.stained.pop(tensor.untyped_storage()._cdata, None)

    def is_stained(self, tensor: torch.Tensor) -> bool:
        """Whether a ghost stands for *tensor*, or was written into it or into what it is a view of."""
        if id(tensor) in self.twins:
            return True
        if not _is_plain(tensor):
            return False
        key = tensor.untyped_storage()._cdata
        found = self.stained.get(key)
        return found is not None and not found.expired()

    def still_stained(self) -> set[int]:
        """The stained storages that are alive."""
        return {key for key, reference in self.stained.items() if not reference.expired()}


def _is_plain(thing: object) -> bool:
    return type(thing) in (*KINDS, torch.nn.Parameter)
