"""A tensor of which each rank holds a part, and which answers the script as the whole one would.

FSDP computes with plain, gathered weights, so none of this is in the way of a forward or backward. It is for what the
script does with parameters and gradients itself: norms, prints, averages of weights, edits in place. Operations on each
number alone work on the parts; all others work on a gathered copy, and what they changed in it goes back to the parts.
Every rank runs the same script, so all ranks gather together.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch._ops import OpOverload
from torch.distributed.tensor import DTensor, Replicate
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ....errors import RequestError
from ... import accelerator, group
from ..counts import counted
from . import aliases, operations, parts
from .parts import full as put_together

Function = Callable[..., Any]

_NATIVE = [False]
BIRTHPLACE = [torch.device("cpu")]
"""Where the script made its last parameter: its random numbers come from there."""
_EDITS = [0]
"""How often spread tensors have been edited; views of gathered copies follow."""
ON_EDIT: list[Callable[[], None]] = []
"""Called ahead of each edit."""
_WAY_OUT = "use --layout replicate"


class Spread(DTensor):
    """A DTensor that answers as the whole tensor would."""

    __slots__ = ()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """The answer of the whole tensor to *func*."""
        return answer(func, *counted(func, args, kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy that is spread likewise."""
        if id(self) not in memo:
            with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
                made: Any = _wrap(self._local_tensor.clone(), self, self.shape)
                memo[id(self)] = made.requires_grad_(self.requires_grad)
            made.__dict__.update(copy.deepcopy(vars(self), memo))
            made.__class__ = Spread
            made.grad = copy.deepcopy(self.grad, memo)
        return memo[id(self)]

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """As torch prints the whole tensor."""
        return repr(_like_parameter(self))

    def __format__(self, spec: str) -> str:
        """As torch formats the whole tensor."""
        return format(_like_parameter(self), spec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As a plain whole tensor is stored; all ranks must store together."""
        return _like_parameter(self).cpu().__reduce_ex__(protocol)


class Origin:
    """A spread tensor and its gathered copy, of which the script has a view."""

    def __init__(self, tensor: DTensor) -> None:
        self.tensor = tensor
        self.full = whole(tensor)
        self.version = _version(self.full)
        self.edits = _EDITS[0]

    def refresh(self) -> None:
        """Bring the copy to what the parts are now; all ranks come here together."""
        if self.edits != _EDITS[0]:
            with torch.no_grad():
                self.full.copy_(whole(self.tensor))
            self.version, self.edits = _version(self.full), _EDITS[0]

    def bring_back(self, *, untold: bool = False) -> None:
        """Bring the parts to what the copy is now, if it was edited, or may have been *untold*."""
        if untold or _version(self.full) != self.version:
            with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
                self.tensor._local_tensor.copy_(part_of(self.full.detach(), self.tensor)._local_tensor)
            edited()
            self.version, self.edits = _version(self.full), _EDITS[0]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Copied(torch.Tensor):
    """A view of a gathered copy; it follows the parts, and what is edited in it goes back to them."""

    _origin: Origin

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """What torch's own tensor answers."""
        args, kwargs = counted(func, args, kwargs or {})
        origins = [leaf._origin for leaf in _tensors((args, kwargs)) if type(leaf) is Copied]
        _, is_fact = operations.name_of(func)
        for origin in () if is_fact else origins:
            origin.refresh()
        with torch._C.DisableTorchFunctionSubclass():  # a view of one dimension is its weight, in parts
            result = func(*tree_map(whole, args), **tree_map(whole, kwargs))
        for origin in origins:
            origin.bring_back(untold=operations.is_of_a_library(func))
        return tree_map(lambda leaf: _mark(leaf, origins), result)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """As torch prints a tensor."""
        self._origin.refresh()
        self.__class__ = torch.Tensor
        try:
            return repr(self)
        finally:
            self.__class__ = Copied


@contextmanager
def native() -> Iterator[None]:
    """Let torch's own code handle spread tensors, for optimizers that are known to work on parts."""
    before, _NATIVE[0] = _NATIVE[0], True
    try:
        yield
    finally:
        _NATIVE[0] = before


def edited() -> None:
    """Note that spread tensors have other numbers than before."""
    _EDITS[0] += 1
    for follow in ON_EDIT:
        follow()


def answer(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:  # noqa: PLR0911  (a case a line)
    """The result of *func* as if the spread tensors among its arguments were whole.

    Raises RequestError for what a tensor in parts cannot give.
    """
    name, is_fact = operations.name_of(func)
    if operations.is_in_place(name) or name == "_set_data":
        edited()
    if name in operations.REFUSED:
        what = operations.REFUSED[name]
        raise RequestError(f"the script asked a parameter that is spread over ranks for {what}; {_WAY_OUT}")
    if name.endswith(("_set_data", "_set_grad")):
        return _set(func, name, *args)
    if name.startswith("_fused"):  # optimizers, which update each number by itself: torch knows only some of them
        return func(*tree_map(parts.local, args), **tree_map(parts.local, kwargs))
    if name.startswith("_amp_foreach"):
        return parts.unscaled(func, *args, **kwargs)
    if name.startswith("_foreach"):
        return _each(func, args, kwargs)
    if is_fact or _NATIVE[0] or isinstance(func, OpOverload):  # which a dispatch mode hands on, in backward too
        return _answer_fact(func, name, args, kwargs)
    target = args[0] if args else kwargs.get("tensor")
    if operations.fills(func, name) and isinstance(target, DTensor):
        return _fill(func, target, args, kwargs)
    if operations.is_maker(name):
        return func(torch.empty(0, dtype=args[0].dtype, device=accelerator.device()), *args[1:], **kwargs)
    on_parts = operations.is_in_place(name) or not any(map(parts.is_scarce, _tensors((args, kwargs))))
    if operations.is_single(name) and on_parts:
        mine = _aligned(name, args, kwargs)
        if mine is not None:
            with suppress(NotImplementedError):  # torch cannot do all of them on parts
                return _natively(func, *mine)
    if operations.is_total(name, args, kwargs) and on_parts:
        return whole(_natively(func, args, kwargs))
    return _gathered(func, args, kwargs)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of *tensor*, on this rank's device; its gradient goes to the parts. All ranks must call this together."""
    return _Whole.apply(tensor) if isinstance(tensor, DTensor) else tensor


def _fill(function: Function, target: DTensor, args: tuple, kwargs: dict[str, Any]) -> DTensor:
    """Fill *target* with the numbers that one device would draw."""
    # A parameter, as the target is: what is drawn for it is not for the rows of a batch.
    full = torch.nn.Parameter(torch.empty(target.shape, dtype=target.dtype, device=BIRTHPLACE[0]), requires_grad=False)
    mine = tree_map(lambda leaf: full if leaf is target else leaf, (args, kwargs))
    with torch.no_grad():
        function(*mine[0], **mine[1])
        part = part_of(full, target)._local_tensor
        with torch._C.DisableTorchFunctionSubclass():
            target._local_tensor.copy_(part)
    return target


def part_of(full: torch.Tensor, like: DTensor) -> DTensor:
    """*full*, of which every rank has the same, spread as *like* is."""
    spec = like._spec
    moved = full.to(accelerator.device())
    # The shape in words, because a rank outside of the mesh has none of it to tell by.
    words = {"run_check": False, "shape": moved.shape, "stride": moved.stride()}
    replicas = DTensor.from_local(moved, spec.mesh, [Replicate()] * spec.mesh.ndim, **words)
    wanted = [Replicate() if placement.is_partial() else placement for placement in spec.placements]
    parts = replicas.redistribute(placements=wanted)
    local = parts._local_tensor.to(like._local_tensor.device)
    if local.data_ptr() == full.data_ptr():
        local = local.clone()
    return _spread(_wrap(local, like, parts.shape, wanted))


class _Whole(torch.autograd.Function):
    """The whole of a spread tensor; backward averages over the data ranks, as FSDP does with its own gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: DTensor) -> torch.Tensor:
        """The whole."""
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            ctx.like = _wrap(tensor._local_tensor, tensor, tensor.shape)
            local = tensor._local_tensor.to(accelerator.device())
            return put_together(_wrap(local, tensor, tensor.shape)).clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> DTensor:
        """The part of the average."""
        with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
            mean = gradient.contiguous().clone()
            work, divisor = group.start_average(mean)
            work.wait()
            return part_of(mean / divisor, ctx.like)


def _wrap(local: torch.Tensor, like: DTensor, shape: torch.Size, placements: Sequence[Any] = ()) -> DTensor:
    stride = torch.empty(shape, device="meta").stride()
    where = placements or like._spec.placements
    return DTensor.from_local(local, like._spec.mesh, where, run_check=False, shape=shape, stride=stride)


def _spread(result: Any) -> Any:
    if type(result) is DTensor:
        result.__class__ = Spread
    return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def _answer_fact(func: Function, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
    result = _natively(func, args, kwargs)
    if name in {"data", "detach"} and isinstance(result, DTensor):
        aliases.remember(args[0], result)
    if name == "device" and not _NATIVE[0]:
        return accelerator.device()  # under offload the parts wait on the host; whoever asks wants to compute
    return result


def _natively(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*args, **kwargs)
    return type(result)(map(_spread, result)) if type(result) in (list, tuple) else _spread(result)


def _set(func: Function, name: str, tensor: torch.Tensor, value: Any) -> None:
    """`tensor.data = value` and `tensor.grad = value`."""
    if isinstance(tensor, DTensor) and isinstance(value, torch.Tensor) and not isinstance(value, DTensor):
        value = part_of(value, tensor)
    if isinstance(value, DTensor) and not isinstance(tensor, DTensor):
        value = whole(value)
    with torch._C.DisableTorchFunctionSubclass():
        if name == "_set_data" and isinstance(tensor, DTensor):
            aliases.give(tensor, value)
        else:
            func(tensor, value)


def _aligned(name: str, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """The arguments, if all tensors among them are spread alike or single numbers; None if they are not.

    What is added in place to a spread tensor, and is whole on every rank, is spread first.
    """
    target = args[0] if args else None
    in_place = isinstance(target, DTensor) and operations.is_in_place(name)
    like = next(leaf for leaf in _tensors((args, kwargs)) if isinstance(leaf, DTensor))

    def fit(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.dim() == 0:
            return leaf
        if isinstance(leaf, DTensor):
            alike = leaf.shape == like.shape and leaf._spec.placements == like._spec.placements
            return leaf if alike and leaf._spec.mesh == like._spec.mesh else None
        return part_of(leaf, like) if in_place and leaf.shape == like.shape and not leaf.requires_grad else None

    with torch._C.DisableTorchFunctionSubclass():
        leaves, tree = tree_flatten((args, kwargs))
        fitted = [fit(leaf) for leaf in leaves]
        if any(new is None and old is not None for new, old in zip(fitted, leaves, strict=True)):
            return None
        if any(isinstance(leaf, DTensor) and leaf.dim() == 0 for leaf in leaves):
            return None
        return tree_unflatten(fitted, tree)


def _gathered(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The result of *func* on gathered copies; what it changed in them goes back to the parts."""
    copies: dict[int, Origin] = {}

    def gather(leaf: Any) -> Any:
        if not isinstance(leaf, DTensor):
            return leaf
        if id(leaf) not in copies:
            copies[id(leaf)] = Origin(leaf)
        return copies[id(leaf)].full

    mine = tree_map(gather, (args, kwargs))
    result = func(*mine[0], **mine[1])
    for origin in copies.values():
        origin.bring_back(untold=operations.is_of_a_library(func))
    if func.__name__ == "numpy":
        result.flags.writeable = False  # an edit of the array would not reach the parts
    own = {id(origin.full): origin.tensor for origin in copies.values()}
    return tree_map(lambda leaf: own[id(leaf)] if id(leaf) in own else _mark(leaf, list(copies.values())), result)


def _mark(leaf: Any, origins: Sequence[Origin]) -> Any:
    """*leaf*, which remembers where it comes from if it is a view of a gathered copy."""
    if type(leaf) is not torch.Tensor or leaf.is_meta or leaf.layout is not torch.strided:
        return leaf
    address = leaf.untyped_storage().data_ptr()
    for origin in origins:
        if address and origin.full.untyped_storage().data_ptr() == address:
            leaf.__class__ = Copied
            leaf._origin = origin
    return leaf


def _each(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operation on lists of tensors: done apart with the spread ones, the plain ones, and those that meet both."""
    count = len(args[0])
    kinds: dict[tuple[Callable[..., Any], Any], list[int]] = {}
    for place in range(count):
        met = [each[place] for each in (*args, *kwargs.values()) if _is_list(each, count)]
        kinds.setdefault((_kind(met), _mesh_of(met)), []).append(place)
    results: list[Any] = [None] * count
    for (call, _), places in kinds.items():
        some = call(func, *_pick(args, kwargs, places, count))
        for place, result in zip(places, _whole_numbers(some or []), strict=False):
            results[place] = result
    return None if all(result is None for result in results) else results


def _whole_numbers(results: Sequence[Any]) -> Sequence[Any]:
    """*results*; if these are norms, each a single number, the whole ones, fetched in one go."""
    if not results or not all(isinstance(each, DTensor) and each.dim() == 0 for each in results):
        return results
    with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
        spec = results[0]._spec
        if any(each._spec.placements != spec.placements or each._spec.mesh != spec.mesh for each in results):
            return [whole(each) for each in results]
        together = torch.stack([each._local_tensor for each in results]).to(accelerator.device())
        words = {"run_check": False, "shape": together.shape, "stride": (1,)}
        return list(put_together(DTensor.from_local(together, spec.mesh, spec.placements, **words)).unbind())


def _kind(met: list[Any]) -> Callable[..., Any]:
    tensors = [each for each in met if isinstance(each, torch.Tensor) and each.dim() > 0]
    meshes = [each._spec.mesh if isinstance(each, DTensor) else None for each in tensors]
    if not any(mesh is not None for mesh in meshes):
        return _plainly
    return _natively if all(mesh == meshes[0] for mesh in meshes) else _gathered


def _mesh_of(met: list[Any]) -> Any:
    """Torch takes the spread tensors of one mesh in one go."""
    return next((each._spec.mesh for each in met if isinstance(each, DTensor)), None)


def _plainly(func: Function, args: tuple, kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def _is_list(value: Any, count: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == count


def _pick(args: tuple, kwargs: dict[str, Any], places: list[int], count: int) -> tuple[tuple, dict[str, Any]]:
    def some(value: Any) -> Any:
        return [value[place] for place in places] if _is_list(value, count) else value

    return tuple(map(some, args)), {key: some(value) for key, value in kwargs.items()}


def _like_parameter(tensor: DTensor) -> torch.Tensor:
    full = whole(tensor.detach())
    is_parameter = getattr(tensor, "_is_param", False)
    return torch.nn.Parameter(full, requires_grad=tensor.requires_grad) if is_parameter else full
