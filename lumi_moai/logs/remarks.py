"""What a log says that is no end but should not be overlooked: the network that a run fell back to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .blocks import Block
from .shown import line_at

MARKS = (b"No plugin found", b"Using network ", b"Selected Provider is ", b"NET/IB : Using ")
_FALLBACK = re.compile(
    rb"NET/[^\r\n]{0,80}No plugin found|No plugin found \(lib[nr]ccl-net[^\r\n)]*\)"
    rb"|Using network Socket|Selected Provider is (?:tcp|sockets)\b"
)
_FAST = re.compile(rb"Using network (?!Socket)\S|NET/IB : Using |Selected Provider is (?!tcp|sockets)\w")


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something beside the outcome. `kind` is a key of the table of advice, `place` is `file:line`."""

    kind: str
    line: str
    place: str


class Remarks:
    """The remarks of a log, block after block."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.slow: Remark | None = None
        self.fast = False

    def add(self, block: Block, beside: bytes) -> None:
        """Read *block*; marks are looked for in *beside* only."""
        if not block.having(MARKS, beside):
            return
        self.fast = self.fast or _FAST.search(block.text) is not None
        match = None if self.slow else _FALLBACK.search(block.text)
        if match:
            place = f"{self._name}:{block.line_of(match.start())}"
            self.slow = Remark(kind="tcp_fallback", line=line_at(block.text, match.start()), place=place)

    def found(self) -> Iterator[Remark]:
        """A fall back to TCP, unless the log names a faster network that was found after all."""
        if self.slow and not self.fast:
            yield self.slow
