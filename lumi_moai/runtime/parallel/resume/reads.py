"""The numbers that the script reads from tensors: kept in the journal, and given back when a restart repeats a step.

Only reads by the script and by libraries count, not those within torch, whose own steps are not repeated.
"""

import functools
import os
import sys
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch

from ....errors import RequestError
from ..counts import of_all_ranks
from .ghosts import is_ghost, value_of

if TYPE_CHECKING:
    from .journal import Event, Journal

NAMES = ("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__", "__index__", "__complex__")
_MOST = 65536
"""Numbers of one read that are kept."""
_TORCH = os.path.dirname(torch.__file__) + os.sep
OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))) + os.sep
_THROUGH = tuple(_TORCH + name for name in ("_tensor.py", "optim/lr_scheduler.py", "utils/_contextlib.py"))
"""Where torch reads for the script: `f"{loss:.3f}"`, `x in tensor`, a scheduler that watches a loss."""
_OF_RANK = (f"{os.sep}torch_geometric{os.sep}",)
"""Libraries that read how many graphs or nodes there are from the numbers of these."""
_WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8)
_PLACES: dict[tuple[CodeType, int], str] = {}
_FORMS: dict[type, str] = {float: "f", int: "i", bool: "b"}
_SCALARS: dict[str, Callable[[Any], Any]] = {"f": float, "i": int, "b": bool}


def is_scripts(code: CodeType) -> bool:
    """Whether *code* is the script's or a library's, neither torch's nor ours."""
    return not code.co_filename.startswith((_TORCH, OURS, "<frozen "))


def place() -> str | None:
    """The line of the script that reads; None when torch reads for itself, or we do."""
    frame = sys._getframe(2)
    name = frame.f_code.co_filename
    if name.startswith(OURS) or (name.startswith(_TORCH) and not name.startswith(_THROUGH)):
        return None
    while frame.f_back is not None and not is_scripts(frame.f_code):
        frame = frame.f_back
    key = frame.f_code, frame.f_lineno
    if key not in _PLACES:
        _PLACES[key] = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
    return _PLACES[key]


def _is_of_rank(tensor: torch.Tensor) -> bool:
    """Whether a library reads *tensor* for a size of its own, `int(batch.max()) + 1`, which each rank has for itself.

    Such a number of the batch is there again when a step is repeated; that of another rank would not fit.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return not tensor.dtype.is_floating_point and any(each in frame.f_code.co_filename for each in _OF_RANK)


def keep(journal: "Journal", what: str, where: str, value: Any) -> None:
    """Note in *journal* that the read *what* gave *value*."""
    form = _FORMS.get(type(value))
    if form is not None:
        journal.note(what, where, form + ":", (value,))
        return
    shape, kind, flat = _flat(value)
    if len(flat) > _MOST or kind not in ("f", "i", "b"):
        journal.note(what, where)
    else:
        journal.note(what, where, f"{kind}:{','.join(map(str, shape))}:{getattr(value, 'dtype', '')}", flat)


def _flat(value: Any) -> tuple[tuple[int, ...], str, list[Any]]:
    """Shape, kind and numbers of a nested list or an array of numpy."""
    if hasattr(value, "dtype"):
        numbers = value.reshape(-1).tolist() if value.size <= _MOST else [0] * (_MOST + 1)
        return value.shape, {"f": "f", "i": "i", "u": "i", "b": "b"}.get(value.dtype.kind, "n"), numbers
    shape = []
    while isinstance(value, list) and value and isinstance(value[0], list):
        shape.append(len(value))
        value = [part for parts in value for part in parts]
    numbers = value if isinstance(value, list) else [value]
    last = (len(numbers) // max(1, functools.reduce(int.__mul__, shape[-1:], 1)),)
    return (*shape, *last), _FORMS.get(type(numbers[0]), "n") if numbers else "i", numbers


def give_back(
    event: "Event", rows: int, tensor: torch.Tensor, own: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """What the read gave before the restart; of a real tensor that is no single number, what it holds now.

    *rows*: those of the global batch, which the script reads after its backward.

    Raises RequestError when that was not kept.
    """
    form, _, rest = event.form.partition(":")
    if form != "n" and not rest:
        return _SCALARS[form](event.values[0])
    if not is_ghost(tensor):
        return own(tensor, *args, **kwargs)
    shape, _, dtype = rest.partition(":")
    sizes = [int(size) for size in shape.split(",") if size]
    if form == "n" or sizes not in (list(tensor.shape), [rows, *tensor.shape[1:]]):
        raise RequestError(
            f"{event.where} reads {list(tensor.shape)} numbers of the model with .{event.what}(), of which"
            f" {'none were' if form == 'n' else sizes} kept, so a restart cannot repeat the steps before its"
            " checkpoint; read single numbers with .item(), read under torch.no_grad() in evaluation, or submit with"
            " --checkpoint off"
        )
    return _shaped(event, sizes, dtype)


def _shaped(event: "Event", sizes: list[int], dtype: str) -> Any:
    if dtype:
        import numpy

        return numpy.array(event.values, dtype=dtype).reshape(sizes)
    values = list(event.values)
    for size in reversed(sizes[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values


def refuse(what: str) -> RequestError:
    """For a read of a ghost by torch itself."""
    return RequestError(
        f"torch reads a number that the model computes (.{what}()) in a step that a restart does not compute again;"
        " submit with --checkpoint off"
    )


def watched(what: str, own: Callable[..., Any], current: Callable[[], Any]) -> Callable[..., Any]:
    """The read *own* of a tensor, through the journal of *current*() if there is one."""

    @functools.wraps(own)
    def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        resume = current()
        if resume is None:
            return own(tensor, *args, **kwargs)
        if is_ghost(tensor) and (value := value_of(tensor)) is not None:
            tensor = value
        where = None if resume.is_paused or _is_of_rank(tensor) else place()
        if where is None and is_ghost(tensor) and what != "__array__":
            raise refuse(what)
        return own(tensor, *args, **kwargs) if where is None else resume.read(what, where, own, tensor, *args, **kwargs)

    return read


def placed(own: Callable[..., Any], current: Callable[[], Any]) -> Callable[..., Any]:
    """`table[t, p]`: numbers at which the script reads or writes a tensor of its own; torch reads them for it."""

    @functools.wraps(own)
    def take(tensor: torch.Tensor, index: Any, *values: Any) -> Any:
        resume = current()
        if hasattr(tensor, "share"):  # rows of a batch
            return own(tensor, index, *values)
        if is_scripts(sys._getframe(1).f_code):  # `meter[0] = len(x)` counts
            index, values = of_all_ranks(index), of_all_ranks(values)
        if resume is None or resume.is_paused or (resume.replay is not None and resume.replay.twins.rowed.has(tensor)):
            return own(tensor, index, *values)
        return own(tensor, _placed(index, current), *values)

    return take


def _placed(index: Any, current: Callable[[], Any]) -> Any:
    if type(index) is tuple:
        return tuple(_placed(each, current) for each in index)
    if not isinstance(index, torch.Tensor) or index.dim() or index.dtype not in _WHOLE_NUMBERS:
        return index
    return _number(index, current)


def formatted(own: Callable[..., str], current: Callable[[], Any]) -> Callable[..., str]:
    """`f"{tensor:.3f}"`, which asks for the number where torch would ask what kind of tensor it is."""

    @functools.wraps(own)
    def form(tensor: torch.Tensor, spec: str) -> str:
        if current() is None or tensor.dim() != 0:
            return own(tensor, spec)
        return format(_number(tensor, current), spec)

    return form


def _number(tensor: torch.Tensor, current: Callable[[], Any]) -> Any:
    resume = current()
    value = value_of(tensor) if is_ghost(tensor) else None
    if value is not None:
        return value.item()
    where = None if resume.is_paused else place_of_format()
    return tensor.item() if where is None else resume.read("__format__", where, torch.Tensor.item, tensor)


def place_of_format() -> str | None:
    """The line of the script that formats a tensor."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    if not is_scripts(frame.f_code):
        return None
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
