"""A log of any size as blocks of whole lines in bounded memory."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .table import Header, header
from .torn import whole

BLOCK = 1 << 18
"""Bytes read at once. Small, because the rows of a block are ten times as large as the block."""
LARGE = 2 << 20
"""Bytes read at once where steps are read as columns, whose work for each block is dear and for each line cheap."""
LONGEST = 1 << 20
"""A line longer than this (a dumped tensor) is read up to here, and at its end: no step line is that long."""
_TAIL = 1 << 16
ENDS = 4096
"""Bytes at either end of a block in which the clock is looked for."""

_ANSI = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?|[@-Z\\^_])")


def _says_more(line: bytes) -> bool:
    """Whether a step line may tell the end of the run, or how long it took to begin."""
    return b"rror" in line or b"oading" in line or b"train_runtime" in line or b"TrainOutput(" in line


@dataclass(frozen=True)
class Block:
    """Some whole lines, without colour codes; `line` is the number of the first one, as `grep -n` counts."""

    text: bytes
    line: int

    @property
    def whole(self) -> bytes:
        """The text with all of its lines, also those that were read already."""
        return self.text

    def beside(self, mark: bytes) -> bytes:
        """The lines without *mark*, and of those with it the few that say more: two writers may share a line.

        Step lines are most of a long log, and leaving them out once is cheaper than looking through them for each of
        the many other things that a log may say.
        """
        return b"\n".join([line for line in self.text.split(b"\n") if mark not in line or _says_more(line)])

    def line_of(self, position: int) -> int:
        """The number of the line at *position* in the text."""
        return self.line + self.text.count(b"\n", 0, position)

    def marks_before(self, mark: bytes, position: int) -> int:
        """How often *mark* stands before *position*."""
        return self.text.count(mark, 0, position)

    def having(self, marks: Sequence[bytes], beside: bytes) -> set[bytes]:
        """Which of *marks* are in *beside*."""
        return {mark for mark in marks if mark in beside}


@dataclass(frozen=True)
class Rest(Block):
    """The lines of a block that were not read as columns; `full` is the block's own text.

    `numbers` are their places in the block, `before` how many marks stand in the other lines before each. No mark
    but the `hints` is in them; None where that is not known.
    """

    full: bytes
    numbers: Sequence[int]
    before: Sequence[int]
    hints: frozenset[bytes] | None

    @property
    def whole(self) -> bytes:
        """The block's own text."""
        return self.full

    def line_of(self, position: int) -> int:
        """The number of the line at *position* in the text, as the log has it."""
        return self.line + self.numbers[self._place(position)]

    def marks_before(self, mark: bytes, position: int) -> int:
        """How often *mark* stands before *position*, in all lines of the block."""
        return self.text.count(mark, 0, position) + self.before[self._place(position)]

    def having(self, marks: Sequence[bytes], beside: bytes) -> set[bytes]:
        """Which of *marks* are in *beside*."""
        return {mark for mark in marks if (self.hints is None or mark in self.hints) and mark in beside}

    def _place(self, position: int) -> int:
        return min(self.text.count(b"\n", 0, position), len(self.numbers) - 1)


def blocks(file: BinaryIO) -> Iterator[Block]:
    """The blocks of *file* with the numbers of their lines."""
    line = 1
    for text in texts(file):
        yield Block(text, line)
        line += text.count(b"\n")


def texts(file: BinaryIO, wanted: Callable[[], int] = lambda: BLOCK) -> Iterator[bytes]:
    """The text of *file* as whole lines without colour codes, of about as many bytes as are *wanted* at the time.

    Carriage returns end lines too, so that a progress bar is many lines and not one. A loss at the very end that may
    be torn is left out. The lines of a table that names its columns come as lines of JSON.
    """
    table: Header | None = None
    for place, text in enumerate(_texts(file, wanted)):
        table = header(text) if place == 0 else table
        yield table.lines(text) if table else text


def _texts(file: BinaryIO, wanted: Callable[[], int]) -> Iterator[bytes]:
    kept, too_long, before = b"", False, b""
    while data := file.read(wanted()):
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut:
            text = b"".join((kept, memoryview(data)[:cut]))
            kept, too_long, data = data[cut:], False, b""
            text = _plain(text)
            before = text[-_TAIL:]
            yield text
        elif too_long:
            kept = data[-_TAIL:]
        else:
            kept += data
            if len(kept) > LONGEST:
                yield _plain(kept)
                kept, too_long = b"", True
    if kept:
        yield whole(_plain(kept), before)


def _plain(text: bytes) -> bytes:
    return _ANSI.sub(b"", text) if b"\x1b" in text else text
