"""Many looks at the nodes of one run, as a few points for each device over the clock, in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .line import Line, grouped

BINS = 240
"""Stretches into which the time of a run is cut; a run with fewer looks keeps each."""
MOST_STARTS = 40
_LEAST_SECONDS = 0.5
_GAP_SECONDS = 600.0
"""Looks of one start that are further apart count for this long only: nobody knows what was drawn between."""
_JOULES_PER_KWH = 3.6e6

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Track:
    """One value of one thing over one start of a run: points of (seconds since the run's first look, value).

    `kind` is `memory` (GiB, the most of each stretch), `power` (watts of a package) or `utilisation` (percent of the
    time), the last two as means; `ranks` is the resident memory of a node's ranks (GiB) and `load` the node's load.
    """

    kind: str
    name: str
    """`NODE:DEVICE`, of a package with several devices `NODE:0+1`; of a node its name."""
    start: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class History:
    """What the samples of a run say. Empty where there are none."""

    first: float | None = None
    """Of the first look, seconds since 1970."""
    seconds: float = 0.0
    """From the first look to the last."""
    looks: int = 0
    starts: tuple[tuple[str, float, float], ...] = ()
    """Each start of the job, and the seconds of its first and last look."""
    nodes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    devices: int = 0
    tracks: tuple[Track, ...] = ()
    kilowatt_hours: float | None = None
    """Of all packages together; None where none has a reading."""

    def of(self, kind: str) -> tuple[Track, ...]:
        """The tracks of *kind*."""
        return tuple(track for track in self.tracks if track.kind == kind)


def history(lines: Iterable[Line], first: float, last: float) -> History:
    """What *lines*, each node's in the order of the file, say; all of them were written from *first* to *last*."""
    gathering = _Gathering(first, last)
    for line in lines:
        gathering.add(line)
    return gathering.history()


class _Bins:
    """Values of one track, stretch by stretch: how many, their sum, the most, and the sum of their times."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[int, float, float, float]] = {}

    def add(self, bin_: int, at: float, value: float) -> None:
        count, total, most, times = self.kept.get(bin_, (0, 0.0, 0.0, 0.0))
        self.kept[bin_] = (count + 1, total + value, max(most, value), times + at)

    def points(self, *, most: bool) -> tuple[Point, ...]:
        return tuple(
            (times / count, greatest if most else total / count)
            for _, (count, total, greatest, times) in sorted(self.kept.items())
        )


class _Gathering:
    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, max(last, first)
        self._width = max((self._last - first) / BINS, _LEAST_SECONDS)
        self._tracks: dict[tuple[str, str, str], _Bins] = {}
        self._starts: dict[str, tuple[float, float]] = {}
        self._nodes: dict[str, None] = {}
        self._sources: dict[str, None] = {}
        self._devices: set[tuple[str, int]] = set()
        self._drawn: dict[tuple[str, str], tuple[float, float]] = {}
        self._joules: float | None = None
        self._looks = 0

    def add(self, line: Line) -> None:
        at = line.time - self._first
        if not 0 <= at <= self._last - self._first or (
            line.start not in self._starts and len(self._starts) >= MOST_STARTS
        ):
            return
        self._looks += 1
        self._nodes[line.node] = None
        first, last = self._starts.get(line.start, (at, at))
        self._starts[line.start] = min(at, first), max(at, last)
        self._devices |= {(line.node, device) for device in line.devices}
        if line.source:
            self._sources[line.source] = None
        for kind, name, value in _values(line):
            if value is not None:
                bins = self._tracks.setdefault((kind, name, line.start), _Bins())
                bins.add(min(int(at / self._width), BINS - 1), at, value)
                if kind == "power":
                    self._draw(name, line.start, at, value)

    def _draw(self, name: str, start: str, at: float, watts: float) -> None:
        """Energy between two looks at one package, by the mean of their power."""
        self._joules = self._joules or 0.0
        before = self._drawn.get((name, start))
        if before and at > before[0]:
            self._joules += min(at - before[0], _GAP_SECONDS) * (watts + before[1]) / 2
        self._drawn[name, start] = at, watts

    def history(self) -> History:
        if not self._looks:
            return History()
        return History(
            first=self._first,
            seconds=self._last - self._first,
            looks=self._looks,
            starts=tuple(sorted(((name, *ends) for name, ends in self._starts.items()), key=lambda each: each[1])),
            nodes=tuple(self._nodes),
            sources=tuple(self._sources),
            devices=len(self._devices),
            tracks=tuple(
                Track(kind=kind, name=name, start=start, points=bins.points(most=kind in ("memory", "ranks")))
                for (kind, name, start), bins in self._tracks.items()
            ),
            kilowatt_hours=None if self._joules is None else self._joules / _JOULES_PER_KWH,
        )


def _values(line: Line) -> Iterator[tuple[str, str, float | None]]:
    """Kind, name and value of everything that *line* tells."""
    for place, device in enumerate(line.devices):
        name = f"{line.node}:{device}"
        used = line.memory_used_mib[place]
        yield "memory", name, None if used is None else used / 1024
        yield "utilisation", name, line.utilisation_percent[place]
    for group in grouped(line.power_watts, line.per_package):
        name = "+".join(str(line.devices[place]) for place in group)
        yield "power", f"{line.node}:{name}", line.power_watts[group[0]]
    yield "ranks", line.node, None if line.ranks_mib is None else line.ranks_mib / 1024
    yield "load", line.node, line.load


def spread(tracks: Sequence[Track], width: float) -> dict[str, tuple[tuple[Point, ...], ...]]:
    """The `least`, `mean` and `most` of *tracks* over the clock, start by start, in stretches of *width* seconds."""
    found: dict[str, dict[int, list[Point]]] = {}
    for track in tracks:
        bins = found.setdefault(track.start, {})
        for at, value in track.points:
            bins.setdefault(int(at / width), []).append((at, value))
    lines: dict[str, list[tuple[Point, ...]]] = {"least": [], "mean": [], "most": []}
    for bins in found.values():
        stretches = [bins[place] for place in sorted(bins)]
        lines["least"].append(tuple((_mean(x for x, _ in each), min(y for _, y in each)) for each in stretches))
        lines["mean"].append(tuple((_mean(x for x, _ in each), _mean(y for _, y in each)) for each in stretches))
        lines["most"].append(tuple((_mean(x for x, _ in each), max(y for _, y in each)) for each in stretches))
    return {name: tuple(parts) for name, parts in lines.items()}


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
