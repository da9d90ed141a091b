"""What a log format is: a cheap mark, and how the step lines of a block become rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """One step line as bytes that `int` and `float` read; `b""` for what the line does not say.

    Text stays bytes and numbers stay unread until whole columns of them are converted at once: a log of 1 GB has ten
    million of these, and a frozen record for each would cost more than all the rest.
    """

    step: bytes
    total: bytes = b""
    loss: bytes = b""
    seconds: bytes = b""
    """Seconds of one step."""
    rate: bytes = b""
    unit: bytes = b""
    """What `rate` counts per second: `tokens`, `samples`."""
    tflops: bytes = b""
    """10^12 operations a second of one device."""
    mfu: bytes = b""
    """Part of the device's peak, 1.0 for all of it."""
    memory_gib: bytes = b""
    """The most memory of one device so far, GiB."""
    epoch: bytes = b""
    """The epoch within which `step` and `total` count; a line without a step is one of the whole epoch."""
    progress: bytes = b""
    """How far the training is, in any unit, on lines without a step; where it goes back another start begins."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way of logging steps.

    `rows` gets a block of whole lines and gives one row for each step line in it, in file order: a `Row`, or a plain
    tuple that begins like one; all rows of a block have the same length. It is called only for blocks that contain
    `mark`, so it may be slow per call and must be fast per line.
    """

    name: str
    mark: bytes
    rows: Callable[[bytes], Sequence[tuple[bytes, ...]]]
    spans: Callable[[bytes], Mapping[str, tuple[int, int]]] | None = None
    """Where the values of the one step line in a line stand, by the names of `lines.GROUPS`; empty where that is not
    sure. None for a format whose steps take several lines, or whose patterns tell one digit from another."""
    weak: bool = False
    """It counts only in a log that has no other format: the runtime measures beside whatever the script logs."""
    scope: str = "total"
    """Whether rates are those of the whole job or `per_device`."""
    beside: bool = False
    """It knows no loss: where another format has the steps, its rates and memory stand beside them."""
    vague: bool = False
    """Nobody says whether the time on a line is that of one step, or of all steps since the line before."""
