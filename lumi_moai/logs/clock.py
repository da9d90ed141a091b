"""When the steps of a log were logged, from places in the log whose time is known."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import BinaryIO

from .blocks import texts
from .format import Format
from .numbers import Numbers
from .ranks import apart
from .series import MOST_STARTS
from .thin import Point

MOST_MARKS = 2000
_STAMPS = 400
"""Places of a log in which a time is looked for."""
_PATIENCE = 40
"""Places without any time after which none is looked for."""
_NEAR = 1 << 13
"""Bytes from each place on."""
# `2024-05-10 10:10:10,123 ...`, ` [2024-05-10 10:10:10] iteration`, `[titan] 2024-...`, `[rank0]:2024-...`
_STAMP = re.compile(
    rb"^[^\d\r\n]{0,16}(?:\d{1,4}[^\d\r\n]{1,4})?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?"
    rb"[^\r\n]*(?:\r?\n|\r|$)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Mark:
    """A log had `size` bytes from `first` to `last`, in seconds of any one clock."""

    size: int
    first: float
    last: float


def marks(sizes: Sequence[Point]) -> tuple[Mark, ...]:
    """The marks of *sizes*, pairs of (seconds, bytes) in the order of time; of a log that was cut those since then."""
    found: list[Mark] = []
    for seconds, size in sizes:
        if found and size < found[-1].size:
            found = [mark for mark in found if mark.size <= size]
        if found and size == found[-1].size:
            found[-1] = Mark(found[-1].size, found[-1].first, max(seconds, found[-1].last))
        elif not found or seconds >= found[-1].last:
            found.append(Mark(int(size), seconds, seconds))
    every = -(-len(found) // MOST_MARKS)
    return tuple(found[::every] if every > 1 else found)


def stamped(file: BinaryIO, size: int) -> tuple[Mark, ...]:
    """The marks of a log of *size* bytes whose lines begin with date and time; none where they do not."""
    found: list[Point] = []
    for number, place in enumerate(dict.fromkeys(size * part // _STAMPS for part in range(_STAMPS))):
        if number == _PATIENCE and not found:
            break
        file.seek(place)
        text = file.read(_NEAR)
        skipped = 0 if place == 0 else text.find(b"\n") + 1
        match = _STAMP.search(text, skipped)
        if match and (seconds := _seconds(match)) is not None and (not found or place + match.end() > found[-1][1]):
            found.append((seconds, place + match.end()))
    first = found[0][0] if found else 0.0
    return marks([(seconds - first, end) for seconds, end in found if seconds >= first])


def _seconds(match: re.Match[bytes]) -> float | None:
    """Of the time without a zone, as if it were UTC: only differences count."""
    try:
        whole = datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return whole + int((match[2] or b"0").ljust(6, b"0")) / 1e6


def step_times(
    file: BinaryIO, known: Format, at: Sequence[Mark], rank: int | None = None
) -> tuple[tuple[Point, ...], ...]:
    """Points of (step, seconds) for each start of the training of *rank* in *file*, which is in the format *known*.

    Steps logged between two marks are spread evenly over the time between them, at most twice the usual time
    between marks: what a killed run wrote last was not written when its successor began.
    """
    pieces = _Pieces(file, at)
    usual = median([after.first - before.last for before, after in pairwise(at)] or [0.0])
    times, before = _Times(), 0
    waiting: list[tuple[int, int]] = []
    for text in texts(pieces):  # type: ignore[arg-type]  # nothing but its `read` is needed
        waiting += times.steps(known, dict(apart(text)).get(rank, b""))
        if pieces.reached > before:
            times.add(waiting, *_span(at, pieces.reached - 1, usual))
            waiting, before = [], pieces.reached
    return times.points


def _span(at: Sequence[Mark], place: int, usual: float) -> Point:
    begin = at[place - 1].last if place else at[place].first
    return begin, min(at[place].first, begin + 2 * usual)


class _Pieces:
    """A file that is read from mark to mark."""

    def __init__(self, file: BinaryIO, at: Sequence[Mark]) -> None:
        self._file, self._at = file, at
        self._place = 0
        self.reached = 0
        """How many marks were passed."""

    def read(self, wanted: int) -> bytes:
        ahead = self._at[self.reached].size - self._place if self.reached < len(self._at) else wanted
        data = self._file.read(min(wanted, max(ahead, 1)))
        self._place += len(data)
        while self.reached < len(self._at) and self._at[self.reached].size <= self._place:
            self.reached += 1
        return data


class _Times:
    """The starts of a training, counted as `series` counts them, with the times of their steps."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._numbers = Numbers()
        self._parts: list[list[Point]] = []

    def steps(self, known: Format, text: bytes) -> Iterator[tuple[int, int]]:
        """Start and step of each step line in *text*."""
        for row in known.rows(text) if known.mark in text else ():
            number = self._numbers.of(row)
            if self._last is None or (number < self._last and len(self._parts) < MOST_STARTS):
                self._parts.append([])
            self._last = number
            yield len(self._parts) - 1, number

    def add(self, steps: Sequence[tuple[int, int]], begin: float, end: float) -> None:
        """*steps* were logged from *begin* to *end*; of each start the first and the last are kept."""
        for place, (start, step) in enumerate(steps):
            beside = {steps[max(place - 1, 0)][0], steps[min(place + 1, len(steps) - 1)][0]}
            if place in (0, len(steps) - 1) or beside != {start}:
                self._parts[start].append((float(step), begin + (end - begin) * (place + 1) / len(steps)))

    @property
    def points(self) -> tuple[tuple[Point, ...], ...]:
        return tuple(map(tuple, self._parts))


def over_clock(points: Sequence[Point], times: Sequence[Point]) -> tuple[Point, ...]:
    """*points* of (step, value) with the seconds of *times* in the place of the step; those beyond are left out."""
    steps = [step for step, _ in times]
    found = ((_at(times, steps, step), value) for step, value in points)
    return tuple((seconds, value) for seconds, value in found if seconds is not None)


def _at(times: Sequence[Point], steps: Sequence[float], step: float) -> float | None:
    place = bisect_left(steps, step)
    if place == len(steps) or step < steps[0]:
        return None
    if steps[place] == step or place == 0:
        return times[place][1]
    (low, begin), (high, end) = times[place - 1], times[place]
    return begin + (end - begin) * (step - low) / (high - low)
