"""A large log read by several processes at once, each a part of it; the result is that of reading it in one go."""

import io
import os
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO, TypeVar, cast

from ..logs import Format, Log, Reading, Row, summary
from ..logs.blocks import texts
from ..logs.merge import merge
from ..logs.reading import rows_of

Result = TypeVar("Result")
PROBE = 8 << 20
"""Bytes at the beginning in which the format and the shapes of lines are learned, for all parts."""
PART = 64 << 20
"""Bytes that are worth a process."""
MOST = 8
"""Processes that a file system and a login node bear from one command."""
_NEAR = 1 << 20
"""Bytes around the place of a cut in which a line ends and a step stands."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_parts(file: BinaryIO, size: int, name: str, formats: Sequence[Format]) -> Log:
    """What *file* says, a plain file of *size* bytes on disk that may still grow."""
    reading = Reading(name, formats, is_long=size >= PROBE)
    begin = _line_end(file, PROBE) or 0
    reading.read(cast(BinaryIO, _Part(file, 0, begin)))
    count = min(cores(), MOST, (size - begin) // PART)
    found = [_line_end(file, begin + (size - begin) * part // count) for part in range(1, count)]
    cuts = [begin, *(cut for cut in found if cut)]
    rows = [_last_row(file, cut, reading) for cut in cuts[1:]]
    if not (begin and rows and reading.has_columns) or None in rows or sorted(set(cuts)) != cuts:
        file.seek(begin)
        reading.read(file)
        return summary(reading)
    ends = [*cuts[1:], None]
    parts = list(zip(cuts, ends, [None, *rows], strict=True))
    waiting = [apart(partial(_read, file.name, reading, *part)) for part in parts[1:]]
    reading.read(cast(BinaryIO, _Part(file, *parts[0][:2])))
    for part, result in zip(parts[1:], waiting, strict=True):
        read = result()
        merge(reading, read if read and _of_one_unit(reading, read) else _read(file.name, reading, *part))
    return summary(reading)


def _of_one_unit(first: Reading, second: Reading) -> bool:
    """Whether both took the same rates for theirs; where the beginning had none, each part takes its first one's."""
    return not (first.steps.unit and second.steps.unit) or first.steps.unit == second.steps.unit


def _read(name: str, reading: Reading, begin: int, end: int | None, row: Row | None) -> Reading:
    part = reading.go_on(row)
    with open(name, "rb", buffering=0) as file:
        part.read(cast(BinaryIO, _Part(file, begin, end)))
    return part


def _line_end(file: BinaryIO, place: int) -> int | None:
    """The first end of a line behind *place*, None where none is near."""
    file.seek(place)
    found = file.read(_NEAR).find(b"\n")
    return None if found < 0 else place + found + 1


def _last_row(file: BinaryIO, place: int, reading: Reading) -> Row | None:
    """The last step line ahead of *place*; None where it has no number."""
    file.seek(max(0, place - _NEAR))
    near = file.read(min(place, _NEAR))
    plain = b"".join(texts(io.BytesIO(near[near.find(b"\n") + 1 :])))
    rows = rows_of(plain, reading.format, ())[1] if reading.format else []
    last = Row(*rows[-1]) if rows else None
    return last if last and (last.step or last.epoch) else None


class _Part(io.RawIOBase):
    """The bytes of a file from one place to another; to its end, wherever that is by then, without the other."""

    def __init__(self, file: BinaryIO, begin: int, end: int | None) -> None:
        self._file = file
        self._left = None if end is None else end - begin
        file.seek(begin)

    def read(self, size: int = -1) -> bytes:
        """At most *size* bytes, none at the end."""
        data = self._file.read(size if self._left is None else min(size, self._left))
        self._left = None if self._left is None else self._left - len(data)
        return data


def apart(work: Callable[[], Result]) -> Callable[[], Result | None]:
    """Start *work* in a process of its own; the function gives its result, None if it could not be had."""
    own, others = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(own)
            with open(others, "wb") as pipe:
                pickle.dump(work(), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(others)

    def result() -> Result | None:
        with open(own, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(child, 0)
        return pickle.loads(data) if status == 0 else None  # noqa: S301  # written by our own child

    return result
