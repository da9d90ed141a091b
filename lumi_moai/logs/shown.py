"""A line of a log as it may be shown."""

import re

_SHOWN = 300


def line_at(text: bytes, position: int) -> str:
    """The line around *position* as it may be shown: without control characters, 300 letters at most."""
    start = max(text.rfind(b"\n", 0, position), text.rfind(b"\r", 0, position)) + 1
    start = max(start, position - _SHOWN)
    line = re.split(rb"[\r\n]", text[start : start + 4 * _SHOWN], maxsplit=1)[0]
    shown = "".join(letter if letter.isprintable() else " " for letter in line.decode(errors="replace"))
    return shown.strip()[:_SHOWN]
