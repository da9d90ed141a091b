"""The functions and methods of torch that take part; without a running engine each does what torch's own does."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType, MethodType
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.utils import checkpoint
from torch.utils.data import DataLoader

from ...errors import RequestError
from . import (
    asked,
    batchnorm,
    compiled,
    counts,
    cycled,
    draws,
    draws_of_numpy,
    draws_of_places,
    layout,
    losses,
    marks,
)
from .counts import reducing, users
from .divided import OF_ALL
from .fetching import is_fetching
from .files import hooks
from .resume import watch
from .seen import Seen
from .share import Share
from .single import is_one_number

_LAYERS = ("torch.nn.modules.", f"{__name__.partition('.')[0]}.")
"""Whose BatchNorm counts the batches."""
_WITH_ROWS = (slice, tuple, counts.Rows)
"""What a number of rows may be in, or be, among the kinds of an index."""


def install(seen: Seen) -> None:
    """Replace them, for good, and note in *seen* what the script makes."""
    DataLoader.__iter__ = _iterating(DataLoader.__iter__, seen)
    torch.autograd.backward = _backward(torch.autograd.backward, seen)
    torch.autograd.grad = _grad(torch.autograd.grad, seen)
    parametrize.register_parametrization = _parametrizing(parametrize.register_parametrization)
    for name in ("grad", "grad_and_value"):
        setattr(torch.func, name, asked.functional(getattr(torch.func, name), lambda: _share(seen)))
    torch.vmap = torch.func.vmap = counts.mapping(torch.func.vmap)
    for name in ("item", "tolist", "__float__", "detach"):
        setattr(torch.Tensor, name, _reading(getattr(torch.Tensor, name), seen))
    checkpoint.checkpoint = _recomputing(checkpoint.checkpoint, seen)
    torch.autocast.__enter__ = _casting(torch.autocast.__enter__, seen)
    watch.install(seen)
    torch.Tensor.__getitem__ = _indexing(torch.Tensor.__getitem__)  # the outermost, for it looks at who calls
    cycled.install(seen)
    hooks.install(seen)
    Optimizer.add_param_group = _adopting(Optimizer.add_param_group, seen)
    torch.nn.Module.train = _switching(torch.nn.Module.train, seen)
    register_module_parameter_registration_hook(lambda module, _, parameter: seen.note_parameter(module, parameter))
    register_module_module_registration_hook(lambda module, _name, _child: seen.note_module(module))
    torch.autograd.Variable.__new__ = counts.keeping(torch.autograd.Variable.__new__)
    torch.nn.Parameter.__new__ = counts.refusing(torch.nn.Parameter.__new__)
    compiled.keep_graphs_apart()
    losses.install(lambda own: seen.engine.loss_at_hand(own) if seen.engine else None)
    reducing.LOSS[:] = [_by_hand(seen)]
    batchnorm.install(lambda own: _share(seen, own), lambda: _say_shared(seen))
    at_hand, told = functools.partial(_rows, seen), functools.partial(_say_drawn, seen)
    draws.install(at_hand, told)
    counts.states.install(counts.part_of, lambda: _share(seen))
    draws_of_numpy.install(at_hand, told, lambda: _share(seen))
    draws_of_places.install(lambda: _share(seen))


def _by_hand(seen: Seen) -> reducing.Loss:
    def loss(own: torch.Tensor, count: torch.Tensor | float | None, share: Share) -> torch.Tensor:
        at_hand = seen.engine.loss_at_hand(share) if seen.engine else None
        alike = at_hand is not None and at_hand.rows > 0 and share.rows > 0
        return losses.by_hand(own, count, at_hand if alike and at_hand else share)

    return loss


def _share(seen: Seen, own: Share | None = None) -> Share | None:
    """How the rows were cut that are computed now, *own* as they tell it: a batch fetched since is cut otherwise."""
    return seen.engine.at_hand.share_of(own) if seen.engine and not seen.engine.is_repeating else None


def _rows(seen: Seen, own: Share | None = None) -> draws.Rows | None:
    """This rank's rows that are drawn for, *own* as a size or a tensor tells it.

    A plain number may be of rows within a model and in a library; in the script's loop it is by chance as many as they.
    """
    if seen.engine is None or (own is None and not seen.engine.at_hand.is_computing and _script_draws()):
        return None
    return seen.engine.rows(own)


def _script_draws() -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename in {draws.__file__, draws_of_places.__file__}:
        frame = frame.f_back
    return users.asks(frame)


def _iterating(own: Callable[[DataLoader], Iterator], seen: Seen) -> Callable[[DataLoader], Iterator]:
    @functools.wraps(own)
    def iterate(loader: DataLoader) -> Iterator:
        return seen.engine.batches(loader, own) if seen.engine else own(loader)

    return iterate


def _backward(own: Callable[..., None], seen: Seen) -> Callable[..., None]:
    @functools.wraps(own)
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
        if seen.engine:
            with _as_ever():
                seen.engine.backward(own, tensors, grad_tensors, *args, **kwargs)
        else:
            own(tensors, grad_tensors, *args, **kwargs)

    return backward


def _recomputing(own: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    @functools.wraps(own)
    def checkpointed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if seen.engine and not torch.compiler.is_compiling():
            function = seen.engine.undivided.keeping(seen.engine.within.keeping(function))
        return own(function, *args, **kwargs)

    return checkpointed


def _grad(own: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    signature = inspect.signature(own)

    @functools.wraps(own)
    def grad(*args: Any, **kwargs: Any) -> Any:
        if seen.engine:
            with _as_ever():
                return seen.engine.grad(own, dict(signature.bind(*args, **kwargs).arguments))
        return own(*args, **kwargs)

    return grad


def _as_ever() -> AbstractContextManager[None]:
    """Within this, tensors answer as their classes say, which a loss of all ranks turns off while it goes back.

    A forward that is computed once more in backward has parts of tensors too, and tensors of other stages.
    """
    return torch._C._EnableTorchFunction()


def _casting(own: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """Around a part of a model too, such as `model.embed(x)`, which the self-check does not see being called."""

    @functools.wraps(own)
    def enter(cast: torch.autocast) -> Any:
        found = own(cast)
        if seen.engine:
            seen.engine.self_check.saw()
        return found

    return enter


def _indexing(own: Callable[..., Any]) -> Callable[..., Any]:
    """Rows of the script's own tensor, as many as its batch has, are those that go with the batch's."""

    @functools.wraps(own)
    def getitem(tensor: torch.Tensor, index: Any) -> Any:
        is_known = type(index) not in _WITH_ROWS or type(tensor) is counts.OfBatch
        if is_known or not users.is_scripts(sys._getframe(1)):
            return own(tensor, index)
        found = counts.tables.taken(own, tensor, index)
        return own(tensor, counts.of_all_ranks(index)) if found is None else found

    return getitem


def _reading(own: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """A number that leaves the graph is the global one on every rank, so that the script's decisions agree."""
    is_read = own.__name__ != "detach"  # of which a state dict takes every number

    @functools.wraps(own)
    def read(tensor: torch.Tensor, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return own(tensor, *args)
        if seen.engine and tensor.requires_grad and not tensor.is_leaf and _is_number(own.__name__, tensor, seen):
            value = own(seen.engine.number(tensor), *args)
            return value if is_read or not seen.engine.share else counts.of_all(value)
        if is_read and seen.engine and _is_count(tensor):
            _say_counted(seen)
        value = own(tensor, *args)
        if type(tensor) is counts.OfAll and isinstance(value, (int, float)):
            OF_ALL.append(value)
        return value

    return read


def _is_number(name: str, tensor: torch.Tensor, seen: Seen) -> bool:
    """Whether *tensor*, read by the function *name*, is one number of the batch."""
    share = seen.engine.share if seen.engine else None
    if tensor.dim() == 0 or share is None or tensor.numel() != 1 or type(tensor) in (counts.OfAll, counts.OfBatch):
        return tensor.dim() == 0
    # One device, with all rows, could not read a number for each of them as one.
    return name in ("item", "__float__") or (share.total // share.ranks > 1 and is_one_number(tensor, share))


def _is_count(tensor: torch.Tensor) -> bool:
    """Whether *tensor* is a whole number of which nothing says that it is of all rows."""
    is_whole_number = tensor.dim() == 0 and not tensor.dtype.is_floating_point
    return is_whole_number and type(tensor) is not counts.OfAll and not marks.is_marked(tensor)


def _say_counted(seen: Seen) -> None:
    engine = seen.engine
    if engine is None or not torch.is_grad_enabled() or not engine.share or engine.in_backward:
        return
    if sys._getframe(2).f_globals.get("__name__", "").startswith(_LAYERS):
        return
    if not is_fetching():  # a DataLoader draws its workers' seed, and a dataset reads what it has
        engine.say_once(
            "count",
            "a count read of a tensor that a library or a model made by itself is of this rank's rows, if of any",
        )


def _adopting(own: Callable[..., None], seen: Seen) -> Callable[..., None]:
    @functools.wraps(own)
    def add_param_group(optimizer: Optimizer, entry: dict[str, Any]) -> None:
        own(optimizer, entry)
        added = optimizer.param_groups[-1]
        added["params"] = [layout.now(each) for each in added["params"]]  # of a list from before they were laid out
        seen.note_optimizer(optimizer)
        if "step" not in vars(optimizer):
            # On the object, as schedulers do: each class has a step of its own. Optimizers do not store it.
            optimizer.step = MethodType(_stepping(type(optimizer).step, seen), optimizer)
        if seen.engine:
            seen.engine.gradients.adopt(optimizer.param_groups[-1]["params"])

    return add_param_group


def _parametrizing(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def register(module: torch.nn.Module, tensor_name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            with layout.kept_whole(module):
                return own(module, tensor_name, *args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            if not isinstance(getattr(module, tensor_name, None), DTensor):
                raise
            raise RequestError(
                f"{tensor_name} of a {type(module).__name__} is spread over ranks, and its parametrization"
                " (spectral_norm, orthogonal) needs it whole; use --layout replicate"
            ) from error

    return register


def _stepping(own: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    @functools.wraps(own)
    def step(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        if seen.engine:
            return seen.engine.step(optimizer, functools.partial(own, optimizer), args, kwargs)
        return own(optimizer, *args, **kwargs)

    return step


def _switching(own: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    @functools.wraps(own)
    def train(module: torch.nn.Module, mode: bool = True) -> Any:
        with seen.modes.spoken(module):
            return own(module, mode)

    return train


def _say_shared(seen: Seen) -> None:
    if seen.engine:
        seen.engine.say_once("batchnorm", "BatchNorm takes mean and variance of the global batch, over all ranks")


def _say_drawn(seen: Seen, name: str, rows: int) -> None:
    if seen.engine:
        seen.engine.say_once(
            "drawn",
            f"{name} of {rows} rows, as many as this rank has, gives rows of the draw for the global batch",
        )
