"""Which code is the user's own: neither ours nor that of torch, Python or an installed library."""

import enum
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))) + os.sep
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_NOT_USERS = ("<", _OURS, sysconfig.get_path("stdlib") + os.sep)
_PASSED = tuple(
    os.path.join("runtime", *path)
    for path in (
        ("stand_in.py",),
        ("parallel", "replace.py"),
        ("parallel", "counts", "taught.py"),
        ("parallel", "counts", "states.py"),
        ("parallel", "under_way.py"),
        ("parallel", "layout", "spread.py"),
        ("parallel", "resume", "ghosts.py"),
        ("parallel", "resume", "reads.py"),
        ("parallel", "resume", "rank.py"),
        ("parallel", "resume", "watch.py"),
    )
)
"""Ours, through which a call of the script goes on its way to torch."""
_TORCH = os.path.dirname(torch.__file__) + os.sep
_TORCHS = {
    *(_TORCH + name for name in ("overrides.py", "_tensor.py", "_jit_internal.py", "functional.py")),
    _TORCH + "nn/functional.py",
}
_LAYERS = os.path.join(_TORCH, "nn", "modules", "")
"""Torch's, through which it goes: `1 - out`, `F.softmax(out, 1)`, a layer that the script calls by itself."""
_TRAIN = {
    *("torch", "lightning", "pytorch_lightning", "lightning_fabric", "transformers", "accelerate", "trl", "peft"),
    *("ignite", "skorch", "torchmetrics", "sklearn", "wandb", "tensorboard", "datasets", "safetensors"),
    *("bitsandbytes", "numpy"),
}
"""Libraries that have a file of ours, or compute what is no row of the script's."""
_LOSSES = {"loss", "losses"}
"""In the names of modules that do what a script would by hand: `monai.losses.dice`, `torchvision.ops.focal_loss`."""


class Asker(enum.Enum):
    """Whose code calls torch."""

    script = "script"
    helper = "helper"
    """A library whose functions make rows of rows: pictures turned, dimensions in another order."""
    notation = "notation"
    """A library in whose words the script writes sums (einops): they are the script's."""
    other = "other"


_KNOWN: dict[CodeType, Asker | None] = {}


def is_users(path: str, module: str) -> bool:
    """Whether *module*, which was read from the file *path*, is the user's."""
    if not path or path.startswith(_NOT_USERS) or any(part in path for part in _LIBRARIES):
        return False
    return not module.startswith("torch.")  # what torch.compile writes, to a folder of its own


def modules() -> Iterator[ModuleType]:
    """The user's, whose code is at hand."""
    for name, module in [*sys.modules.items()]:
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and is_users(path, name):
            yield module


def is_by_user(function: Any) -> bool:
    """Whether *function*, or the method that it is, was written by the user."""
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None) if function else None
    return code is not None and is_users(code.co_filename, function.__module__)


def asks(frame: FrameType | None) -> bool:
    """Whether the user's code is what calls torch in *frame*."""
    return asker(frame) is Asker.script


def asks_in_loop(frame: FrameType | None) -> bool:
    """Whether it is, and not within the forward of a model, where rows are plain."""
    found = asks(frame)
    while found and frame is not None:
        if frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), torch.nn.Module):
            return False
        frame = frame.f_back
    return found


def asker(frame: FrameType | None) -> Asker:
    """Whose code calls torch in *frame*."""
    while frame is not None:
        found = _known(frame)
        if found is not None:
            return found
        frame = frame.f_back
    return Asker.other


def is_scripts(frame: FrameType) -> bool:
    """Whether *frame* itself is of the user's code, and not of torch's that it calls."""
    return _known(frame) is Asker.script


def is_ours(frame: FrameType) -> bool:
    """Whether *frame* is of lumi-moai's code."""
    return frame.f_code.co_filename.startswith(_OURS)


def _known(frame: FrameType) -> Asker | None:
    code = frame.f_code
    if code not in _KNOWN:
        _KNOWN[code] = _judged(code.co_filename, frame.f_globals.get("__name__", ""))
    return _KNOWN[code]


def _judged(path: str, module: str) -> Asker | None:
    """Whose code *path* is; None for code through which others ask."""
    if path.endswith(_PASSED) or path in _TORCHS or path.startswith(_LAYERS):
        return None
    if is_users(path, module):
        return Asker.script
    package = module.partition(".")[0]
    if module.startswith("torch.distributions"):  # rows of rows, as other libraries' functions
        return Asker.helper
    if path.startswith(_OURS) or package in _TRAIN or not any(part in path for part in _LIBRARIES):
        return Asker.other
    if _LOSSES & set(re.split("[._]", module)):
        return Asker.script
    return Asker.notation if package == "einops" else Asker.helper
