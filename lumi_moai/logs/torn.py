"""The last line of a log that is still being written, or that was cut: the number at its end may be a part of one.

A line without its end is read like any other, because some programs write the line end ahead of the next line, a
progress bar none at all, and editors drop the last one. Only a loss that the log ends with is in doubt: it is torn if
it has fewer decimals than every loss before it.
"""

import re

_LOSS = re.compile(rb"(?i)loss[^\d\r\n]{0,30}?(?P<number>[-+]?\d[\d,]*(?P<decimals>\.?\d*(?:e[-+]?\d*)?))\Z")
_NUMBER = rb"[-+]?\d[\d,]*(\.?\d*(?:[eE][-+]?\d*)?)"
_NEAR = 200
"""Bytes at the end of a log in which its last loss is looked for."""


def whole(line: bytes, before: bytes) -> bytes:
    """*line*, with which a log ends, without a loss at its end that is torn; *before* stands ahead of it."""
    found = _LOSS.search(line, max(0, len(line) - _NEAR))
    if found is None:
        return line
    begin = found.start("number")
    earlier = re.findall(re.escape(line[found.start() : begin]) + _NUMBER, before)
    torn = earlier and len(found["decimals"]) < min(map(len, earlier))
    return line[:begin] if torn else line
