"""`torch.save` and safetensors: one file, whole, by rank 0; beside the old one first, then in its place."""

import functools
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from ...here import is_in_thread
from .. import counts, layout, roots
from ..undivided import arrived
from . import together, wholly
from .writing import DESK

if TYPE_CHECKING:
    from ..seen import Seen


def torch_save(own: Callable[..., None], seen: "Seen") -> Callable[..., None]:
    """Into a named file rank 0 writes, and all wait for it; into anything else each rank writes all for itself."""

    @functools.wraps(own)
    def save(obj: object, f: Any, pickle_module: Any = pickle, *args: Any, **kwargs: Any) -> None:
        if seen.engine is None or together.is_alone():
            own(obj, f, pickle_module, *args, **kwargs)
            return
        module: ModuleType = wholly.pickling(pickle_module) if seen.engine.may_shard else pickle_module
        with roots.as_made():
            if not isinstance(f, (str, os.PathLike)):
                own(obj, f, module, *args, **kwargs)
                return
            if not is_in_thread() and not seen.engine.is_repeating:
                obj = counts.whole(arrived(obj))
            others = functools.partial(wholly.follow, obj) if seen.engine.may_shard else None
            to_file(f, lambda beside: own(obj, beside, module, *args, **kwargs), others)

    return save


def to_file(path: Any, write: Callable[[str], None], others: Callable[[], Any] | None = None) -> None:
    """Let rank 0 *write* the file *path* for all; the other ranks do *others* meanwhile.

    In a thread beside the script's the ranks do not meet, as when a file is opened there: the script goes on meanwhile,
    and what both threads asked of the other ranks would come in another order on each.
    """
    mine = os.fspath(path)

    def written() -> str:
        with beside(mine) as name:
            write(name)
        return str(mine)

    if is_in_thread():
        if DESK.rank == 0:
            written()
        elif others is not None:
            others()  # refuses what rank 0 refuses
        DESK.finished(os.path.abspath(mine))
        return
    DESK.before_change(os.path.abspath(mine))
    DESK.call_alike(str(mine), together.by_rank_0(written, others))


@contextmanager
def beside(path: str) -> Iterator[str]:
    """A name beside *path*, of the same last part; what is written there takes the place of *path* at the end.

    What cannot be written beside (a pipe, a folder without room for a second name) is written at once.
    """
    target = os.path.realpath(path)
    folder = None
    if os.path.isfile(target) or not os.path.exists(target):
        try:
            folder = tempfile.mkdtemp(prefix=".saving-", dir=os.path.dirname(target))
        except OSError:
            folder = None  # torch says best what is wrong with the name
    if folder is None:
        yield path
        return
    try:
        name = os.path.join(folder, os.path.basename(path))
        yield name
        if os.path.exists(target):
            shutil.copymode(target, name)
        os.replace(name, target)
    finally:
        for left in Path(folder).iterdir():
            left.unlink()
        os.rmdir(folder)


def safetensors_save(module: ModuleType, seen: "Seen") -> None:
    """Replace safetensors' functions that write a file, in *module*."""
    for name in ("save_file", "save_model"):
        setattr(module, name, _safely(getattr(module, name), seen))
    module.__dict__["load_file"] = _reading(module.__dict__["load_file"])


def _reading(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def load_file(filename: Any, *args: Any, **kwargs: Any) -> Any:
        return own(DESK.settled(filename), *args, **kwargs)

    return load_file


def _safely(own: Callable[..., None], seen: "Seen") -> Callable[..., None]:
    @functools.wraps(own)
    def save(what: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
        if seen.engine is not None and seen.engine.is_repeating:
            return  # the values are not computed again, and the file of that step is there
        if seen.engine is None or together.is_alone():
            own(what, filename, *args, **kwargs)
            return
        whole: Any = what
        if seen.engine.may_shard:
            state = what.state_dict() if isinstance(what, torch.nn.Module) else what
            whole = full(state, keep=seen.engine.rank == 0)
        if whole is not what and isinstance(what, torch.nn.Module):
            whole = _Model(whole, own)
        to_file(filename, lambda name: own(whole, name, *args, **kwargs))

    return save


class _Model(torch.nn.Module):
    """A model that consists of a state dict."""

    def __init__(self, state: Mapping[str, torch.Tensor], _: Any) -> None:
        super().__init__()
        self.state = dict(state)

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The state."""
        return self.state


def full(state: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
    """*state* with whole tensors, on the host, tied ones still tied; one after the other, and nothing without *keep*.

    All ranks must call this together.
    """
    found: dict[tuple, torch.Tensor] = {}
    result: dict[str, Any] = {}
    for name, value in state.items():
        spread = layout.now(value)
        if not isinstance(spread, torch.distributed.tensor.DTensor):
            result[name] = value
            continue
        part = spread._local_tensor
        key = (part.untyped_storage()._cdata, part.storage_offset(), tuple(spread.shape))
        if key not in found:
            whole = layout.full_state(spread)
            found[key] = whole.cpu() if keep else whole.new_empty(0)
        result[name] = found[key]
    return result
