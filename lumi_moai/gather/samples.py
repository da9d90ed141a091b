"""What a run's nodes wrote down while it ran, and when its log had which size."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..logs import FORMATS
from ..logs.clock import Mark, marks, stamped, step_times
from ..logs.thin import Point
from ..rundir import RunFolder
from ..samples import History, Line, history, parse_line
from ..samples.line import LONGEST
from .opened import Plain, opened


def samples(folder: RunFolder, job_id: str, log: Path | None) -> tuple[History, tuple[Mark, ...]]:
    """The history of *job_id*, and the marks in its *log*; both empty where nothing was written down."""
    files = sorted(folder.samples.glob(f"{glob.escape(job_id)}-*.jsonl"))
    ends = [line.time for path in files for line in _ends(path)]
    if not ends:
        return History(), ()
    first, sizes = min(ends), list[Point]()
    found = history(_noted(files, log.name if log else None, first, sizes), first, max(ends))
    if log:
        with suppress(OSError):
            facts = log.stat()
            sizes.append((facts.st_mtime - first, facts.st_size))
    return found, marks(sorted(sizes))


def _ends(path: Path) -> Iterator[Line]:
    """The first and the last look in the file at *path*."""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(2 * LONGEST)
        size = file.seek(0, 2)
        file.seek(max(0, size - 2 * LONGEST))
        tail = file.read(2 * LONGEST)
        for lines in (head.splitlines(), tail.splitlines()[::-1]):
            yield from [line for line in map(parse_line, lines) if line][:1]


def _noted(files: Sequence[Path], log: str | None, first: float, sizes: list[Point]) -> Iterator[Line]:
    """The looks in *files*; the sizes of *log* at the time are noted in *sizes*."""
    for path in files:
        for line in _lines(path):
            if line.log == log and line.log_bytes is not None:
                sizes.append((line.time - first, line.log_bytes))
            yield line


def _lines(path: Path) -> Iterator[Line]:
    with suppress(OSError), open(path, "rb") as file:
        while text := file.readline(LONGEST):
            if line := parse_line(text):
                yield line


def clock(log: Path, known: str | None, at: Sequence[Mark], rank: int | None = None) -> tuple[tuple[Point, ...], ...]:
    """The times of the steps in *log*, whose format is *known*, for each start of *rank*; none where nothing tells.

    By the marks *at*; a log without them may have date and time in front of its lines.
    """
    format_ = next((each for each in FORMATS if each.name == known), None)
    if format_ is None:
        return ()
    with opened(log) as file:
        if not isinstance(file, Plain):  # marks count the bytes on disk
            return ()
        at = at or stamped(file.raw, log.stat().st_size)
        file.raw.seek(0)
        return step_times(file.raw, format_, at, rank) if len(at) > 1 else ()
