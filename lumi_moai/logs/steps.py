"""Rows of step lines folded into one summary of constant size."""

from collections.abc import Sequence
from itertools import compress
from math import isfinite, isnan
from operator import lt

from ..usage import Throughput
from .quantile import Quantiles


class Steps:
    """The steps of a log, block after block.

    A run's first record stands apart (`first_seconds`, `first_rate`): it holds compilation and warm-up. A step number
    that goes back starts another run: a requeue, or several runs in one file. One that goes back because the next
    epoch has begun does not; an epoch that goes back does.
    """

    def __init__(self) -> None:
        self.records = self.restarts = self.new_epochs = self.nan_steps = 0
        self.first_step: int | None = None
        self.last_step: int | None = None
        self.max_step: int | None = None
        self.first_epoch: int | None = None
        self.last_epoch: int | None = None
        self.total_steps: int | None = None
        self.last_progress: float | None = None
        self.loss_first: float | None = None
        self.loss_last: float | None = None
        self.loss_min: float | None = None
        self.first_seconds: float | None = None
        self.first_rate: float | None = None
        self.unit = b""
        self._rates, self._seconds = Quantiles(), Quantiles()
        self._tflops, self._mfu, self.memory = Quantiles(), Quantiles(), 0.0

    def add(self, rows: Sequence[tuple[bytes, ...]], *, warm: bool = False) -> None:
        """Fold *rows* in; *warm* says that the log told the warm-up apart, so no record holds it."""
        steps, totals, losses, seconds, rates, units, *figures = zip(*rows, strict=True)
        numbers = list(map(int, filter(None, steps)))
        epochs = list(map(int, filter(None, figures[3]))) if len(figures) > 3 else []
        first = self.is_new
        if len(epochs) == len(steps):
            begins = self._begins(_in_order(epochs, steps), self._last_in_epochs)
        else:  # a line without a step, as some formats have them, tells of no start
            places = [place for place, step in enumerate(steps) if step]
            begins = [places[each] for each in self._begins(numbers, self.last_step)] if numbers else []
        self.restarts += max(0, len(begins) - first)
        self._epochs(epochs, numbers, len(begins) - first)
        if not numbers and not epochs and len(figures) > 4:
            self._progress([float(each) for each in figures[4] if each])
        self._steps(numbers, totals)
        self._losses(list(map(float, filter(None, losses))))
        rates = self._of_one_unit(rates, units)
        self.memory = max([self.memory, *map(float, filter(None, figures[2] if figures else ()))])
        if begins and not warm:
            if first:
                self.first_record(seconds[begins[0]], rates[begins[0]])
            steady = [place not in set(begins) for place in range(len(rows))]
            seconds, rates, *figures = (tuple(compress(column, steady)) for column in (seconds, rates, *figures))
        self._seconds.add(map(float, filter(None, seconds)))
        self._rates.add(map(float, filter(None, rates)))
        self._figures(figures)

    @property
    def is_new(self) -> bool:
        """Whether no line so far had the number of a step or of an epoch."""
        return self.first_step is None and self.first_epoch is None

    @property
    def _last_in_epochs(self) -> int | None:
        """Where the last step stands among those of all epochs."""
        if self.is_new:
            return None
        return _in_order([-1 if self.last_epoch is None else self.last_epoch], [str(self.last_step or 0).encode()])[0]

    def _begins(self, steps: list[int], last: int | None) -> list[int]:
        """Places in *steps* at which a run begins; *last* is the step ahead of them."""
        if last is None:
            return [0, *self._back(steps[:1], steps[1:], 1)]
        return self._back([last, *steps[:-1]], steps, 0)

    @staticmethod
    def _back(before: list[int], steps: list[int], place: int) -> list[int]:
        before = before if place == 0 else [*before, *steps[:-1]]
        if not any(map(lt, steps, before)):  # the common case, at the speed of C
            return []
        return [place + at for at, (step, previous) in enumerate(zip(steps, before, strict=True)) if step < previous]

    def _epochs(self, epochs: list[int], steps: list[int], restarts: int) -> None:
        if epochs:
            self.new_epochs += max(0, len(self._begins(steps, self.last_step)) - (self.last_step is None) - restarts)
            self.first_epoch = epochs[0] if self.first_epoch is None else self.first_epoch
            self.last_epoch = epochs[-1]

    def _progress(self, reached: list[float]) -> None:
        if reached:
            before = reached[0] if self.last_progress is None else self.last_progress
            self.restarts += sum(map(lt, reached, [before, *reached[:-1]]))
            self.last_progress = reached[-1]

    def _steps(self, steps: list[int], totals: Sequence[bytes]) -> None:
        self.records += len(totals)
        if steps:
            self.first_step = steps[0] if self.first_step is None else self.first_step
            self.last_step = steps[-1]
            self.max_step = max(steps if self.max_step is None else [self.max_step, *steps])
        if total := next(filter(None, reversed(totals)), b""):
            self.total_steps = int(total)

    def _losses(self, losses: list[float]) -> None:
        if not losses:
            return
        self.loss_first = losses[0] if self.loss_first is None else self.loss_first
        self.loss_last = losses[-1]
        numbers = losses if isfinite(sum(losses)) else [loss for loss in losses if not isnan(loss)]
        self.nan_steps += len(losses) - len(numbers)
        if numbers:
            self.loss_min = min(numbers if self.loss_min is None else [self.loss_min, *numbers])

    def _of_one_unit(self, rates: tuple[bytes, ...], units: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """*rates* without those of another unit than the log's first one: tokens and samples have no common median."""
        self.unit = self.unit or next(filter(None, units), b"")
        if all(unit == self.unit for unit in set(units)):
            return rates
        return tuple(rate if unit == self.unit else b"" for rate, unit in zip(rates, units, strict=True))

    def _figures(self, columns: Sequence[Sequence[bytes]]) -> None:
        for quantiles, column in zip((self._tflops, self._mfu), columns, strict=False):
            quantiles.add(map(float, filter(None, column)))

    @property
    def quantiles(self) -> tuple[Quantiles, Quantiles, Quantiles, Quantiles]:
        """Those of a step's seconds, of the rate, of a device's operations and of its part of the peak."""
        return self._seconds, self._rates, self._tflops, self._mfu

    def first_record(self, seconds: bytes, rate: bytes) -> None:
        """Keep what the first record of the log says, apart from all others."""
        self.first_seconds = float(seconds) if seconds else None
        self.first_rate = float(rate) if rate else None

    def step_seconds(self, *, vague: bool = False) -> float | None:
        """Median seconds of a step after the first record.

        None for *vague* times on lines that are several steps apart: some scripts log the time of one step and some
        that of all steps since the line before.
        """
        covered = (self.last_step or 0) - (self.first_step or 0)
        apart = self.records > 1 and not (self.restarts or self.new_epochs) and covered >= self.records
        return None if vague and apart else self._seconds.median()

    def throughput(self, scope: str) -> Throughput | None:
        """Median rate after the first record; None where no rate was logged after it."""
        low, median, high = (self._rates.at(share) for share in (0.1, 0.5, 0.9))
        if median is None:
            return None
        unit = f"{self.unit.decode() or 'items'}_per_second"
        return Throughput(median=median, p10=low, p90=high, unit=unit, scope=scope)

    def tflops(self) -> float | None:
        """Median 10^12 operations a second of a device after the first record."""
        return self._tflops.median()

    def mfu(self) -> float | None:
        """Median part of a device's peak after the first record."""
        return self._mfu.median()

    def memory_gib(self) -> float | None:
        """The most memory of a device that was logged."""
        return self.memory or None

    @property
    def steady_records(self) -> int:
        """How many rates the median is of."""
        return len(self._rates)


def _in_order(epochs: Sequence[int], steps: Sequence[bytes]) -> list[int]:
    """Numbers that grow with the epoch and, within one, with the step, which has 18 digits at most."""
    return [epoch * 10**18 + int(step or b"0") for epoch, step in zip(epochs, steps, strict=True)]
