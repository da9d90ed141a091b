"""The streams of ranks other than 0, which fall silent when the ranks become one device."""

import sys
from typing import Any, TextIO


class Muted:
    """A text stream that can be silenced; whoever has kept a reference to it is silenced with it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = False

    def silence(self) -> None:
        """Drop what is written from now on."""
        self._silent = True

    def write(self, text: str) -> int:
        """Pass *text* on, or drop it."""
        return len(text) if self._silent else self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        """Pass *lines* on, or drop them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mutable_streams() -> tuple[Muted, ...]:
    """Put streams that can be silenced in the place of stdout and stderr, and return them.

    Before the script starts, because logging and its kind keep the stream that they find.
    """
    streams = Muted(sys.stdout), Muted(sys.stderr)
    sys.stdout, sys.stderr = streams
    return streams
