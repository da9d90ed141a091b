"""Numbers of the global batch, which are the same on all ranks."""

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from . import pieces, users
from .names import ARITHMETIC
from .size import Rows

_UNLIKE = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
    *("bernoulli", "multinomial", "normal", "poisson", "binomial", "rrelu", "gumbel_softmax", "grad", "empty"),
}
"""What is not of all ranks although it is made of what is: draws, and what the script is yet to fill."""


class OfAll(torch.Tensor):
    """A tensor that all ranks share, such as a loss: times a number of rows it is times that of the global batch."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Do *func*; what the script makes of it alone is of all ranks too."""
        if any(each not in (OfAll, torch.Tensor, torch.nn.Parameter) for each in kinds(func, types, args)):
            return NotImplemented  # the other class decides
        kwargs = kwargs or {}
        asks = users.asks(sys._getframe(1))
        args, kwargs = counted(func, args, kwargs) if asks else (args, kwargs)
        if asks and name_of(func) == "getitem" and (found := pieces.own_row(args)) is not None:
            return found
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            # What is added to in place was the script's before: only a single number is surely of all ranks then.
            is_new = not any(result is each for each in args) or (torch.is_tensor(result) and result.numel() == 1)
            if asks and is_new and _is_alike(name_of(func), result, (args, kwargs)):
                tree_map(of_all, result)
                pieces.pass_on(name_of(func), args, result)
            if asks and args and (write := getattr(args[0], "write_back", None)) is not None:
                note_written(func, args[0], write, result)
        return result

    def __format__(self, spec: str) -> str:
        return self.as_subclass(torch.Tensor).__format__(spec)  # torch's takes its own class only

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return of_all(copied(self, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return self.as_subclass(torch.Tensor).__repr__(tensor_contents=tensor_contents)


class OfModel(OfAll):
    """A single number that a model made of a batch's rows, such as a loss that it returns.

    It may be this rank's, a mean over its rows; either way times a number of rows means that of the global batch.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Do *func*; a single number that the script makes of it is one as well."""
        if any(each not in (OfModel, OfAll, torch.Tensor, torch.nn.Parameter) for each in kinds(func, types, args)):
            return NotImplemented  # the other class decides
        kwargs = kwargs or {}
        asks = users.asks(sys._getframe(1))
        args, kwargs = counted(func, args, kwargs) if asks else (args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            return tree_map(of_model, result) if asks and name_of(func) not in _UNLIKE else result


def kinds(func: Any, types: Any, args: tuple) -> Any:
    """The classes among *args*, of which torch has named *types*: for `==` it names that of the first alone."""
    is_same = func is torch.Tensor.__eq__
    return [type(each) for each in args if isinstance(each, torch.Tensor)] if is_same else types


def of_model(tensor: Any) -> Any:
    """*tensor*, if it is a single number, from now on known to be made by a model; other things are as they are."""
    if type(tensor) is torch.Tensor and tensor.numel() == 1 and tensor.is_floating_point():
        tensor.__class__ = OfModel
    return tensor


def of_all(tensor: Any) -> Any:
    """*tensor*, from now on known to be the same on all ranks; other things are as they are."""
    if type(tensor) is torch.Tensor:
        tensor.__class__ = OfAll
    return tensor


def note_written(func: Any, taken: torch.Tensor, write: Callable[[torch.Tensor], None], result: Any) -> None:
    """Have rows that were *taken* by their place changed where they came from, if *func* writes into them."""
    name = func.__name__
    if name == "__setitem__" or name.startswith("__i") or (name.endswith("_") and not name.endswith("__")):
        write(taken)
    elif type(result) is OfAll and result._is_view():  # `x[:4][0].zero_()`
        result.write_back = lambda _: write(taken)


def _is_alike(name: str, result: Any, words: Any) -> bool:
    """Whether *result*, which *name* made of *words*, is of all ranks: *words* are, or one that is as large."""
    if name in _UNLIKE or name.startswith("new_") or name.endswith("_like"):
        return False
    given = [each for each in tree_leaves(words) if isinstance(each, torch.Tensor)]
    if all(type(each) is OfAll or each.numel() == 1 for each in given):
        return True
    # A unit matrix, a mask or a weight beside it is as alike; rows of a rank would make rows of it.
    return torch.is_tensor(result) and any(type(each) is OfAll and each.shape == result.shape for each in given)


def copied(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """A deep copy of *tensor*, as a plain one: torch copies no classes that it does not know."""
    kind = type(tensor)
    tensor.__class__ = torch.Tensor
    try:
        return copy.deepcopy(tensor, memo)
    finally:
        tensor.__class__ = kind


def counted(func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """What *func* is given, in which a number of rows is the global batch's if it is no size."""
    if not any(isinstance(each, Rows) for each in (*args, *kwargs.values())) or not _counts(
        name_of(func), args, kwargs
    ):
        return args, kwargs
    whole = {key: each.whole if isinstance(each, Rows) else each for key, each in kwargs.items()}
    return tuple(each.whole if isinstance(each, Rows) else each for each in args), whole


def _counts(name: str, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether the function *name* takes a number of rows for one, as `loss.topk(len(x) // 2)` does of all rows."""
    if name not in ("topk", "kthvalue"):
        return name in ARITHMETIC
    found = kwargs.get("input", args[0] if args else None)
    is_along = kwargs.get("dim", args[2] if len(args) > 2 else None) == 0
    return isinstance(found, torch.Tensor) and (is_along or found.dim() == 1)


def name_of(func: Any) -> str:
    """`eq` for `torch.eq`, `Tensor.eq` and `==`, `shape` for reading that attribute."""
    name = getattr(func, "__name__", "")
    if name in ("__get__", "__set__"):
        return ("" if name == "__get__" else "set_") + func.__self__.__name__
    return name.strip("_").removeprefix("linalg_")
