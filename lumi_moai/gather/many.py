"""Several logs, read by as many processes as there are cores."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import RunError
from ..logs import Format, Log
from .files import read_log
from .parts import MOST, apart, cores

WORTH = 4 << 20
"""Bytes of a log for which a process pays."""


@dataclass(frozen=True)
class Reader:
    """Reads logs in some of *formats*; those that were *found* already are not read again."""

    formats: Sequence[Format]
    found: Mapping[Path, Log] = field(default_factory=dict)

    def log(self, path: Path) -> Log:
        """What the log at *path* says.

        Raises RunError when it cannot be read.
        """
        return self.found[path] if path in self.found else read_log(path, self.formats)

    def ahead(self, paths: Iterable[Path]) -> "Reader":
        """A reader that has read the large ones among *paths* on all cores; what failed is read again when asked."""
        sizes = {path: size for path in dict.fromkeys(paths) if (size := _size(path)) >= WORTH}
        count = min(cores(), MOST, len(sizes))
        if count < 2:
            return self
        largest_first = sorted(sizes, key=lambda path: -sizes[path])
        waiting = [apart(partial(_share, largest_first[place::count], self.formats)) for place in range(count)]
        found = dict(self.found)
        for result in waiting:
            found.update(result() or {})
        return Reader(self.formats, found)


def _share(paths: Sequence[Path], formats: Sequence[Format]) -> dict[Path, Log]:
    found = {}
    for path in paths:
        with suppress(RunError):
            found[path] = read_log(path, formats, alone=True)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
