"""A sum of torch's over the global batch that the script divides: by what, decides whether that is the mean it wants.

`F.mse_loss(out, y, reduction="sum") / len(y)` would be a sum over all ranks' rows divided by the rows of one.
"""

import itertools
import math
import opcode
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import PurePath
from types import FrameType
from typing import Any

import torch

from ...errors import RequestError
from .. import group
from . import marks

OF_ALL: deque[float] = deque(maxlen=64)
"""Numbers of all ranks that the script has read: `mask.sum().item()` may by chance be as many as this rank has rows."""
_NUMBERS = {opcode.opmap[name] for name in ("LOAD_CONST", "LOAD_SMALL_INT") if name in opcode.opmap}
_WIDTH = 2
"""Bytes of an operation in compiled code."""


class Divisor:
    """What the sum of some *tensors* of this rank, which has *rows*, may be divided by."""

    def __init__(self, tensors: Iterable[Any], rows: int) -> None:
        shapes = [each.shape for each in tensors if torch.is_tensor(each)]
        self.counts = {rows, *itertools.chain.from_iterable(map(_products, shapes))}

    def check(self, divisor: Any) -> None:
        """The loss is to be divided by *divisor*; all ranks come here together.

        Raises RequestError for a number that is of this rank's rows.
        """
        asking = _asking()
        if _is_library(asking) or (torch.is_tensor(divisor) and marks.is_marked(divisor)):
            return
        number = float(divisor)
        if not torch.is_tensor(divisor) and (number in OF_ALL or _is_written(asking)):
            return
        found = group.gathered(number) if torch.is_tensor(divisor) else [number]
        if len(set(found)) == 1 and number not in self.counts:
            return
        raise RequestError(
            f"a loss with reduction='sum' is of the global batch, and the script divides it by {number:g}, a number of"
            " this rank's rows; let torch take the mean, or write a mean over rows of a loss with reduction='none'"
        )


def _products(shape: torch.Size) -> list[int]:
    """The rows, the rows times the next size, and so on: what a script may count in a tensor of *shape*."""
    return [math.prod(shape[:end]) for end in range(1, len(shape) + 1)]


def _asking() -> FrameType | None:
    """Where the division stands."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("lumi_moai."):
        frame = frame.f_back
    return frame


def _is_library(frame: FrameType | None) -> bool:
    """Whether a library divides: Hugging Face's models do, by tokens that the runtime has counted over all ranks."""
    parts = PurePath(frame.f_code.co_filename).parts if frame is not None else ()
    return bool({"site-packages", "dist-packages"} & set(parts))


def _is_written(frame: FrameType | None) -> bool:
    """Whether the divisor stands as a number in the code, `loss / 2`, and is no rank's but by chance."""
    code, here = (frame.f_code.co_code, frame.f_lasti) if frame is not None else (b"", 0)
    return here >= _WIDTH and code[here] == opcode.opmap["BINARY_OP"] and code[here - _WIDTH] in _NUMBERS
