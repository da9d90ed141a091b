"""A series of any length as a few points that look the same: of each stretch the least and the greatest value."""

from math import isfinite

Point = tuple[float, float]
LIMIT = 250


class Thin:
    """Points in the order they come, kept in at most 2 x *limit* stretches of equal length.

    Up to that many points all are kept. Then neighbours are joined, and every stretch holds twice as many. A stretch
    keeps its least and its greatest point, so no spike is lost; first and last point stay as well. Values that are no
    finite number are counted (`broken`) and have no point.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.broken = 0
        self._limit = limit
        self._each = 1
        self._open = 0
        self._low: list[Point] = []
        self._high: list[Point] = []
        self._first: Point | None = None
        self._last: Point | None = None

    def add(self, x: float, y: float) -> None:
        """One more point."""
        if not isfinite(y):
            self.broken += 1
            return
        point = self._last = (x, y)
        self._first = self._first or point
        if self._open:
            if y < self._low[-1][1]:
                self._low[-1] = point
            if y > self._high[-1][1]:
                self._high[-1] = point
        else:
            self._low.append(point)
            self._high.append(point)
        self._open = (self._open + 1) % self._each
        if len(self._low) >= 2 * self._limit and not self._open:
            self._join()

    def _join(self) -> None:
        self._low = [min(pair, key=_height) for pair in zip(self._low[::2], self._low[1::2], strict=True)]
        self._high = [max(pair, key=_height) for pair in zip(self._high[::2], self._high[1::2], strict=True)]
        self._each *= 2

    @property
    def points(self) -> tuple[Point, ...]:
        """What is kept, in order of x."""
        ends = [point for point in (self._first, self._last) if point]
        return tuple(sorted({*self._low, *self._high, *ends}))


def _height(point: Point) -> float:
    return point[1]
