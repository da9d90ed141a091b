"""What more devices bring: efficiency against the smallest run, the step at which one more node no longer pays.

The rate of a job is X items a second on N devices, and B is the work of one global step. A step takes T = B / X, so

    strong (B the same)      efficiency = T0 N0 / (T N)         = (X / N) / (X0 / N0)
    weak   (B / N the same)  efficiency = T0 / T                = (X / N) / (X0 / N0)

Both are the rate of one device against that of the smallest run; they differ in what was held still, and only runs that
held it still are compared. An added device pays while it brings a given part of what a device of the smallest run
brings: the gain (X1 - X0) / (N1 - N0) over the smallest run's X / N. At a gain of 0.5 the items that the added devices
bring cost twice what those of the smallest run cost.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from .errors import RequestError

Kind = Literal["strong", "weak"]
SAME = 1.02
"""Two amounts of work within this factor are the same one: a median step time carries some noise."""
PAYS = 0.5
"""An added device pays from this gain on."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run as its log and its accounting tell it; None for what they do not say."""

    name: str
    flavor: str | None = None
    nodes: int | None = None
    devices: int | None = None
    rate: float | None = None
    """Items a second of the whole job."""
    unit: str | None = None
    """What is counted: `tokens` or `samples`."""
    work: float | None = None
    """Of one global step, in `work_unit`."""
    work_unit: str | None = None
    units_per_hour: float | None = None
    billing_unit: str | None = None

    @property
    def per_device(self) -> float | None:
        """Items a second of one device."""
        return self.rate / self.devices if self.rate and self.devices else None

    @property
    def price(self) -> float | None:
        """Billing units for a million items at this rate."""
        if not self.rate or self.units_per_hour is None:
            return None
        return self.units_per_hour / (self.rate * 3600) * 1e6


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A run beside the smallest one with the same work; None where there is none, or the work is not known."""

    run: Measured
    strong: float | None = None
    weak: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The step from one size to the next."""

    before: Measured
    after: Measured
    gain: float
    """What an added device brings, in devices of the smallest run; below 0 the larger job is the slower one."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """All runs by size, and the steps between the sizes of the family of `kind`; empty where no kind is known."""

    runs: tuple[Scaled, ...]
    kind: Kind | None = None
    gains: tuple[Gain, ...] = ()
    pays: float = PAYS
    notes: tuple[str, ...] = ()

    @property
    def last_that_pays(self) -> Measured | None:
        """The largest size that is reached by steps that all pay; None where no two sizes can be compared."""
        if not self.gains:
            return None
        first_bad = next((gain for gain in self.gains if gain.gain < self.pays), None)
        return first_bad.before if first_bad else self.gains[-1].after

    @property
    def first_that_does_not(self) -> Gain | None:
        """The step at which more devices no longer pay; None where every step pays."""
        return next((gain for gain in self.gains if gain.gain < self.pays), None)


def scale(runs: Iterable[Measured], *, pays: float = PAYS, kind: Kind | None = None) -> Scaling:
    """Compare *runs*; *kind* says what they are where their logs do not tell the work of a step.

    Raises RequestError when they count different things, or fewer than two of them can be compared.
    """
    ordered = sorted(runs, key=lambda run: (run.devices or 0, run.nodes or 0, run.name))
    usable = [run for run in ordered if run.per_device]
    _check(ordered, usable)
    strong = [usable] if kind == "strong" else [] if kind else _families(usable, lambda devices: 1.0)
    weak = [usable] if kind == "weak" else [] if kind else _families(usable, float)
    chosen, family = _largest(strong, weak)
    return Scaling(
        runs=tuple(Scaled(run=run, strong=_efficiency(run, strong), weak=_efficiency(run, weak)) for run in ordered),
        kind=chosen,
        gains=_gains(family),
        pays=pays,
        notes=tuple(_notes(ordered, chosen)),
    )


def _check(runs: Sequence[Measured], usable: Sequence[Measured]) -> None:
    units = sorted({run.unit for run in usable if run.unit})
    if len(units) > 1:
        raise RequestError(f"the runs count {' and '.join(units)}, which cannot be compared; leave out one kind")
    if len(usable) < 2:
        missing = "; ".join(f"{run.name} lacks {_lacks(run)}" for run in runs if not run.per_device)
        raise RequestError(f"scaling needs two runs whose throughput and devices are known{missing and ': '}{missing}")


def _lacks(run: Measured) -> str:
    parts = [word for word, value in (("a throughput", run.rate), ("a number of devices", run.devices)) if not value]
    return " and ".join(parts)


def _families(runs: Sequence[Measured], share: Callable[[int], float]) -> list[list[Measured]]:
    """The runs of at least two sizes whose work, divided by *share*, is the same."""
    known = [(run.work_unit, run.work / share(run.devices), run) for run in runs if run.work and run.devices]
    families: list[list[Measured]] = []
    unit, least = None, 0.0
    for work_unit, work, run in sorted(known, key=lambda each: (each[0] or "", each[1])):
        if not families or work_unit != unit or work > least * SAME:
            families.append([])
            unit, least = work_unit, work
        families[-1].append(run)
    return [family for family in families if _sizes(family) > 1]


def _sizes(family: Sequence[Measured]) -> int:
    return len({run.devices for run in family})


def _largest(strong: list[list[Measured]], weak: list[list[Measured]]) -> tuple[Kind | None, list[Measured]]:
    kinds: list[tuple[Kind, list[Measured]]] = [("strong", family) for family in strong if _sizes(family) > 1]
    kinds += [("weak", family) for family in weak if _sizes(family) > 1]
    return max(kinds, key=lambda pair: _sizes(pair[1])) if kinds else (None, [])


def _efficiency(run: Measured, families: Iterable[list[Measured]]) -> float | None:
    family = next((family for family in families if any(run is each for each in family)), None)
    if family is None or run.per_device is None:
        return None
    return run.per_device / _rate_of_least(family)


def _rate_of_least(family: Sequence[Measured]) -> float:
    """Items a second of one device of the smallest run; of several of one size the median."""
    least = min(run.devices or 0 for run in family)
    return median(run.per_device or 0.0 for run in family if run.devices == least)


def _gains(family: Sequence[Measured]) -> tuple[Gain, ...]:
    by_size = {run.devices or 0: run for run in sorted(family, key=lambda run: run.devices or 0)}
    rates = {size: median(run.rate or 0.0 for run in family if run.devices == size) for size in by_size}
    least = _rate_of_least(family) if family else 1.0
    return tuple(
        Gain(before=by_size[low], after=by_size[high], gain=(rates[high] - rates[low]) / (high - low) / least)
        for low, high in pairwise(by_size)
    )


def _notes(runs: Sequence[Measured], kind: Kind | None) -> Iterable[str]:
    for run in runs:
        if not run.per_device:
            yield f"Left out of the comparison: {run.name}, which lacks {_lacks(run)}"
    unknown = [run.name for run in runs if run.per_device and not run.work]
    if kind is None and unknown:
        yield (
            f"The work of a step is not in the log of {', '.join(unknown)}, so it is not known whether the scaling is"
            " strong or weak; say it with --kind"
        )
    elif kind is None:
        yield "No two sizes have the same work in a step (strong) or on a device (weak), so nothing is compared"
