"""Numbers of steps that count on from epoch to epoch, for charts: lines count from the beginning in each."""

from .format import Row


class Numbers:
    """The number of each row in the order of the log.

    An epoch has as many steps as its lines say, else as many as the last line of it was seen to count. A row without
    a number counts one on from the row before; where its progress goes back, the number goes back by the same part.
    """

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._before = self._step = self._number = 0
        self._progress = 0.0

    def of(self, found: tuple[bytes, ...]) -> int:
        """The number of the next row, *found*."""
        row = Row(*found)
        epoch = int(row.epoch) if row.epoch else None
        if not row.step:
            self._number = self._counted(float(row.progress or b"0")) if epoch is None else epoch
            return self._number
        step = int(row.step)
        if epoch is not None and epoch != self._epoch:
            self._turn(epoch, int(row.total or b"0") if step <= self._step else None)
        self._step = step
        self._number = self._before + self._step
        return self._number

    def _counted(self, progress: float) -> int:
        part = progress / self._progress if 0 < progress < self._progress else 1.0
        self._progress = progress or self._progress
        return self._number + 1 if part == 1 else min(self._number - 1, max(1, round(self._number * part)))

    def _turn(self, epoch: int, total: int | None) -> None:
        """A new *epoch* begins; each has *total* steps, 0 if unknown, None where steps count on by themselves."""
        if self._epoch is not None and total is not None:
            self._before = max(0, self._before + (epoch - self._epoch) * (total or self._step))
        self._epoch = epoch
