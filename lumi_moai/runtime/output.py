"""The streams of the ranks: rank 0 counts its lines, the others fall silent when the ranks become one device."""

import mmap
import os
import re
import sys
from pathlib import Path
from typing import Any, TextIO

_OURS = "lumi-moai: "


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


class Counted:
    """stdout or stderr of rank 0, line by line: a restart leaves out the lines that the log has already.

    *number* tells the streams apart in the file of counts. Lines are counted there as they are written, in shared
    memory, which outlives a killed process. Our own lines neither count nor are left out.
    """

    def __init__(self, stream: TextIO, number: int, *, holds: bool) -> None:
        self._stream = stream
        self._number = number
        self._counts: Any = None
        self._held: list[str] | None = [] if holds else None
        """Lines from before it is known whether steps are repeated; None once it is."""
        self._is_repeating = False
        self._known = 0
        """Lines that the log has from earlier starts."""
        self._at_start = True
        self._is_open = True
        self._is_ours = False
        self.count = 0
        """Lines of the script so far, those of repeated steps included."""

    def begin(self, path: Path, *, is_repeating: bool) -> None:
        """Count in the file *path* from now on; *is_repeating* says that the log has what comes now."""
        self._counts = _shared_counts(path)
        self._is_repeating = is_repeating
        held, self._held = self._held, None
        if is_repeating:
            self._known = self._counts[self._number]
            self.count = 0
            return
        self._known = 0
        for text in held or ():
            self.write(text)
        self._counts[self._number] = self.count

    def go_on(self, count: int) -> None:
        """The repeated steps are over, in which the script wrote *count* lines."""
        self._is_repeating = False
        self.count = count

    def write(self, text: str) -> int:
        """Pass *text* on, or drop what the log has."""
        goes_on = self._is_ours and not self._at_start
        if self._held is not None and not text.startswith(_OURS) and not goes_on:
            self._held.append(text)
            return len(text)
        for line in _lines(text):
            self._write_part(line)
        return len(text)

    def _write_part(self, part: str) -> None:
        if self._at_start:
            self._is_ours = part.startswith(_OURS)
            self._is_open = self._is_ours or not (self._is_repeating or self.count < self._known)
        self._at_start = part.endswith(("\n", "\r"))
        if self._is_open:
            self._stream.write(part)
        if part.endswith("\n") and not self._is_ours and not self._is_repeating:
            self.count += 1
            self._note()

    def _note(self) -> None:
        if self._counts is not None and self.count > self._known:
            # First into the log, then the count: a line may come twice after a crash, but none is lost.
            self._stream.flush()
            self._counts[self._number] = self.count

    def writelines(self, lines: Any) -> None:
        """Write *lines*."""
        for line in lines:
            self.write(line)

    def release(self) -> None:
        """Write what was held: no checkpoint was asked for."""
        held, self._held = self._held, None
        for text in held or ():
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n\r]*(?:\r\n|\n|\r)|[^\n\r]+", text)


def _shared_counts(path: Path) -> Any:
    """Two numbers in the file *path*, which is made if it is not there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.truncate(16)
        return memoryview(mmap.mmap(file.fileno(), 16)).cast("q")


def counted_streams(place: Path) -> tuple[Counted, ...]:
    """Put counting streams in the place of stdout and stderr; they hold their lines where *place* has a checkpoint."""
    holds = any(place.glob("step-*[0-9]"))
    streams = Counted(sys.stdout, 0, holds=holds), Counted(sys.stderr, 1, holds=holds)
    sys.stdout, sys.stderr = streams
    return streams


def release_streams() -> None:
    """Write what counting streams still hold: the script has ended and asked for no checkpoint."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Counted):
            stream.release()
