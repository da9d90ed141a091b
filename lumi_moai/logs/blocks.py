"""A log of any size as blocks of whole lines in bounded memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 1 << 18
"""Bytes read at once. Small, because the rows of a block are ten times as large as the block."""
LONGEST = 1 << 20
"""A line longer than this (a progress bar without line ends, a dumped tensor) is cut: no step line is that long."""

_ANSI = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?|[@-Z\\^_])")


@dataclass(frozen=True)
class Block:
    """Some whole lines, without colour codes; `line` is the number of the first one, as `grep -n` counts."""

    text: bytes
    line: int

    def beside(self, mark: bytes) -> bytes:
        """The lines without *mark*, and of those with it the few that say more: two writers may share a line.

        Step lines are most of a long log, and leaving them out once is cheaper than looking through them for each of
        the many other things that a log may say.
        """
        return b"\n".join(
            [line for line in self.text.split(b"\n") if mark not in line or b"rror" in line or b"oading" in line]
        )

    def line_of(self, position: int) -> int:
        """The number of the line at *position* in the text."""
        return self.line + self.text.count(b"\n", 0, position)


def blocks(file: BinaryIO) -> Iterator[Block]:
    """The blocks of *file*. Carriage returns end lines too, so that a progress bar is many lines and not one."""
    kept, line = b"", 1
    while data := file.read(BLOCK):
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not cut and len(kept) < LONGEST:
            kept += data
            continue
        # Nothing to cut at in a line that is too long: cut anywhere.
        text, kept = (kept + data[:cut], data[cut:]) if cut else (kept + data, b"")
        yield Block(_plain(text), line)
        line += text.count(b"\n")
    if kept:
        yield Block(_plain(kept), line)


def _plain(text: bytes) -> bytes:
    return _ANSI.sub(b"", text) if b"\x1b" in text else text
