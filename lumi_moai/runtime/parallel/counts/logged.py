"""Whether the rows that a script reads ahead of `backward()` go into what it keeps, counts or prints, and into no loss.

`said.extend(p.tolist())`, `hits += (p.numpy() == y.numpy()).sum()` and `print(y.tolist())` mean all rows of the batch,
as one device has them. `weights = table[y.numpy()]` may be for the loss of this rank's rows. The script's source tells
them apart: what is dropped or added up, has passed through nothing but Python's and numpy's functions, and under no
name goes elsewhere, enters no loss. What cannot be followed is taken for a loss's.
"""

import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType

from . import users
from .flow import Flow

_KNOWN: dict[tuple, bool] = {}


def is_for_log() -> bool:
    """Whether what the script asks of rows now is only kept, counted or printed, until the next batch."""
    return _is(Flow.is_kept)


def means_all(frame: FrameType) -> bool:
    """Whether a number of rows, asked for in *frame*, is all ranks': of `t.mul(rows)`, `np.full(rows, v)` for a log."""
    return not users.is_ours(frame) and _is(Flow.is_of_all)


def _is(wanted: Callable[[Flow], bool]) -> bool:
    frame = in_loop()
    if frame is None:
        return False
    key = (wanted, frame.f_code, frame.f_lasti, *_callers(frame.f_back))
    if key not in _KNOWN:
        _KNOWN[key] = wanted(Flow(frame))
    return _KNOWN[key]


def in_loop() -> FrameType | None:
    """The frame of the script that asks for rows now; none within the forward of a model, where they are plain."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not users.is_scripts(frame):
        frame = frame.f_back
    return frame if frame is not None and users.asks_in_loop(frame) else None


def _callers(frame: FrameType | None) -> Iterator[tuple[CodeType, int]]:
    """Where the script's functions are at work, from *frame* up."""
    while frame is not None and users.is_scripts(frame):
        yield frame.f_code, frame.f_lasti
        frame = frame.f_back
