"""The clock as an axis: which unit, where a run begins, and when its steps were logged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..logs.clock import over_clock
from ..logs.series import Start
from ..logs.thin import Point
from .charts import Line
from .story import Story

_UNITS = ((300.0, "second", 1.0), (18_000.0, "minute", 60.0), (float("inf"), "hour", 3600.0))
"""Up to how many seconds, the unit, and its seconds."""
MOST_MARKS = 10


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Time since each run's beginning in `unit`s of `seconds`."""

    unit: str
    seconds: float

    def scaled(self, lines: Sequence[Line]) -> list[Line]:
        """*lines* over seconds, over this axis."""
        return [replace(line, points=tuple((at / self.seconds, y) for at, y in line.points)) for line in lines]

    def restarts(self, stories: Sequence[Story]) -> list[tuple[float, str]]:
        """When the job was started again; nothing where the marks of several runs would mix."""
        begun = _begun(stories[0])[1 : MOST_MARKS + 1] if len(stories) == 1 else []
        return [(first / self.seconds, f"start {place}") for place, first in enumerate(begun, start=2)]

    def zero(self, stories: Sequence[Story]) -> str:
        """What 0 stands for."""
        first = stories[0].history.first if len(stories) == 1 else None
        if first is None:
            return f"{self.unit.capitalize()} 0 is the beginning of each run."
        try:
            return f"{self.unit.capitalize()} 0 is {datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M:%S} UTC."
        except (ValueError, OverflowError, OSError):
            return f"{self.unit.capitalize()} 0 is the first look."


def _begun(story: Story) -> list[float]:
    """When each start began: by the samples, or by its first step where nobody looked."""
    return [first for _, first, _ in story.history.starts] or [times[0][1] for times in story.clock if times]


def clock_axis(stories: Sequence[Story]) -> Axis:
    """One axis for all charts over the clock."""
    ends = [story.history.seconds for story in stories]
    ends += [times[-1][1] for story in stories for times in story.clock if times]
    longest = max(ends, default=0.0)
    unit, seconds = next((unit, seconds) for limit, unit, seconds in _UNITS if longest <= limit)
    return Axis(unit=unit, seconds=seconds)


def timed(stories: Sequence[Story], points: Callable[[Start], tuple[Point, ...]]) -> list[Line]:
    """The *points* of each start over seconds instead of steps; nothing for a run whose clock is not known."""
    lines = [
        Line(name=story.title, points=over_clock(points(start), times))
        for story in stories
        for start, times in zip(story.series.starts, story.clock, strict=False)
        if times
    ]
    return [line for line in lines if line.points]
