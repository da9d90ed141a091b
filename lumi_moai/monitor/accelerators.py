"""The virtual accelerators that a user has: the default one, and one for each run under way. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..flavor import Flavor
from ..site import Device, Site
from .job import Reading
from .runs import Run
from .sample import Process, Sample, packages


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One row of the table. Idle without a `run`; a run without values says why in `reading.why`."""

    number: int
    name: str
    default: bool
    flavor: Flavor | None
    """None where the user chose none yet, or the run's flavor is no longer on the menu."""
    device: Device | None = None
    run: Run | None = None
    reading: Reading | None = None

    @property
    def model(self) -> str:
        """The flavor as MoAI's tables show it."""
        if self.flavor is not None:
            return self.flavor.full_name
        return self.run.flavor if self.run else "-"

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The devices of the run as last seen, node by node."""
        return self.reading.look.samples if self.reading else ()

    @property
    def complete(self) -> bool:
        """Whether all devices of the run were seen; the sum of a part is not the accelerator's."""
        return self.run is not None and len(self.samples) == self.run.devices

    @property
    def processes(self) -> tuple[Process, ...]:
        """The processes that hold memory of the devices."""
        return self.reading.look.processes if self.reading else ()

    @property
    def memory_used_mib(self) -> float | None:
        """Summed over all devices of the run; None where a device does not tell."""
        return _sum(sample.memory_used_mib for sample in self.samples) if self.complete else None

    @property
    def memory_total_mib(self) -> int | None:
        """Memory of all devices of the run by the device file; None for an idle accelerator, which holds none."""
        return self.device.memory_mib * self.run.devices if self.device and self.run else None

    @property
    def utilisation_percent(self) -> float | None:
        """The whole accelerator's: 100 when every device is busy all the time, so the mean over its devices."""
        total = _sum(sample.utilisation_percent for sample in self.samples) if self.complete else None
        return None if total is None else total / len(self.samples)

    @property
    def packages(self) -> tuple[tuple[Sample, ...], ...]:
        """The devices grouped by shared power sensor."""
        return packages(self.samples, self.device.per_package if self.device else 1)

    @property
    def power_watts(self) -> float | None:
        """Summed over the packages that have a reading; None when none has."""
        watts = [group[0].power_watts for group in self.packages if group[0].power_watts is not None]
        return sum(watts) if watts else None

    @property
    def pid(self) -> int | None:
        """The process that stands for the run: the lowest number on the first device of its first node."""
        first = min((process.device or 0 for process in self.processes), default=0)
        nodes = [sample.node for sample in self.samples[:1]]
        pids = [p.pid for p in self.processes if p.node in nodes and (p.device or 0) == first]
        return min(pids) if pids else (self.run.pid if self.run else None)

    def as_json(self) -> dict[str, Any]:
        """The device in `smi --json`; numbers that are not known are null."""
        return {
            "device": self.number,
            "default": self.default,
            "name": self.name,
            "flavor": self.flavor.name if self.flavor else None,
            "model": self.model,
            "job_id": self.run.job_id if self.run else None,
            "account": self.run.account if self.run else None,
            "memory_used_mib": self.memory_used_mib,
            "memory_total_mib": self.memory_total_mib,
            "utilisation_percent": self.utilisation_percent,
            "power_watts": self.power_watts,
            "source": self.reading.source if self.reading else None,
            "why_no_values": self.reading.why if self.reading else None,
            "samples": list(self.reading.look.as_json()["samples"]) if self.reading else [],
        }

    def process_json(self) -> dict[str, Any]:
        """The run in `smi --json`'s `processes`."""
        return {
            "device": self.number,
            "job_id": self.run.job_id if self.run else None,
            "pid": self.pid,
            "process": self.run.command if self.run else None,
            "memory_used_mib": self.memory_used_mib,
            "processes": list(self.reading.look.as_json()["processes"]) if self.reading else [],
        }


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None when there is nothing to add or one of them is not known: a part is not the whole."""
    known = list(values)
    numbers = [value for value in known if value is not None]
    return sum(numbers) if numbers and len(numbers) == len(known) else None


def accelerators(site: Site, menu: Sequence[Flavor], default: str | None, runs: Sequence[Run]) -> list[Accelerator]:
    """Row 0 is the default accelerator, the flavor called *default*; the newest of *runs* with that flavor is on it.

    Every other run is an accelerator of its own, oldest first, since a run keeps its flavor. No values yet.
    """
    flavors = {flavor.name: flavor for flavor in menu}
    on_default = next((run for run in reversed(runs) if run.flavor == default), None)
    rows: list[Run | None] = [on_default, *(run for run in runs if run is not on_default)]
    return [
        Accelerator(
            number=number,
            name=site.device_name,
            default=number == 0,
            flavor=flavors.get(run.flavor if run else default or ""),
            device=site.device(site.node(site.partition(run.partition))) if run else None,
            run=run,
        )
        for number, run in enumerate(rows)
    ]
